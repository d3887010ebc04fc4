//! The real server, killed under load and started again on the same files, round after round.
//!
//! Promised: what was acknowledged is there for ever and once, what was refused never comes back,
//! what was not acknowledged is there at most once, nothing is there that nobody asked for, and no
//! transaction id is given out twice. `ELIGO_CRASH_ROUNDS` asks for more rounds, `ELIGO_CRASH_SEED`
//! repeats the choices of a run (though not its timing).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use engine::calendar::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tests::calls::{BOTH, CANCEL, CHECK, HISTORY};
use tests::fixture;
use tests::seed;
use tests::server::{Server, binary};

use crate::desk::{Desk, End, Fact, Line, client_code};

mod desk;

const HOLDERS: u64 = 300;
const FIRST_HOLDER: u64 = 1_000;
const CATEGORY: u64 = 20;
/// Cash desks that check and settle, each an organization with a connection of its own.
const DESKS: u64 = 6;
const FIRST_DESK: u64 = 100;
const UNLIMITED_SERVICE: u64 = 1;
/// A service that a holder may have so many times a year.
const LIMITED_SERVICE: u64 = 5;
const LIMIT: usize = 3;
/// The service of connection type 3, whose checks are themselves the facts.
const RECORDED_SERVICE: u64 = 3;
/// The least that the setting takes; a snapshot is looked for once a second.
const SNAPSHOT_RECORDS: &str = "1000";

/// How the server of a round ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    Kill,
    Terminate,
}

/// All desks and the files of their server.
struct Town {
    directory: TempDir,
    desks: Vec<Desk>,
    transactions: HashSet<u64>,
    /// How many facts of each desk are among `transactions`.
    known: Vec<usize>,
}

impl Town {
    fn new(seed: u64) -> Town {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("registry.ndjson"), registry()).unwrap();
        let organizations = (0..DESKS).map(|desk| FIRST_DESK + desk).chain([3]);
        let desks: Vec<Desk> =
            organizations.map(|organization| Desk::new(organization, seed)).collect();
        let known = vec![0; desks.len()];
        Town { directory, desks, transactions: HashSet::new(), known }
    }

    fn data_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    fn start(&self, round: u32) -> Server {
        self.start_by(Command::new(binary()), round)
    }

    /// Starts a server whose clock stands a minute later every round.
    fn start_by(&self, command: Command, round: u32) -> Server {
        let now = Timestamp::parse(fixture::NOW).unwrap().0 + i64::from(round) * 60_000_000;
        let clock = format!("manual:{}", Timestamp(now));
        let registry = self.directory.path().join("registry.ndjson").display().to_string();
        let mut arguments = vec!["--clock", &clock, "--snapshot-records", SNAPSHOT_RECORDS];
        if round == 1 {
            arguments.extend(["--import", &registry]);
        }
        Server::start_by(command, &self.data_dir(), &arguments)
    }

    /// Lets every desk work on `server` until `end` has ended it.
    fn work(&mut self, server: Server, round: u32, end: impl FnOnce(Server)) {
        let lines: Vec<Line> = self.desks.iter().map(|desk| desk.line(&server)).collect();
        std::thread::scope(|scope| {
            for (desk, line) in self.desks.iter_mut().zip(lines) {
                desk.round = round;
                scope.spawn(move || desk.work(line));
            }
            end(server);
        });
        self.check_ids();
    }

    /// No transaction id is ever given out twice.
    fn check_ids(&mut self) {
        for (desk, known) in self.desks.iter().zip(&mut self.known) {
            for fact in &desk.facts[*known..] {
                assert!(self.transactions.insert(fact.transaction), "given out twice: {fact:?}");
            }
            *known = desk.facts.len();
        }
    }

    /// Lets every desk confirm everything that it ever checked.
    fn settle_all(&mut self, server: &Server) {
        std::thread::scope(|scope| {
            for desk in &mut self.desks {
                let line = desk.line(server);
                scope.spawn(move || desk.settle_all(line));
            }
        });
    }

    fn unavailable(&self) -> usize {
        self.desks.iter().map(|desk| desk.unavailable).sum()
    }

    /// Compares the history of some holders with what the desks were told.
    fn check_history(&self, server: &Server, holders: impl Iterator<Item = u64>) -> usize {
        let mut facts: BTreeMap<u64, Vec<(&Desk, &Fact)>> = BTreeMap::new();
        for desk in &self.desks {
            for fact in &desk.facts {
                facts.entry(fact.holder).or_default().push((desk, fact));
            }
        }
        let token = server.token("900", "s900", "ECS.WebAPI");
        let mut line = Line { client: server.client(), token };
        let check = |holder| {
            let told = facts.get(&holder).map(Vec::as_slice).unwrap_or_default();
            let unanswered =
                self.desks.iter().filter_map(|desk| desk.unanswered.get(&holder)).sum();
            check_holder(history_of(&mut line, holder), told, unanswered)
        };
        holders.map(check).sum()
    }
}

