//! What a device may not do to the link: early data, repeated packets, floods, nonsense; and what it
//! may: change its address.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::identifier::{CardKey, Digest};
use gateway::link::limits::HANDSHAKE_TIMEOUT;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde_bytes::ByteArray;
use tempfile::TempDir;
use tests::devices::{
    Depot, PATIENCE, RawStream, SERVER_NAME, card_key, check, check_code, closed, connect, hello,
};
use tests::relay::Relay;
use tests::server::Server;
use tokio::time::timeout;
use validator::link::client::{Call, Connected, Dialer};
use validator::link::close::CloseCode;
use validator::link::frame::{FrameError, HEADER_BYTES, Header};
use validator::link::lane::AskError;
use validator::link::message::{
    Ack, AckCode, BlockPush, Cancel, Check, CheckResult, Confirm, FailureCode, Kind, RegistryAck,
    RegistryPull, TripBatch, TripResults, Welcome,
};
use validator::link::wire::{self, FrameReader};
use validator::link::{message, quick};

struct Stage {
    server: Server,
    depot: Depot,
    _directory: TempDir,
}

impl Stage {
    fn set(more: &[&str]) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let depot = Depot::make(directory.path(), &[2, 3, 20]);
        let pki = depot.path();
        let mut arguments = vec!["--quic", "127.0.0.1:0", "--quic-pki-dir", &pki];
        arguments.extend(more);
        let server = Server::start_with_fixture_and(&directory.path().join("data"), &arguments);
        Stage { server, depot, _directory: directory }
    }

    fn quic(&self) -> SocketAddr {
        self.server.quic.unwrap()
    }

    async fn connect(&self, terminal: u64) -> Connected {
        connect(&self.depot.dialer(terminal), self.quic(), terminal).await.unwrap()
    }

    fn count(&self, line: &str) -> u64 {
        let metrics = self.server.metrics();
        let value = metrics.lines().find_map(|known| known.strip_prefix(line));
        value.unwrap().trim().parse().unwrap()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Connects to have a session that can be resumed; returns the key of card digests.
async fn make_session(dialer: &Dialer, server: SocketAddr) -> CardKey {
    let Connected { link, .. } = connect(dialer, server, 2).await.unwrap();
    // Behind an answer the session is known.
    check_code(&link, 1, "AAABBBCCC").await.unwrap();
    card_key(&link)
}

#[test]
fn only_what_changes_nothing_is_answered_early() {
    run(async {
        let stage = Stage::set(&[]);
        let relay = Relay::to(stage.quic());
        let dialer = stage.depot.dialer(2);
        let key = make_session(&dialer, relay.address).await;
        relay.hold();
        let config = dialer.config().clone();
        let connecting =
            dialer.endpoint().connect_with(config, relay.address, SERVER_NAME).unwrap();
        let Ok((connection, accepted)) = connecting.into_0rtt() else { panic!("no session") };
        let mut stream = RawStream::open(&connection).await;
        let mut early = Vec::new();
        wire::push(&mut early, 1, 0, &hello(2));
        wire::push(&mut early, 2, 0, &check(1, key.client_code("AAABBBCCC").unwrap()));
        let confirm = Confirm { tx: 1, holder: 1, category: 20, price: None, discounted: None };
        wire::push(&mut early, 3, 0, &confirm);
        wire::push(&mut early, 4, 0, &Cancel { tx: 1, holder: 1 });
        wire::push(&mut early, 5, 0, &TripBatch { trips: Vec::new() });
        let ack = RegistryAck { version: 1, sha256: ByteArray::new([0; 32]) };
        wire::push(&mut early, 6, 0, &ack);
        wire::push(&mut early, 7, 0, &RegistryPull { have: 0 });
        stream.write(&early).await;
        // The handshake cannot have ended: its last flight is held.
        let mut answers = Vec::new();
        while answers.len() < 7 {
            let (header, message) = stream.next().await.unwrap();
            answers.push((header.correlation, header.kind, message));
        }
        answers.sort();
        let kinds: Vec<u16> = answers.iter().map(|(_, kind, _)| *kind).collect();
        let [failure, offer] = [Kind::Failure as u16, Kind::RegistryOffer as u16];
        let [welcome, result] = [Kind::Welcome as u16, Kind::CheckResult as u16];
        assert_eq!(kinds, [welcome, result, failure, failure, failure, failure, offer]);
        let first: CheckResult = wire::decode(&answers[1].2).unwrap();
        assert_eq!(first.code, 0);
        for (_, _, message) in &answers[2..6] {
            let refused: message::Failure = wire::decode(message).unwrap();
            assert_eq!(refused.code, FailureCode::TooEarly);
        }
        let first_flight = relay.release();
        assert!(accepted.await);
        // Behind the handshake the same is answered at once.
        let confirm = Confirm { tx: first.tx.unwrap(), ..confirm };
        let mut later = Vec::new();
        wire::push(&mut later, 8, 0, &confirm);
        stream.write(&later).await;
        let (header, message) = stream.next().await.unwrap();
        assert_eq!((header.correlation, header.kind), (8, Kind::Ack as u16));
        assert_eq!(wire::decode(&message), Ok(Ack { code: AckCode::Done }));
        // Somebody repeats the first flight: its early data is not accepted again. As long as the
        // server knows the connection, it takes the packets for duplicates and is silent.
        let checks = stage.count("eligo_link_messages_total{kind=\"check\"}");
        connection.close(CloseCode::Normal.into(), b"");
        let repeater = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let repeat = async {
            let mut answer = [0; 2_048];
            let step = Duration::from_millis(100);
            loop {
                for datagram in &first_flight {
                    repeater.send_to(datagram, stage.quic()).await.unwrap();
                }
                if timeout(step, repeater.recv(&mut answer)).await.is_ok() {
                    return;
                }
            }
        };
        timeout(PATIENCE, repeat).await.expect("no answer to the repeated flight");
        assert!(check_code(&stage.connect(3).await.link, 1, "AAABBBCCC").await.is_ok());
        assert_eq!(stage.count("eligo_link_messages_total{kind=\"check\"}"), checks + 1);
    });
}

/// A device could have 256 registries on their way, as many as the whole fleet may, and read none.
#[test]
fn a_device_that_does_not_read_holds_one_pull() {
    run(async {
        let stage = Stage::set(&["--registry-build-at", "never"]);
        // A registry larger than what may be under way unread.
        assert_eq!(stage.server.import(&crowd(200_000)).status, 200);
        assert_eq!(stage.server.administer("/admin/registry", "").status, 200);
        let Connected { link, .. } = stage.connect(2).await;
        let (offer, mut parts) = link.pull(0, PATIENCE).await.unwrap();
        assert!(offer.bytes > 800 << 10, "{}", offer.bytes);
        // A second one waits for the first as long as it says.
        let mut stream = RawStream::open(link.connection()).await;
        let mut again = Vec::new();
        wire::push(&mut again, 1, 50, &RegistryPull { have: 0 });
        stream.write(&again).await;
        assert_eq!(stream.failure().await, FailureCode::Unavailable);
        // Another device is served meanwhile, and this one goes on when it reads again.
        let other = stage.connect(3).await;
        assert!(other.link.pull(0, PATIENCE).await.is_ok());
        let mut left = offer.bytes;
        while left > 0 {
            left -= parts.next(PATIENCE).await.unwrap().unwrap().len() as u64;
        }
        assert!(link.pull(0, PATIENCE).await.is_ok());
    });
}

/// Holders with a right of fixture "F" to travel.
fn crowd(count: u32) -> String {
    let service = r#"{"kind":"service","id":1,"name":"Проезд","service_kind":"transport","categories":[{"category":20}]}"#;
    let mut lines = format!("{service}\n");
    for id in 0..count {
        let id = 1_000_000 + id;
        lines.push_str(&format!(
            r#"{{"kind":"holder","id":{id},"region":"14","cards":[{{"type":"esk_nonfin","client_code":"C{id}"}}],"categories":[{{"category":20}}]}}"#
        ));
        lines.push('\n');
    }
    lines
}

#[test]
fn a_first_check_travels_with_the_handshake() {
    run(async {
        let stage = Stage::set(&[]);
        let dialer = stage.depot.dialer(2);
        let key = make_session(&dialer, stage.quic()).await;
        let first = check(1, key.client_code("AAABBBCCC").unwrap());
        let hello = hello(2);
        let call = Call {
            server: stage.quic(),
            server_name: SERVER_NAME,
            hello: &hello,
            check: Some(&first),
            patience: PATIENCE,
        };
        let connected = dialer.connect(call).await.unwrap();
        assert!(connected.early);
        assert_eq!(connected.checked.unwrap().unwrap().category, Some(20));
        // Without a session it comes right behind.
        let fresh = stage.depot.dialer(3);
        let hello = tests::devices::hello(3);
        let connected = fresh.connect(Call { hello: &hello, ..call }).await.unwrap();
        assert!(!connected.early);
        assert_eq!(connected.checked.unwrap().unwrap().category, Some(20));
        assert!(stage.count("eligo_link_resumed_total") >= 1);
    });
}

#[test]
fn a_device_changes_its_address_under_way() {
    run(async {
        let stage = Stage::set(&["--quic-messages-per-second", "0"]);
        let dialer = stage.depot.dialer(2);
        let Connected { link, .. } = connect(&dialer, stage.quic(), 2).await.unwrap();
        let before = dialer.endpoint().local_addr().unwrap();
        let link = std::rc::Rc::new(link);
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let asks: Vec<_> = (0..20)
                    .map(|_| {
                        let link = link.clone();
                        tokio::task::spawn_local(async move {
                            for _ in 0..50 {
                                check_code(&link, 1, "AAABBBCCC").await.unwrap();
                            }
                        })
                    })
                    .collect();
                check_code(&link, 1, "AAABBBCCC").await.unwrap();
                dialer.rebind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
                for ask in asks {
                    ask.await.unwrap();
                }
            })
            .await;
        assert_ne!(dialer.endpoint().local_addr().unwrap(), before);
        check_code(&link, 1, "AAABBBCCC").await.unwrap();
        assert_eq!(stage.count("eligo_link_accepted_total"), 1);
    });
}

