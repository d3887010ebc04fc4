//! Validators against a real server: certificates, connections, identifiers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::identifier::CardKey;
use engine::ids::TerminalId;
use gateway::pki::authority::{Authority, Term};
use gateway::pki::files::{Pair, PkiDirectory};
use serde_bytes::ByteArray;
use validator::link::client::{Call, ConnectError, Connected, Dialer, Link};
use validator::link::close::CloseCode;
use validator::link::frame::{FrameError, Header};
use validator::link::identity::Identity;
use validator::link::lane::AskError;
use validator::link::message::{Check, CheckResult, Failure, FailureCode, Hello, Kind};
use validator::link::wire::{self, FrameReader};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The name in the server's certificate.
pub const SERVER_NAME: &str = "eligo.test";

/// An authority, a server's certificate and device certificates.
pub struct Depot {
    directory: PathBuf,
}

impl Depot {
    /// Makes all of them below `parent`.
    pub fn make(parent: &Path, terminals: &[u64]) -> Depot {
        let depot = Depot { directory: parent.join("pki") };
        Authority::create(&depot.pki(), term(0, 10)).unwrap();
        depot.authority().issue_server(&[SERVER_NAME.to_owned()], term(0, 10)).unwrap();
        depot.issue(terminals, term(0, 10));
        depot
    }

    /// Makes device certificates.
    pub fn issue(&self, terminals: &[u64], term: Term) {
        let terminals: Vec<TerminalId> = terminals.iter().copied().map(TerminalId).collect();
        self.authority().issue_devices(&terminals, term).unwrap();
    }

    /// The directory for `--quic-pki-dir`.
    pub fn path(&self) -> String {
        self.directory.display().to_string()
    }

    /// The files.
    pub fn pki(&self) -> PkiDirectory {
        PkiDirectory::at(&self.directory)
    }

    /// A device with the newest certificate of its terminal.
    pub fn identity(&self, terminal: u64) -> Identity {
        let Pair { certificate, key } = self.pki().device(TerminalId(terminal));
        Identity::read(&self.pki().authority().certificate, &certificate, &key).unwrap()
    }

    /// A socket and the identity of a terminal.
    pub fn dialer(&self, terminal: u64) -> Dialer {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        Dialer::bind(local, self.identity(terminal)).unwrap()
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.pki()).unwrap()
    }
}

/// From so many days before now to so many behind.
pub fn term(days_before: i64, days_behind: i64) -> Term {
    let now = time::OffsetDateTime::now_utc();
    let from = now - time::Duration::days(days_before) - time::Duration::hours(1);
    Term { from, until: now + time::Duration::days(days_behind) }
}

/// The first message of a terminal.
pub fn hello(terminal: u64) -> Hello {
    Hello { version_min: 1, version_max: 1, terminal, registry_version: 0, clock_ms: 0 }
}

/// Connects as a terminal.
pub async fn connect(
    dialer: &Dialer,
    server: SocketAddr,
    terminal: u64,
) -> Result<Connected, ConnectError> {
    let hello = hello(terminal);
    let call =
        Call { server, server_name: SERVER_NAME, hello: &hello, check: None, patience: PATIENCE };
    dialer.connect(call).await
}

/// The key that a connected device makes digests with.
pub fn card_key(link: &Link) -> CardKey {
    CardKey::new(link.welcome().card_key.into_array())
}

/// A check.
pub fn check(service: u32, digest: engine::identifier::Digest) -> Check {
    Check { service, id_hash: ByteArray::new(digest.0), price: None }
}

/// Checks a client code.
pub async fn check_code(link: &Link, service: u32, code: &str) -> Result<CheckResult, AskError> {
    let digest = card_key(link).client_code(code).unwrap();
    link.ask(&check(service, digest), PATIENCE).await
}

/// Waits for the end of a connection and tells the server's reason.
pub async fn closed(link: &Link) -> Option<CloseCode> {
    tokio::time::timeout(PATIENCE, link.closed()).await.expect("the connection did not end")
}

/// A stream on which a test writes what it likes.
pub struct RawStream {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    reader: FrameReader,
    frames: VecDeque<(Header, Vec<u8>)>,
}

impl RawStream {
    /// Opens one.
    pub async fn open(connection: &quinn::Connection) -> RawStream {
        RawStream::of(connection.open_bi().await.unwrap())
    }

    /// The next one that the other side opens.
    pub async fn accept(connection: &quinn::Connection) -> RawStream {
        RawStream::of(connection.accept_bi().await.unwrap())
    }

    fn of((send, receive): (quinn::SendStream, quinn::RecvStream)) -> RawStream {
        RawStream { send, receive, reader: FrameReader::default(), frames: VecDeque::new() }
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// Writes bytes as the message of a frame.
    pub async fn frame(&mut self, kind: u16, correlation: u32, message: &[u8]) {
        let mut bytes = Vec::new();
        let header = Header { length: 0, correlation, deadline_ms: 0, kind };
        header.write(&mut bytes, |out| out.extend_from_slice(message));
        self.write(&bytes).await;
    }

    /// The next frame; nothing once the stream or the connection has ended.
    pub async fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        while self.frames.is_empty() {
            let chunk = self.receive.read_chunk(usize::MAX, true).await.ok()??;
            let mut take = |header: &Header, message: Option<&[u8]>| {
                self.frames.extend(message.map(|message| (*header, message.to_vec())));
                Ok::<_, FrameError>(())
            };
            self.reader.read(&chunk.bytes, &mut take).unwrap();
        }
        self.frames.pop_front()
    }

    /// The failure that the next frame must be.
    pub async fn failure(&mut self) -> FailureCode {
        let (header, message) = self.next().await.unwrap();
        assert_eq!(header.kind, Kind::Failure as u16);
        wire::decode::<Failure>(&message).unwrap().code
    }
}
