//! What clients must not be able to do to the real server: crash it, hold it up, make it grow, or
//! get an answer that no document knows. `ELIGO_HOSTILE_REQUESTS` asks for more mutations,
//! `ELIGO_HOSTILE_SEED` repeats those of a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway::errors::ApiError;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tests::calls::{
    CANCEL, CHECK, CHECKS, CONFIRM, HISTORY, OK_ANSWER, OK_CHECK, SERVICES, TOKEN, Y8A,
};
use tests::http::{Client, Response};
use tests::seed;
use tests::stage::Stage;

/// The limits of the server in these tests.
const BODY_BYTES_MAX: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(1);
/// What a server may grow by, with the transactions that valid mutations open.
const GROWTH_KIB_MAX: u64 = 48 << 10;
/// What appears in requests and nowhere else.
const SECRETS: &[&str] = &[
    "AAABBBCCC",
    "59492311630",
    "9643901401015000019",
    "14010125",
    "aaaabbbbbcccccc",
    "s222",
    "s333",
    "s900",
    tests::server::ADMIN_TOKEN,
];

/// A server that loses patience after [`PATIENCE`].
fn set_impatient() -> Stage {
    let millis = PATIENCE.as_millis().to_string();
    let times: [&str; 4] = ["--header-timeout-ms", &millis, "--body-timeout-ms", &millis];
    Stage::set_with(&[&times[..], &["--log", "info"]].concat())
}

/// An ordinary check is answered exactly, in time, on a new connection.
fn check_ordinary(stage: &Stage) {
    let begun = Instant::now();
    let answer = stage.server.client().call(&stage.o1, CHECK, OK_CHECK);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(answer.status, 200, "{answer:?}");
    let transaction = &answer.json()["transactionId"];
    let expected = format!(
        r#"{{"resultCode":0,"transactionId":{transaction},"clientId":1,"benefits":[{{"benefitCategory":{{"id":20,"name":"Ветеран труда"}}}}]}}"#
    );
    assert_eq!(answer.body, expected);
}

/// Nothing went wrong inside, and nothing of the requests is to be seen outside.
fn check_silence(stage: &Stage) {
    let log = stage.server.log();
    assert_eq!(log.alarms(), Vec::<String>::new());
    let texts = [log.text(), stage.server.metrics()];
    let tokens = [&stage.o1, &stage.o2, &stage.o3, &stage.o9].map(String::as_str);
    for secret in SECRETS.iter().copied().chain(tokens) {
        let seen = texts.iter().any(|text| text.contains(secret));
        assert!(!seen, "`{secret}` in the log or the metrics");
    }
}

/// The head of a check by O1 with more headers.
fn head_of(stage: &Stage, more: &str) -> Vec<u8> {
    let token = &stage.o1;
    let head = format!(
        "POST {CHECK} HTTP/1.1\r\nHost: eligo\r\nAuthorization: Bearer {token}\r\n{more}\r\n\r\n"
    );
    head.into_bytes()
}

fn sent(stage: &Stage, head: &str, body: &[u8]) -> Client {
    let mut client = stage.server.client();
    let mut request = head_of(stage, head);
    request.extend_from_slice(body);
    // The server may answer and close before it has read everything.
    let _closed = client.send(&request);
    client
}

fn is_error(answer: &Response, error: ApiError) {
    let wire = error.wire();
    assert_eq!((answer.status, answer.body.as_str()), (wire.status.as_u16(), wire.body));
}