#[test]
fn nonsense_is_answered_and_the_stream_goes_on() {
    run(async {
        let stage = Stage::set(&[]);
        let Connected { link, .. } = stage.connect(2).await;
        let mut stream = RawStream::open(link.connection()).await;
        let kind = |kind: Kind| kind as u16;
        for unknown in [0, 18, 999, u16::MAX, kind(Kind::Welcome), kind(Kind::BlockPush)] {
            stream.frame(unknown, 5, b"whatever").await;
            assert_eq!(stream.failure().await, FailureCode::UnknownKind, "{unknown}");
        }
        for malformed in
            [&b""[..], b"\xc1", b"\x80", b"\x82\xa7service\xa1x", b"\xdf\xff\xff\xff\xff"]
        {
            for known in [Kind::Check, Kind::Confirm, Kind::Cancel, Kind::Ping, Kind::TripBatch] {
                stream.frame(kind(known), 6, malformed).await;
                assert_eq!(stream.failure().await, FailureCode::Malformed, "{known:?}");
            }
        }
        #[derive(Serialize)]
        struct NewerCheck {
            battery: Vec<u8>,
            service: u32,
            id_hash: ByteArray<16>,
            stops: std::collections::BTreeMap<String, Option<f64>>,
        }
        let Digest(digest) = card_key(&link).client_code("AAABBBCCC").unwrap();
        let newer = NewerCheck {
            battery: vec![1; 100],
            service: 1,
            id_hash: ByteArray::new(digest),
            stops: [("a".to_owned(), Some(1.5)), ("b".to_owned(), None)].into(),
        };
        let mut bytes = Vec::new();
        wire::encode(&newer, &mut bytes);
        stream.frame(kind(Kind::Check), 7, &bytes).await;
        let (header, message) = stream.next().await.unwrap();
        assert_eq!((header.correlation, header.kind), (7, kind(Kind::CheckResult)));
        assert_eq!(wire::decode::<CheckResult>(&message).unwrap().category, Some(20));
    });
}

