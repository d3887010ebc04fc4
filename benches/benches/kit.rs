//! The offline kit at a million cards: bytes of a registry, its look-up from the file beside a hash
//! map in memory, deltas, and the time to build. `ELIGO_BENCH_HOLDERS` changes the size; five
//! holders have about eight cards that are entitled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use benches::population::{keys, next_random, registry_file};
use benches::report::{median, print_figure, print_ratio, setting};
use engine::calendar::Timestamp;
use engine::directory::ServiceKind;
use engine::identifier::Digest;
use engine::ids::OrganizationId;
use engine::import::Registrar;
use engine::registry::Registry;
use engine::registry::writer::RegistryWriter;
use gateway::kit::ContentSettings;
use gateway::kit::builder::Build;
use gateway::kit::offers::Offers;
use gateway::kit::population::Population;
use hashbrown::HashMap;
use validator::registry::ShortDigest;
use validator::registry::delta::Delta;
use validator::registry::reader::RegistryFile;
use validator::signing::SigningKey;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const LOOKUPS: usize = 500_000;

fn main() {
    let mut registrar = Registrar::new(RegistryWriter::default(), 0);
    let holders = setting("ELIGO_BENCH_HOLDERS", 622_000);
    let prepared = registrar.prepare(&mut registry_file(holders), &keys()).unwrap();
    registrar.record(prepared, &mut |_| true);
    let registry = registrar.registry();
    let directory = tempfile::Builder::new().prefix(".tmp").tempdir_in(".").unwrap();
    let content = ContentSettings { kinds: vec![ServiceKind::Transport], limited_offline: true };
    let key = SigningKey::from_seed(&[3; 32]).unwrap();
    let now = Timestamp::parse("2026-06-02T00:00:00Z").unwrap();
    let build = |version| Build {
        registry,
        content: &content,
        version,
        now,
        valid_until: now.plus_seconds(48 * 3_600),
        key: &key,
    };
    let first = build(1);
    let organizations = first.organizations();
    // A carrier whose bus almost every category may take.
    let carrier = organizations.iter().find(|(id, _)| *id == OrganizationId(3)).unwrap();

    let begun = Instant::now();
    let population = first.population(&organizations);
    print_figure("one pass over the holders", seconds(begun), "s", "none");
    let begun = Instant::now();
    let path = directory.path().join("1.registry");
    let identifiers = write(&first, carrier, &population, &path);
    print_figure("each of the organizations", seconds(begun), "s", "none");
    print_figure("organizations", organizations.len() as f64, "", "none");

    let file = RegistryFile::open(&path).unwrap();
    let cards = count_cards(registry, &file);
    print_figure("cards in the registry", cards as f64, "", "1,000,000");
    print_figure("identifiers of a card", identifiers as f64 / cards as f64, "", "about 1.36");
    let bytes = fs::metadata(&path).unwrap().len() as f64;
    print_figure("registry", bytes / cards as f64, "bytes a card", "≤ 10");
    let begun = Instant::now();
    file.verify(&[key.signer().clone()]).unwrap();
    print_figure("verification of all bytes", seconds(begun), "s", "none");

    time_lookups(&file, &population);
    for (name, replaced) in [("rights of 1 % changed", false), ("1 % of cards replaced", true)] {
        let changed = change(&population, replaced);
        let path = directory.path().join("2.registry");
        write(&build(2), carrier, &changed, &path);
        let new = RegistryFile::open(&path).unwrap();
        let begun = Instant::now();
        let delta = Delta::between(&file, &new).unwrap().to_bytes(&key).unwrap();
        print_figure(&format!("delta, {name}: time"), seconds(begun), "s", "none");
        let share = 100.0 * delta.len() as f64 / bytes;
        print_figure(&format!("delta, {name}"), share, "% of the registry", "≤ 2");
        let begun = Instant::now();
        let delta = Delta::read(delta.as_slice(), &[key.signer().clone()]).unwrap();
        let applied = delta.apply(&file, Vec::new()).unwrap();
        print_figure(&format!("delta, {name}: applied in"), seconds(begun), "s", "none");
        assert!(applied == fs::read(&path).unwrap(), "the delta makes another file");
    }
}

fn write(
    build: &Build<'_>,
    carrier: &(OrganizationId, Offers<'_>),
    population: &Population,
    path: &Path,
) -> u64 {
    let mut out = BufWriter::with_capacity(256 << 10, File::create(path).unwrap());
    let count = build.write(carrier, population, &mut out).unwrap();
    out.flush().unwrap();
    out.get_ref().sync_all().unwrap();
    count
}

/// Cards of which an identifier is in the file.
fn count_cards(registry: &Registry, file: &RegistryFile) -> usize {
    let found = |digest: &Digest| file.find(ShortDigest::of(digest)).unwrap().is_some();
    registry
        .holders()
        .iter()
        .map(|(_, holder)| {
            let identifiers = holder.identifiers().filter_map(|extra| extra.identifier());
            let known = identifiers.filter(|identifier| found(&identifier.digest));
            known.map(|identifier| identifier.card).collect::<HashSet<_>>().len()
        })
        .sum()
}

/// Random look-ups, nine of ten of cards that are there.
fn time_lookups(file: &RegistryFile, population: &Population) {
    let known: HashMap<u64, u32> = file
        .entries()
        .map(Result::unwrap)
        .map(|entry| (entry.digest.number(), entry.rights))
        .collect();
    let mut state = 1;
    let members = &population.members;
    let wanted: Vec<ShortDigest> = (0..LOOKUPS)
        .map(|_| {
            let random = next_random(&mut state);
            match random % 10 {
                0 => ShortDigest::from_number(random >> 8).unwrap(),
                _ => members[(random >> 8) as usize % members.len()].0,
            }
        })
        .collect();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(timed(&wanted, |digest| file.find(digest).unwrap().is_some()));
        bare.push(timed(&wanted, |digest| known.contains_key(&digest.number())));
    }
    print_figure("look-up in the file", median(&ours), "ns", "≤ 2000");
    print_ratio("look-up, beside a hash map in memory", median(&ours), median(&bare), "ns", "none");
}

fn timed(wanted: &[ShortDigest], mut find: impl FnMut(ShortDigest) -> bool) -> f64 {
    let begun = Instant::now();
    let found = wanted.iter().filter(|digest| find(**digest)).count();
    black_box(found);
    begun.elapsed().as_nanos() as f64 / wanted.len() as f64
}

/// The same people, of whom one in a hundred has other rights or another card.
fn change(population: &Population, replaced: bool) -> Population {
    let mut state = 2;
    let mut members = population.members.clone();
    let classes = population.classes.len() as u64;
    for (digest, class) in &mut members {
        let random = next_random(&mut state);
        if random.is_multiple_of(100) {
            match replaced {
                true => *digest = ShortDigest::from_number(next_random(&mut state) >> 8).unwrap(),
                false => *class = u32::try_from((random >> 8) % classes).unwrap(),
            }
        }
    }
    members.sort_unstable();
    members.dedup_by_key(|(digest, _)| *digest);
    Population { members, classes: population.classes.clone(), collisions: 0 }
}

fn seconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}
