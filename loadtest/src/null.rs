//! A server that does nothing but answer, to measure the tester itself: one thread, one fixed answer
//! to whatever is asked. By a script it freezes on a known plan, and notes when it answered each
//! request that carries a number: the truth that the tester's figures are compared with.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Monotonic;
use crate::poller::{Interest, Poller};
use crate::time::{Clock, Nanos};

/// The body of its answer: a granted check of the category [`CATEGORY`].
pub const BODY: &str = "{\"resultCode\":0,\"transactionId\":1,\"clientId\":7,\
     \"benefits\":[{\"benefitCategory\":{\"id\":20,\"name\":\"Ветеран труда Якутии\"}}]}";
/// The category that it grants.
pub const CATEGORY: u32 = 20;

/// How long a wait is before it looks whether it shall end.
const PATIENCE: Nanos = Nanos::from_millis(20);
/// The longest request: others are cut off.
const REQUEST_BYTES_MAX: usize = 1 << 20;
const LISTENER: u64 = 0;
/// What stands before a request's number: it is sent in the place of the terminal.
const NUMBER: &[u8] = b"\"organizationTerminalId\":";

/// What the server does beside answering. Set it to begin.
pub type Script = OnceLock<Act>;

/// A script.
#[derive(Clone, Debug)]
pub struct Act {
    /// By which clock.
    pub clock: Monotonic,
    /// When it does nothing, ascending.
    pub freezes: Vec<Freeze>,
    /// How many requests are numbered, from 0.
    pub requests: usize,
}

/// When the server does nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Freeze {
    /// Its beginning.
    pub from: Nanos,
    /// Its end.
    pub until: Nanos,
}

/// The server.
pub struct NullServer {
    listener: TcpListener,
    poller: Poller,
    clock: Monotonic,
    clients: HashMap<u64, Client>,
    answer: Vec<u8>,
    next: u64,
}

struct Client {
    stream: TcpStream,
    /// What is there of a request.
    bytes: Vec<u8>,
}

impl NullServer {
    /// Listens on a port of this machine that the system chooses.
    pub fn bind() -> io::Result<NullServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let clock = Monotonic::start();
        let poller = Poller::new(clock)?;
        poller.add(&listener, LISTENER, Interest::Read)?;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
        let answer = format!("{head}{}\r\n\r\n{BODY}", BODY.len()).into_bytes();
        Ok(NullServer { listener, poller, clock, clients: HashMap::new(), answer, next: 1 })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on this thread until it is told to stop; returns when each numbered request was first
    /// answered, [`Nanos::NEVER`] where it was not.
    pub fn serve(mut self, script: &Script, stop: &AtomicBool) -> io::Result<Vec<Nanos>> {
        // Its own, whoever made it: the exactness of timers belongs to a thread.
        self.poller.make_exact()?;
        let mut buffer = vec![0; 64 << 10];
        let mut notes = Notes::default();
        let mut frozen = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut patience = PATIENCE;
            if let Some(act) = script.get() {
                notes.follow(act);
                if let Some(freeze) = act.freezes.get(frozen) {
                    let now = act.clock.now();
                    if now >= freeze.from {
                        std::thread::sleep(Duration::from_nanos((freeze.until - now).0));
                        frozen += 1;
                        continue;
                    }
                    patience = patience.min(freeze.from - now);
                }
            }
            self.poller.wait(self.clock.now() + patience)?;
            let mut at = 0;
            while let Some(ready) = self.poller.ready(at) {
                self.handle(ready.key, &mut buffer, &mut notes);
                at += 1;
            }
        }
        Ok(notes.answered)
    }

    fn handle(&mut self, key: u64, buffer: &mut [u8], notes: &mut Notes) {
        if key == LISTENER {
            while let Ok((stream, _)) = self.listener.accept() {
                self.welcome(stream);
            }
            return;
        }
        let Some(client) = self.clients.get_mut(&key) else { return };
        if client.answer(buffer, &self.answer, notes).is_err() {
            self.clients.remove(&key);
        }
    }

    fn welcome(&mut self, stream: TcpStream) {
        let key = self.next;
        self.next += 1;
        let is_ready = stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok();
        if is_ready && self.poller.add(&stream, key, Interest::Read).is_ok() {
            self.clients.insert(key, Client { stream, bytes: Vec::new() });
        }
    }
}