/// The confirmed transactions of a holder, by id.
fn history_of(line: &mut Line, holder: u64) -> BTreeMap<u64, serde_json::Value> {
    let mut items = BTreeMap::new();
    let code = client_code(holder);
    for page in 0.. {
        let body = format!(
            r#"{{"clientCode":"{code}","dateFrom":"2025-06-01","dateTo":"2025-12-31","pageIndex":{page},"pageSize":1000}}"#
        );
        let answer = line.call(HISTORY, &body).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let page_items = answer["pageItems"].as_array().unwrap();
        for item in page_items {
            let twice = items.insert(item["id"].as_u64().unwrap(), item.clone());
            assert!(twice.is_none(), "twice in the history: {item}");
        }
        if page_items.len() < 1_000 {
            assert_eq!(answer["totalItems"], items.len());
            break;
        }
    }
    items
}

/// Compares one holder's history with what the desks were told; returns its length.
fn check_holder(
    mut items: BTreeMap<u64, serde_json::Value>,
    told: &[(&Desk, &Fact)],
    unanswered: usize,
) -> usize {
    let count = items.len();
    let limited = |item: &&serde_json::Value| item["service"]["id"] == LIMITED_SERVICE;
    assert!(items.values().filter(limited).count() <= LIMIT, "more than the limit: {items:?}");
    for (desk, fact) in told {
        let item = items.remove(&fact.transaction);
        let Some(item) = item else {
            assert_ne!(fact.end, Some(End::Confirmed), "lost: {fact:?}");
            continue;
        };
        let asked = fact.end == Some(End::Confirmed) || fact.end.is_none() && fact.confirm_asked;
        assert!(asked, "in the history: {item}, but {fact:?}");
        let kopecks = |rubles: &serde_json::Value| Some((rubles.as_f64()? * 100.0).round() as u64);
        assert_eq!(kopecks(&item["discountedPrice"]), fact.discounted_kopecks, "{item} {fact:?}");
        assert_eq!(item["service"]["id"], fact.service, "{item} {fact:?}");
        assert_eq!(item["organization"]["id"], desk.organization, "{item} {fact:?}");
    }
    let recorded = |item: &serde_json::Value| item["service"]["id"] == RECORDED_SERVICE;
    let explained = items.len() <= unanswered && items.values().all(recorded);
    assert!(explained, "nobody asked for {items:?}; {unanswered} checks had no answer");
    count
}

