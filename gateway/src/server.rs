//! A server as a library: started and stopped inside the process that calls it.
//!
//! One thread runs both listeners; the workers of the public one are threads of their own. Sockets
//! are bound before anything else, so that a taken address is known at once, and listen only when
//! the engine answers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use actix_web::dev::{ServerHandle, fn_service};
use actix_web::{App, HttpServer};
use engine::engine::Engine;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Semaphore;
use validator::signing::SigningKey;

use crate::admin::{self, Administration};
use crate::api;
use crate::clock::ManualClock;
use crate::connect;
use crate::gateway::{Documents, Gateway, HISTORY_CALLS_MAX};
use crate::kit::judge::Judge;
use crate::kit::registries::Registries;
use crate::kit::schedule::{Schedule, Times};
use crate::kit::store::Store;
use crate::link::Link;
use crate::link::fleet::Fleet;
use crate::link::kit::KitRegistries;
use crate::link::metrics::LinkMetrics;
use crate::link::server::{LinkSocket, LinkStartError, RunningLink};
use crate::metrics::Metrics;
use crate::node::{self, Node, NodeError, RegistryError};
use crate::pki::files::PkiDirectory;
use crate::pki::trust::Trust;
use crate::rate::RateLimits;
use crate::settings::{Limits, QuicSettings, Settings, SettingsError};
use crate::tls;
use crate::tokens::{TokenError, TokenSettings, Tokens};
use crate::trips::EngineTrips;
use crate::upkeep::Upkeep;

/// Connections of the administration listener.
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// Starts servers.
pub struct Server;

impl Server {
    /// Recovers the state, imports what is to be imported, and answers when this returns; blocks.
    pub fn start(settings: Settings) -> Result<RunningServer, ServerError> {
        let http = bind("http", settings.http)?;
        let admin = bind("admin", settings.admin)?;
        let tls = settings.tls.as_ref().map(tls::config).transpose()?;
        let quic = settings.quic.as_ref().map(Reserved::open).transpose()?;
        let http_addr = local_address(&http)?;
        let admin_addr = local_address(&admin)?;
        let node = Node::open(&settings)?;
        for path in &settings.import {
            let report = node::import(&node.engine, path)?;
            tracing::info!(
                lines = report.lines,
                changes = report.changes,
                "a registry was imported"
            );
        }
        let gateway = Arc::new(gateway(&settings, &node, http_addr)?);
        node.engine.trips().judge_by(Judge(Arc::clone(&gateway.registries)));
        let times = Times {
            build_at: settings.kit.build_at.clone(),
            after_import: settings.kit.after_import,
        };
        let registries = Arc::clone(&gateway.registries);
        let schedule = Schedule::start(node.engine.clone(), registries, times)?;
        let upkeep = Upkeep::start(node.engine.clone(), settings.snapshots)?;
        let link = quic.map(|quic| quic.start(&gateway)).transpose()?;
        let administration = Arc::new(Administration {
            gateway: Arc::clone(&gateway),
            link: link.as_ref().map(|running| Arc::clone(&running.link)),
            manual_clock: node.manual_clock.clone(),
            token: settings.admin_token.clone(),
            data_dir: settings.data_dir.clone(),
            import_bytes_max: settings.limits.import_bytes_max,
            snapshots: upkeep.snapshots(),
            builds: schedule.builds(),
            imports: Semaphore::new(1),
        });
        http.listen(settings.limits.backlog)?;
        admin.listen(settings.limits.backlog)?;
        let listeners = Listeners { http: http.into(), admin: admin.into(), tls };
        let (handles, thread) = run(listeners, gateway, administration)?;
        Ok(RunningServer {
            http_addr,
            admin_addr,
            link,
            engine: node.engine,
            manual_clock: node.manual_clock,
            handles,
            upkeep,
            schedule,
            thread,
        })
    }
}

