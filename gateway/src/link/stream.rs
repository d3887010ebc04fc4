//! One stream of a device: reads all that is there, answers it together, and writes answers that
//! come later as they come.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use engine::command::{Check, Deadline};
use engine::postbox::{Postbox, Posted, Ticket, gather_commands};
use foldhash::fast::FixedState;
use futures_util::poll;
use quinn::{ReadError, RecvStream, SendStream};
use tokio::sync::mpsc;
use validator::link::close::CloseCode;
use validator::link::message::Ack;
use validator::link::wire::{self, FrameReader};

use crate::link::batch::{Batch, Scratch, Unreadable, push_check_result, result_in};
use crate::link::jobs::{Errand, Job, JobAnswer};
use crate::link::limits::{JOB_ANSWERS_WAITING_MAX, PAUSE, WRITE_TIMEOUT};
use crate::link::session::{JobPlace, Session};
use crate::link::settle::ack_code;
use crate::link::unfinished::Unfinished;

/// Pieces that are read together.
const PIECES_TOGETHER: usize = 32;
/// Bytes of a buffer that is kept for the next answers.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static BUFFER: RefCell<Vec<u8>> = RefCell::default();
}

/// Serves a stream to its end.
pub async fn serve(session: Arc<Session>, send: SendStream, receive: RecvStream) {
    let desk = Desk::new(Arc::clone(&session));
    let reader = FrameReader::default();
    let unfinished = Unfinished::default();
    let mut stream =
        Stream { desk, send, receive, reader, kept: 0, unfinished, open: true, pause: None };
    let code = stream.run().await;
    session.keep_bytes(stream.kept, 0);
    if let Some(code) = code {
        // What explains the end reaches the device before the end does.
        let _lost = stream.send.finish();
        let _late = tokio::time::timeout(crate::link::limits::PAUSE, stream.send.stopped()).await;
        session.close(code);
    }
}

struct Stream {
    desk: Desk,
    send: SendStream,
    receive: RecvStream,
    reader: FrameReader,
    /// Bytes of the incomplete frame.
    kept: usize,
    unfinished: Unfinished,
    /// Whether the device may still send.
    open: bool,
    /// Until when the device is not read.
    pause: Option<Instant>,
}

enum Event {
    Answers,
    Arrived(Result<Option<usize>, ReadError>),
    Job(Option<JobAnswer>),
    Overdue,
    PauseOver,
}

impl Stream {
    /// Runs until either side ends the stream; tells why the connection must end too.
    async fn run(&mut self) -> Option<CloseCode> {
        let mut pieces: [Bytes; PIECES_TOGETHER] = Default::default();
        while self.open || self.desk.is_busy() {
            let event = self.next(&mut pieces).await;
            let mut out = BUFFER.take();
            out.clear();
            let end = match event {
                Event::Answers => None,
                Event::Arrived(Ok(Some(count))) => {
                    let pieces = pieces.get_mut(..count).unwrap_or_default();
                    let end = gather_commands(|| self.answer(pieces, &mut out));
                    pieces.iter_mut().for_each(|piece| *piece = Bytes::new());
                    end
                }
                Event::Arrived(Ok(None)) => {
                    self.open = false;
                    None
                }
                Event::Arrived(Err(_lost)) => return None,
                Event::Job(answer) => {
                    self.desk.take_job(answer, &mut out);
                    None
                }
                Event::Overdue => Some(CloseCode::FrameUnfinished),
                Event::PauseOver => {
                    self.pause = None;
                    None
                }
            };
            self.desk.collect(&mut out);
            let written = self.write(&out).await;
            if out.capacity() <= BUFFER_BYTES_KEPT {
                BUFFER.set(out);
            }
            if let Err(end) = written {
                return end;
            }
            if end.is_some() {
                return end;
            }
        }
        // A device that is gone needs no end.
        let _lost = self.send.finish();
        None
    }

    /// Writes answers; where that fails the stream ends, and with a code the connection too.
    async fn write(&mut self, out: &[u8]) -> Result<(), Option<CloseCode>> {
        if out.is_empty() {
            return Ok(());
        }
        let mut write = pin!(self.send.write_all(out));
        // Nearly always there is room at once, which needs no timer.
        let written = match poll!(&mut write) {
            Poll::Ready(written) => Ok(written),
            Poll::Pending => tokio::time::timeout(WRITE_TIMEOUT, write).await,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_lost)) => Err(None),
            Err(_elapsed) => Err(Some(CloseCode::NotReading)),
        }
    }

    async fn next(&mut self, pieces: &mut [Bytes]) -> Event {
        let Desk { postbox, waiting, jobs, session, .. } = &mut self.desk;
        let pause = self.pause;
        let reads = self.open && pause.is_none();
        let due = self.unfinished.due(session.link.budgets.idle).filter(|_| reads);
        tokio::select! {
            biased;
            read = self.receive.read_chunks(pieces), if reads => Event::Arrived(read),
            () = postbox.announced(), if !waiting.is_empty() => Event::Answers,
            answer = job_answer(jobs), if jobs.is_some() => Event::Job(answer),
            () = sleep_until(pause), if pause.is_some() => Event::PauseOver,
            () = sleep_until(due), if due.is_some() => Event::Overdue,
        }
    }

    fn answer(&mut self, pieces: &[Bytes], out: &mut Vec<u8>) -> Option<CloseCode> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut batch = Batch::new(&mut self.desk, scratch, out);
            let (mut kept, unfinished) = (self.kept, &mut self.unfinished);
            let mut readable = true;
            for piece in pieces {
                let mut take = |header: &_, message: Option<&[u8]>| {
                    unfinished.note_header(header, message.is_some());
                    batch.take(header, message)
                };
                match self.reader.read(piece, &mut take) {
                    Ok(rest) => kept = rest,
                    Err(Unreadable) => {
                        readable = false;
                        break;
                    }
                }
            }
            let arrived = batch.arrived;
            let (exhausted, end) = batch.finish();
            let within = self.desk.session.keep_bytes(self.kept, kept);
            self.kept = kept;
            self.unfinished.note_rest(kept, arrived);
            if exhausted {
                self.desk.session.link.metrics.throttled();
                self.pause = Some(Instant::now() + PAUSE);
            }
            if !readable {
                return Some(CloseCode::FrameTooLong);
            }
            if within { end } else { Some(CloseCode::Flooded) }
        })
    }
}