#[test]
fn nothing_acknowledged_is_lost_however_the_server_ends() {
    let rounds: u32 = seed::variable("ELIGO_CRASH_ROUNDS").unwrap_or(20);
    let seed = seed::variable("ELIGO_CRASH_SEED").unwrap_or_else(seed::any);
    println!("ELIGO_CRASH_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut town = Town::new(seed);
    let mut snapshots = 0;
    for round in 1..=rounds {
        let server = town.start(round);
        town.check_history(&server, (round..round + 10).map(some_holder));
        let stop = if round == rounds / 2 { Stop::Terminate } else { Stop::Kill };
        // The first look for a snapshot is a second after the start: some rounds end about then.
        let patience = if round % 4 == 3 { 950..1_200 } else { 50..600 };
        let patience = Duration::from_millis(random.random_range(patience));
        let log = server.log();
        town.work(server, round, |server| {
            // When a kill comes is a matter of the wall clock and of nothing that could be waited for.
            std::thread::sleep(patience);
            match stop {
                Stop::Kill => server.kill(),
                Stop::Terminate => assert_eq!(server.terminate(), Some(0)),
            }
        });
        if stop == Stop::Kill {
            town.desks.iter_mut().for_each(|desk| desk.fragile_through = round);
        }
        assert_eq!(log.alarms(), Vec::<String>::new(), "round {round}");
        snapshots = snapshots.max(snapshots_begun(&town.data_dir()));
    }
    let server = town.start(rounds + 1);
    town.check_history(&server, all_holders());
    town.settle_all(&server);
    server.kill();
    let server = town.start(rounds + 1);
    let confirmed = town.check_history(&server, all_holders());
    assert_eq!(town.unavailable(), 0, "a healthy server was not available");
    assert_eq!(server.log().alarms(), Vec::<String>::new());
    let checks = town.transactions.len();
    println!("{rounds} rounds, {snapshots} snapshots, {checks} checks, {confirmed} confirmed");
    assert!(rounds < 8 || snapshots > 0, "no round saw a snapshot");
}

/// A server whose files may not grow any more is a server with a full disk.
#[test]
fn a_disk_that_refuses_is_told_and_loses_nothing() {
    let seed = seed::variable("ELIGO_CRASH_SEED").unwrap_or_else(seed::any);
    println!("ELIGO_CRASH_SEED={seed}");
    let mut town = Town::new(seed);
    // Past the limit a write fails only where the signal is ignored; otherwise the process ends.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(binary());
    let server = town.start_by(command, 1);
    // What was checked in the same breath as the failure may be forgotten.
    town.desks.iter_mut().for_each(|desk| desk.fragile_through = 1);
    let log = server.log();
    town.work(server, 1, |server| {
        std::thread::sleep(Duration::from_millis(300));
        limit_files(&server, "0");
        std::thread::sleep(Duration::from_millis(500));
        limit_files(&server, "unlimited");
        let until = Instant::now() + Duration::from_secs(20);
        while !takes_writes(&server) {
            assert!(Instant::now() < until, "the server does not recover: {}", log.text());
        }
        std::thread::sleep(Duration::from_millis(300));
        server.kill();
    });
    let refused = town.unavailable();
    assert!(refused > 0, "no request was refused: {}", log.text());
    assert!(!log.text().contains("panicked"), "{}", log.text());
    let server = town.start(2);
    town.check_history(&server, all_holders());
    town.settle_all(&server);
    town.check_history(&server, all_holders());
    assert_eq!(town.unavailable(), refused, "the disk takes writes again");
    assert_eq!(server.log().alarms(), Vec::<String>::new());
}

/// Whether a check that is cancelled at once goes all the way.
fn takes_writes(server: &Server) -> bool {
    let token = server.token(&FIRST_DESK.to_string(), "s", BOTH);
    let mut line = Line { client: server.client(), token };
    let code = client_code(FIRST_HOLDER);
    let check = format!(
        r#"{{"serviceId":{UNLIMITED_SERVICE},"organizationTerminalId":{FIRST_DESK},"clientCode":"{code}"}}"#
    );
    let transaction = line.call(CHECK, &check).unwrap().json()["transactionId"].clone();
    let cancel = format!(r#"{{"clientId":{FIRST_HOLDER},"transactionId":{transaction}}}"#);
    line.call(CANCEL, &cancel).unwrap().status == 200
}

/// Limits how far the process of a server may write into files.
fn limit_files(server: &Server, bytes: &str) {
    let process = format!("--pid={}", server.process_id());
    let limit = format!("--fsize={bytes}:unlimited");
    assert!(Command::new("prlimit").args([process, limit]).status().unwrap().success());
}

/// How many snapshots were begun in a data directory.
fn snapshots_begun(data_dir: &Path) -> u64 {
    let Ok(names) = std::fs::read_dir(data_dir.join("snapshots/partition-00000")) else { return 0 };
    let number = |name: String| name.strip_prefix("generation-")?.get(..20)?.parse().ok();
    let names = names.filter_map(|name| name.unwrap().file_name().into_string().ok());
    names.filter_map(number).max().unwrap_or(0)
}

fn some_holder(number: u32) -> u64 {
    FIRST_HOLDER + u64::from(number) * 37 % HOLDERS
}

fn all_holders() -> impl Iterator<Item = u64> {
    FIRST_HOLDER..FIRST_HOLDER + HOLDERS
}

/// Fixture "F" with more desks and holders, and a limited service.
fn registry() -> String {
    let mut lines = fixture::REGISTRY.trim_end().to_owned();
    let _infallible = write!(
        lines,
        "\n{{\"kind\":\"service\",\"id\":{LIMITED_SERVICE},\"name\":\"Театр\",\"service_kind\":\"visit\",\
         \"categories\":[{{\"category\":{CATEGORY},\"limit\":{{\"count\":{LIMIT},\"period\":\"year\"}}}}]}}"
    );
    for id in FIRST_DESK..FIRST_DESK + DESKS {
        let _infallible = write!(
            lines,
            "\n{{\"kind\":\"organization\",\"id\":{id},\"client_id\":\"{id}\",\"client_secret\":\"s\",\
             \"short_name\":\"Касса {id}\",\"connection\":\"T2V2\",\"state\":\"active\",\"area\":1,\
             \"ip_allow\":[\"127.0.0.1/32\"],\"categories\":[{CATEGORY}]}}\n\
             {{\"kind\":\"offer\",\"organization\":{id},\"service\":{UNLIMITED_SERVICE}}}\n\
             {{\"kind\":\"offer\",\"organization\":{id},\"service\":{LIMITED_SERVICE}}}\n\
             {{\"kind\":\"terminal\",\"id\":{id},\"organization\":{id}}}"
        );
    }
    for id in all_holders() {
        let code = client_code(id);
        let _infallible = write!(
            lines,
            "\n{{\"kind\":\"holder\",\"id\":{id},\"region\":\"14\",\
             \"cards\":[{{\"type\":\"ecs\",\"client_code\":\"{code}\"}}],\
             \"categories\":[{{\"category\":{CATEGORY}}}]}}"
        );
    }
    lines
}