#[test]
fn frames_that_are_too_long_end_the_connection() {
    run(async {
        let stage = Stage::set(&[]);
        for (kind, length) in [(Kind::Check, 4_097), (Kind::TripBatch, (8 << 20) + 1)] {
            let Connected { link, .. } = stage.connect(2).await;
            let mut stream = RawStream::open(link.connection()).await;
            let mut header = Vec::new();
            let long = Header { length: 0, correlation: 1, deadline_ms: 0, kind: kind as u16 };
            long.write(&mut header, |_| {});
            header[..4].copy_from_slice(&u32::to_le_bytes(length));
            assert_eq!(header.len(), HEADER_BYTES);
            stream.write(&header).await;
            assert_eq!(closed(&link).await, Some(CloseCode::FrameTooLong));
        }
        // Parts of many long frames at the same time are more than a device may keep here.
        let Connected { link, .. } = stage.connect(3).await;
        let mut part = Vec::new();
        let batch = Kind::TripBatch as u16;
        let header = Header { length: 0, correlation: 1, deadline_ms: 0, kind: batch };
        header.write(&mut part, |out| out.resize(out.len() + (8 << 20), 0));
        part.pop();
        let writes = async {
            let mut streams = Vec::new();
            for _ in 0..2 {
                let (mut send, receive) = link.connection().open_bi().await.unwrap();
                if send.write_all(&part).await.is_err() {
                    return;
                }
                streams.push((send, receive));
            }
            std::future::pending().await
        };
        tokio::select! {
            () = writes => assert_eq!(closed(&link).await, Some(CloseCode::Flooded)),
            code = closed(&link) => assert_eq!(code, Some(CloseCode::Flooded)),
        }
    });
}

