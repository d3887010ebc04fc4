//! A registry that takes its time to be verified, and the passengers meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use serde_json::Value;
use tests::carrier::{BUS, Carrier, V1, code, ride};
use tests::devices::{PATIENCE, SERVER_NAME};
use tokio::sync::{mpsc, oneshot};
use validator::agent::run::{self, Request, Status};
use validator::agent::wall::WallClock;
use validator::agent::{Agent, AgentConfig};
use validator::clock::Now;
use validator::device::Outcome;
use validator::files::memory::MemoryFiles;
use validator::link::message::{RegistryOffer, Signer};
use validator::registry::reader::RegistryFile;
use validator::store::{Installation, RegistryDirectory, RegistryStore, StoreError};
use validator::verdict::Verdict;

use crate::{TEN, X};

/// A store that installs when it is let.
struct Slow {
    directory: RegistryDirectory,
    begun: Sender<Sender<()>>,
}

impl RegistryStore for Slow {
    type Registry = RegistryFile;

    fn open(&mut self, signers: &[Signer], organization: u32) -> io::Result<Option<RegistryFile>> {
        self.directory.open(signers, organization)
    }

    fn begin(&mut self, offer: &RegistryOffer) -> Result<(), StoreError> {
        self.directory.begin(offer)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.directory.push(bytes)
    }

    fn install(
        &mut self,
        signers: &[Signer],
        have: (u32, u64),
    ) -> Result<Installation<RegistryFile>, StoreError> {
        let install = self.directory.install(signers, have)?;
        let begun = self.begun.clone();
        Ok(Box::new(move || {
            let (go, wait) = channel();
            begun.send(go).unwrap();
            wait.recv_timeout(PATIENCE * 4).unwrap();
            install()
        }))
    }

    fn abandon(&mut self) {
        self.directory.abandon();
    }
}

async fn tap(requests: &mpsc::Sender<Request>, stop: &str) -> Outcome {
    let (answer, outcome) = oneshot::channel();
    let card = serde_json::from_value(code(X)).unwrap();
    let journey: Value = ride(BUS, stop);
    let journey = serde_json::from_value(journey).unwrap();
    requests.send(Request::Tap { card, journey, answer }).await.unwrap();
    tokio::time::timeout(PATIENCE, outcome).await.expect("the tap waits").unwrap().unwrap()
}

async fn status(requests: &mpsc::Sender<Request>) -> Status {
    let (answer, status) = oneshot::channel();
    requests.send(Request::Status(answer)).await.unwrap();
    tokio::time::timeout(PATIENCE, status).await.expect("the device is busy").unwrap()
}

async fn wait_version(requests: &mpsc::Sender<Request>, version: u64) {
    let until = Instant::now() + PATIENCE;
    while status(requests).await.registry.is_none_or(|(life, _)| life.version != version) {
        assert!(Instant::now() < until, "version {version} never came");
        tokio::task::yield_now().await;
    }
}

/// The next installation that begins.
async fn begun(installations: &Receiver<Sender<()>>) -> Sender<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(go) = installations.try_recv() {
            return go;
        }
        assert!(Instant::now() < until, "nothing is installed");
        tokio::task::yield_now().await;
    }
}

/// The agent's only task verified a registry of megabytes while passengers stood at the door.
#[test]
fn taps_are_decided_while_a_registry_is_installed() {
    let carrier = Carrier::set(TEN, &[]);
    carrier.build();
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (begins, installations) = channel();
        let store =
            Slow { directory: RegistryDirectory::new(directory.path()).unwrap(), begun: begins };
        let wall = WallClock::default();
        let now = Now { wall_ms: wall.now_ms(), steady_ms: 0 };
        let config = AgentConfig { terminal: V1, check_ms: 20_000 };
        let files = Arc::new(MemoryFiles::default());
        let (agent, _) = Agent::open(config, files, store, (1, now)).unwrap();
        let address = carrier.server.quic.unwrap().to_string();
        let server = run::Server { address, name: SERVER_NAME.to_owned() };
        let (requests, incoming) = mpsc::channel(16);
        let (show, _shown) = mpsc::channel(16);
        let dialer = carrier.depot.dialer(V1);
        let device = tokio::spawn(run::run(agent, (dialer, server, wall), incoming, show));
        let go = begun(&installations).await;
        assert_eq!(tap(&requests, "A").await.verdict, Verdict::Grant);
        assert!(status(&requests).await.registry.is_none());
        go.send(()).unwrap();
        wait_version(&requests, 1).await;
        carrier.build();
        requests.send(Request::Sync).await.unwrap();
        let go = begun(&installations).await;
        for stop in ["B", "C", "D"] {
            let outcome = tap(&requests, stop).await;
            let by = outcome.entry.map(|entry| entry.trip.registry_version);
            assert_eq!((outcome.verdict, by), (Verdict::Grant, Some(1)));
        }
        go.send(()).unwrap();
        wait_version(&requests, 2).await;
        drop(requests);
        device.await.unwrap();
    });
}
