//! One blocking HTTP/1.1 client for everything that is not load: tokens, probes, metrics, audits.
//!
//! Every exchange has a deadline for the whole of it, every answer a limit of bytes, and nothing
//! that a server sends can make it panic. Errors never carry what was sent.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::endpoint::Endpoint;
use crate::http::INTERIM_ANSWERS_MAX;

/// Bytes of a head, or of the trailers of a chunked body, that are read at most.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body that are read at most.
pub const BODY_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 16 << 10;

/// One keep-alive connection.
pub struct Client {
    stream: Stream,
    host: String,
    received: Vec<u8>,
    /// How much of `received` is used up.
    used: usize,
    timeout: Duration,
}

impl Client {
    /// A connection; `timeout` bounds the connecting and each exchange after it.
    pub fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Client, ClientError> {
        let until = Instant::now() + timeout;
        let tcp = TcpStream::connect_timeout(&endpoint.address(), timeout);
        let mut tcp = Timed { tcp: tcp.map_err(ClientError::Connect)?, until };
        tcp.tcp.set_nodelay(true).map_err(ClientError::Connect)?;
        let stream = match endpoint.tls() {
            None => Stream::Plain(tcp),
            Some((name, config)) => {
                let mut connection = ClientConnection::new(config, name)?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut tcp)?;
                }
                Stream::Tls(Box::new(StreamOwned::new(connection, tcp)))
            }
        };
        Ok(Client {
            stream,
            host: endpoint.host().to_string(),
            received: Vec::new(),
            used: 0,
            timeout,
        })
    }

    /// The same over a connection that was made otherwise.
    pub fn over(tcp: TcpStream, host: &str, timeout: Duration) -> Result<Client, ClientError> {
        tcp.set_nodelay(true).map_err(ClientError::Connect)?;
        let stream = Stream::Plain(Timed { tcp, until: Instant::now() + timeout });
        Ok(Client { stream, host: host.to_string(), received: Vec::new(), used: 0, timeout })
    }

    /// One GET with headers as given.
    pub fn get(&mut self, path: &str, headers: &[&str]) -> Result<Response, ClientError> {
        let head = self.head("GET", path, headers);
        self.exchange(format!("{head}\r\n").as_bytes())
    }

    /// One POST with headers as given.
    pub fn post(
        &mut self,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Result<Response, ClientError> {
        let head = self.head("POST", path, headers);
        let mut request = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        self.exchange(&request)
    }

    /// A call of the web service.
    pub fn call(&mut self, token: &str, path: &str, body: &str) -> Result<Response, ClientError> {
        let authorization = format!("Authorization: Bearer {token}");
        let headers = ["Content-Type: application/json", authorization.as_str()];
        self.post(path, &headers, body.as_bytes())
    }

    /// Asks for a token.
    pub fn token(
        &mut self,
        client_id: &str,
        secret: &str,
        scope: &str,
    ) -> Result<Token, ClientError> {
        let form = format!(
            "client_id={}&client_secret={}&grant_type=client_credentials&scope={}",
            escaped(client_id),
            escaped(secret),
            escaped(scope),
        );
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        let response = self.post("/connect/token", &headers, form.as_bytes())?;
        if response.status != 200 {
            return Err(ClientError::TokenRefused(response.status));
        }
        let token: TokenDocument = serde_json::from_slice(&response.body)
            .map_err(|_| ClientError::Malformed("the token's document"))?;
        // It becomes a header.
        if !token.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientError::Malformed("the token"));
        }
        Ok(Token {
            text: token.access_token,
            expires_in: Duration::from_secs(u64::from(token.expires_in)),
        })
    }

    /// Sends bytes as they are; starts the time of an exchange.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.timed().until = Instant::now() + self.timeout;
        self.stream.write_all(bytes)?;
        Ok(self.stream.flush()?)
    }

    /// Tells the server that nothing more will be sent.
    pub fn end_sending(&mut self) {
        // The server may have closed the connection before.
        let _ = self.stream.timed().tcp.shutdown(Shutdown::Write);
    }

    /// Reads one answer; interim ones are passed over.
    pub fn receive(&mut self) -> Result<Response, ClientError> {
        for _ in 0..=INTERIM_ANSWERS_MAX {
            let end = self.find(b"\r\n\r\n", HEAD_BYTES_MAX)?;
            let head = String::from_utf8(self.take(end)).map_err(|_| MALFORMED_HEAD)?;
            self.used += 4;
            let mut response = Response { status: status(&head)?, head, body: Vec::new() };
            if (100..200).contains(&response.status) {
                continue;
            }
            response.body = self.body(&response)?;
            return Ok(response);
        }
        Err(ClientError::TooLarge)
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Response, ClientError> {
        self.send(request)?;
        self.receive()
    }

    fn head(&self, method: &str, path: &str, headers: &[&str]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head
    }

    fn body(&mut self, response: &Response) -> Result<Vec<u8>, ClientError> {
        if matches!(response.status, 204 | 304) {
            return Ok(Vec::new());
        }
        if let Some(coding) = response.header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(ClientError::Malformed("the transfer coding"));
            }
            return self.chunks();
        }
        if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| ClientError::Malformed("the length"))?;
            if length > BODY_BYTES_MAX {
                return Err(ClientError::TooLarge);
            }
            self.fill(length)?;
            return Ok(self.take(length));
        }
        // RFC 9112 §6.3(8): the body ends with the connection.
        loop {
            match self.read_more() {
                Ok(()) if self.unused().len() > BODY_BYTES_MAX => {
                    return Err(ClientError::TooLarge);
                }
                Ok(()) => (),
                Err(ClientError::Closed) => return Ok(self.take(self.unused().len())),
                Err(error) => return Err(error),
            }
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, ClientError> {
        const MALFORMED_CHUNK: ClientError = ClientError::Malformed("a chunk");
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| MALFORMED_CHUNK)?;
            if size > BODY_BYTES_MAX - body.len() {
                return Err(ClientError::TooLarge);
            }
            if size == 0 {
                break;
            }
            self.fill(size)?;
            body.extend(self.take(size));
            if !self.line()?.is_empty() {
                return Err(MALFORMED_CHUNK);
            }
        }
        let mut trailer_bytes = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(body);
            }
            trailer_bytes += line.len();
            if trailer_bytes > HEAD_BYTES_MAX {
                return Err(ClientError::TooLarge);
            }
        }
    }

    fn line(&mut self) -> Result<String, ClientError> {
        let end = self.find(b"\r\n", HEAD_BYTES_MAX)?;
        let line = String::from_utf8(self.take(end)).map_err(|_| MALFORMED_HEAD)?;
        self.used += 2;
        Ok(line)
    }

    /// How many bytes there are before `mark`.
    fn find(&mut self, mark: &[u8], bytes_max: usize) -> Result<usize, ClientError> {
        let mut searched = 0;
        loop {
            let unused = self.unused().get(searched..).unwrap_or_default();
            if let Some(at) = unused.windows(mark.len()).position(|window| window == mark) {
                return Ok(searched + at);
            }
            searched = self.unused().len().saturating_sub(mark.len() - 1);
            if searched > bytes_max {
                return Err(ClientError::TooLarge);
            }
            self.read_more()?;
        }
    }

    fn fill(&mut self, count: usize) -> Result<(), ClientError> {
        while self.unused().len() < count {
            self.read_more()?;
        }
        Ok(())
    }

    fn unused(&self) -> &[u8] {
        self.received.get(self.used..).unwrap_or_default()
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.unused().get(..count).unwrap_or_default().to_vec();
        self.used += count;
        taken
    }

    fn read_more(&mut self) -> Result<(), ClientError> {
        if self.used >= READ_BYTES || self.used == self.received.len() {
            self.received.drain(..self.used.min(self.received.len()));
            self.used = 0;
        }
        let mut buffer = [0; READ_BYTES];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(count) => count,
            // A TLS server that does not say good-bye.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(ClientError::Closed);
            }
            Err(error) => return Err(error.into()),
        };
        self.received.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The head, as it came, without its last line break.
    pub head: String,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Whether the server keeps the connection open.
    pub fn keeps_alive(&self) -> bool {
        let closes = |value: &str| value.eq_ignore_ascii_case("close");
        let framed = matches!(self.status, 204 | 304)
            || self.header("content-length").is_some()
            || self.header("transfer-encoding").is_some();
        framed && !self.header("connection").is_some_and(closes)
    }
}

