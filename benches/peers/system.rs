//! What is measured of every system, and the processes that they run as.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::data::Answered;
use crate::wire::{AnswerEnd, Socket};

/// The two kinds of work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Task {
    /// Checks, whose openings may be lost in a power cut.
    Check,
    /// Confirms, which may not.
    Confirm,
}

/// A system that decides checks and records confirms.
pub trait System {
    /// Sockets that are ready for requests of this task.
    fn connect(&self, task: Task, connections: usize) -> Vec<Socket>;

    fn answer_end(&self) -> AnswerEnd;

    /// A check of a holder by the code of the first card.
    fn check(&self, holder: u64) -> Vec<u8>;

    /// A confirm of what a check granted.
    fn confirm(&self, granted: &Granted) -> Vec<u8>;

    /// The answer to a check, and its transaction.
    fn read_check(&self, answer: &[u8]) -> (Answered, u64);

    /// Whether a confirm was done.
    fn is_done(&self, answer: &[u8]) -> bool;
}

/// An open transaction.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    pub transaction: u64,
    pub holder: u64,
    pub category: u32,
}

/// A server's process on core 0; ends with this one, however that ends.
pub struct Process {
    child: Child,
    /// What makes it end.
    signal: &'static str,
}

impl Process {
    /// Starts `program`, as the user `user` where that is not ours.
    pub fn start(
        program: &Path,
        arguments: &[String],
        user: Option<&str>,
        signal: &'static str,
    ) -> Process {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "setpriv", "--pdeathsig", signal]);
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command.arg(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Process { child: command.spawn().unwrap(), signal }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it and its children run on these cores.
    pub fn keep_to(&self, cores: &str) {
        let id = self.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        for id in children.split_whitespace().chain([id.to_string().as_str()]) {
            // A child may have ended meanwhile.
            let mut taskset = Command::new("taskset");
            taskset.args(["-cp", cores, id]).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = taskset.status();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = self.id().to_string();
        // A process that has ended cannot be told to.
        let _ = Command::new("kill").args(["-s", self.signal, &id]).status();
        let _ = self.child.wait();
    }
}

/// Waits until nothing else uses the machine, for at most two seconds: what one system still does
/// behind its answers is not to be paid by the next.
pub fn settle() {
    let begun = Instant::now();
    let mut before = idle_ticks();
    while begun.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(300));
        let after = idle_ticks();
        if (after.0 - before.0) * 10 > (after.1 - before.1) * 9 {
            return;
        }
        before = after;
    }
}

/// Ticks in which the processors had nothing to do, and all of them.
fn idle_ticks() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let all = text.lines().next().unwrap().split_whitespace().skip(1);
    let ticks: Vec<u64> = all.map(|field| field.parse().unwrap()).collect();
    (ticks[3] + ticks[4], ticks.iter().sum())
}
