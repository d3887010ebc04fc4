//! The command line of `eligo`: every way to configure it, TLS, the offline import and the
//! demonstration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use loadtest::endpoint::Endpoint;
use tests::calls::{BOTH, CHECK, CONFIRM, OK_ANSWER, OK_CHECK, TOKEN, Y8A};
use tests::fixture;
use tests::http::Client;
use tests::server::{Server, binary};

/// Organization 1 of the fixture.
const CLIENT: (&str, &str) = ("111", "aaaabbbbbcccccc");

fn eligo(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_wrong_setting_is_named_and_nothing_starts() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let unknown = write(directory.path(), "unknown.toml", "colour = \"red\"\n");
    let broken = write(directory.path(), "broken.toml", "http = \n");
    for (arguments, named) in [
        (vec!["--http", "nowhere"], "http"),
        (vec!["--clock", "manual:yesterday"], "clock"),
        (vec!["--tls-certificate", "a.pem"], "tls_key"),
        (vec!["--config", &unknown], "colour"),
        (vec!["--config", &broken], "config"),
        (vec!["--config", "/nowhere/eligo.toml"], "config"),
    ] {
        let output = eligo(&[&["serve", "--data-dir", &data][..], &arguments].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        assert!(told.contains(named), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty() && !Path::new(&data).exists());
    }
}

#[test]
fn arguments_are_stronger_than_the_environment_and_that_than_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = "success_result_code = 1\nadmin_token = \"of the file\"\nhttp = \"nowhere\"\n";
    let config = write(directory.path(), "eligo.toml", file);
    let registry = write(directory.path(), "registry.ndjson", fixture::REGISTRY);
    let clock = format!("manual:{}", fixture::NOW);
    let mut command = Command::new(binary());
    command.env("ELIGO_IMPORT", &registry).env("ELIGO_ADMIN_TOKEN", "of the environment");
    let more = ["--config", &config, "--clock", &clock];
    let server = Server::start_by(command, &directory.path().join("data"), &more);
    let token = server.token(CLIENT.0, CLIENT.1, BOTH);
    let answer = server.client().call(&token, CHECK, OK_CHECK);
    assert_eq!(answer.body, OK_ANSWER.replace("\"resultCode\":0", "\"resultCode\":1"));
    // The argument that every test server has.
    assert_eq!(server.administer("/admin/snapshot", "").status, 200);
}

#[test]
fn a_registry_is_imported_offline() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let registry = write(directory.path(), "registry.ndjson", fixture::REGISTRY);
    let broken = write(directory.path(), "broken.ndjson", "{\"kind\":\"nothing\"}\n");
    let data_dir = data.display().to_string();
    let output = eligo(&["import", "--data-dir", &data_dir, &broken]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = eligo(&["import", "--data-dir", &data_dir, &registry]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let clock = format!("manual:{}", fixture::NOW);
    let server = Server::start(&data, &["--clock", &clock]);
    let token = server.token(CLIENT.0, CLIENT.1, BOTH);
    assert_eq!(server.client().call(&token, CHECK, OK_CHECK).json()["clientId"], 1);
    // While the server runs, the directory is its own.
    let output = eligo(&["import", "--data-dir", &data_dir, &registry]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn checks_and_confirms_travel_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = write(directory.path(), "server.pem", &made.cert.pem());
    let key = write(directory.path(), "server.key", &made.signing_key.serialize_pem());
    let more = ["--tls-certificate", &certificate, "--tls-key", &key];
    let server = Server::start_with_fixture_and(&directory.path().join("data"), &more);
    let url = format!("https://{}", server.http);
    let endpoint = Endpoint::parse(&url, Some(certificate.as_ref())).unwrap();
    let patience = Duration::from_secs(30);
    let mut client = loadtest::client::Client::connect(&endpoint, patience).unwrap();
    let token = client.token(CLIENT.0, CLIENT.1, BOTH).unwrap().text;
    let answer = client.call(&token, CHECK, OK_CHECK).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, OK_ANSWER.as_bytes()));
    let answer = client.call(&token, CONFIRM, Y8A).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &b""[..]));
    // Who speaks without TLS is not heard, and the next one is.
    let plain = Client::connect(server.http).try_post(CHECK, &[], OK_CHECK.as_bytes());
    assert!(plain.is_none(), "{plain:?}");
    assert!(loadtest::client::Client::connect(&endpoint, patience).is_ok());
}

/// The text between two others.
fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
fn the_demonstration_answers_what_it_prints() {
    let mut command = Command::new(binary());
    command.args(["demo", "--holders", "1000", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut demo = Demo(command.stdout(Stdio::piped()).spawn().unwrap());
    let output = BufReader::new(demo.0.stdout.take().unwrap());
    let mut shown = Vec::new();
    for line in output.lines().map(Result::unwrap) {
        shown.push(line);
        if shown.iter().any(|line| line.contains(CONFIRM))
            && shown.iter().any(|line| line.starts_with("ready "))
        {
            break;
        }
    }
    let of = |path: &str| shown.iter().find(|line| line.contains(path)).unwrap();
    let address = between(of(CHECK), "http://", "/").parse().unwrap();
    let body = |path: &str| between(of(path), "-d '", "'").to_owned();
    let mut client = Client::connect(address);
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let token = client.post(TOKEN, &form, body(TOKEN).as_bytes());
    let token = token.json()["access_token"].as_str().unwrap().to_owned();
    let checked = client.call(&token, CHECK, &body(CHECK)).json();
    assert_eq!(
        (checked["resultCode"].as_i64(), checked["transactionId"].as_i64()),
        (Some(0), Some(1))
    );
    for _ in 0..2 {
        let confirmed = client.call(&token, CONFIRM, &body(CONFIRM));
        assert_eq!((confirmed.status, confirmed.body.as_str()), (200, ""));
    }
}

#[test]
fn the_demonstration_under_load_shows_its_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(["demo", "--load", "--holders", "1000", "--http", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0"]).current_dir(directory.path());
    let output = command.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    for objective in ["wrong answers", "lost confirms", "doubled confirms", "phantom confirms"] {
        let row = shown.lines().find(|line| line.starts_with(objective)).unwrap();
        assert!(row.ends_with("pass"), "{shown}");
    }
    // A machine too busy to send in time cannot blame the server.
    let verdict = between(&shown, "verdict: ", "\n");
    let expected = if verdict == "pass" { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(expected), "{shown}");
    assert!(between(&shown, "report: ", "\n").ends_with("report.html"));
}
