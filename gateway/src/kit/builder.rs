//! Builds one version of the registries of all organizations.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use engine::calendar::{Timestamp, UtcOffset};
use engine::directory::Directory;
use engine::ids::OrganizationId;
use engine::registry::Registry;
use validator::registry::delta::Delta;
use validator::registry::header::Header;
use validator::registry::reader::RegistryFile;
use validator::registry::rights::{Dictionary, Right};
use validator::registry::writer::Writer;
use validator::registry::{Entry, RegistryError};
use validator::signing::SigningKey;

use crate::kit::offers::Offers;
use crate::kit::population::Population;
use crate::kit::store::{Shelf, Store};
use crate::kit::{ContentSettings, Window};
use crate::node::chain;

/// What one build is made from.
pub struct Build<'a> {
    /// The revision that it reads.
    pub registry: &'a Registry,
    /// What stands in the files.
    pub content: &'a ContentSettings,
    /// The version to make.
    pub version: u64,
    /// From when the files count.
    pub now: Timestamp,
    /// Until when.
    pub valid_until: Timestamp,
    /// What they are signed with.
    pub key: &'a SigningKey,
}

impl Build<'_> {
    /// The organizations that get a registry: they serve, have an active terminal and offer services
    /// of the kinds.
    pub fn organizations(&self) -> Vec<(OrganizationId, Offers<'_>)> {
        let directory: &Directory = self.registry.directory();
        let terminals = directory.items().terminals.values();
        let with_terminals: BTreeSet<OrganizationId> = terminals
            .filter(|terminal| terminal.active)
            .map(|terminal| terminal.organization)
            .collect();
        with_terminals
            .into_iter()
            .filter_map(|id| Some((id, Offers::of(directory, id, self.content)?)))
            .collect()
    }

    /// Everybody who is of interest to any of these organizations.
    pub fn population(&self, organizations: &[(OrganizationId, Offers<'_>)]) -> Population {
        let categories = organizations.iter().flat_map(|(_, offers)| offers.categories()).collect();
        let window = Window::anywhere(self.now, self.valid_until);
        Population::gather(self.registry, window, &categories)
    }

    /// Writes the registry of one organization; how many entries it has.
    pub fn write(
        &self,
        (organization, offers): &(OrganizationId, Offers<'_>),
        population: &Population,
        out: impl Write,
    ) -> Result<u64, RegistryError> {
        let compiled = self.registry.directory().compiled(*organization);
        let utc_offset = compiled.map_or(UtcOffset::default(), |known| known.utc_offset);
        let window = Window::local(self.now, self.valid_until, utc_offset);
        let lists: Vec<Vec<Right>> =
            population.classes.iter().map(|class| offers.rights(class, window)).collect();
        let used = lists.iter().filter(|list| !list.is_empty()).cloned();
        let dictionary = Dictionary::of(used)?;
        let places: Vec<Option<u32>> = lists.iter().map(|list| dictionary.place(list)).collect();
        let place = |class: u32| places.get(usize::try_from(class).ok()?).copied().flatten();
        let count = population.members.iter().filter(|(_, class)| place(*class).is_some()).count();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let header = Header {
            organization: *organization,
            version: self.version,
            built_at_ms: self.now.0 / 1_000,
            valid_until_ms: self.valid_until.0 / 1_000,
            utc_offset,
            signer: self.key.signer().id,
            count,
            lists: 0,
            dictionary_bytes: 0,
        };
        let mut writer = Writer::new(out, header, &dictionary)?;
        for (digest, class) in &population.members {
            if let Some(rights) = place(*class) {
                writer.push(Entry { digest: *digest, rights })?;
            }
        }
        writer.finish(self.key)?;
        Ok(count)
    }

    /// Makes the deltas to this version from the versions before it, the newest `count` of them. One
    /// that saves less than half of the registry is not worth its place; a version that cannot be
    /// read gets none, and its devices the whole registry.
    pub fn write_deltas(
        &self,
        organization: OrganizationId,
        (shelf, count): (&Shelf, usize),
        store: &Store,
    ) -> Result<(), RegistryError> {
        let new = RegistryFile::open(&store.registry(organization, self.version))?;
        let before = shelf.registries.range(..self.version).rev().take(count);
        for (version, _) in before {
            let delta = match self.delta(&store.registry(organization, *version), &new) {
                Ok(delta) => delta,
                Err(RegistryError::TooLarge) => continue,
                Err(error) => {
                    let (organization, error) = (organization.0, chain(&error));
                    tracing::error!(organization, version, error, "no delta was made");
                    continue;
                }
            };
            let bytes = u64::try_from(delta.len()).unwrap_or(u64::MAX);
            if bytes < new.bytes() / 2 || bytes < SMALL_BYTES {
                let path = store.delta(organization, *version, self.version);
                store.put::<_, io::Error>(&path, |out| out.write_all(&delta))?;
            }
        }
        Ok(())
    }

    fn delta(&self, old: &Path, new: &RegistryFile) -> Result<Vec<u8>, RegistryError> {
        Delta::between(&RegistryFile::open(old)?, new)?.to_bytes(self.key)
    }
}

/// A delta of this size is always worth its place.
const SMALL_BYTES: u64 = 4 << 10;
