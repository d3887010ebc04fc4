//! Rows Y1 to Y11 and Y13 of the acceptance table, against the started server, byte for byte. And
//! what the administration is asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use engine::ids::ShardId;
use engine::shard_actor::Fault;
use tests::calls::{BOTH, CANCEL, CHECK, CONFIRM, HISTORY, OK_ANSWER, OK_CHECK, SERVICES, Y8A};
use tests::fixture;
use tests::http::Client;
use tests::inside;
use tests::stage::Stage;

const VETERAN: (u32, &str) = (20, "Ветеран труда");

fn check_granted(stage: &Stage, token: &str, body: &str, transaction: u64, category: (u32, &str)) {
    stage.exact(token, CHECK, body, (200, &granted(transaction, category)));
}

fn check_refused(stage: &Stage, token: &str, body: &str, code: u8) {
    let text = match code {
        1 => "У владельца карты ЕЦС отсутствует льгота у данного Акцептанта",
        2 => "Ошибка ввода кода держателя КЖЯ - клиент не найден",
        5 => "Карта ЕЦС имеет неактивный статус",
        7 => "ID участника отсутствует в системе",
        _ => "Код типа услуги не найден",
    };
    let expected = format!(
        r#"{{"resultCode":{code},"resultMessage":"{text}","transactionId":0,"clientId":0,"benefits":[]}}"#
    );
    stage.exact(token, CHECK, body, (200, &expected));
}

fn granted(transaction: u64, (id, name): (u32, &str)) -> String {
    format!(
        r#"{{"resultCode":0,"transactionId":{transaction},"clientId":1,"benefits":[{{"benefitCategory":{{"id":{id},"name":"{name}"}}}}]}}"#
    )
}

