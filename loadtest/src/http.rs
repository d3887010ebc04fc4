//! The transport by HTTP/1.1 with keep-alive, plain or over TLS: one thread, sockets that never
//! wait, one request at a time on each.
//!
//! Connections are opened ahead of the run and, up to a limit, when none is free. One that the server
//! closes while it is idle is no error: it is opened again and counted apart, and a request that could
//! not even be written on it goes over the new one. A connection that ends under a request loses it,
//! as the server may have taken it; but for one that may come twice ([`Call::may_repeat`]), was sent on
//! a connection idle for a second or more, and not a byte came back: it is sent once more.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use crate::answer::Answer;
use crate::clock::Monotonic;
use crate::poller::{Interest, Poller, Ready};
use crate::request::Call;
use crate::time::{Clock, Nanos};
use crate::tokens::Tokens;
use crate::transport::{Connections, Event, Tag, Transport};

mod answer;
mod connection;
mod frame;
mod request;
mod settings;
mod stream;

use connection::{Complete, Connection, Load, State};
pub use frame::INTERIM_ANSWERS_MAX;
use request::Writer;
pub use settings::Settings;
use stream::Stream;
pub use stream::Tls;

/// The most connections of one transport.
pub const CONNECTIONS_MAX: u32 = 60_000;
/// What unfinished answers may take together.
const INPUT_BYTES_MAX: usize = 32 << 20;
/// Read from a socket at once.
const READ_BYTES: usize = 64 << 10;
/// What certainly came as one piece: it was all there when the poller told of it, and its instant is
/// that one, however many other answers are read before it. Of a longer one it is when it was read.
const PIECE_BYTES_MAX: usize = 1_200;
/// The status of an answer to a token that the server does not take.
const UNAUTHORIZED: u16 = 401;
/// How long a connection without a request may take to open.
const OPENING: Nanos = Nanos::from_seconds(10);
/// Idle for so long, a connection may have been closed by the server without our knowing.
const IDLE: Nanos = Nanos::from_seconds(1);

