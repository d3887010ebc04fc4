//! Trips and claims against the started server: rows S4 and S7 of the acceptance table byte for byte,
//! the roles of carrier and ministry, and `kill -9` in the middle of uploads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::Cursor;

use calamine::{Data, Reader, Xlsx};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tests::calls::BOTH;
use tests::http::Response;
use tests::server::Server;
use tests::stage::Stage;

const TRIPS: &str = "/api/v2/trips";
const RULINGS: &str = "/api/v2/trips/rulings";
const CLAIMS: &str = "/api/v2/claims";
const JUNE: &str = r#"{"dateFrom":"2025-06-01","dateTo":"2025-06-30"}"#;
const LINES: &str = concat!(
    r#"{"kind":"service","id":5,"name":"Электричка","service_kind":"transport","categories":[{"category":30,"discount_percent":50}]}"#,
    "\n",
    r#"{"kind":"offer","organization":1,"service":5}"#,
    "\n",
    r#"{"kind":"organization","id":50,"client_id":"ministry","client_secret":"sm","short_name":"Минсоцполитики","connection":"T1V1","state":"active","area":1,"ip_allow":["127.0.0.1/32"],"categories":[],"role":"ministry"}"#,
);

/// A full grant for service 1 at a stop of its own.
fn trip(seq: u64, at: &str) -> String {
    format!(
        r#"{{"seq":{seq},"terminalId":2,"event":"boarding","mode":"offline","at":"{at}","serviceId":1,"route":"45","vehicle":"А001АА","fromStop":"стоп {seq}","clientCode":"AAABBBCCC","registryVersion":7,"verdict":"GRANT","benefitCategoryId":20,"tariff":250,"discount":100,"benefit":250.00}}"#
    )
}

const NINE: &str = "2025-06-02T09:00:00Z";