/// A bearer token; its text is never printed.
#[derive(Clone)]
pub struct Token {
    /// What goes behind `Bearer`.
    pub text: String,
    /// For how long it is good from when it was asked for.
    pub expires_in: Duration,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token(expires in {:?})", self.expires_in)
    }
}

#[derive(serde::Deserialize)]
struct TokenDocument {
    access_token: String,
    expires_in: u32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS without the file of an authority.
    #[error("`https` needs the file of the authority that signed the server's certificate")]
    Authority,
    /// The file of the authority holds no certificate.
    #[error("the authority's file holds no certificate that can be read")]
    AuthorityFile,
    /// The connection ended first.
    #[error("the server closed the connection")]
    Closed,
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// Not HTTP.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    /// The name of the server is unknown.
    #[error("the server's name is unknown: {0}")]
    Resolve(#[source] io::Error),
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
    /// TLS failed.
    #[error("TLS failed: {0}")]
    Tls(#[from] rustls::Error),
    /// No token was given out.
    #[error("the token was refused with status {0}")]
    TokenRefused(u16),
    /// Larger than the limits.
    #[error("the answer is too large")]
    TooLarge,
    /// Not a URL of the expected form.
    #[error("the server's URL must be `http://host:port` or `https://host:port`")]
    Url,
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Timeout,
            _ => ClientError::Io(error),
        }
    }
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Stream {
    fn timed(&mut self) -> &mut Timed {
        match self {
            Stream::Plain(timed) => timed,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(timed) => timed.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(timed) => timed.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(timed) => timed.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// A socket whose every wait ends at one instant, so that a server that trickles gains nothing.
struct Timed {
    tcp: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        self.tcp.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.left()?))?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The form of `application/x-www-form-urlencoded`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn status(head: &str) -> Result<u16, ClientError> {
    let mut words = head.split(' ');
    match (words.next(), words.next().and_then(|status| status.get(..3))) {
        (Some("HTTP/1.1" | "HTTP/1.0"), Some(status)) => status.parse().map_err(|_| MALFORMED_HEAD),
        _ => Err(MALFORMED_HEAD),
    }
}

const MALFORMED_HEAD: ClientError = ClientError::Malformed("the head");

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that sends `answer` whatever comes, then closes.
    fn served(answer: &'static [u8]) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(answer);
        });
        endpoint
    }

