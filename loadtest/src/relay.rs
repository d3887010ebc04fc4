//! A bad mobile link in front of a server: a relay of UDP packets in this process.
//!
//! Whoever sends to it has a flow: a socket of its own towards the server, so that the server sees as
//! many addresses as there are senders. Both directions of every flow go through one [`path::Path`].
//! Cuts lose everything of some flows for a while; after [`Relay::rebind`] the server sees every flow
//! come from another address, as after a change of the network's address translation.
//!
//! One thread, which owns all sockets. Packets, flows and the time until a command is followed are
//! bounded; what does not fit is lost and counted.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::clock::Monotonic;
use crate::numbers::mix;
use crate::poller::{Interest, Poller};
use crate::relay::path::{Counts, Path, Pipe, Traffic};
use crate::time::{Clock, Nanos};

pub mod path;

/// Senders at once.
pub const FLOWS_MAX: usize = 4_096;
/// A flow that was silent for so long makes room for another one.
const IDLE: Nanos = Nanos::from_seconds(120);
/// The longest packet.
const PACKET_BYTES: usize = 2_048;
/// Packets that are taken from one socket before others have their turn.
const TURN: usize = 64;
/// How late a command is followed at most.
const LOOK: Nanos = Nanos::from_millis(10);
/// The key of the socket in front; flows have theirs from 0.
const FRONT: u64 = u64::MAX;
/// Bytes that wait in each socket, where the system allows it.
const SOCKET_BYTES: usize = 4 << 20;

/// What a relay does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// To both directions.
    pub path: Path,
    /// When nothing passes.
    pub cuts: Vec<Cut>,
    /// When the server sees new addresses.
    pub rebinds: Vec<Nanos>,
    /// Everything random follows it.
    pub seed: u64,
}

/// Some flows lose everything for a while. Instants count from [`Relay::begin`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// From when on.
    pub from: Nanos,
    /// Until when.
    pub until: Nanos,
    /// Which share of the flows.
    pub share: f64,
}

/// A running relay; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    clock: Monotonic,
    /// Nanoseconds of `clock` from which the plan counts.
    begun: AtomicU64,
    /// How often new addresses were asked for.
    rebinds: AtomicU32,
    is_cut: AtomicBool,
    is_over: AtomicBool,
    /// A std lock: held for the length of a copy.
    counts: Mutex<Counts>,
}

impl Relay {
    /// Listens on a free port of this machine and passes on to a server.
    pub fn start(server: SocketAddr, plan: Plan) -> io::Result<Relay> {
        let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let front = socket(any)?;
        let address = front.local_addr()?;
        let clock = Monotonic::start();
        let shared = Arc::new(Shared {
            clock,
            begun: AtomicU64::new(u64::MAX),
            rebinds: AtomicU32::new(0),
            is_cut: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            counts: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let run = move || match Wire::new(server, front, plan, Arc::clone(&theirs)) {
            Ok(mut wire) => wire.run(),
            // Nothing passes, which the devices behind it see.
            Err(_no_poller) => theirs.is_over.store(true, Ordering::Relaxed),
        };
        let thread = thread::Builder::new().name("relay".to_owned()).spawn(run)?;
        Ok(Relay { address, shared, thread: Some(thread) })
    }

    /// From now on cuts and new addresses come as planned.
    pub fn begin(&self) {
        self.shared.begun.store(self.shared.clock.now().0, Ordering::Relaxed);
    }

    /// Lets the server see every flow come from another address.
    pub fn rebind(&self) {
        self.shared.rebinds.fetch_add(1, Ordering::Relaxed);
    }

    /// Cuts all flows, or ends that.
    pub fn set_cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Where devices send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What became of packets, as of some milliseconds ago.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has told so.
            let _panicked = thread.join();
        }
    }
}

/// A packet under way.
#[derive(Clone, Debug)]
struct Packet {
    flow: u64,
    is_upward: bool,
    bytes: Box<[u8]>,
}

/// A sender.
#[derive(Debug)]
struct Flow {
    sender: SocketAddr,
    /// Towards the server.
    back: UdpSocket,
    up: Pipe,
    down: Pipe,
    heard: Nanos,
    /// Where it stands among all flows, from 0 to 1: cuts take those below their share.
    rank: f64,
}

struct Wire {
    server: SocketAddr,
    front: UdpSocket,
    plan: Plan,
    shared: Arc<Shared>,
    poller: Poller,
    traffic: Traffic<Packet>,
    flows: HashMap<u64, Flow>,
    senders: HashMap<SocketAddr, u64>,
    flow_count: u64,
    rebinds_done: u32,
}

