//! The organizations' tokens: fetched before the run, renewed well before they expire and when the
//! server refuses them, by a thread of their own, one after the other. Transports look them up without
//! waiting. Nothing here is ever printed.

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
/// Between two tries for the same organization at least, however often the server refuses its token.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the thread waits where no token is ever due.
const REST: Duration = Duration::from_secs(3_600);
/// Refusals that wait for the thread; a token that is refused further on is told of again.
const REFUSALS_WAITING_MAX: usize = 64;
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
pub struct Tokens {
    table: Arc<ArcSwap<Table>>,
    /// The thread that renews them, if they are renewed.
    renewal: Option<SyncSender<News>>,
}

/// What the thread that renews tokens is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum News {
    /// The server does not take the token of this organization, by place.
    Refused(u16),
    /// There is nothing more to renew.
    Stop,
}

impl Tokens {
    /// The tokens of now.
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// The server answered 401 to an organization: its token is renewed, unless it was just now.
    pub fn refused(&self, organization: u16) {
        if let Some(renewal) = &self.renewal {
            // Where many wait, the next refusal tells of it again.
            let _ = renewal.try_send(News::Refused(organization));
        }
    }

    /// Gives an organization another token, from its next request on.
    #[cfg(test)]
    pub fn set(&self, organization: u16, token: &str) {
        let mut table = Table::clone(&self.table.load());
        let at = usize::from(organization);
        table.0.resize(table.0.len().max(at + 1), None);
        table.0[at] = Some(Arc::from(token));
        self.table.store(Arc::new(table));
    }

    /// None, and what is told of them.
    #[cfg(test)]
    pub fn told() -> (Tokens, mpsc::Receiver<News>) {
        let (renewal, told) = mpsc::sync_channel(REFUSALS_WAITING_MAX);
        (Tokens { renewal: Some(renewal), ..Tokens::default() }, told)
    }

    /// Tokens that never change, by organizations' places.
    pub fn of(tokens: impl IntoIterator<Item = Option<String>>) -> Tokens {
        let tokens = tokens.into_iter().map(|token| token.map(Arc::from));
        let table = Arc::new(ArcSwap::from_pointee(Table(tokens.collect())));
        Tokens { table, renewal: None }
    }
}

/// Renews tokens until it is dropped.
pub struct Renewal {
    news: SyncSender<News>,
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
        let (news, told) = mpsc::sync_channel(REFUSALS_WAITING_MAX);
        let table = Arc::new(ArcSwap::from_pointee(table));
        let tokens = Tokens { table: Arc::clone(&table), renewal: Some(news.clone()) };
        let work = move || {
            loop {
                let next = askers.iter().map(|asker| asker.due).min();
                let now = Instant::now();
                let wait = next.map_or(REST, |due| due.saturating_duration_since(now));
                match told.recv_timeout(wait) {
                    Ok(News::Refused(place)) => {
                        let mut askers = askers.iter_mut();
                        let asker = askers.find(|asker| asker.place == usize::from(place));
                        asker.into_iter().for_each(|asker| asker.refused(Instant::now()));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                }
                renew_due(&mut askers, &mut service, &table);
            }
        };
        let thread = thread::Builder::new().name("tokens".to_owned()).spawn(work)?;
        Ok((tokens, Renewal { news, thread: Some(thread) }))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        // It cannot have ended before, and there is nothing to be done if it has.
        let _ = self.news.send(News::Stop);
        if let Some(thread) = self.thread.take() {
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
    /// When it was last asked for one.
    tried: Instant,
    due: Instant,
}

impl Asker {
    /// Asks for a token. If there is none it keeps its old one and asks again after a pause: during a
    /// fault the server cannot answer.
    fn renew(&mut self, service: &mut impl TokenService, table: &mut Table) -> Result<(), String> {
        let granted = service.fetch(&self.client_id, &self.secret, self.scope);
        self.tried = Instant::now();
        self.due = self.tried + PAUSE;
        let grant = granted?;
        self.due = self.tried + (grant.expires_in * RENEW_AT_PERCENT / 100).max(PAUSE);
        if let Some(token) = table.0.get_mut(self.place) {
            *token = Some(Arc::from(grant.token));
        }
        Ok(())
    }

    /// The server does not take its token. Just after a try that may be said of the old one.
    fn refused(&mut self, now: Instant) {
        if now.saturating_duration_since(self.tried) >= PAUSE {
            self.due = self.due.min(now);
        }
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
        tried: Instant::now(),
        due: Instant::now(),
    });
    asker.collect()
}

/// Renews what is due.
fn renew_due(askers: &mut [Asker], service: &mut impl TokenService, tokens: &ArcSwap<Table>) {
    let now = Instant::now();
    for asker in askers.iter_mut().filter(|asker| asker.due <= now) {
        let mut table = Table::clone(&tokens.load());
        if asker.renew(service, &mut table).is_ok() {
            tokens.store(Arc::new(table));
        }
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

    /// Once a token that the server no longer took was kept until its planned renewal, and all that
    /// was asked with it failed.
    #[test]
    fn a_token_that_is_refused_is_renewed_at_once() {
        let (asked, calls) = mpsc::channel();
        let service = Service { asked, count: 0, life: Duration::from_secs(3_600) };
        let (tokens, renewal) = Renewal::start(&fixture(), service).unwrap();
        (0..4).for_each(|_| drop(calls.recv().unwrap()));
        let renewed = loop {
            // As long as requests go on, so do refusals.
            tokens.refused(1);
            if let Ok((client_id, _)) = calls.recv_timeout(Duration::from_millis(1)) {
                break client_id;
            }
        };
        // Of nobody that has a token.
        [3, 5, 9].into_iter().for_each(|place| tokens.refused(place));
        drop(renewal);
        assert_eq!((renewed.as_str(), calls.try_iter().count()), ("222", 0));
        assert_eq!(tokens.table().token(1), Some("222-5"));
        assert_eq!(tokens.table().token(0), Some("111-1"));
    }

    #[test]
    fn refusals_are_no_storm() {
        let now = Instant::now();
        let mut asker = askers(&fixture()).remove(0);
        let far = now + Duration::from_secs(3_600);
        (asker.tried, asker.due) = (now, far);
        asker.refused(now + PAUSE / 2);
        assert_eq!(asker.due, far);
        asker.refused(now + PAUSE);
        asker.refused(now + PAUSE * 2);
        assert_eq!(asker.due, now + PAUSE);
        assert!(asker.renew(&mut Down, &mut Table::default()).is_err());
        let pause = asker.due;
        assert_eq!(pause, asker.tried + PAUSE);
        asker.refused(pause - PAUSE / 2);
        assert_eq!(asker.due, pause);
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
