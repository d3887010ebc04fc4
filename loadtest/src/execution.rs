//! One run of a scenario: tokens, generators, probe, faults and samples beside each other, the audit
//! after them, and the document in the end.
//!
//! Every generator has a thread, connections and holders of its own; all count from one instant, at
//! which their connections are open already. What they count is added up.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use crate::acknowledged::Acknowledged;
use crate::arrivals::{Arrivals, ArrivalsError, Plan};
use crate::audit::{self, Audit, Subject};
use crate::calendar::{Offset, Wall};
use crate::citizens::desks::Desks;
use crate::citizens::{Citizens, CitizensError, Habits, SKEW_SECONDS};
use crate::client::ClientError;
use crate::clock::Monotonic;
use crate::endpoint::Endpoint;
use crate::execution::beside::Beside;
use crate::fleet::figures::FleetFigures;
use crate::fleet::{Fleet, FleetError};
use crate::generator::{Generator, Settings};
use crate::http::{self, Http, Tls};
use crate::machine::{Awake, Meter};
use crate::probe::{Credentials, HttpCheck};
use crate::recorder::{About, Recorder};
use crate::registry::Registry;
use crate::run::{Load, Run, WRONG_ANSWERS_MAX};
use crate::scenario::Scenario;
use crate::second::Second;
use crate::time::{Clock, Nanos};
use crate::tokens::{ACCEPTOR_SCOPE, Renewal, TokenEndpoint, Tokens, TokensError};
use crate::transport::{Connections, Transport};

pub use self::watch::Watch;

mod beside;
mod watch;

