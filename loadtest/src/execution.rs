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
use std::time::{Duration, Instant};

use crate::acknowledged::Acknowledged;
use crate::arrivals::{Arrivals, ArrivalsError};
use crate::audit::{self, Audit, Subject};
use crate::calendar::{Offset, Wall};
use crate::citizens::desks::Desks;
use crate::citizens::{Citizens, CitizensError, Habits};
use crate::client::ClientError;
use crate::clock::Monotonic;
use crate::downtime::Availability;
use crate::endpoint::Endpoint;
use crate::faults::Injector;
use crate::fleet::figures::FleetFigures;
use crate::fleet::{Fleet, FleetError};
use crate::generator::{Generator, Settings};
use crate::http::{self, Http, Tls};
use crate::machine::Meter;
use crate::probe::{Credentials, HttpCheck, Probe};
use crate::recorder::{About, Recorder};
use crate::registry::Registry;
use crate::run::{Load, Run, WRONG_ANSWERS_MAX};
use crate::scenario::Scenario;
use crate::second::Second;
use crate::target::{Sampler, Target};
use crate::time::{Clock, Nanos};
use crate::tokens::{ACCEPTOR_SCOPE, Renewal, TokenEndpoint, Tokens, TokensError};
use crate::transport::{Connections, Transport};

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
    /// A generator ended before its time.
    #[error("a generator panicked")]
    Panicked,
    /// The server gives no tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// Somebody who looks on while a run goes on.
pub trait Watch {
    /// A second of one generator is over; breaking ends the run early.
    fn second(&mut self, second: &Second) -> ControlFlow<()>;

    /// Whether it wants to know how the run stands.
    fn wants_standing(&self) -> bool;

    /// The run so far, without audit, faults and samples.
    fn standing(&mut self, run: &Run);
}

/// Nobody.
impl Watch for () {
    fn second(&mut self, _second: &Second) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn wants_standing(&self) -> bool {
        false
    }

