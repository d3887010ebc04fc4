//! What the settings change in the answers, against the started server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use tests::calls::{CANCEL, CHECK, CHECKS, CONFIRM, HISTORY, OK_CHECK, SERVICES, Y8A};
use tests::http::{Client, Response};
use tests::server::ADMIN_TOKEN;
use tests::stage::Stage;

const O3_CHECK: &str =
    r#"{"serviceId":3,"organizationTerminalId":30,"clientCode":"AAABBBCCC","price":150.5}"#;

/// The ids of the answered categories.
fn benefits(answer: &serde_json::Value) -> Vec<u64> {
    let benefits = answer["benefits"].as_array().unwrap().iter();
    benefits.map(|benefit| benefit["benefitCategory"]["id"].as_u64().unwrap()).collect()
}

/// How many confirmed transactions the history has of the holder of the fixture.
fn confirmed(stage: &Stage) -> u64 {
    let june = r#"{"clientCode":"AAABBBCCC","dateFrom":"2025-06-01","dateTo":"2025-06-30"}"#;
    stage.call(&stage.o9, HISTORY, june).json()["totalItems"].as_u64().unwrap()
}

#[test]
fn all_benefits_are_answered_where_wished() {
    let stage = Stage::set_with(&["--benefits", "all"]);
    stage.exact(
        &stage.o1,
        CHECK,
        OK_CHECK,
        (
            200,
            r#"{"resultCode":0,"transactionId":1,"clientId":1,"benefits":[{"benefitCategory":{"id":20,"name":"Ветеран труда"}},{"benefitCategory":{"id":30,"name":"Многодетная семья"}}]}"#,
        ),
    );
    // The transaction is that of the first.
    stage.error(&stage.o1, CONFIRM, &Y8A.replace("20", "30"), (409, 108));
    stage.exact(&stage.o1, CONFIRM, Y8A, (200, ""));
    let batch = stage.call(&stage.o1, CHECKS, &format!(r#"{{"checks":[{OK_CHECK}]}}"#)).json();
    assert_eq!(benefits(&batch["results"][0]), [20, 30]);
    assert_eq!(benefits(&stage.call(&stage.o3, CHECK, O3_CHECK).json()), [20]);
}

#[test]
fn a_limit_that_a_check_exhausts_hides_no_benefit() {
    let stage = Stage::set_with(&["--benefits", "all"]);
    let limited = r#"{"kind":"service","id":5,"name":"Баня","service_kind":"visit","categories":[{"category":20,"limit":{"count":1,"period":"day"}},{"category":30}]}
{"kind":"offer","organization":1,"service":5}"#;
    assert_eq!(stage.server.import(limited).status, 200);
    let check = OK_CHECK.replace(r#""serviceId":1"#, r#""serviceId":5"#);
    for expected in [vec![20, 30], vec![30]] {
        assert_eq!(benefits(&stage.call(&stage.o1, CHECK, &check).json()), expected);
    }
}

#[test]
fn an_explanation_is_that_of_the_answer() {
    let stage = Stage::set();
    let limited = r#"{"kind":"service","id":5,"name":"Баня","service_kind":"visit","categories":[{"category":10},{"category":20,"limit":{"count":1,"period":"day"}},{"category":30,"limit":{"count":1,"period":"day"}}]}
{"kind":"offer","organization":1,"service":5}"#;
    assert_eq!(stage.server.import(limited).status, 200);
    let check = OK_CHECK.replace(r#""serviceId":1"#, r#""serviceId":5"#);
    let body = format!(r#"{{"checks":[{check},{check},{check}],"explain":true}}"#);
    let answer = stage.call(&stage.o1, CHECKS, &body).json();
    let expected = [
        ["notValidToday", "wins", "outranked"],
        ["notValidToday", "limitReached", "wins"],
        ["notValidToday", "limitReached", "limitReached"],
    ];
    for (result, expected) in answer["results"].as_array().unwrap().iter().zip(expected) {
        let explain = result["explain"].as_array().unwrap().iter();
        let verdicts: Vec<&str> = explain.map(|one| one["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, expected, "{answer}");
    }
}

#[test]
fn organizations_of_type_3_confirm_where_allowed() {
    let confirm = Y8A.replace("300", "150.5");
    let stage = Stage::set();
    assert_eq!(benefits(&stage.call(&stage.o3, CHECK, O3_CHECK).json()), [20]);
    stage.error(&stage.o3, CONFIRM, &confirm, (403, 103));
    assert_eq!(confirmed(&stage), 1);

    let stage = Stage::set_with(&["--type3-confirm", "allow"]);
    for transaction in [1, 2] {
        let answer = stage.call(&stage.o3, CHECK, O3_CHECK).json();
        assert_eq!((benefits(&answer), &answer["transactionId"]), (vec![20], &json!(transaction)));
    }
    assert_eq!(confirmed(&stage), 0);
    stage.exact(&stage.o3, CONFIRM, &confirm, (200, ""));
    stage.exact(&stage.o3, CONFIRM, &confirm, (200, ""));
    stage.exact(&stage.o3, CANCEL, r#"{"clientId":1,"transactionId":2}"#, (200, ""));
    assert_eq!(confirmed(&stage), 1);
    let batch = stage.call(&stage.o3, CHECKS, &format!(r#"{{"checks":[{O3_CHECK}]}}"#)).json();
    assert_eq!(benefits(&batch["results"][0]), [20]);
    assert_eq!(confirmed(&stage), 1);
    assert!(stage.server.metrics().contains("eligo_leniency_type3_confirm_total 2"));
}

#[test]
fn an_organization_that_calls_too_often_is_refused() {
    let limits = ["--organization-calls-per-second", "2", "--organization-calls-burst", "3"];
    let stage = Stage::set_with(&limits);
    let mut client = stage.server.client();
    let status = |answer: &Response| answer.status;
    let calls = (0..5).map(|_| status(&client.call(&stage.o1, CHECK, OK_CHECK)));
    assert_eq!(calls.collect::<Vec<_>>(), [200, 200, 200, 429, 429]);
    stage.error(&stage.o1, SERVICES, "{}", (429, 130));
    // Others have a bucket of their own, and the refused one a second later two calls more.
    assert_eq!(status(&stage.call(&stage.o3, CHECK, O3_CHECK)), 200);
    stage.server.set_clock("2025-06-02T10:00:01Z");
    let calls = (0..3).map(|_| status(&client.call(&stage.o1, CHECK, OK_CHECK)));
    assert_eq!(calls.collect::<Vec<_>>(), [200, 200, 429]);
    // A batch counts as its checks: twenty of them after a full pause owe seventeen.
    stage.server.set_clock("2025-06-02T10:01:00Z");
    let batch = format!(r#"{{"checks":[{}]}}"#, [OK_CHECK; 20].join(","));
    assert_eq!(client.call(&stage.o1, CHECKS, &batch).json()["results"][19]["resultCode"], 0);
    stage.server.set_clock("2025-06-02T10:01:08.999Z");
    stage.error(&stage.o1, CHECKS, &batch, (429, 130));
    stage.server.set_clock("2025-06-02T10:01:09Z");
    assert_eq!(status(&client.call(&stage.o1, CHECK, OK_CHECK)), 200);
    let metrics = stage.server.metrics();
    let refused = r#"eligo_requests_total{carrier="none",method="check",outcome="too_many"} 3"#;
    assert!(metrics.contains(refused));
}

#[test]
fn a_batch_answers_what_single_checks_do() {
    let (one, many) = (Stage::set(), Stage::set());
    let limited = r#"{"kind":"service","id":5,"name":"Баня","service_kind":"visit","categories":[{"category":20,"limit":{"count":3,"period":"day"}}]}
{"kind":"offer","organization":1,"service":5}"#;
    assert!([&one, &many].iter().all(|stage| stage.server.import(limited).status == 200));
    let check = |(service, terminal, code): (u32, u32, &str)| {
        format!(
            r#"{{"serviceId":{service},"organizationTerminalId":{terminal},"clientCode":"{code}"}}"#
        )
    };
    let kinds = [
        (1, 2, "AAABBBCCC"),
        (5, 2, "AAABBBCCC"),
        (1, 2, "AAABBBCC0"),
        (1, 2, "DDDEEEFFF"),
        (1, 2, "ZZZ"),
        (1, 20, "AAABBBCCC"),
        (99, 2, "AAABBBCCC"),
        (1, 2, "SIXTEEN-LETTERS!"),
    ];
    let checks: Vec<String> = kinds.iter().cycle().take(600).map(|kind| check(*kind)).collect();
    let mut client = one.server.client();
    let single: Vec<_> =
        checks.iter().map(|check| client.call(&one.o1, CHECK, check).json()).collect();
    let body = format!(r#"{{"checks":[{}]}}"#, checks.join(","));
    let batch = many.call(&many.o1, CHECKS, &body).json();
    assert_eq!(batch["results"].as_array().unwrap(), &single);
    assert_eq!(single.iter().filter(|answer| answer["resultCode"] == 0).count(), 75 + 3);
}

#[test]
fn refused_bodies_of_the_administration_spoil_no_connection() {
    let stage = Stage::set_with(&["--body-timeout-ms", "1000"]);
    let mut client = Client::connect(stage.server.admin);
    let right = format!("Authorization: Bearer {ADMIN_TOKEN}");
    let body = "x".repeat(20_000);
    let mut check = |path: &str, headers: &[&str], expected: u16| {
        let answer = client.post(path, headers, body.as_bytes());
        assert_eq!(answer.status, expected, "{path}");
        assert_eq!(client.get("/healthz").body, "ok\n", "{path}");
    };
    check("/nowhere", &[], 404);
    check("/healthz", &[], 405);
    check("/admin/import", &[], 401);
    check("/admin/import", &["Authorization: Bearer wrong"], 401);
    check("/admin/clock", &[&right], 400);
    check("/admin/import", &[&right], 400);

    // What is too large to be forgotten ends the connection, with its answer.
    let mut client = Client::connect(stage.server.admin);
    let head = "POST /admin/import HTTP/1.1\r\nHost: eligo\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(head.as_bytes()).unwrap();
    let chunk = format!("4e20\r\n{body}\r\n");
    (0..4).for_each(|_| client.send(chunk.as_bytes()).unwrap());
    assert_eq!(client.read_response().unwrap().status, 401);
    while client.send(chunk.as_bytes()).is_some() {}
}
