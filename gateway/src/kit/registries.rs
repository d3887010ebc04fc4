//! What is there of holder registries, for everybody who asks: devices through the link, trips to
//! be judged, administration.
//!
//! Calls that read files may block for as long as the disk takes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::calendar::Timestamp;
use engine::ids::{OrganizationId, TerminalId};
use engine::registry::Registry;
use validator::link::message::{RegistryForm, Signer};
use validator::registry::reader::RegistryFile;
use validator::registry::{RegistryError, Sha256};
use validator::signing::SigningKey;

use crate::kit::KitSettings;
use crate::kit::builder::Build;
use crate::kit::offers::Offers;
use crate::kit::population::Population;
use crate::kit::store::{Shelf, Store};
use crate::node::chain;

/// Registries that are held open; their heads and indexes are in memory.
const OPEN_MAX: usize = 128;
/// A device that has a registry from before this is behind.
const FRESH_SECONDS: i64 = 24 * 3_600;

/// How long a device is known that was not heard of.
const DEVICE_SECONDS_KEPT: i64 = 30 * 86_400;

/// The registries of a deployment and what devices have of them.
pub struct Registries {
    store: Store,
    key: SigningKey,
    settings: KitSettings,
    /// A std lock, like the other two: nobody holds it while waiting for anything but the disk.
    shelves: Mutex<Shelves>,
    open: Mutex<OpenFiles>,
    devices: Mutex<HashMap<TerminalId, Device>>,
    /// Taken for the length of a build: one comes after another.
    building: Mutex<()>,
}

#[derive(Default)]
struct Shelves {
    organizations: BTreeMap<OrganizationId, Shelf>,
    last_build: Option<BuildReport>,
    failures: u64,
}

#[derive(Default)]
struct OpenFiles {
    files: HashMap<(OrganizationId, u64), (Arc<RegistryFile>, u64)>,
    uses: u64,
}

/// What a device last said of its registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Device {
    /// Whose device it is.
    pub organization: OrganizationId,
    /// The version that it has, 0 for none.
    pub version: u64,
    /// When that version was built; none where it has none that is known.
    pub built_at: Option<Timestamp>,
    /// When it said so.
    pub seen_at: Timestamp,
}

impl Device {
    fn is_known(&self, now: Timestamp) -> bool {
        self.seen_at >= now.plus_seconds(-DEVICE_SECONDS_KEPT)
    }
}

/// How a device brings its registry up to date.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    /// In which way.
    pub form: RegistryForm,
    /// The version that it has afterwards.
    pub version: u64,
    /// Bytes to send.
    pub bytes: u64,
    /// The file to send; it may vanish when later versions come, and is then asked for anew.
    pub path: Option<PathBuf>,
}

/// What a build made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BuildReport {
    /// The version.
    pub version: u64,
    /// When it was built.
    pub built_at: Timestamp,
    /// Organizations that have one now.
    pub organizations: usize,
    /// Organizations whose files could not be made; they keep what they had.
    pub failed: usize,
    /// Entries of all of them.
    pub entries: u64,
    /// How long it took.
    pub milliseconds: u64,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KitStatus {
    /// The newest build since the start.
    pub last_build: Option<BuildReport>,
    /// When the newest registry was built.
    pub built_at: Option<Timestamp>,
    /// Builds since the start that failed for some organization or for all.
    pub failures: u64,
    /// The newest version of any organization.
    pub version: u64,
    /// Devices that told what they have.
    pub devices: usize,
    /// Those whose registry is older than a day.
    pub devices_behind: usize,
}

/// Why a card cannot be looked up in a version.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The file cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no such version of this organization, or not any more.
    #[error("there is no such version")]
    VersionUnknown,
}

impl Registries {
    /// Opens the store and looks at what is there.
    pub fn open(store: Store, key: SigningKey, settings: KitSettings) -> io::Result<Registries> {
        let organizations = store.list()?;
        Ok(Registries {
            store,
            key,
            settings,
            shelves: Mutex::new(Shelves { organizations, ..Shelves::default() }),
            open: Mutex::default(),
            devices: Mutex::default(),
            building: Mutex::new(()),
        })
    }

    /// Builds the next version of all registries from one revision; blocks, for minutes where there
    /// are many organizations. Forgets devices that were not heard of for a month.
    pub fn build(&self, registry: &Registry, now: Timestamp) -> Result<BuildReport, RegistryError> {
        let _one_at_a_time = hold(&self.building);
        hold(&self.devices).retain(|_, device| device.is_known(now));
        let built = self.build_next(registry, now);
        let mut shelves = hold(&self.shelves);
        match &built {
            Ok(report) => {
                shelves.last_build = Some(*report);
                shelves.failures += u64::from(report.failed > 0);
            }
            Err(_) => shelves.failures += 1,
        }
        built
    }

    /// The keys that devices trust.
    pub fn signers(&self) -> Vec<Signer> {
        vec![self.key.signer().clone()]
    }

