//! A carrier of row S1 with a started server, device certificates and agents.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, NOBODY, Shelved};
use crate::calls::BOTH;
use crate::devices::{Depot, PATIENCE};
use crate::server::Server;

/// Carriers of row S1 beside fixture "F": terminals 101 and 102, buses and trains.
pub const CARRIERS: &str = include_str!("../data/carriers.ndjson");
/// A bus: everything for category 40, which H-x has, with a companion.
pub const BUS: u32 = 11;
/// A train: half for category 41, which H-y has.
pub const TRAIN: u32 = 12;
/// A terminal of the carrier.
pub const V1: u64 = 101;
/// Another one.
pub const V2: u64 = 102;
/// H-x, whose card is blocked.
pub const BLOCKED: &str = r#"{"kind":"holder","id":11,"snils":"11223344595","region":"14","cards":[{"type":"esk_nonfin","status":"blocked","blocked_by":"holder","client_code":"HXHXHX01","number":"9643902401015000018","series":"24010125","num_sid":"9645010000000019","mifare_uid":"04BCD4C2E05C80"}],"categories":[{"category":40,"valid_to":"2026-12-31"}]}"#;

/// The carrier.
pub struct Carrier {
    /// Its server.
    pub server: Server,
    /// Its certificates.
    pub depot: Depot,
    directory: TempDir,
}

impl Carrier {
    /// Starts a server at an instant, on which registries are built on demand only.
    pub fn set(now: &str, more: &[&str]) -> Carrier {
        let directory = tempfile::tempdir().unwrap();
        let depot = Depot::make(directory.path(), &[2, V1, V2]);
        let lines = directory.path().join("registry.ndjson");
        let text = [crate::fixture::REGISTRY.trim_end(), CARRIERS].join("\n");
        std::fs::write(&lines, text).unwrap();
        let lines = lines.display().to_string();
        let never = ["--registry-build-at", "never", "--import", &lines];
        let server = start(directory.path(), &depot, (now, &[&never, more].concat()));
        Carrier { server, depot, directory }
    }

    /// Starts a server on the same files once that of before has ended.
    pub fn start_again(&mut self, now: &str, more: &[&str]) {
        let arguments = [&["--registry-build-at", "never"], more].concat();
        self.server = start(self.directory.path(), &self.depot, (now, &arguments));
    }

    /// Where the server keeps its state.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Has registries built; their version.
    pub fn build(&self) -> u64 {
        let answer = self.server.administer("/admin/registry", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["version"].as_u64().unwrap()
    }

    /// A device of the carrier; a tap waits long, so that no slow machine decides.
    pub fn device(&self, terminal: u64) -> Shelved {
        let data_dir = self.directory.path().join(format!("device-{terminal}"));
        Shelved { terminal, data_dir, check_ms: 20_000 }
    }

    /// Starts a device, with a link.
    pub fn online(&self, terminal: u64, ahead_seconds: u32) -> Agent {
        let server = self.server.quic.unwrap();
        let mut agent = self.device(terminal).start(&self.depot, server, ahead_seconds);
        // What is tapped before the clock is measured would be in the future of a server of 2025.
        agent.wait_status(|status| {
            status["linked"] == true && status["clock_offset_ms"].as_i64() > Some(60_000)
        });
        agent
    }

    /// Starts a device where there is no link.
    pub fn offline(&self, terminal: u64, ahead_seconds: u32) -> Agent {
        self.device(terminal).start(&self.depot, NOBODY, ahead_seconds)
    }

    /// Starts a device, lets it learn the server's clock and a version, and switches it off.
    pub fn bring_up_to(&self, terminal: u64, version: u64) {
        let mut agent = self.online(terminal, 0);
        agent.wait_status(|status| {
            let is_measured = status["clock_offset_ms"].as_i64() > Some(60_000);
            is_measured && status["registry_version"] == version
        });
        agent.end();
    }

    /// A token of the carrier.
    pub fn token(&self) -> String {
        self.server.token("1010", "s1010", BOTH)
    }

    /// The draft of the carrier's claim for June 2025.
    pub fn claim(&self) -> Value {
        let june = r#"{"dateFrom":"2025-06-01","dateTo":"2025-06-30"}"#;
        let answer = self.server.client().call(&self.token(), "/api/v2/claims", june);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The lines of a claim, as CSV without its head.
    pub fn lines(&self, claim: &Value) -> Vec<String> {
        let path = format!("/api/v2/claims/{}/export?format=csv", claim["id"]);
        let authorization = format!("Authorization: Bearer {}", self.token());
        let answer = self.server.client().get_with(&path, &[&authorization]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.lines().skip(1).map(str::to_owned).collect()
    }
}

fn start(home: &Path, depot: &Depot, (now, more): (&str, &[&str])) -> Server {
    let (pki, clock) = (depot.path(), format!("manual:{now}"));
    let mut arguments = vec!["--clock", &clock, "--quic-pki-dir", &pki];
    if !more.contains(&"--quic") {
        arguments.extend(["--quic", "127.0.0.1:0"]);
    }
    arguments.extend(more);
    Server::start(&home.join("data"), &arguments)
}

/// A card by its holder's code.
pub fn code(code: &str) -> Value {
    json!({"client_code": code})
}

/// A ride from a stop, for 250 rubles by bus and 90 by train.
pub fn ride(service: u32, stop: &str) -> Value {
    let price = if service == BUS { 25_000 } else { 9_000 };
    json!({"service": service, "price": price, "from_stop": stop})
}

/// Runs a test of the link.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 5, test).await.unwrap() });
}