impl Wire {
    fn new(
        server: SocketAddr,
        front: UdpSocket,
        plan: Plan,
        shared: Arc<Shared>,
    ) -> io::Result<Wire> {
        let poller = Poller::new(shared.clock)?;
        poller.add(&front, FRONT, Interest::Read)?;
        Ok(Wire {
            server,
            front,
            traffic: Traffic::new(plan.path, plan.seed),
            plan,
            shared,
            poller,
            flows: HashMap::new(),
            senders: HashMap::new(),
            flow_count: 0,
            rebinds_done: 0,
        })
    }

    fn run(&mut self) {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            let now = self.shared.clock.now();
            let due = self.traffic.next_due().unwrap_or(Nanos::NEVER);
            if self.poller.wait((now + LOOK).min(due)).is_err() {
                return;
            }
            let now = self.shared.clock.now();
            self.follow_commands(now);
            self.take(now);
            self.pass_on(now);
            *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner) =
                self.traffic.counts();
        }
    }

    fn follow_commands(&mut self, now: Nanos) {
        let begun = Nanos(self.shared.begun.load(Ordering::Relaxed));
        let planned = self.plan.rebinds.iter().filter(|at| begun + **at <= now).count();
        let planned = u32::try_from(planned).unwrap_or(u32::MAX);
        let wanted = self.shared.rebinds.load(Ordering::Relaxed).saturating_add(planned);
        if wanted == self.rebinds_done {
            return;
        }
        self.rebinds_done = wanted;
        for (key, flow) in &mut self.flows {
            // Without a new socket the flow goes on with the old one.
            if let Ok(back) = back(self.server)
                && self.poller.add(&back, *key, Interest::Read).is_ok()
            {
                flow.back = back;
            }
        }
    }

    fn take(&mut self, now: Nanos) {
        let mut at = 0;
        while let Some(ready) = self.poller.ready(at) {
            if ready.key == FRONT {
                self.take_upward(now);
            } else {
                self.take_downward(ready.key, now);
            }
            at += 1;
        }
    }

    fn take_upward(&mut self, now: Nanos) {
        let mut buffer = [0; PACKET_BYTES];
        for _ in 0..TURN {
            let Ok((length, sender)) = self.front.recv_from(&mut buffer) else { return };
            let Some(key) = self.flow_of(sender, now) else {
                self.traffic.overflow();
                continue;
            };
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            flow.heard = now;
            if is_cut(&self.plan, &self.shared, flow.rank, now) {
                self.traffic.cut();
                continue;
            }
            let bytes = buffer.get(..length).unwrap_or_default().into();
            let packet = Packet { flow: key, is_upward: true, bytes };
            self.traffic.enter(&mut flow.up, packet, length, now);
        }
    }

    fn take_downward(&mut self, key: u64, now: Nanos) {
        let mut buffer = [0; PACKET_BYTES];
        let Some(flow) = self.flows.get_mut(&key) else { return };
        for _ in 0..TURN {
            // A server that is not there answers with an error, which is no packet.
            let Ok(length) = flow.back.recv(&mut buffer) else { return };
            if is_cut(&self.plan, &self.shared, flow.rank, now) {
                self.traffic.cut();
                continue;
            }
            let bytes = buffer.get(..length).unwrap_or_default().into();
            let packet = Packet { flow: key, is_upward: false, bytes };
            self.traffic.enter(&mut flow.down, packet, length, now);
        }
    }

    fn pass_on(&mut self, now: Nanos) {
        while let Some(packet) = self.traffic.leave(now) {
            let Some(flow) = self.flows.get(&packet.flow) else { continue };
            // A packet that a socket does not take is lost, like any other.
            let _lost = match packet.is_upward {
                true => flow.back.send(&packet.bytes),
                false => self.front.send_to(&packet.bytes, flow.sender),
            };
        }
    }

    /// The flow of a sender, a new one where there is room.
    fn flow_of(&mut self, sender: SocketAddr, now: Nanos) -> Option<u64> {
        if let Some(key) = self.senders.get(&sender) {
            return Some(*key);
        }
        if self.flows.len() >= FLOWS_MAX {
            self.flows.retain(|_, flow| flow.heard + IDLE > now);
            self.senders.retain(|_, key| self.flows.contains_key(key));
            if self.flows.len() >= FLOWS_MAX {
                return None;
            }
        }
        let key = self.flow_count;
        let back = back(self.server).ok()?;
        self.poller.add(&back, key, Interest::Read).ok()?;
        let (up, down) = (Pipe::default(), Pipe::default());
        let rank = (mix(self.plan.seed ^ mix(key + 1)) >> 11) as f64 / (1_u64 << 53) as f64;
        self.flows.insert(key, Flow { sender, back, up, down, heard: now, rank });
        self.senders.insert(sender, key);
        self.flow_count += 1;
        Some(key)
    }
}

