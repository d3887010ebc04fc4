//! Commands at set times: what is done to the server on purpose while it is loaded.
//!
//! A command has its time, its output a limit, and what came of it is part of the run. Commands run
//! one after the other, in the order of their times; one that hangs is killed after
//! [`COMMAND_TIMEOUT`], with those that were due meanwhile following at once. One that the run did not
//! live to see has failed, and says so.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long a command may take.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of its output that are kept.
pub const OUTPUT_BYTES_MAX: usize = 4 << 10;
const POLL: Duration = Duration::from_millis(10);

/// A command and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What reports call it.
    pub name: String,
    /// From the start of the run.
    pub at: Duration,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// A command that was run, and what came of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Injected {
    /// What reports call it.
    pub name: String,
    /// When it began, from the start of the run.
    pub at_seconds: f64,
    /// How long it took.
    pub took_seconds: f64,
    /// Its exit code; none if it was killed or could not be started.
    pub exit_code: Option<i32>,
    /// The beginning of what it printed, or why it did not run.
    pub output: String,
}

/// Runs commands beside the load.
pub struct Injector {
    stop: SyncSender<()>,
    thread: JoinHandle<Vec<Injected>>,
}

impl Injector {
    /// Starts it. `begun` is the start of the run.
    pub fn start(begun: Instant, mut planned: Vec<Planned>) -> io::Result<Injector> {
        planned.sort_by_key(|planned| planned.at);
        let (stop, stopped) = sync_channel(1);
        let inject = move || inject(begun, &planned, &stopped);
        let thread = thread::Builder::new().name("faults".into()).spawn(inject)?;
        Ok(Injector { stop, thread })
    }

    /// Stops it: waits for the command under way; what was not run has failed.
    pub fn stop(self) -> Vec<Injected> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn inject(begun: Instant, planned: &[Planned], stopped: &Receiver<()>) -> Vec<Injected> {
    let inject = |planned: &Planned| {
        let wait = (begun + planned.at).saturating_duration_since(Instant::now());
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => run(begun, planned, COMMAND_TIMEOUT),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Injected {
                name: planned.name.clone(),
                at_seconds: planned.at.as_secs_f64(),
                took_seconds: 0.0,
                exit_code: None,
                output: "the run was over before".to_owned(),
            },
        }
    };
    planned.iter().map(inject).collect()
}

fn run(begun: Instant, planned: &Planned, timeout: Duration) -> Injected {
    let from = Instant::now();
    let (exit_code, output) = match spawn(&planned.command) {
        Ok(child) => finish(child, from + timeout),
        Err(error) => (None, format!("did not start: {error}")),
    };
    Injected {
        name: planned.name.clone(),
        at_seconds: from.saturating_duration_since(begun).as_secs_f64(),
        took_seconds: from.elapsed().as_secs_f64(),
        exit_code,
        output,
    }
}

fn spawn(command: &[String]) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

fn finish(mut child: Child, until: Instant) -> (Option<i32>, String) {
    // The readers are not joined: what a command leaves running may hold its pipes open.
    let (sender, chunks) = sync_channel(2);
    if let Some(pipe) = child.stdout.take() {
        read(pipe, 0, sender.clone());
    }
    if let Some(pipe) = child.stderr.take() {
        read(pipe, 1, sender.clone());
    }
    drop(sender);
    let exit_code = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.code(),
            Ok(None) if Instant::now() < until => thread::sleep(POLL),
            Ok(None) | Err(_) => {
                // It may have ended by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let mut output = [Vec::new(), Vec::new()];
    let collected = Instant::now() + Duration::from_secs(1);
    while let Ok((pipe, bytes)) =
        chunks.recv_timeout(collected.saturating_duration_since(Instant::now()))
    {
        if let Some(output) = output.get_mut::<usize>(pipe) {
            *output = bytes;
        }
    }
    let [mut bytes, errors] = output;
    bytes.extend(errors);
    bytes.truncate(OUTPUT_BYTES_MAX);
    (exit_code, String::from_utf8_lossy(&bytes).into_owned())
}

fn read(mut pipe: impl Read + Send + 'static, index: usize, sender: SyncSender<(usize, Vec<u8>)>) {
    let reader = move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends the output.
        let _ = pipe.by_ref().take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut bytes);
        let _ = sender.send((index, bytes));
        // The rest is read so that the command does not wait for us.
        let _ = io::copy(&mut pipe, &mut io::sink());
    };
    // Without a thread its output is lost, and so is nothing else.
    let _ = thread::Builder::new().name("fault".into()).spawn(reader);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &[&str], timeout: Duration) -> Injected {
        let command = command.iter().map(ToString::to_string).collect();
        let planned = Planned { name: "x".into(), at: Duration::ZERO, command };
        super::run(Instant::now(), &planned, timeout)
    }

    #[test]
    fn what_came_of_a_command_is_recorded() {
        let long = COMMAND_TIMEOUT;
        let done = run(&["sh", "-c", "echo out; echo err >&2; exit 3"], long);
        assert_eq!((done.exit_code, done.output.as_str()), (Some(3), "out\nerr\n"));
        let absent = run(&["/no/such/program"], long);
        assert!(absent.exit_code.is_none() && absent.output.starts_with("did not start"));
        assert!(run(&[], long).exit_code.is_none());
        let endless = run(&["sh", "-c", "exec sleep 1000"], Duration::from_millis(20));
        assert_eq!(endless.exit_code, None);
        let loud = run(&["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"], long);
        assert_eq!((loud.exit_code, loud.output.len()), (Some(0), OUTPUT_BYTES_MAX));
    }

    #[test]
    fn commands_run_in_the_order_of_their_times() {
        let planned = |name: &str, seconds| Planned {
            name: name.into(),
            at: Duration::from_secs(seconds),
            command: vec!["true".into()],
        };
        let begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let (stop, stopped) = sync_channel(1);
        let plan = [planned("a", 1), planned("b", 2)];
        let injected = inject(begun, &plan, &stopped);
        assert_eq!(injected.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(injected.iter().all(|one| one.at_seconds >= 10.0 && one.exit_code == Some(0)));
        drop(stop);
        let [late] = &inject(Instant::now(), &[planned("late", 1000)], &stopped)[..] else {
            panic!("one was planned")
        };
        assert_eq!((late.exit_code, late.output.as_str()), (None, "the run was over before"));
    }
}