fn batch(trips: &[String]) -> String {
    format!(r#"{{"trips":[{}]}}"#, trips.join(","))
}

fn get(server: &Server, token: &str, path: &str) -> Response {
    server.client().get_with(path, &[&format!("Authorization: Bearer {token}")])
}

fn ministry(stage: &Stage) -> String {
    assert_eq!(stage.server.import(LINES).status, 200);
    stage.server.token("ministry", "sm", "ECS.WebAPI")
}

#[test]
fn s4_upload() {
    let stage = Stage::set();
    let three: Vec<String> = (1..=3).map(|seq| trip(seq, NINE)).collect();
    let all = |status: &str| {
        let results: Vec<String> =
            (1..=3).map(|seq| format!(r#"{{"seq":{seq},"status":"{status}}}"#)).collect();
        format!(r#"{{"results":[{}]}}"#, results.join(","))
    };
    stage.exact(&stage.o1, TRIPS, &batch(&three), (200, &all(r#"accepted""#)));
    let duplicate = all(r#"duplicate","first":"accepted""#);
    stage.exact(&stage.o1, TRIPS, &batch(&three), (200, &duplicate));
    let ahead = batch(&[trip(4, "2025-06-02T10:10:00Z")]);
    let future = r#"{"results":[{"seq":4,"status":"rejected","reason":"future"}]}"#;
    stage.exact(&stage.o1, TRIPS, &ahead, (200, future));
    let other = batch(&[trip(1, NINE).replace("250.00", "250.01").replace("250,", "250.01,")]);
    let conflict = r#"{"results":[{"seq":1,"status":"conflict"}]}"#;
    stage.exact(&stage.o1, TRIPS, &other, (200, conflict));
    let mut many: Vec<String> = (11..=10_010).map(|seq| trip(seq, NINE)).collect();
    many[5_000] = many[5_000].replace("\"GRANT\"", "\"PERHAPS\"");
    let answer = stage.call(&stage.o1, TRIPS, &batch(&many)).json();
    let results = answer["results"].as_array().unwrap();
    let accepted = results.iter().filter(|result| result["status"] == "accepted").count();
    assert_eq!((results.len(), accepted), (10_000, 9_999));
    assert_eq!(results[5_000]["reason"], "malformed");
    assert_eq!(results[5_000]["seq"], 5_011);
}

#[test]
fn uploads_have_three_forms_and_bounds() {
    let stage = Stage::set();
    let authorization = format!("Authorization: Bearer {}", stage.o1);
    let lines = format!("{}\n\n{}\n", trip(1, NINE), trip(2, NINE));
    let headers = [authorization.as_str(), "Content-Type: application/x-ndjson"];
    let answer = stage.server.client().post(TRIPS, &headers, lines.as_bytes());
    let accepted = r#"{"results":[{"seq":1,"status":"accepted"},{"seq":2,"status":"accepted"}]}"#;
    assert_eq!((answer.status, answer.body.as_str()), (200, accepted));
    stage.exact(&stage.o1, TRIPS, r#"{"trips":[]}"#, (200, r#"{"results":[]}"#));
    stage.error(&stage.o1, TRIPS, "{}", (400, 101));
    stage.error(&stage.o1, TRIPS, r#"{"trips":7}"#, (400, 105));
    stage.error(&stage.o1, TRIPS, "[]", (400, 100));
    let many = batch(&vec!["0".to_owned(); 16_385]);
    stage.error(&stage.o1, TRIPS, &many, (400, 105));
    let huge = vec![b' '; (16 << 20) + 1];
    let answer = stage.server.client().post(TRIPS, &[&authorization], &huge);
    assert_eq!(answer.status, 413);
    let other = r#"{"results":[{"seq":1,"status":"rejected","reason":"terminal"}]}"#;
    stage.exact(&stage.o2, TRIPS, &batch(&[trip(1, NINE)]), (200, other));
    let ministry = ministry(&stage);
    stage.error(&ministry, TRIPS, &batch(&[trip(9, NINE)]), (403, 121));
    assert_eq!(stage.server.client().get(TRIPS).error(), (401, Some(120)));
    assert_eq!(stage.server.client().get(RULINGS).status, 405);
}

#[test]
fn trips_are_listed_to_whom_they_concern() {
    let stage = Stage::set();
    let ministry = ministry(&stage);
    let late = trip(2, "2025-04-01T09:00:00Z");
    let wrong = trip(3, NINE).replace("250.00", "100");
    let ahead = trip(4, "2025-06-02T10:10:00Z");
    let trips = [trip(1, "2025-06-01T23:00:00Z"), late, wrong, ahead, trip(5, NINE)];
    assert_eq!(stage.call(&stage.o1, TRIPS, &batch(&trips)).status, 200);
    let list = |token: &str, more: &str| {
        let path = format!("{TRIPS}?dateFrom=2025-04-01&dateTo=2025-06-30{more}");
        get(&stage.server, token, &path)
    };
    let numbers = |answer: &Response| -> Vec<u64> {
        let items = answer.json()["pageItems"].as_array().unwrap().clone();
        items.iter().map(|item| item["seq"].as_u64().unwrap()).collect()
    };
    let disputed = list(&stage.o1, "&state=disputed&limit=1");
    let expected = r#"{"pageItems":[{"terminalId":2,"seq":2,"organizationId":1,"state":"disputed","reason":"late_review","at":"2025-04-01T09:00:00.000000Z","receivedAt":"2025-06-02T10:00:00.000000Z","event":"boarding","mode":"offline","verdict":"GRANT","serviceId":1,"registryVersion":7,"tariff":250.0,"discount":100,"benefit":250.0,"benefitCategoryId":20,"route":"45","vehicle":"А001АА","fromStop":"стоп 2"}],"nextCursor":"#;
    assert_eq!(disputed.body.get(..expected.len()), Some(expected), "{disputed:?}");
    // Every page once, in the order in which the trips happened, wherever a page ends.
    for limit in 1..=5 {
        let (mut cursor, mut seen) = (String::new(), Vec::new());
        loop {
            let page = list(&stage.o1, &format!("&limit={limit}&cursor={cursor}"));
            seen.extend(numbers(&page));
            match page.json()["nextCursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, [2, 1, 3, 5, 4], "{limit}");
    }
    assert_eq!(numbers(&list(&stage.o1, "&state=accepted")), [1, 5]);
    assert_eq!(numbers(&list(&stage.o1, "&state=rejected&organizationId=1")), [4]);
    // The second of June begins at 15:00Z of the first on the carrier's wall.
    let day =
        get(&stage.server, &stage.o1, &format!("{TRIPS}?dateFrom=2025-06-02&dateTo=2025-06-02"));
    assert_eq!(numbers(&day), [1, 3, 5, 4]);
    assert_eq!(numbers(&list(&stage.o2, "")), [0; 0]);
    assert_eq!(list(&stage.o2, "&organizationId=1").error(), (403, Some(121)));
    assert_eq!(numbers(&list(&ministry, "&state=disputed")), [2, 3]);
    assert_eq!(numbers(&list(&ministry, "&organizationId=2")), [0; 0]);
    for wrong in ["&state=lost", "&limit=0", "&limit=1001", "&cursor=7", "&limit=1&limit=2"] {
        assert_eq!(list(&stage.o1, wrong).error(), (400, Some(105)), "{wrong}");
    }
    assert_eq!(get(&stage.server, &stage.o1, TRIPS).error(), (400, Some(101)));
    let reversed = format!("{TRIPS}?dateFrom=2025-06-02&dateTo=2025-06-01");
    assert_eq!(get(&stage.server, &stage.o1, &reversed).error(), (400, Some(109)));
    assert!(!list(&ministry, "").body.contains("AAABBBCCC"));
}

#[test]
fn the_ministry_decides_on_disputed_trips() {
    let stage = Stage::set();
    let ministry = ministry(&stage);
    let wrong = |seq| trip(seq, NINE).replace("250.00", "100");
    let trips = batch(&[wrong(1), wrong(2), trip(3, NINE)]);
    assert_eq!(stage.call(&stage.o1, TRIPS, &trips).status, 200);
    let ruling = |seq: u64, ruling: &str| {
        format!(r#"{{"terminalId":2,"seq":{seq},"ruling":"{ruling}","reason":"акт № {seq}"}}"#)
    };
    let rule = |rulings: &[String], statuses: &[(u64, &str)]| {
        let body = format!(r#"{{"rulings":[{}]}}"#, rulings.join(","));
        let result = |(seq, status): &(u64, &str)| {
            format!(r#"{{"terminalId":2,"seq":{seq},"status":"{status}"}}"#)
        };
        let results: Vec<String> = statuses.iter().map(result).collect();
        let answer = format!(r#"{{"results":[{}]}}"#, results.join(","));
        stage.exact(&ministry, RULINGS, &body, (200, &answer));
    };
    let all = [(1, "accepted"), (2, "rejected"), (3, "not_disputed"), (9, "not_found")];
    let given = [
        ruling(1, "accepted"),
        ruling(2, "rejected"),
        ruling(3, "rejected"),
        ruling(9, "accepted"),
    ];
    rule(&given, &all);
    rule(&given, &all);
    let body = format!(r#"{{"rulings":[{}]}}"#, ruling(1, "rejected"));
    stage.error(&stage.o1, RULINGS, &body, (403, 121));
    stage.error(&ministry, RULINGS, r#"{"rulings":[{"terminalId":2,"seq":1}]}"#, (400, 101));
    let june = format!("{TRIPS}?dateFrom=2025-06-01&dateTo=2025-06-30&state=rejected");
    let shown = get(&stage.server, &stage.o1, &june).json()["pageItems"][0].clone();
    assert_eq!((shown["seq"].as_u64(), shown["ruling"].as_str()), (Some(2), Some("rejected")));
    assert_eq!(shown["rulingReason"], "акт № 2");
    assert_eq!(shown["ruledAt"], "2025-06-02T10:00:00.000000Z");
    assert_eq!(shown["reason"], "amount");
    // What was accepted is owed as far as the carrier said so itself.
    let draft = stage.call(&stage.o1, CLAIMS, JUNE).json();
    assert_eq!((draft["lines"].as_u64(), draft["total"].as_f64()), (Some(2), Some(350.0)));
    rule(&[ruling(1, "rejected")], &[(1, "rejected")]);
    assert_eq!(get(&stage.server, &stage.o1, "/api/v2/claims/1").json()["total"], 250.0);
    rule(&[ruling(1, "accepted")], &[(1, "accepted")]);
    assert_eq!(stage.call(&stage.o1, CLAIMS, JUNE).json()["total"], 350.0);
    assert_eq!(stage.call(&stage.o1, "/api/v2/claims/1/submit", "").status, 200);
    rule(&[ruling(1, "rejected"), ruling(1, "accepted")], &[(1, "claimed"), (1, "accepted")]);
    let shown = get(&stage.server, &stage.o1, &june.replace("rejected", "accepted")).json();
    assert_eq!(shown["pageItems"][0]["claimId"], 1);
    assert_eq!(stage.server.log().alarms(), Vec::<String>::new());
}

#[test]
fn s7_claim() {
    let stage = Stage::set();
    let ministry = ministry(&stage);
    let half = r#"{"seq":3,"terminalId":3,"event":"boarding","mode":"offline","at":"2025-06-02T09:30:00Z","serviceId":5,"clientCode":"AAABBBCCC","registryVersion":7,"verdict":"GRANT","benefitCategoryId":30,"tariff":90,"discount":50,"ticket":"=Б-7"}"#;
    let trips = batch(&[trip(1, NINE), trip(2, NINE), half.to_owned()]);
    let answer = stage.call(&stage.o1, TRIPS, &trips);
    assert_eq!(answer.body.matches("accepted").count(), 3, "{answer:?}");
    let now = "2025-06-02T10:00:00.000000Z";
    let claim = |id: u64, state: &str, sums: &str| {
        format!(
            r#"{{"id":{id},"organizationId":1,"dateFrom":"2025-06-01","dateTo":"2025-06-30","state":"{state}","createdAt":"{now}","changedAt":"{now}",{sums}"#
        )
    };
    let whole = r#""lines":3,"total":545.0,"refusedLines":0,"refusedTotal":0.0,"payable":545.0"#;
    let empty = r#""lines":0,"total":0.0,"refusedLines":0,"refusedTotal":0.0,"payable":0.0"#;
    let refused =
        r#""lines":3,"total":545.0,"refusedLines":1,"refusedTotal":250.0,"payable":295.0"#;
    let draft = claim(1, "draft", whole) + "}";
    stage.exact(&stage.o1, CLAIMS, JUNE, (200, &draft));
    stage.exact(&stage.o1, CLAIMS, JUNE, (200, &draft));
    // What is not theirs does not exist, for another carrier and for the ministry.
    let one = "/api/v2/claims/1";
    assert_eq!(get(&stage.server, &stage.o2, one).error(), (404, Some(110)));
    assert_eq!(get(&stage.server, &ministry, one).error(), (404, Some(110)));
    stage.error(&stage.o2, "/api/v2/claims/1/submit", "", (404, 110));
    stage.error(&ministry, "/api/v2/claims/1/process", "", (404, 110));
    stage.error(&stage.o1, "/api/v2/claims/1/accept", "", (403, 121));
    stage.error(&ministry, "/api/v2/claims/1/submit", "", (403, 121));
    let submitted = claim(1, "submitted", whole) + "}";
    stage.exact(&stage.o1, "/api/v2/claims/1/submit", "", (200, &submitted));
    stage.exact(&stage.o1, CLAIMS, JUNE, (200, &(claim(2, "draft", empty) + "}")));
    stage.error(&stage.o1, "/api/v2/claims/2/submit", "", (409, 111));
    let listed = get(&stage.server, &ministry, CLAIMS);
    assert_eq!(
        listed.body,
        format!(r#"{{"pageItems":[{submitted}],"totalItems":1,"currentPageIndex":0}}"#)
    );
    assert_eq!(get(&stage.server, &stage.o1, CLAIMS).json()["totalItems"], 2);
    let refusal = |seq: u64| {
        format!(r#"{{"refusals":[{{"terminalId":2,"seq":{seq},"reason":"нет, «рейса»"}}]}}"#)
    };
    stage.error(&ministry, "/api/v2/claims/1/process", &refusal(9), (404, 112));
    stage.error(&ministry, "/api/v2/claims/1/accept", "", (409, 111));
    let processed = claim(1, "processed", refused) + "}";
    stage.exact(&ministry, "/api/v2/claims/1/process", &refusal(1), (200, &processed));
    stage.exact(
        &ministry,
        "/api/v2/claims/1/accept",
        "",
        (200, &(claim(1, "partly_refused", refused) + "}")),
    );
    stage.exact(&ministry, "/api/v2/claims/1/pay", "", (200, &(claim(1, "paid", refused) + "}")));
    // The cabinet of the carrier.
    let shown = claim(1, "paid", refused)
        + r#","pageItems":[{"terminalId":2,"seq":1,"amount":250.0,"at":"2025-06-02T09:00:00.000000Z","serviceId":1,"tariff":250.0,"discount":100,"benefitCategoryId":20,"route":"45","vehicle":"А001АА","fromStop":"стоп 1","refusal":"нет, «рейса»"}],"currentPageIndex":0}"#;
    let answer = get(&stage.server, &stage.o1, "/api/v2/claims/1?pageSize=1");
    assert_eq!((answer.status, answer.body.as_str()), (200, shown.as_str()));
    let csv = "\u{feff}terminal,seq,at,service,category,route,vehicle,from_stop,to_stop,ticket,companion,tariff,discount,amount,refusal\r\n\
        2,1,2025-06-02T09:00:00.000000Z,1,20,45,А001АА,стоп 1,,,,250.00,100,250.00,\"нет, «рейса»\"\r\n\
        2,2,2025-06-02T09:00:00.000000Z,1,20,45,А001АА,стоп 2,,,,250.00,100,250.00,\r\n\
        3,3,2025-06-02T09:30:00.000000Z,5,30,,,,,\"'=Б-7\",,90.00,50,45.00,\r\n";
    let answer = get(&stage.server, &stage.o1, "/api/v2/claims/1/export?format=csv");
    assert_eq!((answer.status, answer.body.as_str()), (200, csv));
    let authorization = format!("Authorization: Bearer {ministry}");
    let path = "/api/v2/claims/1/export?format=xlsx";
    let (status, sheet) = stage.server.client().get_bytes(path, &[&authorization]);
    assert_eq!((status, sheet.get(..2)), (200, Some(&b"PK"[..])));
    let pdf = get(&stage.server, &stage.o1, "/api/v2/claims/1/export?format=pdf");
    assert_eq!(pdf.error(), (400, Some(105)));
    assert_eq!(stage.server.log().alarms(), Vec::<String>::new());
}

/// The rows of a table as RFC 4180 has them; a mark in front of what would be a formula is taken off.
fn rows(csv: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut is_quoted = false;
    let mut letters = csv.strip_prefix('\u{feff}').unwrap().chars().peekable();
    while let Some(letter) = letters.next() {
        let row = rows.last_mut().unwrap();
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                row.last_mut().unwrap().push(letters.next().unwrap());
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => row.push(String::new()),
            '\r' if !is_quoted => assert_eq!(letters.next(), Some('\n')),
            _ => row.last_mut().unwrap().push(letter),
        }
        if letter == '\r' && !is_quoted {
            rows.push(vec![String::new()]);
        }
    }
    assert_eq!(rows.pop(), Some(vec![String::new()]), "the last row is ended");
    for field in rows.iter_mut().flatten() {
        let is_marked = field.starts_with('\'') && field[1..].starts_with(['=', '+', '-', '@']);
        if is_marked {
            field.remove(0);
        }
    }
    rows
}

/// A cell as the table has it.
fn text_of(cell: &Data, column: usize) -> String {
    match cell {
        Data::Empty => String::new(),
        Data::String(text) => text.clone(),
        // Money to the kopeck: no other number of kopecks is as near.
        Data::Float(rubles) if [11, 13].contains(&column) => {
            let kopecks = (rubles * 100.0).round();
            assert!((rubles * 100.0 - kopecks).abs() < 1e-6, "{rubles}");
            format!("{:.2}", kopecks / 100.0)
        }
        Data::Float(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sheet_holds_what_the_table_holds() {
    let stage = Stage::set();
    let ministry = ministry(&stage);
    let mut random = SmallRng::seed_from_u64(6);
    let mut sum = 0;
    let trips: Vec<String> = (1..=500_u64)
        .map(|seq| {
            let kopecks = random.random_range(1..=100_000_000_u64);
            sum += kopecks;
            let tariff = format!("\"tariff\":{}.{:02}", kopecks / 100, kopecks % 100);
            let route = ["45", "=1+1", "'7", "a,\\\"b\\\"", "-5", " 7 ", "007", "1e5", "<&>"];
            let route = route[random.random_range(0..route.len())];
            let trip = trip(seq, NINE).replace(",\"benefit\":250.00", "");
            trip.replace("\"tariff\":250", &tariff).replace("\"45\"", &format!("\"{route}\""))
        })
        .collect();
    let answer = stage.call(&stage.o1, TRIPS, &batch(&trips));
    assert_eq!(answer.body.matches("accepted").count(), 500, "{answer:?}");
    let draft = stage.call(&stage.o1, CLAIMS, JUNE).json();
    assert_eq!(draft["lines"], 500);
    assert_eq!(stage.call(&stage.o1, "/api/v2/claims/1/submit", "").status, 200);
    let refusal = r#"{"refusals":[{"terminalId":2,"seq":7,"reason":"=нет, «рейса»"}]}"#;
    assert_eq!(stage.call(&ministry, "/api/v2/claims/1/process", refusal).status, 200);
    let export = |format: &str| {
        let authorization = format!("Authorization: Bearer {ministry}");
        let path = format!("/api/v2/claims/1/export?format={format}");
        let (status, bytes) = stage.server.client().get_bytes(&path, &[&authorization]);
        assert_eq!(status, 200);
        bytes
    };
    let table = rows(&String::from_utf8(export("csv")).unwrap());
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(export("xlsx"))).unwrap();
    assert_eq!(book.sheet_names().len(), 1);
    let sheet = book.worksheet_range_at(0).unwrap().unwrap();
    let cells = sheet.rows().map(|row| {
        let cells = row.iter().enumerate().map(|(column, cell)| text_of(cell, column));
        cells.collect::<Vec<_>>()
    });
    assert_eq!((sheet.height(), sheet.width()), (501, 15));
    let cells: Vec<Vec<String>> = cells.collect();
    for (row, cells) in table.iter().zip(&cells) {
        assert_eq!(row, cells);
    }
    assert_eq!(table.len(), cells.len());
    let kopecks = |text: &String| text.replace('.', "").parse::<u64>().unwrap();
    assert_eq!(table[1..].iter().map(|row| kopecks(&row[13])).sum::<u64>(), sum);
    assert_eq!(table[1..].iter().filter(|row| row[14] == "=нет, «рейса»").count(), 1);
}

#[test]
fn every_acknowledged_trip_survives_kill_9_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = SmallRng::seed_from_u64(9);
    let mut sent = 0;
    let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
    for round in 0..6 {
        let server = Server::start_with_fixture(directory.path());
        let token = server.token("111", "aaaabbbbbcccccc", BOTH);
        let mut client = server.client();
        let again: Vec<String> = acknowledged.iter().map(|seq| trip(*seq, NINE)).collect();
        for known in again.chunks(10_000) {
            let answer = client.call(&token, TRIPS, &batch(known));
            let count = answer.body.matches(r#""status":"duplicate","first":"accepted""#).count();
            assert_eq!(count, known.len(), "round {round}");
        }
        if round == 3 {
            server.save_snapshot();
        }
        let dies_after = random.random_range(1..8);
        let delay = std::time::Duration::from_micros(random.random_range(0..20_000));
        let mut server = Some(server);
        for call in 0.. {
            let first = sent + 1;
            sent += 400;
            let trips: Vec<String> = (first..=sent).map(|seq| trip(seq, NINE)).collect();
            let upload = batch(&trips);
            let answer = std::thread::scope(|scope| {
                let answer = scope.spawn(|| client.try_call(&token, TRIPS, &upload));
                if call == dies_after {
                    // The moment is chosen by chance; what is asserted holds at every one.
                    std::thread::sleep(delay);
                    server.take().unwrap().kill();
                }
                answer.join().unwrap()
            });
            if let Some(answer) = answer {
                for result in answer.json()["results"].as_array().unwrap() {
                    if result["status"] == "accepted" {
                        assert!(acknowledged.insert(result["seq"].as_u64().unwrap()));
                    }
                }
            }
            if server.is_none() {
                break;
            }
        }
    }
    let server = Server::start_with_fixture(directory.path());
    let token = server.token("111", "aaaabbbbbcccccc", BOTH);
    let mut client = server.client();
    let all: Vec<String> = (1..=sent).map(|seq| trip(seq, NINE)).collect();
    for trips in all.chunks(5_000) {
        let answer = client.call(&token, TRIPS, &batch(trips));
        assert_eq!(answer.body.matches("\"seq\"").count(), trips.len());
        assert!(!answer.body.contains("conflict"));
    }
    let draft = client.call(&token, CLAIMS, JUNE).json();
    assert_eq!(draft["lines"].as_u64(), Some(sent));
    assert_eq!(draft["total"].as_f64(), Some(250.0 * sent as f64));
}