impl Client {
    /// Answers what is asked; an error ends the connection.
    fn answer(&mut self, buffer: &mut [u8], answer: &[u8], notes: &mut Notes) -> io::Result<()> {
        let read = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let fresh = buffer.get(..read).unwrap_or_default();
        if self.bytes.is_empty() && request_bytes(fresh) == Some(read) {
            self.stream.write_all(answer)?;
            notes.take(fresh);
            return Ok(());
        }
        self.bytes.extend_from_slice(fresh);
        while let Some(end) = request_bytes(&self.bytes)
            && let Some(request) = self.bytes.get(..end)
        {
            self.stream.write_all(answer)?;
            notes.take(request);
            self.bytes.drain(..end);
        }
        let fits = self.bytes.len() <= REQUEST_BYTES_MAX;
        if fits { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }
}

/// When it answered which request.
#[derive(Default)]
struct Notes {
    clock: Option<Monotonic>,
    answered: Vec<Nanos>,
}

impl Notes {
    /// Begins, once there is a script.
    fn follow(&mut self, act: &Act) {
        if self.clock.is_none() {
            self.clock = Some(act.clock);
            self.answered = vec![Nanos::NEVER; act.requests];
        }
    }

    /// A request was answered just now.
    fn take(&mut self, request: &[u8]) {
        let Some(clock) = self.clock else { return };
        let answered = request_number(request).and_then(|number| self.answered.get_mut(number));
        if let Some(answered) = answered {
            *answered = (*answered).min(clock.now());
        }
    }
}

fn request_number(request: &[u8]) -> Option<usize> {
    let at = request.windows(NUMBER.len()).rposition(|window| window == NUMBER)?;
    let rest = request.get(at + NUMBER.len()..)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

/// How long a request is, once its head is there.
fn request_bytes(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut length = 0;
    loop {
        let line = bytes.get(at..)?;
        let end = line.iter().position(|byte| *byte == b'\n')?;
        let line = line.get(..end)?.trim_ascii();
        at += end + 1;
        if line.is_empty() {
            return Some(at + length);
        }
        let name = b"content-length:";
        if let Some((start, value)) = line.split_at_checked(name.len())
            && start.eq_ignore_ascii_case(name)
        {
            let value = std::str::from_utf8(value.trim_ascii()).ok()?;
            length = value.parse::<usize>().ok()?.min(REQUEST_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_measured() {
        let check = |text: &str, expected| assert_eq!(request_bytes(text.as_bytes()), expected);
        check("GET / HTTP/1.1\r\n\r\n", Some(18));
        check("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab", Some(43));
        check("POST / HTTP/1.1\r\ncontent-length: 5\r\n", None);
        check("", None);
    }

    #[test]
    fn requests_have_numbers() {
        let check = |text: &str, expected| assert_eq!(request_number(text.as_bytes()), expected);
        check("POST / HTTP/1.1\r\n\r\n{\"organizationTerminalId\":17,\"a\":1}", Some(17));
        check("{\"organizationTerminalId\":17", Some(17));
        check("{\"organizationTerminalId\":-1}", None);
        check("{\"organizationTerminalId\":99999999999999999999}", None);
        check("", None);
    }

    #[test]
    fn only_the_first_answer_is_noted() {
        let clock = Monotonic::start();
        let mut notes = Notes::default();
        let request = b"{\"organizationTerminalId\":1}";
        notes.take(request);
        notes.follow(&Act { clock, freezes: Vec::new(), requests: 2 });
        assert_eq!(notes.answered, [Nanos::NEVER, Nanos::NEVER]);
        notes.take(request);
        let first = notes.answered.clone();
        assert!(first[1] <= clock.now() && first[0] == Nanos::NEVER);
        notes.take(request);
        notes.take(b"{\"organizationTerminalId\":2}");
        assert_eq!(notes.answered, first);
    }
}
