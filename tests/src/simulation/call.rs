//! Calls on their way through the engine.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use engine::answer::{Answer, Postable, Reply};
use engine::command::{Cancel, CheckAnswer, Confirm, Deadline, SettleAnswer};
use engine::shard::Submission;
use engine::transaction::Amounts;

use crate::simulation::town::Question;

/// What a shard is asked.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// The holder refused.
    Cancel(Cancel),
    /// The service was delivered.
    Confirm(Confirm),
    /// A check that is itself the recorded fact.
    Record(Question, Amounts),
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// To a check.
    Check(CheckAnswer),
    /// To a confirm or a cancel.
    Settle(SettleAnswer),
    /// The caller was left without an answer.
    Silence,
}

impl Outcome {
    /// What an answer says that waits for durability.
    pub fn planned(answer: &Answer) -> Outcome {
        match answer {
            Answer::Check(_, answer) => Outcome::Check(*answer),
            Answer::Durable(_) => Outcome::Silence,
            Answer::Settle(_, answer) => Outcome::Settle(*answer),
        }
    }

    /// Whether the caller knows nothing.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Outcome::Silence
                | Outcome::Check(CheckAnswer::Unavailable)
                | Outcome::Settle(SettleAnswer::Unavailable)
        )
    }
}

/// A call that waits for its answer.
pub struct Pending {
    /// What was asked.
    pub call: Call,
    /// Whether its deadline passes before anybody looks at it.
    pub is_late: bool,
    heard: Receiver<Outcome>,
}

impl Pending {
    /// The answer, once it came.
    pub fn heard(&self) -> Option<Outcome> {
        self.heard.try_recv().ok()
    }
}

/// Calls that a shard has worked on; their answers wait for the log.
pub struct Flight {
    /// On its way to the committer.
    pub submission: Submission,
    /// The calls and what they are to be answered.
    pub calls: Vec<(Pending, Outcome)>,
}

/// A call, the reply to hand over with it, and its deadline.
pub fn pending<T: Postable>(
    call: Call,
    is_late: bool,
    outcome: impl Fn(T) -> Outcome + Send + 'static,
) -> (Pending, Reply<T>, Deadline) {
    let (sender, heard) = channel();
    let reply = Reply::new(move |answer: Option<T>| {
        // The simulation may have crashed since.
        let _ = sender.send(answer.map_or(Outcome::Silence, outcome));
    });
    let patience = Duration::from_secs(if is_late { 0 } else { 100_000 });
    (Pending { call, is_late, heard }, reply, Deadline(Instant::now() + patience))
}
