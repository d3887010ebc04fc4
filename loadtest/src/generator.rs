//! The loop: starts what is due, takes what arrives, counts what is missing.
//!
//! It knows neither the clock nor the protocol nor the scenario; all three are ports, so a whole run
//! happens inside a unit test without a socket or a sleep. Every request that is due ends exactly
//! once: judged, or missed. Missed are those that found the backlog full, that were neither sent nor
//! answered within `give_up` of the instant when they were due, that lost their connection, and
//! those that are left at the end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::iter::Peekable;
use std::ops::ControlFlow;

use crate::flights::{Flight, Flights};
use crate::machine::{Meter, Usage};
use crate::recorder::{Answered, Recorder};
use crate::second::Second;
use crate::time::{Clock, Nanos};
use crate::transport::{Event, Transport};
use crate::workload::{Ticket, Workload};

/// Requests that are started before answers are looked at again.
const TURN: u32 = 32;

/// How long a user of a closed loop waits after a miss, so that a dead server is not asked as fast as
/// the machine can.
const PAUSE: Nanos = Nanos::from_millis(10);

/// Limits of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long after it was due a request counts as missed.
    pub give_up: Nanos,
    /// The most requests under way.
    pub in_flight_max: u32,
    /// The most requests that wait for the transport; the next one that is due is missed.
    pub backlog_max: usize,
    /// How long after the last request was due answers are waited for.
    pub drain: Nanos,
}

impl Default for Settings {
    fn default() -> Settings {
        let ten = Nanos::from_seconds(10);
        Settings { give_up: ten, in_flight_max: 65_536, backlog_max: 262_144, drain: ten }
    }
}

/// Called when a second is over; breaking ends the run as if nothing more were due.
pub type OnSecond<'a> = dyn FnMut(&Second, &Recorder) -> ControlFlow<()> + 'a;

/// All that a run needs.
pub struct Generator<'a, W, T, C> {
    /// What is sent, and how answers are judged.
    pub workload: &'a mut W,
    /// What carries it.
    pub transport: &'a mut T,
    /// What time it is.
    pub clock: &'a C,
    /// What counts.
    pub recorder: &'a mut Recorder,
    /// What the machine says to it, started by this thread.
    pub meter: Option<Meter>,
    /// Limits.
    pub settings: Settings,
}

impl<W: Workload, T: Transport, C: Clock> Generator<'_, W, T, C> {
    /// Runs an open loop: requests are due when the plan says so.
    pub fn run_open(self, plan: impl Iterator<Item = Nanos>, on_second: &mut OnSecond<'_>) {
        Run::new(self, Pace::Open(plan.peekable())).run(on_second);
    }

    /// Runs a closed loop until an instant: each of the users' next request is due when the last one
    /// has ended. It hides what a stalling server does to people who come meanwhile.
    pub fn run_closed(self, users: u32, until: Nanos, on_second: &mut OnSecond<'_>) {
        let now = self.clock.now();
        let ready = (0..users).map(|_| Reverse(now)).collect();
        let pace: Pace<std::iter::Empty<Nanos>> = Pace::Closed { ready, until };
        Run::new(self, pace).run(on_second);
    }
}

enum Pace<P: Iterator<Item = Nanos>> {
    /// When each user's next request is due.
    Closed { ready: BinaryHeap<Reverse<Nanos>>, until: Nanos },
    /// The plan.
    Open(Peekable<P>),
    /// Nothing more is due.
    Over,
}

impl<P: Iterator<Item = Nanos>> Pace<P> {
    fn next_due(&mut self) -> Option<Nanos> {
        match self {
            Pace::Closed { ready, until } => {
                ready.peek().map(|Reverse(due)| *due).filter(|due| due < until)
            }
            Pace::Open(plan) => plan.peek().copied(),
            Pace::Over => None,
        }
    }

    fn take(&mut self) {
        match self {
            Pace::Closed { ready, .. } => drop(ready.pop()),
            Pace::Open(plan) => drop(plan.next()),
            Pace::Over => {}
        }
    }

    /// A request has ended; its user's next one is due then.
    fn ended(&mut self, next: Nanos) {
        if let Pace::Closed { ready, .. } = self {
            ready.push(Reverse(next));
        }
    }

    fn is_over(&mut self, now: Nanos) -> bool {
        match self {
            Pace::Closed { until, .. } => now >= *until,
            Pace::Open(plan) => plan.peek().is_none(),
            Pace::Over => true,
        }
    }
}

/// A request that waits for the transport.
#[derive(Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    due: Nanos,
}

struct Run<'a, W, T, C, P: Iterator<Item = Nanos>> {
    workload: &'a mut W,
    transport: &'a mut T,
    clock: &'a C,
    recorder: &'a mut Recorder,
    meter: Option<Meter>,
    settings: Settings,
    pace: Pace<P>,
    backlog: VecDeque<Waiting>,
    flights: Flights,
    /// Until when answers are waited for, once nothing more is due.
    ending: Option<Nanos>,
}

