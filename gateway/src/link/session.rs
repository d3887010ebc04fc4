//! What a connection is allowed, and what it has used of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use engine::directory::ApiType;
use engine::ids::OrganizationId;
use engine::registry::Registry;
use futures_util::FutureExt;
use futures_util::future::Shared;
use quinn::{Connection, ZeroRttAccepted};
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use validator::link::close::CloseCode;

use crate::link::Link;
use crate::link::budget::MessageBudget;
use crate::link::limits::{DEVICE_BYTES_MAX, FLEET_BYTES_MAX, TRIP_BATCHES_MAX};
use crate::link::push::{self, Push};
use crate::pki::trust::Device;

const GREETED: u8 = 1;
const ENTERED: u8 = 2;

/// One connection of a known device, shared by the tasks of its streams.
pub struct Session {
    /// What every connection works with.
    pub link: Arc<Link>,
    /// Who speaks.
    pub device: Device,
    /// The connection.
    pub connection: Connection,
    /// How many messages it may still send.
    pub messages: MessageBudget,
    /// What to push to the device.
    pub pushes: Sender<Push>,
    /// Pieces of what the device has missed.
    pub missed: Sender<Bytes>,
    /// The permit for the one registry that may be on its way; more wait.
    pub pull: Semaphore,
    greeted: AtomicBool,
    /// Which of hello and entry have come.
    come: AtomicU8,
    registry_version: AtomicU64,
    proven: AtomicBool,
    handshake: Option<Handshake>,
    in_flight: AtomicU32,
    trip_batches: AtomicU32,
    bytes: AtomicUsize,
}

/// A handshake under way: ends with it, or with the connection.
pub type Handshake = Shared<ZeroRttAccepted>;

/// Whose terminal speaks, and what the organization is.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// The organization of the terminal.
    pub organization: OrganizationId,
    /// How it is connected over HTTP, which tells what a check means for it.
    pub api_type: Option<ApiType>,
}

impl Session {
    /// A session that has not said hello; `handshake` where it still goes on.
    pub fn new(
        link: Arc<Link>,
        device: Device,
        connection: Connection,
        (pushes, missed): (Sender<Push>, Sender<Bytes>),
        handshake: Option<Handshake>,
    ) -> Session {
        let budgets = link.budgets;
        Session {
            link,
            device,
            connection,
            messages: MessageBudget::new(budgets.messages_per_second, budgets.messages_burst),
            pushes,
            missed,
            pull: Semaphore::new(1),
            greeted: AtomicBool::new(false),
            come: AtomicU8::new(0),
            registry_version: AtomicU64::new(0),
            proven: AtomicBool::new(handshake.is_none()),
            handshake,
            in_flight: AtomicU32::new(0),
            trip_batches: AtomicU32::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Whether the device has said hello.
    pub fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Acquire)
    }

    /// Notes the hello, and the registry that the device has.
    pub fn greet(self: &Arc<Self>, registry_version: u64) {
        self.registry_version.store(registry_version, Ordering::Release);
        self.greeted.store(true, Ordering::Release);
        self.catch_up(GREETED);
    }

    /// Notes that the device hears from now on what all devices are told.
    pub fn enter(self: &Arc<Self>) {
        self.catch_up(ENTERED);
    }

    /// Tells the device what it has missed, once both hello and entry have come: of what is blocked
    /// later it hears with all others.
    fn catch_up(self: &Arc<Self>, come: u8) {
        let before = self.come.fetch_or(come, Ordering::AcqRel);
        if before != GREETED | ENTERED && before | come == GREETED | ENTERED {
            let version = self.registry_version.load(Ordering::Acquire);
            tokio::spawn(push::catch_up(Arc::clone(self), version));
        }
    }

    /// Whether the handshake is complete; until then everything may be a repetition.
    ///
    /// Asks the handshake itself: it has ended before anything behind it can be read, while the task
    /// that waits for its end may come later.
    pub fn is_proven(&self) -> bool {
        if self.proven.load(Ordering::Acquire) {
            return true;
        }
        let Some(handshake) = &self.handshake else { return true };
        let ended = handshake.clone().now_or_never().is_some();
        // A lost connection ends its handshake too, and may leave early data to be read.
        let proven = ended && self.connection.close_reason().is_none();
        if proven {
            self.proven.store(true, Ordering::Release);
        }
        proven
    }

    /// Waits until the handshake is complete or the connection lost.
    pub async fn handshake_ended(&self) {
        if let Some(handshake) = self.handshake.clone() {
            // What it tells means nothing on this side.
            let _meaningless = handshake.await;
        }
    }

    /// Whether requests wait for their answers.
    pub fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// Takes a place for a request that is answered later, if there is one.
    pub fn take_place(&self) -> bool {
        take(&self.in_flight, self.link.budgets.in_flight_max)
    }

    /// The same for a job, which may outlive the stream that waits for its answer.
    pub fn take_job_place(self: &Arc<Self>) -> Option<JobPlace> {
        self.take_place().then(|| JobPlace(Arc::clone(self)))
    }

    /// Gives places back.
    pub fn give_back(&self, places: u32) {
        self.in_flight.fetch_sub(places, Ordering::AcqRel);
    }

    /// Takes a place for a batch of trips of so many bytes, if there is one for it.
    pub fn take_trip_batch(self: &Arc<Self>, bytes: usize) -> Option<TripBatchPlace> {
        let bytes = u32::try_from(bytes).ok()?;
        if !take(&self.trip_batches, TRIP_BATCHES_MAX) {
            return None;
        }
        let mut place = TripBatchPlace { session: Arc::clone(self), bytes: None };
        let of_fleet = Arc::clone(&self.link.fleet.batch_bytes);
        place.bytes = Some(of_fleet.try_acquire_many_owned(bytes).ok()?);
        Some(place)
    }

    /// Notes that a stream keeps `after` bytes of an incomplete frame instead of `before`; false
    /// where that is too much.
    pub fn keep_bytes(&self, before: usize, after: usize) -> bool {
        let fleet = &self.link.fleet.bytes;
        if after <= before {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
            fleet.fetch_sub(before - after, Ordering::Relaxed);
            return true;
        }
        let more = after - before;
        let of_device = self.bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let of_fleet = fleet.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        of_device <= DEVICE_BYTES_MAX && of_fleet <= FLEET_BYTES_MAX
    }

    /// Whose terminal this is in `registry`; nothing where it may not be used.
    pub fn admission(&self, registry: &Registry) -> Option<Admission> {
        let directory = registry.directory();
        let terminal = directory.terminal(self.device.terminal).filter(|known| known.active)?;
        let organization = directory.organization(terminal.organization)?;
        organization.serves().then(|| Admission {
            organization: terminal.organization,
            api_type: organization.connection.api_type(),
        })
    }

    /// Ends the connection.
    pub fn close(&self, code: CloseCode) {
        self.connection.close(code.into(), b"");
    }
}

/// The place of a job, given back when it is dropped.
pub struct JobPlace(Arc<Session>);

impl Drop for JobPlace {
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

/// The place of a batch of trips in the memory of the server, given back when it is dropped.
pub struct TripBatchPlace {
    session: Arc<Session>,
    bytes: Option<OwnedSemaphorePermit>,
}

impl Drop for TripBatchPlace {
    fn drop(&mut self) {
        self.session.trip_batches.fetch_sub(1, Ordering::AcqRel);
    }
}

fn take(count: &AtomicU32, max: u32) -> bool {
    let one_more = |count: u32| (count < max).then_some(count + 1);
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
}