    fn standing(&mut self, _run: &Run) {}
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
    /// Told when its connections are open.
    ready: SyncSender<()>,
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
        let _ = self.ready.send(());
        self.started.recv().map_err(|_| ExecutionError::Panicked)
    }
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
                let generate = move || self.generate(arrivals, &lane);
                let named = thread::Builder::new().name(format!("generator-{thread}"));
                generators.push(named.spawn_scoped(scope, generate)?);
                starts.push(start);
            }
            drop((ready, news));
            // Ends when all are ready, or one has failed and says why when it is joined.
            opened.iter().take(threads as usize).for_each(drop);
            let (clock, begun, wall) = (Monotonic::start(), Instant::now(), Wall::now());
            let beside = Beside::start(self, begun)?;
            // One that has failed takes no start.
            for start in &starts {
                let _ = start.send((clock, wall));
            }
            self.look_on(&told, watch, (&beside, begun, wall));
            let mut shares = Vec::new();
            for generator in generators {
                shares.push(generator.join().map_err(|_| ExecutionError::Panicked)??);
            }
            self.conclude(shares, beside, (clock, wall))
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
        let (clock, begun) = lane.start()?;
        transport.restart(clock);
        fleet.begin();
        let mut habits = Habits::new(self.scenario, lane.thread, begun);
        habits.terminals = Some(fleet.terminals());
        let mut share = self.drive(arrivals, lane, (clock, habits), &mut transport)?;
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
        let (clock, begun) = lane.start()?;
        transport.restart(clock);
        let habits = Habits::new(self.scenario, lane.thread, begun);
        self.drive(arrivals, lane, (clock, habits), &mut transport)
    }

    fn drive(
        &self,
        arrivals: Option<&Arrivals>,
        lane: &Lane,
        (clock, habits): (Monotonic, Habits),
        transport: &mut impl Transport,
    ) -> Result<Share, ExecutionError> {
        let scenario = self.scenario;
        let (thread, threads) = (lane.thread, scenario.threads.max(1));
        let duration = nanos(scenario.duration_seconds);
        // All threads make the same plan and take turns.
        let plan = arrivals.map(|arrivals| arrivals.plan(duration, scenario.seed)).transpose()?;
        let mut workload = Citizens::new(self.registry, habits)?;
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
            _ => generator.run_closed((scenario.load.users / threads).max(1), duration, &mut tell),
        }
        let connections = transport.connections();
        let wrong_answers = workload.wrong_answers().to_vec();
        let (facts, holders) = workload.finish();
        Ok(Share { recorder, connections, facts, holders, wrong_answers, fleet: None })
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

    /// Stops what ran beside, compares the history, and makes the document.
    fn conclude(
        &self,
        shares: Vec<Share>,
        beside: Beside,
        (clock, begun): (Monotonic, Wall),
    ) -> Result<Run, ExecutionError> {
        let scenario = self.scenario;
        let mut recorder = Recorder::counting_from(Nanos::NEVER);
        let mut about = self.about(begun);
        let mut facts = Vec::new();
        let mut fleet = None;
        for share in shares {
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
        run.audit = self.audit(facts, begun, clock)?;
        run.terms = scenario.terms();
        run.fleet = fleet;
        Ok(run)
    }

    fn audit(
        &self,
        shares: Vec<(Acknowledged, Vec<u32>)>,
        begun: Wall,
        clock: Monotonic,
    ) -> Result<Option<Audit>, ExecutionError> {
        let Some(organization) = Desks::new(self.registry).history.first().copied() else {
            return Ok(None);
        };
        let begun = self.scenario.frozen().unwrap_or(begun);
        let utc = Offset(0);
        let from = begun.day(utc).plus(-1).to_string();
        let to = begun.plus(clock.now()).day(utc).plus(1).to_string();
        let mut transport = self.transport(1)?;
        transport.restart(clock);
        let mut audit = Audit::default();
        for (mut facts, holders) in shares {
            let subject = Subject {
                registry: self.registry,
                holders: &holders,
                organization,
                from: &from,
                to: &to,
                is_fresh: self.scenario.target.fresh,
                deadline: clock.now() + AUDIT,
            };
            audit.add(&audit::compare(&subject, &mut facts, &mut transport, &clock)?);
        }
        Ok(Some(audit))
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

/// What runs beside the load.
struct Beside {
    probe: Option<Probe>,
    faults: Injector,
    sampler: Sampler,
}

impl Beside {
    fn start(execution: &Execution<'_>, begun: Instant) -> io::Result<Beside> {
        let scenario = execution.scenario;
        let interval = Duration::from_secs_f64(scenario.probe.interval_seconds);
        let probe = execution.probed();
        let probe = probe.map(|mut check| Probe::start(begun, interval, move || check.is_served()));
        let target = Target {
            pid: scenario.target.pid,
            pid_file: scenario.target.pid_file.clone(),
            admin: execution.admin.clone(),
        };
        Ok(Beside {
            probe: probe.transpose()?,
            faults: Injector::start(begun, scenario.planned_faults())?,
            sampler: Sampler::start(begun, target)?,
        })
    }

    /// What the probe has seen so far.
    fn seen(&self, end_seconds: f64, planned: &[crate::downtime::Planned]) -> Option<Availability> {
        let probe = self.probe.as_ref()?;
        Some(Availability::of(&probe.seen(), end_seconds, planned))
    }

    fn stop(self, run: &mut Run, end_seconds: f64, planned: &[crate::downtime::Planned]) {
        let lookout = self.probe.map(Probe::stop);
        run.availability = lookout.map(|lookout| Availability::of(&lookout, end_seconds, planned));
        run.faults = self.faults.stop();
        run.target = Some(self.sampler.stop())
            .filter(|sampled| !sampled.process.is_empty() || !sampled.metrics.is_empty());
    }
}

fn nanos(seconds: f64) -> Nanos {
    Nanos((seconds * 1e9) as u64)
}
