//! One connection: at most one request under way, its answer put together from what arrives.

use std::io::{self, ErrorKind};

use super::frame::{
    BODY_BYTES_MAX, Broken, Chunks, HEAD_BYTES_MAX, Head, INTERIM_ANSWERS_MAX, Length,
};
use super::request::Form;
use super::stream::Stream;
use crate::poller::Interest;
use crate::time::Nanos;
use crate::transport::Tag;

/// Room that is kept for the next answer.
const ROOM_KEPT: usize = 64 << 10;

/// A connection, or the place of one.
pub struct Connection {
    /// Absent while it is closed.
    pub stream: Option<Stream>,
    pub state: State,
    /// Told apart from others in this place.
    pub generation: u32,
    /// The request under way.
    pub load: Option<Load>,
    /// Whether it is in the queue of those that are free.
    pub is_queued: bool,
    /// Since when it is opening, or free.
    pub since: Nanos,
    /// Whether it is opened again because the server had closed it.
    pub is_reopening: bool,
    /// What the poller watches it for.
    pub watched: Interest,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    head: Option<Head>,
    interim_answers: u32,
    chunks: Chunks,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// A request is under way.
    Busy,
    /// There is none.
    Closed,
    /// It can take a request.
    Free,
    /// It is being made, perhaps with a request that waits for it.
    Opening,
}

/// A request under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Load {
    /// Its name.
    pub tag: Tag,
    /// On whose behalf it is made, by place.
    pub organization: u16,
    /// What its answer must be.
    pub form: Form,
    /// Whether it may be sent once more: it went out on a connection that was long idle and that the
    /// server may have been closing, and it does no harm where the server has taken it.
    pub may_repeat: bool,
}

/// An answer that is all there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Complete {
    pub status: u16,
    /// Where its body begins and ends.
    pub body: (usize, usize),
    /// Whether the connection can take another request.
    pub is_kept_alive: bool,
}

impl Connection {
    /// A closed one.
    pub fn new() -> Connection {
        Connection {
            stream: None,
            state: State::Closed,
            generation: 0,
            load: None,
            is_queued: false,
            since: Nanos(0),
            is_reopening: false,
            watched: Interest::Read,
            output: Vec::new(),
            written: 0,
            input: Vec::new(),
            head: None,
            interim_answers: 0,
            chunks: Chunks::new(0),
        }
    }

    /// Forgets stream, request and bytes; returns the request.
    pub fn reset(&mut self) -> Option<Load> {
        self.stream = None;
        self.state = State::Closed;
        self.generation = self.generation.wrapping_add(1);
        self.is_reopening = false;
        self.forget_answer();
        self.output.clear();
        self.written = 0;
        self.load.take()
    }

    /// What the poller calls it, in its place.
    pub fn key(&self, at: u32) -> u64 {
        u64::from(at) | u64::from(self.generation) << 32
    }

    /// Keeps a request that cannot leave yet, or may have to leave once more.
    pub fn keep_output(&mut self, bytes: &[u8], written: usize) {
        self.output.clear();
        self.output.extend_from_slice(bytes);
        self.written = written;
    }

