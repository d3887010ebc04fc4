//! The real agent as a process of its own, driven by JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use engine::ids::TerminalId;
use gateway::pki::files::Pair;
use serde_json::{Value, json};

use crate::devices::{Depot, PATIENCE, SERVER_NAME};
use crate::server::binary_of;

/// Where nobody answers.
pub const NOBODY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);
/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(5);

fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| binary_of("validator", "eligo-validator"))
}

/// A device as it lies on a shelf: what it is started with.
#[derive(Clone, Debug)]
pub struct Shelved {
    /// The terminal.
    pub terminal: u64,
    /// Its state.
    pub data_dir: PathBuf,
    /// How long a tap waits for the server.
    pub check_ms: u64,
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// What came and was not asked for yet.
    aside: Vec<Value>,
    last_id: u64,
}

impl Shelved {
    /// Starts it; its clock is so many seconds ahead of the machine's.
    pub fn start(&self, depot: &Depot, server: SocketAddr, ahead_seconds: u32) -> Agent {
        let Pair { certificate, key } = depot.pki().device(TerminalId(self.terminal));
        let mut command = Command::new(binary());
        command.args(["--server", &server.to_string(), "--server-name", SERVER_NAME]);
        command.args(["--terminal", &self.terminal.to_string(), "--bind", "127.0.0.1:0"]);
        command.arg("--authority").arg(depot.pki().authority().certificate);
        command.arg("--certificate").arg(certificate).arg("--key").arg(key);
        command.arg("--data-dir").arg(&self.data_dir);
        command.args(["--check-ms", &self.check_ms.to_string()]);
        command.args(["--clock-ahead-seconds", &ahead_seconds.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // A killed agent may leave a line that is cut.
            let lines = output.lines().map_while(Result::ok);
            for line in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Agent { input: child.stdin.take(), child, lines, aside: Vec::new(), last_id: 0 }
    }
}

impl Agent {
    /// Sends a command; the number that its answer will bear.
    pub fn tell(&mut self, mut command: Value) -> u64 {
        self.last_id += 1;
        command["id"] = self.last_id.into();
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        self.last_id
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, command: Value) -> Value {
        let id = self.tell(command);
        self.wait(|line| line["id"] == id)
    }

    /// Taps a card.
    pub fn tap(&mut self, card: &Value, journey: &Value) -> Value {
        self.ask(json!({"do": "tap", "card": card, "journey": journey}))
    }

    /// Waits for a line.
    pub fn wait(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.aside.iter().position(&is_it) {
            return self.aside.remove(at);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("it never came: {:?}", self.aside));
            if is_it(&line) {
                return line;
            }
            self.aside.push(line);
        }
    }

    /// Waits until the device is as wanted.
    pub fn wait_status(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.ask(json!({"do": "status"}));
            if is_it(&status) {
                return status;
            }
            assert!(Instant::now() < until, "it never came about: {status}");
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until everything is reported.
    pub fn wait_reported(&mut self) {
        self.wait_status(|status| status["linked"] == true && status["trips_waiting"] == 0);
    }

    /// How many of `trips` reported trips the server has accepted, and how many not; forgets them.
    pub fn reported(&mut self, trips: u64) -> (u64, u64) {
        self.wait_reported();
        let (mut told, mut questioned) = (0, 0);
        while told < trips {
            // It may come behind the status that knows of it.
            let reported = self.wait(|line| line["event"] == "trips_reported");
            told += reported["trips"].as_u64().unwrap();
            questioned += reported["questioned"].as_u64().unwrap();
        }
        (told - questioned, questioned)
    }

    /// Switches it off in order.
    pub fn end(mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }

    /// Kills it with no chance to write another byte; what it had said before.
    pub fn kill(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut said = std::mem::take(&mut self.aside);
        said.extend(self.lines.iter());
        said
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A process that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
