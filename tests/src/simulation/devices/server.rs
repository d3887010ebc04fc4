//! The server of the devices: an engine without threads, and the gateway's holder registries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use engine::answer::Reply;
use engine::calendar::{Clock, Timestamp};
use engine::checkpoint::{self, Imported};
use engine::command::{Check, Deadline, SettleAnswer};
use engine::directory::ServiceKind;
use engine::history::{Freshness, History};
use engine::identifier::Digest;
use engine::ids::{OrganizationId, ServiceId, TerminalId, TransactionId};
use engine::import::Recorded;
use engine::journal::Journal;
use engine::ledger::LedgerSettings;
use engine::route::{Known, cancel_of_settled, confirm_of_settled};
use engine::snapshot::SnapshotStore;
use engine::trips::claim::{ClaimError, ClaimOrder, ClaimSummary};
use engine::trips::clerk::UploadScope;
use engine::trips::trip::{Standing, TripName, TripOutcome};
use gateway::kit::judge::Judge;
use gateway::kit::registries::Registries;
use gateway::kit::store::Store;
use gateway::kit::{ContentSettings, KitSettings};
use gateway::link::batch::result_in;
use gateway::link::settle::{Settlement, ack_code};
use gateway::trips::{result_of, trip_of};
use tempfile::TempDir;
use validator::link::message::{Ack, AckCode, CheckResult, TripBatch, TripResults};
use validator::signing::SigningKey;

use crate::memory::{HandClock, MemoryHistory};
use crate::simulation::node::{Disk, Node, PARTITION};
use crate::simulation::town::{Town, keys};

/// The server.
pub struct Server {
    pub(crate) clock: Arc<HandClock>,
    pub(crate) disk: Disk,
    pub(crate) node: Node,
    /// The registry that is in force.
    pub(crate) town: Town,
    pub(crate) registries: Arc<Registries>,
    /// How often it went down.
    pub(crate) crashes: u32,
    /// Transactions that devices were told of: when, and in which life of the server.
    pub(crate) opened: BTreeMap<u64, (Timestamp, u32)>,
    /// What was acknowledged as confirmed.
    pub(crate) confirmed: BTreeSet<u64>,
    /// What was acknowledged as cancelled.
    pub(crate) cancelled: BTreeSet<u64>,
    /// How reported trips stood when they were acknowledged.
    pub(crate) standings: BTreeMap<TripName, Standing>,
    pub(crate) settings: LedgerSettings,
    kit: KitSettings,
    data_dir: TempDir,
}

impl Server {
    /// A server without any registry.
    pub fn new(clock: Arc<HandClock>, settings: LedgerSettings, limited_offline: bool) -> Server {
        let disk = Disk::default();
        let kit = KitSettings {
            build_at: Vec::new(),
            after_import: false,
            valid_hours: 48,
            keep_versions: 60,
            delta_versions: 2,
            bytes_max: u64::MAX,
            content: ContentSettings { kinds: vec![ServiceKind::Visit], limited_offline },
        };
        let data_dir = scratch();
        let registries = open_registries(data_dir.path(), &kit);
        let judge = Arc::new(Judge(Arc::clone(&registries)));
        let node = Node::start(&disk, clock.clone(), settings).unwrap().judging_by(judge);
        Server {
            clock,
            disk,
            node,
            town: Town::default(),
            registries,
            crashes: 0,
            opened: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            standings: BTreeMap::new(),
            settings,
            kit,
            data_dir,
        }
    }

    /// The organization of a terminal that may be used, as the link decides it.
    pub fn admission(&self, terminal: u64) -> Option<OrganizationId> {
        let registry = self.node.partition.registry();
        let directory = registry.directory();
        let known = directory.terminal(TerminalId(terminal)).filter(|known| known.active)?;
        let organization = directory.organization(known.organization)?;
        organization.serves().then_some(known.organization)
    }

