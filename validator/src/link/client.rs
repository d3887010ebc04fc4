//! The device's side: a connection to the server, and what may be asked over it.
//!
//! Connecting again after a loss is the caller's: it knows how urgent it is. A connection that
//! follows another one resumes its session, and its first check may travel with the handshake.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint, RecvStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::link::close::CloseCode;
use crate::link::frame::{FrameError, Header};
use crate::link::identity::{Identity, IdentityError};
use crate::link::lane::{AskError, Lane, PLACES_DEFAULT};
use crate::link::message::{
    BlockPush, Check, CheckResult, Hello, Kind, RegistryOffer, RegistryPart, RegistryPull, Welcome,
};
use crate::link::request::Request;
use crate::link::wire::{self, FrameReader};

/// A socket and an identity: from here a device connects.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
}

/// Whom to connect to, and with which words.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Where the server is.
    pub server: SocketAddr,
    /// The name that its certificate must bear.
    pub server_name: &'a str,
    /// The first message.
    pub hello: &'a Hello,
    /// A check that travels with the handshake where an earlier session allows it, and right behind
    /// it otherwise.
    pub check: Option<&'a Check>,
    /// How long all of this may take.
    pub patience: Duration,
}

/// A link, and what came with its first answers.
#[derive(Debug)]
pub struct Connected {
    /// The link.
    pub link: Link,
    /// When the hello was sent.
    pub greeted_at: Instant,
    /// What the server pushes.
    pub pushes: Pushes,
    /// The answer to the check of the call.
    pub checked: Option<Result<CheckResult, AskError>>,
    /// Whether the check travelled with the handshake.
    pub early: bool,
}

impl Dialer {
    /// A socket of its own, bound to `local`; must be called inside a tokio runtime.
    pub fn bind(local: SocketAddr, identity: Identity) -> Result<Dialer, ConnectError> {
        let endpoint = Endpoint::client(local).map_err(|_| ConnectError::Socket)?;
        Dialer::over(endpoint, identity)
    }

    /// A socket of its own, for servers of either family where the machine has both.
    pub fn bind_any(identity: Identity) -> Result<Dialer, ConnectError> {
        let both = Endpoint::client(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
        let endpoint =
            both.or_else(|_| Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))));
        Dialer::over(endpoint.map_err(|_| ConnectError::Socket)?, identity)
    }

    /// A socket that many identities of one process share.
    pub fn over(endpoint: Endpoint, identity: Identity) -> Result<Dialer, ConnectError> {
        Ok(Dialer { endpoint, config: identity.client_config()? })
    }

    /// Goes on from another socket; open connections migrate.
    pub fn rebind(&self, local: SocketAddr) -> io::Result<()> {
        self.endpoint.rebind(UdpSocket::bind(local)?)
    }

    /// The socket, to be shared.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What quinn connects with, sessions included.
    pub fn config(&self) -> &quinn::ClientConfig {
        &self.config
    }

    /// Connects and says hello.
    pub async fn connect(&self, call: Call<'_>) -> Result<Connected, ConnectError> {
        let until = Instant::now() + call.patience;
        match timeout_at(until, self.try_connect(call)).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(ConnectError::TimedOut),
        }
    }

    /// The same with the first of several addresses of the server that brings a link; each has the
    /// patience of the call.
    pub async fn connect_any(
        &self,
        servers: &[SocketAddr],
        call: Call<'_>,
    ) -> Result<Connected, ConnectError> {
        let mut failed = ConnectError::Lost;
        for server in servers {
            match self.connect(Call { server: *server, ..call }).await {
                Err(error) => failed = error,
                connected => return connected,
            }
        }
        Err(failed)
    }

    async fn try_connect(&self, call: Call<'_>) -> Result<Connected, ConnectError> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), call.server, call.server_name)
            .map_err(|_| ConnectError::Socket)?;
        match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                let greeted = greet(&connection, call).await;
                // The first answers may be here before the handshake has ended.
                match greeted {
                    Ok(connected) => Ok(Connected { early: true, ..connected }),
                    Err(_) if !accepted.await => greet(&connection, call).await,
                    Err(error) => Err(error),
                }
            }
            Err(connecting) => {
                let connection = connecting.await.map_err(|error| ConnectError::of(&error))?;
                greet(&connection, call).await
            }
        }
    }
}

async fn greet(connection: &Connection, call: Call<'_>) -> Result<Connected, ConnectError> {
    let why = |error: AskError| match (error, connection.close_reason()) {
        (AskError::Closed, Some(reason)) => ConnectError::of(&reason),
        (error, _) => ConnectError::Hello(error),
    };
    let lane = Lane::open(connection, PLACES_DEFAULT).await.map_err(why)?;
    let greeted_at = Instant::now();
    let ask_check = async {
        match call.check {
            Some(check) => Some(lane.ask(check, call.patience).await),
            None => None,
        }
    };
    // In this order on the wire: both are written before either is awaited.
    let (welcome, checked) = tokio::join!(biased; lane.ask(call.hello, call.patience), ask_check);
    let welcome = welcome.map_err(why)?;
    let places = usize::try_from(welcome.in_flight_max).unwrap_or(PLACES_DEFAULT);
    let link = Link { connection: connection.clone(), welcome, lane, places };
    let pushes = Pushes::new(connection.clone());
    Ok(Connected { link, greeted_at, pushes, checked, early: false })
}

/// An open link. Dropping it closes the connection.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    welcome: Welcome,
    lane: Lane,
    places: usize,
}

