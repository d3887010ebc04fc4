//! The engine with its threads, its storage in memory, and short words for what is done to it.

use std::sync::Arc;
use std::time::Duration;

use engine::calendar::{Day, Timestamp};
use engine::command::Deadline;
use engine::engine::Engine;
use engine::identifier::{Digest, DigestKey};
use engine::ids::{OrganizationId, PartitionId};
use engine::journal::Journal;
use engine::keys::{Keys, SecretKey};
use engine::start::{Ports, Settings};
use engine::trips::claim::{ClaimError, ClaimId, ClaimOrder, ClaimSummary, Period};
use engine::trips::clerk::UploadScope;
use engine::trips::office::ClaimReader;
use engine::trips::ruling::{Ruling, RulingOutcome};
use engine::trips::trip::{Standing, Trip, TripOutcome, TripReason};
use tests::fixture;
use tests::memory::{HandClock, MemoryHistory, MemoryJournal, MemorySnapshots};
use tests::trips::PlainRegistries;

pub const NINE: &str = "2025-06-02T09:00:00Z";
pub const CARRIER: OrganizationId = OrganizationId(1);
pub const JUNE: Period = Period { first: Day(20_240), last: Day(20_269) };
pub const ACCEPTED: TripOutcome = TripOutcome::Recorded(Standing::Accepted);

/// An engine whose storage is in memory.
pub struct Node {
    pub engine: Engine,
    pub clock: Arc<HandClock>,
    pub journal: MemoryJournal,
    pub snapshots: MemorySnapshots,
    pub registries: PlainRegistries,
    pub runtime: tokio::runtime::Runtime,
}

pub fn keys() -> Keys {
    Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
}

pub fn code(code: &str) -> Digest {
    keys().identifiers.client_code(code).unwrap()
}

pub fn x() -> Digest {
    code("AAABBBCCC")
}

pub fn y() -> Digest {
    code("DDDEEEFFF")
}

pub fn registries() -> PlainRegistries {
    let mut registries = PlainRegistries::default();
    registries.build(5, "2025-05-31T12:00:00Z");
    registries.build(7, "2025-06-02T00:00:00Z");
    registries.grant(x(), 1, 100);
    registries.grant(y(), 2, 50);
    registries
}

impl Node {
    pub fn start() -> Node {
        let node = Node::start_on(MemoryJournal::default(), MemorySnapshots::default(), 4 << 20);
        node.engine.import(&mut fixture::REGISTRY.as_bytes()).unwrap();
        node
    }

    pub fn start_on(journal: MemoryJournal, snapshots: MemorySnapshots, trips_max: usize) -> Node {
        let clock = HandClock::at(fixture::NOW);
        let ports = Ports {
            clock: clock.clone(),
            history: Arc::new(MemoryHistory(journal.clone())),
            journal: Arc::new(journal.clone()),
            snapshots: Arc::new(snapshots.clone()),
            tenure: journal.acquire(PartitionId(0)).unwrap(),
        };
        let settings = Settings { trips_max, ..Settings::default() };
        let engine = Engine::start(&settings, ports, keys()).unwrap();
        let registries = registries();
        engine.trips().judge_by(registries.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Node { engine, clock, journal, snapshots, registries, runtime }
    }

    pub fn restart(self) -> Node {
        let (journal, snapshots, now) = (self.journal.clone(), self.snapshots.clone(), self.now());
        self.engine.stop();
        drop(self);
        let node = Node::start_on(journal, snapshots, 4 << 20);
        node.clock.set(now);
        node
    }

    pub fn now(&self) -> Timestamp {
        self.engine.now()
    }

    pub fn upload(&self, trips: &[Trip]) -> Vec<TripOutcome> {
        let scope = UploadScope { organization: CARRIER, terminal: None };
        self.upload_by(scope, trips)
    }

    pub fn upload_by(&self, scope: UploadScope, trips: &[Trip]) -> Vec<TripOutcome> {
        let deadline = Deadline::within(Duration::from_secs(30));
        self.runtime.block_on(self.engine.trips().upload(scope, trips.to_vec(), deadline))
    }

    pub fn one(&self, trip: &Trip) -> TripOutcome {
        self.upload(std::slice::from_ref(trip))[0]
    }

    pub fn order(&self, order: ClaimOrder) -> Result<ClaimSummary, ClaimError> {
        let deadline = Deadline::within(Duration::from_secs(30));
        self.runtime.block_on(self.engine.trips().order(order, deadline))
    }

    /// Takes a draft through all states, with nothing refused.
    pub fn pay(&self, id: ClaimId) {
        let submit = ClaimOrder::Submit(CARRIER, id);
        let process = ClaimOrder::Process(id, Vec::new());
        for order in [submit, process, ClaimOrder::Accept(id), ClaimOrder::Pay(id)] {
            self.order(order).unwrap();
        }
    }

    pub fn rule(&self, rulings: Vec<Ruling>) -> Vec<RulingOutcome> {
        let deadline = Deadline::within(Duration::from_secs(30));
        self.runtime.block_on(self.engine.trips().rule(rulings, deadline))
    }

    pub fn draft(&self) -> ClaimSummary {
        self.order(ClaimOrder::Draft(CARRIER, JUNE)).unwrap()
    }

    /// The names in a claim, after a look at its sums (invariant 14).
    pub fn lines(&self, id: ClaimId) -> Vec<u64> {
        let summary = self.engine.trips().claim(ClaimReader::Carrier(CARRIER), id).unwrap();
        let lines = self.engine.trips().claim_lines(id, 0, usize::MAX);
        let sum = |refused: bool| -> u64 {
            let lines = lines.iter().filter(|line| !refused || line.refusal.is_some());
            lines.map(|line| line.amount.0).sum()
        };
        let totals = summary.totals;
        assert_eq!(totals.line_count, u64::try_from(lines.len()).unwrap());
        assert_eq!((totals.total.0, totals.refused_total.0), (sum(false), sum(true)));
        lines.iter().map(|line| line.name.seq.0).collect()
    }
}

pub fn rejected(reason: TripReason) -> TripOutcome {
    TripOutcome::Recorded(Standing::Rejected(reason))
}

pub fn disputed(reason: TripReason) -> TripOutcome {
    TripOutcome::Recorded(Standing::Disputed(reason))
}