#[test]
fn nobody_is_served_before_the_hello() {
    run(async {
        let stage = Stage::set(&[]);
        let dialer = stage.depot.dialer(2);
        let config = dialer.config().clone();
        let connecting = dialer.endpoint().connect_with(config, stage.quic(), SERVER_NAME);
        let connection = connecting.unwrap().await.unwrap();
        let mut stream = RawStream::open(&connection).await;
        let mut bytes = Vec::new();
        wire::push(&mut bytes, 1, 0, &check(1, Digest([0; 16])));
        stream.write(&bytes).await;
        assert_eq!(stream.failure().await, FailureCode::HelloExpected);
    });
}

#[test]
fn a_mad_device_is_bounded_and_nobody_else_suffers() {
    run(async {
        let limits = ["--quic-messages-per-second", "50", "--quic-messages-burst", "100"];
        let stage = Stage::set(&limits);
        let begun = Instant::now();
        let Connected { link: mad, .. } = stage.connect(2).await;
        let Connected { link: good, .. } = stage.connect(3).await;
        let mut stream = RawStream::open(mad.connection()).await;
        let mut flood = Vec::new();
        let digest = card_key(&mad).client_code("AAABBBCCC").unwrap();
        for correlation in 0..2_000 {
            wire::push(&mut flood, correlation, 0, &check(1, digest));
        }
        stream.write(&flood).await;
        for _ in 0..50 {
            assert_eq!(check_code(&good, 1, "AAABBBCCC").await.unwrap().code, 0);
        }
        let (mut granted, mut refused) = (0, 0);
        while granted + refused < 2_000 {
            let (header, _) = stream.next().await.unwrap();
            if header.kind == Kind::CheckResult as u16 { granted += 1 } else { refused += 1 }
        }
        let allowed = 100.0 + 50.0 * begun.elapsed().as_secs_f64();
        assert!(f64::from(granted) <= allowed, "{granted} > {allowed}");
        assert!(refused > 0);
        // Later it is served again.
        let served = async {
            while let Err(refused) = check_code(&mad, 1, "AAABBBCCC").await {
                assert_eq!(refused, AskError::Failed(FailureCode::TooMany));
            }
        };
        timeout(PATIENCE, served).await.unwrap();
    });
}

