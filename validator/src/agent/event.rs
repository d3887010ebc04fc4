//! What happens to an agent, and what it wants done.

use crate::clock::Now;
use crate::device::card::Card;
use crate::device::{Journey, Outcome};
use crate::link::lane::AskError;
use crate::link::message::{
    Ack, BlockPush, Cancel, Check, CheckResult, Confirm, Hello, Pong, RegistryAck, RegistryOffer,
    TripBatch, TripResults, Welcome,
};
use crate::queue::QueueError;
use crate::queue::segment::Refusal;

/// What happens to an agent.
#[derive(Debug)]
pub enum Event {
    /// The server pushed a block.
    Blocked(BlockPush),
    /// A holder must have a ticket and the right.
    Board {
        /// What the answer will name.
        tap: TapId,
        /// The card.
        card: Card,
        /// The text of the ticket's code, if one was shown.
        ticket: Option<String>,
        /// What for.
        journey: Journey,
    },
    /// The answer to [`Action::Check`].
    Checked {
        /// Of which tap.
        tap: TapId,
        /// The answer.
        answer: Result<CheckResult, AskError>,
    },
    /// There is a link.
    Connected {
        /// When the hello was sent.
        sent: Now,
        /// The server's first words.
        welcome: Box<Welcome>,
    },
    /// The answer to [`Action::Confirm`].
    Confirmed {
        /// Of which trip.
        seq: u64,
        /// The answer.
        answer: Result<Ack, AskError>,
    },
    /// The link is lost, or [`Action::Connect`] brought none.
    Disconnected,
    /// The answer to [`Action::Pull`].
    Offered(Result<RegistryOffer, AskError>),
    /// A piece of what was offered; nothing where it has ended.
    Part(Result<Option<Vec<u8>>, AskError>),
    /// The answer to [`Action::Ping`].
    Ponged {
        /// When it was asked.
        sent: Now,
        /// The answer.
        answer: Result<Pong, AskError>,
    },
    /// Somebody wants everything up to date now.
    Sync,
    /// A card was tapped.
    Tap {
        /// What the answer will name.
        tap: TapId,
        /// The card.
        card: Card,
        /// What for.
        journey: Journey,
    },
    /// A signed ticket that needs no card was shown.
    Ticket {
        /// What the answer will name.
        tap: TapId,
        /// The text of its code.
        text: String,
        /// What for.
        journey: Journey,
    },
    /// The answer to [`Action::Upload`].
    Uploaded(Result<TripResults, AskError>),
}

/// Which tap; free for the sender to choose, each once.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TapId(pub u64);

/// What an agent wants done. All but the last two are answered by an [`Event`] if they say so.
#[derive(Debug)]
pub enum Action {
    /// Tell the server that a registry is installed; no answer is needed.
    Acknowledge(RegistryAck),
    /// Tell the server that nothing came of a check; no answer is needed.
    Cancel(Cancel),
    /// Ask the server; answered by [`Event::Checked`].
    Check {
        /// For which tap.
        tap: TapId,
        /// What to ask.
        check: Check,
        /// How long to wait.
        patience_ms: u64,
    },
    /// Confirm; answered by [`Event::Confirmed`].
    Confirm {
        /// For which trip.
        seq: u64,
        /// What to confirm.
        confirm: Confirm,
        /// How long to wait.
        patience_ms: u64,
    },
    /// Connect; answered by [`Event::Connected`] or [`Event::Disconnected`].
    Connect(Hello),
    /// Run [`crate::agent::Agent::take_installation`] where it may take its time; answered by
    /// [`crate::agent::Agent::handle_installed`], whatever becomes of the link.
    Install,
    /// Ask for the server's clock; answered by [`Event::Ponged`].
    Ping,
    /// Ask for a registry; answered by [`Event::Offered`], then [`Event::Part`]s until an end.
    Pull {
        /// The version that the device has.
        have: u64,
    },
    /// Send trips; answered by [`Event::Uploaded`].
    Upload {
        /// Which.
        batch: TripBatch,
        /// How long to wait.
        patience_ms: u64,
    },
    /// Answer a tap.
    Answer {
        /// Which.
        tap: TapId,
        /// What was decided, or why nothing could be.
        outcome: Box<Result<Outcome, TapError>>,
    },
    /// Show something.
    Show(Notice),
}

/// Why nothing is decided: the passenger is refused, the device needs help.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The journey cannot be reported: a text is too long, the price too high.
    #[error("a text is too long or the price too high")]
    Malformed,
    /// The trip could not be recorded with others of the same moment.
    #[error("the trip could not be recorded")]
    NotRecorded,
    /// The trip cannot be recorded.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// What a device shows or logs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// More cards are blocked than the device can know: it decides nothing alone until a newer
    /// registry knows of them.
    BlocksMissed,
    /// There is a link.
    LinkUp,
    /// There is no link any more.
    LinkDown,
    /// A registry was installed.
    RegistryInstalled {
        /// Which.
        version: u64,
    },
    /// A registry could not be fetched or was refused; the old one stays.
    RegistryRefused {
        /// Why.
        reason: String,
    },
    /// Trips were answered for good.
    TripsReported {
        /// How many.
        trips: usize,
        /// How many of them are rejected or disputed.
        questioned: usize,
    },
    /// The disk fails at something that is not a trip.
    DiskFailed {
        /// Why.
        reason: String,
    },
    /// The server knows other trips by the numbers of these; they got new ones.
    TripsRenumbered {
        /// How many.
        trips: usize,
    },
    /// The server will not take a trip; it was put aside.
    TripRefused {
        /// Its number.
        seq: u64,
        /// Why.
        reason: Refusal,
    },
}
