//! The organizations' tokens: fetched before the run, renewed well before they expire, by a thread of
//! their own. Transports look them up without waiting. Nothing here is ever printed.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::registry::Registry;

/// How long a call of the token service may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A token is renewed when so much of its life is over, in percent.
const RENEW_AT_PERCENT: u32 = 70;
/// How long the thread waits after a failure, or at least between two looks at its work.
const PAUSE: Duration = Duration::from_secs(1);
/// The scope of organizations that check (D0 A2).
pub const ACCEPTOR_SCOPE: &str = "ECS.WebAPI OrganizationAPI";
/// The scope of those that only ask for the history (D0 A9).
const HISTORY_SCOPE: &str = "ECS.WebAPI";

/// A token and how long it lives.
pub struct Grant {
    /// What goes behind `Bearer `.
    pub token: String,
    /// From now.
    pub expires_in: Duration,
}

/// Gives out tokens: the server's `/connect/token`, or a test. The error is a sentence that is
/// nobody's.
pub trait TokenService: Send + 'static {
    /// Asks for a token.
    fn fetch(&mut self, client_id: &str, secret: &str, scope: &str) -> Result<Grant, String>;
}

/// The token service of a server; connects anew for every call, because minutes lie between them.
pub struct TokenEndpoint(pub Endpoint);

impl TokenService for TokenEndpoint {
    fn fetch(&mut self, client_id: &str, secret: &str, scope: &str) -> Result<Grant, String> {
        let grant = Client::connect(&self.0, TIMEOUT)
            .and_then(|mut client| client.token(client_id, secret, scope))
            .map_err(|error| error.to_string())?;
        Ok(Grant { token: grant.text, expires_in: grant.expires_in })
    }
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The server gave none.
    #[error("organization {organization} gets no token: {reason}")]
    Refused {
        /// Its id.
        organization: u32,
        /// What the token service says.
        reason: String,
    },
    /// There is no thread for them.
    #[error("no thread to renew tokens: {0}")]
    Thread(#[from] std::io::Error),
}

/// The tokens of all organizations, by their places in the directory.
#[derive(Clone, Default)]
pub struct Table(Vec<Option<Arc<str>>>);

impl Table {
    /// What goes behind `Bearer `; none for an organization that has no token.
    pub fn token(&self, organization: u16) -> Option<&str> {
        self.0.get(usize::from(organization))?.as_deref()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Table({})", self.0.len())
    }
}

/// The tokens, shared by all transports of a process.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<ArcSwap<Table>>);

impl Tokens {
    /// The tokens of now.
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }

    /// Gives an organization another token, from its next request on.
    #[cfg(test)]
    pub fn set(&self, organization: u16, token: &str) {
        let mut table = Table::clone(&self.0.load());
        let at = usize::from(organization);
        table.0.resize(table.0.len().max(at + 1), None);
        table.0[at] = Some(Arc::from(token));
        self.0.store(Arc::new(table));
    }

    /// Tokens that never change, by organizations' places.
    pub fn of(tokens: impl IntoIterator<Item = Option<String>>) -> Tokens {
        let tokens = tokens.into_iter().map(|token| token.map(Arc::from));
        Tokens(Arc::new(ArcSwap::from_pointee(Table(tokens.collect()))))
    }
}

