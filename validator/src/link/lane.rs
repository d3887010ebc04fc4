//! A lane: one long-lived stream on which a device asks, pipelined.
//!
//! Any number of tasks ask at the same time, at most as many as the lane has places; each gets its
//! own answer, in whatever order they come. Two tasks of the lane write and read; they end with it.
//! What is waiting when the stream ends is answered [`AskError::Closed`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use crate::link::frame::{FrameError, Header, MESSAGE_BYTES_MAX};
use crate::link::message::{Failure, FailureCode, Kind};
use crate::link::request::{Message, Request};
use crate::link::wire::{self, FrameReader};

/// Bytes that wait to be written; with more, nobody reads them, and the lane ends.
const OUTGOING_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Requests under way before the server has said how many there may be.
pub const PLACES_DEFAULT: usize = 64;

/// One stream with requests and answers. Dropping it ends the stream.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    places: Semaphore,
}

#[derive(Debug, Default)]
struct Shared {
    // A std lock: held for the length of a copy.
    state: Mutex<State>,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    outgoing: Vec<u8>,
    waiting: HashMap<u32, oneshot::Sender<(u16, Vec<u8>)>>,
    last: u32,
    ended: bool,
}

impl Lane {
    /// Opens a stream for at most `places` requests at the same time.
    pub async fn open(connection: &Connection, places: usize) -> Result<Lane, AskError> {
        let (send, receive) = connection.open_bi().await.map_err(|_| AskError::Closed)?;
        let shared = Arc::new(Shared::default());
        tokio::spawn(write(Arc::clone(&shared), send));
        tokio::spawn(read(Arc::clone(&shared), receive));
        Ok(Lane { shared, places: Semaphore::new(places.max(1)) })
    }

    /// Asks and waits for the answer, at most for `patience`, which travels with the request.
    pub async fn ask<R: Request>(
        &self,
        request: &R,
        patience: Duration,
    ) -> Result<R::Answer, AskError> {
        self.ask_beyond(request, patience, Duration::ZERO).await
    }

    /// The same, but an answer that comes up to `late` after the time is taken too: of some questions
    /// the server must hear that nobody waits any more.
    pub async fn ask_beyond<R: Request>(
        &self,
        request: &R,
        patience: Duration,
        late: Duration,
    ) -> Result<R::Answer, AskError> {
        let until = Instant::now() + patience;
        let place = tokio::time::timeout_at(until, self.places.acquire()).await;
        let _place = place.map_err(|_| AskError::TimedOut)?.map_err(|_| AskError::Closed)?;
        let asked = self.send(request, patience)?;
        let until = until + late;
        let answer = tokio::time::timeout_at(until, asked.answer).await;
        let (kind, bytes) =
            answer.map_err(|_| AskError::TimedOut)?.map_err(|_| AskError::Closed)?;
        drop(asked.entry);
        answer_of::<R::Answer>(kind, &bytes)
    }

    fn send<R: Request>(&self, request: &R, patience: Duration) -> Result<Asked, AskError> {
        let deadline_ms = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX).max(1);
        let (sender, answer) = oneshot::channel();
        let correlation = {
            let mut state = self.shared.lock();
            state.ended |= state.outgoing.len() > OUTGOING_BYTES_MAX;
            if state.ended {
                return Err(AskError::Closed);
            }
            state.last = state.last.wrapping_add(1);
            let correlation = state.last;
            wire::push(&mut state.outgoing, correlation, deadline_ms, request);
            state.waiting.insert(correlation, sender);
            correlation
        };
        self.shared.written.notify_one();
        Ok(Asked { answer, entry: Entry { shared: Arc::clone(&self.shared), correlation } })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.waiting.clear();
        drop(state);
        self.written.notify_one();
    }
}

struct Asked {
    answer: oneshot::Receiver<(u16, Vec<u8>)>,
    entry: Entry,
}

/// Takes the request out of those that wait, however the waiting ends.
struct Entry {
    shared: Arc<Shared>,
    correlation: u32,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.correlation);
    }
}

/// The message of an answer, or why it is none.
pub fn answer_of<A: Message>(kind: u16, bytes: &[u8]) -> Result<A, AskError> {
    if kind == A::KIND as u16 {
        return wire::decode(bytes).map_err(|_| AskError::Malformed);
    }
    if kind == Kind::Failure as u16 {
        let failure: Failure = wire::decode(bytes).map_err(|_| AskError::Malformed)?;
        return Err(AskError::Failed(failure.code));
    }
    Err(AskError::Malformed)
}

/// Writes all that waits at a time.
async fn write(shared: Arc<Shared>, mut stream: SendStream) {
    let mut bytes = Vec::new();
    loop {
        let ended = {
            let mut state = shared.lock();
            std::mem::swap(&mut bytes, &mut state.outgoing);
            state.ended
        };
        if bytes.is_empty() {
            if ended {
                // A stream that the other side has stopped needs no end.
                let _stopped = stream.finish();
                return;
            }
            shared.written.notified().await;
            continue;
        }
        if stream.write_all(&bytes).await.is_err() {
            return shared.end();
        }
        bytes.clear();
    }
}

async fn read(shared: Arc<Shared>, mut stream: RecvStream) {
    let mut reader = FrameReader::default();
    while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
        let mut answers = |header: &Header, message: Option<&[u8]>| {
            if let Some(message) = message
                && let Some(waits) = shared.lock().waiting.remove(&header.correlation)
            {
                // Who asked may have lost patience.
                let _late = waits.send((header.kind, message.to_vec()));
            }
            Ok::<_, FrameError>(())
        };
        if reader.read(&chunk.bytes, &mut answers).is_err() {
            break;
        }
    }
    shared.end();
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AskError {
    /// The stream or the connection has ended.
    #[error("the link is closed")]
    Closed,
    /// The server says why.
    #[error("the server refused: {0:?}")]
    Failed(FailureCode),
    /// What the server sent is no answer.
    #[error("the answer is malformed")]
    Malformed,
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
}
