//! Redis: the registry as packed strings, the work as functions (`function.lua`).

use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::calendar::Day;

use crate::data::{Answered, Data, HolderLine, ORGANIZATION, SERVICE, once, terminal};
use crate::system::{Granted, Process, System, Task};
use crate::wire::{AnswerEnd, Socket};

/// Commands that are sent before their answers are read.
const PIPELINE: usize = 1_000;
const FUNCTION: &str = include_str!("function.lua");

pub struct Redis {
    process: Option<Process>,
    directory: PathBuf,
    today: String,
    now: String,
}

impl Redis {
    /// A server that holds all of `data`, in its append-only file as well.
    pub fn open(data: &Data, parent: &Path) -> Redis {
        let directory = parent.join("redis");
        std::fs::create_dir_all(&directory).unwrap();
        let now = data.now.unix_seconds().to_string();
        let mut redis =
            Redis { process: None, directory, today: days(data.today).to_string(), now };
        redis.restart();
        once(parent, "redis-loaded", || redis.load(data));
        redis
    }

    fn load(&self, data: &Data) {
        let mut loader = Loader::new(self.socket());
        loader.send(&[b"CONFIG", b"SET", b"appendonly", b"no"]);
        loader.send(&[b"FUNCTION", b"LOAD", FUNCTION.as_bytes()]);
        load_directory(data, &mut loader);
        data.each_holder(|holder| load_holder(holder, &mut loader));
        // Writes everything as the base of a new append-only file.
        loader.send(&[b"CONFIG", b"SET", b"appendonly", b"yes"]);
        loader.finish();
        let done = "aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0";
        while !self.info("persistence").contains(done) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it and starts it from its file; returns the seconds until it answers.
    pub fn restart(&mut self) -> f64 {
        self.process = None;
        let setting = |name: &str, value: &str| [format!("--{name}"), value.to_owned()];
        let directory = self.directory.display().to_string();
        let socket = self.directory.join("socket").display().to_string();
        let arguments = [
            setting("port", "0"),
            setting("unixsocket", &socket),
            setting("dir", &directory),
            setting("appendonly", "yes"),
            setting("appendfsync", "everysec"),
            // Neither snapshots nor rewrites fork while it is measured.
            setting("save", ""),
            setting("auto-aof-rewrite-percentage", "0"),
            setting("logfile", "log"),
        ];
        let begun = Instant::now();
        let program = Path::new("redis-server");
        self.process = Some(Process::start(program, &arguments.concat(), None, "KILL"));
        while !self.is_ready() {
            std::thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed().as_secs_f64()
    }

    pub fn process(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    fn is_ready(&self) -> bool {
        let Ok(mut socket) = UnixStream::connect(self.directory.join("socket")) else {
            return false;
        };
        socket.write_all(b"PING\r\n").unwrap();
        let mut answer = [0; 7];
        socket.read_exact(&mut answer).is_ok() && answer == *b"+PONG\r\n"
    }

    fn socket(&self) -> UnixStream {
        UnixStream::connect(self.directory.join("socket")).unwrap()
    }

    fn info(&self, section: &str) -> String {
        let mut socket = self.socket();
        socket.write_all(&command(&[b"INFO", section.as_bytes()])).unwrap();
        read_answer(&mut BufReader::new(socket))
    }
}

impl System for Redis {
    fn connect(&self, task: Task, connections: usize) -> Vec<Socket> {
        // The promise of eligo: an opening may be lost in a power cut, a confirm may not.
        let when: &[u8] = match task {
            Task::Check => b"everysec",
            Task::Confirm => b"always",
        };
        let mut loader = Loader::new(self.socket());
        loader.send(&[b"CONFIG", b"SET", b"appendfsync", when]);
        loader.finish();
        (0..connections).map(|_| Socket::Unix(self.socket())).collect()
    }

    fn answer_end(&self) -> AnswerEnd {
        answer_end
    }

    fn check(&self, holder: u64) -> Vec<u8> {
        let (organization, terminal) = (ORGANIZATION.to_string(), terminal().to_string());
        let service = SERVICE.to_string();
        command(&[
            b"FCALL",
            b"check_benefit",
            b"3",
            format!("c:{}", gateway::generator::client_code(holder)).as_bytes(),
            format!("t:{terminal}").as_bytes(),
            format!("o:{organization}:{service}").as_bytes(),
            organization.as_bytes(),
            terminal.as_bytes(),
            service.as_bytes(),
            self.today.as_bytes(),
            self.now.as_bytes(),
        ])
    }

    fn confirm(&self, granted: &Granted) -> Vec<u8> {
        command(&[
            b"FCALL",
            b"confirm_transaction",
            b"1",
            format!("x:{}", granted.transaction).as_bytes(),
            ORGANIZATION.to_string().as_bytes(),
            granted.holder.to_string().as_bytes(),
            granted.category.to_string().as_bytes(),
            b"30000",
            b"10000",
            self.now.as_bytes(),
        ])
    }

    fn read_check(&self, answer: &[u8]) -> (Answered, u64) {
        let text = std::str::from_utf8(answer).unwrap();
        let mut numbers = text.lines().filter_map(|line| line.strip_prefix(':')?.parse().ok());
        let mut next = || numbers.next().unwrap_or_else(|| panic!("{text}"));
        let (code, transaction, holder, category): (u64, u64, u64, u64) =
            (next(), next(), next(), next());
        let [code, category] = [code, category].map(|number| u32::try_from(number).unwrap());
        (Answered { code, holder, category }, transaction)
    }

    fn is_done(&self, answer: &[u8]) -> bool {
        answer == b":0\r\n"
    }
}

fn load_directory(data: &Data, loader: &mut Loader) {
    let directory = data.registry().directory();
    for (id, terminal) in &directory.items().terminals {
        let serves = directory.compiled(terminal.organization).is_some_and(|known| known.serves);
        if serves && terminal.active {
            let organization = terminal.organization.to_string();
            loader.send(&[b"SET", format!("t:{id}").as_bytes(), organization.as_bytes()]);
        }
    }
    for id in directory.items().organizations.keys() {
        let Some(organization) = directory.compiled(*id) else { continue };
        for offer in &organization.offers {
            let validity = [days(offer.validity.from), days(offer.validity.to)];
            let candidates = offer.candidates.iter().flat_map(|candidate| {
                let category = u16::try_from(candidate.category.0).unwrap();
                [category, days(candidate.validity.from), days(candidate.validity.to)]
            });
            let value: Vec<u8> =
                validity.into_iter().chain(candidates).flat_map(u16::to_le_bytes).collect();
            loader.send(&[b"SET", format!("o:{id}:{}", offer.service).as_bytes(), &value]);
        }
    }
}

fn load_holder(holder: &HolderLine<'_>, loader: &mut Loader) {
    for identifier in holder.identifiers() {
        let value = holder.id * 256 + identifier.card.map_or(255, |card| card as u64);
        let key = format!("{}:{}", identifier.kind, identifier.text);
        loader.send(&[b"SET", key.as_bytes(), value.to_string().as_bytes()]);
    }
    let mut value = vec![u8::from(holder.is_closed()), u8::try_from(holder.cards.len()).unwrap()];
    for card in &holder.cards {
        value.push(u8::from(card.is_active()));
        value.extend(days(card.issued()).to_le_bytes());
        value.extend(days(card.expires()).to_le_bytes());
    }
    for right in &holder.rights {
        value.extend(u16::try_from(right.category).unwrap().to_le_bytes());
        value.extend(days(right.from()).to_le_bytes());
        value.extend(days(right.to()).to_le_bytes());
    }
    loader.send(&[b"SET", format!("h:{}", holder.id).as_bytes(), &value]);
}

/// A day in two bytes; what lies outside is unlimited.
fn days(day: Day) -> u16 {
    if day == Day::FOREVER { u16::MAX } else { u16::try_from(day.0).unwrap_or(0) }
}

/// Sends commands without waiting for each answer.
struct Loader {
    reader: BufReader<UnixStream>,
    writer: BufWriter<UnixStream>,
    waiting: usize,
}

impl Loader {
    fn new(socket: UnixStream) -> Loader {
        let writer = BufWriter::with_capacity(1 << 16, socket.try_clone().unwrap());
        Loader { reader: BufReader::new(socket), writer, waiting: 0 }
    }

    fn send(&mut self, parts: &[&[u8]]) {
        self.writer.write_all(&command(parts)).unwrap();
        self.waiting += 1;
        if self.waiting == PIPELINE {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.writer.flush().unwrap();
        for _ in 0..std::mem::take(&mut self.waiting) {
            let answer = read_answer(&mut self.reader);
            assert!(!answer.starts_with('-'), "{answer}");
        }
    }
}

/// One answer that is no array.
fn read_answer(reader: &mut impl std::io::BufRead) -> String {
    let mut answer = String::new();
    reader.read_line(&mut answer).unwrap();
    if let Some(length) = answer.strip_prefix('$') {
        let mut body = vec![0; length.trim().parse::<usize>().unwrap() + 2];
        reader.read_exact(&mut body).unwrap();
        return String::from_utf8(body).unwrap();
    }
    answer
}

fn command(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        bytes.extend(format!("${}\r\n", part.len()).into_bytes());
        bytes.extend(*part);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// An error, a number, or an array of numbers.
fn answer_end(bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| {
        let rest = bytes.get(from..)?;
        Some(from + rest.windows(2).position(|two| two == b"\r\n")? + 2)
    };
    let mut end = line(0)?;
    if bytes[0] == b'*' {
        let count: usize = std::str::from_utf8(&bytes[1..end - 2]).unwrap().parse().unwrap();
        for _ in 0..count {
            end = line(end)?;
        }
    }
    Some(end)
}