#[test]
fn oversized_bodies_are_refused() {
    let stage = set_impatient();
    for bytes in [BODY_BYTES_MAX + 1, 1 << 20, 64 << 20] {
        let length = format!("Content-Length: {bytes}");
        let mut client = sent(&stage, &length, &vec![b' '; bytes.min(4 << 20)]);
        is_error(&client.read_response().unwrap(), ApiError::TooLarge);
    }
    // Without a length a body is too large as soon as it is.
    check_endless(sent(&stage, "Transfer-Encoding: chunked", b""), 413);
    let mut unread = stage.server.client();
    let discovery =
        "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    unread.send(discovery.as_bytes()).unwrap();
    check_endless(unread, 200);
    let mut largest = OK_CHECK.as_bytes().to_vec();
    largest.resize(BODY_BYTES_MAX, b' ');
    let length = format!("Content-Length: {BODY_BYTES_MAX}");
    assert_eq!(sent(&stage, &length, &largest).read_response().unwrap().status, 200);
    check_ordinary(&stage);
    check_silence(&stage);
}

/// Sends a body in chunks until the server has had enough, which must come soon.
fn check_endless(mut client: Client, status: u16) {
    let chunk = [&b"1000\r\n"[..], &[b' '; 0x1000], b"\r\n"].concat();
    (0..=BODY_BYTES_MAX / 0x1000).for_each(|_| client.send(&chunk).unwrap());
    assert_eq!(client.read_response().unwrap().status, status);
    let begun = Instant::now();
    while client.send(&chunk).is_some() {
        assert!(begun.elapsed() < 10 * PATIENCE, "the server reads an unwanted body without end");
    }
}

#[test]
fn truncated_requests_are_given_up() {
    let stage = set_impatient();
    let half = &OK_CHECK.as_bytes()[..20];
    let length = format!("Content-Length: {}", OK_CHECK.len());
    let begun = Instant::now();
    let mut stalled = sent(&stage, &length, half);
    let mut refused = stage.server.client();
    refused
        .send(format!("POST {CHECK} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n{{").as_bytes())
        .unwrap();
    let mut headless = stage.server.client();
    headless.send(b"POST /api/Check").unwrap();
    is_error(&stalled.read_response().unwrap(), ApiError::RequestTimeout);
    // A call without a token is refused whatever its body; the wait for the rest is as long.
    is_error(&refused.read_response().unwrap(), ApiError::Unauthorised);
    assert_eq!(headless.read_response().unwrap().status, 408);
    for client in [&mut stalled, &mut refused, &mut headless] {
        client.end_sending();
        assert!(client.read_response().is_none(), "the connection goes on");
    }
    assert!(begun.elapsed() < 5 * PATIENCE, "{:?}", begun.elapsed());
    for _ in 0..100 {
        drop(sent(&stage, &length, half));
    }
    let mut ended = sent(&stage, &length, half);
    ended.end_sending();
    assert_ne!(ended.read_response().map(|answer| answer.status), Some(200));
    check_ordinary(&stage);
    check_silence(&stage);
}

