//! Who is connected: one connection a terminal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use dashmap::DashMap;
use engine::ids::TerminalId;
use quinn::Connection;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use validator::link::close::CloseCode;
use validator::link::message::BlockPush;

use crate::link::limits::{
    BATCH_BYTES_OF_FLEET_MAX, CATCH_UPS_MAX, JUDGED_AGAIN, PULLS_OF_FLEET_MAX,
    TRIP_BATCHES_OF_FLEET_MAX,
};
use crate::link::metrics::LinkMetrics;
use crate::link::push::{self, Push};
use crate::pki::Serial;
use crate::pki::trust::{Device, Trust};

/// Who is connected.
#[derive(Debug)]
pub struct Fleet {
    members: DashMap<TerminalId, Arc<Member>, foldhash::fast::FixedState>,
    /// Bytes of incomplete frames of all devices.
    pub bytes: AtomicUsize,
    /// Permits for the bytes of batches of trips.
    pub batch_bytes: Arc<Semaphore>,
    /// Permits for batches of trips.
    pub trip_batches: Semaphore,
    /// Permits for registries on their way.
    pub pulls: Semaphore,
    /// Permits for devices that are told what they have missed.
    pub catch_ups: Semaphore,
    metrics: Arc<LinkMetrics>,
}

/// A connected device.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub device: Device,
    /// Its connection.
    pub connection: Connection,
    /// The certificate that it showed.
    pub chain: Vec<CertificateDer<'static>>,
    /// What to push to it.
    pub pushes: Sender<Push>,
}

impl Fleet {
    /// Nobody is connected yet.
    pub fn new(metrics: Arc<LinkMetrics>) -> Fleet {
        Fleet {
            members: DashMap::default(),
            bytes: AtomicUsize::new(0),
            batch_bytes: Arc::new(Semaphore::new(BATCH_BYTES_OF_FLEET_MAX)),
            trip_batches: Semaphore::new(TRIP_BATCHES_OF_FLEET_MAX),
            pulls: Semaphore::new(PULLS_OF_FLEET_MAX),
            catch_ups: Semaphore::new(CATCH_UPS_MAX),
            metrics,
        }
    }

    /// Lets a device in; the connection that its terminal had before ends.
    pub fn enter(&self, member: Arc<Member>) {
        let before = self.members.insert(member.device.terminal, member);
        if let Some(before) = before {
            self.metrics.superseded();
            before.close(CloseCode::Superseded);
        }
    }

    /// Notes that a connection has ended.
    pub fn leave(&self, member: &Arc<Member>) {
        self.members.remove_if(&member.device.terminal, |_, known| Arc::ptr_eq(known, member));
    }

    /// Pushes blocks to every connected device; returns to how many. Never waits: who has not read
    /// the pushes before is disconnected.
    pub fn push(&self, blocks: &[BlockPush]) -> usize {
        let push = push::pieces(blocks);
        let mut count = 0;
        for member in &self.members {
            count += usize::from(member.push(Arc::clone(&push)));
        }
        self.metrics.pushed(u64::try_from(count).unwrap_or(u64::MAX));
        count
    }

    /// How many devices are connected.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The certificate that a connected terminal has shown.
    pub fn serial_of(&self, terminal: TerminalId) -> Option<Serial> {
        self.members.get(&terminal).map(|member| member.device.serial)
    }

    /// Disconnects devices whose certificate was revoked; returns whose.
    pub fn close_revoked(&self, trust: &Trust) -> Vec<TerminalId> {
        let revoked = self.members.iter().filter(|member| trust.is_revoked(member.device.serial));
        let closed = revoked.map(|member| {
            member.close(CloseCode::Refused);
            member.device.terminal
        });
        closed.collect()
    }

    /// Judges the certificates of some connected devices again and disconnects those whose time is
    /// over; `turn` holds who is next.
    pub fn judge_again(&self, trust: &Trust, turn: &mut VecDeque<TerminalId>) {
        if turn.is_empty() {
            turn.extend(self.members.iter().map(|member| *member.key()));
        }
        for _ in 0..JUDGED_AGAIN {
            let Some(terminal) = turn.pop_front() else { return };
            let member = self.members.get(&terminal).map(|member| Arc::clone(&member));
            let Some(member) = member else { continue };
            if trust.device(&member.chain, UnixTime::now()).is_err() {
                member.close(CloseCode::Refused);
            }
        }
    }
}

impl Member {
    /// Pushes blocks; false where the device has not read those before.
    pub fn push(&self, push: Push) -> bool {
        let pushed = self.pushes.try_send(push).is_ok();
        if !pushed {
            self.close(CloseCode::NotReading);
        }
        pushed
    }

    fn close(&self, code: CloseCode) {
        self.connection.close(code.into(), b"");
    }
}