fn is_cut(plan: &Plan, shared: &Shared, rank: f64, now: Nanos) -> bool {
    let begun = Nanos(shared.begun.load(Ordering::Relaxed));
    let covers = |cut: &Cut| begun + cut.from <= now && now < begun + cut.until && rank < cut.share;
    shared.is_cut.load(Ordering::Relaxed) || plan.cuts.iter().any(covers)
}

fn back(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let back = socket(any)?;
    back.connect(server)?;
    Ok(back)
}

fn socket(address: &str) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // The system grants what it allows.
    let _less = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that answers every packet with its sender's port and the packet.
    fn echo() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; PACKET_BYTES];
            while let Ok((length, sender)) = socket.recv_from(&mut buffer) {
                let mut answer = sender.port().to_le_bytes().to_vec();
                answer.extend_from_slice(&buffer[..length]);
                let _ = socket.send_to(&answer, sender);
            }
        });
        address
    }

    fn plan() -> Plan {
        Plan { path: Path::CLEAR, cuts: Vec::new(), rebinds: Vec::new(), seed: 1 }
    }

    struct Device(UdpSocket);

    impl Device {
        fn of(relay: &Relay) -> Device {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(relay.address()).unwrap();
            Device(socket)
        }

        /// The port that the server sees, if it answers within a time that suffices.
        fn ask(&self, text: &[u8], patience: Duration) -> Option<u16> {
            self.0.set_read_timeout(Some(patience)).unwrap();
            self.0.send(text).unwrap();
            let mut buffer = [0; PACKET_BYTES];
            loop {
                let length = self.0.recv(&mut buffer).ok()?;
                let (port, rest) = buffer[..length].split_first_chunk().unwrap();
                if rest == text {
                    return Some(u16::from_le_bytes(*port));
                }
            }
        }
    }

    const LONG: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn every_sender_has_an_address_of_its_own_until_it_is_rebound() {
        let relay = Relay::start(echo(), plan()).unwrap();
        let (one, two) = (Device::of(&relay), Device::of(&relay));
        let before = one.ask(b"a", LONG).unwrap();
        assert_ne!(two.ask(b"b", LONG).unwrap(), before);
        assert_eq!(one.ask(b"c", LONG), Some(before));
        relay.rebind();
        // The command is followed within some milliseconds.
        while one.ask(b"d", LONG) == Some(before) {}
        assert!(two.ask(b"e", LONG).is_some());
    }

    #[test]
    fn a_cut_loses_everything_until_it_ends() {
        let relay = Relay::start(echo(), plan()).unwrap();
        let device = Device::of(&relay);
        assert!(device.ask(b"a", LONG).is_some());
        relay.set_cut(true);
        while device.ask(b"b", SHORT).is_some() {}
        relay.set_cut(false);
        while device.ask(b"c", SHORT).is_none() {}
        // The counts are those of the turn before.
        while relay.counts().cut == 0 {}
    }

    #[test]
    fn cuts_come_as_planned_and_take_their_share() {
        let cut = Cut { from: Nanos(0), until: Nanos::NEVER, share: 0.5 };
        let relay = Relay::start(echo(), Plan { cuts: vec![cut], ..plan() }).unwrap();
        let devices: Vec<Device> = (0..32).map(|_| Device::of(&relay)).collect();
        assert!(devices.iter().all(|device| device.ask(b"a", LONG).is_some()));
        // All 64 packets, and nothing else.
        while relay.counts().passed < 64 {}
        let passed = relay.counts().passed;
        relay.begin();
        for device in &devices {
            device.0.send(b"b").unwrap();
        }
        // A packet that passes is followed by its answer; the counts are those of the turn before.
        let counts = loop {
            let counts = relay.counts();
            if counts.cut + (counts.passed.saturating_sub(passed)) / 2 >= 32 {
                break counts;
            }
        };
        assert!((4..=28).contains(&counts.cut), "{counts:?}");
    }

    #[test]
    fn packets_take_as_long_as_the_path() {
        let path = Path { delay: Nanos::from_millis(25), ..Path::CLEAR };
        let relay = Relay::start(echo(), Plan { path, ..plan() }).unwrap();
        let device = Device::of(&relay);
        let begun = std::time::Instant::now();
        assert!(device.ask(b"a", LONG).is_some());
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}