#[test]
fn bodies_without_a_meaning_are_refused() {
    let stage = set_impatient();
    let mut client = stage.server.client();
    let mut check = |body: &[u8], expected: ApiError| {
        let authorization = format!("Authorization: Bearer {}", stage.o1);
        is_error(&client.post(CHECK, &[&authorization], body), expected);
    };
    let nested = |open: &str, close: &str, times: usize| {
        let (open, close) = (open.repeat(times), close.repeat(times));
        format!("{{\"clientCode\":{open}1{close}}}").into_bytes()
    };
    let broken = ApiError::BadJson;
    for times in [1, 127, 128, 10_000] {
        check(&nested("[", "]", times), ApiError::MissingField);
        check(&nested("{\"a\":", "}", times), ApiError::MissingField);
    }
    check(&b"[".repeat(BODY_BYTES_MAX), broken);
    check(&b"{\"a\":".repeat(10_000), broken);
    for body in [&b""[..], b"\0", b"null", b"[]", b"\"\"", b"\xef\xbb\xbf{}", b"{}{}"] {
        check(body, broken);
    }
    check(b"{\"clientCode\":\"\xff\xfe\"}", broken);
    check(b"{\"clientCode\":\"\xed\xa0\x80\"}", broken);
    let form = "client_id=111&client_secret=aaaabbbbbcccccc";
    for content_type in ["application/json", "text/xml", "multipart/form-data; boundary=x", ""] {
        let header = format!("Content-Type: {content_type}");
        let answer = client.post(TOKEN, &[&header], form.as_bytes());
        assert_eq!(answer.body, r#"{"error":"invalid_request"}"#, "{content_type}");
        let authorization = format!("Authorization: Bearer {}", stage.o1);
        let answer = client.post(CHECK, &[&header, &authorization], OK_CHECK.as_bytes());
        assert_eq!(answer.status, 200, "D0 names no content type of a call: {content_type}");
    }
    check_ordinary(&stage);
    check_silence(&stage);
}

#[test]
fn heads_without_a_meaning_are_refused() {
    let stage = set_impatient();
    let answers = |request: &[u8]| {
        let mut client = stage.server.client();
        let _closed = client.send(request);
        client.end_sending();
        let answers: Vec<u16> =
            std::iter::from_fn(|| client.read_response()).map(|answer| answer.status).collect();
        answers
    };
    let length = format!("Content-Length: {}", OK_CHECK.len());
    let request = [&head_of(&stage, &length), OK_CHECK.as_bytes()].concat();
    let more = |header: String| {
        [&head_of(&stage, &format!("{length}\r\n{header}")), OK_CHECK.as_bytes()].concat()
    };
    assert_eq!(answers(&more(format!("X: {}", "x".repeat(1 << 20)))), [431]);
    assert_eq!(answers(&more(vec!["X: x"; 200].join("\r\n"))), [431]);
    assert_eq!(answers(&more("Content-Length: 5".to_string())), [400]);
    assert_eq!(answers(&more("Transfer-Encoding: chunked".to_string())), [400]);
    assert_eq!(answers(&[&request[..], &request[..], &request[..]].concat()), [200, 200, 200]);
    assert_eq!(answers(&[&request[..], b"\x16\x03\x01\x02\0garbage\r\n\r\n"].concat()), [200, 400]);
    assert_eq!(answers(b"GET / HTTP/9.9\r\n\r\n"), [400]);
    assert_eq!(answers(&[0; 1_000]), [400]);
    check_ordinary(&stage);
    check_silence(&stage);
}

/// A call as it should be.
struct Template<'a> {
    path: &'static str,
    token: &'a str,
    body: &'static str,
}

impl Template<'_> {
    fn head(&self, length: usize) -> String {
        let Template { path, token, .. } = self;
        let form = "application/x-www-form-urlencoded";
        let content_type = if *path == TOKEN { form } else { "application/json" };
        format!(
            "POST {path} HTTP/1.1\r\nHost: eligo\r\nContent-Type: {content_type}\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
        )
    }
}

fn templates(stage: &Stage) -> Vec<Template<'_>> {
    let template = |path, token, body| Template { path, token, body };
    let (o1, o2, o3, o9) = (&stage.o1, &stage.o2, &stage.o3, &stage.o9);
    vec![
        template(CHECK, o1, OK_CHECK),
        template(
            CHECK,
            o1,
            r#"{"serviceId":1,"organizationTerminalId":2,"cardNumber":"9643901401015000019","cardSeries":"14010125"}"#,
        ),
        template(
            CHECK,
            o2,
            r#"{"serviceId":1,"organizationTerminalId":20,"clientSnils":"59492311630"}"#,
        ),
        template(
            CHECK,
            o3,
            r#"{"serviceId":3,"organizationTerminalId":30,"clientCode":"AAABBBCCC","price":150.5}"#,
        ),
        template(CONFIRM, o1, Y8A),
        template(CANCEL, o1, r#"{"clientId":1,"transactionId":2}"#),
        template(SERVICES, o1, r#"{"pageIndex":0,"pageSize":10}"#),
        template(
            HISTORY,
            o9,
            r#"{"clientCode":"AAABBBCCC","dateFrom":"2025-06-01","dateTo":"2025-06-30","pageIndex":0,"pageSize":50}"#,
        ),
        template(
            CHECKS,
            o1,
            r#"{"checks":[{"serviceId":1,"organizationTerminalId":2,"clientCode":"AAABBBCCC"},{"serviceId":2,"organizationTerminalId":3,"clientCode":"ZZZ"}],"explain":true}"#,
        ),
        template(
            TOKEN,
            o1,
            "client_id=111&client_secret=aaaabbbbbcccccc&grant_type=client_credentials&scope=ECS.WebAPI+OrganizationAPI",
        ),
    ]
}

/// Changes a few bytes of `bytes`; pieces of `other` may come in.
fn mutate(random: &mut SmallRng, bytes: &mut Vec<u8>, other: &[u8]) {
    const TELLING: &[u8] = b"{}[]\",:\\/0123456789-+.eEu \r\n\0\xff\xc3";
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len().min(at + 16));
        match random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes.insert(at, TELLING[random.random_range(0..TELLING.len())]),
            2 if at < bytes.len() => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let from = random.random_range(0..=other.len());
                let until = random.random_range(from..=other.len().min(from + 64));
                bytes.splice(at..end, other[from..until].iter().copied());
            }
            6 => bytes.truncate(at),
            _ => {}
        }
    }
}

