//! The server's socket and threads: which connections are let in, and the end.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use engine::trips::office::BlockNews;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use validator::link::close::CloseCode;
use validator::link::message::BlockPush;
use validator::link::transport;

use crate::link::Link;
use crate::link::connection::{self, Stopping};
use crate::link::kit::push_of;
use crate::link::limits::{HANDSHAKES_MAX, WATCH_EVERY};
use crate::link::metrics::Refused;
use crate::node::chain;
use crate::settings::{QuicSettings, SettingsError};

/// Bytes of datagrams that wait in the system, as far as it allows.
const SOCKET_BYTES: usize = 8 << 20;
/// How long the last packets may take at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// A reserved address, on which nobody answers yet.
pub struct LinkSocket(UdpSocket);

impl LinkSocket {
    /// Reserves an address.
    pub fn bind(address: SocketAddr) -> Result<LinkSocket, SettingsError> {
        let bound = || -> io::Result<UdpSocket> {
            let domain = Domain::for_address(address);
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            // The system may give less.
            let _less = socket.set_recv_buffer_size(SOCKET_BYTES);
            let _less = socket.set_send_buffer_size(SOCKET_BYTES);
            socket.bind(&address.into())?;
            Ok(socket.into())
        };
        let unusable = |error| SettingsError::new("quic", format!("cannot be bound: {error}"));
        bound().map(LinkSocket).map_err(unusable)
    }

    /// Where it is.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The socket, for an endpoint of somebody else.
    pub fn into_socket(self) -> UdpSocket {
        self.0
    }
}

/// A link that answers.
pub struct RunningLink {
    /// Where.
    pub address: SocketAddr,
    /// What its connections work with.
    pub link: Arc<Link>,
    stop: watch::Sender<Option<Instant>>,
    shutdown: Duration,
    thread: JoinHandle<()>,
}

