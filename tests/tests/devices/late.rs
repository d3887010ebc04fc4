//! A server that grants, but too late for the passenger at the door.

use std::time::Instant;

use serde_json::json;
use tests::agent::Shelved;
use tests::calls::CONFIRM;
use tests::carrier::{BUS, Carrier, V1, code, ride};
use tests::devices::PATIENCE;
use tests::relay::Relay;

use crate::{TEN, X, decided};

/// The device has decided alone when the grant comes: one use must not be there twice, as the device's
/// trip and as a transaction that nobody settles.
#[test]
fn a_grant_that_comes_behind_its_deadline_is_cancelled() {
    let carrier = Carrier::set(TEN, &[]);
    carrier.build();
    carrier.bring_up_to(V1, 1);
    let relay = Relay::to(carrier.server.quic.unwrap());
    let device = Shelved { check_ms: 300, ..carrier.device(V1) };
    let mut agent = device.start(&carrier.depot, relay.address, 0);
    agent.wait_status(|status| status["linked"] == true);
    relay.mute();
    let begun = Instant::now();
    let granted = agent.tap(&code(X), &ride(BUS, "A"));
    println!("decided alone after {:?}", begun.elapsed());
    assert_eq!(decided(&granted), ("GRANT", "offline", ""));
    relay.unmute();
    let messages = |kind: &str| {
        let name = format!("eligo_link_messages_total{{kind=\"{kind}\"}} ");
        let metrics = carrier.server.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.parse::<u64>().unwrap()
    };
    let until = Instant::now() + PATIENCE;
    while messages("cancel") == 0 {
        assert!(Instant::now() < until, "the grant was not cancelled");
    }
    assert_eq!((messages("check"), messages("confirm")), (1, 0));
    assert_eq!(agent.reported(1), (1, 0));
    agent.end();
    let claim = carrier.claim();
    assert_eq!((&claim["lines"], &claim["total"]), (&json!(1), &json!(250.0)));
    // The number of the only check names nothing any more.
    let confirm = json!({"clientId": 11, "benefitCategoryId": 40, "transactionId": 1});
    let confirm = carrier.server.client().call(&carrier.token(), CONFIRM, &confirm.to_string());
    assert_eq!(confirm.error(), (404, Some(106)));
}
