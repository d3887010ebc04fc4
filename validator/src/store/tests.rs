use tempfile::TempDir;

use super::*;
use crate::registry::fixture::{self, header, key, right, signers};
use crate::registry::rights::Dictionary;
use crate::registry::writer::Writer;
use crate::registry::{Entry, ShortDigest};

const ORGANIZATION: u32 = fixture::ORGANIZATION.0;

/// A registry of `version` cards.
fn file(version: u64) -> Vec<u8> {
    let header = header(version, usize::try_from(version).unwrap());
    let dictionary = Dictionary::of([vec![right(1, 10)]]).unwrap();
    let mut writer = Writer::new(Vec::new(), header, &dictionary).unwrap();
    for number in 1..=version {
        let digest = ShortDigest::from_number(number << 40).unwrap();
        writer.push(Entry { digest, rights: 0 }).unwrap();
    }
    writer.finish(&key()).unwrap().0
}

fn delta(from: u64, to: u64) -> Vec<u8> {
    let open = |version| {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("registry");
        fs::write(&path, file(version)).unwrap();
        RegistryFile::open(&path).unwrap()
    };
    Delta::between(&open(from), &open(to)).unwrap().to_bytes(&key()).unwrap()
}

fn fetch(
    store: &mut RegistryDirectory,
    (form, bytes): (RegistryForm, &[u8]),
    have: u64,
) -> Result<u64, StoreError> {
    let offer = RegistryOffer { form, version: 0, bytes: bytes.len() as u64 };
    store.begin(&offer)?;
    bytes.chunks(100).try_for_each(|piece| store.push(piece))?;
    let installation = store.install(&signers(), (ORGANIZATION, have));
    let installed = installation.and_then(|install| install());
    if installed.is_err() {
        store.abandon();
    }
    Ok(installed?.registry.life().version)
}

fn version(store: &mut RegistryDirectory) -> Option<u64> {
    let registry = store.open(&signers(), ORGANIZATION).unwrap();
    registry.map(|registry| registry.life().version)
}

#[test]
fn s2_registries_are_fetched_whole_or_by_delta() {
    let directory = TempDir::new().unwrap();
    let mut store = RegistryDirectory::new(directory.path()).unwrap();
    assert_eq!(version(&mut store), None);
    assert_eq!(fetch(&mut store, (RegistryForm::Full, &file(5)), 0).unwrap(), 5);
    assert_eq!(fetch(&mut store, (RegistryForm::Delta, &delta(5, 7)), 5).unwrap(), 7);
    assert_eq!(fs::read(store.home.path_of(7)).unwrap(), file(7), "byte by byte");
    assert_eq!(fetch(&mut store, (RegistryForm::Full, &file(9)), 7).unwrap(), 9);
    assert_eq!(store.home.versions().unwrap(), [9, 7], "the one before is kept");
    let mut again = RegistryDirectory::new(directory.path()).unwrap();
    assert_eq!(version(&mut again), Some(9));
}

#[test]
fn what_is_wrong_is_refused_and_the_old_one_stays() {
    let directory = TempDir::new().unwrap();
    let mut store = RegistryDirectory::new(directory.path()).unwrap();
    fetch(&mut store, (RegistryForm::Full, &file(5)), 0).unwrap();
    let (whole, change) = (file(7), delta(5, 7));
    for (form, good) in [(RegistryForm::Full, &whole), (RegistryForm::Delta, &change)] {
        for at in (0..good.len()).step_by(7) {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            assert!(fetch(&mut store, (form, &bytes), 5).is_err(), "{form:?}, byte {at}");
        }
        assert!(fetch(&mut store, (form, &good[..good.len() - 1]), 5).is_err());
    }
    let older = fetch(&mut store, (RegistryForm::Full, &file(4)), 5);
    assert!(matches!(older, Err(StoreError::Old)));
    let other = fetch(&mut store, (RegistryForm::Delta, &delta(4, 7)), 5);
    assert!(matches!(other, Err(StoreError::Registry(_))));
    let offer = RegistryOffer { form: RegistryForm::Full, version: 7, bytes: 10 };
    store.begin(&offer).unwrap();
    assert!(matches!(store.push(&[0; 11]), Err(StoreError::Length)));
    assert!(matches!(store.install(&signers(), (ORGANIZATION, 5)), Err(StoreError::Length)));
    let offer = RegistryOffer { bytes: REGISTRY_BYTES_MAX + 1, ..offer };
    assert!(matches!(store.begin(&offer), Err(StoreError::TooLong)));
    store.abandon();
    assert_eq!(version(&mut store), Some(5));
    assert_eq!(store.home.versions().unwrap(), [5]);
}

#[test]
fn a_spoiled_file_gives_way_to_the_one_before() {
    let directory = TempDir::new().unwrap();
    let mut store = RegistryDirectory::new(directory.path()).unwrap();
    fetch(&mut store, (RegistryForm::Full, &file(5)), 0).unwrap();
    fetch(&mut store, (RegistryForm::Full, &file(7)), 5).unwrap();
    let mut bytes = file(7);
    bytes[100] ^= 1;
    fs::write(store.home.path_of(7), bytes).unwrap();
    assert_eq!(version(&mut store), Some(5));
    assert!(store.open(&[], ORGANIZATION).unwrap().is_none(), "nobody is trusted");
    // A terminal that was given to another carrier decided by the registry of the one before.
    assert!(store.open(&signers(), ORGANIZATION + 1).unwrap().is_none());
}
