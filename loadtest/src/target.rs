//! The server's own figures: processor time and memory of its process when it is local, and its
//! metrics before, during and after the run.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::endpoint::Endpoint;

/// Between two looks at the process.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Looks between two readings of the metrics, until there are too many.
const METRICS_EVERY: u64 = 10;
/// Readings of the metrics that are kept before every other one is forgotten.
const METRICS_MAX: usize = 64;
/// Rows that are kept of each sort: a week of seconds.
const ROWS_MAX: usize = 604_800;
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);
/// Series that are kept, in the order of the document.
const SERIES_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 256;
const RESIDENT: &str = "VmRSS:";

/// Whose figures.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The process.
    pub pid: Option<u32>,
    /// A file with its id, read again whenever the process is gone.
    pub pid_file: Option<PathBuf>,
    /// Where `/metrics` is.
    pub admin: Option<Endpoint>,
}

/// The server's figures of a run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Sampled {
    /// Its process, second by second; a gap where there was none.
    pub process: Vec<Process>,
    /// Its metrics, the first before and the last after the run.
    pub metrics: Vec<Metrics>,
}

/// The process in one second.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Process {
    /// From the start of the run.
    pub at_seconds: f64,
    /// Processor time since the last row, percent of one core.
    pub cpu_percent: f64,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// The metrics at one instant.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Metrics {
    /// From the start of the run.
    pub at_seconds: f64,
    /// Names with labels, and values; buckets are left out.
    pub series: Vec<(String, f64)>,
}

/// Takes the figures beside the load.
pub struct Sampler {
    stop: SyncSender<()>,
    thread: JoinHandle<Sampled>,
}

impl Sampler {
    /// Starts it with a first look at everything. `begun` is the start of the run.
    pub fn start(begun: Instant, target: Target) -> io::Result<Sampler> {
        let (stop, stopped) = sync_channel(1);
        let sample = move || sample(begun, &target, &stopped);
        let thread = thread::Builder::new().name("sampler".into()).spawn(sample)?;
        Ok(Sampler { stop, thread })
    }

    /// Stops it after a last look at the metrics.
    pub fn stop(self) -> Sampled {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn sample(begun: Instant, target: &Target, stopped: &Receiver<()>) -> Sampled {
    let mut sampled = Sampled::default();
    let mut pid = target.pid.or_else(|| named(target));
    let mut last: Option<(Instant, Duration)> = None;
    let mut due = Instant::now();
    let mut metrics_every = METRICS_EVERY;
    for look in 0_u64.. {
        if look % metrics_every == 0 {
            sampled.metrics.extend(metrics(begun, target));
        }
        if sampled.metrics.len() >= METRICS_MAX {
            thin(&mut sampled.metrics);
            metrics_every *= 2;
        }
        let now = Instant::now();
        let figures = pid.and_then(figures);
        if let (Some((at, before)), Some((used, resident_bytes))) = (last, figures)
            && sampled.process.len() < ROWS_MAX
        {
            let wall = now.duration_since(at).as_secs_f64();
            let cpu = used.saturating_sub(before).as_secs_f64();
            sampled.process.push(Process {
                at_seconds: now.saturating_duration_since(begun).as_secs_f64(),
                cpu_percent: if wall > 0.0 { cpu / wall * 100.0 } else { 0.0 },
                resident_bytes,
            });
        }
        last = figures.map(|(used, _)| (now, used));
        if figures.is_none() {
            pid = named(target).or(pid);
        }
        due = (due + INTERVAL).max(now);
        match stopped.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => (),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    sampled.metrics.extend(metrics(begun, target));
    sampled
}

/// Forgets every other row, and never the first.
fn thin<T>(rows: &mut Vec<T>) {
    let mut at = 0_u32;
    rows.retain(|_| {
        at += 1;
        at % 2 == 1
    });
}

fn named(target: &Target) -> Option<u32> {
    fs::read_to_string(target.pid_file.as_ref()?).ok()?.trim().parse().ok()
}

/// Processor time and resident bytes of a process.
fn figures(pid: u32) -> Option<(Duration, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((cpu(&stat)?, resident(&status)?))
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name before may hold spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(user.checked_add(system)? as f64 / per_second as f64))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(RESIDENT))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn metrics(begun: Instant, target: &Target) -> Option<Metrics> {
    let mut client = Client::connect(target.admin.as_ref()?, METRICS_TIMEOUT).ok()?;
    let response = client.get("/metrics", &[]).ok().filter(|response| response.status == 200)?;
    let at_seconds = begun.elapsed().as_secs_f64();
    Some(Metrics { at_seconds, series: series(&String::from_utf8_lossy(&response.body)) })
}

fn series(document: &str) -> Vec<(String, f64)> {
    let lines = document.lines().filter(|line| !line.starts_with('#'));
    let read = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let short = name.len() <= NAME_BYTES_MAX && !name.contains("_bucket{");
        // JSON knows no infinity.
        let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
        short.then(|| (name.to_string(), value))
    });
    read.take(SERIES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        let per_second = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu(stat), Some(Duration::from_secs_f64(300.0 / per_second as f64)));
        assert_eq!(cpu("7 (a) S"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2 << 20));
        let (_, bytes) = figures(std::process::id()).unwrap();
        assert!(bytes > 0);
    }

    /// Once every reading of a long run was kept, names and all.
    #[test]
    fn a_long_run_keeps_some_readings_of_the_metrics() {
        let mut rows: Vec<u32> = (0..7).collect();
        thin(&mut rows);
        assert_eq!(rows, [0, 2, 4, 6]);
    }

    #[test]
    fn metrics_are_kept_without_buckets() {
        let document = "# HELP a b\na 1\nb{c=\"d e\"} 2.5\nh_bucket{le=\"1\"} 3\nx NaN\nbroken\n";
        assert_eq!(series(document), [("a".into(), 1.0), ("b{c=\"d e\"}".into(), 2.5)]);
        assert_eq!(series(&"a 1\n".repeat(SERIES_MAX + 1)).len(), SERIES_MAX);
    }
}