    /// Answers a check.
    pub fn check(&mut self, terminal: u64, asked: &validator::link::message::Check) -> CheckResult {
        let registry = self.node.partition.registry_full();
        let check = Check {
            organization: self.admission(terminal).unwrap_or(OrganizationId(0)),
            terminal: TerminalId(terminal),
            service: ServiceId(asked.service),
            identifier: Digest(asked.id_hash.into_array()),
        };
        let now = self.clock.now();
        let answer = self.node.partition.check(&registry, &check);
        let result = result_in(&registry, &check, &answer, now);
        if let Some(tx) = result.tx {
            let known = self.opened.insert(tx, (now, self.crashes));
            assert_eq!(known, None, "transaction {tx} is given twice");
        }
        result
    }

    /// Settles, and waits until that is durable.
    pub fn settle(&mut self, settlement: Settlement) -> Ack {
        let deadline = Deadline(Instant::now() + Duration::from_secs(100_000));
        let (sender, heard) = channel();
        let reply = Reply::new(move |answer: Option<SettleAnswer>| {
            sender.send(answer.unwrap_or(SettleAnswer::Unavailable)).unwrap();
        });
        let partition = &self.node.partition;
        let known = match settlement {
            Settlement::Cancel(cancel) => partition.submit_cancel(cancel, deadline, reply),
            Settlement::Confirm(confirm) => partition.submit_confirm(confirm, deadline, reply),
        };
        let answer = match known {
            Some(Known::Answer(answer)) => answer,
            Some(Known::Unknown(id)) => self.in_history(id, settlement),
            None => {
                let shards = 0..usize::from(self.settings.shard_count);
                let batches = shards.flat_map(|shard| self.node.drain(shard)).collect();
                self.node.commit(batches);
                heard.try_recv().unwrap()
            }
        };
        let (acknowledged, id) = match settlement {
            Settlement::Cancel(cancel) => (&mut self.cancelled, cancel.transaction),
            Settlement::Confirm(confirm) => (&mut self.confirmed, confirm.transaction),
        };
        let code = ack_code(answer);
        if code == AckCode::Done {
            acknowledged.insert(id.0);
        }
        Ack { code }
    }

    /// Records trips of a terminal.
    pub fn upload(
        &mut self,
        (organization, terminal): (OrganizationId, u64),
        batch: &TripBatch,
    ) -> TripResults {
        let terminal = TerminalId(terminal);
        let scope = UploadScope { organization, terminal: Some(terminal) };
        let trips = batch.trips.iter().cloned();
        let trips: Vec<_> = trips.map(|trip| trip_of(trip, organization, Some(terminal))).collect();
        let names: Vec<TripName> = trips.iter().map(|trip| trip.name).collect();
        let registry = self.node.partition.registry_full();
        let outcomes = self.node.upload(&registry, self.clock.now(), (scope, trips));
        for (name, outcome) in names.iter().zip(&outcomes) {
            let standing = match outcome {
                TripOutcome::Recorded(standing) => *standing,
                TripOutcome::Duplicate(Some(standing)) => *standing,
                TripOutcome::Unavailable => continue,
                other => panic!("{other:?} for {name:?}"),
            };
            let known = self.standings.insert(*name, standing);
            assert!(known.is_none_or(|known| known == standing), "{name:?} stands otherwise now");
            let again = known.is_some() && matches!(outcome, TripOutcome::Recorded(_));
            assert!(!again, "{name:?} was recorded twice");
        }
        let results = names.into_iter().zip(outcomes);
        let results = results.map(|(name, outcome)| result_of(name.seq.0, outcome));
        TripResults { results: results.collect() }
    }

    /// Changes a claim.
    pub fn order(&mut self, order: ClaimOrder) -> Result<ClaimSummary, ClaimError> {
        let registry = self.node.partition.registry_full();
        self.node.order(&registry, self.clock.now(), order)
    }