#[test]
fn y1_token() {
    let stage = Stage::set();
    let mut client = stage.server.client();
    let answer = client.form("client_id=111&client_secret=aaaabbbbbcccccc&grant_type=client_credentials&scope=ECS.WebAPI+OrganizationAPI");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let json = answer.json();
    assert_eq!(json["token_type"], "Bearer");
    assert_eq!(json["expires_in"], 3600);
    assert_eq!(json["scope"], BOTH);
    assert_eq!(json["access_token"].as_str().unwrap().split('.').count(), 3);
    let mut check = |form: &str, expected: (u16, &str)| {
        let answer = client.form(form);
        assert_eq!((answer.status, answer.body.as_str()), expected, "{form}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    };
    let error = |name: &str| format!(r#"{{"error":"{name}"}}"#);
    let form = |secret: &str, grant: &str, scope: &str| {
        format!("client_id=111&client_secret={secret}&grant_type={grant}&scope={scope}")
    };
    let secret = "aaaabbbbbcccccc";
    let client_credentials = "client_credentials";
    check(&form("x", client_credentials, "ECS.WebAPI"), (401, &error("invalid_client")));
    check(&form(secret, "password", "ECS.WebAPI"), (400, &error("unsupported_grant_type")));
    check(&form(secret, client_credentials, "Foo"), (400, &error("invalid_scope")));
    let body = br#"{"client_id":"111"}"#;
    let answer = client.post("/connect/token", &["Content-Type: application/json"], body);
    assert_eq!((answer.status, answer.body.as_str()), (400, error("invalid_request").as_str()));
    let excluded = client.token("444", "s444", BOTH);
    assert_eq!((excluded.status, excluded.body), (401, error("invalid_client")));
    let discovery = client.get("/.well-known/openid-configuration").json();
    assert!(discovery["token_endpoint"].as_str().unwrap().ends_with("/connect/token"));
}

#[test]
fn y2_bearer_and_scope() {
    let stage = Stage::set();
    let answer = stage.server.client().post(CHECK, &[], OK_CHECK.as_bytes());
    assert_eq!(answer.error(), (401, Some(120)));
    stage.error("no.such.token", CHECK, OK_CHECK, (401, 120));
    stage.error(&stage.o9, CHECK, OK_CHECK, (403, 121));
    stage.server.set_clock("2025-06-02T11:00:01Z");
    stage.error(&stage.o1, CHECK, OK_CHECK, (401, 120));
    let token = stage.server.token("111", "aaaabbbbbcccccc", BOTH);
    check_granted(&stage, &token, OK_CHECK, 1, VETERAN);
    let line = |id: &str| {
        let line = tests::fixture::REGISTRY.lines().find(|line| line.contains(id)).unwrap();
        line.to_owned()
    };
    let rotated = line("aaaabbbbbcccccc").replace("aaaabbbbbcccccc", "rotated");
    assert_eq!(stage.server.import(&rotated).status, 200);
    stage.error(&token, CHECK, OK_CHECK, (401, 120));
    let token = stage.server.token("111", "rotated", BOTH);
    check_granted(&stage, &token, OK_CHECK, 2, VETERAN);
    let excluded = rotated.replace(r#""state":"active""#, r#""state":"excluded""#);
    assert_eq!(stage.server.import(&excluded).status, 200);
    stage.error(&token, CHECK, OK_CHECK, (401, 120));
}

#[test]
fn y3_ip_allow_list() {
    let stage = Stage::set();
    let mut stranger = Client::connect_from("127.0.0.2".parse().unwrap(), stage.server.http);
    assert_eq!(stranger.call(&stage.o1, CHECK, OK_CHECK).error(), (403, Some(122)));
    let authorization = format!("Authorization: Bearer {}", stage.o1);
    let forged = [authorization.as_str(), "X-Forwarded-For: 127.0.0.1"];
    let answer = stranger.post(CHECK, &forged, OK_CHECK.as_bytes());
    assert_eq!(answer.error(), (403, Some(122)));
    let answer = stranger.post("/api/NoSuchMethod", &forged, OK_CHECK.as_bytes());
    assert_eq!(answer.error(), (404, None));
    assert_eq!(stranger.call("no.such.token", CHECK, OK_CHECK).error(), (401, Some(120)));
    check_granted(&stage, &stage.o1, OK_CHECK, 1, VETERAN);
}

#[test]
fn y4_top_benefit() {
    let stage = Stage::set();
    check_granted(&stage, &stage.o1, OK_CHECK, 1, VETERAN);
    let by_card = r#"{"serviceId":1,"organizationTerminalId":2,"cardNumber":"9643901401015000019","cardSeries":"14010125"}"#;
    check_granted(&stage, &stage.o1, by_card, 2, VETERAN);
    stage.server.set_clock("2025-05-31T14:59:59Z");
    check_granted(&stage, &stage.o1, OK_CHECK, 3, (10, "Инвалид I группы"));
    stage.server.set_clock("2025-05-31T15:00:00Z");
    check_granted(&stage, &stage.o1, OK_CHECK, 4, VETERAN);
}

#[test]
fn y5_negative_checks() {
    let stage = Stage::set();
    let check = |service: u32, terminal: u32, code: &str, result: u8| {
        let body = format!(
            r#"{{"serviceId":{service},"organizationTerminalId":{terminal},"clientCode":"{code}"}}"#
        );
        check_refused(&stage, &stage.o1, &body, result);
    };
    check(2, 2, "AAABBBCCC", 1);
    check(1, 2, "ZZZ", 2);
    check(1, 2, "AAABBBCC0", 5);
    check(1, 2, "GGGHHHIII", 5);
    check(1, 20, "AAABBBCCC", 7);
    check(99, 2, "AAABBBCCC", 8);
    check(4, 2, "AAABBBCCC", 8);
    check(1, 2, "DDDEEEFFF", 1);
}

#[test]
fn y6_identifier_rules() {
    let stage = Stage::set();
    let check = |fields: &str, code: i64| {
        let body = format!(r#"{{"serviceId":1,"organizationTerminalId":2{fields}}}"#);
        stage.error(&stage.o1, CHECK, &body, (400, code));
    };
    check("", 101);
    check(r#","clientCode":"AAABBBCCC","clientSnils":"59492311630""#, 104);
    check(r#","cardNumber":"9643901401015000019""#, 101);
    check(r#","clientCode":"ABCDEFGHIJKLMNOP""#, 105);
    check(r#","cardNumber":"964390140101500001X","cardSeries":"14010125""#, 105);
}

#[test]
fn y7_field_by_type() {
    let stage = Stage::set();
    let o1_snils = r#"{"serviceId":1,"organizationTerminalId":2,"clientSnils":"59492311630"}"#;
    stage.error(&stage.o1, CHECK, o1_snils, (400, 102));
    let o2_snils = r#"{"serviceId":1,"organizationTerminalId":20,"clientSnils":"59492311630"}"#;
    check_granted(&stage, &stage.o2, o2_snils, 1, VETERAN);
    let o2_code = r#"{"serviceId":1,"organizationTerminalId":20,"clientCode":"AAABBBCCC"}"#;
    stage.error(&stage.o2, CHECK, o2_code, (400, 102));
    let o3 =
        r#"{"serviceId":3,"organizationTerminalId":30,"clientCode":"AAABBBCCC","price":150.5}"#;
    check_granted(&stage, &stage.o3, o3, 2, VETERAN);
    let o1_price =
        r#"{"serviceId":1,"organizationTerminalId":2,"clientCode":"AAABBBCCC","price":1}"#;
    stage.error(&stage.o1, CHECK, o1_price, (400, 102));
    stage.error(&stage.o2, CHECK, &o2_snils.replace("59492311630", "59492311631"), (400, 105));
}

#[test]
fn y8_confirm() {
    let stage = Stage::set();
    check_granted(&stage, &stage.o1, OK_CHECK, 1, VETERAN);
    for (from, to, code) in [
        (r#""benefitCategoryId":20"#, r#""benefitCategoryId":30"#, (409, 108)),
        (r#""transactionId":1"#, r#""transactionId":999"#, (404, 106)),
        (
            r#""price":300,"discountedPrice":100"#,
            r#""price":100,"discountedPrice":200"#,
            (400, 105),
        ),
        (r#""price":300,"discountedPrice":100"#, r#""price":-1"#, (400, 105)),
        (r#""price":300,"discountedPrice":100"#, r#""price":1.005"#, (400, 105)),
        (r#""clientId":1,"#, r#""clientId":1 "#, (400, 100)),
    ] {
        stage.error(&stage.o1, CONFIRM, &Y8A.replace(from, to), code);
    }
    stage.exact(&stage.o1, CONFIRM, Y8A, (200, ""));
    stage.exact(&stage.o1, CONFIRM, Y8A, (200, ""));
    stage.error(&stage.o1, CONFIRM, &Y8A.replace(":100}", ":90}"), (409, 107));
    stage.error(&stage.o1, CONFIRM, &Y8A.replace(":20,", ":30,"), (409, 108));
    stage.error(&stage.o2, CONFIRM, Y8A, (404, 106));
    stage.error(&stage.o3, CONFIRM, Y8A, (403, 103));
    let page = r#"{"clientCode":"AAABBBCCC","dateFrom":"2025-06-01","dateTo":"2025-06-30"}"#;
    assert_eq!(stage.call(&stage.o9, HISTORY, page).json()["totalItems"], 1, "still one fact");
}

#[test]
fn y9_refusal() {
    let stage = Stage::set();
    let cancel = r#"{"clientId":1,"transactionId":1}"#;
    check_granted(&stage, &stage.o1, OK_CHECK, 1, VETERAN);
    stage.exact(&stage.o1, CANCEL, cancel, (200, ""));
    let page = r#"{"clientCode":"AAABBBCCC","dateFrom":"2025-06-01","dateTo":"2025-06-30"}"#;
    assert_eq!(stage.call(&stage.o9, HISTORY, page).json()["totalItems"], 0);
    stage.error(&stage.o1, CONFIRM, Y8A, (404, 106));
    stage.exact(&stage.o1, CANCEL, cancel, (200, ""));
    let second = |body: &str| body.replace(r#""transactionId":1"#, r#""transactionId":2"#);
    check_granted(&stage, &stage.o1, OK_CHECK, 2, VETERAN);
    stage.exact(&stage.o1, CONFIRM, &second(Y8A), (200, ""));
    stage.error(&stage.o1, CANCEL, &second(cancel), (409, 107));
    check_granted(&stage, &stage.o1, OK_CHECK, 3, VETERAN);
    stage.server.set_clock("2025-06-03T10:00:00Z");
    let token = stage.server.token("111", "aaaabbbbbcccccc", BOTH);
    let third = Y8A.replace(r#""transactionId":1"#, r#""transactionId":3"#);
    stage.error(&token, CONFIRM, &third, (404, 106));
}

#[test]
fn y10_services_list() {
    let stage = Stage::set();
    let pool_and_museum = r#""pageItems":[{"service":{"id":1,"name":"Посещение бассейна"}},{"service":{"id":2,"name":"Посещение музея"}}]"#;
    let first = format!(r#"{{{pool_and_museum},"totalItems":2,"currentPageIndex":0}}"#);
    stage.exact(&stage.o1, SERVICES, r#"{"pageIndex":0,"pageSize":10}"#, (200, &first));
    let fifth = r#"{"pageItems":[],"totalItems":2,"currentPageIndex":5}"#;
    stage.exact(&stage.o1, SERVICES, r#"{"pageIndex":5}"#, (200, fifth));
    stage.error(&stage.o1, SERVICES, r#"{"pageSize":0}"#, (400, 105));
    stage.error(&stage.o1, SERVICES, r#"{"pageSize":-1}"#, (400, 105));
    stage.exact(&stage.o1, SERVICES, "{}", (200, &first));
}

#[test]
fn y11_history() {
    let stage = Stage::set();
    check_granted(&stage, &stage.o1, OK_CHECK, 1, VETERAN);
    stage.exact(&stage.o1, CONFIRM, Y8A, (200, ""));
    let june = r#"{"clientCode":"AAABBBCCC","dateFrom":"2025-06-01","dateTo":"2025-06-30"}"#;
    let expected = concat!(
        r#"{"pageItems":[{"id":1,"confirmationDate":"2025-06-02T10:00:00.000000Z","#,
        r#""service":{"id":1,"name":"Посещение бассейна"},"#,
        r#""organization":{"id":1,"shortName":"ООО «Якутия»"},"#,
        r#""area":{"id":1,"name":"Якутск","shortName":"Якутск"},"#,
        r#""discountedPrice":100.0}],"totalItems":1,"currentPageIndex":0}"#,
    );
    let check = |body: &str| {
        let answer = stage.call(&stage.o9, HISTORY, body);
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{body}");
    };
    check(june);
    check(&june.replace("dateFrom", "creationDateFrom").replace("dateTo", "creationDateTo"));
    check(&june.replace("AAABBBCCC", "AAABBBCC0"));
    let reversed = r#"{"clientCode":"AAABBBCCC","dateFrom":"2025-06-30","dateTo":"2025-06-01"}"#;
    stage.error(&stage.o9, HISTORY, reversed, (400, 109));
    let snils = june.replace(r#""clientCode":"AAABBBCCC""#, r#""clientSnils":"59492311630""#);
    stage.error(&stage.o9, HISTORY, &snils, (400, 102));
    stage.error(&stage.o1, HISTORY, june, (403, 121));
    let later = june.replace("06-01", "06-03").replace("06-30", "06-04");
    assert_eq!(stage.call(&stage.o9, HISTORY, &later).json()["totalItems"], 0);
}

/// The server runs inside this process, because a request cannot kill a shard.
#[test]
fn y13_shard_down() {
    let directory = tempfile::tempdir().unwrap();
    let clock = format!("manual:{}", fixture::NOW);
    let server = inside::serve(directory.path(), fixture::REGISTRY, &["--clock", &clock]);
    let mut client = Client::connect(server.http_addr);
    let token = client.token("111", "aaaabbbbbcccccc", BOTH).json();
    let token = token["access_token"].as_str().unwrap();
    let mut exact = |path, body, expected: (u16, &str)| {
        let begun = Instant::now();
        let answer = client.call(token, path, body);
        assert_eq!((answer.status, answer.body.as_str()), expected, "{path} {body}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    };
    exact(CHECK, OK_CHECK, (200, OK_ANSWER));

    let engine = &server.engine;
    let shards: Vec<ShardId> = (0..).map(ShardId).take(engine.status().shards.len()).collect();
    shards.iter().for_each(|shard| engine.inject_fault(*shard, Fault::Die));
    wait_until(|| engine.status().shards.iter().all(|shard| !shard.up));
    let silent = "Отсутствует связь с процессинговым центром";
    let refused = format!(
        r#"{{"resultCode":6,"resultMessage":"{silent}","transactionId":0,"clientId":0,"benefits":[]}}"#
    );
    exact(CHECK, OK_CHECK, (200, &refused));
    let unavailable = format!(r#"{{"message":"{silent}","errorCode":6}}"#);
    exact(CONFIRM, Y8A, (503, &unavailable));

    shards.iter().for_each(|shard| engine.release_shard(*shard));
    wait_until(|| engine.status().ready);
    exact(CONFIRM, Y8A, (200, ""));
    exact(CONFIRM, Y8A, (200, ""));
    let records = engine.status().records;
    exact(CONFIRM, Y8A, (200, ""));
    assert_eq!(engine.status().records, records, "it was recorded again");
    tokio::runtime::Runtime::new().unwrap().block_on(server.stop()).unwrap();
}

fn wait_until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_is_saved_when_asked_for() {
    let stage = Stage::set();
    let has = |line: &str| stage.server.metrics().lines().any(|printed| printed == line);
    let uninvited = Client::connect(stage.server.admin).post("/admin/snapshot", &[], b"");
    assert_eq!(uninvited.status, 401, "{uninvited:?}");
    assert!(has("eligo_snapshot_age_seconds -1"));
    stage.server.save_snapshot();
    assert!(has("eligo_snapshot_age_seconds 0"));
}

#[test]
fn what_the_history_has_is_counted() {
    let stage = Stage::set();
    let has = |line: &str| stage.server.metrics().lines().any(|printed| printed == line);
    assert!(has("eligo_history_records_total 0"));
    stage.exact(&stage.o1, CHECK, OK_CHECK, (200, OK_ANSWER));
    stage.exact(&stage.o1, CONFIRM, Y8A, (200, ""));
    let day = r#"{"clientCode":"AAABBBCCC","dateFrom":"2025-06-01","dateTo":"2025-06-30","pageIndex":0,"pageSize":50}"#;
    assert_eq!(stage.call(&stage.o9, HISTORY, day).status, 200);
    assert!(has("eligo_history_records_total 1"));
    assert!(has("eligo_history_troubled 0"));
}
