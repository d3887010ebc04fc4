//! The port to the server: HTTP today, QUIC beside it.

use crate::answer::Answer;
use crate::request::Call;
use crate::time::Nanos;

/// Names a request from its sending to its end; chosen by the generator.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Tag(pub u32);

/// Carries requests to the server and answers back, without ever waiting on its own.
pub trait Transport {
    /// Whether another request can leave at once.
    fn is_free(&self) -> bool;

    /// Sends a request. Call it only while [`Transport::is_free`].
    fn send(&mut self, tag: Tag, call: &Call<'_>);

    /// Gives a request up: its answer, if it comes, is not reported, and what carried it is closed.
    fn abandon(&mut self, tag: Tag);

    /// Waits until something happened or until `until`, and reports all that happened.
    fn poll(&mut self, until: Nanos, take: &mut dyn FnMut(Event<'_>));

    /// What became of its connections so far.
    fn connections(&self) -> Connections;
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// An answer came.
    Answered {
        /// To which request.
        tag: Tag,
        /// What it says.
        answer: Answer<'a>,
        /// When its last byte was read.
        at: Nanos,
    },
    /// There will be no answer: the connection ended or could not be made.
    Lost {
        /// To which request.
        tag: Tag,
        /// When that was noticed.
        at: Nanos,
    },
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Connections {
    /// Opened, the reopened ones included.
    pub opened: u64,
    /// Opened again after the server closed an idle one, which is no error.
    pub reopened: u64,
    /// Ended under a request.
    pub broken: u64,
    /// Could not be opened.
    pub refused: u64,
}

impl Connections {
    /// Adds those of another transport.
    pub fn add(&mut self, other: &Connections) {
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.broken += other.broken;
        self.refused += other.refused;
    }
}
