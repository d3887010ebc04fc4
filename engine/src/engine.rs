//! The engine as its callers see it.

use std::io::BufRead;
use std::sync::Arc;

use crate::calendar::{Clock, Timestamp};
use crate::command::{Cancel, Check, CheckAnswer, Confirm, Deadline, SettleAnswer};
use crate::directory::Directory;
use crate::history::{Freshness, History};
use crate::identifier::Digest;
use crate::ids::{HolderId, RevisionId, ShardId};
use crate::journal::{Journal, Position};
use crate::keys::Keys;
use crate::snapshot::SnapshotStore;
use crate::transaction::Amounts;

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
}

/// How an engine is sized.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shard actors, 1 to 64.
    pub shard_count: u16,
    /// Seconds between a check and the last moment of its confirm.
    pub checked_ttl_seconds: i64,
    /// Transactions kept in memory; past it checks answer 6.
    pub transactions_max: usize,
}

/// The engine of one partition. Cheap to clone; dropping the last clone stops it.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Recovers the state and starts the shards; blocks until the engine answers.
    pub fn start(settings: Settings, ports: Ports, keys: Keys) -> Result<Engine, StartError> {
        unreachable!()
    }
    /// Refuses new work, makes durable and answers what is in hand, stops the shards.
    pub async fn stop(&self) {
        unreachable!()
    }
    /// The registry as it is now; one guard serves a whole batch of checks.
    pub fn revision(&self) -> Arc<Revision> {
        unreachable!()
    }
    /// Answers a check of connection type 1 or 2 and opens its transaction. Never waits.
    pub fn check(&self, revision: &Revision, check: &Check) -> CheckAnswer {
        unreachable!()
    }
    /// Tells for every category of the offer why it wins or loses; opens nothing.
    pub fn explain(&self, revision: &Revision, check: &Check) -> Explanation {
        unreachable!()
    }
    /// Answers a check of connection type 3, which is itself the recorded fact (C-07).
    pub async fn check_and_record(
        &self,
        check: Check,
        amounts: Amounts,
        deadline: Deadline,
    ) -> CheckAnswer {
        unreachable!()
    }
    /// Records that the service was delivered.
    pub async fn confirm(&self, confirm: Confirm, deadline: Deadline) -> SettleAnswer {
        unreachable!()
    }
    /// Deletes the record of a check that the holder refused.
    pub async fn cancel(&self, cancel: Cancel, deadline: Deadline) -> SettleAnswer {
        unreachable!()
    }
    /// The history of settled transactions.
    pub fn history(&self) -> &Arc<dyn History> {
        unreachable!()
    }
    /// What a history answer must include to hold everything acknowledged before this call.
    pub fn freshness(&self, deadline: Deadline) -> Freshness {
        unreachable!()
    }
    /// Imports a registry file; blocks. All of it becomes visible at once, or nothing.
    pub fn import(&self, file: &mut dyn BufRead) -> Result<ImportReport, ImportError> {
        unreachable!()
    }
    /// Writes a snapshot and cuts the journal; blocks.
    pub fn snapshot(&self) -> Result<(), crate::snapshot::SnapshotError> {
        unreachable!()
    }
    /// How the engine is.
    pub fn status(&self) -> EngineStatus {
        unreachable!()
    }
    /// What time the engine thinks it is.
    pub fn now(&self) -> Timestamp {
        unreachable!()
    }
    /// The keys that requests are digested with.
    pub fn keys(&self) -> &Keys {
        unreachable!()
    }
    /// Kills a shard actor, as a bug would; the supervisor does not rebuild it before `release_shard`.
    pub fn halt_shard(&self, shard: ShardId) {
        unreachable!()
    }
    /// Lets the supervisor rebuild a halted shard.
    pub fn release_shard(&self, shard: ShardId) {
        unreachable!()
    }
}

/// One immutable state of the registry.
pub struct Revision {}
impl Revision {
    /// Its number.
    pub fn id(&self) -> RevisionId {
        unreachable!()
    }
    /// Its directory.
    pub fn directory(&self) -> &Directory {
        unreachable!()
    }
    /// Who has this identifier.
    pub fn holder(&self, identifier: &Digest) -> Option<HolderId> {
        unreachable!()
    }
    /// How many holders there are.
    pub fn holder_count(&self) -> usize {
        unreachable!()
    }
}

/// Why each category of an offer wins or loses.
pub struct Explanation {
    /// The refusal, when it is one that no category can change.
    pub refusal: Option<crate::command::Refusal>,
    /// The categories of the offer, the best first.
    pub categories: Vec<(crate::ids::CategoryId, Verdict)>,
}

/// What became of one category.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The category does not exist on this date.
    CategoryNotValid,
    /// The holder does not have it.
    NotHeld,
    /// The holder has it, but not on this date.
    NotValidToday,
    /// A better category won.
    Outranked,
    /// All uses of the period are spent or held.
    LimitReached,
    /// This one is answered.
    Wins,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ImportReport {
    /// The revision in force afterwards.
    pub revision: RevisionId,
    /// Lines read.
    pub lines: u64,
    /// Directory entries and holders that were added, changed or deleted.
    pub changes: u64,
}

/// Why an import changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Lines are wrong; every one is named, up to a limit.
    #[error("the registry file is wrong in {} places", .0.len())]
    Rejected(Vec<LineError>),
    /// The file could not be read to its end.
    #[error("the registry file could not be read")]
    Read(#[from] std::io::Error),
    /// The engine could not record it now.
    #[error("the import could not be recorded")]
    Unavailable,
}

/// A wrong line of a registry file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LineError {
    /// From 1.
    pub line: u64,
    /// The field, where one is to blame.
    pub field: Option<&'static str>,
    /// What is wrong, without quoting personal data.
    pub reason: String,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be taken or read.
    #[error("the journal cannot be recovered")]
    Journal(#[from] crate::journal::JournalError),
}

/// Numbers for metrics and health.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// Whether everything that the engine promises is available.
    pub ready: bool,
    /// Holders in the registry.
    pub holders: usize,
    /// The registry's revision.
    pub revision: RevisionId,
    /// Transactions in memory.
    pub transactions: usize,
    /// Per shard: commands waiting and whether it works.
    pub shards: Vec<ShardStatus>,
    /// Everything below is durable.
    pub durable: Position,
    /// Frames, records and bytes appended since the start.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// When the last snapshot was complete.
    pub snapshot_at: Option<Timestamp>,
    /// Openings that were not journaled because the queue was full.
    pub openings_dropped: u64,
}

/// One shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardStatus {
    /// Commands waiting.
    pub waiting: usize,
    /// Whether it takes commands.
    pub up: bool,
}
