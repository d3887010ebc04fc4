//! A device: a real agent, its disk, its clocks, and its end of the link.

use std::path::PathBuf;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use validator::agent::{Agent, AgentConfig};
use validator::clock::Now;
use validator::files::memory::{MemoryFiles, Remains};
use validator::store::RegistryDirectory;

/// A device.
pub struct Unit {
    pub(crate) terminal: u64,
    pub(crate) agent: Agent<RegistryDirectory>,
    pub(crate) files: MemoryFiles,
    shelf: PathBuf,
    /// What its clock on the wall is ahead.
    pub(crate) wall_error_ms: i64,
    booted_ms: i64,
    /// Counts lives and links: what belongs to an earlier one does not come any more.
    pub(crate) generation: u64,
    /// Whether the server can be reached.
    pub(crate) is_open: bool,
    /// Whether the link carries anything; a device learns of its end later.
    pub(crate) carries: bool,
    /// Whether the server's clock was heard in this life.
    pub(crate) heard_clock: bool,
}

impl Unit {
    /// A device that was never used.
    pub fn new(terminal: u64, shelf: PathBuf, (random, now_ms): (&mut SmallRng, i64)) -> Unit {
        let files = MemoryFiles::default();
        let wall_error_ms = random.random_range(-3_000..3_000);
        let now = Now { wall_ms: now_ms + wall_error_ms, steady_ms: 0 };
        let agent = open(terminal, &files, &shelf, (random.random(), now));
        Unit {
            terminal,
            agent,
            files,
            shelf,
            wall_error_ms,
            booted_ms: now_ms,
            generation: 0,
            is_open: true,
            carries: false,
            heard_clock: false,
        }
    }

    /// Its clocks.
    pub fn now(&self, now_ms: i64) -> Now {
        let steady_ms = u64::try_from(now_ms - self.booted_ms).unwrap();
        Now { wall_ms: now_ms + self.wall_error_ms, steady_ms }
    }

    /// When it wants to be woken.
    pub fn wakes_at(&self) -> Option<i64> {
        Some(self.booted_ms + i64::try_from(self.agent.next_timeout()?).unwrap())
    }

    /// The power goes and comes back.
    pub fn crash(&mut self, random: &mut SmallRng, now_ms: i64) {
        let remains = match random.random_range(0..3) {
            0 => Remains::All,
            1 => Remains::Nothing,
            _ => Remains::Some(random.random()),
        };
        self.files = self.files.after_power_cut(remains);
        if random.random_bool(0.1) {
            // The clock has no battery.
            self.wall_error_ms = 1_735_689_600_000 - now_ms;
        }
        self.booted_ms = now_ms;
        self.generation += 1;
        (self.carries, self.heard_clock) = (false, false);
        let now = self.now(now_ms);
        self.agent = open(self.terminal, &self.files, &self.shelf, (random.random(), now));
    }
}

fn open(
    terminal: u64,
    files: &MemoryFiles,
    shelf: &std::path::Path,
    start: (u64, Now),
) -> Agent<RegistryDirectory> {
    let config = AgentConfig { terminal, check_ms: 300 };
    let store = RegistryDirectory::new(shelf).unwrap();
    Agent::open(config, Arc::new(files.clone()), store, start).unwrap().0
}
