//! What the benchmarks send to a server whose registry is a generated one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Drive, NextRequest, drive, post};
use crate::population::{SEED, next_random};
use crate::target::Target;

/// Checks in one batch call.
pub const CHECKS_PER_CALL: usize = 10_000;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The body of a check of a holder by organization 1.
pub fn check_body(holder: u64) -> String {
    let terminal = gateway::generator::first_terminal(1);
    let code = gateway::generator::client_code(holder);
    format!(r#"{{"serviceId":1,"organizationTerminalId":{terminal},"clientCode":"{code}"}}"#)
}

/// A batch call that checks as many random holders as fit.
pub fn batch_of_checks(token: &str, holders: u64, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut one = || check_body(next_random(&mut state) % holders + 1);
    let items: Vec<String> = (0..CHECKS_PER_CALL).map(|_| one()).collect();
    post("/api/v2/checks", token, &format!(r#"{{"checks":[{}]}}"#, items.join(",")))
}

/// The confirms of all transactions that a batch call has opened.
pub fn confirms_of(answer: &str, token: &str) -> Vec<Rc<Vec<u8>>> {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    let opened = answer["results"].as_array().unwrap().iter();
    let opened = opened.filter(|result| result["resultCode"] == 0);
    let confirm = |result: &serde_json::Value| {
        let body = format!(
            r#"{{"clientId":{},"benefitCategoryId":{},"transactionId":{},"price":300,"discountedPrice":100}}"#,
            result["clientId"],
            result["benefits"][0]["benefitCategory"]["id"],
            result["transactionId"]
        );
        Rc::new(post("/api/ConfirmTransaction", token, &body))
    };
    opened.map(confirm).collect()
}

/// A token of organization 1.
pub fn token(target: &Target, tls: Option<Arc<rustls::ClientConfig>>) -> String {
    let credentials = gateway::generator::credentials(1, SEED);
    token_of(target, tls, &credentials.client_id, &credentials.client_secret)
}

/// A token of the organization with these credentials.
pub fn token_of(
    target: &Target,
    tls: Option<Arc<rustls::ClientConfig>>,
    client_id: &str,
    client_secret: &str,
) -> String {
    let body = format!(
        "client_id={client_id}&client_secret={client_secret}&grant_type=client_credentials&scope=ECS.WebAPI+OrganizationAPI"
    );
    let head = "POST /connect/token HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let answer: serde_json::Value =
        serde_json::from_str(&answer_to(target, tls, request.into_bytes())).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// The body of the answer to one request, which must be a 200.
pub fn answer_to(
    target: &Target,
    tls: Option<Arc<rustls::ClientConfig>>,
    request: Vec<u8>,
) -> String {
    let (request, sent) = (Rc::new(request), Cell::new(false));
    let once: NextRequest = Rc::new(move || (!sent.replace(true)).then(|| request.clone()));
    let plan = Drive { address: target.http, tls, connections: 1, duration: PATIENCE };
    let driven = drive(&plan, &once);
    assert_eq!(driven.failures, 0, "{}", driven.sample);
    driven.sample
}