/// Renews tokens until it is dropped.
pub struct Renewal {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    /// Fetches a token for every organization that needs one, and keeps renewing them.
    pub fn start(
        registry: &Registry,
        mut service: impl TokenService,
    ) -> Result<(Tokens, Renewal), TokensError> {
        let mut askers = askers(registry);
        let mut table = Table(vec![None; registry.directory.organizations.len()]);
        for asker in &mut askers {
            asker.renew(&mut service, &mut table).map_err(|reason| TokensError::Refused {
                organization: asker.organization,
                reason,
            })?;
        }
        let tokens = Tokens(Arc::new(ArcSwap::from_pointee(table)));
        let shared = tokens.clone();
        let (stop, stopped) = mpsc::sync_channel(1);
        let work = move || {
            loop {
                let next = askers.iter().map(|asker| asker.due).min();
                let now = Instant::now();
                let pause = next.map_or(PAUSE, |due| due.saturating_duration_since(now)).max(PAUSE);
                match stopped.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => renew_due(&mut askers, &mut service, &shared),
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = thread::Builder::new().name("tokens".to_owned()).spawn(work)?;
        Ok((tokens, Renewal { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked, and there is nothing to be done if it has.
            let _ = thread.join();
        }
    }
}

/// An organization that needs a token.
struct Asker {
    place: usize,
    organization: u32,
    client_id: String,
    secret: String,
    scope: &'static str,
    due: Instant,
}

impl Asker {
    fn renew(&mut self, service: &mut impl TokenService, table: &mut Table) -> Result<(), String> {
        let grant = service.fetch(&self.client_id, &self.secret, self.scope)?;
        self.due = Instant::now() + grant.expires_in * RENEW_AT_PERCENT / 100;
        if let Some(token) = table.0.get_mut(self.place) {
            *token = Some(Arc::from(grant.token));
        }
        Ok(())
    }
}

/// All organizations to which the server gives tokens and that have something to ask.
fn askers(registry: &Registry) -> Vec<Asker> {
    let organizations = registry.directory.organizations.iter().enumerate();
    let known = organizations.filter(|(_, organization)| {
        organization.is_known && (organization.connection.is_some() || organization.history)
    });
    let asker = known.map(|(place, organization)| Asker {
        place,
        organization: organization.id,
        client_id: organization.client_id.clone(),
        secret: organization.secret.0.clone(),
        scope: match organization.connection {
            Some(_) => ACCEPTOR_SCOPE,
            None => HISTORY_SCOPE,
        },
        due: Instant::now(),
    });
    asker.collect()
}

/// Renews what is due. One that fails keeps its old token and is tried again after a pause: during a
/// fault the server cannot answer.
fn renew_due(askers: &mut [Asker], service: &mut impl TokenService, tokens: &Tokens) {
    let mut table = Table::clone(&tokens.0.load());
    let mut is_changed = false;
    for asker in askers.iter_mut().filter(|asker| asker.due <= Instant::now()) {
        match asker.renew(service, &mut table) {
            Ok(()) => is_changed = true,
            Err(_) => asker.due = Instant::now() + PAUSE,
        }
    }
    if is_changed {
        tokens.0.store(Arc::new(table));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn fixture() -> Registry {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(include_bytes!("../../tests/data/fixture.ndjson")).unwrap();
        Registry::load(file.path(), 10, 1).unwrap()
    }

    struct Service {
        asked: mpsc::Sender<(String, String)>,
        count: u32,
        life: Duration,
    }

    impl TokenService for Service {
        fn fetch(&mut self, client_id: &str, secret: &str, scope: &str) -> Result<Grant, String> {
            if secret == "s222" && self.count > 100 {
                return Err("down".to_owned());
            }
            self.count += 1;
            let _ = self.asked.send((client_id.to_owned(), scope.to_owned()));
            let token = format!("{client_id}-{}", self.count);
            Ok(Grant { token, expires_in: self.life })
        }
    }

    #[test]
    fn everyone_who_asks_has_a_token() {
        let (asked, calls) = mpsc::channel();
        let service = Service { asked, count: 0, life: Duration::from_secs(3_600) };
        let (tokens, renewal) = Renewal::start(&fixture(), service).unwrap();
        drop(renewal);
        let calls: Vec<(String, String)> = calls.try_iter().collect();
        let both = ACCEPTOR_SCOPE;
        let expected = [("111", both), ("222", both), ("333", both), ("900", HISTORY_SCOPE)];
        assert_eq!(calls, expected.map(|(id, scope)| (id.to_owned(), scope.to_owned())));
        let table = tokens.table();
        assert_eq!(table.token(0), Some("111-1"));
        assert_eq!(table.token(3), None);
        assert_eq!(table.token(4), Some("900-4"));
        assert_eq!(table.token(5), None);
        assert!(!format!("{tokens:?}").contains("111-1"));
    }

    #[test]
    fn tokens_are_renewed_while_they_live() {
        let (asked, calls) = mpsc::channel();
        let service = Service { asked, count: 0, life: Duration::from_millis(1) };
        let (tokens, renewal) = Renewal::start(&fixture(), service).unwrap();
        // Four at the start, then all of them again once they are due.
        (0..8).for_each(|_| drop(calls.recv().unwrap()));
        drop(renewal);
        assert!(tokens.table().token(0).is_some_and(|token| token != "111-1"));
    }

    struct Down;

    impl TokenService for Down {
        fn fetch(&mut self, _: &str, _: &str, _: &str) -> Result<Grant, String> {
            Err("nobody listens".to_owned())
        }
    }

    #[test]
    fn a_run_without_tokens_does_not_begin() {
        let error = Renewal::start(&fixture(), Down).err().unwrap();
        assert_eq!(error.to_string(), "organization 1 gets no token: nobody listens");
    }
}
