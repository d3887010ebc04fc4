//! The validators' link against the real server: row S1, settlements, certificates, versions, and
//! the same answers as over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::SocketAddr;

use serde_bytes::ByteArray;
use tempfile::TempDir;
use tests::calls::{BOTH, CHECK};
use tests::devices::{Depot, PATIENCE, card_key, check, check_code, closed, connect, hello, term};
use tests::server::Server;
use validator::link::client::{Call, ConnectError, Connected, Dialer};
use validator::link::close::CloseCode;
use validator::link::lane::AskError;
use validator::link::message::{
    Ack, AckCode, Cancel, CheckResult, Confirm, FailureCode, Hello, RegistryAck, RegistryForm,
};
use validator::registry::reader::RegistryFile;

/// Carriers of row S1 beside fixture "F": terminal 101, buses and trains.
const CARRIERS: &str = include_str!("../data/carriers.ndjson");
const V1: u64 = 101;
const BUS: u32 = 11;

struct Stage {
    server: Server,
    depot: Depot,
    _directory: TempDir,
}

impl Stage {
    fn set(more: &[&str]) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let depot = Depot::make(directory.path(), &[2, 3, 20, 30, V1, 102]);
        let pki = depot.path();
        let mut arguments = vec!["--quic", "127.0.0.1:0", "--quic-pki-dir", &pki];
        arguments.extend(more);
        let server = Server::start_with_fixture_and(&directory.path().join("data"), &arguments);
        assert_eq!(server.import(CARRIERS).status, 200);
        Stage { server, depot, _directory: directory }
    }

    fn quic(&self) -> SocketAddr {
        self.server.quic.unwrap()
    }

    async fn connect(&self, terminal: u64) -> Connected {
        connect(&self.depot.dialer(terminal), self.quic(), terminal).await.unwrap()
    }

    async fn refused(&self, terminal: u64) -> ConnectError {
        connect(&self.depot.dialer(terminal), self.quic(), terminal).await.unwrap_err()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn s1_every_identifier_of_a_card_finds_its_holder() {
    run(async {
        let stage = Stage::set(&[]);
        let Connected { link, .. } = stage.connect(V1).await;
        assert_eq!(link.welcome().organization, 10);
        let key = card_key(&link);
        let digests = [
            key.mifare_uid("04:BC:D4:C2:E0:5C:80"),
            key.hash_pan("One", "1f52ed515871c913164398ec24c47088"),
            key.social_card("9643902401015000018", "24010125"),
            key.client_code("HXHXHX01"),
            key.num_sid("9645010000000019"),
            key.par("V0010013022298169667504231315"),
            key.card_hash("1f52ed515871c913164398ec24c47088"),
        ];
        for digest in digests {
            let granted = link.ask(&check(BUS, digest.unwrap()), PATIENCE).await.unwrap();
            let CheckResult { code, holder, category, discount, valid_to, companion, tx } = granted;
            assert_eq!((code, holder, category, discount), (0, Some(11), Some(40), Some(100)));
            // 2026-12-31
            assert_eq!((valid_to, companion), (Some(20_818), true));
            assert!(tx.is_some());
        }
        let refused = check_code(&link, BUS, "HYHYHY01").await.unwrap();
        assert_eq!(refused, CheckResult { code: 1, ..CheckResult::default() });
        let unknown = check_code(&link, BUS, "NOBODY").await.unwrap();
        assert_eq!(unknown, CheckResult { code: 2, ..CheckResult::default() });
    });
}

#[test]
fn answers_are_those_of_http() {
    run(async {
        let stage = Stage::set(&[]);
        let token = stage.server.token("111", "aaaabbbbbcccccc", BOTH);
        let Connected { link, .. } = stage.connect(2).await;
        let codes = ["AAABBBCCC", "AAABBBCC0", "DDDEEEFFF", "GGGHHHIII", "ZZZ"];
        for service in [1, 2, 4, 99] {
            for code in codes {
                let body = format!(
                    r#"{{"serviceId":{service},"organizationTerminalId":2,"clientCode":"{code}"}}"#
                );
                let http = stage.server.client().call(&token, CHECK, &body).json();
                let quic = check_code(&link, service, code).await.unwrap();
                assert_eq!(http["resultCode"], quic.code, "{service} {code}");
                let category = &http["benefits"][0]["benefitCategory"]["id"];
                assert_eq!(category.as_u64(), quic.category.map(u64::from), "{service} {code}");
                let holder = http["clientId"].as_u64().filter(|holder| *holder > 0);
                assert_eq!(holder, quic.holder);
            }
        }
    });
}

#[test]
fn settlements_are_durable_and_repeat() {
    run(async {
        let stage = Stage::set(&[]);
        let Connected { link, .. } = stage.connect(2).await;
        let granted = check_code(&link, 1, "AAABBBCCC").await.unwrap();
        let (tx, holder) = (granted.tx.unwrap(), granted.holder.unwrap());
        let confirm = Confirm {
            tx,
            holder,
            category: granted.category.unwrap(),
            price: Some(30_000),
            discounted: Some(10_000),
        };
        let settle = async |confirm: &Confirm| link.ask(confirm, PATIENCE).await;
        let code = |ack: Result<Ack, AskError>| ack.map(|ack| ack.code);
        let wrong = Confirm { category: 10, ..confirm.clone() };
        assert_eq!(code(settle(&wrong).await), Ok(AckCode::Mismatch));
        let reversed = Confirm { discounted: Some(30_001), ..confirm.clone() };
        let malformed = Err(AskError::Failed(FailureCode::Malformed));
        assert_eq!(code(settle(&reversed).await), malformed);
        assert_eq!(code(settle(&confirm).await), Ok(AckCode::Done));
        assert_eq!(code(settle(&confirm).await), Ok(AckCode::Done));
        let other = Confirm { price: Some(30_001), ..confirm.clone() };
        assert_eq!(code(settle(&other).await), Ok(AckCode::WrongState));
        let missing = Confirm { tx: 999_999, ..confirm.clone() };
        assert_eq!(code(settle(&missing).await), Ok(AckCode::NotFound));
        let cancel = Cancel { tx, holder };
        assert_eq!(code(link.ask(&cancel, PATIENCE).await), Ok(AckCode::WrongState));
        // Another organization has no such transaction.
        let Connected { link: stranger, .. } = stage.connect(20).await;
        assert_eq!(code(stranger.ask(&confirm, PATIENCE).await), Ok(AckCode::NotFound));
        // Many at a time, in any order.
        let granted = futures(200, |_| check_code(&link, 1, "AAABBBCCC")).await;
        let confirms = granted.into_iter().map(|granted| {
            let granted = granted.unwrap();
            Confirm { tx: granted.tx.unwrap(), ..confirm.clone() }
        });
        let confirms: Vec<Confirm> = confirms.collect();
        let acks = futures(confirms.len(), |at| link.ask(&confirms[at], PATIENCE)).await;
        assert!(acks.iter().all(|ack| *ack == Ok(Ack { code: AckCode::Done })));
        assert_eq!(stage.server.terminate(), Some(0));
    });
}

/// Runs `count` futures at the same time.
async fn futures<F: Future>(count: usize, make: impl Fn(usize) -> F) -> Vec<F::Output> {
    let mut waiting: Vec<_> = (0..count).map(|at| Some(Box::pin(make(at)))).collect();
    let mut done: Vec<Option<F::Output>> = (0..count).map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in waiting.iter_mut().zip(&mut done) {
            if let Some(pending) = future
                && let std::task::Poll::Ready(output) = pending.as_mut().poll(context)
            {
                *done = Some(output);
                *future = None;
            }
        }
        if waiting.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[test]
fn a_check_of_type_3_is_the_recorded_fact() {
    run(async {
        let stage = Stage::set(&[]);
        let Connected { link, .. } = stage.connect(30).await;
        let granted = check_code(&link, 3, "AAABBBCCC").await.unwrap();
        assert_eq!((granted.code, granted.category, granted.discount), (0, Some(20), Some(10)));
        let confirm = Confirm {
            tx: granted.tx.unwrap(),
            holder: 1,
            category: 20,
            price: Some(1),
            discounted: None,
        };
        let settled = link.ask(&confirm, PATIENCE).await.unwrap();
        assert_eq!(settled.code, AckCode::WrongState);
    });
}

#[test]
fn untrusted_certificates_are_refused() {
    run(async {
        let stage = Stage::set(&[]);
        // A terminal that the registry does not know, or whose organization does not serve.
        stage.depot.issue(&[77], term(0, 10));
        assert!(is_refused(&stage.refused(77).await), "unknown terminal");
        // Certificates whose time is over, or has not come.
        for (before, behind) in [(10, -1), (-1, 10)] {
            stage.depot.issue(&[102], term(before, behind));
            assert!(is_refused(&stage.refused(102).await), "{before} {behind}");
        }
        // The right name by a stranger's authority.
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = Depot::make(elsewhere.path(), &[3]);
        let mut forged = stranger.identity(3);
        forged.authority = stage.depot.identity(2).authority;
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let dialer = Dialer::bind(local, forged).unwrap();
        assert!(is_refused(&connect(&dialer, stage.quic(), 3).await.unwrap_err()));
        // A device that calls itself by another terminal's name.
        let wrong = connect(&stage.depot.dialer(2), stage.quic(), 3).await.unwrap_err();
        assert!(matches!(wrong, ConnectError::Hello(AskError::Failed(FailureCode::WrongTerminal))));
        // A device does not trust a server of another authority either.
        let mistaken = Dialer::bind(local, stranger.identity(3)).unwrap();
        assert!(connect(&mistaken, stage.quic(), 3).await.is_err());
        let metrics = stage.server.metrics();
        for line in ["cause=\"inactive\"} 1", "cause=\"expired\"} 2", "cause=\"unknown\"} 1"] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
    });
}

fn is_refused(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused(code) => code.is_none_or(|code| code == CloseCode::Refused),
        _ => false,
    }
}

#[test]
fn a_revoked_device_is_disconnected_at_once_and_stays_out() {
    run(async {
        let stage = Stage::set(&[]);
        // By the administration.
        let dialer = stage.depot.dialer(2);
        let Connected { link, .. } = connect(&dialer, stage.quic(), 2).await.unwrap();
        let bystander = stage.connect(3).await;
        let answer = stage.server.administer("/admin/revoke", r#"{"terminal":2}"#);
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"certificates":1}"#));
        assert_eq!(closed(&link).await, Some(CloseCode::Refused));
        // Neither by a full handshake nor by the session of before.
        assert!(is_refused(&stage.refused(2).await));
        assert!(is_refused(&connect(&dialer, stage.quic(), 2).await.unwrap_err()));
        // By the file, as `eligo pki revoke` writes it.
        let serial = stage.depot.pki().issued().unwrap();
        let serial = serial.iter().find(|issued| issued.terminal.0 == 3).unwrap().serial;
        stage.depot.pki().revoke(&[serial]).unwrap();
        assert_eq!(closed(&bystander.link).await, Some(CloseCode::Refused));
        // A new certificate lets the terminal in again.
        stage.depot.issue(&[2], term(0, 10));
        check_code(&stage.connect(2).await.link, 1, "AAABBBCCC").await.unwrap();
        let wrong = stage.server.administer("/admin/revoke", r#"{"serial":"12"}"#);
        assert_eq!(wrong.status, 400);
    });
}

/// A revocation by terminal looked the terminal up in the authority's file `issued` alone: on a
/// server without that file it revoked nothing and answered 200.
#[test]
fn a_connected_device_is_revoked_without_the_files_of_the_authority() {
    run(async {
        let stage = Stage::set(&[]);
        std::fs::remove_file(std::path::Path::new(&stage.depot.path()).join("issued")).unwrap();
        let Connected { link, .. } = stage.connect(2).await;
        let answer = stage.server.administer("/admin/revoke", r#"{"terminal":2}"#);
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"certificates":1}"#));
        assert_eq!(closed(&link).await, Some(CloseCode::Refused));
        assert!(is_refused(&stage.refused(2).await));
        // Of who is not connected the server knows nothing then, and says so.
        let unknown = stage.server.administer("/admin/revoke", r#"{"terminal":3}"#);
        assert_eq!(unknown.status, 404, "{unknown:?}");
        assert!(check_code(&stage.connect(3).await.link, 1, "AAABBBCCC").await.is_ok());
    });
}

/// Only the first address of a server was tried: by `localhost` it was often the wrong one.
#[test]
fn a_server_is_found_at_any_of_its_addresses() {
    run(async {
        let stage = Stage::set(&[]);
        let hello = hello(2);
        let mistaken = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, stage.quic().port()));
        let server_name = tests::devices::SERVER_NAME;
        let call =
            Call { server: mistaken, server_name, hello: &hello, check: None, patience: PATIENCE };
        let dialer = stage.depot.dialer(2);
        assert!(dialer.connect(call).await.is_err());
        let connected = dialer.connect_any(&[mistaken, stage.quic()], call).await.unwrap();
        assert!(check_code(&connected.link, 1, "AAABBBCCC").await.is_ok());
        // A device that is bound to no address reaches either kind.
        let anywhere = Dialer::bind_any(stage.depot.identity(3)).unwrap();
        let hello = tests::devices::hello(3);
        let call = Call { server: stage.quic(), hello: &hello, ..call };
        assert!(anywhere.connect(call).await.is_ok());
    });
}

#[test]
fn an_excluded_organization_is_served_no_more() {
    run(async {
        let stage = Stage::set(&[]);
        let Connected { link, .. } = stage.connect(V1).await;
        let before = check_code(&link, BUS, "HXHXHX01").await.unwrap();
        assert_eq!(before.code, 0);
        let blocked = r#"{"kind":"terminal","id":101,"organization":10,"state":"blocked"}"#;
        assert_eq!(stage.server.import(blocked).status, 200);
        assert_eq!(check_code(&link, BUS, "HXHXHX01").await.unwrap().code, 7);
        let cancel = Cancel { tx: before.tx.unwrap(), holder: 11 };
        let refused = link.ask(&cancel, PATIENCE).await;
        assert_eq!(refused, Err(AskError::Failed(FailureCode::WrongTerminal)));
    });
}

#[test]
fn versions_are_agreed_on_or_refused() {
    run(async {
        let stage = Stage::set(&[]);
        let dialer = stage.depot.dialer(2);
        let greet = async |version_min, version_max| {
            let hello = Hello { version_min, version_max, ..hello(2) };
            let (server, server_name) = (stage.quic(), tests::devices::SERVER_NAME);
            let call = Call { server, server_name, hello: &hello, check: None, patience: PATIENCE };
            dialer.connect(call).await
        };
        let agreed = greet(1, 7).await.unwrap();
        assert_eq!(agreed.link.welcome().version, 1);
        for (oldest, newest) in [(0, 0), (2, 9), (5, 1)] {
            let refused = greet(oldest, newest).await.unwrap_err();
            let failed = AskError::Failed(FailureCode::UnknownVersion);
            assert!(matches!(refused, ConnectError::Hello(error) if error == failed));
        }
        // A second hello cannot change what was agreed.
        let Connected { link, .. } = stage.connect(3).await;
        let again = link.ask(&Hello { version_min: 0, version_max: 0, ..hello(3) }, PATIENCE).await;
        assert_eq!(again, Err(AskError::Failed(FailureCode::HelloExpected)));
        assert!(check_code(&link, 1, "AAABBBCCC").await.is_ok());
    });
}

#[test]
fn a_registry_is_pulled_and_acknowledged() {
    run(async {
        let stage = Stage::set(&["--registry-build-at", "never"]);
        let Connected { link, .. } = stage.connect(V1).await;
        let (offer, _parts) = link.pull(0, PATIENCE).await.unwrap();
        assert_eq!((offer.form, offer.version), (RegistryForm::None, 0));
        let built = stage.server.administer("/admin/registry", "");
        assert_eq!(built.status, 200, "{built:?}");
        let Connected { link, .. } = stage.connect(V1).await;
        assert_eq!((link.welcome().registry_version, link.welcome().signers.len()), (1, 1));
        let (offer, mut parts) = link.pull(0, PATIENCE).await.unwrap();
        assert_eq!((offer.form, offer.version), (RegistryForm::Full, 1));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        while file.as_file().metadata().unwrap().len() < offer.bytes {
            file.write_all(&parts.next(PATIENCE).await.unwrap().unwrap()).unwrap();
        }
        let registry = RegistryFile::open(file.path()).unwrap();
        let (sha256, _) = registry.seal().unwrap();
        let ack = RegistryAck { version: 1, sha256: ByteArray::new(sha256) };
        assert_eq!(link.ask(&ack, PATIENCE).await.unwrap().code, AckCode::Done);
        let wrong = RegistryAck { version: 1, sha256: ByteArray::new([0; 32]) };
        assert_eq!(link.ask(&wrong, PATIENCE).await.unwrap().code, AckCode::Mismatch);
        let (offer, _parts) = link.pull(1, PATIENCE).await.unwrap();
        assert_eq!(offer.form, RegistryForm::UpToDate);
    });
}