    /// What signs registries and tickets.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The newest version of an organization.
    pub fn newest(&self, organization: OrganizationId) -> Option<u64> {
        hold(&self.shelves).newest(organization)
    }

    /// How a device that has version `have` (0: none) gets the newest one.
    pub fn pull(&self, organization: OrganizationId, have: u64) -> Offer {
        let shelves = hold(&self.shelves);
        let shelf = shelves.organizations.get(&organization);
        let newest = shelf.and_then(|shelf| shelf.registries.last_key_value());
        let Some((shelf, (version, bytes))) = shelf.zip(newest) else {
            return Offer { form: RegistryForm::None, version: 0, bytes: 0, path: None };
        };
        let version = *version;
        if have == version {
            return Offer { form: RegistryForm::UpToDate, version, bytes: 0, path: None };
        }
        if let Some(bytes) = shelf.deltas.get(&(have, version)) {
            let path = Some(self.store.delta(organization, have, version));
            return Offer { form: RegistryForm::Delta, version, bytes: *bytes, path };
        }
        let path = Some(self.store.registry(organization, version));
        Offer { form: RegistryForm::Full, version, bytes: *bytes, path }
    }

    /// The registry of a version, for its header and for look-ups: the very file that devices had.
    pub fn file(
        &self,
        organization: OrganizationId,
        version: u64,
    ) -> Result<Arc<RegistryFile>, LookupError> {
        let known = |shelf: &Shelf| shelf.registries.contains_key(&version);
        if !hold(&self.shelves).organizations.get(&organization).is_some_and(known) {
            return Err(LookupError::VersionUnknown);
        }
        if let Some(file) = hold(&self.open).used((organization, version)) {
            return Ok(file);
        }
        let file = Arc::new(RegistryFile::open(&self.store.registry(organization, version))?);
        hold(&self.open).put((organization, version), Arc::clone(&file));
        Ok(file)
    }

    /// Notes which version a device says it has, as in its hello.
    pub fn note(
        &self,
        terminal: TerminalId,
        organization: OrganizationId,
        version: u64,
        now: Timestamp,
    ) {
        let file = self.file(organization, version).ok();
        let built_at = file.map(|file| file.header().built_at());
        let device = Device { organization, version, built_at, seen_at: now };
        hold(&self.devices).insert(terminal, device);
    }

    /// Notes that a device installed a version; whether it is ours.
    pub fn acknowledge(
        &self,
        terminal: TerminalId,
        (organization, version): (OrganizationId, u64),
        sha256: &Sha256,
        now: Timestamp,
    ) -> bool {
        let seal = self.file(organization, version).ok().and_then(|file| file.seal().ok());
        let ours = seal.is_some_and(|(known, _)| known == *sha256);
        if ours {
            self.note(terminal, organization, version, now);
        }
        ours
    }

    /// Forgets a device whose certificate counts no more.
    pub fn forget(&self, terminal: TerminalId) {
        hold(&self.devices).remove(&terminal);
    }

    /// What a device last said.
    pub fn device(&self, terminal: TerminalId) -> Option<Device> {
        hold(&self.devices).get(&terminal).copied()
    }

    /// Numbers for metrics; devices that were not heard of for a month are counted no more.
    pub fn status(&self, now: Timestamp) -> KitStatus {
        let built_at = self.built_at();
        let oldest = now.plus_seconds(-FRESH_SECONDS);
        let (devices, devices_behind) = {
            let devices = hold(&self.devices);
            let known = || devices.values().filter(|device| device.is_known(now));
            let behind =
                |device: &&Device| device.built_at.is_none_or(|built_at| built_at < oldest);
            (known().count(), known().filter(behind).count())
        };
        let shelves = hold(&self.shelves);
        let version = shelves.version();
        let (last_build, failures) = (shelves.last_build, shelves.failures);
        KitStatus { last_build, built_at, failures, version, devices, devices_behind }
    }

    /// When the newest registry was built, over restarts.
    pub fn built_at(&self) -> Option<Timestamp> {
        let newest = {
            let shelves = hold(&self.shelves);
            let organizations = shelves.organizations.keys();
            let versions = organizations.filter_map(|id| Some((shelves.newest(*id)?, *id)));
            versions.max()
        };
        let (version, organization) = newest?;
        let file = self.file(organization, version).ok()?;
        Some(file.header().built_at())
    }