impl RunningLink {
    /// Answers on `socket` from now on.
    pub fn start(
        link: Arc<Link>,
        socket: LinkSocket,
        settings: &QuicSettings,
    ) -> Result<RunningLink, LinkStartError> {
        let address = socket.address()?;
        let config = server_config(&link, settings)?;
        let (stop, stopping) = watch::channel(None);
        let (tell, told) = std::sync::mpsc::channel();
        let shutdown = link.gateway.limits.shutdown;
        let door = Door {
            link: Arc::clone(&link),
            connections_max: settings.connections_max,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            stopping,
        };
        let workers = settings.workers;
        let run = move || {
            let runtime = runtime(workers);
            let opened = runtime.and_then(|runtime| {
                let _inside = runtime.enter();
                let tokio = Arc::new(TokioRuntime);
                let endpoint =
                    Endpoint::new(EndpointConfig::default(), Some(config), socket.0, tokio)?;
                drop(_inside);
                Ok((runtime, endpoint))
            });
            match opened {
                Ok((runtime, endpoint)) => {
                    // The starter waits for exactly this message.
                    let _waits = tell.send(Ok(()));
                    runtime.block_on(door.keep(endpoint));
                    runtime.shutdown_timeout(GOODBYE);
                }
                Err(error) => {
                    let _waits = tell.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new().name("link".to_owned()).spawn(run)?;
        told.recv().map_err(|_| io::Error::other("the link did not start"))??;
        Ok(RunningLink { address, link, stop, shutdown, thread })
    }

    /// Lets nobody in any more, answers what is in hand, closes all connections.
    pub async fn stop(self) -> io::Result<()> {
        // Without a receiver the link has ended already.
        let _ended = self.stop.send(Some(Instant::now() + self.shutdown));
        let (tell, told) = oneshot::channel();
        let joins = move || {
            let _waits = tell.send(self.thread.join().is_ok());
        };
        std::thread::Builder::new().name("link-end".to_owned()).spawn(joins)?;
        match told.await {
            Ok(true) => Ok(()),
            _ => Err(io::Error::other("the thread of the link had panicked")),
        }
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkStartError {
    /// The machine refuses threads or sockets.
    #[error("the link cannot start")]
    Io(#[from] io::Error),
    /// A certificate cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

fn runtime(workers: usize) -> io::Result<Runtime> {
    match workers {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("link-worker")
            .enable_all()
            .build(),
    }
}

fn server_config(link: &Link, settings: &QuicSettings) -> Result<ServerConfig, SettingsError> {
    let tls = link.trust.server_config()?;
    let tls = QuicServerConfig::try_from(tls)
        .map_err(|error| SettingsError::new("quic_pki_dir", error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport::server(settings.idle)));
    config.max_incoming(HANDSHAKES_MAX);
    config.migration(true);
    Ok(config)
}

/// Lets connections in and looks after those that are open.
struct Door {
    link: Arc<Link>,
    connections_max: usize,
    handshakes: Arc<Semaphore>,
    stopping: Stopping,
}

impl Door {
    /// Keeps the door until the server stops.
    async fn keep(mut self, endpoint: Endpoint) {
        let mut watch = tokio::time::interval(WATCH_EVERY);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = VecDeque::new();
        let mut stopping = self.stopping.clone();
        let trips = self.link.gateway.engine.trips();
        let mut blocks = trips.subscribe_blocks();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(&endpoint, incoming),
                    None => break,
                },
                _ = watch.tick() => self.look(&mut turn),
                news = blocks.recv() => self.tell(news),
                Ok(()) = stopping.changed() => break,
            }
        }
        let until = (*self.stopping.borrow_and_update()).unwrap_or_else(Instant::now);
        self.end(&endpoint, until).await;
    }

    fn admit(&self, endpoint: &Endpoint, incoming: Incoming) {
        let metrics = &self.link.metrics;
        if endpoint.open_connections() >= self.connections_max {
            metrics.refused(Refused::Overload);
            return incoming.refuse();
        }
        let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            metrics.refused(Refused::Overload);
            return incoming.refuse();
        };
        let is_busy = self.handshakes.available_permits() < HANDSHAKES_MAX / 2;
        if is_busy && incoming.may_retry() {
            metrics.retried();
            // Possible, as was just asked.
            let _retried = incoming.retry();
            return;
        }
        let (link, stopping) = (Arc::clone(&self.link), self.stopping.clone());
        tokio::spawn(connection::serve(link, incoming, permit, stopping));
    }

    /// Tells all devices of the blocks of an import.
    fn tell(&self, news: Result<BlockNews, RecvError>) {
        let changes = match news {
            Ok(news) => news.to_vec(),
            // Rather everything again than one block too few.
            Err(RecvError::Lagged(_)) => {
                self.link.gateway.engine.trips().blocks().changes().collect()
            }
            // The engine outlives the link.
            Err(RecvError::Closed) => return,
        };
        let blocks: Vec<BlockPush> = changes.iter().map(push_of).collect();
        self.link.fleet.push(&blocks);
    }

    /// Notices revoked and expired certificates.
    fn look(&self, turn: &mut VecDeque<engine::ids::TerminalId>) {
        let (fleet, trust) = (&self.link.fleet, &self.link.trust);
        if let Err(error) = trust.reread() {
            tracing::error!(
                error = chain(&error),
                "the list of revoked certificates is unreadable"
            );
        }
        // Also those that were revoked between their handshake and their entry.
        let revoked = fleet.close_revoked(trust);
        revoked.into_iter().for_each(|terminal| self.link.registries.forget(terminal));
        fleet.judge_again(trust, turn);
    }

    async fn end(&self, endpoint: &Endpoint, until: Instant) {
        endpoint.set_server_config(None);
        let all_gone = async {
            while endpoint.open_connections() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _late = tokio::time::timeout_at(until + GOODBYE, all_gone).await;
        endpoint.close(VarInt::from(CloseCode::Draining), b"");
        let _late = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
    }
}