async fn job_answer(jobs: &mut Option<Jobs>) -> Option<JobAnswer> {
    match jobs {
        Some(jobs) => jobs.receiver.recv().await,
        None => None,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    if let Some(instant) = instant {
        tokio::time::sleep_until(instant.into()).await;
    }
}

/// The requests of one stream that wait for their answers.
pub struct Desk {
    /// The connection.
    pub session: Arc<Session>,
    postbox: Arc<Postbox>,
    waiting: HashMap<Ticket, Waits, FixedState>,
    last: u64,
    jobs: Option<Jobs>,
}

/// A request that waits for its answer.
pub struct Waits {
    /// The request's.
    pub correlation: u32,
    /// When it came.
    pub since: Instant,
    /// The question, where it was a check.
    pub check: Option<Check>,
}

struct Jobs {
    sender: mpsc::Sender<JobAnswer>,
    receiver: mpsc::Receiver<JobAnswer>,
    under_way: u32,
}

impl Desk {
    fn new(session: Arc<Session>) -> Desk {
        Desk { session, postbox: Arc::default(), waiting: HashMap::default(), last: 0, jobs: None }
    }

    /// Where the next answer is to be posted, and under which ticket.
    pub fn next_ticket(&mut self) -> (Arc<Postbox>, Ticket) {
        self.last += 1;
        (Arc::clone(&self.postbox), Ticket(self.last))
    }

    /// Waits for the answer to a request that has taken its place.
    pub fn wait_for(&mut self, ticket: Ticket, waits: Waits) {
        self.waiting.insert(ticket, waits);
    }

    /// Starts a job in its place.
    pub fn start(&mut self, correlation: u32, deadline: Deadline, job: (Job, JobPlace)) {
        let jobs = self.jobs.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(JOB_ANSWERS_WAITING_MAX);
            Jobs { sender, receiver, under_way: 0 }
        });
        jobs.under_way += 1;
        let session = Arc::clone(&self.session);
        let answers = jobs.sender.clone();
        tokio::spawn(Errand { session, correlation, deadline, answers }.run(job));
    }

    /// Takes what a job has to say.
    fn take_job(&mut self, answer: Option<JobAnswer>, out: &mut Vec<u8>) {
        match answer {
            Some(JobAnswer::Some(frames)) => out.extend_from_slice(&frames),
            Some(JobAnswer::Last(frames, _place)) => {
                out.extend_from_slice(&frames);
                if let Some(jobs) = &mut self.jobs {
                    jobs.under_way -= 1;
                    if jobs.under_way == 0 {
                        self.jobs = None;
                    }
                }
            }
            // The sender lives beside the receiver.
            None => self.jobs = None,
        }
    }

    /// Appends the answers that were posted.
    fn collect(&mut self, out: &mut Vec<u8>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut count = 0;
        let mut now = None;
        while let Some((ticket, posted)) = self.postbox.take() {
            // A reply that was not needed spends its ticket too.
            let Some(waits) = self.waiting.remove(&ticket) else { continue };
            let now = *now.get_or_insert_with(Instant::now);
            self.session.link.metrics.answered(1, now.saturating_duration_since(waits.since));
            match (posted, waits.check) {
                (Posted::Settle(answer), _) => {
                    let code = ack_code(answer);
                    wire::push(out, waits.correlation, 0, &Ack { code });
                }
                (Posted::Check(answer), Some(check)) => {
                    // The engine answers by its newest revision.
                    let engine = &self.session.link.gateway.engine;
                    let result = result_in(&engine.registry(), &check, &answer, engine.now());
                    push_check_result(waits.correlation, &result, out);
                }
                // Only checks are answered like checks.
                (Posted::Check(_), None) => {}
            }
            count += 1;
        }
        self.session.give_back(count);
    }

    fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.jobs.is_some()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Jobs go on without a stream, and keep their places until they end.
        self.session.give_back(u32::try_from(self.waiting.len()).unwrap_or(u32::MAX));
    }
}
