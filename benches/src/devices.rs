//! A closed-loop driver of validators on one thread: every device keeps so many frames in flight on
//! one stream.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use validator::link::frame::{FrameError, Header};
use validator::link::message::{Hello, Welcome};
use validator::link::wire::{self, FrameReader};

/// A connected device behind its hello.
pub struct Device {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    welcome: Vec<u8>,
}

/// What came of driving.
pub struct Driven {
    /// Answers a second.
    pub rate: f64,
    /// Latency in nanoseconds.
    pub latency: Histogram<u64>,
}

/// Appends the next frame with a correlation, or ends.
pub type NextFrame = Rc<dyn Fn(u32, &mut Vec<u8>) -> bool>;

/// Takes the message of an answer.
pub type TakeAnswer = Rc<dyn Fn(&[u8])>;

impl Device {
    /// Connects and exchanges the first frames.
    pub async fn connect(
        endpoint: &Endpoint,
        config: ClientConfig,
        (server, name): (SocketAddr, &str),
        terminal: u64,
    ) -> Device {
        let connecting = endpoint.connect_with(config, server, name).unwrap();
        let connection = connecting.await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let hello =
            Hello { version_min: 1, version_max: 1, terminal, registry_version: 0, clock_ms: 0 };
        let mut out = Vec::new();
        wire::push(&mut out, 0, 0, &hello);
        send.write_all(&out).await.unwrap();
        let mut welcome = None;
        let mut reader = FrameReader::default();
        while welcome.is_none() {
            let chunk = receive.read_chunk(usize::MAX, true).await.unwrap().unwrap();
            let mut take = |_: &Header, message: Option<&[u8]>| {
                welcome = message.map(<[u8]>::to_vec);
                Ok::<_, FrameError>(())
            };
            reader.read(&chunk.bytes, &mut take).unwrap();
        }
        Device { connection, send, receive, welcome: welcome.unwrap() }
    }

    /// What the server said first.
    pub fn with_welcome(self) -> (Device, Welcome) {
        let welcome = wire::decode(&self.welcome).unwrap();
        (self, welcome)
    }
}

/// Drives devices, each with `in_flight` frames, for `duration`; every answer goes to `take`.
pub async fn drive(
    devices: Vec<Device>,
    in_flight: u32,
    duration: Duration,
    next: &NextFrame,
    take: &TakeAnswer,
) -> Driven {
    let begun = Instant::now();
    // One for all: a histogram each would drive this process out of its caches.
    let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let talk = Rc::new(Talk {
        in_flight,
        until: begun + duration,
        next: next.clone(),
        take: take.clone(),
        latency: RefCell::new(latency),
    });
    let converse = |device| tokio::task::spawn_local(converse(device, talk.clone()));
    let tasks: Vec<_> = devices.into_iter().map(converse).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let latency = talk.latency.borrow().clone();
    Driven { rate: latency.len() as f64 / begun.elapsed().as_secs_f64(), latency }
}

/// What all devices do.
struct Talk {
    in_flight: u32,
    until: Instant,
    next: NextFrame,
    take: TakeAnswer,
    latency: RefCell<Histogram<u64>>,
}

async fn converse(device: Device, talk: Rc<Talk>) {
    let Device { connection, mut send, mut receive, .. } = device;
    let mut sent = vec![Instant::now(); usize::try_from(talk.in_flight).unwrap()];
    let mut out = Vec::new();
    let mut waiting = 0;
    for correlation in 0..talk.in_flight {
        waiting += u32::from((talk.next)(correlation, &mut out));
    }
    send.write_all(&out).await.unwrap();
    let mut reader = FrameReader::default();
    let mut pieces: [Bytes; 16] = Default::default();
    while waiting > 0 {
        let count = receive.read_chunks(&mut pieces).await.unwrap().unwrap();
        let now = Instant::now();
        let ends = now >= talk.until;
        out.clear();
        for piece in &pieces[..count] {
            let mut take = |header: &Header, message: Option<&[u8]>| {
                let Some(message) = message else { return Ok(()) };
                (talk.take)(message);
                let slot = &mut sent[usize::try_from(header.correlation).unwrap()];
                talk.latency.borrow_mut().saturating_record((now - *slot).as_nanos() as u64);
                *slot = now;
                if ends || !(talk.next)(header.correlation, &mut out) {
                    waiting -= 1;
                }
                Ok::<_, FrameError>(())
            };
            reader.read(piece, &mut take).unwrap();
        }
        if !out.is_empty() {
            send.write_all(&out).await.unwrap();
        }
    }
    drop(connection);
}
