//! Blocks of cards on their way to every connected device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Instant;

use tempfile::TempDir;
use tests::carrier::{BLOCKED, CARRIERS, V1};
use tests::devices::{
    Depot, PATIENCE, RawStream, SERVER_NAME, card_key, check_code, connect, hello,
};
use tests::relay::Relay;
use tests::server::Server;
use tokio::task::JoinSet;
use tokio::time::timeout;
use validator::link::client::{Connected, Pushes};
use validator::link::frame::{FrameError, Header};
use validator::link::message::{BlockPush, Kind};
use validator::link::wire::{self, FrameReader};

/// Terminals of the carrier besides its own.
const TERMINALS: std::ops::Range<u64> = 1_000..1_100;
/// Holders that are blocked at once.
const CROWD: u64 = 20_000;

struct Stage {
    server: Server,
    depot: Depot,
    _directory: TempDir,
}

impl Stage {
    fn set(terminals: &[u64]) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let depot = Depot::make(directory.path(), terminals);
        let pki = depot.path();
        let arguments = ["--quic", "127.0.0.1:0", "--quic-pki-dir", &pki];
        let more = [&arguments[..], &["--registry-build-at", "never"]].concat();
        let server = Server::start_with_fixture_and(&directory.path().join("data"), &more);
        let stage = Stage { server, depot, _directory: directory };
        stage.import(CARRIERS);
        stage
    }

    fn import(&self, lines: &str) {
        let answer = self.server.import(lines);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn quic(&self) -> SocketAddr {
        self.server.quic.unwrap()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

async fn next(pushes: &mut Pushes) -> BlockPush {
    let pushed = timeout(PATIENCE, pushes.next()).await.expect("no block in time");
    pushed.expect("the connection ended")
}

#[test]
fn every_connected_device_hears_of_a_block() {
    run(async {
        let terminals: Vec<u64> = TERMINALS.collect();
        let stage = Stage::set(&terminals);
        let mut lines = String::new();
        for id in &terminals {
            writeln!(lines, r#"{{"kind":"terminal","id":{id},"organization":10}}"#).unwrap();
        }
        stage.import(&lines);
        let mut connected = Vec::new();
        for terminal in terminals {
            let dialer = stage.depot.dialer(terminal);
            connected.push((connect(&dialer, stage.quic(), terminal).await.unwrap(), dialer));
        }
        let metrics = stage.server.metrics();
        assert!(metrics.contains("eligo_link_connections 100"), "{metrics}");
        let key = card_key(&connected[0].0.link);
        let card = key.client_code("HXHXHX01").unwrap();
        let begun = Instant::now();
        stage.import(BLOCKED);
        let imported = begun.elapsed();
        let mut hearing = JoinSet::new();
        for (Connected { link, mut pushes, .. }, dialer) in connected {
            hearing.spawn(async move {
                loop {
                    let block = next(&mut pushes).await;
                    if block.id_hash.into_array() == card.0 {
                        assert!(block.blocked);
                        break;
                    }
                }
                drop((link, dialer));
                begun.elapsed()
            });
        }
        let heard = hearing.join_all().await;
        assert_eq!(heard.len(), TERMINALS.count());
        let slowest = heard.into_iter().max().unwrap();
        println!(
            "the import was answered after {imported:?}, the slowest device heard after {slowest:?}"
        );
    });
}

/// What was blocked between a hello in early data and the end of the handshake reached the device
/// neither with its hello nor with the fleet.
#[test]
fn a_block_during_a_resumed_handshake_is_heard() {
    run(async {
        let stage = Stage::set(&[V1]);
        let relay = Relay::to(stage.quic());
        let dialer = stage.depot.dialer(V1);
        let connected = connect(&dialer, relay.address, V1).await.unwrap();
        // Behind an answer the session is known.
        check_code(&connected.link, 11, "HXHXHX01").await.unwrap();
        let card = card_key(&connected.link).client_code("HXHXHX01").unwrap();
        drop(connected);
        relay.hold();
        let connecting = dialer
            .endpoint()
            .connect_with(dialer.config().clone(), relay.address, SERVER_NAME)
            .unwrap();
        let Ok((connection, accepted)) = connecting.into_0rtt() else { panic!("no session") };
        let mut stream = RawStream::open(&connection).await;
        let mut early = Vec::new();
        wire::push(&mut early, 1, 0, &hello(V1));
        stream.write(&early).await;
        let (header, _) = stream.next().await.unwrap();
        assert_eq!(header.kind, Kind::Welcome as u16);
        stage.import(BLOCKED);
        relay.release();
        assert!(accepted.await);
        let hear = async {
            let mut pushed = connection.accept_uni().await.unwrap();
            let (mut reader, mut heard) = (FrameReader::default(), false);
            while !heard {
                let chunk = pushed.read_chunk(usize::MAX, true).await.unwrap().unwrap();
                let mut take = |_: &Header, message: Option<&[u8]>| {
                    let block = message.map(|message| wire::decode::<BlockPush>(message).unwrap());
                    heard |= block.is_some_and(|block| block.id_hash.into_array() == card.0);
                    Ok::<_, FrameError>(())
                };
                reader.read(&chunk.bytes, &mut take).unwrap();
            }
        };
        timeout(PATIENCE, hear).await.expect("the block was not heard");
    });
}

#[test]
fn many_blocks_reach_who_is_connected_and_who_comes_later() {
    run(async {
        let stage = Stage::set(&[V1, 102]);
        let crowd = |status: &str| {
            let mut lines = String::new();
            for id in 0..CROWD {
                writeln!(
                    lines,
                    r#"{{"kind":"holder","id":{},"region":"14","cards":[{{"type":"esk_nonfin","client_code":"C{id}"{status}}}],"categories":[{{"category":41}}]}}"#,
                    1_000_000 + id
                )
                .unwrap();
            }
            lines
        };
        stage.import(&crowd(""));
        let there = stage.depot.dialer(V1);
        let mut there = connect(&there, stage.quic(), V1).await.unwrap();
        stage.import(&crowd(r#","status":"blocked","blocked_by":"holder""#));
        let late = stage.depot.dialer(102);
        let mut late = connect(&late, stage.quic(), 102).await.unwrap();
        let key = card_key(&late.link);
        for pushes in [&mut there.pushes, &mut late.pushes] {
            let code = |id| key.client_code(&format!("C{id}")).unwrap().0;
            let mut missing: std::collections::BTreeSet<_> = (0..CROWD).map(code).collect();
            while !missing.is_empty() {
                let block = next(pushes).await;
                assert!(block.blocked);
                missing.remove(&block.id_hash.into_array());
            }
        }
        assert!(check_code(&there.link, 12, "HYHYHY01").await.is_ok());
    });
}