impl<'a, W, T, C, P> Run<'a, W, T, C, P>
where
    W: Workload,
    T: Transport,
    C: Clock,
    P: Iterator<Item = Nanos>,
{
    fn new(generator: Generator<'a, W, T, C>, pace: Pace<P>) -> Self {
        let Generator { workload, transport, clock, recorder, meter, settings } = generator;
        Run {
            workload,
            transport,
            clock,
            recorder,
            meter,
            settings,
            pace,
            backlog: VecDeque::new(),
            flights: Flights::new(),
            ending: None,
        }
    }

    fn run(mut self, on_second: &mut OnSecond<'_>) {
        loop {
            self.take_due();
            let now = self.clock.now();
            self.send_waiting();
            self.give_up_before(now);
            self.close_seconds(now, on_second);
            if self.is_over(now) {
                break;
            }
            let until = self.next_instant(now);
            self.take_events(until);
        }
        self.miss_the_rest();
        let usage = self.meter.as_mut().map_or_else(Usage::default, Meter::look);
        let last = self.recorder.close_second(usage, 0).clone();
        // There is nothing left to break off.
        let _over = on_second(&last, self.recorder);
    }

    /// Comes to the requests that are due, in a number that does not keep answers waiting.
    fn take_due(&mut self) {
        for _ in 0..TURN {
            let now = self.clock.now();
            let Some(due) = self.pace.next_due().filter(|due| *due <= now) else { break };
            self.pace.take();
            self.recorder.came_to(due, now);
            let ticket = self.workload.next(now);
            if self.backlog.len() >= self.settings.backlog_max {
                self.miss_waiting(Waiting { ticket, due }, now);
                continue;
            }
            self.backlog.push_back(Waiting { ticket, due });
            self.send_waiting();
        }
    }

    fn send_waiting(&mut self) {
        while self.flights.count() < self.settings.in_flight_max && self.transport.is_free() {
            let Some(Waiting { ticket, due }) = self.backlog.pop_front() else { break };
            let sent = self.clock.now();
            if due + self.settings.give_up <= sent {
                self.miss_waiting(Waiting { ticket, due }, sent);
                continue;
            }
            let tag = self.flights.insert(Flight { ticket, due, sent });
            self.transport.send(tag, &self.workload.call(ticket));
            self.recorder.sent(sent);
        }
    }

    /// Gives up what was due too long ago. Both queues are in the order in which it was due.
    fn give_up_before(&mut self, now: Nanos) {
        let give_up = self.settings.give_up;
        while let Some((tag, flight)) = self.flights.oldest()
            && flight.due + give_up <= now
        {
            self.flights.remove(tag);
            self.transport.abandon(tag);
            self.miss_sent(flight, now);
        }
        while let Some(waiting) = self.backlog.front().copied()
            && waiting.due + give_up <= now
        {
            self.backlog.pop_front();
            self.miss_waiting(waiting, now);
        }
    }

    /// Closes the seconds that are past and in which nothing is due that was not come to.
    fn close_seconds(&mut self, now: Nanos, on_second: &mut OnSecond<'_>) {
        let due = self.pace.next_due().unwrap_or(now);
        let limit = now.min(due).second();
        if self.recorder.open_second() >= limit {
            return;
        }
        let usage = self.meter.as_mut().map_or_else(Usage::default, Meter::look);
        let in_flight = u64::from(self.flights.count());
        while self.recorder.open_second() < limit {
            let second = self.recorder.close_second(usage, in_flight).clone();
            if on_second(&second, self.recorder).is_break() {
                self.pace = Pace::Over;
            }
        }
    }

    fn is_over(&mut self, now: Nanos) -> bool {
        if !self.pace.is_over(now) {
            return false;
        }
        let ending = *self.ending.get_or_insert(now + self.settings.drain);
        now >= ending || (self.backlog.is_empty() && self.flights.count() == 0)
    }

    /// When the loop must run again if nothing happens.
    fn next_instant(&mut self, now: Nanos) -> Nanos {
        let second = Nanos::from_seconds(now.second() + 1);
        let due = self.pace.next_due().unwrap_or(Nanos::NEVER);
        let sent = self.flights.oldest().map(|(_, flight)| flight.due);
        let waiting = self.backlog.front().map(|waiting| waiting.due);
        let given_up = sent.into_iter().chain(waiting).min().map(|due| due + self.settings.give_up);
        let end = match &self.pace {
            Pace::Closed { until, .. } => Some(*until).filter(|until| *until > now),
            Pace::Open(_) | Pace::Over => None,
        };
        [given_up, end, self.ending].into_iter().flatten().fold(second.min(due), Nanos::min)
    }

    fn take_events(&mut self, until: Nanos) {
        let Run { workload, transport, recorder, pace, flights, .. } = self;
        transport.poll(until, &mut |event| match event {
            Event::Answered { tag, answer, at } => {
                let Some(Flight { ticket, due, sent }) = flights.remove(tag) else { return };
                // What the poller told of before the send was something else on that connection.
                let at = at.max(sent);
                let outcome = workload.judge(ticket, &answer, at);
                recorder.answered(&Answered { ticket, outcome, due, sent, at });
                pace.ended(at);
            }
            Event::Lost { tag, at } => {
                let Some(flight) = flights.remove(tag) else { return };
                workload.miss(flight.ticket, true, at);
                recorder.missed(flight.ticket, flight.due, at);
                pace.ended(at + PAUSE);
            }
        });
    }

    fn miss_the_rest(&mut self) {
        let now = self.clock.now();
        while let Some((tag, flight)) = self.flights.oldest() {
            self.flights.remove(tag);
            self.transport.abandon(tag);
            self.miss_sent(flight, now);
        }
        while let Some(waiting) = self.backlog.pop_front() {
            self.miss_waiting(waiting, now);
        }
    }

    fn miss_sent(&mut self, flight: Flight, now: Nanos) {
        self.workload.miss(flight.ticket, true, now);
        self.recorder.missed(flight.ticket, flight.due, now);
        self.pace.ended(now + PAUSE);
    }

    fn miss_waiting(&mut self, waiting: Waiting, now: Nanos) {
        self.workload.miss(waiting.ticket, false, now);
        self.recorder.missed(waiting.ticket, waiting.due, now);
        self.pace.ended(now + PAUSE);
    }
}

#[cfg(test)]
mod tests;
