//! What the generator sends and how it is judged: the port between the loop, which knows time, and
//! the scenario, which knows rights.

use crate::answer::Answer;
use crate::request::Call;
use crate::tally::{Carrier, Kind, Outcome};
use crate::time::Nanos;

/// A request that was chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    /// What it counts as.
    pub kind: Kind,
    /// Whose card it is.
    pub carrier: Carrier,
    /// Where the workload keeps the rest; free for another request once this one is judged or missed.
    pub slot: u32,
}

/// Chooses requests and judges answers.
pub trait Workload {
    /// Chooses the request that is due now. It may be sent later, or never.
    fn next(&mut self, now: Nanos) -> Ticket;

    /// The request itself, to be sent.
    fn call(&self, ticket: Ticket) -> Call<'_>;

    /// Judges an answer; the last call for its ticket.
    fn judge(&mut self, ticket: Ticket, answer: &Answer<'_>, now: Nanos) -> Outcome;

    /// There is no answer; the last call for its ticket. If the request `was_sent`, the server may
    /// have acted on it.
    fn miss(&mut self, ticket: Ticket, was_sent: bool, now: Nanos);
}
