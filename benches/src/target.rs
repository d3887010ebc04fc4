//! Servers to measure, each a process of its own on core 0; the driver keeps to core 1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use loadtest::machine::Awake;

use crate::report::setting;

/// A running server; killed when dropped.
pub struct Target {
    child: Child,
    /// Where it listens.
    pub http: SocketAddr,
    /// Where its administration listens, if it has one.
    pub admin: Option<SocketAddr>,
    /// Where its link of validators listens, if it has one.
    pub quic: Option<SocketAddr>,
}

impl Target {
    /// Starts `program` pinned to core 0 and waits for its line `ready http=…`.
    pub fn start(program: &Path, arguments: &[String]) -> Target {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(program).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| line.ok().filter(|line| line.starts_with("ready ")));
        let ready = ready.expect("the server did not get ready");
        std::thread::spawn(move || lines.for_each(drop));
        let address = |name: &str| {
            let prefix = format!("{name}=");
            ready.split(' ').find_map(|field| field.strip_prefix(&prefix)?.parse().ok())
        };
        let http = address("http").unwrap();
        Target { child, http, admin: address("admin"), quic: address("quic") }
    }

    /// Starts `program`, which is eligo, with an open listener for everything and these settings.
    pub fn serve(program: &Path, data: &Path, more: &[&str]) -> Target {
        let data = data.display().to_string();
        let mut arguments = vec!["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        arguments.extend(["--log", "warn", "--transactions-max", "50000000"]);
        arguments.extend(["--data-dir", &data]);
        arguments.extend(more);
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        Target::start(program, &arguments)
    }

    /// One of its figures; it must be eligo.
    pub fn figure(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin.unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // A process that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps this process, from now on, to core 1.
pub fn keep_to_core_1() {
    let id = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-cp", "1", &id]).stdout(Stdio::null()).status();
    assert!(pinned.unwrap().success(), "taskset failed");
}

/// Keeps the processors from sleeping while it is held, where `ELIGO_BENCH_AWAKE=1` asks for it: some
/// hypervisors are slow to wake them, which then drowns what is measured.
pub fn keep_awake() -> Option<Awake> {
    (setting("ELIGO_BENCH_AWAKE", 0) == 1).then(|| Awake::keep().unwrap())
}

/// The binary `eligo`, built in release, or the one that `ELIGO_BENCH_SERVER` names: so a change is
/// measured beside what was before it.
pub fn eligo() -> PathBuf {
    if let Some(named) = std::env::var_os("ELIGO_BENCH_SERVER") {
        return PathBuf::from(named);
    }
    let this = std::env::current_exe().unwrap();
    let release = this.ancestors().nth(2).unwrap().to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--package", "gateway", "--bin", "eligo"]);
    build.arg("--target-dir").arg(release.parent().unwrap());
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    assert!(build.status().unwrap().success(), "the server does not build");
    release.join("eligo")
}
