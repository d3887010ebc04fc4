//! `eligo-validator`: the reference agent, driven by JSON lines on stdin and stdout
//! (see [`validator::agent::local`]).

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use validator::agent::local;
use validator::agent::run::{self, Server};
use validator::agent::wall::WallClock;
use validator::agent::{Agent, AgentConfig};
use validator::clock::Now;
use validator::files::directory::Directory;
use validator::link::client::Dialer;
use validator::link::identity::Identity;
use validator::store::RegistryDirectory;

/// Commands that wait for their answers.
const COMMANDS_MAX: usize = 64;
/// Lines that wait to be written.
const LINES_MAX: usize = 256;

/// A validator of eligo: decides taps online and offline, reports trips.
#[derive(Debug, Default, Deserialize, Parser)]
#[command(version)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// TOML file with any of the other settings, named with underscores.
    #[arg(long)]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Server, host and port.
    #[arg(long)]
    server: Option<String>,
    /// Name in the server's certificate; the host of `server` if not given.
    #[arg(long)]
    server_name: Option<String>,
    /// Number of this terminal.
    #[arg(long)]
    terminal: Option<u64>,
    /// PEM file of the authority that certifies servers.
    #[arg(long)]
    authority: Option<PathBuf>,
    /// PEM file of this device's certificate.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// PEM file of this device's private key.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Directory of this device's state.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Local address; any if not given.
    #[arg(long)]
    bind: Option<SocketAddr>,
    /// Milliseconds that a tap waits for the server; 300 if not given.
    #[arg(long)]
    check_ms: Option<u64>,
    /// Seconds that this device's clock is ahead of the machine's, for tests.
    #[arg(long)]
    clock_ahead_seconds: Option<u32>,
}

/// Settings that are complete.
struct Checked {
    config: AgentConfig,
    identity: Identity,
    server: Server,
    data_dir: PathBuf,
    bind: Option<SocketAddr>,
    wall: WallClock,
}

fn main() -> std::process::ExitCode {
    let ended = Settings::parse().checked().and_then(serve);
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eligo-validator: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

impl Settings {
    fn checked(self) -> Result<Checked, String> {
        let file = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("`{}`: {error}", path.display()))?;
                toml::from_str(&text).map_err(|error| format!("`{}`: {error}", path.display()))?
            }
            None => Settings::default(),
        };
        let missing = |name: &str| format!("`{name}` is missing");
        let path = |own: Option<PathBuf>, file: Option<PathBuf>, name: &str| {
            own.or(file).ok_or_else(|| missing(name))
        };
        let authority = path(self.authority, file.authority, "authority")?;
        let certificate = path(self.certificate, file.certificate, "certificate")?;
        let key = path(self.key, file.key, "key")?;
        let data_dir = path(self.data_dir, file.data_dir, "data_dir")?;
        let address = self.server.or(file.server).ok_or_else(|| missing("server"))?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = self.server_name.or(file.server_name).unwrap_or(host);
        let check_ms = self.check_ms.or(file.check_ms).unwrap_or(300);
        if !(1..=60_000).contains(&check_ms) {
            return Err("`check_ms` is 1 to 60000".to_owned());
        }
        let ahead = self.clock_ahead_seconds.or(file.clock_ahead_seconds);
        let identity = Identity::read(&authority, &certificate, &key);
        Ok(Checked {
            config: AgentConfig {
                terminal: self.terminal.or(file.terminal).ok_or_else(|| missing("terminal"))?,
                check_ms,
            },
            identity: identity.map_err(|error| error.to_string())?,
            server: Server { address, name },
            data_dir,
            bind: self.bind.or(file.bind),
            wall: WallClock { ahead_seconds: ahead.unwrap_or_default() },
        })
    }
}

fn serve(settings: Checked) -> Result<(), String> {
    let Checked { config, identity, server, data_dir, bind, wall } = settings;
    let at = |error: &dyn std::fmt::Display| format!("`{}`: {error}", data_dir.display());
    let files = Directory::take(&data_dir.join("state")).map_err(|error| at(&error))?;
    let store = RegistryDirectory::new(&data_dir.join("registries")).map_err(|error| at(&error))?;
    let now = Now { wall_ms: wall.now_ms(), steady_ms: 0 };
    let seed = now.wall_ms.unsigned_abs() ^ config.terminal.rotate_left(32);
    let opened = Agent::open(config, Arc::new(files), store, (seed, now));
    let (agent, recovered) = opened.map_err(|error| at(&error))?;
    if recovered.unread_files > 0 {
        let files = recovered.unread_files;
        eprintln!("eligo-validator: {files} files of trips cannot be read; they stay on the disk");
    }
    if recovered.spoiled > 0 || recovered.numbers_lost {
        eprintln!(
            "eligo-validator: the disk has lost data: {} trips cannot be read",
            recovered.spoiled
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let dialer = match bind {
            Some(bind) => Dialer::bind(bind, identity),
            None => Dialer::bind_any(identity),
        };
        let dialer = dialer.map_err(|error| error.to_string())?;
        let (requests, incoming) = mpsc::channel(COMMANDS_MAX);
        let (show, mut shown) = mpsc::channel(LINES_MAX);
        let (lines, written) = mpsc::channel(LINES_MAX);
        let writer = std::thread::spawn(move || write_lines(written));
        let events = lines.clone();
        tokio::spawn(async move {
            while let Some(shown) = shown.recv().await {
                // Whoever does not read must not stop the device.
                let _unseen = events.try_send(local::shown_json(&shown).to_string());
            }
        });
        let commands = tokio::spawn(take_commands(requests, lines));
        run::run(agent, (dialer, server, wall), incoming, show).await;
        drop(writer);
        commands.await.map_err(|error| error.to_string())?
    })
}

/// Ends, and with it the device, when the input does, or when nobody takes the output: without a
/// reader of the answers nobody is there to open the door.
async fn take_commands(
    requests: mpsc::Sender<run::Request>,
    lines: mpsc::Sender<String>,
) -> Result<(), String> {
    let (sender, mut commands) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        while let Ok(Some(line)) = local::read_line(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let places = Arc::new(Semaphore::new(COMMANDS_MAX));
    loop {
        let line = tokio::select! {
            biased;
            () = lines.closed() => return Err("the standard output is closed".to_owned()),
            line = commands.recv() => line,
        };
        let Some(line) = line else { return Ok(()) };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (requests, lines) = (requests.clone(), lines.clone());
        tokio::spawn(async move {
            let answer = local::answer(&line, &requests).await;
            // The device ends where the lines do.
            let _unread = lines.send(answer.to_string()).await;
            drop(place);
        });
    }
}

fn write_lines(mut lines: mpsc::Receiver<String>) {
    let mut output = std::io::stdout().lock();
    while let Some(line) = lines.blocking_recv() {
        if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}