    /// Imports what leads to another registry; whether that is in force.
    pub fn import(&mut self, next: Town) -> bool {
        let file: Vec<String> = self.town.lines_to(&next);
        let file = file.join("\n");
        let mut prepared = self.node.registrar().prepare(&mut file.as_bytes(), &keys()).unwrap();
        if prepared.changes == 0 {
            return true;
        }
        prepared.at = self.clock.now();
        let revision = self.node.registrar().next_revision();
        let (registrar, mut append) = self.node.import();
        let recorded = registrar.record(prepared, &mut append);
        drop(append);
        if recorded == Recorded::Committed {
            self.node.publish();
        } else {
            self.go_on();
        }
        let in_force = self.node.partition.registry().id() == revision;
        if in_force {
            self.town = next;
        }
        self.town.assert_is(&self.node.partition.registry());
        in_force
    }

    /// Builds holder registries.
    pub fn build(&self) {
        let registry = self.node.partition.registry_full();
        self.registries.build(&registry, self.clock.now()).unwrap();
    }

    /// What the committer and the registrar do after a failure of the journal.
    pub fn go_on(&mut self) {
        if !self.node.partition.has_failed() {
            return;
        }
        assert!(self.node.recover());
        if self.node.registrar().is_unresolved() {
            let recovered = self.disk.recover(self.settings);
            let (registrar, append) = self.node.import();
            registrar.resume(recovered.writer, recovered.blocks, recovered.last_import);
            drop(append);
            self.node.publish();
        }
    }

    /// The power goes: only the disks stay.
    pub fn crash(&mut self) {
        self.crashes += 1;
        self.registries = open_registries(self.data_dir.path(), &self.kit);
        let start = || Node::start(&self.disk, self.clock.clone(), self.settings);
        let judge = Arc::new(Judge(Arc::clone(&self.registries)));
        self.node = (0..100).find_map(|_| start()).unwrap().judging_by(judge);
        self.town.assert_is(&self.node.partition.registry());
    }

    /// Writes a snapshot and shortens the log.
    pub fn snapshot(&mut self) {
        if self.node.clerk().is_unresolved() {
            return;
        }
        let partition = self.node.partition.clone();
        let replay_from = partition.durable();
        let imported = Imported {
            registry: partition.registry_full(),
            blocks: self.node.registrar().blocks().clone(),
            last_import: self.node.registrar().last_import(),
        };
        let book = self.node.clerk().book().clone();
        let mut parts = checkpoint::parts(partition, imported, book, || Ok(()));
        self.disk.snapshots.put(PARTITION, replay_from, &mut parts).unwrap();
        drop(parts);
        let list = self.disk.snapshots.list(PARTITION).unwrap();
        if let Some(previous) = list.get(1) {
            self.disk.journal.truncate(PARTITION, previous.replay_from).unwrap();
        }
    }

    /// A place of this server's directory for the files of a device.
    pub fn shelf(&self, terminal: u64) -> std::path::PathBuf {
        self.data_dir.path().join(format!("device-{terminal}"))
    }

    fn in_history(&self, id: TransactionId, settlement: Settlement) -> SettleAnswer {
        let freshness =
            Freshness { at_least: self.node.partition.durable(), deadline: Instant::now() };
        let settled = MemoryHistory(self.disk.journal.clone()).settled(id, freshness).unwrap();
        let not_found = SettleAnswer::Rejected(engine::command::Rejection::NotFound);
        settled.map_or(not_found, |settled| match settlement {
            Settlement::Cancel(cancel) => cancel_of_settled(&settled, &cancel),
            Settlement::Confirm(confirm) => confirm_of_settled(&settled, &confirm),
        })
    }
}

fn open_registries(data_dir: &Path, kit: &KitSettings) -> Arc<Registries> {
    let key = SigningKey::from_seed(&[3; 32]).unwrap();
    let registries = Registries::open(Store::open(data_dir).unwrap(), key, kit.clone());
    Arc::new(registries.unwrap())
}

/// A directory in memory where there is one: nobody cuts the power of these files.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    match fs::metadata(memory) {
        Ok(found) if found.is_dir() => TempDir::new_in(memory).unwrap(),
        _ => TempDir::new().unwrap(),
    }
}