/// The transport. It is never printed: it holds tokens and answers.
pub struct Http {
    settings: Settings,
    tokens: Tokens,
    clock: Monotonic,
    poller: Poller,
    writer: Writer,
    connections: Vec<Connection>,
    /// Places of free connections, and of such that no longer are.
    free: VecDeque<u32>,
    free_count: u32,
    closed: Vec<u32>,
    /// By tag, the place of the connection.
    carriers: Vec<u32>,
    lost: Vec<(Tag, Nanos)>,
    counts: Connections,
    swept: Nanos,
    input_bytes: usize,
    request: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Http {
    /// Makes one for the calling thread. Its clock must be that of the run.
    pub fn new(settings: Settings, tokens: Tokens, clock: Monotonic) -> io::Result<Http> {
        let connections = settings.connections_max.max(settings.connections).min(CONNECTIONS_MAX);
        Ok(Http {
            writer: Writer::new(settings.host.clone(), tokens.clone()),
            settings,
            tokens,
            clock,
            poller: Poller::new(clock)?,
            connections: (0..connections).map(|_| Connection::new()).collect(),
            free: VecDeque::new(),
            free_count: 0,
            closed: (0..connections).rev().collect(),
            carriers: Vec::new(),
            lost: Vec::new(),
            counts: Connections::default(),
            swept: Nanos(0),
            input_bytes: 0,
            request: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// Opens the connections that shall be open before the run; how many are by `until`.
    pub fn open_ahead(&mut self, until: Nanos) -> u32 {
        let count = self.settings.connections.min(self.connections.len() as u32);
        for _ in 0..count {
            if let Some(at) = self.closed.pop() {
                self.open(at);
            }
        }
        let is_opening = |connection: &Connection| connection.state == State::Opening;
        while self.connections.iter().any(is_opening) && self.clock.now() < until {
            self.poll(until, &mut |_| {});
        }
        self.free_count
    }

    /// Counts by the clock of the run, where that began after the connections were opened.
    pub fn restart(&mut self, clock: Monotonic) {
        self.clock = clock;
        self.poller.restart(clock);
        self.swept = Nanos(0);
        self.connections.iter_mut().for_each(|connection| connection.since = Nanos(0));
    }

    fn connection(&mut self, at: u32) -> &mut Connection {
        // Places come only from our own lists.
        &mut self.connections[at as usize]
    }

    /// Begins to open a connection in a closed place.
    fn open(&mut self, at: u32) {
        let now = self.clock.now();
        let opened = Stream::open(self.settings.address, self.settings.tls.as_ref());
        let connection = &mut self.connections[at as usize];
        connection.state = State::Opening;
        connection.since = now;
        connection.watched = Interest::ReadWrite;
        let added = opened.and_then(|stream| {
            let key = connection.key(at);
            self.poller.add(&stream, key, Interest::ReadWrite)?;
            connection.stream = Some(stream);
            Ok(())
        });
        if added.is_err() {
            self.refuse(at, now);
        }
    }

    /// A connection cannot be made.
    fn refuse(&mut self, at: u32, now: Nanos) {
        self.counts.refused += 1;
        let load = self.connection(at).reset();
        self.lost.extend(load.map(|load| (load.tag, now)));
        self.closed.push(at);
    }

    /// Goes on with opening.
    fn advance(&mut self, at: u32) {
        let now = self.clock.now();
        let connection = self.connection(at);
        let Some(stream) = &mut connection.stream else { return };
        match stream.advance() {
            Err(_) => return self.refuse(at, now),
            Ok(false) => return self.watch(at),
            Ok(true) => {}
        }
        self.counts.opened += 1;
        let connection = self.connection(at);
        let is_reopened = std::mem::take(&mut connection.is_reopening);
        let has_load = connection.load.is_some();
        self.counts.reopened += u64::from(is_reopened);
        if has_load {
            self.connection(at).state = State::Busy;
            self.flush(at);
        } else {
            self.set_free(at, now);
            self.watch(at);
        }
    }

    fn set_free(&mut self, at: u32, now: Nanos) {
        let connection = self.connection(at);
        connection.state = State::Free;
        connection.since = now;
        if !std::mem::replace(&mut connection.is_queued, true) {
            self.free.push_back(at);
        }
        self.free_count += 1;
    }

    /// The connection that has been free longest, so that all are used alike.
    fn take_free(&mut self) -> Option<u32> {
        while let Some(at) = self.free.pop_front() {
            let connection = self.connection(at);
            connection.is_queued = false;
            if connection.state == State::Free {
                self.free_count -= 1;
                return Some(at);
            }
        }
        None
    }

    fn flush(&mut self, at: u32) {
        match self.connection(at).flush() {
            Ok(()) => self.watch(at),
            Err(_) => self.end_without_answer(at),
        }
    }

    /// Watches a connection for what it needs now.
    fn watch(&mut self, at: u32) {
        let connection = &mut self.connections[at as usize];
        let interest = connection.interest();
        let Some(stream) = &connection.stream else { return };
        if connection.watched != interest {
            connection.watched = interest;
            let changed = self.poller.change(stream, connection.key(at), interest);
            if changed.is_err() {
                self.end_without_answer(at);
            }
        }
    }

    /// A connection ended.
    fn end_without_answer(&mut self, at: u32) {
        let now = self.clock.now();
        let connection = self.connection(at);
        let (state, idle) = (connection.state, now - connection.since);
        let is_untouched = !connection.has_input();
        let output = connection.take_output();
        self.forget_input(at);
        let load = self.connection(at).reset();
        match load {
            Some(load) if load.may_repeat && is_untouched => self.resend(at, load, &output),
            Some(load) => {
                self.counts.broken += 1;
                self.lost.push((load.tag, now));
                self.closed.push(at);
            }
            None if state == State::Free => {
                self.free_count -= 1;
                // A server that closes what it has just accepted is not asked again and again.
                if idle >= IDLE {
                    return self.reopen(at);
                }
                self.connection(at).is_reopening = true;
                self.closed.push(at);
            }
            None => self.closed.push(at),
        }
    }

    fn reopen(&mut self, at: u32) {
        self.connection(at).is_reopening = true;
        self.open(at);
    }

    fn resend(&mut self, at: u32, load: Load, bytes: &[u8]) {
        let connection = self.connection(at);
        connection.load = Some(Load { may_repeat: false, ..load });
        connection.keep_output(bytes, 0);
        self.reopen(at);
    }

    /// Sends the request that was written on a free connection.
    fn send_on(&mut self, at: u32, load: Load) {
        let now = self.poller.looked();
        let connection = &mut self.connections[at as usize];
        let was_idle = now - connection.since >= IDLE;
        let may_repeat = was_idle && load.may_repeat;
        connection.load = Some(Load { may_repeat, ..load });
        connection.state = State::Busy;
        let Some(stream) = &mut connection.stream else { return };
        if was_idle && stream.is_stale() {
            return self.send_anew(at);
        }
        let written = match stream.write(&self.request) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return self.send_anew(at),
        };
        if may_repeat || written < self.request.len() {
            connection.keep_output(&self.request, written);
        }
        if connection.interest() != connection.watched {
            self.watch(at);
        }
    }

    /// The server had closed the connection before the request was written; it cannot have been taken.
    fn send_anew(&mut self, at: u32) {
        let Some(load) = self.connection(at).reset() else { return };
        let request = std::mem::take(&mut self.request);
        self.resend(at, load, &request);
        self.request = request;
    }

    fn handle(&mut self, ready: Ready, buffer: &mut [u8], take: &mut dyn FnMut(Event<'_>)) {
        let at = ready.key as u32;
        let Some(connection) = self.connections.get(at as usize) else { return };
        if connection.generation != (ready.key >> 32) as u32 {
            return;
        }
        match connection.state {
            State::Closed => {}
            State::Opening => self.advance(at),
            State::Busy | State::Free => {
                if ready.is_writable && connection.watched == Interest::ReadWrite {
                    self.flush(at);
                }
                self.read(at, buffer, take);
            }
        }
    }

    fn read(&mut self, at: u32, buffer: &mut [u8], take: &mut dyn FnMut(Event<'_>)) {
        let generation = self.connection(at).generation;
        loop {
            let connection = self.connection(at);
            if connection.generation != generation {
                // The last answer was the last one on it.
                return;
            }
            let Some(stream) = &mut connection.stream else { return };
            let is_buffered = stream.is_buffered();
            let read = match stream.read(buffer) {
                Ok(0) => return self.end(at, take),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.end_without_answer(at),
            };
            let Some(bytes) = buffer.get(..read) else { return };
            self.take_bytes(at, bytes, take);
            if !is_buffered {
                // The poller tells if there is more.
                return;
            }
        }
    }

    /// The server has ended a connection in an orderly way.
    fn end(&mut self, at: u32, take: &mut dyn FnMut(Event<'_>)) {
        match self.connection(at).complete_by_end() {
            Some(complete) => self.finish_from_input(at, complete, take),
            None => self.end_without_answer(at),
        }
    }

    fn take_bytes(&mut self, at: u32, bytes: &[u8], take: &mut dyn FnMut(Event<'_>)) {
        let connection = &mut self.connections[at as usize];
        if connection.state != State::Busy {
            // Nobody asked.
            self.free_count -= u32::from(connection.state == State::Free);
            connection.reset();
            self.closed.push(at);
            return;
        }
        if let Some(complete) = connection.complete_at_once(bytes) {
            return self.finish(at, complete, bytes, take);
        }
        let before = connection.input_bytes();
        let added = connection.add(bytes);
        self.input_bytes += connection.input_bytes();
        self.input_bytes -= before;
        match added {
            Ok(Some(complete)) => self.finish_from_input(at, complete, take),
            Ok(None) if self.input_bytes <= INPUT_BYTES_MAX => {}
            Ok(None) | Err(_) => self.finish_unreadable(at, take),
        }
    }

    fn finish_from_input(&mut self, at: u32, complete: Complete, take: &mut dyn FnMut(Event<'_>)) {
        let connection = self.connection(at);
        let input = connection.take_input();
        self.input_bytes -= input.len();
        self.finish(at, complete, &input, take);
        self.connection(at).give_room(input);
    }

    fn finish(
        &mut self,
        at: u32,
        complete: Complete,
        bytes: &[u8],
        take: &mut dyn FnMut(Event<'_>),
    ) {
        let is_piece = bytes.len() <= PIECE_BYTES_MAX;
        let now = if is_piece { self.poller.looked() } else { self.clock.now() };
        let connection = self.connection(at);
        let Some(load) = connection.load.take() else { return };
        if complete.status == UNAUTHORIZED {
            self.tokens.refused(load.organization);
        }
        let connection = self.connection(at);
        // An answer to half a request is the last one on its connection.
        let is_usable = complete.is_kept_alive && connection.forget_output();
        if is_usable {
            self.set_free(at, now);
        } else {
            connection.reset();
            self.reopen(at);
        }
        let body = bytes.get(complete.body.0..complete.body.1).unwrap_or_default();
        let answer = answer::read(load.form, complete.status, body);
        take(Event::Answered { tag: load.tag, answer, at: now });
    }

    fn finish_unreadable(&mut self, at: u32, take: &mut dyn FnMut(Event<'_>)) {
        let now = self.clock.now();
        self.forget_input(at);
        let load = self.connection(at).reset();
        self.closed.push(at);
        if let Some(load) = load {
            take(Event::Answered { tag: load.tag, answer: Answer::Unreadable, at: now });
        }
    }

    fn forget_input(&mut self, at: u32) {
        let connection = self.connection(at);
        let input = connection.take_input();
        connection.give_room(Vec::new());
        self.input_bytes -= input.len();
    }

    /// Gives up connections that do not open, though nobody waits for them.
    fn sweep(&mut self) {
        let now = self.clock.now();
        if now - self.swept < IDLE {
            return;
        }
        self.swept = now;
        for at in 0..self.connections.len() as u32 {
            let connection = self.connection(at);
            let is_opening = connection.state == State::Opening && connection.load.is_none();
            if is_opening && now - connection.since >= OPENING {
                self.refuse(at, now);
            }
        }
    }
}

impl Transport for Http {
    fn is_free(&self) -> bool {
        self.free_count > 0 || !self.closed.is_empty()
    }

    fn send(&mut self, tag: Tag, call: &Call<'_>) {
        let form = self.writer.write(call, &mut self.request);
        let Call { organization, may_repeat, .. } = *call;
        let load = Load { tag, organization, form, may_repeat };
        let tags = self.carriers.len().max(tag.0 as usize + 1);
        self.carriers.resize(tags, u32::MAX);
        if let Some(at) = self.take_free() {
            self.carriers[tag.0 as usize] = at;
            return self.send_on(at, load);
        }
        let Some(at) = self.closed.pop() else {
            // Against the contract of `is_free`.
            return self.lost.push((tag, self.clock.now()));
        };
        self.carriers[tag.0 as usize] = at;
        let connection = &mut self.connections[at as usize];
        connection.load = Some(Load { may_repeat: false, ..load });
        connection.keep_output(&self.request, 0);
        self.open(at);
    }

    fn abandon(&mut self, tag: Tag) {
        self.lost.retain(|(lost, _)| *lost != tag);
        let Some(at) = self.carriers.get(tag.0 as usize).copied() else { return };
        let Some(connection) = self.connections.get(at as usize) else { return };
        if connection.load.is_some_and(|load| load.tag == tag) {
            self.forget_input(at);
            self.connection(at).reset();
            self.closed.push(at);
        }
    }

    fn poll(&mut self, until: Nanos, take: &mut dyn FnMut(Event<'_>)) {
        if self.lost.is_empty() {
            // What the kernel cannot wait for it cannot tell of either; requests are then given up.
            let _unknown = self.poller.wait(until);
            let mut buffer = std::mem::take(&mut self.buffer);
            let mut at = 0;
            while let Some(ready) = self.poller.ready(at) {
                self.handle(ready, &mut buffer, take);
                at += 1;
            }
            self.buffer = buffer;
            self.sweep();
        }
        for (tag, at) in self.lost.drain(..) {
            take(Event::Lost { tag, at });
        }
    }

    fn connections(&self) -> Connections {
        self.counts
    }
}

#[cfg(test)]
mod tests;
