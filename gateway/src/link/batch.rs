//! What arrived on a stream at once: its frames are read, its checks answered together, everything
//! else answered or handed on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use engine::answer::Reply;
use engine::calendar::{Day, Timestamp};
use engine::command::{Check, CheckAnswer, Deadline};
use engine::decide::{Terms, terms};
use engine::identifier::Digest;
use engine::ids::{OrganizationId, ServiceId};
use engine::postbox::Ticket;
use engine::registry::Registry;
use engine::route::Known;
use engine::transaction::Amounts;
use serde_bytes::ByteArray;
use validator::link::close::CloseCode;
use validator::link::frame::{FrameError, Header};
use validator::link::message::{
    self, Ack, CheckResult, Failure, FailureCode, Hello, Kind, Ping, Pong, RegistryAck,
    RegistryPull, Welcome,
};
use validator::link::quick;
use validator::link::request::Message;
use validator::link::transport::VERSION;
use validator::link::wire;

use crate::api::check::{code_of, is_recorded};
use crate::link::jobs::Job;
use crate::link::limits::{DEADLINE_DEFAULT, message_bytes_max};
use crate::link::session::Admission;
use crate::link::settle::{Settlement, ack_code, amount};
use crate::link::stream::{Desk, Waits};

/// Why reading ends, and with it the connection.
pub struct Unreadable;

impl From<FrameError> for Unreadable {
    fn from(_error: FrameError) -> Unreadable {
        Unreadable
    }
}

/// Memory that batches use one after another.
#[derive(Default)]
pub struct Scratch {
    checks: Vec<Check>,
    correlations: Vec<u32>,
}

/// What arrived at once, and its answers so far.
pub struct Batch<'a> {
    desk: &'a mut Desk,
    registry: Guard<Arc<Registry>>,
    admission: Option<Admission>,
    /// When it arrived.
    pub arrived: Instant,
    scratch: &'a mut Scratch,
    out: &'a mut Vec<u8>,
    /// Set where the device has sent more than it may.
    pub exhausted: bool,
    /// Set where the connection must end behind these answers.
    pub end: Option<CloseCode>,
}