/// Sends mutations, one after the other; returns how many were answered.
fn bombard(stage: &Stage, seed: u64, requests: u64) -> u64 {
    let mut random = SmallRng::seed_from_u64(seed);
    let templates = templates(stage);
    let mut client = stage.server.client();
    let mut answered = 0;
    for _ in 0..requests {
        let template = &templates[random.random_range(0..templates.len())];
        let other = templates[random.random_range(0..templates.len())].body.as_bytes();
        let mut body = template.body.as_bytes().to_vec();
        mutate(&mut random, &mut body, other);
        let mut request = template.head(body.len()).into_bytes();
        request.extend_from_slice(&body);
        if random.random_ratio(49, 50) {
            let answer = client.send(&request).and_then(|()| client.read_response());
            let answer = answer.unwrap_or_else(|| panic!("no answer: {}", printable(&request)));
            check_documented(template.path, &answer, &request);
            answered += 1;
            continue;
        }
        // What the bytes mean is now open; they may be several requests, or half of one.
        mutate(&mut random, &mut request, other);
        let _closed = client.send(&request);
        client.end_sending();
        while let Some(answer) = client.read_response() {
            check_broken(&answer, &request);
            answered += 1;
        }
        client = stage.server.client();
    }
    answered
}

/// The answer to a call that was framed as it should be.
fn check_documented(path: &str, answer: &Response, request: &[u8]) {
    let told = || format!("{answer:?} to {}", printable(request));
    if answer.status != 200 {
        let is_of = |error: &ApiError| {
            let wire = error.wire();
            (answer.status, answer.body.as_str()) == (wire.status.as_u16(), wire.body)
        };
        let token_error = path == TOKEN
            && matches!(answer.status, 400 | 401)
            && answer.json()["error"].is_string();
        assert!(token_error || ApiError::ALL.iter().any(is_of), "{}", told());
        return;
    }
    let documented = |item: &Value| matches!(item["resultCode"].as_u64(), Some(0..=2 | 5..=8));
    match path {
        CHECK => assert!(documented(&answer.json()), "{}", told()),
        CHECKS => {
            let answer = answer.json();
            let item = |item: &Value| documented(item) || item["errorCode"].is_u64();
            assert!(answer["results"].as_array().unwrap().iter().all(item), "{}", told());
        }
        CONFIRM | CANCEL => assert_eq!(answer.body, ""),
        _ => assert!(answer.json().is_object(), "{}", told()),
    }
}

