//! The files of the kit: `registries/ORGANIZATION/VERSION.registry` and `…/FROM-TO.delta`.
//!
//! A file appears under its name only when all of it is on the disk. Deltas lead to the newest
//! version only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use engine::ids::OrganizationId;
use tempfile::NamedTempFile;

/// Bytes gathered before they are written.
const WRITE_BEHIND_BYTES: usize = 256 << 10;

/// The directory of the kit.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// What is there of one organization.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shelf {
    /// The bytes of each version.
    pub registries: BTreeMap<u64, u64>,
    /// The bytes of each delta, by the versions that it connects.
    pub deltas: BTreeMap<(u64, u64), u64>,
}

impl Store {
    /// The store below a data directory.
    pub fn open(data_dir: &Path) -> io::Result<Store> {
        let directory = data_dir.join("registries");
        fs::create_dir_all(&directory)?;
        Ok(Store { directory })
    }

    /// Where the registry of a version is.
    pub fn registry(&self, organization: OrganizationId, version: u64) -> PathBuf {
        self.shelf(organization).join(format!("{version}.registry"))
    }

    /// Where the delta between two versions is.
    pub fn delta(&self, organization: OrganizationId, from: u64, to: u64) -> PathBuf {
        self.shelf(organization).join(format!("{from}-{to}.delta"))
    }

    /// Writes a file and puts it under its name.
    pub fn put<T, E: From<io::Error>>(
        &self,
        path: &Path,
        write: impl FnOnce(&mut BufWriter<&File>) -> Result<T, E>,
    ) -> Result<T, E> {
        let shelf = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(shelf)?;
        let file = NamedTempFile::with_prefix_in(".building", shelf)?;
        let mut out = BufWriter::with_capacity(WRITE_BEHIND_BYTES, file.as_file());
        let written = write(&mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(shelf)?.sync_all()?;
        Ok(written)
    }

    /// Everything that is there. Files that an end of the process left half written are removed.
    pub fn list(&self) -> io::Result<BTreeMap<OrganizationId, Shelf>> {
        let mut shelves = BTreeMap::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let organization = name.to_str().and_then(|name| name.parse().ok());
            let Some(organization) = organization.map(OrganizationId) else { continue };
            shelves.insert(organization, list_shelf(&entry.path())?);
        }
        Ok(shelves)
    }

    /// What is there of one organization.
    pub fn list_shelf(&self, organization: OrganizationId) -> io::Result<Shelf> {
        list_shelf(&self.shelf(organization))
    }

    /// Removes a registry.
    pub fn remove_registry(&self, organization: OrganizationId, version: u64) -> io::Result<()> {
        fs::remove_file(self.registry(organization, version))
    }

    /// Removes a delta.
    pub fn remove_delta(
        &self,
        organization: OrganizationId,
        (from, to): (u64, u64),
    ) -> io::Result<()> {
        fs::remove_file(self.delta(organization, from, to))
    }

    fn shelf(&self, organization: OrganizationId) -> PathBuf {
        self.directory.join(organization.to_string())
    }
}

fn list_shelf(path: &Path) -> io::Result<Shelf> {
    let mut shelf = Shelf::default();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let bytes = entry.metadata()?.len();
        if name.starts_with(".building") {
            fs::remove_file(entry.path())?;
        } else if let Some(version) = name.strip_suffix(".registry").and_then(number) {
            shelf.registries.insert(version, bytes);
        } else if let Some((from, to)) =
            name.strip_suffix(".delta").and_then(|name| name.split_once('-'))
            && let (Some(from), Some(to)) = (number(from), number(to))
        {
            shelf.deltas.insert((from, to), bytes);
        }
    }
    Ok(shelf)
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_and_half_written_ones_go() {
        let data_dir = tempfile::tempdir().unwrap();
        let store = Store::open(data_dir.path()).unwrap();
        let organization = OrganizationId(3);
        let put = |path: &Path| {
            store.put::<_, io::Error>(path, |out| out.write_all(b"abc")).unwrap();
        };
        put(&store.registry(organization, 5));
        put(&store.delta(organization, 4, 5));
        let failed = store.put(&store.registry(organization, 6), |out| {
            out.write_all(b"ab")?;
            Err::<(), _>(io::Error::other("no"))
        });
        assert!(failed.is_err());
        fs::write(data_dir.path().join("registries/3/.building7"), b"x").unwrap();
        fs::write(data_dir.path().join("registries/3/other"), b"x").unwrap();
        let shelf =
            Shelf { registries: BTreeMap::from([(5, 3)]), deltas: BTreeMap::from([((4, 5), 3)]) };
        assert_eq!(store.list().unwrap(), BTreeMap::from([(organization, shelf)]));
        assert!(!data_dir.path().join("registries/3/.building7").exists());
        store.remove_registry(organization, 5).unwrap();
        store.remove_delta(organization, (4, 5)).unwrap();
        assert_eq!(store.list().unwrap(), BTreeMap::from([(organization, Shelf::default())]));
    }
}