impl<'a> Batch<'a> {
    /// Nothing was read yet.
    pub fn new(desk: &'a mut Desk, scratch: &'a mut Scratch, out: &'a mut Vec<u8>) -> Batch<'a> {
        let registry = desk.session.link.gateway.engine.registry();
        let admission = desk.session.admission(&registry);
        let arrived = Instant::now();
        scratch.checks.clear();
        scratch.correlations.clear();
        Batch { desk, registry, admission, arrived, scratch, out, exhausted: false, end: None }
    }

    /// Takes a frame, or the header of one whose message is still to come.
    #[inline]
    pub fn take(&mut self, header: &Header, message: Option<&[u8]>) -> Result<(), Unreadable> {
        let kind = Kind::from_wire(header.kind);
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > message_bytes_max(kind) {
            return Err(Unreadable);
        }
        let Some(message) = message else { return Ok(()) };
        if let Err(code) = self.answer(kind, header, message) {
            self.fail(header, code);
        }
        if kind != Some(Kind::Check) {
            self.desk.session.link.metrics.messages(kind, 1);
        }
        Ok(())
    }

    /// Answers all checks together.
    pub fn finish(self) -> (bool, Option<CloseCode>) {
        let Scratch { checks, correlations } = &*self.scratch;
        if !checks.is_empty() {
            let link = &self.desk.session.link;
            let engine = &link.gateway.engine;
            let mut asked = correlations.iter();
            let out = self.out;
            engine.check_all(&self.registry, checks, |answer, terms| {
                if let Some(correlation) = asked.next() {
                    push_check_result(*correlation, &result_of(&answer, terms), out);
                }
            });
            let count = u64::try_from(checks.len()).unwrap_or(u64::MAX);
            link.metrics.messages(Some(Kind::Check), count);
            link.metrics.answered(count, self.arrived.elapsed());
        }
        (self.exhausted, self.end)
    }

    #[inline]
    fn answer(
        &mut self,
        kind: Option<Kind>,
        header: &Header,
        message: &[u8],
    ) -> Result<(), FailureCode> {
        self.afford()?;
        let session = &self.desk.session;
        if kind == Some(Kind::Hello) {
            return self.hello(header, message);
        }
        if !session.is_greeted() {
            return Err(FailureCode::HelloExpected);
        }
        if !session.is_proven() && !is_harmless(kind) {
            return Err(FailureCode::TooEarly);
        }
        match kind {
            Some(Kind::Check) => self.check(header, message),
            Some(Kind::Confirm) => {
                let admission = self.admitted()?;
                let given: message::Confirm = decode(message)?;
                let settlement = Settlement::confirm(admission.organization, &given);
                self.settle(header, settlement.ok_or(FailureCode::Malformed)?)
            }
            Some(Kind::Cancel) => {
                let admission = self.admitted()?;
                let given: message::Cancel = decode(message)?;
                self.settle(header, Settlement::cancel(admission.organization, &given))
            }
            Some(Kind::Ping) => {
                let _ping: Ping = decode(message)?;
                let pong = Pong { clock_ms: self.clock_ms() };
                wire::push(self.out, header.correlation, 0, &pong);
                Ok(())
            }
            Some(Kind::TripBatch) => self.trips(header, message),
            Some(Kind::RegistryPull) => {
                let organization = self.admitted()?.organization;
                let RegistryPull { have } = decode(message)?;
                self.start(header, Job::Pull(organization, have))
            }
            Some(Kind::RegistryAck) => {
                let organization = self.admitted()?.organization;
                let ack: RegistryAck = decode(message)?;
                self.start(header, Job::Installed(organization, ack))
            }
            _ => Err(FailureCode::UnknownKind),
        }
    }

    /// Whether the device and its organization may send one more message.
    #[inline]
    fn afford(&mut self) -> Result<(), FailureCode> {
        let session = &self.desk.session;
        if session.messages.take(1, self.arrived) == 0 {
            self.exhausted = true;
            return Err(FailureCode::TooMany);
        }
        let gateway = &session.link.gateway;
        match (&gateway.rate_limits, &self.admission) {
            (Some(limits), Some(admission))
                if !limits.take(admission.organization, gateway.clock.now()) =>
            {
                Err(FailureCode::TooMany)
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn check(&mut self, header: &Header, message: &[u8]) -> Result<(), FailureCode> {
        let given = match quick::read_check(message) {
            Some(given) => given,
            None => decode::<message::Check>(message)?,
        };
        let session = &self.desk.session;
        let organization = self.admission.map(|admission| admission.organization);
        let check = Check {
            // Nobody's terminal is refused by the engine, as it is over HTTP.
            organization: organization.unwrap_or(OrganizationId(0)),
            terminal: session.device.terminal,
            service: ServiceId(given.service),
            identifier: Digest(given.id_hash.into_array()),
        };
        let api_type = self.admission.and_then(|admission| admission.api_type);
        if api_type.is_some_and(|api_type| is_recorded(&session.link.gateway, api_type)) {
            if !session.is_proven() {
                return Err(FailureCode::TooEarly);
            }
            let price = amount(given.price).ok_or(FailureCode::Malformed)?;
            return self.record(header, check, Amounts { price, discounted_price: None });
        }
        self.scratch.checks.push(check);
        self.scratch.correlations.push(header.correlation);
        Ok(())
    }

    /// A check that is itself the recorded fact (C-07).
    fn record(
        &mut self,
        header: &Header,
        check: Check,
        amounts: Amounts,
    ) -> Result<(), FailureCode> {
        let session = Arc::clone(&self.desk.session);
        if !session.take_place() {
            return Err(FailureCode::TooMany);
        }
        let engine = &session.link.gateway.engine;
        let (postbox, ticket) = self.desk.next_ticket();
        let reply = Reply::post(postbox, ticket);
        match engine.submit_record(check, amounts, self.deadline(header), reply) {
            Some(answer) => {
                session.give_back(1);
                let result = result_in(&self.registry, &check, &answer, engine.now());
                push_check_result(header.correlation, &result, self.out);
            }
            None => self.wait_for(ticket, header, Some(check)),
        }
        Ok(())
    }

    fn wait_for(&mut self, ticket: Ticket, header: &Header, check: Option<Check>) {
        let waits = Waits { correlation: header.correlation, since: self.arrived, check };
        self.desk.wait_for(ticket, waits);
    }

    fn settle(&mut self, header: &Header, settlement: Settlement) -> Result<(), FailureCode> {
        let session = Arc::clone(&self.desk.session);
        if !session.take_place() {
            return Err(FailureCode::TooMany);
        }
        let deadline = self.deadline(header);
        let engine = &session.link.gateway.engine;
        let (postbox, ticket) = self.desk.next_ticket();
        let reply = Reply::post(Arc::clone(&postbox), ticket);
        let known = match settlement {
            Settlement::Cancel(cancel) => engine.submit_cancel(cancel, deadline, reply),
            Settlement::Confirm(confirm) => engine.submit_confirm(confirm, deadline, reply),
        };
        match known {
            Some(Known::Answer(answer)) => {
                session.give_back(1);
                let code = ack_code(answer);
                wire::push(self.out, header.correlation, 0, &Ack { code });
                session.link.metrics.answered(1, self.arrived.elapsed());
                return Ok(());
            }
            Some(Known::Unknown(_)) => {
                // The unused reply has spent the first ticket.
                let (postbox, ticket) = self.desk.next_ticket();
                let reply = Reply::post(postbox, ticket);
                let engine = engine.clone();
                tokio::spawn(async move {
                    reply.answer(settlement.in_history(&engine, deadline).await);
                });
                self.wait_for(ticket, header, None);
            }
            None => self.wait_for(ticket, header, None),
        }
        Ok(())
    }

    fn trips(&mut self, header: &Header, message: &[u8]) -> Result<(), FailureCode> {
        let organization = self.admitted()?.organization;
        let place = self.desk.session.take_trip_batch(message.len());
        let place = place.ok_or(FailureCode::TooMany)?;
        self.start(header, Job::Trips(organization, message.to_vec(), place))
    }

    fn start(&mut self, header: &Header, job: Job) -> Result<(), FailureCode> {
        let place = self.desk.session.take_job_place().ok_or(FailureCode::TooMany)?;
        let deadline = self.deadline(header);
        self.desk.start(header.correlation, deadline, (job, place));
        Ok(())
    }

    fn hello(&mut self, header: &Header, message: &[u8]) -> Result<(), FailureCode> {
        let hello: Hello = decode(message)?;
        let session = &self.desk.session;
        if session.is_greeted() {
            return Err(FailureCode::HelloExpected);
        }
        if hello.terminal != session.device.terminal.0 {
            self.end = Some(CloseCode::Refused);
            return Err(FailureCode::WrongTerminal);
        }
        let Ok(Admission { organization, .. }) = self.admitted() else {
            self.end = Some(CloseCode::Refused);
            return Err(FailureCode::WrongTerminal);
        };
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            self.end = Some(CloseCode::UnknownVersion);
            return Err(FailureCode::UnknownVersion);
        }
        let link = &session.link;
        let registries = &link.registries;
        let welcome = Welcome {
            version: VERSION,
            clock_ms: self.clock_ms(),
            organization: organization.0,
            registry_version: registries.newest(organization),
            card_key: ByteArray::new(link.gateway.engine.keys().identifiers.cards().secret()),
            signers: registries.signers(),
            rules: registries.rules(),
            in_flight_max: link.budgets.in_flight_max,
        };
        wire::push(self.out, header.correlation, 0, &welcome);
        session.greet(hello.registry_version);
        Ok(())
    }

    fn admitted(&self) -> Result<Admission, FailureCode> {
        self.admission.ok_or(FailureCode::WrongTerminal)
    }

    fn deadline(&self, header: &Header) -> Deadline {
        let patience = match header.deadline_ms {
            0 => DEADLINE_DEFAULT,
            millis => Duration::from_millis(u64::from(millis)),
        };
        Deadline(self.arrived + patience)
    }

    fn clock_ms(&self) -> i64 {
        self.desk.session.link.gateway.clock.now().0 / 1_000
    }

    fn fail(&mut self, header: &Header, code: FailureCode) {
        self.desk.session.link.metrics.failed();
        wire::push(self.out, header.correlation, 0, &Failure { code });
    }
}

fn decode<T: Message>(message: &[u8]) -> Result<T, FailureCode> {
    wire::decode(message).map_err(|_| FailureCode::Malformed)
}

fn is_harmless(kind: Option<Kind>) -> bool {
    // Of an unknown kind a device hears that it is unknown.
    matches!(kind, None | Some(Kind::Check | Kind::Ping | Kind::RegistryPull))
}

/// The answer to a check on the wire.
#[inline]
pub fn result_of(answer: &CheckAnswer, terms: Option<Terms>) -> CheckResult {
    let code = code_of(answer);
    let CheckAnswer::Granted(granted) = answer else {
        return CheckResult { code, ..CheckResult::default() };
    };
    let last = terms.map(|terms| terms.valid_to).filter(|day| *day != Day::FOREVER);
    CheckResult {
        code,
        tx: Some(granted.transaction.0),
        holder: Some(granted.holder.0),
        category: Some(granted.category.0),
        discount: terms.map(|terms| terms.discount_percent),
        valid_to: last.map(|day| day.0),
        companion: terms.is_some_and(|terms| terms.with_companion),
    }
}

/// The same, with the terms that `registry` has for it.
pub fn result_in(
    registry: &Registry,
    check: &Check,
    answer: &CheckAnswer,
    now: Timestamp,
) -> CheckResult {
    let granted = match answer {
        CheckAnswer::Granted(granted) => terms(registry, check, granted.category, now),
        CheckAnswer::Refused(_) | CheckAnswer::Unavailable => None,
    };
    result_of(answer, granted)
}

/// Appends the answer to a check in its frame.
#[inline]
pub fn push_check_result(correlation: u32, result: &CheckResult, out: &mut Vec<u8>) {
    let kind = Kind::CheckResult as u16;
    let header = Header { length: 0, correlation, deadline_ms: 0, kind };
    header.write(out, |out| quick::write_check_result(result, out));
}
