//! The life of one connection: handshake, certificate, streams, pushes, end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, Incoming, ZeroRttAccepted};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use validator::link::close::CloseCode;

use crate::link::Link;
use crate::link::fleet::Member;
use crate::link::limits::{HANDSHAKE_TIMEOUT, PUSHES_WAITING_MAX};
use crate::link::metrics::Refused;
use crate::link::push;
use crate::link::session::Session;
use crate::link::stream;
use crate::pki::trust::Distrust;

/// How often a connection that is to end looks whether everything is answered.
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// How long the last answers have to reach the device.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// The first TLS alert among the errors of QUIC.
const TLS_ALERTS: u64 = 0x100;

/// Until when answers may be given once the server stops; nothing while it runs.
pub type Stopping = watch::Receiver<Option<Instant>>;

/// Serves a connection to its end; `permit` is that of the handshake.
pub async fn serve(
    link: Arc<Link>,
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
    stopping: Stopping,
) {
    match Guest::receive(&link, incoming).await {
        Ok(guest) => guest.run(permit, stopping).await,
        Err(why) => link.metrics.refused(why),
    }
}

/// A device whose certificate was accepted.
struct Guest {
    session: Arc<Session>,
    chain: Vec<CertificateDer<'static>>,
}

impl Guest {
    /// Judges who is there. The certificate of a resumed session is known before the handshake is
    /// complete.
    async fn receive(link: &Arc<Link>, incoming: Incoming) -> Result<Guest, Refused> {
        let connecting = incoming.accept().map_err(|_| Refused::Unfinished)?;
        // On this side there is a connection before the handshake is complete.
        let (connection, complete) = connecting.into_0rtt().map_err(|_| Refused::Unfinished)?;
        let (chain, handshake) = match certificates(&connection) {
            Some(chain) => (chain, Some(complete.shared())),
            None => (shake_hands(&connection, complete).await?, None),
        };
        let refused = |why: Refused| {
            connection.close(CloseCode::Refused.into(), b"");
            why
        };
        let device =
            link.trust.device(&chain, UnixTime::now()).map_err(|why| refused(why.into()))?;
        let (pushes, queue) = mpsc::channel(PUSHES_WAITING_MAX);
        let (missed, pieces) = mpsc::channel(1);
        let resumed = handshake.is_some();
        let (link, pushing) = (Arc::clone(link), (pushes, missed));
        let session = Session::new(link, device, connection.clone(), pushing, handshake);
        let link = &session.link;
        if session.admission(&link.gateway.engine.registry()).is_none() {
            return Err(refused(Refused::Inactive));
        }
        link.metrics.let_in(resumed);
        tokio::spawn(push::serve(connection.clone(), queue, pieces));
        Ok(Guest { session: Arc::new(session), chain })
    }

    /// Serves the device until it or the server ends the connection.
    async fn run(mut self, permit: OwnedSemaphorePermit, mut stopping: Stopping) {
        let session = Arc::clone(&self.session);
        let mut permit = Some(permit);
        let mut member = None;
        let mut handshake = std::pin::pin!(session.handshake_ended());
        let mut silence = std::pin::pin!(sleep(HANDSHAKE_TIMEOUT));
        let mut is_new = true;
        loop {
            tokio::select! {
                stream = session.connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        tokio::spawn(stream::serve(Arc::clone(&session), send, receive));
                    }
                    Err(_ended) => break,
                },
                () = &mut handshake, if permit.is_some() => {
                    permit = None;
                    if !session.is_proven() {
                        break;
                    }
                    member = Some(self.enter());
                }
                () = &mut silence, if is_new => {
                    is_new = false;
                    // Asked now: a hello wakes nobody here.
                    if permit.is_some() || !session.is_greeted() {
                        session.close(CloseCode::HelloMissing);
                    }
                }
                Ok(()) = stopping.changed() => {
                    let until = *stopping.borrow_and_update();
                    drain(&session, until).await;
                }
            }
        }
        if let Some(member) = member {
            session.link.fleet.leave(&member);
        }
    }

    fn enter(&mut self) -> Arc<Member> {
        let member = Arc::new(Member {
            device: self.session.device,
            connection: self.session.connection.clone(),
            chain: std::mem::take(&mut self.chain),
            pushes: self.session.pushes.clone(),
        });
        self.session.link.fleet.enter(Arc::clone(&member));
        self.session.enter();
        member
    }
}

impl From<Distrust> for Refused {
    fn from(distrust: Distrust) -> Refused {
        match distrust {
            Distrust::Expired => Refused::Expired,
            Distrust::Revoked => Refused::Revoked,
            Distrust::Unknown => Refused::Unknown,
        }
    }
}

/// Waits for the end of a full handshake.
async fn shake_hands(
    connection: &Connection,
    complete: ZeroRttAccepted,
) -> Result<Vec<CertificateDer<'static>>, Refused> {
    let ended = timeout(HANDSHAKE_TIMEOUT, complete).await;
    match connection.close_reason() {
        Some(reason) => Err(why_refused(&reason)),
        None if ended.is_err() => {
            connection.close(CloseCode::HelloMissing.into(), b"");
            Err(Refused::Unfinished)
        }
        None => certificates(connection).ok_or(Refused::Unknown),
    }
}

fn certificates(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}

/// The cause in the alert that our side has sent.
fn why_refused(reason: &ConnectionError) -> Refused {
    let ConnectionError::TransportError(error) = reason else { return Refused::Unfinished };
    match u64::from(error.code).checked_sub(TLS_ALERTS) {
        Some(44) => Refused::Revoked,
        Some(45) => Refused::Expired,
        Some(42 | 43 | 46 | 48 | 51 | 116) => Refused::Unknown,
        _ => Refused::Unfinished,
    }
}

/// Lets the device have the answers that it waits for, then ends the connection.
async fn drain(session: &Session, until: Option<Instant>) {
    let until = until.unwrap_or_else(Instant::now);
    while session.is_busy() && Instant::now() < until {
        sleep(DRAIN_STEP).await;
    }
    sleep((2 * session.connection.rtt()).min(LAST_ANSWERS)).await;
    session.close(CloseCode::Draining);
}