/// A server that answers.
pub struct RunningServer {
    /// Where the public listener is.
    pub http_addr: SocketAddr,
    /// Where the administration listener is.
    pub admin_addr: SocketAddr,
    /// The link of validators, where there is one.
    pub link: Option<RunningLink>,
    /// The engine.
    pub engine: Engine,
    /// Its clock, where it is set by hand.
    pub manual_clock: Option<Arc<ManualClock>>,
    handles: [ServerHandle; 2],
    upkeep: Upkeep,
    schedule: Schedule,
    thread: JoinHandle<io::Result<()>>,
}

impl RunningServer {
    /// Stops accepting, answers what is in hand, makes everything durable.
    pub async fn stop(self) -> io::Result<()> {
        let [http, admin] = &self.handles;
        // First, for the listener of administration waits for whoever ordered a snapshot.
        self.engine.stop_snapshots();
        let link = async {
            match self.link {
                Some(link) => link.stop().await,
                None => Ok(()),
            }
        };
        let (linked, ..) = tokio::join!(link, http.stop(true), admin.stop(true));
        self.upkeep.stop();
        self.schedule.stop();
        self.engine.stop();
        match self.thread.join() {
            Ok(end) => end.and(linked),
            Err(_panic) => Err(io::Error::other("the thread of the listeners had panicked")),
        }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file that was to be imported is wrong.
    #[error("a registry file cannot be imported")]
    Import(RegistryError),
    /// The machine refuses threads or sockets.
    #[error("the server cannot start")]
    Io(#[from] io::Error),
    /// There is no link of validators.
    #[error(transparent)]
    Link(#[from] LinkStartError),
    /// The counters cannot be made.
    #[error("the metrics cannot start")]
    Metrics(#[from] prometheus::Error),
    /// There is no engine.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A setting turned out to be unusable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No tokens can be given out.
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

impl From<RegistryError> for ServerError {
    fn from(error: RegistryError) -> ServerError {
        ServerError::Import(error)
    }
}

/// The link of validators before it answers.
struct Reserved<'a> {
    settings: &'a QuicSettings,
    socket: LinkSocket,
    trust: Arc<Trust>,
}

impl Reserved<'_> {
    fn open(settings: &QuicSettings) -> Result<Reserved<'_>, SettingsError> {
        let trust = Trust::open(PkiDirectory::at(&settings.pki_dir))?;
        Ok(Reserved { settings, socket: LinkSocket::bind(settings.address)?, trust })
    }

    fn start(self, gateway: &Arc<Gateway>) -> Result<RunningLink, LinkStartError> {
        let metrics = Arc::new(LinkMetrics::default());
        let link = Link {
            gateway: Arc::clone(gateway),
            trust: self.trust,
            fleet: Arc::new(Fleet::new(Arc::clone(&metrics))),
            budgets: self.settings.budgets,
            trips: EngineTrips(gateway.engine.clone()),
            registries: Arc::new(KitRegistries::new(gateway)),
            metrics,
        };
        RunningLink::start(Arc::new(link), self.socket, self.settings)
    }
}

struct Listeners {
    http: TcpListener,
    admin: TcpListener,
    tls: Option<ServerConfig>,
}

fn gateway(
    settings: &Settings,
    node: &Node,
    http_addr: SocketAddr,
) -> Result<Gateway, ServerError> {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let address = || format!("{scheme}://{http_addr}");
    let token_settings = TokenSettings {
        issuer: settings.public_base_url.clone().unwrap_or_else(address),
        lifetime_seconds: settings.token_lifetime_seconds,
        verified_max: settings.token_cache_max,
    };
    let tokens = Tokens::new(&node.keys, token_settings)?;
    let documents = Documents {
        discovery: connect::discovery(tokens.issuer()).into(),
        public_keys: tokens.public_keys()?.into(),
    };
    Ok(Gateway {
        engine: node.engine.clone(),
        journal: Arc::clone(&node.journal),
        history: Arc::clone(&node.history),
        clock: Arc::clone(&node.clock),
        tokens,
        proxies: settings.trusted_proxies.clone(),
        dialect: settings.dialect,
        limits: settings.limits,
        rate_limits: settings.rate.map(RateLimits::new),
        metrics: Metrics::new()?,
        history_calls: Arc::new(Semaphore::new(HISTORY_CALLS_MAX)),
        trip_lists: Arc::new(Semaphore::new(1)),
        documents,
        registries: Arc::new(registries(settings, node)?),
        trip_rules: settings.engine.trip_rules,
    })
}

fn registries(settings: &Settings, node: &Node) -> Result<Registries, ServerError> {
    let store = Store::open(&settings.data_dir)?;
    let key = SigningKey::from_seed(&node.keys.kit_seed);
    let key = key.ok_or_else(|| io::Error::other("no signing key can be made"))?;
    Ok(Registries::open(store, key, settings.kit.clone())?)
}

/// Reserves an address without listening on it yet.
fn bind(setting: &str, address: SocketAddr) -> Result<Socket, SettingsError> {
    let bound = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted server must not wait for connections of the one before to time out.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bound().map_err(|error| SettingsError::new(setting, format!("cannot be bound: {error}")))
}

fn local_address(socket: &Socket) -> Result<SocketAddr, ServerError> {
    let address = socket.local_addr()?.as_socket();
    Ok(address.ok_or_else(|| io::Error::other("a socket without an address"))?)
}

type Running = ([ServerHandle; 2], JoinHandle<io::Result<()>>);

/// Runs both listeners on a thread of their own.
fn run(
    listeners: Listeners,
    gateway: Arc<Gateway>,
    administration: Arc<Administration>,
) -> Result<Running, ServerError> {
    let (tell, told) = mpsc::channel();
    let run = move || {
        actix_web::rt::System::new().block_on(async move {
            let limits = gateway.limits;
            let public = public_server(gateway, listeners.http, listeners.tls);
            let admin = admin_server(administration, listeners.admin, &limits);
            match (public, admin) {
                (Ok(public), Ok(admin)) => {
                    // The starter waits for exactly this message.
                    let _waits = tell.send(Ok([public.handle(), admin.handle()]));
                    let (public, admin) = futures_util::future::join(public, admin).await;
                    public.and(admin)
                }
                (Err(error), _) | (_, Err(error)) => {
                    let _waits = tell.send(Err(error));
                    Ok(())
                }
            }
        })
    };
    let thread = thread::Builder::new().name("listeners".to_string()).spawn(run)?;
    let handles = told.recv().map_err(|_| io::Error::other("the listeners did not start"))??;
    Ok((handles, thread))
}

fn public_server(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<ServerConfig>,
) -> io::Result<actix_web::dev::Server> {
    let limits = gateway.limits;
    let service = move || {
        // This runs once on the thread of each worker.
        engine::postbox::open_desk();
        let gateway = Arc::clone(&gateway);
        fn_service(move |request| api::serve(Arc::clone(&gateway), request))
    };
    let server = HttpServer::new(service)
        .workers(limits.workers)
        .max_connections(limits.connections_max)
        .keep_alive(limits.keep_alive)
        .client_request_timeout(limits.header_timeout)
        .tls_handshake_timeout(limits.header_timeout)
        .tcp_nodelay(true)
        .shutdown_timeout(limits.shutdown.as_secs().max(1))
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

fn admin_server(
    administration: Arc<Administration>,
    listener: TcpListener,
    limits: &Limits,
) -> io::Result<actix_web::dev::Server> {
    let app = move || {
        App::new().app_data(Arc::clone(&administration)).default_service(fn_service(admin::serve))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .max_connections(ADMIN_CONNECTIONS_MAX)
        .client_request_timeout(limits.header_timeout)
        .shutdown_timeout(limits.shutdown.as_secs().max(1))
        .disable_signals();
    Ok(server.listen(listener)?.run())
}
