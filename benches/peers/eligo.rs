//! eligo: the real server, its confirms and checks over HTTP/1.1 on loopback.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::client::post;
use benches::population::SEED;
use benches::target::{Target, eligo};
use serde_json::Value;

use crate::data::{Answered, Data, ORGANIZATION, SERVICE, once, terminal};
use crate::system::{Granted, System, Task};
use crate::wire::{AnswerEnd, Socket, ask};

/// Enough records for a snapshot.
const SNAPSHOT_CHECKS: u64 = 5_000;

pub struct Eligo {
    program: PathBuf,
    data: PathBuf,
    server: Option<Target>,
    token: String,
}

impl Eligo {
    /// A server that holds all of `data`, in a snapshot as well.
    pub fn open(data: &Data, directory: &Path) -> Eligo {
        let program = eligo();
        let mut eligo =
            Eligo { program, data: directory.join("eligo"), server: None, token: String::new() };
        once(directory, "eligo-loaded", || eligo.load(data));
        eligo.restart();
        eligo
    }

    fn load(&mut self, data: &Data) {
        let import = data.file.display().to_string();
        self.start(&["--import", &import, "--snapshot-records", "1000"]);
        let checks: Vec<String> =
            (1..=SNAPSHOT_CHECKS).map(|at| check_body(at % data.holders + 1)).collect();
        let body = format!(r#"{{"checks":[{}]}}"#, checks.join(","));
        ask(self.stream(), &post("/api/v2/checks", &self.token, &body), answer_end);
        while self.server.as_ref().unwrap().figure("eligo_snapshot_age_seconds") < 0.0 {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it and starts it from its files; returns the seconds until it is ready.
    pub fn restart(&mut self) -> f64 {
        self.start(&["--snapshot-minutes", "10000"])
    }

    pub fn process(&self) -> u32 {
        self.server.as_ref().unwrap().process()
    }

    fn start(&mut self, more: &[&str]) -> f64 {
        self.server = None;
        let data = self.data.display().to_string();
        let fixed = [
            "serve",
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--log",
            "warn",
            "--data-dir",
            &data,
        ];
        let arguments: Vec<String> = fixed.iter().chain(more).map(ToString::to_string).collect();
        let begun = Instant::now();
        self.server = Some(Target::start(&self.program, &arguments));
        let seconds = begun.elapsed().as_secs_f64();
        self.token = self.fetch_token();
        seconds
    }

    fn fetch_token(&self) -> String {
        let credentials = gateway::generator::credentials(ORGANIZATION.0, SEED);
        let body = format!(
            "client_id={}&client_secret={}&grant_type=client_credentials&scope=ECS.WebAPI+OrganizationAPI",
            credentials.client_id, credentials.client_secret
        );
        let request = format!(
            "POST /connect/token HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = ask(self.stream(), request.as_bytes(), answer_end);
        body_of(&answer)["access_token"].as_str().unwrap().to_owned()
    }

    fn stream(&self) -> TcpStream {
        TcpStream::connect(self.server.as_ref().unwrap().http).unwrap()
    }
}

impl System for Eligo {
    fn connect(&self, _: Task, connections: usize) -> Vec<Socket> {
        let http = self.server.as_ref().unwrap().http;
        (0..connections).map(|_| Socket::Tcp(TcpStream::connect(http).unwrap())).collect()
    }

    fn answer_end(&self) -> AnswerEnd {
        answer_end
    }

    fn check(&self, holder: u64) -> Vec<u8> {
        post("/api/CheckClientBenefits", &self.token, &check_body(holder))
    }

    fn confirm(&self, granted: &Granted) -> Vec<u8> {
        let body = format!(
            r#"{{"clientId":{},"benefitCategoryId":{},"transactionId":{},"price":300,"discountedPrice":100}}"#,
            granted.holder, granted.category, granted.transaction
        );
        post("/api/ConfirmTransaction", &self.token, &body)
    }

    fn read_check(&self, answer: &[u8]) -> (Answered, u64) {
        let body = body_of(answer);
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let small = |value: &Value| u32::try_from(number(value)).unwrap();
        let code = body["resultCode"].as_u64().unwrap_or_else(|| panic!("{body}"));
        let answered = Answered {
            code: u32::try_from(code).unwrap(),
            holder: number(&body["clientId"]),
            category: small(&body["benefits"][0]["benefitCategory"]["id"]),
        };
        (answered, number(&body["transactionId"]))
    }

    fn is_done(&self, answer: &[u8]) -> bool {
        answer.starts_with(b"HTTP/1.1 200")
    }
}

fn check_body(holder: u64) -> String {
    let code = gateway::generator::client_code(holder);
    let terminal = terminal();
    format!(
        r#"{{"serviceId":{SERVICE},"organizationTerminalId":{terminal},"clientCode":"{code}"}}"#
    )
}

fn body_of(answer: &[u8]) -> Value {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    serde_json::from_slice(&answer[at..]).unwrap_or_default()
}

/// The end of the body that the head announces.
fn answer_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    Some(end + length.unwrap_or(0))
}
