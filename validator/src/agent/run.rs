//! Gives an agent a link and a runtime: one task owns the agent, others wait for answers.
//!
//! The device maker's program sends [`Request`]s and gets answers; what the device has to show comes
//! as [`Notice`]s. Ends when nobody can send requests any more.
//!
//! A registry is verified and kept on a thread of its own, one at a time; the one before decides
//! meanwhile.
//!
//! # Why
//! *Trips are written on the task that owns the agent.* A sync takes milliseconds, in which no
//! answer is read; a validator has a few readers, and a second thread would only move the waiting.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::agent::Agent;
use crate::agent::event::{Action, Event, Notice, TapError, TapId};
use crate::agent::wall::{Clock, WallClock};
use crate::clock::Now;
use crate::device::card::Card;
use crate::device::{Journey, Life, Outcome};
use crate::link::client::{Call, ConnectError, Connected, Dialer, Link, Pushes};
use crate::link::lane::{AskError, Lane};
use crate::link::message::{Hello, Ping};
use crate::store::{Installed, RegistryStore, StoreError};

mod receive;

/// Requests and answers that wait for the agent.
const INBOX_MAX: usize = 1_024;
/// What is taken before the disk is synced.
const GROUP_MAX: usize = 64;
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long each address has where a server has several.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of a server that are tried.
const ADDRESSES_MAX: usize = 4;
const PING_PATIENCE: Duration = Duration::from_secs(2);
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);
const PULL_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Server {
    /// Host and port.
    pub address: String,
    /// The name that its certificate must bear.
    pub name: String,
}

/// What a device maker's program asks.
#[derive(Debug)]
pub enum Request {
    /// A holder must have a ticket and the right.
    Board {
        /// The card.
        card: Card,
        /// The text of the ticket's code, if one was shown.
        ticket: Option<String>,
        /// What for.
        journey: Journey,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Outcome, TapError>>,
    },
    /// How is the device?
    Status(oneshot::Sender<Status>),
    /// Bring everything up to date.
    Sync,
    /// A card was tapped.
    Tap {
        /// The card.
        card: Card,
        /// What for.
        journey: Journey,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Outcome, TapError>>,
    },
    /// A signed ticket that needs no card was shown.
    Ticket {
        /// The text of its code.
        text: String,
        /// What for.
        journey: Journey,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Outcome, TapError>>,
    },
}

/// How a device is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether there is a link.
    pub linked: bool,
    /// The registry, and whether it counts now.
    pub registry: Option<(Life, bool)>,
    /// Trips that the server does not have yet.
    pub trips_waiting: usize,
    /// Trips that the server will not take; a person must look at them.
    pub trips_refused: usize,
    /// Files of trips that cannot be read; a person must look at the disk.
    pub files_unreadable: usize,
    /// Whether more cards are blocked than it can know.
    pub blocks_missed: bool,
    /// Why nothing can be granted, if so.
    pub full: Option<String>,
    /// The device's clock minus the server's.
    pub clock_offset_ms: i64,
}

/// What a device shows.
#[derive(Debug)]
pub enum Shown {
    /// The agent's own.
    Notice(Notice),
    /// Why there is no link.
    NoLink(ConnectError),
}

/// Runs an agent. Notices are dropped where nobody takes them.
pub async fn run<S: RegistryStore>(
    agent: Agent<S>,
    (dialer, server, wall): (Dialer, Server, WallClock),
    mut requests: mpsc::Receiver<Request>,
    shown: mpsc::Sender<Shown>,
) {
    let (inbox, mut events) = mpsc::channel(INBOX_MAX);
    let clock = Clock { start: Instant::now(), wall };
    let mut runner = Runner {
        agent,
        clock,
        dialer,
        server,
        reached: None,
        inbox,
        shown,
        taps: HashMap::new(),
        last_tap: 0,
        link: None,
        generation: 0,
        tasks: JoinSet::new(),
        installing: None,
    };
    loop {
        let timeout = runner.agent.next_timeout();
        let until = timeout.map(|at| clock.start + Duration::from_millis(at));
        let sleep = sleep_until(until.unwrap_or_else(|| Instant::now() + PULL_PATIENCE));
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => runner.handle_request(request),
                None => break,
            },
            event = events.recv() => {
                event.into_iter().for_each(|event| runner.handle_incoming(event));
            }
            installed = installed(&mut runner.installing) => {
                runner.installing = None;
                runner.agent.handle_installed(installed, clock.now());
            }
            () = sleep => {}
            Some(_ended) = runner.tasks.join_next() => continue,
        }
        for _ in 0..GROUP_MAX {
            match (requests.try_recv(), events.try_recv()) {
                (Err(_), Err(_)) => break,
                (request, event) => {
                    request.into_iter().for_each(|request| runner.handle_request(request));
                    event.into_iter().for_each(|event| runner.handle_incoming(event));
                }
            }
        }
        let now = clock.now();
        runner.agent.handle_timeout(now);
        runner.agent.flush(now);
        runner.act();
    }
    runner.stop().await;
}