impl Link {
    /// Asks on the first lane; at most [`PLACES_DEFAULT`] requests are under way there.
    pub async fn ask<R: Request>(
        &self,
        request: &R,
        patience: Duration,
    ) -> Result<R::Answer, AskError> {
        self.lane.ask(request, patience).await
    }

    /// The same as [`Lane::ask_beyond`] on the first lane.
    pub async fn ask_beyond<R: Request>(
        &self,
        request: &R,
        patience: Duration,
        late: Duration,
    ) -> Result<R::Answer, AskError> {
        self.lane.ask_beyond(request, patience, late).await
    }

    /// Another stream, so that large requests do not hold up the first one.
    pub async fn open_lane(&self) -> Result<Lane, AskError> {
        Lane::open(&self.connection, self.places).await
    }

    /// Asks for the holder registry on a stream of its own.
    pub async fn pull(
        &self,
        have: u64,
        patience: Duration,
    ) -> Result<(RegistryOffer, Parts), AskError> {
        let mut request = Vec::new();
        let deadline_ms = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX).max(1);
        wire::push(&mut request, 0, deadline_ms, &RegistryPull { have });
        let offered = async {
            let opened = self.connection.open_bi().await;
            let (mut send, receive) = opened.map_err(|_| AskError::Closed)?;
            send.write_all(&request).await.map_err(|_| AskError::Closed)?;
            let mut incoming = Incoming::new(receive);
            let (kind, bytes) = incoming.next().await?.ok_or(AskError::Closed)?;
            let offer: RegistryOffer = crate::link::lane::answer_of(kind, &bytes)?;
            Ok((offer, Parts { incoming, _send: send }))
        };
        timeout(patience, offered).await.unwrap_or(Err(AskError::TimedOut))
    }

    /// The server's first words.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The connection below.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits for the end of the connection and tells the server's reason, if it gave one.
    pub async fn closed(&self) -> Option<CloseCode> {
        CloseCode::of(&self.connection.closed().await)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Normal.into(), b"");
    }
}

/// The bytes behind a [`RegistryOffer`].
#[derive(Debug)]
pub struct Parts {
    incoming: Incoming,
    // Dropping it would reset the stream.
    _send: quinn::SendStream,
}

impl Parts {
    /// The next piece; the caller knows from the offer how many bytes there are.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, AskError> {
        let next = timeout(patience, self.incoming.next()).await;
        let Some((kind, bytes)) = next.map_err(|_| AskError::TimedOut)?? else { return Ok(None) };
        let part: RegistryPart = crate::link::lane::answer_of(kind, &bytes)?;
        Ok(Some(part.bytes.into_vec()))
    }
}

/// What the server pushes.
#[derive(Debug)]
pub struct Pushes {
    connection: Connection,
    incoming: Option<Incoming>,
}

impl Pushes {
    fn new(connection: Connection) -> Pushes {
        Pushes { connection, incoming: None }
    }

    /// The next block; nothing once the connection has ended. Pushes of unknown kinds are skipped.
    pub async fn next(&mut self) -> Option<BlockPush> {
        if self.incoming.is_none() {
            self.incoming = Some(Incoming::new(self.connection.accept_uni().await.ok()?));
        }
        let incoming = self.incoming.as_mut()?;
        loop {
            let (kind, bytes) = incoming.next().await.ok()??;
            if kind == Kind::BlockPush as u16
                && let Ok(block) = wire::decode(&bytes)
            {
                return Some(block);
            }
        }
    }
}

/// The frames of a stream, one after another.
#[derive(Debug)]
struct Incoming {
    stream: RecvStream,
    reader: FrameReader,
    frames: std::collections::VecDeque<(u16, Bytes)>,
}

impl Incoming {
    fn new(stream: RecvStream) -> Incoming {
        Incoming { stream, reader: FrameReader::default(), frames: Default::default() }
    }

    async fn next(&mut self) -> Result<Option<(u16, Bytes)>, AskError> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            let chunk = self.stream.read_chunk(usize::MAX, true).await;
            let Some(chunk) = chunk.map_err(|_| AskError::Closed)? else { return Ok(None) };
            let mut take = |header: &Header, message: Option<&[u8]>| {
                let frame = message.map(|message| (header.kind, Bytes::copy_from_slice(message)));
                self.frames.extend(frame);
                Ok::<_, FrameError>(())
            };
            self.reader.read(&chunk.bytes, &mut take).map_err(|_| AskError::Malformed)?;
        }
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server did not answer the hello.
    #[error("the hello was not answered")]
    Hello(#[source] AskError),
    /// Certificate or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server, or the path to it, is lost.
    #[error("the server cannot be reached")]
    Lost,
    /// The server closed the connection.
    #[error("the server refused: {0:?}")]
    Refused(Option<CloseCode>),
    /// No socket.
    #[error("there is no socket")]
    Socket,
    /// It took too long.
    #[error("no connection in time")]
    TimedOut,
}

impl ConnectError {
    fn of(error: &quinn::ConnectionError) -> ConnectError {
        match error {
            quinn::ConnectionError::ApplicationClosed(_) => {
                ConnectError::Refused(CloseCode::of(error))
            }
            // A refused certificate ends the handshake with a TLS alert.
            quinn::ConnectionError::ConnectionClosed(_)
            | quinn::ConnectionError::TransportError(_) => ConnectError::Refused(None),
            _ => ConnectError::Lost,
        }
    }
}
