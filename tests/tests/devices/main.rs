//! Rows S1 to S8 of the acceptance table with everything started for real: `eligo serve` with its link,
//! certificates, and `eligo-validator` driven by JSON lines. What another file shows from end to end is
//! not repeated here:
//!
//! | row | here | elsewhere |
//! |---|---|---|
//! | S1 | what readers read, through the agent | `link.rs`: every digest over the link, answers of HTTP |
//! | S2 | versions 5 and 1 to 7 into the agent's files | `kit.rs`: files, deltas, damage, what is in them |
//! | S3 | all of it | |
//! | S4 | over the link, with a power cut | `trips.rs`: over HTTP, byte for byte, with power cuts |
//! | S5 | all of it | `trip_book.rs`: the rule |
//! | S6 | all of it | `kit.rs`: how tickets are signed |
//! | S7 | | `trips.rs`: byte for byte, with the cabinet and the files |
//! | S8 | on the device and in the claim | `trip_book.rs`: the rule |
//!
//! Besides: blocks reach devices that have a link and those that get one later, and grants that come
//! too late are cancelled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_bytes::ByteArray;
use serde_json::{Value, json};
use tests::agent::Agent;
use tests::carrier::{BLOCKED, BUS, Carrier, TRAIN, V1, V2, code, ride, run};
use tests::devices::{PATIENCE, connect};
use validator::link::message::RegistryForm;
use validator::trip::{Trip, TripReason, TripStatus};

use crate::uploads::{TEN_MS, trip, upload};

mod installing;
mod late;
mod streams;
mod uploads;

const TEN: &str = "2025-06-02T10:00:00Z";
const X: &str = "HXHXHX01";
const Y: &str = "HYHYHY01";

/// What was decided, by whom, and why.
fn decided(answer: &Value) -> (&str, &str, &str) {
    let text = |name: &str| answer[name].as_str().unwrap_or_default();
    (text("verdict"), text("mode"), text("reason"))
}

#[test]
fn s1_whatever_a_reader_reads_finds_the_holder() {
    let carrier = Carrier::set(TEN, &[]);
    let mut agent = carrier.online(V1, 0);
    let cards = [
        json!({"mifare_uid": "04:BC:D4:C2:E0:5C:80"}),
        json!({"hash_pan": {"key_id": "One", "hash": "1f52ed515871c913164398ec24c47088"}}),
        json!({"qr": "9645010000000019"}),
        json!({"barcode": "9643902401015000018 24010125"}),
        json!({"social_card": {"number": "9643902401015000018", "series": "24010125"}}),
        json!({"num_sid": "9645010000000019"}),
        json!({"par": "V0010013022298169667504231315"}),
        json!({"card_hash": "1f52ed515871c913164398ec24c47088"}),
        code(X),
    ];
    for (at, card) in cards.iter().enumerate() {
        let granted = agent.tap(card, &ride(BUS, &format!("stop {at}")));
        assert_eq!(decided(&granted), ("GRANT", "online", ""), "{card}");
        assert_eq!((&granted["category"], &granted["discount"]), (&json!(40), &json!(100)));
        assert_eq!(granted["to_pay"], 0);
    }
    let refused = agent.tap(&code(Y), &ride(BUS, ""));
    assert_eq!(decided(&refused), ("DENY_NO_RIGHT", "online", ""));
    let unknown = agent.tap(&code("NOBODY"), &ride(BUS, ""));
    assert_eq!(decided(&unknown), ("DENY_UNKNOWN", "online", ""));
    assert_eq!(agent.reported(9), (9, 0));
    let claim = carrier.claim();
    assert_eq!((&claim["lines"], &claim["total"]), (&json!(9), &json!(2250.0)));
    assert_eq!(carrier.server.log().alarms(), Vec::<String>::new());
}

