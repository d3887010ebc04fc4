//! What devices may hold of the server's memory: frames that are not all there, and batches of trips
//! that wait.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use gateway::link::limits::{
    BATCH_BYTES_OF_FLEET_MAX, PULLS_OF_FLEET_MAX, TRIP_BATCHES_OF_FLEET_MAX,
};
use gateway::server::RunningServer;
use tempfile::TempDir;
use tests::devices::{Depot, PATIENCE, RawStream, check_code, closed, connect};
use tests::inside;
use validator::link::client::Connected;
use validator::link::close::CloseCode;
use validator::link::frame::HEADER_BYTES;
use validator::link::message::{FailureCode, Kind, Ping, RegistryPull, TripBatch};
use validator::link::wire;

/// A server within the test, which can look at what it keeps.
struct Stage {
    server: RunningServer,
    depot: Depot,
    _directory: TempDir,
}

impl Stage {
    fn set(more: &[&str]) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let depot = Depot::make(directory.path(), &[2, 3]);
        let pki = depot.path();
        let link = ["--quic", "127.0.0.1:0", "--quic-pki-dir", &pki];
        let arguments = [&link[..], more].concat();
        let server = inside::serve(directory.path(), tests::fixture::REGISTRY, &arguments);
        Stage { server, depot, _directory: directory }
    }

    async fn connect(&self, terminal: u64) -> Connected {
        let address = self.server.link.as_ref().unwrap().address;
        connect(&self.depot.dialer(terminal), address, terminal).await.unwrap()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// A device could begin frames, go on with nothing but pings, and hold their bytes for ever.
#[test]
fn a_frame_that_was_begun_must_go_on() {
    run(async {
        let stage = Stage::set(&["--quic-idle-ms", "1000"]);
        let Connected { link, .. } = stage.connect(2).await;
        let Connected { link: other, .. } = stage.connect(3).await;
        let mut frame = Vec::new();
        wire::push(&mut frame, 1, 0, &Ping { clock_ms: 7 });
        for length in [HEADER_BYTES - 1, HEADER_BYTES, frame.len() - 1] {
            // One that ends in time is answered.
            let mut whole = RawStream::open(other.connection()).await;
            whole.write(&frame[..length]).await;
            whole.write(&frame[length..]).await;
            assert_eq!(whole.next().await.unwrap().0.kind, Kind::Pong as u16);
        }
        let mut stalled = RawStream::open(link.connection()).await;
        stalled.write(&frame[..HEADER_BYTES + 1]).await;
        let chatter = async {
            loop {
                // It is refused once the connection has ended.
                let _ended = check_code(&link, 1, "AAABBBCCC").await;
                let _ended = check_code(&other, 1, "AAABBBCCC").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            code = closed(&link) => assert_eq!(code, Some(CloseCode::FrameUnfinished)),
            () = chatter => {}
        }
        assert!(check_code(&other, 1, "AAABBBCCC").await.is_ok());
        stage.server.stop().await.unwrap();
    });
}

/// Whole batches that waited for the clerk were counted nowhere: two of eight megabytes a device.
#[test]
fn batches_that_wait_have_a_bound_over_all_devices() {
    run(async {
        let stage = Stage::set(&[]);
        let fleet = &stage.server.link.as_ref().unwrap().link.fleet;
        let Connected { link, .. } = stage.connect(2).await;
        let mut stream = RawStream::open(link.connection()).await;
        let batch = |correlation| {
            let mut frame = Vec::new();
            wire::push(&mut frame, correlation, 60_000, &TripBatch { trips: Vec::new() });
            frame
        };
        let bytes = batch(1).len() - HEADER_BYTES;
        let permits = u32::try_from(TRIP_BATCHES_OF_FLEET_MAX).unwrap();
        let working = fleet.trip_batches.acquire_many(permits).await.unwrap();
        stream.write(&batch(1)).await;
        let until = Instant::now() + PATIENCE;
        while fleet.batch_bytes.available_permits() != BATCH_BYTES_OF_FLEET_MAX - bytes {
            assert!(Instant::now() < until, "the batch was not counted");
            tokio::task::yield_now().await;
        }
        // There is room for all but the last byte of another one.
        let rest = u32::try_from(BATCH_BYTES_OF_FLEET_MAX - 2 * bytes + 1).unwrap();
        let others = fleet.batch_bytes.try_acquire_many(rest).unwrap();
        stream.write(&batch(2)).await;
        assert_eq!(stream.failure().await, FailureCode::TooMany);
        drop((others, working));
        for correlation in [1, 3] {
            let (header, _) = stream.next().await.unwrap();
            assert_eq!((header.correlation, header.kind), (correlation, Kind::TripResults as u16));
            if correlation == 1 {
                stream.write(&batch(3)).await;
            }
        }
        assert_eq!(fleet.batch_bytes.available_permits(), BATCH_BYTES_OF_FLEET_MAX);
        stage.server.stop().await.unwrap();
    });
}

/// The places of pulls were given back when the stream was reset on which they had been asked for,
/// while they went on waiting: a device could have as many of them as it liked.
#[test]
fn what_is_under_way_keeps_its_place_without_its_stream() {
    run(async {
        let stage = Stage::set(&["--quic-in-flight-max", "4"]);
        let fleet = &stage.server.link.as_ref().unwrap().link.fleet;
        let Connected { link, .. } = stage.connect(2).await;
        let pulls = u32::try_from(PULLS_OF_FLEET_MAX).unwrap();
        let others = fleet.pulls.acquire_many(pulls).await.unwrap();
        let pull = |correlation, patience_ms| {
            let mut frame = Vec::new();
            wire::push(&mut frame, correlation, patience_ms, &RegistryPull { have: 0 });
            frame
        };
        let mut stream = RawStream::open(link.connection()).await;
        for correlation in 1..=5 {
            stream.write(&pull(correlation, 60_000)).await;
        }
        assert_eq!(stream.failure().await, FailureCode::TooMany);
        drop(stream);
        let mut stream = RawStream::open(link.connection()).await;
        for correlation in 1..=20 {
            stream.write(&pull(correlation, 1)).await;
            assert_eq!(stream.failure().await, FailureCode::TooMany);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // They end, unheard, and others may come.
        drop(others);
        let until = Instant::now() + PATIENCE;
        loop {
            stream.write(&pull(1, 60_000)).await;
            if stream.next().await.unwrap().0.kind == Kind::RegistryOffer as u16 {
                break;
            }
            assert!(Instant::now() < until, "the places never came back");
        }
        stage.server.stop().await.unwrap();
    });
}
