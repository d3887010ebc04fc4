//! Registries of any size for the benchmarks.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};

use engine::identifier::{Digest, DigestKey};
use engine::keys::{Keys, SecretKey};

/// The keys of every benchmark.
pub fn keys() -> Keys {
    Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
}

/// A registry file with this many holders, ready to be read.
pub fn registry_file(holders: u64) -> BufReader<File> {
    let mut file = BufWriter::new(tempfile::tempfile().unwrap());
    gateway::generator::write(holders, SEED, &mut file).unwrap();
    let mut file = file.into_inner().unwrap();
    file.rewind().unwrap();
    BufReader::new(file)
}

/// The seed of every generated registry.
pub const SEED: u64 = 42;

/// The identifiers of holders in a random order: the client code of every one.
pub fn identifiers(holders: u64, count: usize) -> Vec<Digest> {
    let key = keys().identifiers;
    let mut state = SEED;
    let random = std::iter::repeat_with(|| next_random(&mut state) % holders + 1);
    random
        .take(count)
        .map(|id| key.client_code(&gateway::generator::client_code(id)).unwrap())
        .collect()
}

/// SplitMix64.
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
