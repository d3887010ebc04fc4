//! What all devices of a fleet have in common.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::fleet::figures::{LinkFigures, RegistryFigures};
use crate::fleet::holding::Holdings;

/// What all devices of a fleet have in common.
#[derive(Debug)]
pub struct Shared {
    /// How they behave.
    pub habits: Habits,
    /// Their registries.
    pub holdings: Holdings,
    times: watch::Sender<Times>,
    // Std locks: held for the length of an addition.
    links: Mutex<LinkFigures>,
    registries: Mutex<RegistryFigures>,
}

/// When the run began, and whether it is over.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    begun: Option<Instant>,
    is_over: bool,
}

/// How devices of a fleet behave.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Where they connect to.
    pub server: SocketAddr,
    /// The name on the server's certificate.
    pub server_name: String,
    /// Whether they hold a registry.
    pub holds_registry: bool,
    /// How often they look for trips to upload.
    pub upload_every: Duration,
    /// How many they send at once.
    pub upload_trips_max: usize,
    /// The share that they send twice.
    pub repeated: f64,
}

impl Shared {
    /// Before the run.
    pub fn new(habits: Habits) -> Shared {
        Shared {
            habits,
            holdings: Holdings::default(),
            times: watch::Sender::new(Times::default()),
            links: Mutex::default(),
            registries: Mutex::default(),
        }
    }

    /// The run begins.
    pub fn begin(&self) {
        self.times.send_modify(|times| times.begun = Some(Instant::now()));
    }

    /// All devices end.
    pub fn end(&self) {
        self.times.send_modify(|times| times.is_over = true);
    }

    /// Counts links.
    pub fn links(&self, count: impl FnOnce(&mut LinkFigures)) -> LinkFigures {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut links);
        *links
    }

    /// Counts registries.
    pub fn registries(&self, count: impl FnOnce(&mut RegistryFigures)) -> RegistryFigures {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut registries);
        *registries
    }

    /// When the run began, if it has.
    pub fn begun_at(&self) -> Option<Instant> {
        self.times.borrow().begun
    }

    /// Waits for the beginning of the run.
    pub async fn begun(&self) -> Instant {
        let mut times = self.times.subscribe();
        loop {
            if let Some(begun) = times.borrow_and_update().begun {
                return begun;
            }
            // This owns the sender, so it does not end.
            if times.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the devices end.
    pub fn is_over(&self) -> bool {
        self.times.borrow().is_over
    }

    /// Waits for the end.
    pub async fn over(&self) {
        let mut times = self.times.subscribe();
        while !times.borrow_and_update().is_over {
            if times.changed().await.is_err() {
                return;
            }
        }
    }
}
