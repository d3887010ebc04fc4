//! What the generator uses of the machine, and what others take of it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Use of the machine between two looks, percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time of this thread, of one core.
    pub cpu_percent: f64,
    /// Processor time that the hypervisor gave to others, of the machine.
    pub steal_percent: f64,
}

/// Looks at the machine. It belongs to the thread that started it, whose time it counts.
#[derive(Debug)]
pub struct Meter {
    /// Absent where there is none: then nothing is known of the hypervisor.
    stat: Option<File>,
    looked: Instant,
    cpu_ns: u64,
    ticks: Ticks,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Ticks {
    steal: u64,
    all: u64,
}

impl Meter {
    /// Starts counting.
    pub fn start() -> Meter {
        let stat = File::open("/proc/stat").ok();
        let ticks = read_ticks(stat.as_ref());
        Meter { stat, looked: Instant::now(), cpu_ns: thread_cpu_ns(), ticks }
    }

    /// The use since the last look.
    pub fn look(&mut self) -> Usage {
        let (looked, cpu_ns, ticks) =
            (Instant::now(), thread_cpu_ns(), read_ticks(self.stat.as_ref()));
        let wall_ns = looked.duration_since(self.looked).as_nanos() as f64;
        let usage = Usage {
            cpu_percent: percent(cpu_ns.saturating_sub(self.cpu_ns) as f64, wall_ns),
            steal_percent: percent(
                ticks.steal.saturating_sub(self.ticks.steal) as f64,
                ticks.all.saturating_sub(self.ticks.all) as f64,
            ),
        };
        (self.looked, self.cpu_ns, self.ticks) = (looked, cpu_ns, ticks);
        usage
    }
}

/// Keeps this thread to the `nth` of the cores that it may run on, from 0, or to another one where
/// there are fewer.
pub fn keep_to_core(nth: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let Some(core) = cores.cycle().nth(nth) else { return Ok(()) };
    let mut own = CpuSet::new();
    own.set(core);
    Ok(sched_setaffinity(None, &own)?)
}

/// Keeps the processors of this machine from sleeping until it is dropped.
///
/// A hypervisor gives a processor that sleeps to others, and it wakes up when they are done: where it
/// has sold more than it has, milliseconds late.
#[derive(Debug)]
pub struct Awake {
    /// Counts while it is open.
    _request: File,
}

impl Awake {
    /// Asks Linux to let them wait for work, not sleep; its file belongs to root.
    pub fn keep() -> io::Result<Awake> {
        Awake::ask(Path::new("/dev/cpu_dma_latency"))
    }

    fn ask(device: &Path) -> io::Result<Awake> {
        let mut request = File::options().write(true).open(device)?;
        let microseconds: i32 = 0;
        request.write_all(&microseconds.to_ne_bytes())?;
        Ok(Awake { _request: request })
    }
}

/// Processor time of this thread so far, nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

fn read_ticks(stat: Option<&File>) -> Ticks {
    let mut text = [0; 256];
    let read = stat.and_then(|stat| stat.read_at(&mut text, 0).ok()).unwrap_or(0);
    parse_ticks(text.get(..read).unwrap_or_default())
}

/// The line of all processors: user, nice, system, idle, iowait, irq, softirq, steal; guests are
/// within user.
fn parse_ticks(stat: &[u8]) -> Ticks {
    let line = stat.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = std::str::from_utf8(line).unwrap_or_default();
    let Some(fields) = text.strip_prefix("cpu ") else { return Ticks::default() };
    let mut ticks = Ticks::default();
    for (at, field) in fields.split_ascii_whitespace().take(8).enumerate() {
        let count: u64 = field.parse().unwrap_or(0);
        ticks.all = ticks.all.saturating_add(count);
        if at == 7 {
            ticks.steal = count;
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_kept_awake_by_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("cpu_dma_latency");
        assert_eq!(Awake::ask(&device).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&device, "").unwrap();
        let _awake = Awake::ask(&device).unwrap();
        assert_eq!(std::fs::read(&device).unwrap(), [0; 4]);
    }

    #[test]
    fn steal_is_read_from_the_line_of_all_processors() {
        let check = |text: &str, steal, all| {
            assert_eq!(parse_ticks(text.as_bytes()), Ticks { steal, all }, "{text}");
        };
        check("cpu  10 1 5 80 2 0 1 7 3 0\ncpu0 5 0 2 40 1 0 0 3\n", 7, 106);
        check("cpu  10 1 5 80\n", 0, 96);
        check("cpu0 5 0 2 40 1 0 0 3\n", 0, 0);
        check("", 0, 0);
        check("cpu  x -1 18446744073709551615 5 0 0 0 1", 1, u64::MAX);
    }

    #[test]
    fn a_thread_uses_time() {
        let mut meter = Meter::start();
        let before = thread_cpu_ns();
        while thread_cpu_ns() == before {}
        assert!(meter.look().cpu_percent > 0.0);
    }
}