/// A device that had said hello and then nothing was closed for want of a hello, because whether it
/// had been said was asked before it came.
#[test]
fn a_silent_device_stays_and_one_without_hello_goes() {
    run(async {
        let stage = Stage::set(&[]);
        let Connected { link: silent, .. } = stage.connect(2).await;
        let dialer = stage.depot.dialer(3);
        let config = dialer.config().clone();
        let connecting = dialer.endpoint().connect_with(config, stage.quic(), SERVER_NAME);
        let mute = connecting.unwrap().await.unwrap();
        // It came later, so when its time is over that of the other one is too.
        let ended = timeout(HANDSHAKE_TIMEOUT + PATIENCE, mute.closed()).await.unwrap();
        assert_eq!(CloseCode::of(&ended), Some(CloseCode::HelloMissing));
        assert!(check_code(&silent, 1, "AAABBBCCC").await.is_ok());
    });
}

#[test]
fn a_terminal_has_one_connection() {
    run(async {
        let stage = Stage::set(&[]);
        let first = stage.connect(2).await;
        let second = stage.connect(2).await;
        assert_eq!(closed(&first.link).await, Some(CloseCode::Superseded));
        assert!(check_code(&second.link, 1, "AAABBBCCC").await.is_ok());
    });
}

#[test]
fn a_block_reaches_every_connected_device() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::make(directory.path(), &(100..140).collect::<Vec<_>>());
    let mut registry = tests::fixture::REGISTRY.to_owned();
    for terminal in 100..140 {
        registry
            .push_str(&format!("{{\"kind\":\"terminal\",\"id\":{terminal},\"organization\":1}}\n"));
    }
    let link = ["--quic", "127.0.0.1:0", "--quic-pki-dir", &depot.path()];
    let server = tests::inside::serve(directory.path(), &registry, &link);
    run(async {
        let running = server.link.as_ref().unwrap();
        let mut connected = Vec::new();
        for terminal in 100..140 {
            let dialer = depot.dialer(terminal);
            connected.push(connect(&dialer, running.address, terminal).await.unwrap());
        }
        let block = BlockPush { id_hash: ByteArray::new([9; 16]), blocked: true, at_ms: 5 };
        assert_eq!(running.link.fleet.push(std::slice::from_ref(&block)), 40);
        for device in &mut connected {
            let pushed = timeout(PATIENCE, device.pushes.next()).await;
            assert_eq!(pushed, Ok(Some(block.clone())));
        }
        let (ended, _) = tokio::join!(server.stop(), async {
            for device in &connected {
                assert_eq!(closed(&device.link).await, Some(CloseCode::Draining));
            }
        });
        ended.unwrap();
    });
}

#[test]
fn a_million_mutated_inputs_panic_nobody() {
    let mut random = SmallRng::seed_from_u64(tests::seed::any());
    let originals = originals();
    let mut decoded = 0_u64;
    for _ in 0..1_000_000 {
        let mut bytes = originals[random.random_range(0..originals.len())].clone();
        for _ in 0..random.random_range(1..6) {
            mutate(&mut bytes, &mut random);
        }
        let mut reader = FrameReader::default();
        let middle = random.random_range(0..=bytes.len());
        for piece in [&bytes[..middle], &bytes[middle..]] {
            let mut take = |header: &Header, message: Option<&[u8]>| {
                if let Some(message) = message {
                    decoded += u64::from(decode(header.kind, message));
                }
                Ok::<_, FrameError>(())
            };
            if reader.read(piece, &mut take).is_err() {
                break;
            }
        }
        let message = bytes.get(HEADER_BYTES..).unwrap_or_default();
        decoded += u64::from(decode(random.random_range(0..20), message));
    }
    assert!(decoded > 10_000, "{decoded}");
}

