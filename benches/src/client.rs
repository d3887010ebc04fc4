//! A closed-loop HTTP client on one thread: every connection sends its next request when the answer
//! to the last one is in.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Whom to drive, and how.
#[derive(Clone)]
pub struct Drive {
    /// The server.
    pub address: SocketAddr,
    /// TLS, if it speaks it.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Connections at the same time, each with one request under way.
    pub connections: usize,
    /// When to stop, if the requests do not end before.
    pub duration: Duration,
}

/// What came of it.
pub struct Driven {
    /// Answers a second.
    pub rate: f64,
    /// Latency in nanoseconds.
    pub latency: Histogram<u64>,
    /// Answers whose status was not 200.
    pub failures: u64,
    /// The last answer's body.
    pub sample: String,
}

/// Makes the next request of a connection, or ends it.
pub type NextRequest = Rc<dyn Fn() -> Option<Rc<Vec<u8>>>>;

/// Drives a server on this thread.
pub fn drive(plan: &Drive, next: &NextRequest) -> Driven {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut connections = Vec::new();
        for _ in 0..plan.connections {
            let stream = TcpStream::connect(plan.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            connections.push(stream);
        }
        let begun = Instant::now();
        let until = begun + plan.duration;
        let tasks: Vec<_> = connections
            .into_iter()
            .map(|stream| {
                let (next, tls) = (next.clone(), plan.tls.clone());
                tokio::task::spawn_local(async move {
                    match tls {
                        None => converse(stream, &next, until).await,
                        Some(config) => {
                            let name = "localhost".try_into().unwrap();
                            let connector = TlsConnector::from(config);
                            converse(connector.connect(name, stream).await.unwrap(), &next, until)
                                .await
                        }
                    }
                })
            })
            .collect();
        let mut all =
            Driven { rate: 0.0, latency: histogram(), failures: 0, sample: String::new() };
        for task in tasks {
            let one = task.await.unwrap();
            all.latency.add(&one.latency).unwrap();
            all.failures += one.failures;
            all.sample = one.sample;
        }
        all.rate = all.latency.len() as f64 / begun.elapsed().as_secs_f64();
        all
    })
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    next: &NextRequest,
    until: Instant,
) -> Driven {
    let mut driven = Driven { rate: 0.0, latency: histogram(), failures: 0, sample: String::new() };
    let mut buffer = Vec::with_capacity(1 << 16);
    while Instant::now() < until
        && let Some(request) = next()
    {
        let sent = Instant::now();
        let body_at = exchange(&mut stream, &request, &mut buffer).await;
        let nanos = u64::try_from(sent.elapsed().as_nanos()).unwrap();
        driven.latency.saturating_record(nanos);
        if !buffer.starts_with(b"HTTP/1.1 200") {
            driven.failures += 1;
        }
        if driven.latency.len() == 1 || !buffer.starts_with(b"HTTP/1.1 200") {
            driven.sample = String::from_utf8_lossy(&buffer[body_at..]).into_owned();
        }
    }
    driven
}

/// Sends a request and reads its answer into `buffer`; returns where the body begins.
pub async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> usize {
    stream.write_all(request).await.unwrap();
    buffer.clear();
    loop {
        assert!(stream.read_buf(buffer).await.unwrap() > 0, "the server hung up");
        if let Some((body_at, end)) = answer_bytes(buffer) {
            while buffer.len() < end {
                assert!(stream.read_buf(buffer).await.unwrap() > 0, "the server hung up");
            }
            return body_at;
        }
    }
}

/// Where the body begins and where it ends, once the head is in.
fn answer_bytes(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    Some((end, end + length.unwrap_or(0)))
}

/// One POST, as bytes.
pub fn post(path: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
}
