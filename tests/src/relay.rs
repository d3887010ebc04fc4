//! A relay of datagrams between one device and the server, which can hold back what the device
//! sends once the server has answered, or all that the server sends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// A relay.
pub struct Relay {
    /// Where the device finds the server.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    front: Arc<UdpSocket>,
    back: Arc<UdpSocket>,
}

#[derive(Default)]
struct State {
    device: Option<SocketAddr>,
    holds: bool,
    answered: bool,
    sent: Vec<Vec<u8>>,
    held: Vec<Vec<u8>>,
    mute: bool,
    muted: Vec<Vec<u8>>,
}

impl Relay {
    /// Relays to `server`.
    pub fn to(server: SocketAddr) -> Relay {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        back.connect(server).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let relay = Relay {
            address: front.local_addr().unwrap(),
            state: Arc::clone(&state),
            front: Arc::clone(&front),
            back: Arc::clone(&back),
        };
        let (to_server, from_device) = (Arc::clone(&back), Arc::clone(&front));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, device)) = from_device.recv_from(&mut buffer) {
                let mut state = shared.lock().unwrap();
                state.device = Some(device);
                let datagram = buffer[..length].to_vec();
                if state.holds && state.answered && !is_early(&datagram) {
                    state.held.push(datagram);
                    // Before the handshake ends the server answers at most three times what came
                    // (RFC 9000 §8.1), and its probes count: the first packet comes once more.
                    let _lost = state.sent.first().map(|first| to_server.send(first));
                } else {
                    let _lost = to_server.send(&datagram);
                    if is_handshake(&datagram) {
                        state.sent.push(datagram);
                    }
                }
            }
        });
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(length) = back.recv(&mut buffer) {
                let mut state = state.lock().unwrap();
                state.answered |= is_handshake(&buffer[..length]);
                if state.mute {
                    state.muted.push(buffer[..length].to_vec());
                } else if let Some(device) = state.device {
                    let _lost = front.send_to(&buffer[..length], device);
                }
            }
        });
        relay
    }

    /// From now on, of the next connection, only what the device sends before the first answer goes
    /// through, and early data, which may overtake that answer.
    pub fn hold(&self) {
        let mut state = self.state.lock().unwrap();
        *state = State { device: state.device, holds: true, ..State::default() };
    }

    /// From now on the device hears nothing.
    pub fn mute(&self) {
        self.state.lock().unwrap().mute = true;
    }

    /// Lets the device hear what it missed, and everything that follows.
    pub fn unmute(&self) {
        let mut state = self.state.lock().unwrap();
        state.mute = false;
        for datagram in std::mem::take(&mut state.muted) {
            let _lost = self.front.send_to(&datagram, state.device.unwrap());
        }
    }

    /// Lets everything through again and returns what had gone through while it was held.
    pub fn release(&self) -> Vec<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        state.holds = false;
        for datagram in std::mem::take(&mut state.held) {
            let _lost = self.back.send(&datagram);
        }
        std::mem::take(&mut state.sent)
    }
}

/// Whether a datagram begins with a packet of the handshake or of early data (RFC 9000 §17.2).
fn is_handshake(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}

/// Whether a datagram begins with a packet of early data (RFC 9000 §17.2.3).
fn is_early(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xb0 == 0x90)
}