/// How long opening the connections may take before the run begins without the rest.
const OPENING: Nanos = Nanos::from_seconds(10);
/// How long the audit may take.
const AUDIT: Nanos = Nanos::from_seconds(1_800);
/// Seconds that wait to be shown.
const SECONDS_WAITING_MAX: usize = 1_024;
/// Between two looks at how the run stands, seconds: each copies all that was counted.
const STANDING_SECONDS: u64 = 5;
/// An insurance number that is well formed and nobody's.
const NOBODYS_SNILS: &str = "11223344595";

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// The processors cannot be kept from sleeping.
    #[error("`load.awake`: the processors cannot be kept awake: {0}")]
    Asleep(#[source] io::Error),
    /// The plan cannot be made.
    #[error("`arrivals`: {0}")]
    Arrivals(#[from] ArrivalsError),
    /// Nobody can come.
    #[error(transparent)]
    Citizens(#[from] CitizensError),
    /// The server's address is none.
    #[error("`target`: {0}")]
    Endpoint(#[from] ClientError),
    /// The fleet cannot set out.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The machine gives no thread or no socket.
    #[error("the machine refuses: {0}")]
    Machine(#[from] io::Error),
    /// All generators ended before their time.
    #[error("the generators panicked")]
    Panicked,
    /// The server gives no tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// A scenario whose registry is read and whose organizations have tokens.
pub struct Execution<'a> {
    scenario: &'a Scenario,
    registry: &'a Registry,
    endpoint: Endpoint,
    admin: Option<Endpoint>,
    tokens: Tokens,
    is_ended_early: AtomicBool,
    _renewal: Renewal,
}

/// What connects one generator's thread with the rest.
struct Lane {
    /// Which one, from 0.
    thread: u32,
    /// Told when its connections are open, or why it cannot begin.
    ready: SyncSender<Result<(), ExecutionError>>,
    /// Tells when the run begins.
    started: Receiver<(Monotonic, Wall)>,
    /// Takes its seconds.
    news: SyncSender<News>,
    /// Whether it shall also tell how it stands.
    tells_standing: bool,
}

/// What a generator tells while it runs.
enum News {
    Second(Second),
    Standing { thread: u32, recorder: Box<Recorder> },
}

impl Lane {
    /// Says that the connections are open and waits for the start.
    fn start(&self) -> Result<(Monotonic, Wall), ExecutionError> {
        // The other end is there as long as the run.
        let _ = self.ready.send(Ok(()));
        self.started.recv().map_err(|_| ExecutionError::Panicked)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // If it ends before it is ready, all the others wait for it.
        let _ = self.ready.try_send(Err(ExecutionError::Panicked));
    }
}

/// What one generator is to do.
struct Task<'a> {
    /// All generators have the same and take turns.
    plan: Option<Plan>,
    workload: Citizens<'a>,
}

/// What one generator brings back.
struct Share {
    recorder: Recorder,
    connections: Connections,
    facts: Acknowledged,
    holders: Vec<u32>,
    wrong_answers: Vec<String>,
    fleet: Option<FleetFigures>,
}

impl<'a> Execution<'a> {
    /// Fetches tokens.
    pub fn prepare(
        scenario: &'a Scenario,
        registry: &'a Registry,
    ) -> Result<Execution<'a>, ExecutionError> {
        let target = &scenario.target;
        let endpoint = Endpoint::parse(&target.url, target.ca.as_deref())?;
        let admin = target.admin_url.as_deref();
        let admin = admin.map(|url| Endpoint::parse(url, target.ca.as_deref())).transpose()?;
        let (tokens, renewal) = Renewal::start(registry, TokenEndpoint(endpoint.clone()))?;
        let is_ended_early = AtomicBool::new(false);
        let _renewal = renewal;
        Ok(Execution { scenario, registry, endpoint, admin, tokens, is_ended_early, _renewal })
    }

    /// Runs the scenario by these arrivals.
    pub fn run(
        &self,
        arrivals: Option<&Arrivals>,
        watch: &mut dyn Watch,
    ) -> Result<Run, ExecutionError> {
        let scenario = self.scenario;
        let threads = scenario.threads.max(1);
        let awake = scenario.load.awake.then(Awake::keep).transpose();
        let _awake = awake.map_err(ExecutionError::Asleep)?;
        thread::scope(|scope| {
            let (news, told) = sync_channel(SECONDS_WAITING_MAX);
            let tells_standing = watch.wants_standing();
            let (ready, opened) = sync_channel(threads as usize);
            let mut starts = Vec::new();
            let mut generators = Vec::new();
            for thread in 0..threads {
                let (start, started) = sync_channel(1);
                let (ready, news) = (ready.clone(), news.clone());
                let lane = Lane { thread, ready, started, news, tells_standing };
                let generate = move || match self.generate(arrivals, &lane) {
                    Ok(share) => Some(share),
                    Err(error) => {
                        // Nobody listens any more where another one failed before.
                        let _ = lane.ready.try_send(Err(error));
                        None
                    }
                };
                let named = thread::Builder::new().name(format!("generator-{thread}"));
                generators.push(named.spawn_scoped(scope, generate)?);
                starts.push(start);
            }
            drop((ready, news));
            // Where one cannot begin none does: the others wait for a start that does not come.
            opened.iter().take(threads as usize).collect::<Result<(), _>>()?;
            let (clock, begun, wall) = (Monotonic::start(), Instant::now(), Wall::now());
            let beside = Beside::start(self, begun)?;
            for start in &starts {
                // One that has panicked takes no start.
                let _ = start.send((clock, wall));
            }
            self.look_on(&told, watch, (&beside, begun, wall));
            let shares = generators.into_iter().map(|generator| generator.join().ok().flatten());
            let shares: Vec<Option<Share>> = shares.collect();
            if shares.iter().all(Option::is_none) {
                return Err(ExecutionError::Panicked);
            }
            Ok(self.conclude(shares, (beside, watch), (clock, wall)))
        })
    }

    /// Passes on what the generators tell, until the last one ends.
    fn look_on(
        &self,
        told: &Receiver<News>,
        watch: &mut dyn Watch,
        (beside, begun, wall): (&Beside, Instant, Wall),
    ) {
        let mut standings: Vec<Option<Box<Recorder>>> = Vec::new();
        standings.resize_with(self.scenario.threads.max(1) as usize, || None);
        for news in told {
            let (thread, recorder) = match news {
                News::Second(second) => {
                    if watch.second(&second).is_break() {
                        self.is_ended_early.store(true, Ordering::Relaxed);
                    }
                    continue;
                }
                News::Standing { thread, recorder } => (thread, recorder),
            };
            if let Some(standing) = standings.get_mut(thread as usize) {
                *standing = Some(recorder);
            }
            if standings.iter().any(Option::is_none) {
                continue;
            }
            let mut sum = Recorder::counting_from(Nanos::NEVER);
            standings.iter_mut().filter_map(Option::take).for_each(|share| sum.add(&share));
            let mut run = sum.into_run(self.about(wall));
            let planned = self.scenario.planned_windows(wall);
            run.availability = beside.seen(begun.elapsed().as_secs_f64(), &planned);
            run.terms = self.scenario.terms();
            watch.standing(&run);
        }
    }

    /// What is said of a run that begins now.
    fn about(&self, begun: Wall) -> About {
        let scenario = self.scenario;
        About {
            scenario: scenario.name.clone(),
            seed: scenario.seed,
            load: scenario.load.kind,
            is_kept_awake: scenario.load.awake,
            begun: begun.to_string(),
            duration_seconds: scenario.duration_seconds - scenario.warm_up_seconds,
            is_ended_early: false,
            connections: Connections::default(),
            wrong_answers: Vec::new(),
        }
    }

    /// One generator, from its connections to what it counted.
    fn generate(&self, arrivals: Option<&Arrivals>, lane: &Lane) -> Result<Share, ExecutionError> {
        let Some(settings) = &self.scenario.fleet else {
            return self.generate_over_http(arrivals, lane);
        };
        let (mut transport, fleet) = Fleet::prepare(self.scenario, settings, self.registry)?;
        let mut task = self.task(arrivals, lane, Some(fleet.terminals()))?;
        let (clock, begun) = lane.start()?;
        transport.restart(clock);
        task.workload.begin(begun);
        fleet.begin();
        let mut share = self.drive(task, lane, clock, &mut transport);
        let (figures, faults) = fleet.finish(transport.runtime());
        share.wrong_answers.extend(faults);
        share.connections = transport.connections();
        share.fleet = Some(figures);
        Ok(share)
    }

    fn generate_over_http(
        &self,
        arrivals: Option<&Arrivals>,
        lane: &Lane,
    ) -> Result<Share, ExecutionError> {
        let mut transport = self.transport(self.scenario.threads.max(1))?;
        transport.open_ahead(OPENING);
        let mut task = self.task(arrivals, lane, None)?;
        let (clock, begun) = lane.start()?;
        transport.restart(clock);
        task.workload.begin(begun);
        Ok(self.drive(task, lane, clock, &mut transport))
    }

    /// All that can fail, before the run begins.
    fn task(
        &self,
        arrivals: Option<&Arrivals>,
        lane: &Lane,
        terminals: Option<Vec<u64>>,
    ) -> Result<Task<'a>, ExecutionError> {
        let scenario = self.scenario;
        let duration = nanos(scenario.duration_seconds);
        let habits = Habits { terminals, ..Habits::new(scenario, lane.thread, Wall::now()) };
        let plan = arrivals.map(|arrivals| arrivals.plan(duration, scenario.seed)).transpose()?;
        Ok(Task { plan, workload: Citizens::new(self.registry, habits)? })
    }

    fn drive(
        &self,
        task: Task<'_>,
        lane: &Lane,
        clock: Monotonic,
        transport: &mut impl Transport,
    ) -> Share {
        let scenario = self.scenario;
        let (thread, threads) = (lane.thread, scenario.threads.max(1));
        let Task { plan, mut workload } = task;
        let mut recorder = Recorder::counting_from(nanos(scenario.warm_up_seconds));
        let give_up = nanos(scenario.give_up_seconds);
        let generator = Generator {
            workload: &mut workload,
            transport,
            clock: &clock,
            recorder: &mut recorder,
            meter: Some(Meter::start()),
            settings: Settings { give_up, drain: give_up, ..Settings::default() },
        };
        let mut tell = |second: &Second, recorder: &Recorder| {
            // What nobody has the time to show is in the document all the same.
            let _ = lane.news.try_send(News::Second(second.clone()));
            if lane.tells_standing && second.second % STANDING_SECONDS == STANDING_SECONDS - 1 {
                let recorder = Box::new(recorder.clone());
                let _ = lane.news.try_send(News::Standing { thread, recorder });
            }
            let is_ended = self.is_ended_early.load(Ordering::Relaxed);
            if is_ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match plan {
            Some(plan) if scenario.load.kind == Load::Open => {
                let mine = plan.skip(thread as usize).step_by(threads as usize);
                generator.run_open(mine, &mut tell);
            }
            _ => {
                let (users, until) = (scenario.load.users / threads, scenario.duration_seconds);
                generator.run_closed(users.max(1), nanos(until), &mut tell);
            }
        }
        let connections = transport.connections();
        let wrong_answers = workload.wrong_answers().to_vec();
        let (facts, holders) = workload.finish();
        Share { recorder, connections, facts, holders, wrong_answers, fleet: None }
    }

    fn transport(&self, threads: u32) -> io::Result<Http> {
        let connections = &self.scenario.connections;
        let settings = http::Settings {
            address: self.endpoint.address(),
            host: self.endpoint.host().to_owned(),
            tls: self.endpoint.tls().map(|(name, config)| Tls { config, name }),
            connections: connections.initial.div_ceil(threads),
            connections_max: connections.max.div_ceil(threads),
        };
        Http::new(settings, self.tokens.clone(), Monotonic::start())
    }

    /// Stops what ran beside, compares the history, and makes the document. What a generator that has
    /// panicked had counted is lost, and told.
    fn conclude(
        &self,
        shares: Vec<Option<Share>>,
        (beside, watch): (Beside, &dyn Watch),
        (clock, begun): (Monotonic, Wall),
    ) -> Run {
        let scenario = self.scenario;
        let mut recorder = Recorder::counting_from(Nanos::NEVER);
        let mut about = self.about(begun);
        let mut facts = Vec::new();
        let mut fleet = None;
        let (generators, panicked) =
            (shares.len(), shares.iter().filter(|share| share.is_none()).count());
        for share in shares.into_iter().flatten() {
            recorder.add(&share.recorder);
            about.connections.add(&share.connections);
            about.wrong_answers.extend(share.wrong_answers);
            // A fleet has one generator.
            fleet = fleet.or(share.fleet);
            facts.push((share.facts, share.holders));
        }
        about.wrong_answers.truncate(WRONG_ANSWERS_MAX);
        if self.is_ended_early.load(Ordering::Relaxed) {
            // Generators end with a second.
            let rows = recorder.seconds();
            let last = rows.iter().rfind(|row| row.due > 0).map_or(0, |row| row.second + 1);
            let seconds = last as f64 - scenario.warm_up_seconds;
            about.is_ended_early = seconds < about.duration_seconds;
            about.duration_seconds = seconds.clamp(0.0, about.duration_seconds);
        }
        let mut run = recorder.into_run(about);
        let planned = scenario.planned_windows(begun);
        beside.stop(&mut run, clock.now().0 as f64 / 1e9, &planned);
        if panicked > 0 {
            run.failures.push(format!(
                "{panicked} of {generators} generators panicked: what they counted is lost"
            ));
        }
        run.audit = self.audit(facts, watch, (clock, begun), &mut run.failures);
        run.terms = scenario.terms();
        run.fleet = fleet;
        run
    }

    /// Compares the history; what cannot be compared is told and counts as not read. So is what is
    /// left when the end is wanted, unless that was so before.
    fn audit(
        &self,
        shares: Vec<(Acknowledged, Vec<u32>)>,
        watch: &dyn Watch,
        (clock, begun): (Monotonic, Wall),
        failures: &mut Vec<String>,
    ) -> Option<Audit> {
        let organization = Desks::new(self.registry).history.first().copied()?;
        let begun = self.scenario.frozen().unwrap_or(begun);
        let utc = Offset(0);
        let from = begun.day(utc).plus(-1).to_string();
        let to = begun.plus(clock.now()).day(utc).plus(1).to_string();
        let mut told = |why| failures.push(format!("the history was not compared: {why}"));
        let was_ended = watch.wants_end();
        let is_unwanted = || !was_ended && watch.wants_end();
        let mut transport = self.transport(1).map_err(|error| told(error.to_string())).ok()?;
        transport.restart(clock);
        let mut audit = Audit::default();
        for (mut facts, holders) in shares {
            let subject = Subject {
                registry: self.registry,
                holders: &holders,
                organization,
                from: &from,
                to: &to,
                begun: begun.plus_seconds(-SKEW_SECONDS),
                is_fresh: self.scenario.target.fresh,
                deadline: clock.now() + AUDIT,
                is_unwanted: &is_unwanted,
            };
            match audit::compare(&subject, &mut facts, &mut transport, &clock) {
                Ok(compared) => audit.add(&compared),
                Err(error) => {
                    audit.unchecked_holders += holders.len() as u64;
                    told(error.to_string());
                }
            }
        }
        if is_unwanted() && audit.unchecked_holders > 0 {
            told("its end was not waited for".to_owned());
        }
        Some(audit)
    }

    /// The check of the probe: a well-formed one that opens nothing, because nobody holds the card.
    fn probed(&self) -> Option<HttpCheck> {
        let desks = Desks::new(self.registry);
        let directory = &self.registry.directory;
        let (place, person) = match (desks.plastic.first(), desks.snils.first()) {
            (Some(place), _) => (place, r#""clientCode":"NOBODY0""#.to_owned()),
            (None, Some(place)) => (place, format!(r#""clientSnils":"{NOBODYS_SNILS}""#)),
            (None, None) => return None,
        };
        let organization = directory.organizations.get(usize::from(*place))?;
        let terminal = organization.terminals.first()?;
        let offer = organization.offers.first()?;
        let service = directory.services.get(usize::from(offer.service))?.id;
        let body =
            format!(r#"{{"serviceId":{service},"organizationTerminalId":{terminal},{person}}}"#);
        let credentials = Credentials {
            client_id: organization.client_id.clone(),
            secret: organization.secret.0.clone(),
            scope: ACCEPTOR_SCOPE.to_owned(),
        };
        Some(HttpCheck::new(self.endpoint.clone(), credentials, body))
    }
}

fn nanos(seconds: f64) -> Nanos {
    Nanos((seconds * 1e9) as u64)
}
