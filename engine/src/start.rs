//! What an engine is started with, and why it did not start.

use std::sync::Arc;

use crate::calendar::Clock;
use crate::history::History;
use crate::ids::PartitionId;
use crate::journal::{Journal, Tenure};
use crate::limits::{CHECKED_TTL_SECONDS, TRANSACTIONS_MAX, TRIPS_MAX};
use crate::recovery::RecoveryError;
use crate::snapshot::SnapshotStore;
use crate::trips::judge::TripRules;

/// What an engine is started with.
pub struct Ports {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Answers for the past.
    pub history: Arc<dyn History>,
    /// Keeps what must survive.
    pub journal: Arc<dyn Journal>,
    /// Keeps the state so that the journal can be cut.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// The ownership of the partition, from [`Journal::acquire`].
    pub tenure: Tenure,
}

/// How an engine is sized.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose state this is.
    pub partition: PartitionId,
    /// Shard actors, 1 to 64.
    pub shard_count: u16,
    /// Seconds between a check and the last moment of its confirm.
    pub checked_ttl_seconds: i64,
    /// Transactions kept in memory; past it checks answer 6.
    pub transactions_max: usize,
    /// What carriers and their devices must keep to.
    pub trip_rules: TripRules,
    /// Trips kept in memory; past it uploads answer Unavailable.
    pub trips_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            partition: PartitionId(0),
            shard_count: 2,
            checked_ttl_seconds: CHECKED_TTL_SECONDS,
            transactions_max: TRANSACTIONS_MAX,
            trip_rules: TripRules::default(),
            trips_max: TRIPS_MAX,
        }
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal could be read but takes no append.
    #[error("the journal takes no append")]
    FirstAppend,
    /// The state cannot be recovered.
    #[error("the state cannot be recovered")]
    Recovery(#[from] RecoveryError),
    /// The system gives no thread.
    #[error("no thread could be started")]
    Thread(#[source] std::io::Error),
}
