//! How large registries and their deltas are: the same bytes on every machine.

use std::collections::HashSet;
use std::io::Write;

use engine::directory::ServiceKind;
use engine::identifier::Digest;
use engine::ids::OrganizationId;
use engine::import::Registrar;
use engine::registry::Registry;
use engine::registry::writer::RegistryWriter;
use gateway::generator;
use gateway::kit::ContentSettings;
use gateway::kit::builder::Build;
use gateway::kit::population::Population;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use validator::registry::ShortDigest;
use validator::registry::delta::Delta;
use validator::registry::reader::RegistryFile;

use crate::{at, signing_key};

/// They have some 200,000 cards that are entitled.
const HOLDERS: u64 = 120_000;
/// A carrier whose bus almost every category may take.
const CARRIER: OrganizationId = OrganizationId(3);

#[test]
fn a_card_takes_ten_bytes_and_a_changed_one_little_more() {
    let mut lines = Vec::new();
    generator::write(HOLDERS, 42, &mut lines).unwrap();
    let mut registrar = Registrar::new(RegistryWriter::default(), 0);
    crate::import(&mut registrar, &lines);
    let registry = registrar.registry();
    let content = ContentSettings { kinds: vec![ServiceKind::Transport], limited_offline: true };
    let (key, now) = (signing_key(), at("2026-06-02T00:00:00Z"));
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
    let carrier = organizations.iter().find(|(id, _)| *id == CARRIER).unwrap();
    let population = first.population(&organizations);
    let write = |version, population: &Population| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut out = std::io::BufWriter::new(&mut file);
        build(version).write(carrier, population, &mut out).unwrap();
        out.flush().unwrap();
        drop(out);
        let bytes = file.as_file().metadata().unwrap().len();
        (RegistryFile::open(file.path()).unwrap(), bytes)
    };
    let (old, bytes) = write(1, &population);
    let cards = count_cards(registry, &old);
    println!("{cards} cards, {:.2} bytes each", bytes as f64 / cards as f64);
    assert!(cards > 100_000);
    assert!(bytes <= 10 * cards, "{bytes} bytes for {cards} cards");
    for replaced in [false, true] {
        let (new, _) = write(2, &change(&population, replaced));
        let delta = Delta::between(&old, &new).unwrap().to_bytes(&key).unwrap();
        let delta = u64::try_from(delta.len()).unwrap();
        println!("delta, {replaced}: {:.2} %", 100.0 * delta as f64 / bytes as f64);
        assert!(delta * 100 <= 2 * bytes, "{replaced}: {delta} of {bytes} bytes");
    }
}

/// Cards of which an identifier is in the file.
fn count_cards(registry: &Registry, file: &RegistryFile) -> u64 {
    let found = |digest: &Digest| file.find(ShortDigest::of(digest)).unwrap().is_some();
    let mut count = 0;
    for (_, holder) in registry.holders().iter() {
        let identifiers = holder.identifiers().filter_map(|extra| extra.identifier());
        let known = identifiers.filter(|identifier| found(&identifier.digest));
        let cards: HashSet<_> = known.map(|identifier| identifier.card).collect();
        count += u64::try_from(cards.len()).unwrap();
    }
    count
}

/// The same people, of whom one in a hundred has other rights or another card.
fn change(population: &Population, replaced: bool) -> Population {
    let mut random = SmallRng::seed_from_u64(2);
    let mut members = population.members.clone();
    let classes = u32::try_from(population.classes.len()).unwrap();
    for (digest, class) in &mut members {
        if random.random_ratio(1, 100) {
            match replaced {
                true => *digest = ShortDigest::from_number(random.random::<u64>() >> 8).unwrap(),
                false => *class = random.random_range(0..classes),
            }
        }
    }
    members.sort_unstable();
    members.dedup_by_key(|(digest, _)| *digest);
    Population { members, classes: population.classes.clone(), collisions: 0 }
}
