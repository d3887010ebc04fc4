//! A server that is told to end in the middle of a snapshot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use tests::calls::{BOTH, CHECK, CONFIRM, HISTORY};
use tests::fixture;
use tests::http::Client;
use tests::server::{ADMIN_TOKEN, Server};

const HOLDERS: u64 = 20_000;
const FIRST_HOLDER: u64 = 1_000;
/// Holders between two who are served.
const STEP: u64 = 997;

/// A snapshot in hand is given up, so the end does not wait for it; the snapshot before it and the
/// journal bring everything back.
#[test]
fn a_stop_does_not_wait_for_a_snapshot_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let registry = directory.path().join("registry.ndjson");
    std::fs::write(&registry, registry_with_many()).unwrap();
    let data = directory.path().join("data");
    let registry = registry.display().to_string();
    let clock = ["--clock", &format!("manual:{}", fixture::NOW)];
    let server = Server::start(&data, &[&clock[..], &["--import", &registry]].concat());
    let mut confirms = vec![serve(&server, FIRST_HOLDER)];
    server.save_snapshot();
    confirms.push(serve(&server, FIRST_HOLDER + STEP));
    let admin = server.admin;
    let order = std::thread::spawn(move || {
        let authorization = format!("Authorization: Bearer {ADMIN_TOKEN}");
        Client::connect(admin).try_post("/admin/snapshot", &[&authorization], b"")
    });
    let second = data.join("snapshots/partition-00000/generation-00000000000000000002");
    while !second.exists() {
        std::thread::yield_now();
    }
    confirms.push(serve(&server, FIRST_HOLDER + 2 * STEP));
    let (log, told_at) = (server.log(), Instant::now());
    assert_eq!(server.terminate(), Some(0));
    let answer = order.join().unwrap().map(|answer| answer.status);
    let (took, complete) = (told_at.elapsed(), is_complete(&second));
    println!("ended after {took:?}, the snapshot answered {answer:?}, complete: {complete}");
    assert!(matches!(answer, Some(200 | 503)), "{answer:?}");
    assert_eq!(log.alarms(), Vec::<String>::new());

    let server = Server::start(&data, &clock);
    for (confirm, number) in confirms.iter().zip(0..) {
        let token = server.token("100", "s", BOTH);
        let again = server.client().call(&token, CONFIRM, confirm);
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!(history_length(&server, FIRST_HOLDER + number * STEP), 1);
    }
    server.save_snapshot();
    assert_eq!(server.log().alarms(), Vec::<String>::new());
}

fn is_complete(generation: &Path) -> bool {
    generation.with_extension("complete").exists()
}

/// Checks and confirms; returns the confirm.
fn serve(server: &Server, holder: u64) -> String {
    let token = server.token("100", "s", BOTH);
    let mut client = server.client();
    let code = client_code(holder);
    let check = format!(r#"{{"serviceId":1,"organizationTerminalId":100,"clientCode":"{code}"}}"#);
    let checked = client.call(&token, CHECK, &check).json();
    let transaction = &checked["transactionId"];
    let confirm = format!(
        r#"{{"clientId":{holder},"benefitCategoryId":20,"transactionId":{transaction},"price":300,"discountedPrice":100}}"#
    );
    assert_eq!(client.call(&token, CONFIRM, &confirm).status, 200, "{checked}");
    confirm
}

fn history_length(server: &Server, holder: u64) -> usize {
    let token = server.token("900", "s900", "ECS.WebAPI");
    let code = client_code(holder);
    let body = format!(
        r#"{{"clientCode":"{code}","dateFrom":"2025-06-01","dateTo":"2025-12-31","pageIndex":0,"pageSize":10}}"#
    );
    let answer = server.client().call(&token, HISTORY, &body).json();
    answer["pageItems"].as_array().unwrap().len()
}

fn client_code(holder: u64) -> String {
    format!("STOP{holder}")
}

/// Fixture "F" with a desk and so many holders that a snapshot takes a while.
fn registry_with_many() -> String {
    let mut lines = fixture::REGISTRY.trim_end().to_owned();
    lines.push_str(
        r#"
{"kind":"organization","id":100,"client_id":"100","client_secret":"s","short_name":"Касса","connection":"T2V2","state":"active","area":1,"ip_allow":["127.0.0.1/32"],"categories":[20]}
{"kind":"offer","organization":100,"service":1}
{"kind":"terminal","id":100,"organization":100}"#,
    );
    for id in FIRST_HOLDER..FIRST_HOLDER + HOLDERS {
        let code = client_code(id);
        let _infallible = write!(
            lines,
            "\n{{\"kind\":\"holder\",\"id\":{id},\"region\":\"14\",\
             \"cards\":[{{\"type\":\"ecs\",\"client_code\":\"{code}\"}}],\
             \"categories\":[{{\"category\":20}}]}}"
        );
    }
    lines
}