#[test]
fn s2_registries_reach_devices() {
    let carrier = Carrier::set(TEN, &["--registry-delta-versions", "2"]);
    for version in 1..=7 {
        let holder = format!(
            r#"{{"kind":"holder","id":{0},"region":"14","cards":[{{"type":"ecs","client_code":"RIDER{0}"}}],"categories":[{{"category":40}}]}}"#,
            100 + version
        );
        assert_eq!(carrier.server.import(&holder).status, 200);
        assert_eq!(carrier.build(), version);
        match version {
            1 => carrier.bring_up_to(V2, 1),
            5 => carrier.bring_up_to(V1, 5),
            _ => {}
        }
    }
    run(async {
        let dialer = carrier.depot.dialer(V1);
        let connected = connect(&dialer, carrier.server.quic.unwrap(), V1).await.unwrap();
        for (have, form) in [(5, RegistryForm::Delta), (1, RegistryForm::Full)] {
            let (offer, _parts) = connected.link.pull(have, PATIENCE).await.unwrap();
            assert_eq!((offer.form, offer.version), (form, 7));
        }
    });
    let built: Vec<Vec<u8>> = files(&carrier.data_dir().join("registries/10"));
    for terminal in [V1, V2] {
        carrier.bring_up_to(terminal, 7);
        let home = carrier.device(terminal).data_dir;
        let installed = fs::read(home.join("registries/registry-00000000000000000007")).unwrap();
        assert!(built.contains(&installed), "{terminal}");
        let mut offline = carrier.offline(terminal, 0);
        let granted = offline.tap(&code("RIDER107"), &ride(BUS, ""));
        assert_eq!(decided(&granted), ("GRANT", "offline", ""));
        offline.end();
        let personal = ["11223344595", "9643902401015000018", "9645010000000019", "RIDER107"];
        let kept = [files(&home.join("registries")), files(&home.join("state"))].concat();
        assert!(kept.len() >= 3);
        for text in personal.map(str::as_bytes) {
            let found = kept.iter().any(|file| file.windows(text.len()).any(|at| at == text));
            assert!(!found, "{}", String::from_utf8_lossy(text));
        }
    }
}

