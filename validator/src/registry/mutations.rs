//! Registries and deltas as they should be, and as nobody should send them.
//!
//! `ELIGO_MUTATIONS` sets how many mutated inputs each reader is given.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use engine::calendar::Day;
use engine::ids::ServiceId;
use proptest::prelude::*;

use super::delta::Delta;
use super::fixture::{header, key, right, signers};
use super::header::Header;
use super::reader::RegistryFile;
use super::rights::{Dictionary, Entitlement, Right, entitlement};
use super::writer::Writer;
use super::*;
use crate::random::Random;
use crate::signing::{Purpose, SigningKey};

type Content = BTreeMap<u64, Vec<Right>>;

fn bytes(version: u64, content: &Content) -> Vec<u8> {
    let dictionary = Dictionary::of(content.values().cloned()).unwrap();
    let mut writer = Writer::new(Vec::new(), header(version, content.len()), &dictionary).unwrap();
    for (number, rights) in content {
        let digest = ShortDigest::from_number(*number).unwrap();
        writer.push(Entry { digest, rights: dictionary.place(rights).unwrap() }).unwrap();
    }
    writer.finish(&key()).unwrap().0
}

fn stored(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(bytes: &[u8]) -> Result<RegistryFile, RegistryError> {
    RegistryFile::read(stored(bytes))
}

/// Entries with numbers that spread like digests; `salt` moves some of them and changes others.
fn content(count: u64, salt: u64) -> Content {
    let mix = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
    (0..count)
        .map(|at| {
            let moved = if salt > 0 && at % 50 == 7 { at + count * salt } else { at };
            let changed = if at % 31 == 3 { salt } else { 0 };
            let category = u32::try_from((mix(at) >> 20) % 11 + changed).unwrap();
            (mix(moved), vec![right(1, category), right(2, 7)])
        })
        .collect()
}

#[test]
fn every_entry_is_found_and_nothing_else() {
    for count in [0, 1, 2, 127, 128, 129, 5_000] {
        let content = content(count, 0);
        let file = open(&bytes(7, &content)).unwrap();
        file.verify(&signers()).unwrap();
        assert_eq!(file.header().count, count);
        for (number, rights) in &content {
            let find = |number| file.find(ShortDigest::from_number(number).unwrap()).unwrap();
            assert_eq!(find(*number), Some(rights.as_slice()));
            assert_eq!(find(number ^ 1).is_some(), content.contains_key(&(number ^ 1)));
        }
        assert_eq!(file.entries().map(Result::unwrap).count(), content.len());
    }
}

#[test]
fn the_first_right_that_a_device_may_grant_wins() {
    let limited = Right { limited: true, offline: false, ..right(1, 10) };
    let late = Right { valid_from: Day(5), ..right(1, 20) };
    let list = [limited, late, right(2, 30)];
    let check = |service, day, expected| {
        assert_eq!(entitlement(&list, ServiceId(service), Day(day)), expected);
    };
    check(1, 4, Entitlement::Right(limited));
    check(1, 5, Entitlement::Right(late));
    check(2, 4, Entitlement::Right(right(2, 30)));
    check(3, 4, Entitlement::NoRight);
}

#[test]
fn a_flipped_byte_is_rejected() {
    let bytes = bytes(7, &content(300, 0));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let verified = open(&flipped).and_then(|file| file.verify(&signers()));
        assert!(verified.is_err(), "byte {at}");
    }
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).and_then(|file| file.verify(&signers())).is_err());
    }
    let stranger = SigningKey::from_seed(&[6; 32]).unwrap().signer().clone();
    let file = open(&bytes).unwrap();
    assert!(matches!(file.verify(&[stranger]), Err(RegistryError::Signature(_))));
}

#[test]
fn a_delta_makes_the_later_registry_byte_by_byte() {
    let renamed: Content =
        content(3_000, 0).into_keys().map(|number| (number, vec![right(9, 9)])).collect();
    let check = |old: &Content, new: &Content, bytes_max: usize| {
        let (old, new) = (bytes(5, old), bytes(7, new));
        let (old_file, new_file) = (open(&old).unwrap(), open(&new).unwrap());
        let delta = Delta::between(&old_file, &new_file).unwrap().to_bytes(&key()).unwrap();
        assert!(delta.len() < bytes_max, "{} bytes", delta.len());
        let delta = Delta::read(delta.as_slice(), &signers()).unwrap();
        assert_eq!((delta.base_version(), delta.header().version), (5, 7));
        assert_eq!(delta.apply(&old_file, Vec::new()).unwrap(), new);
        assert!(delta.apply(&new_file, Vec::new()).is_err());
    };
    let (empty, small) = (Content::new(), content(3_000, 0));
    check(&empty, &empty, 400);
    check(&empty, &small, 30_000);
    check(&small, &empty, 700);
    check(&small, &small, 1_000);
    check(&small, &content(3_000, 1), 2_500);
    check(&small, &renamed, 500);
    check(&renamed, &content(3_100, 2), 4_500);
}

#[test]
fn a_flipped_byte_of_a_delta_is_rejected() {
    let [old, new] = [bytes(5, &content(300, 0)), bytes(7, &content(300, 1))];
    let [old, new] = [open(&old).unwrap(), open(&new).unwrap()];
    let delta = Delta::between(&old, &new).unwrap().to_bytes(&key()).unwrap();
    for at in 0..delta.len() {
        let mut flipped = delta.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(Delta::read(flipped.as_slice(), &signers()).is_err(), "byte {at}");
        assert!(Delta::read(&delta[..at], &signers()).is_err(), "{at} bytes");
    }
}

