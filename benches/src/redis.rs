//! Redis with the confirm of `peers/function.lua`, durable before each answer: the anchor of
//! confirms that are sent before the answers to earlier ones are in.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Confirms that a connection sends together.
pub const PIPELINED: u64 = 16;
/// Transactions that one script opens.
const OPENED_TOGETHER: u64 = 100_000;
const FUNCTION: &str = include_str!("../peers/function.lua");
/// Opens transactions from `KEYS[1]` on, of organization 1, holder 7 and category 20.
const OPEN: &str = "for id = tonumber(KEYS[1]), tonumber(KEYS[2]) do redis.call('SET', 'x:' .. string.format('%.0f', \
    id), struct.pack('<BI4I4I4I2I4I4', 0, 1, 5, 1, 20, 7, 100), 'EX', '86400') end return 0";
const DONE: &[u8] = b":0\r\n";

/// A server on core 0 with an append-only file of its own; killed when dropped.
pub struct Redis {
    child: Child,
    socket: PathBuf,
    opened: u64,
    /// The next transaction to confirm.
    next: Rc<Cell<u64>>,
}

impl Redis {
    /// Starts it in `directory`; none where it is not installed.
    pub fn start(directory: &Path) -> Option<Redis> {
        Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().ok()?;
        let socket = directory.join("redis.socket");
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "redis-server", "--port", "0", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(directory).args(["--appendonly", "yes", "--save", ""]);
        // Rewrites fork; none falls into a measurement.
        command.args(["--auto-aof-rewrite-percentage", "0", "--logfile", "redis.log"]);
        let child = command.spawn().unwrap();
        while UnixStream::connect(&socket).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let redis = Redis { child, socket, opened: 0, next: Rc::new(Cell::new(1)) };
        redis.ask(&[b"FUNCTION", b"LOAD", FUNCTION.as_bytes()]);
        Some(redis)
    }

    /// Confirms a second with so many connections, each of which sends [`PIPELINED`] together.
    pub async fn confirms(&mut self, connections: u64, duration: Duration) -> f64 {
        // More than it confirms in that time.
        self.open(self.next.get() + 200_000 * (duration.as_secs() + 1));
        self.ask(&[b"CONFIG", b"SET", b"appendfsync", b"always"]);
        // Answered once everything before it is durable too.
        self.ask(&[b"SET", b"begun", b"1"]);
        let (begun, first) = (Instant::now(), self.next.get());
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let (next, last) = (Rc::clone(&self.next), self.opened);
                let stream = UnixStream::connect(&self.socket).unwrap();
                tokio::task::spawn_local(confirm(stream, next, last, begun + duration))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        (self.next.get() - first) as f64 / begun.elapsed().as_secs_f64()
    }

    /// Opens transactions up to `last`.
    fn open(&mut self, last: u64) {
        self.ask(&[b"CONFIG", b"SET", b"appendfsync", b"no"]);
        while self.opened < last {
            let [from, to] = [self.opened + 1, self.opened + OPENED_TOGETHER];
            let [from, to] = [from.to_string(), to.to_string()];
            self.ask(&[b"EVAL", OPEN.as_bytes(), b"2", from.as_bytes(), to.as_bytes()]);
            self.opened += OPENED_TOGETHER;
        }
    }

    fn ask(&self, parts: &[&[u8]]) {
        let mut socket = UnixStream::connect(&self.socket).unwrap();
        let mut bytes = Vec::new();
        push_command(&mut bytes, parts);
        socket.write_all(&bytes).unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert!(!answer.starts_with('-'), "{answer}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A process that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn confirm(stream: UnixStream, next: Rc<Cell<u64>>, last: u64, until: Instant) {
    stream.set_nonblocking(true).unwrap();
    let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let (mut bytes, mut answers) = (Vec::new(), [0; DONE.len() * PIPELINED as usize]);
    while Instant::now() < until {
        bytes.clear();
        let first = next.replace(next.get() + PIPELINED);
        assert!(first + PIPELINED <= last, "too few transactions were opened");
        for id in first..first + PIPELINED {
            let key = format!("x:{id}");
            let about: [&[u8]; 6] = [b"1", b"7", b"20", b"30000", b"10000", b"100"];
            let what: [&[u8]; 4] = [b"FCALL", b"confirm_transaction", b"1", key.as_bytes()];
            push_command(&mut bytes, &[&what[..], &about].concat());
        }
        stream.write_all(&bytes).await.unwrap();
        stream.read_exact(&mut answers).await.unwrap();
        let mut answers = answers.chunks(DONE.len());
        assert!(answers.all(|answer| answer == DONE), "Redis refuses");
    }
}

fn push_command(bytes: &mut Vec<u8>, parts: &[&[u8]]) {
    write!(bytes, "*{}\r\n", parts.len()).unwrap();
    for part in parts {
        write!(bytes, "${}\r\n", part.len()).unwrap();
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
}