struct Runner<S: RegistryStore> {
    agent: Agent<S>,
    clock: Clock,
    dialer: Dialer,
    server: Server,
    /// Where the server was found last.
    reached: Option<IpAddr>,
    inbox: mpsc::Sender<Incoming>,
    shown: mpsc::Sender<Shown>,
    taps: HashMap<TapId, oneshot::Sender<Result<Outcome, TapError>>>,
    last_tap: u64,
    link: Option<Arc<Lanes>>,
    generation: u64,
    tasks: JoinSet<()>,
    installing: Option<Installing<S::Registry>>,
}

/// A registry that is being verified; no loss of the link ends it.
type Installing<R> = JoinHandle<Result<Installed<R>, StoreError>>;

/// A link, and a lane for what may take its time.
struct Lanes {
    link: Link,
    bulk: Lane,
}

/// A link that was just made.
struct Greeted {
    lanes: Lanes,
    pushes: Pushes,
    /// When the hello was sent.
    sent: Instant,
}

/// What comes from a task, and from which link.
struct Incoming {
    generation: u64,
    what: What,
}

enum What {
    Connected(Box<Greeted>),
    Event(Box<Event>),
    Lost,
    NoLink(ConnectError),
}

impl<S: RegistryStore> Runner<S> {
    fn handle_request(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Board { card, ticket, journey, answer } => {
                let tap = self.next_tap(answer);
                self.agent.handle(Event::Board { tap, card, ticket, journey }, now);
            }
            Request::Tap { card, journey, answer } => {
                let tap = self.next_tap(answer);
                self.agent.handle(Event::Tap { tap, card, journey }, now);
            }
            Request::Ticket { text, journey, answer } => {
                let tap = self.next_tap(answer);
                self.agent.handle(Event::Ticket { tap, text, journey }, now);
            }
            Request::Sync => self.agent.handle(Event::Sync, now),
            Request::Status(answer) => {
                let status = Status {
                    linked: self.agent.is_linked(),
                    registry: self.agent.registry(now),
                    trips_waiting: self.agent.trips_waiting(),
                    trips_refused: self.agent.trips_refused(),
                    files_unreadable: self.agent.files_unreadable(),
                    blocks_missed: self.agent.blocks_missed(),
                    full: self.agent.check_room(now).err().map(|error| error.to_string()),
                    clock_offset_ms: self.agent.clock_offset_ms(now),
                };
                // Who asked may have gone.
                let _gone = answer.send(status);
            }
        }
    }

    fn next_tap(&mut self, answer: oneshot::Sender<Result<Outcome, TapError>>) -> TapId {
        self.last_tap += 1;
        let tap = TapId(self.last_tap);
        self.taps.insert(tap, answer);
        tap
    }

    /// What comes from an earlier link is late: the agent has been told that it was lost.
    fn handle_incoming(&mut self, incoming: Incoming) {
        if incoming.generation != self.generation {
            return;
        }
        let now = self.clock.now();
        match incoming.what {
            What::Event(event) => self.agent.handle(*event, now),
            What::Connected(connected) => {
                let Greeted { lanes, pushes, sent } = *connected;
                let welcome = Box::new(lanes.link.welcome().clone());
                let connection = lanes.link.connection().clone();
                self.reached = Some(connection.remote_address().ip().to_canonical());
                self.link = Some(Arc::new(lanes));
                self.spawn(|out| async move {
                    connection.closed().await;
                    out.send(What::Lost).await;
                });
                // Without its pushes a link tells of no block.
                self.spawn(|out| receive::forward(pushes, out));
                let sent = self.clock.at(sent);
                self.agent.handle(Event::Connected { sent, welcome }, now);
            }
            What::NoLink(error) => {
                self.show(Shown::NoLink(error));
                self.disconnect(now);
            }
            What::Lost => self.disconnect(now),
        }
    }

    fn disconnect(&mut self, now: Now) {
        self.generation += 1;
        self.link = None;
        self.tasks.abort_all();
        self.agent.handle(Event::Disconnected, now);
    }

    fn act(&mut self) {
        while let Some(action) = self.agent.poll_action() {
            match action {
                Action::Answer { tap, outcome } => {
                    let answer = self.taps.remove(&tap);
                    // Who asked may have gone.
                    let _gone = answer.map(|answer| answer.send(*outcome));
                }
                Action::Connect(hello) => self.connect(hello),
                Action::Install => {
                    let installation = self.agent.take_installation();
                    self.installing = installation.map(tokio::task::spawn_blocking);
                }
                Action::Show(notice) => self.show(Shown::Notice(notice)),
                action => self.ask(action),
            }
        }
    }

    fn show(&self, shown: Shown) {
        // Nobody has to look; what counts is in the status.
        let _unseen = self.shown.try_send(shown);
    }

    fn connect(&mut self, hello: Hello) {
        let (dialer, server, reached) = (self.dialer.clone(), self.server.clone(), self.reached);
        self.spawn(|out| async move {
            let what = match connect(&dialer, &server, &hello, reached).await {
                Ok(connected) => What::Connected(Box::new(connected)),
                Err(error) => What::NoLink(error),
            };
            out.send(what).await;
        });
    }

    /// Asks the server; the answer comes as an event.
    fn ask(&mut self, action: Action) {
        let Some(lanes) = self.link.clone() else { return };
        let clock = self.clock;
        self.spawn(|out| async move {
            match action {
                Action::Acknowledge(acknowledge) => {
                    // The next hello says it again.
                    let _unheard = lanes.bulk.ask(&acknowledge, SETTLE_PATIENCE).await;
                }
                Action::Cancel(cancel) => {
                    // The server lets it expire anyway.
                    let _unheard = lanes.bulk.ask(&cancel, SETTLE_PATIENCE).await;
                }
                Action::Check { tap, check, patience_ms } => {
                    let patience = Duration::from_millis(patience_ms);
                    // The agent stops waiting by itself, and cancels what comes then.
                    let answer = lanes.link.ask_beyond(&check, patience, SETTLE_PATIENCE).await;
                    out.answer(answer, |answer| Event::Checked { tap, answer }).await;
                }
                Action::Confirm { seq, confirm, patience_ms } => {
                    let answer = lanes.bulk.ask(&confirm, Duration::from_millis(patience_ms)).await;
                    out.answer(answer, |answer| Event::Confirmed { seq, answer }).await;
                }
                Action::Ping => {
                    let sent = clock.now();
                    let answer =
                        lanes.link.ask(&Ping { clock_ms: sent.wall_ms }, PING_PATIENCE).await;
                    out.answer(answer, |answer| Event::Ponged { sent, answer }).await;
                }
                Action::Pull { have } => receive::pull(&lanes.link, have, out).await,
                Action::Upload { batch, patience_ms } => {
                    let answer = lanes.bulk.ask(&batch, Duration::from_millis(patience_ms)).await;
                    out.answer(answer, Event::Uploaded).await;
                }
                Action::Answer { .. } | Action::Connect(_) | Action::Install | Action::Show(_) => {}
            }
        });
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(Out) -> F) {
        let out = Out { inbox: self.inbox.clone(), generation: self.generation };
        self.tasks.spawn(task(out));
    }

    async fn stop(mut self) {
        let now = self.clock.now();
        self.agent.close(now);
        self.act();
        self.link = None;
        self.tasks.abort_all();
        // The server learns of the end by silence otherwise.
        let _silent = tokio::time::timeout(STOP_PATIENCE, self.dialer.endpoint().wait_idle()).await;
    }
}

