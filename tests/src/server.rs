//! The real server as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use crate::http::{Client, Response};

/// The bearer token of administration in every test.
pub const ADMIN_TOKEN: &str = "admin-of-the-tests";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The binary `eligo`, built in the profile of this test.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| binary_of("gateway", "eligo"))
}

/// A binary of a package, built in the profile of this test.
pub fn binary_of(package: &str, name: &str) -> PathBuf {
    // target/PROFILE/deps/this-test
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap().to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", package, "--bin", name]);
    build.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        build.arg("--release");
    }
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    assert!(build.status().unwrap().success(), "`{name}` does not build");
    profile.join(name)
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    log: Log,
    /// The public listener.
    pub http: SocketAddr,
    /// The listener of administration.
    pub admin: SocketAddr,
    /// The link of validators, where there is one.
    pub quic: Option<SocketAddr>,
}

impl Server {
    /// Starts a server on `data_dir` with more arguments, and waits until it answers.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Server {
        Server::start_by(Command::new(binary()), data_dir, arguments)
    }

    /// The same by a command to which the arguments of the server are added.
    pub fn start_by(mut command: Command, data_dir: &Path, arguments: &[&str]) -> Server {
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--admin-token", ADMIN_TOKEN]).args(arguments);
        if !arguments.contains(&"--log") {
            command.args(["--log", "warn"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::collect(child.stderr.take().unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.starts_with("ready ") {
                    let _ = sender.send(line);
                }
            }
        });
        let line = receiver
            .recv_timeout(START_TIMEOUT)
            .unwrap_or_else(|_| panic!("the server did not get ready: {}", log.text()));
        let address = |name: &str| {
            let prefix = format!("{name}=");
            let field = line.split_whitespace().find_map(|field| field.strip_prefix(&prefix));
            field.unwrap().parse().unwrap()
        };
        let quic = line.split_whitespace().find_map(|field| field.strip_prefix("quic="));
        let quic = quic.and_then(|text| text.parse().ok());
        Server { http: address("http"), admin: address("admin"), quic, child, log }
    }

    /// A server with fixture "F" and its frozen clock.
    pub fn start_with_fixture(data_dir: &Path) -> Server {
        Server::start_with_fixture_and(data_dir, &[])
    }

    /// The same with more arguments.
    pub fn start_with_fixture_and(data_dir: &Path, more: &[&str]) -> Server {
        let registry = data_dir.join("fixture.ndjson");
        std::fs::create_dir_all(data_dir).unwrap();
        std::fs::write(&registry, crate::fixture::REGISTRY).unwrap();
        let clock = format!("manual:{}", crate::fixture::NOW);
        let registry = registry.display().to_string();
        let mut arguments = vec!["--clock", &clock, "--import", &registry];
        arguments.extend(more);
        Server::start(data_dir, &arguments)
    }

    /// Sets the clock.
    pub fn set_clock(&self, now: &str) {
        let answer = self.administer("/admin/clock", &format!(r#"{{"now":"{now}"}}"#));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Imports more lines.
    pub fn import(&self, lines: &str) -> Response {
        self.administer("/admin/import", lines)
    }

    /// Has a snapshot saved.
    pub fn save_snapshot(&self) {
        let answer = self.administer("/admin/snapshot", "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A call of the administration.
    pub fn administer(&self, path: &str, body: &str) -> Response {
        let authorization = format!("Authorization: Bearer {ADMIN_TOKEN}");
        Client::connect(self.admin).post(path, &[&authorization], body.as_bytes())
    }

    /// A connection to the public listener.
    pub fn client(&self) -> Client {
        Client::connect(self.http)
    }

    /// A token for an organization.
    pub fn token(&self, client_id: &str, secret: &str, scope: &str) -> String {
        let answer = self.client().token(client_id, secret, scope);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// What the server wrote to standard error; outlives the server.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// The id of the process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The memory of the process, KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        Client::connect(self.admin).get("/metrics").body
    }

    /// Kills the process with no chance to write another byte.
    pub fn kill(mut self) {
        self.halt();
    }

    /// The same, and keeps what is known of it.
    pub fn halt(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the process by SIGTERM; returns its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The standard error of a server, collected while it runs.
#[derive(Clone)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    fn collect(stderr: ChildStderr) -> Log {
        let log = Log(Arc::default());
        let text = Arc::clone(&log.0);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        log
    }

    /// Everything written so far.
    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// The lines that a person must look at, and panics.
    pub fn alarms(&self) -> Vec<String> {
        let alarm = |line: &&str| line.contains("panicked") || line.contains("\"ERROR\"");
        self.text().lines().filter(alarm).map(str::to_owned).collect()
    }
}