/// An answer to whatever a broken request was taken for.
fn check_broken(answer: &Response, request: &[u8]) {
    let told = || format!("{answer:?} to {}", printable(request));
    let statuses = [200, 400, 401, 403, 404, 405, 408, 409, 413, 429, 431, 503];
    assert!(statuses.contains(&answer.status), "{}", told());
    // What is no HTTP is refused without a body.
    if answer.body.is_empty() {
        return;
    }
    let body = answer.json();
    assert!(!matches!(body["resultCode"].as_u64(), Some(3 | 4)), "{}", told());
    let envelope = body["message"].is_string() || body["error"].is_string();
    assert!(answer.status == 200 || envelope, "{}", told());
}

#[test]
fn mutations_get_documented_answers_and_leave_nothing_behind() {
    const CONNECTIONS: u64 = 4;
    let requests: u64 = seed::variable("ELIGO_HOSTILE_REQUESTS").unwrap_or(100_000);
    let seed = seed::variable("ELIGO_HOSTILE_SEED").unwrap_or_else(seed::any);
    println!("ELIGO_HOSTILE_SEED={seed}");
    let stage = set_impatient();
    let bombard_all = |seed: u64, requests: u64| -> u64 {
        std::thread::scope(|scope| {
            let run = |number| {
                let stage = &stage;
                scope.spawn(move || {
                    bombard(stage, seed.wrapping_add(number), requests / CONNECTIONS)
                })
            };
            let running: Vec<_> = (0..CONNECTIONS).map(run).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    };
    // What a server needs at all is not growth.
    bombard_all(!seed, requests / 10);
    let before = stage.server.memory_kib();
    let answered = bombard_all(seed, requests);
    let grown = stage.server.memory_kib().saturating_sub(before);
    println!("{answered} answers, {before} KiB before, {grown} KiB more after");
    assert!(grown < GROWTH_KIB_MAX, "the server grew by {grown} KiB");
    check_ordinary(&stage);
    check_silence(&stage);
}

#[test]
fn slow_clients_hold_up_nobody() {
    const SLOW: usize = 200;
    const PAUSE: Duration = Duration::from_secs(1);
    let stage = Stage::set();
    let request = [&head_of(&stage, "Content-Length: 1000"), &vec![b' '; 1_000][..]].concat();
    let head_bytes = request.len() - 1_000;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let connect = |_| TcpStream::connect(stage.server.http).unwrap();
            let mut slow: Vec<TcpStream> = (0..SLOW).map(connect).collect();
            // Half of them are slow from the first byte on, half in the body.
            for stream in slow.iter_mut().step_by(2) {
                stream.write_all(&request[..head_bytes]).unwrap();
            }
            while !done.load(Ordering::Relaxed) {
                for stream in &mut slow {
                    // The server gives the slow ones up in time.
                    let _closed = stream.write_all(b" ");
                }
                std::thread::sleep(PAUSE);
            }
        });
        let begun = Instant::now();
        let mut client = stage.server.client();
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < 8 * PAUSE {
            let asked = Instant::now();
            assert_eq!(client.call(&stage.o1, CHECK, OK_CHECK).status, 200);
            slowest = slowest.max(asked.elapsed());
            check_ordinary(&stage);
        }
        done.store(true, Ordering::Relaxed);
        println!("slowest check: {slowest:?}");
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    });
    check_silence(&stage);
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn no_file_holds_what_names_a_person() {
    let stage = Stage::set();
    stage.exact(&stage.o1, CHECK, OK_CHECK, (200, OK_ANSWER));
    stage.exact(&stage.o1, CONFIRM, Y8A, (200, ""));
    stage.server.save_snapshot();
    let mut files = stage.files();
    for (_, bytes) in &mut files {
        // The room that a log has ahead of it.
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    let named =
        |part: &str| files.iter().any(|(path, _)| path.display().to_string().contains(part));
    assert!(named("journal") && named("snapshots") && named("history"), "{:?}", files.len());
    for secret in SECRETS {
        let holds =
            |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        let holder = files.iter().find(|(_, bytes)| holds(bytes)).map(|(path, _)| path);
        assert_eq!(holder, None, "`{secret}`");
    }
}