/// The way of a task to the agent.
struct Out {
    inbox: mpsc::Sender<Incoming>,
    generation: u64,
}

impl Out {
    async fn event(&self, event: Event) {
        self.send(What::Event(Box::new(event))).await;
    }

    /// A stream that has ended although the connection goes on takes the link with it: nothing
    /// would be answered there any more.
    async fn answer<A>(
        &self,
        answer: Result<A, AskError>,
        event: impl FnOnce(Result<A, AskError>) -> Event,
    ) {
        let is_closed = matches!(answer, Err(AskError::Closed));
        self.event(event(answer)).await;
        if is_closed {
            self.send(What::Lost).await;
        }
    }

    async fn send(&self, what: What) {
        // The agent ends before its tasks.
        let _ended = self.inbox.send(Incoming { generation: self.generation, what }).await;
    }
}

/// What came of the registry that is being installed, if one is.
async fn installed<R>(installing: &mut Option<Installing<R>>) -> Result<Installed<R>, StoreError> {
    match installing {
        Some(installing) => {
            installing.await.unwrap_or_else(|lost| Err(io::Error::from(lost).into()))
        }
        None => std::future::pending().await,
    }
}

/// Tries all addresses of the server in turn, that which was `reached` before first.
async fn connect(
    dialer: &Dialer,
    server: &Server,
    hello: &Hello,
    reached: Option<IpAddr>,
) -> Result<Greeted, ConnectError> {
    let found = tokio::time::timeout(CONNECT_PATIENCE, tokio::net::lookup_host(&server.address));
    let found = found.await.map_err(|_| ConnectError::TimedOut)?.map_err(|_| ConnectError::Lost)?;
    let mut found: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
    found.sort_by_key(|address| Some(address.ip()) != reached);
    let patience = if found.len() > 1 { ADDRESS_PATIENCE } else { CONNECT_PATIENCE };
    let server_name = &server.name;
    let first = found.first().copied().ok_or(ConnectError::Lost)?;
    let call = Call { server: first, server_name, hello, check: None, patience };
    let Connected { link, greeted_at: sent, pushes, .. } = dialer.connect_any(&found, call).await?;
    let bulk = tokio::time::timeout(CONNECT_PATIENCE, link.open_lane()).await;
    let bulk = bulk.map_err(|_| ConnectError::TimedOut)?.map_err(ConnectError::Hello)?;
    Ok(Greeted { lanes: Lanes { link, bulk }, pushes, sent })
}
