//! A caller beside the load: a thread with a connection of its own that sends one check every few
//! seconds, whatever the load does.
//!
//! What it sees is added up as it comes ([`Lookout`]), however long it looks. A probe that takes longer
//! than its interval delays the next one, which then follows at once: a wait is bad on its own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::client::{Client, ClientError, Response, Token};
use crate::downtime::{Lookout, Probed};
use crate::endpoint::Endpoint;

/// Between two probes (C-42).
pub const INTERVAL: Duration = Duration::from_secs(5);
/// After this a probe is given up: later than the 3 s at which it is bad, sooner than the next one.
pub const TIMEOUT: Duration = Duration::from_secs(4);
const RESULT_UNAVAILABLE: u64 = 6;

/// A running probe.
pub struct Probe {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
    seen: Seen,
}

/// What was seen so far; a lock, because it is looked at while the probe goes on, once in a while.
type Seen = Arc<Mutex<Lookout>>;

impl Probe {
    /// Starts it; `is_served` makes one check and says whether it was answered as it must be.
    /// `begun` is the start of the run.
    pub fn start<F>(begun: Instant, interval: Duration, is_served: F) -> io::Result<Probe>
    where
        F: FnMut() -> bool + Send + 'static,
    {
        let (stop, stopped) = sync_channel(1);
        let seen = Seen::default();
        let shared = Arc::clone(&seen);
        let look = move || look(begun, interval, is_served, (&stopped, &shared));
        let thread = thread::Builder::new().name("probe".into()).spawn(look)?;
        Ok(Probe { stop, thread, seen })
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Lookout {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops it; returns what it saw. Waits for the last probe at most.
    pub fn stop(self) -> Lookout {
        drop(self.stop);
        // What it saw before it panicked it saw.
        let _ = self.thread.join();
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn look(
    begun: Instant,
    interval: Duration,
    mut is_served: impl FnMut() -> bool,
    (stopped, seen): (&Receiver<()>, &Seen),
) {
    let mut due = Instant::now();
    loop {
        let from = Instant::now();
        let is_good = is_served();
        let took = from.elapsed();
        seen.lock().unwrap_or_else(PoisonError::into_inner).saw(Probed {
            at_seconds: from.saturating_duration_since(begun).as_secs_f64(),
            took_seconds: is_good.then_some(took.as_secs_f64()),
        });
        due = (due + interval).max(from + took);
        match stopped.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => (),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Makes one check over HTTP: with a token that it renews and a connection that it reopens.
pub struct HttpCheck {
    endpoint: Endpoint,
    credentials: Credentials,
    body: String,
    client: Option<Client>,
    token: Option<(Token, Instant)>,
}

/// How an organization gets its token.
#[derive(Clone)]
pub struct Credentials {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`.
    pub secret: String,
    /// `scope`.
    pub scope: String,
}

impl HttpCheck {
    /// `body` is that of a check.
    pub fn new(endpoint: Endpoint, credentials: Credentials, body: String) -> HttpCheck {
        HttpCheck { endpoint, credentials, body, client: None, token: None }
    }

    /// Makes it; says whether it was answered otherwise than that the server cannot.
    pub fn is_served(&mut self) -> bool {
        let was_open = self.client.is_some();
        match self.answer() {
            // An idle connection that the server closed is no error of the server.
            Err(ClientError::Closed | ClientError::Io(_)) if was_open => {
                self.answer().is_ok_and(|response| self.is_good(&response))
            }
            Ok(response) => self.is_good(&response),
            Err(_) => false,
        }
    }

    fn answer(&mut self) -> Result<Response, ClientError> {
        let result = self.exchange();
        if !result.as_ref().is_ok_and(Response::keeps_alive) {
            self.client = None;
        }
        result
    }

    fn exchange(&mut self) -> Result<Response, ClientError> {
        let client = match &mut self.client {
            Some(client) => client,
            closed => closed.insert(Client::connect(&self.endpoint, TIMEOUT)?),
        };
        let (token, _) = match &mut self.token {
            Some(token) if Instant::now() < token.1 => token,
            stale => {
                let Credentials { client_id, secret, scope } = &self.credentials;
                let token = client.token(client_id, secret, scope)?;
                // Well before it expires.
                let renewed = Instant::now() + token.expires_in.mul_f64(0.8);
                stale.insert((token, renewed))
            }
        };
        client.call(&token.text, "/api/CheckClientBenefits", &self.body)
    }

    fn is_good(&mut self, response: &Response) -> bool {
        if response.status == 401 {
            // The key was rotated: the next probe asks for another token.
            self.token = None;
        }
        let document = serde_json::from_slice::<serde_json::Value>(&response.body).ok();
        let code = document.as_ref().and_then(|document| document.get("resultCode")?.as_u64());
        response.status == 200 && code.is_some_and(|code| code != RESULT_UNAVAILABLE)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::downtime::Availability;

    /// Probes without a pause that are answered so, then good ones until all was seen.
    fn seen_of(answers: impl Iterator<Item = bool> + Send + 'static) -> Availability {
        let (sender, receiver) = sync_channel(0);
        let mut answers = answers;
        let probe = Probe::start(Instant::now(), Duration::ZERO, move || {
            let answer = answers.next();
            // The last one is reported, then every other is held up until the test has seen it.
            if answer.is_none() {
                let _ = sender.send(());
            }
            answer.unwrap_or(true)
        });
        let probe = probe.unwrap();
        receiver.recv().unwrap();
        drop(receiver);
        Availability::of(&probe.stop(), f64::MAX, &[])
    }

    #[test]
    fn what_it_saw_is_there_when_it_is_stopped() {
        let seen = seen_of([true, false, false, true, false].into_iter());
        assert_eq!((seen.failed, seen.outages.len()), (3, 1));
        assert!(seen.probes >= 5 && seen.outages[0].downtime_seconds() > 0.0, "{seen:?}");
    }

    /// Once only the first 2^20 results were kept, so an outage after them was none, while the time
    /// in which the server was watched went on.
    #[test]
    fn an_outage_is_seen_however_late_it_comes() {
        let good = std::iter::repeat_n(true, 1 << 20);
        let seen = seen_of(good.chain([false, false]));
        assert!(seen.probes > 1 << 20 && !seen.is_cut, "{}", seen.probes);
        assert_eq!((seen.failed, seen.outages.len()), (2, 1));
    }

    /// A server that gives one answer to each connection, then closes it.
    fn served(answers: &'static [&'static str]) -> HttpCheck {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap());
        thread::spawn(move || {
            for body in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        let credentials =
            Credentials { client_id: "1".into(), secret: "s".into(), scope: "x".into() };
        HttpCheck::new(endpoint, credentials, "{}".into())
    }

    #[test]
    fn a_check_reopens_its_connection_and_is_judged() {
        let mut check = served(&[
            r#"{"access_token":"t","expires_in":3600}"#,
            r#"{"resultCode":1}"#,
            r#"{"resultCode":6}"#,
            "x",
        ]);
        // The token was given, the connection was closed behind it.
        assert!(!check.is_served());
        assert!(check.is_served());
        assert!(!check.is_served());
        assert!(!check.is_served());
    }
}
