//! An open-loop HTTP client on one thread: requests fall due at a fixed rate, whether or not the
//! answers to earlier ones are in.
//!
//! Latency counts from the moment a request was due, not from when it was sent, so a server that
//! stalls for a second is charged for everybody who would have come meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::client::exchange;

/// Connections that share the requests.
const CONNECTIONS: usize = 64;

/// What is sent, in order.
pub type Requests = Box<dyn FnMut() -> Option<Rc<Vec<u8>>>>;

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was due.
    pub due: Instant,
    /// From then to the end of its answer.
    pub latency: Duration,
}

/// Sends `requests` to `address`, `rate` a second, until they end or `watch`, which is polled
/// between requests, says that it is over. Every answer must be a 200.
pub fn pace(
    address: SocketAddr,
    rate: u32,
    requests: Requests,
    watch: impl FnMut() -> bool,
) -> Vec<Sample> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // The pacer is always ready to run; the sockets must be looked at all the same.
    let runtime = builder.enable_all().event_interval(4).build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let queue = Rc::new(Queue::default());
        let mut tasks = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            tasks.push(tokio::task::spawn_local(converse(stream, queue.clone())));
        }
        fill(&queue, rate, requests, watch).await;
        queue.over.set(true);
        queue.wake.notify_waiters();
        let mut samples = Vec::new();
        for task in tasks {
            samples.extend(task.await.unwrap());
        }
        samples.sort_unstable_by_key(|sample| sample.due);
        samples
    })
}

/// The latency in microseconds that this share of the samples does not exceed.
pub fn quantile_us(samples: &[Sample], share: f64) -> f64 {
    let mut sorted: Vec<Duration> = samples.iter().map(|sample| sample.latency).collect();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
}

#[derive(Default)]
struct Queue {
    due: RefCell<VecDeque<(Instant, Rc<Vec<u8>>)>>,
    wake: Notify,
    over: Cell<bool>,
}

async fn fill(queue: &Queue, rate: u32, mut requests: Requests, mut watch: impl FnMut() -> bool) {
    let gap = Duration::from_secs(1) / rate;
    let mut due = Instant::now();
    while let Some(request) = requests()
        && !watch()
    {
        due += gap;
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        queue.due.borrow_mut().push_back((due, request));
        queue.wake.notify_one();
    }
}

async fn converse(mut stream: TcpStream, queue: Rc<Queue>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut buffer = Vec::with_capacity(1 << 12);
    loop {
        let next = queue.due.borrow_mut().pop_front();
        let Some((due, request)) = next else {
            if queue.over.get() {
                return samples;
            }
            queue.wake.notified().await;
            continue;
        };
        let body_at = exchange(&mut stream, &request, &mut buffer).await;
        samples.push(Sample { due, latency: due.elapsed() });
        let text = || String::from_utf8_lossy(&buffer[body_at..]).into_owned();
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", text());
    }
}