    fn build_next(
        &self,
        registry: &Registry,
        now: Timestamp,
    ) -> Result<BuildReport, RegistryError> {
        let begun = Instant::now();
        let version = hold(&self.shelves).version().saturating_add(1);
        let build = Build {
            registry,
            content: &self.settings.content,
            version,
            now,
            valid_until: now.plus_seconds(i64::from(self.settings.valid_hours) * 3_600),
            key: &self.key,
        };
        let organizations = build.organizations();
        let population = build.population(&organizations);
        if population.collisions > 0 {
            tracing::warn!(identifiers = population.collisions, "identifiers are too much alike");
        }
        let (mut built, mut entries, mut first_error) = (0, 0_u64, None);
        for organization in &organizations {
            match self.build_one(&build, organization, &population) {
                Ok(count) => {
                    built += 1;
                    entries = entries.saturating_add(count);
                }
                Err(error) => {
                    let organization = organization.0.0;
                    tracing::error!(organization, error = chain(&error), "no registry was built");
                    first_error.get_or_insert(error);
                }
            }
        }
        if let Some(error) = first_error.filter(|_| built == 0) {
            return Err(error);
        }
        self.keep_within_bytes()?;
        Ok(BuildReport {
            version,
            built_at: now,
            organizations: built,
            failed: organizations.len() - built,
            entries,
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Makes file and deltas of one organization; how many entries there are. The version is handed
    /// out only when all of it is there.
    fn build_one(
        &self,
        build: &Build<'_>,
        organization: &(OrganizationId, Offers<'_>),
        population: &Population,
    ) -> Result<u64, RegistryError> {
        let id = organization.0;
        let path = self.store.registry(id, build.version);
        let count = self.store.put(&path, |out| build.write(organization, population, out))?;
        let shelf = hold(&self.shelves).organizations.get(&id).cloned().unwrap_or_default();
        build.write_deltas(id, (&shelf, self.settings.delta_versions), &self.store)?;
        self.tidy(id)?;
        Ok(count)
    }

    /// Looks again at the files of an organization and removes what is not kept.
    fn tidy(&self, organization: OrganizationId) -> io::Result<()> {
        let mut shelf = self.store.list_shelf(organization)?;
        let newest = shelf.registries.last_key_value().map(|(version, _)| *version);
        let gone = shelf.registries.len().saturating_sub(self.settings.keep_versions);
        let gone: Vec<u64> = shelf.registries.keys().copied().take(gone).collect();
        let stale = shelf.deltas.keys().filter(|(_, to)| Some(*to) != newest);
        let stale: Vec<(u64, u64)> = stale.copied().collect();
        shelf.registries.retain(|version, _| !gone.contains(version));
        shelf.deltas.retain(|(_, to), _| Some(*to) == newest);
        hold(&self.shelves).organizations.insert(organization, shelf);
        for version in gone {
            self.remove(organization, version)?;
        }
        stale.into_iter().try_for_each(|delta| self.store.remove_delta(organization, delta))
    }

    /// Removes the oldest versions of all organizations until the rest has room; the newest stay.
    fn keep_within_bytes(&self) -> io::Result<()> {
        while let Some((organization, version)) =
            hold(&self.shelves).take_oldest(self.settings.bytes_max)
        {
            self.remove(organization, version)?;
            tracing::warn!(version, organization = organization.0, "a registry had no room");
        }
        Ok(())
    }

    fn remove(&self, organization: OrganizationId, version: u64) -> io::Result<()> {
        hold(&self.open).files.remove(&(organization, version));
        self.store.remove_registry(organization, version)
    }
}

impl Shelves {
    fn newest(&self, organization: OrganizationId) -> Option<u64> {
        let shelf = self.organizations.get(&organization)?;
        shelf.registries.last_key_value().map(|(version, _)| *version)
    }

    fn version(&self) -> u64 {
        let newest = self.organizations.keys().filter_map(|id| self.newest(*id));
        newest.max().unwrap_or_default()
    }

    /// Takes off the oldest version while all files are larger than `bytes_max`.
    fn take_oldest(&mut self, bytes_max: u64) -> Option<(OrganizationId, u64)> {
        let files = |shelf: &Shelf| {
            shelf.registries.values().chain(shelf.deltas.values()).copied().sum::<u64>()
        };
        if self.organizations.values().map(files).sum::<u64>() <= bytes_max {
            return None;
        }
        let shelves = self.organizations.iter().filter(|(_, shelf)| shelf.registries.len() > 1);
        let oldest =
            shelves.filter_map(|(id, shelf)| Some((*shelf.registries.keys().next()?, *id)));
        let (version, organization) = oldest.min()?;
        self.organizations.get_mut(&organization)?.registries.remove(&version);
        Some((organization, version))
    }
}

impl OpenFiles {
    fn used(&mut self, key: (OrganizationId, u64)) -> Option<Arc<RegistryFile>> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(&key)?;
        *used = self.uses;
        Some(Arc::clone(file))
    }

    /// Puts a file beside the others; the one that was not used for longest goes.
    fn put(&mut self, key: (OrganizationId, u64), file: Arc<RegistryFile>) {
        self.files.insert(key, (file, self.uses));
        if self.files.len() > OPEN_MAX {
            let idle = self.files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(idle) = idle.map(|(key, _)| *key) {
                self.files.remove(&idle);
            }
        }
    }
}

/// A lock whose holder panicked guards nothing that could be half changed.
fn hold<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs how a build ended.
pub fn log(built: &Result<BuildReport, RegistryError>) {
    match built {
        Ok(BuildReport { version, organizations, entries, milliseconds, .. }) => {
            tracing::info!(version, organizations, entries, milliseconds, "registries were built");
        }
        Err(error) => tracing::error!(error = chain(error), "registries cannot be built"),
    }
}
