//! PostgreSQL: covering indexes (`schema.sql`, `indexes.sql`), a function for each kind of work
//! (`functions.sql`), called by prepared statements over a unix socket in the extended protocol. One
//! statement with common table expressions did a quarter less of the same work.

use std::cell::Cell;
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use engine::calendar::Day;

use crate::data::{Answered, Data, HolderLine, ORGANIZATION, SERVICE, once, terminal};
use crate::system::{Granted, Process, System, Task};
use crate::wire::{AnswerEnd, Socket, ask};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Who runs it where we are root, which it refuses to be run by.
const USER: &str = "postgres";
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "fsync=on",
    "full_page_writes=on",
    "shared_buffers=2GB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "wal_buffers=64MB",
    // Neither checkpoints nor vacuums run while it is measured.
    "checkpoint_timeout=1h",
    "min_wal_size=4GB",
    "max_wal_size=16GB",
    "autovacuum=off",
    "maintenance_work_mem=1GB",
    "random_page_cost=1.1",
    "jit=off",
    "plan_cache_mode=force_generic_plan",
    "max_connections=200",
    "logging_collector=on",
];

const SOCKET: &str = ".s.PGSQL.5432";

pub struct Postgres {
    process: Process,
    directory: PathBuf,
    today: String,
    /// Microseconds that a commit waits for others.
    pub commit_delay: Cell<u32>,
}

impl Postgres {
    /// A server that holds all of `data`.
    pub fn open(data: &Data, parent: &Path) -> Postgres {
        let directory = parent.join("postgres");
        let cluster = directory.join("cluster");
        once(parent, "postgres-initialized", || initialize(&directory, &cluster));
        let text = |path: &Path| path.display().to_string();
        let mut arguments =
            vec!["-D".to_owned(), text(&cluster), "-k".to_owned(), text(&directory)];
        for setting in SETTINGS {
            arguments.extend(["-c".to_owned(), (*setting).to_owned()]);
        }
        let program = PathBuf::from(PROGRAMS).join("postgres");
        // A socket of a server that was killed would look like one that answers.
        let _ = std::fs::remove_file(directory.join(SOCKET));
        let process = Process::start(&program, &arguments, user(), "QUIT");
        let today = data.today.to_string();
        let postgres = Postgres { process, directory, today, commit_delay: Cell::default() };
        while !postgres.is_ready() {
            std::thread::sleep(Duration::from_millis(50));
        }
        once(parent, "postgres-loaded", || {
            postgres.psql(include_str!("schema.sql"));
            postgres.copy(data);
            postgres.psql(include_str!("indexes.sql"));
            postgres.psql(include_str!("functions.sql"));
        });
        postgres.psql(include_str!("warm.sql"));
        postgres
    }

    fn is_ready(&self) -> bool {
        let mut ask = Command::new(format!("{PROGRAMS}/pg_isready"));
        let ask = ask.args(["-q", "-U", "postgres", "-h"]).arg(&self.directory);
        ask.status().unwrap().success()
    }

    pub fn keep_to(&self, cores: &str) {
        self.process.keep_to(cores);
    }

    fn socket_path(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    fn psql(&self, script: &str) {
        let mut psql = Command::new("psql");
        psql.args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"]);
        let mut psql =
            psql.arg(&self.directory).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        psql.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(psql.wait().unwrap().success(), "psql failed");
    }

    fn copy(&self, data: &Data) {
        let mut tables = Tables::new(&self.directory);
        tables.write_directory(data);
        data.each_holder(|holder| tables.write_holder(holder));
        let mut script = String::new();
        for (name, file) in tables.files {
            file.into_inner().unwrap();
            let path = self.directory.join(name);
            writeln!(script, "\\copy {name} from '{}'", path.display()).unwrap();
        }
        self.psql(&script);
    }

    /// Sends one message whose answer must not be an error.
    fn tell(stream: &mut UnixStream, message: &[u8]) {
        let answer = ask(stream, message, answer_end);
        let error = messages(&answer).find(|(kind, _)| *kind == b'E');
        assert!(error.is_none(), "{}", String::from_utf8_lossy(&answer));
    }

    fn socket(&self, task: Task) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket_path()).unwrap();
        let mut startup = vec![0, 3, 0, 0];
        startup.extend(b"user\0postgres\0database\0postgres\0\0");
        Self::tell(&mut stream, &with_length(&startup));
        // The promise of eligo: an opening may be lost in a power cut, a confirm may not.
        let when = if task == Task::Check { "off" } else { "on" };
        let delay = self.commit_delay.get();
        let set = format!("SET synchronous_commit = {when}; SET commit_delay = {delay};");
        let script = format!("{set}{}\0", include_str!("statements.sql"));
        Self::tell(&mut stream, &[b"Q", with_length(script.as_bytes()).as_slice()].concat());
        stream
    }
}

impl System for Postgres {
    fn connect(&self, task: Task, connections: usize) -> Vec<Socket> {
        (0..connections).map(|_| Socket::Unix(self.socket(task))).collect()
    }

    fn answer_end(&self) -> AnswerEnd {
        answer_end
    }

    fn check(&self, holder: u64) -> Vec<u8> {
        let code = gateway::generator::client_code(holder);
        let parameters: [&dyn Display; 5] =
            [&ORGANIZATION, &terminal(), &SERVICE, &code, &self.today];
        execute("check_benefit", &parameters)
    }

    fn confirm(&self, granted: &Granted) -> Vec<u8> {
        let Granted { transaction, holder, category } = granted;
        let parameters: [&dyn Display; 6] =
            [transaction, &ORGANIZATION, holder, category, &30_000, &10_000];
        execute("confirm_transaction", &parameters)
    }

