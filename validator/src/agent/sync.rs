//! How an agent keeps up with the server: registry, clock, blocks.

use crate::agent::Agent;
use crate::agent::backoff::Backoff;
use crate::agent::event::{Action, Notice};
use crate::agent::memory;
use crate::clock::Now;
use crate::device::HolderRegistry;
use crate::link::lane::AskError;
use crate::link::message::{BlockPush, Pong, RegistryAck, RegistryForm, RegistryOffer, Welcome};
use crate::store::{Installation, Installed, RegistryStore, StoreError};

/// How often the server is asked for a newer registry. It is built daily or on demand, and says so
/// when a link begins; links live for days.
const PULL_MS: u64 = 3_600_000;
/// Measurements of the clock at the beginning of a link.
const PINGS_FIRST: u32 = 5;
/// How often the clock is measured later.
const PING_MS: u64 = 300_000;
/// How often a server that does not answer checks is pinged.
const PING_SILENT_MS: u64 = 2_000;
/// How long blocks are gathered before they are written.
const BLOCKS_MS: u64 = 2_000;
/// A change of the clock's offset that is worth a write.
pub(super) const OFFSET_MS: u64 = 1_000;

/// What is on its way, and when what is due.
pub(super) struct Syncing<R> {
    pull: Pull,
    installation: Option<Installation<R>>,
    pull_due_ms: u64,
    whole_next: bool,
    backoff: Backoff,
    ping_due_ms: Option<u64>,
    pings_first: u32,
    blocks_due_ms: Option<u64>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Pull {
    Asked,
    Idle,
    /// Goes on without a link.
    Installing,
    Receiving,
}

impl<R> Syncing<R> {
    pub(super) fn new() -> Syncing<R> {
        Syncing {
            pull: Pull::Idle,
            installation: None,
            pull_due_ms: 0,
            whole_next: false,
            backoff: Backoff::new(5_000, 600_000),
            ping_due_ms: None,
            pings_first: 0,
            blocks_due_ms: None,
        }
    }
}

impl<S: RegistryStore> Agent<S> {
    pub(super) fn sync_connected(&mut self, welcome: &Welcome, now: Now) {
        let have = self.life().map_or(0, |life| life.version);
        if welcome.registry_version > have {
            self.syncing.pull_due_ms = now.steady_ms;
        }
        self.syncing.pings_first = PINGS_FIRST;
        self.ping();
    }

    pub(super) fn sync_disconnected(&mut self) {
        self.syncing.ping_due_ms = None;
        if self.syncing.pull != Pull::Installing {
            self.store.abandon();
            self.syncing.pull = Pull::Idle;
        }
    }

    pub(super) fn sync_now(&mut self, now: Now) {
        self.syncing.pull_due_ms = now.steady_ms;
        self.reporting.due_ms = Some(now.steady_ms);
    }

    pub(super) fn sync_due(&mut self, now: Now) {
        let Syncing { pull, pull_due_ms, ping_due_ms, blocks_due_ms, .. } = &self.syncing;
        let (pull_due, ping_due, blocks_due) = (
            *pull == Pull::Idle && *pull_due_ms <= now.steady_ms && self.is_linked(),
            ping_due_ms.is_some_and(|due_ms| due_ms <= now.steady_ms) && self.is_linked(),
            blocks_due_ms.is_some_and(|due_ms| due_ms <= now.steady_ms),
        );
        if pull_due {
            self.syncing.pull = Pull::Asked;
            let whole = std::mem::take(&mut self.syncing.whole_next);
            let have = self.life().filter(|_| !whole).map_or(0, |life| life.version);
            self.actions.push_back(Action::Pull { have });
        }
        if ping_due {
            self.ping();
        }
        if blocks_due {
            self.remember(now);
        }
    }

    pub(super) fn sync_timeout(&self) -> Option<u64> {
        let pull = (self.syncing.pull == Pull::Idle).then_some(self.syncing.pull_due_ms);
        let linked = [pull, self.syncing.ping_due_ms].into_iter().flatten().min();
        let linked = linked.filter(|_| self.is_linked());
        linked.into_iter().chain(self.syncing.blocks_due_ms).min()
    }

    pub(super) fn handle_blocked(&mut self, push: &BlockPush, now: Now) {
        let had_room = !self.device.blocks.are_missed();
        if self.device.blocks.handle_push(push) {
            let due_ms = now.steady_ms.saturating_add(BLOCKS_MS);
            self.syncing.blocks_due_ms.get_or_insert(due_ms);
        }
        if had_room && self.device.blocks.are_missed() {
            // Only a newer registry knows of them.
            self.syncing.pull_due_ms = now.steady_ms;
            self.show(Notice::BlocksMissed);
        }
    }

    pub(super) fn handle_ponged(&mut self, sent: Now, answer: Result<Pong, AskError>, now: Now) {
        if let Ok(pong) = answer {
            self.silent_checks = 0;
            self.device.clock.handle_sample(sent, now, pong.clock_ms);
        }
        if self.syncing.pings_first > 0 && self.is_linked() {
            return self.ping();
        }
        let wait_ms = if self.silent_checks > 0 { PING_SILENT_MS } else { PING_MS };
        self.syncing.ping_due_ms = Some(now.steady_ms.saturating_add(wait_ms));
        let known_ms = self.facts.as_ref().map_or(0, |facts| facts.clock_offset_ms);
        if self.device.clock.offset_ms(now).abs_diff(known_ms) > OFFSET_MS {
            self.remember(now);
        }
    }