fn files(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn s3_without_a_server_the_registry_decides_until_it_ends() {
    let mut carrier = Carrier::set("2025-06-02T00:00:00Z", &[]);
    (1..=7).for_each(|version| assert_eq!(carrier.build(), version));
    let mut agent = carrier.online(V1, 0);
    agent.wait_status(|status| status["registry_version"] == 7);
    agent.wait_status(|status| status["clock_offset_ms"].as_i64() > Some(60_000));
    agent.end();
    carrier.server.halt();
    let check = |agent: &mut Agent, holder: &str, stop: &str, expected| {
        let answer = agent.tap(&code(holder), &ride(BUS, stop));
        assert_eq!(decided(&answer), (expected, "offline", ""), "{holder} {stop}");
        answer
    };
    let mut agent = carrier.offline(V1, 10 * 3_600);
    let granted = check(&mut agent, X, "A", "GRANT");
    assert_eq!((&granted["registry_version"], &granted["discount"]), (&json!(7), &json!(100)));
    check(&mut agent, "NOBODY", "A", "DENY_UNKNOWN");
    check(&mut agent, Y, "A", "DENY_NO_RIGHT");
    agent.end();
    let mut agent = carrier.offline(V1, 49 * 3_600);
    check(&mut agent, X, "B", "DENY_STALE");
    assert_eq!(agent.ask(json!({"do": "status"}))["registry_valid"], false);
    agent.end();
    // What was granted is reported once the server is there again, and is paid for.
    carrier.start_again("2025-06-04T02:00:00Z", &[]);
    let mut agent = carrier.online(V1, 50 * 3_600);
    assert_eq!(agent.reported(1), (1, 0));
    let claim = carrier.claim();
    assert_eq!((&claim["lines"], &claim["total"]), (&json!(1), &json!(250.0)));
}

/// The rule of the grace is one setting for devices and for the judge of their trips.
#[test]
fn grace_and_interval_are_those_of_the_server() {
    let rules = ["--grace-hours", "2", "--passback-seconds", "60"];
    let carrier = Carrier::set("2025-06-02T00:00:00Z", &rules);
    carrier.build();
    carrier.bring_up_to(V1, 1);
    let check = |ahead: u32, expected: &str| {
        let mut agent = carrier.offline(V1, 49 * 3_600 + ahead);
        let answer = agent.tap(&code(X), &ride(BUS, "A"));
        assert_eq!(decided(&answer), (expected, "offline", ""), "{ahead}");
        agent.end();
    };
    check(0, "GRANT");
    check(90, "GRANT");
    check(7_200, "DENY_STALE");
    carrier.server.set_clock("2025-06-04T02:00:00Z");
    assert_eq!(carrier.online(V1, 50 * 3_600).reported(2), (2, 0));
    assert_eq!(carrier.claim()["lines"], 2);
}

#[test]
fn s5_a_late_block_is_excused_by_a_fresh_registry_alone() {
    let carrier = Carrier::set("2025-05-31T00:00:00Z", &["--registry-valid-hours", "72"]);
    (1..=5).for_each(|version| assert_eq!(carrier.build(), version));
    carrier.bring_up_to(V2, 5);
    carrier.server.set_clock("2025-06-01T00:00:00Z");
    assert_eq!(carrier.build(), 6);
    carrier.server.set_clock("2025-06-02T00:00:00Z");
    assert_eq!(carrier.build(), 7);
    carrier.bring_up_to(V1, 7);
    carrier.server.set_clock("2025-06-02T08:00:00Z");
    assert_eq!(carrier.server.import(BLOCKED).status, 200);
    let nine = 9 * 3_600;
    let aheads = [(V1, 7, nine), (V2, 5, 48 * 3_600 + nine)];
    for (terminal, version, ahead) in aheads {
        let mut agent = carrier.offline(terminal, ahead);
        let granted = agent.tap(&code(X), &ride(BUS, "A"));
        assert_eq!(decided(&granted), ("GRANT", "offline", ""));
        assert_eq!(granted["registry_version"], version);
        agent.end();
    }
    carrier.server.set_clock("2025-06-02T09:10:00Z");
    for ((terminal, _, ahead), expected) in aheads.into_iter().zip([(1, 0), (0, 1)]) {
        let mut agent = carrier.online(terminal, ahead);
        assert_eq!(agent.reported(expected.0 + expected.1), expected, "{terminal}");
        // The device has heard of the block meanwhile.
        let denied = agent.tap(&code(X), &ride(BUS, "B"));
        assert_eq!(denied["verdict"], "DENY_BLOCKED");
    }
    let claim = carrier.claim();
    assert_eq!((&claim["lines"], &claim["total"]), (&json!(1), &json!(250.0)));
    let lines = carrier.lines(&claim);
    assert!(lines.iter().all(|line| line.starts_with("101,")), "{lines:?}");
}

/// A ticket for the bus to H-x; with its number.
fn ticket(carrier: &Carrier, more: &str) -> (String, String) {
    let body =
        format!(r#"{{"serviceId":{BUS},"organizationTerminalId":{V1},"clientCode":"{X}",{more}}}"#);
    let answer = carrier.server.client().call(&carrier.token(), "/api/v2/tickets", &body);
    let answer = answer.json();
    let text = answer["ticket"].as_str().unwrap_or_else(|| panic!("{answer}"));
    (text.to_owned(), answer["transactionId"].to_string())
}

fn board(agent: &mut Agent, holder: &str, ticket: Option<&str>, stop: &str) -> Value {
    let journey = ride(BUS, stop);
    agent.ask(json!({"do": "board", "card": code(holder), "ticket": ticket, "journey": journey}))
}

#[test]
fn s6_boarding_needs_a_ticket_and_the_right() {
    let carrier = Carrier::set(TEN, &[]);
    carrier.build();
    carrier.bring_up_to(V2, 1);
    let hour = r#""validSeconds":3600,"paper":true"#;
    let bound = |more| ticket(&carrier, &format!(r#"{more},"cardRequired":true"#)).0;
    let (first, second, tomorrow) =
        (bound(hour), bound(hour), bound(r#""validDate":"2025-06-03""#));
    let (open, number) = ticket(&carrier, hour);
    let (other, _) = ticket(&carrier, hour);
    let mut agent = carrier.online(V1, 0);
    agent.wait_status(|status| status["registry_version"] == 1);
    let check = |agent: &mut Agent, online: bool, (yes, open): (&str, &str)| {
        let (mode, place) = if online { ("online", "A") } else { ("offline", "B") };
        let granted = board(agent, X, Some(yes), place);
        assert_eq!(decided(&granted), ("GRANT", mode, ""));
        let again = board(agent, X, Some(yes), "elsewhere");
        assert_eq!(decided(&again).0, "DENY_REPEAT");
        // The ticket without the right, the right without the ticket, the ticket of another date.
        let no_right = board(agent, Y, Some(open), place);
        assert_eq!(decided(&no_right), ("DENY_NO_RIGHT", mode, ""));
        for (holder, shown, reason) in [
            (X, None, "there is no ticket"),
            (X, Some(tomorrow.as_str()), "the ticket is not valid yet"),
            (Y, Some(second.as_str()), "the ticket belongs to another card"),
            (X, Some("ELT1:"), "the ticket is damaged"),
        ] {
            let refused = board(agent, holder, shown, "C");
            assert_eq!(decided(&refused), ("DENY_NO_RIGHT", "offline", reason));
        }
    };
    check(&mut agent, true, (&first, &other));
    // A ticket that needs no card is a card itself.
    let show = json!({"do": "ticket", "text": open, "journey": ride(BUS, "A")});
    assert_eq!(decided(&agent.ask(show.clone())), ("GRANT", "offline", ""));
    let another = json!({"do": "ticket", "text": other, "journey": ride(BUS, "A")});
    assert_eq!(decided(&agent.ask(another.clone())), ("GRANT", "offline", ""));
    assert_eq!(decided(&agent.ask(show.clone())).0, "DENY_REPEAT");
    assert_eq!(agent.reported(3), (3, 0));
    agent.end();
    let unused = ticket(&carrier, hour).0;
    let mut agent = carrier.offline(V2, 0);
    check(&mut agent, false, (&second, &unused));
    assert_eq!(decided(&agent.ask(show)), ("GRANT", "offline", ""));
    agent.end();
    // The second use of one ticket is accepted as a trip, and not paid for.
    let mut agent = carrier.online(V2, 0);
    assert_eq!(agent.reported(2), (2, 0));
    agent.end();
    let claim = carrier.claim();
    assert_eq!((&claim["lines"], &claim["total"]), (&json!(4), &json!(1000.0)));
    run(forged_tickets_are_rejected(&carrier, &number));
}

/// A trip by a ticket counts only for what the server granted with it.
async fn forged_tickets_are_rejected(carrier: &Carrier, number: &str) {
    let dialer = carrier.depot.dialer(V1);
    let link = connect(&dialer, carrier.server.quic.unwrap(), V1).await.unwrap().link;
    let shown = |seq, ticket: &str| Trip {
        id_hash: ByteArray::new([0; 16]),
        ticket: ticket.to_owned(),
        ..trip(&link, seq, TEN_MS)
    };
    let rejected = Some(TripReason::NoRight);
    let check = async |trip: Trip, status, reason: Option<TripReason>| {
        let ticket = trip.ticket.clone();
        let result = upload(&link, vec![trip]).await[0];
        assert_eq!((result.status, result.reason), (status, reason), "{ticket}");
    };
    check(shown(901, number), TripStatus::Accepted, None).await;
    check(shown(902, "999999999"), TripStatus::Rejected, rejected).await;
    check(shown(903, "0"), TripStatus::Rejected, rejected).await;
    check(shown(904, "paper"), TripStatus::Rejected, rejected).await;
    check(Trip { service: TRAIN, ..shown(905, number) }, TripStatus::Rejected, rejected).await;
    check(Trip { category: Some(41), ..shown(906, number) }, TripStatus::Rejected, rejected).await;
    let amount = Trip { benefit: 24_000, ..shown(907, number) };
    check(amount, TripStatus::Disputed, Some(TripReason::Amount)).await;
    check(shown(908, ""), TripStatus::Rejected, rejected).await;
}

#[test]
fn s8_taps_too_soon_are_refused_on_the_device_and_in_the_claim() {
    let carrier = Carrier::set(TEN, &[]);
    carrier.build();
    carrier.bring_up_to(V2, 1);
    let mut agent = carrier.online(V1, 0);
    agent.wait_status(|status| status["registry_version"] == 1);
    let check = |agent: &mut Agent, (holder, service, stop): (&str, u32, &str), expected| {
        let answer = agent.tap(&code(holder), &ride(service, stop));
        let companion = answer["companion"].as_bool();
        assert_eq!((answer["verdict"].as_str().unwrap(), companion), expected, "{holder} {stop}");
    };
    let (holder, companion) = (("GRANT", Some(false)), ("GRANT", Some(true)));
    let repeat = ("DENY_REPEAT", None);
    check(&mut agent, (X, BUS, "A"), holder);
    check(&mut agent, (X, BUS, "A"), companion);
    check(&mut agent, (X, BUS, "A"), repeat);
    check(&mut agent, (Y, TRAIN, "A"), holder);
    check(&mut agent, (Y, TRAIN, "A"), repeat);
    check(&mut agent, (Y, TRAIN, "B"), holder);
    assert_eq!(agent.reported(4), (4, 0));
    agent.end();
    // A minute later, and past the seven minutes, without a link.
    let mut later = carrier.offline(V1, 60);
    check(&mut later, (Y, TRAIN, "A"), repeat);
    later.end();
    let mut later = carrier.offline(V1, 425);
    check(&mut later, (Y, TRAIN, "A"), holder);
    later.end();
    // Another device at the same stop knows nothing of the first one.
    let mut other = carrier.offline(V2, 30);
    check(&mut other, (Y, TRAIN, "A"), holder);
    other.end();
    carrier.server.set_clock("2025-06-02T10:20:00Z");
    assert_eq!(carrier.online(V2, 430).reported(1), (1, 0));
    // A device that was switched off may report again what it had reported.
    carrier.online(V1, 430).wait_reported();
    let claim = carrier.claim();
    assert_eq!((&claim["lines"], &claim["total"]), (&json!(5), &json!(635.0)));
    let lines = carrier.lines(&claim);
    assert!(lines.iter().all(|line| line.starts_with("101,")), "{lines:?}");
}

#[test]
fn blocks_reach_devices_with_a_link_and_those_that_get_one() {
    let carrier = Carrier::set(TEN, &[]);
    carrier.build();
    carrier.bring_up_to(V2, 1);
    let mut agent = carrier.online(V1, 0);
    agent.wait_status(|status| status["registry_version"] == 1);
    assert_eq!(decided(&agent.tap(&code(X), &ride(BUS, "A"))), ("GRANT", "online", ""));
    assert_eq!(carrier.server.import(BLOCKED).status, 200);
    let begun = Instant::now();
    let took = is_told(&mut agent, begun);
    println!("a block reached a device after {took:?}");
    agent.kill();
    let mut agent = carrier.online(V2, 0);
    is_told(&mut agent, Instant::now());
    agent.end();
    let mut agent = carrier.offline(V2, 0);
    assert_eq!(decided(&agent.tap(&code(X), &ride(BUS, "A"))), ("DENY_BLOCKED", "offline", ""));
    agent.end();
    // A lifted block is told in the same way.
    let free = BLOCKED.replace(r#""status":"blocked","blocked_by":"holder","#, "");
    assert_eq!(carrier.server.import(&free).status, 200);
    let mut agent = carrier.online(V2, 0);
    let begun = Instant::now();
    while agent.tap(&code(X), &ride(BUS, "B"))["granted"] != true {
        assert!(begun.elapsed() < PATIENCE);
    }
}

/// Waits until the device refuses H-x by itself, without asking the server.
fn is_told(agent: &mut Agent, begun: Instant) -> Duration {
    loop {
        let answer = agent.tap(&code(X), &ride(BUS, "Z"));
        assert_eq!(decided(&answer).0, "DENY_BLOCKED");
        if decided(&answer).1 == "offline" {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "the device was not told");
    }
}