    fn get(answer: &'static [u8]) -> Result<Response, ClientError> {
        Client::connect(&served(answer), Duration::from_secs(30))?.get("/", &[])
    }

    fn check(answer: &'static [u8], expected: Option<(u16, &str)>) {
        let response = get(answer).ok();
        let seen = response.map(|response| (response.status, response.body));
        let expected = expected.map(|(status, body)| (status, body.as_bytes().to_vec()));
        assert_eq!(seen, expected, "{}", String::from_utf8_lossy(answer));
    }

    #[test]
    fn bodies_are_read_in_every_framing() {
        check(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nhi", Some((200, "hi")));
        check(b"HTTP/1.1 204 No Content\r\n\r\n", Some((204, "")));
        check(b"HTTP/1.0 500\r\n\r\nuntil the end", Some((500, "until the end")));
        check(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              2;x=y\r\nhi\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n",
            Some((200, "hi!")),
        );
        check(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Some((200, "")),
        );
    }

    #[test]
    fn interim_answers_come_to_an_end() {
        let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(17).leak();
        assert!(matches!(get(endless), Err(ClientError::TooLarge)));
    }

    #[test]
    fn what_is_not_an_answer_is_an_error() {
        check(b"", None);
        check(b"garbage\r\n\r\n", None);
        check(b"HTTP/1.1 2", None);
        check(b"HTTP/1.1 \xff\xff\r\n\r\n", None);
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None);
        check(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", None);
        check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", None);
        check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhix\r\n", None);
        check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", None);
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        assert!(matches!(get(huge), Err(ClientError::TooLarge)));
        let huge = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n";
        assert!(matches!(get(huge), Err(ClientError::TooLarge)));
        let endless: &'static [u8] = vec![b'a'; HEAD_BYTES_MAX + 2 * READ_BYTES].leak();
        assert!(matches!(get(endless), Err(ClientError::TooLarge)));
    }

    #[test]
    fn silence_ends_with_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap());
        let mut client = Client::connect(&endpoint, Duration::from_millis(50)).unwrap();
        assert!(matches!(client.get("/", &[]), Err(ClientError::Timeout)));
    }

    #[test]
    fn a_token_is_asked_for_by_a_form_and_never_printed() {
        assert_eq!(escaped("a b&c=ы"), "a+b%26c%3D%D1%8B");
        let endpoint = served(
            b"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n{\"access_token\":\"hidden\",\"expires_in\":3600}",
        );
        let mut client = Client::connect(&endpoint, Duration::from_secs(30)).unwrap();
        let token = client.token("111", "secret", "A B").unwrap();
        assert_eq!(token.text, "hidden");
        assert!(!format!("{token:?}").contains("hidden"));
    }
}
