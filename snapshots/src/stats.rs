//! What the journal counts for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the journal was opened, and the last append.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct JournalStats {
    /// Appends that became durable.
    pub appends: u64,
    /// Appends that did not.
    pub failed_appends: u64,
    /// Records of the durable appends.
    pub records: u64,
    /// Bytes written for them, headers and padding included.
    pub bytes: u64,
    /// Nanoseconds spent in syncs.
    pub sync_ns: u64,
    /// Records of the last append.
    pub last_records: u64,
    /// Bytes of the last append.
    pub last_bytes: u64,
    /// Nanoseconds of the last sync.
    pub last_sync_ns: u64,
}

/// One durable append.
#[derive(Clone, Copy, Debug)]
pub struct Append {
    /// Its records.
    pub records: u32,
    /// Its bytes.
    pub bytes: usize,
    /// The time of its sync.
    pub sync: Duration,
}

/// Gathers [`JournalStats`]. A reader may see an append half counted.
#[derive(Debug, Default)]
pub struct JournalMeter {
    appends: AtomicU64,
    failed_appends: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    sync_ns: AtomicU64,
    last_records: AtomicU64,
    last_bytes: AtomicU64,
    last_sync_ns: AtomicU64,
}

impl JournalMeter {
    /// Counts an append that became durable.
    pub fn count(&self, append: Append) {
        let sync_ns = u64::try_from(append.sync.as_nanos()).unwrap_or(u64::MAX);
        let (records, bytes) = (u64::from(append.records), append.bytes as u64);
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sync_ns.fetch_add(sync_ns, Ordering::Relaxed);
        self.last_records.store(records, Ordering::Relaxed);
        self.last_bytes.store(bytes, Ordering::Relaxed);
        self.last_sync_ns.store(sync_ns, Ordering::Relaxed);
    }

    /// Counts an append whose end is unknown.
    pub fn count_failure(&self) {
        self.failed_appends.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn stats(&self) -> JournalStats {
        JournalStats {
            appends: self.appends.load(Ordering::Relaxed),
            failed_appends: self.failed_appends.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            sync_ns: self.sync_ns.load(Ordering::Relaxed),
            last_records: self.last_records.load(Ordering::Relaxed),
            last_bytes: self.last_bytes.load(Ordering::Relaxed),
            last_sync_ns: self.last_sync_ns.load(Ordering::Relaxed),
        }
    }
}