proptest! {
    #[test]
    fn any_content_comes_back_and_deltas_connect_any_two(
        old in prop::collection::btree_map(0..1_u64 << 56, 0..40_u32, 0..700),
        changed in prop::collection::btree_map(0..1_u64 << 56, 0..40_u32, 0..300),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let mut new = old.clone();
        for index in removed.iter().filter(|_| !old.is_empty()) {
            let (number, _) = old.iter().nth(index.index(old.len())).unwrap();
            match index.index(2) { 0 => { new.remove(number); } _ => { new.insert(*number, 41); } }
        }
        new.extend(changed);
        let rights = |content: BTreeMap<u64, u32>| -> Content {
            content.into_iter().map(|(number, category)| (number, vec![right(1, category)])).collect()
        };
        let (old, new) = (rights(old), rights(new));
        let (old_file, new_file) = (open(&bytes(5, &old)).unwrap(), open(&bytes(7, &new)).unwrap());
        for (number, rights) in &new {
            let found = new_file.find(ShortDigest::from_number(*number).unwrap()).unwrap();
            prop_assert_eq!(found, Some(rights.as_slice()));
        }
        let missing = old.keys().find(|number| !new.contains_key(number));
        if let Some(missing) = missing {
            prop_assert_eq!(new_file.find(ShortDigest::from_number(*missing).unwrap()).unwrap(), None);
        }
        let delta = Delta::between(&old_file, &new_file).unwrap().to_bytes(&key()).unwrap();
        let delta = Delta::read(delta.as_slice(), &signers()).unwrap();
        prop_assert_eq!(delta.apply(&old_file, Vec::new()).unwrap(), bytes(7, &new));
    }
}

fn mutations() -> u64 {
    let set = std::env::var("ELIGO_MUTATIONS").ok();
    set.map_or(20_000, |count| count.parse().expect("a number"))
}

/// Changes one to four bytes, or cuts or repeats a piece.
fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    let mut below = |end: usize| usize::try_from(random.below(end as u64)).unwrap();
    for _ in 0..below(4) + 1 {
        // The beginning has the numbers that everything else hangs on.
        let end = if below(2) == 0 { mutated.len() } else { mutated.len().min(300) };
        let at = below(end);
        match below(8) {
            0 => mutated.truncate(at),
            1 => mutated.extend_from_within(at..),
            2 => mutated[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
            3 => mutated[at..].iter_mut().take(8).for_each(|byte| *byte = 0),
            _ => mutated[at] = below(256).try_into().unwrap(),
        }
        if mutated.is_empty() {
            mutated.push(0);
        }
    }
    mutated
}

/// Makes the checksum and, as a hostile signer could, hash and signature right again.
fn reseal(bytes: &mut Vec<u8>, purpose: Purpose) {
    let Some(end) = bytes.len().checked_sub(SEAL_BYTES) else { return };
    bytes.truncate(end);
    if let (Purpose::Registry, Ok(header)) = (purpose, Header::read(bytes)) {
        let index = usize::try_from(header.count.div_ceil(128)).ok();
        let index =
            index.and_then(|blocks| end.checked_sub(4)?.checked_sub(blocks.checked_mul(16)?));
        let body = usize::try_from(header.dictionary_bytes).unwrap() + 64;
        if let Some(index) = index.filter(|_| body <= end) {
            let crc = crc32fast::hash(&[&bytes[..body], &bytes[index..end - 4]].concat());
            bytes[end - 4..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    bytes.extend_from_slice(hash.as_ref());
    bytes.extend_from_slice(&key().sign(purpose, hash.as_ref()).unwrap());
}

#[test]
fn mutated_registries_neither_pass_nor_panic() {
    let content = content(300, 0);
    let good = bytes(7, &content);
    let file = tempfile::tempfile().unwrap();
    let mut random = Random::new(1);
    for round in 0..mutations() {
        let mut mutated = mutate(&good, &mut random);
        let hostile = round % 8 == 0;
        if hostile {
            reseal(&mut mutated, Purpose::Registry);
        }
        file.set_len(0).unwrap();
        file.write_all_at(&mutated, 0).unwrap();
        let Ok(read) = RegistryFile::read(file.try_clone().unwrap()) else { continue };
        let verified = read.verify(&signers());
        assert!(hostile || verified.is_err() || mutated == good, "round {round}");
        // Whatever they answer, they do answer.
        for number in content.keys().step_by(37) {
            let _ = read.find(ShortDigest::from_number(*number).unwrap());
        }
        let _ = read.entries().count();
    }
}

#[test]
fn mutated_deltas_neither_pass_nor_panic() {
    let [old, new] = [bytes(5, &content(300, 0)), bytes(7, &content(300, 1))];
    let [old, new] = [open(&old).unwrap(), open(&new).unwrap()];
    let good = Delta::between(&old, &new).unwrap().to_bytes(&key()).unwrap();
    let mut random = Random::new(2);
    for round in 0..mutations() {
        let mut mutated = mutate(&good, &mut random);
        let hostile = round % 8 == 0;
        if hostile {
            reseal(&mut mutated, Purpose::Delta);
        }
        let Ok(delta) = Delta::read(mutated.as_slice(), &signers()) else { continue };
        assert!(hostile || mutated == good, "round {round}");
        if let Ok(applied) = delta.apply(&old, Vec::new()) {
            // A signer can sign what it likes, but hash and signature still belong together.
            open(&applied).unwrap();
        }
    }
}