    pub(super) fn handle_offered(&mut self, offer: Result<RegistryOffer, AskError>, now: Now) {
        if self.syncing.pull != Pull::Asked {
            return;
        }
        let offer = match offer {
            Ok(offer) => offer,
            Err(error) => return self.refuse_registry(error.to_string(), now),
        };
        match offer.form {
            RegistryForm::None | RegistryForm::UpToDate => self.end_pull(now),
            RegistryForm::Delta | RegistryForm::Full => {
                self.syncing.pull = Pull::Receiving;
                if let Err(error) = self.store.begin(&offer) {
                    self.refuse_registry(error.to_string(), now);
                }
            }
        }
    }

    pub(super) fn handle_part(&mut self, part: Result<Option<Vec<u8>>, AskError>, now: Now) {
        if self.syncing.pull != Pull::Receiving {
            return;
        }
        match part {
            Ok(Some(bytes)) => {
                if let Err(error) = self.store.push(&bytes) {
                    self.refuse_registry(error.to_string(), now);
                }
            }
            Ok(None) => self.begin_install(now),
            Err(error) => self.refuse_registry(error.to_string(), now),
        }
    }

    /// Everything that a restart should find, besides the trips.
    pub(super) fn remember(&mut self, now: Now) {
        if self.syncing.blocks_due_ms.take().is_some() {
            let kept = memory::write_blocks(&*self.files, &self.device.blocks);
            self.show_failure(kept);
        }
        let offset_ms = self.device.clock.offset_ms(now);
        if let Some(facts) = &mut self.facts
            && facts.clock_offset_ms != offset_ms
        {
            facts.clock_offset_ms = offset_ms;
            let kept = memory::write_facts(&*self.files, facts);
            self.show_failure(kept);
        }
    }

    /// What [`Action::Install`] wants done, once.
    pub fn take_installation(&mut self) -> Option<Installation<S::Registry>> {
        self.syncing.installation.take()
    }

    /// What came of it; the registry before was in use until now.
    pub fn handle_installed(
        &mut self,
        installed: Result<Installed<S::Registry>, StoreError>,
        now: Now,
    ) {
        if self.syncing.pull != Pull::Installing {
            return;
        }
        // The terminal may have been given away meanwhile.
        let organization = self.device.organization;
        let installed = installed.and_then(|installed| {
            let is_own = installed.registry.life().organization == organization;
            is_own.then_some(installed).ok_or(StoreError::Foreign)
        });
        let Installed { registry, sha256 } = match installed {
            Ok(installed) => installed,
            Err(error) => return self.refuse_registry(error.to_string(), now),
        };
        let life = registry.life();
        self.device.registry = Some(registry);
        self.device.blocks.forget_before(life.built_at_ms);
        self.syncing.blocks_due_ms.get_or_insert(now.steady_ms.saturating_add(BLOCKS_MS));
        self.actions.push_back(Action::Acknowledge(RegistryAck { version: life.version, sha256 }));
        self.show(Notice::RegistryInstalled { version: life.version });
        self.end_pull(now);
    }

    fn begin_install(&mut self, now: Now) {
        let have = self.life().map_or(0, |life| life.version);
        match self.store.install(&self.device.signers, (self.device.organization, have)) {
            Ok(installation) => {
                self.syncing.pull = Pull::Installing;
                self.syncing.installation = Some(installation);
                self.actions.push_back(Action::Install);
            }
            Err(error) => self.refuse_registry(error.to_string(), now),
        }
    }

    /// The disk has lost what it had: the whole registry is fetched again.
    pub(super) fn registry_unreadable(&mut self) {
        if !self.syncing.whole_next {
            self.syncing.whole_next = true;
            self.syncing.pull_due_ms = 0;
            self.show(Notice::RegistryRefused { reason: "it cannot be read any more".to_owned() });
        }
    }

    fn end_pull(&mut self, now: Now) {
        self.syncing.pull = Pull::Idle;
        self.syncing.backoff.succeeded();
        self.syncing.pull_due_ms = now.steady_ms.saturating_add(PULL_MS);
    }

    /// The old registry stays; next time the whole file is asked for.
    fn refuse_registry(&mut self, reason: String, now: Now) {
        self.store.abandon();
        self.syncing.whole_next = matches!(self.syncing.pull, Pull::Installing | Pull::Receiving);
        self.syncing.pull = Pull::Idle;
        let wait_ms = self.syncing.backoff.failed(&mut self.random);
        self.syncing.pull_due_ms = now.steady_ms.saturating_add(wait_ms);
        self.show(Notice::RegistryRefused { reason });
    }

    fn ping(&mut self) {
        self.syncing.ping_due_ms = None;
        self.syncing.pings_first = self.syncing.pings_first.saturating_sub(1);
        self.actions.push_back(Action::Ping);
    }
}
