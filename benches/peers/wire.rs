//! One closed loop for every system: each connection sends its next request when the answer to the
//! last one is in. Only how an answer ends differs, so no system pays for a slower client.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A connection that is ready for requests.
pub enum Socket {
    Tcp(std::net::TcpStream),
    Unix(UnixStream),
}

/// Where the answer at the beginning of the bytes ends, if all of it is there.
pub type AnswerEnd = fn(&[u8]) -> Option<usize>;

/// What is sent.
pub struct Load {
    pub requests: Rc<[Vec<u8>]>,
    /// Begins anew when the requests end, instead of stopping.
    pub around: bool,
    pub duration: Duration,
}

/// What came of it.
pub struct Driven {
    /// Answers a second.
    pub rate: f64,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
    /// The share of its core that this client took.
    pub client_share: f64,
    bytes: Vec<u8>,
    /// Which request, and where its answer ends in `bytes`.
    ends: Vec<(usize, usize)>,
}

impl Driven {
    /// The number of each answered request and its answer.
    pub fn answers(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(request, end)| {
            let answer = &self.bytes[start..*end];
            start = *end;
            (*request, answer)
        })
    }

    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Drives a system on this thread.
pub fn drive(sockets: Vec<Socket>, load: &Load, answer_end: AnswerEnd) -> Driven {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let driven = Driven { rate: 0.0, latency, client_share: 0.0, bytes: vec![], ends: vec![] };
    let driven = Rc::new(RefCell::new(driven));
    let (requests, around, duration) = (load.requests.clone(), load.around, load.duration);
    local.block_on(&runtime, async {
        let streams: Vec<Box<dyn Stream>> = sockets.into_iter().map(Socket::into_stream).collect();
        let sent = Rc::new(Cell::new(0));
        let (begun, busy) = (Instant::now(), busy_nanos());
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                let (requests, sent, driven) = (requests.clone(), sent.clone(), driven.clone());
                tokio::task::spawn_local(async move {
                    let mut buffer = Vec::with_capacity(1 << 12);
                    while begun.elapsed() < duration && (around || sent.get() < requests.len()) {
                        let at = sent.replace(sent.get() + 1) % requests.len();
                        let from = Instant::now();
                        exchange(&mut *stream, &requests[at], &mut buffer, answer_end).await;
                        let nanos = u64::try_from(from.elapsed().as_nanos()).unwrap();
                        let driven = &mut *driven.borrow_mut();
                        driven.latency.saturating_record(nanos);
                        driven.bytes.extend_from_slice(&buffer);
                        driven.ends.push((at, driven.bytes.len()));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let (elapsed, mut driven) = (begun.elapsed(), driven.borrow_mut());
        driven.rate = driven.ends.len() as f64 / elapsed.as_secs_f64();
        driven.client_share = (busy_nanos() - busy) as f64 / elapsed.as_nanos() as f64;
    });
    drop(local);
    Rc::into_inner(driven).unwrap().into_inner()
}

/// Sends one request outside a measurement; returns the whole answer.
pub fn ask(mut stream: impl Read + Write, request: &[u8], answer_end: AnswerEnd) -> Vec<u8> {
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    while answer_end(&answer) != Some(answer.len()) {
        let mut piece = [0; 4_096];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the server hung up");
        answer.extend_from_slice(&piece[..read]);
    }
    answer
}

impl Socket {
    fn into_stream(self) -> Box<dyn Stream> {
        match self {
            Socket::Tcp(stream) => {
                stream.set_nodelay(true).unwrap();
                stream.set_nonblocking(true).unwrap();
                Box::new(tokio::net::TcpStream::from_std(stream).unwrap())
            }
            Socket::Unix(stream) => {
                stream.set_nonblocking(true).unwrap();
                Box::new(tokio::net::UnixStream::from_std(stream).unwrap())
            }
        }
    }
}

async fn exchange(
    stream: &mut dyn Stream,
    request: &[u8],
    buffer: &mut Vec<u8>,
    answer_end: AnswerEnd,
) {
    stream.write_all(request).await.unwrap();
    buffer.clear();
    while answer_end(buffer) != Some(buffer.len()) {
        assert!(stream.read_buf(buffer).await.unwrap() > 0, "the server hung up");
    }
}

/// Processor time of this thread.
fn busy_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