    /// What was kept, all of it.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.written = 0;
        std::mem::take(&mut self.output)
    }

    /// Forgets the request that was answered; whether all of it had left.
    pub fn forget_output(&mut self) -> bool {
        let has_left = self.interest() == Interest::Read;
        self.output.clear();
        self.written = 0;
        if self.output.capacity() > ROOM_KEPT {
            self.output = Vec::new();
        }
        has_left
    }

    /// Writes what waits and what there is room for.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if stream.is_full() {
            stream.write(&[]).or_else(would_block)?;
        }
        while let Some(rest) = self.output.get(self.written..)
            && !rest.is_empty()
        {
            match stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What it should be watched for.
    pub fn interest(&self) -> Interest {
        let waits = self.written < self.output.len();
        if waits || self.stream.as_ref().is_some_and(Stream::is_full) {
            Interest::ReadWrite
        } else {
            Interest::Read
        }
    }

    /// The answer, if all of it is in what arrived just now.
    pub fn complete_at_once(&self, bytes: &[u8]) -> Option<Complete> {
        if !self.input.is_empty() {
            return None;
        }
        let head = Head::parse(bytes).ok()??;
        match head.length {
            Length::Known(length) if head.end + length == bytes.len() && head.status >= 200 => {
                Some(Complete {
                    status: head.status,
                    body: (head.end, bytes.len()),
                    is_kept_alive: head.is_kept_alive,
                })
            }
            _ => None,
        }
    }

    /// Adds what arrived; the answer, once all of it is there.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Option<Complete>, Broken> {
        self.input.extend_from_slice(bytes);
        if self.input.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX {
            return Err(Broken);
        }
        let head = loop {
            if let Some(head) = self.head {
                break head;
            }
            let Some(head) = Head::parse(&self.input)? else { return Ok(None) };
            if head.status < 200 {
                // An interim answer; the final one follows.
                self.interim_answers += 1;
                if self.interim_answers > INTERIM_ANSWERS_MAX {
                    return Err(Broken);
                }
                self.input.drain(..head.end);
                continue;
            }
            self.chunks = Chunks::new(head.end);
            self.head = Some(head);
        };
        let (body_end, end) = match head.length {
            Length::Known(length) => (head.end + length, head.end + length),
            Length::Chunked => match self.chunks.advance(&mut self.input)? {
                Some(whole) => (whole.body_end, whole.end),
                None => return Ok(None),
            },
            Length::UntilClose => return Ok(None),
        };
        if self.input.len() < end {
            return Ok(None);
        }
        let is_kept_alive = head.is_kept_alive && self.input.len() == end;
        Ok(Some(Complete { status: head.status, body: (head.end, body_end), is_kept_alive }))
    }

    /// The answer that ends with the connection, if it does.
    pub fn complete_by_end(&self) -> Option<Complete> {
        let head = self.head.filter(|head| head.length == Length::UntilClose)?;
        let body = (head.end, self.input.len());
        Some(Complete { status: head.status, body, is_kept_alive: false })
    }

    /// Whether anything of an answer has come.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// How much has been put together.
    pub fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// Takes what was put together.
    pub fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Gives the room back, if it is no more than is kept.
    pub fn give_room(&mut self, mut room: Vec<u8>) {
        room.clear();
        if room.capacity() <= ROOM_KEPT {
            self.input = room;
        }
        self.head = None;
        self.interim_answers = 0;
    }

    fn forget_answer(&mut self) {
        let room = std::mem::take(&mut self.input);
        self.give_room(room);
    }
}

fn would_block(error: io::Error) -> io::Result<usize> {
    if error.kind() == ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts that a hostile server might put together.
    fn any_piece() -> impl Strategy<Value = Vec<u8>> {
        let parts: [&'static [u8]; 12] = [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.0 200 OK\n",
            b"Content-Length: 3\r\n",
            b"Content-Length: 8388608\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"\r\n",
            b"3\r\nabc\r\n",
            b"7fffff\r\n",
            b"0\r\n\r\n",
            b"abc",
        ];
        prop_oneof![
            8 => proptest::sample::select(parts.to_vec()).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 0..40),
        ]
    }

    #[test]
    fn interim_answers_come_to_an_end() {
        let mut connection = Connection::new();
        for _ in 0..INTERIM_ANSWERS_MAX {
            assert_eq!(connection.add(b"HTTP/1.1 102 Processing\r\n\r\n"), Ok(None));
        }
        assert_eq!(connection.add(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Err(Broken));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer_or_none(pieces in proptest::collection::vec(any_piece(), 0..20)) {
            let mut connection = Connection::new();
            for piece in pieces {
                if let Some(complete) = connection.complete_at_once(&piece) {
                    prop_assert!(complete.body.0 <= complete.body.1);
                    prop_assert_eq!(complete.body.1, piece.len());
                    break;
                }
                match connection.add(&piece) {
                    Err(Broken) => break,
                    Ok(None) => continue,
                    Ok(Some(complete)) => {
                        prop_assert!(complete.body.0 <= complete.body.1);
                        prop_assert!(complete.body.1 <= connection.input_bytes());
                        prop_assert!(complete.status >= 200);
                        break;
                    }
                }
            }
            if let Some(complete) = connection.complete_by_end() {
                prop_assert!(complete.body.0 <= complete.body.1);
            }
        }
    }
}