    fn read_check(&self, answer: &[u8]) -> (Answered, u64) {
        let row = row(answer);
        let [code, transaction, holder, category] = row[..] else { panic!("{row:?}") };
        let [code, category] = [code, category].map(|number| u32::try_from(number).unwrap());
        (Answered { code, holder, category }, transaction)
    }

    fn is_done(&self, answer: &[u8]) -> bool {
        row(answer) == [0]
    }
}

/// The rows to copy, a file for each table.
struct Tables {
    files: Vec<(&'static str, BufWriter<File>)>,
}

impl Tables {
    fn new(directory: &Path) -> Tables {
        let names =
            ["terminal", "offer", "candidate", "holder", "card", "identifier", "entitlement"];
        let file = |name: &str| BufWriter::new(File::create(directory.join(name)).unwrap());
        Tables { files: names.map(|name| (name, file(name))).into() }
    }

    fn write(&mut self, table: &str, fields: &[&dyn Display]) {
        let (_, file) = self.files.iter_mut().find(|(name, _)| *name == table).unwrap();
        let mut separator = "";
        for field in fields {
            write!(file, "{separator}{field}").unwrap();
            separator = "\t";
        }
        writeln!(file).unwrap();
    }

    fn write_directory(&mut self, data: &Data) {
        let directory = data.registry().directory();
        for (id, terminal) in &directory.items().terminals {
            let serves = directory.compiled(terminal.organization).is_some_and(|it| it.serves);
            let serves = serves && terminal.active;
            self.write("terminal", &[id, &terminal.organization, &serves]);
        }
        for id in directory.items().organizations.keys() {
            let Some(organization) = directory.compiled(*id) else { continue };
            for offer in &organization.offers {
                let (from, to) = (date(offer.validity.from), date(offer.validity.to));
                self.write("offer", &[id, &offer.service, &from, &to]);
                for (place, candidate) in offer.candidates.iter().enumerate() {
                    let (from, to) = (date(candidate.validity.from), date(candidate.validity.to));
                    let row: [&dyn Display; 6] =
                        [id, &offer.service, &candidate.category, &place, &from, &to];
                    self.write("candidate", &row);
                }
            }
        }
    }

    fn write_holder(&mut self, holder: &HolderLine<'_>) {
        let id = holder.id;
        self.write("holder", &[&id, &holder.is_closed()]);
        for (place, card) in holder.cards.iter().enumerate() {
            let (issued, expires) = (date(card.issued()), date(card.expires()));
            self.write("card", &[&id, &place, &card.is_active(), &issued, &expires]);
        }
        for identifier in holder.identifiers() {
            let card = identifier.card.map_or("\\N".to_owned(), |card| card.to_string());
            self.write("identifier", &[&id, &card, &identifier.kind, &identifier.text]);
        }
        for right in &holder.rights {
            let (from, to) = (date(right.from()), date(right.to()));
            self.write("entitlement", &[&id, &right.category, &from, &to]);
        }
    }
}

fn date(day: Day) -> String {
    match day {
        Day::BEGINNING => "-infinity".to_owned(),
        Day::FOREVER => "infinity".to_owned(),
        day => day.to_string(),
    }
}

/// Bind, Execute and Sync of a prepared statement, all values as text.
fn execute(statement: &str, parameters: &[&dyn Display]) -> Vec<u8> {
    let mut bind = format!("\0{statement}\0").into_bytes();
    bind.extend(0_i16.to_be_bytes());
    bind.extend(i16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        let text = parameter.to_string();
        bind.extend(i32::try_from(text.len()).unwrap().to_be_bytes());
        bind.extend(text.into_bytes());
    }
    bind.extend(0_i16.to_be_bytes());
    [b"B", &*with_length(&bind), b"E", &*with_length(&[0; 5]), b"S", &*with_length(&[])].concat()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&length, body].concat()
}

/// The messages that have come in whole, each with its kind.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let length = bytes.get(1..5)?;
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (kind, body) = (bytes[0], bytes.get(5..length + 1)?);
        bytes = &bytes[length + 1..];
        Some((kind, body))
    })
}

/// The end of ReadyForQuery.
fn answer_end(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    for (kind, body) in messages(bytes) {
        end += body.len() + 5;
        if kind == b'Z' {
            return Some(end);
        }
    }
    None
}

/// The numbers of the only row.
fn row(answer: &[u8]) -> Vec<u64> {
    let found = messages(answer).find(|(kind, _)| *kind == b'D');
    let (_, mut body) = found.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(answer)));
    body = &body[2..];
    let mut numbers = Vec::new();
    while let Some((length, rest)) = body.split_at_checked(4) {
        // What is null has a negative length, and stands for none.
        let length = i32::from_be_bytes(length.try_into().unwrap());
        let text = &rest[..usize::try_from(length).unwrap_or(0)];
        let number = std::str::from_utf8(text).unwrap();
        numbers.push(if number.is_empty() { 0 } else { number.parse().unwrap() });
        body = &rest[text.len()..];
    }
    numbers
}

fn initialize(directory: &Path, cluster: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let program = format!("{PROGRAMS}/initdb");
    let mut initdb = match user() {
        Some(user) => {
            run(Command::new("chown").arg(user).arg(directory));
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", &program]);
            command
        }
        None => Command::new(program),
    };
    initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
    run(initdb.arg("--no-sync").arg("-D").arg(cluster).current_dir(directory));
}

/// Who the server runs as, where that is not us.
fn user() -> Option<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0")).then_some(USER)
}

fn run(command: &mut Command) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?} failed");
}