fn originals() -> Vec<Vec<u8>> {
    let digest = ByteArray::new([7; 16]);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        frames.push(frame);
    };
    add(&|out| wire::push(out, 1, 300, &hello(7)));
    add(&|out| wire::push(out, 2, 300, &Check { service: 300, id_hash: digest, price: Some(1) }));
    add(&|out| wire::push(out, 3, 0, &RegistryPull { have: 1 << 40 }));
    add(&|out| wire::push(out, 4, 0, &Cancel { tx: 1 << 40, holder: 70_000 }));
    let confirm = Confirm { tx: 9, holder: 300, category: 20, price: Some(1), discounted: None };
    add(&|out| wire::push(out, 5, 0, &confirm));
    add(&|out| wire::push(out, 6, 0, &TripBatch { trips: vec![trip(); 3] }));
    let ack = RegistryAck { version: 1, sha256: ByteArray::new([1; 32]) };
    add(&|out| wire::push(out, 7, 0, &ack));
    add(&|out| wire::push(out, 8, 0, &BlockPush { id_hash: digest, blocked: true, at_ms: -1 }));
    frames
}

fn trip() -> validator::trip::Trip {
    validator::trip::Trip {
        seq: 1,
        terminal: Some(2),
        trip_id: Some(ByteArray::new([3; 16])),
        event: validator::trip::TripEvent::Boarding,
        mode: validator::trip::TripMode::Offline,
        at_ms: 1_748_858_400_000,
        clock_offset_ms: -5,
        service: 11,
        route: "7".to_owned(),
        vehicle: "А001АА14".to_owned(),
        from_stop: "1".to_owned(),
        to_stop: "2".to_owned(),
        id_hash: ByteArray::new([4; 16]),
        registry_version: 7,
        verdict: validator::verdict::Verdict::Grant,
        category: Some(40),
        companion: true,
        tariff: 25_000,
        discount: 100,
        benefit: 25_000,
        ticket: "55".to_owned(),
        tx: Some(1),
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..5) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 => bytes.insert(at, random.random()),
        3 => bytes.truncate(at),
        _ => {
            let tail = bytes[at..].to_vec();
            bytes.extend(tail);
        }
    }
}

/// Whether bytes are a message of a kind.
fn decode(kind: u16, bytes: &[u8]) -> bool {
    match Kind::from_wire(kind) {
        Some(Kind::Hello) => wire::decode::<message::Hello>(bytes).is_ok(),
        Some(Kind::Welcome) => wire::decode::<Welcome>(bytes).is_ok(),
        Some(Kind::Check) => {
            let slow = wire::decode::<Check>(bytes).ok();
            // The quick reader may see less than serde, and never anything else.
            if let Some(quick) = quick::read_check(bytes) {
                assert_eq!(Some(quick), slow);
            }
            slow.is_some()
        }
        Some(Kind::Confirm) => wire::decode::<Confirm>(bytes).is_ok(),
        Some(Kind::Cancel) => wire::decode::<Cancel>(bytes).is_ok(),
        Some(Kind::TripBatch) => wire::decode::<TripBatch>(bytes).is_ok(),
        Some(Kind::TripResults) => wire::decode::<TripResults>(bytes).is_ok(),
        Some(Kind::RegistryAck) => wire::decode::<RegistryAck>(bytes).is_ok(),
        Some(Kind::RegistryPull) => wire::decode::<RegistryPull>(bytes).is_ok(),
        Some(Kind::BlockPush) => wire::decode::<BlockPush>(bytes).is_ok(),
        _ => wire::decode::<Ack>(bytes).is_ok(),
    }
}
