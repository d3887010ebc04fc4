use std::io::Write;

use super::*;
use crate::calendar::Day;
use crate::registry::directory::ConnectionType;
use crate::request::Identifier;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, holders_max: usize, seed: u64) -> Result<Registry, RegistryError> {
    Registry::load(file(text).path(), holders_max, seed)
}

fn many(count: u64) -> String {
    let line = |id| format!("{{\"kind\":\"holder\",\"id\":{id},\"region\":\"14\"}}\n");
    (1..=count).map(line).collect()
}

fn ids(registry: &Registry) -> Vec<u64> {
    let places = 0..u32::try_from(registry.holders.len()).unwrap();
    places.map(|place| registry.holders.holder(place).unwrap().id).collect()
}

#[test]
fn the_fixture_is_read() {
    let registry = load(include_str!("../../tests/data/fixture.ndjson"), 100, 1).unwrap();
    let directory = &registry.directory;
    assert_eq!(directory.categories.len(), 3);
    assert_eq!(directory.organizations.len(), 5);
    let first = directory.organization(0).unwrap();
    assert_eq!((first.id, first.connection), (1, Some(ConnectionType::One)));
    assert_eq!(first.offset.0, 9 * 3_600);
    assert_eq!(first.terminals, [2, 3]);
    assert_eq!(first.offers.len(), 3);
    assert!(first.serves && !first.history);
    let excluded = directory.organization(3).unwrap();
    assert!(!excluded.serves && !excluded.is_known);
    let history = directory.organization(4).unwrap();
    assert!(history.history && history.connection.is_none());
    assert!(!format!("{directory:?}").contains("aaaabbbbbcccccc"));

    let holders = &registry.holders;
    assert_eq!(ids(&registry), [1, 2, 3]);
    assert_eq!(holders.holder(0).unwrap().snils(), Some("59492311630"));
    assert_eq!(holders.holder(2).unwrap().snils(), None);
    let cards: Vec<&Card> = holders.cards_of(0).map(|card| holders.card(card).unwrap()).collect();
    let identifiers: Vec<Identifier> = cards.iter().map(|card| card.identifier()).collect();
    let expected = [
        Identifier::ClientCode("AAABBBCCC"),
        Identifier::ClientCode("AAABBBCC0"),
        Identifier::SocialCard("9643901401015000019", "14010125"),
    ];
    assert_eq!(identifiers, expected);
    let active = |at: usize, day| cards[at].is_active(Day::parse(day).unwrap());
    assert!(active(0, "2025-06-02") && !active(1, "2025-06-02"));
    assert!(active(2, "2027-12-31") && !active(2, "2028-01-01"));
    let has = |day| holders.has(0, 0, Day::parse(day).unwrap());
    assert!(has("2025-05-31") && !has("2025-06-01"));
}

#[test]
fn a_sample_is_exact_and_follows_the_seed() {
    let text = many(1_000);
    let sample = |seed| ids(&load(&text, 100, seed).unwrap());
    assert_eq!(sample(1).len(), 100);
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
    assert_eq!(ids(&load(&text, 5_000, 1).unwrap()).len(), 1_000);
}

#[test]
fn later_lines_count() {
    let text = many(3)
        + "{\"kind\":\"holder\",\"id\":2,\"deleted\":true}\n\
           {\"kind\":\"holder\",\"id\":3,\"region\":\"14\",\"snils\":\"59492311630\"}\n";
    let registry = load(&text, 100, 1).unwrap();
    assert!(registry.holders.holder(2).unwrap().snils().is_none());
}

#[test]
fn faults_are_named_and_never_quoted() {
    let check = |text: &str, expected: &str| {
        let error = load(text, 10, 1).err().unwrap().to_string();
        assert_eq!(error, expected);
    };
    check("", "the registry has no holders");
    check("\n{\"kind\":\"holdr\"}", "line 2 of the registry: unknown kind");
    check(
        "{\"kind\":\"holder\",\"id\":1,\"snils\":\"secret\"}",
        "line 1 of the registry: `snils` is not what the format says",
    );
    check(
        "{\"kind\":\"area\",\"id\":\"secret\"}",
        "line 1 of the registry: unexpected at column 28",
    );
    check(&"x".repeat(LINE_BYTES_MAX + 1), "line 1 of the registry: too long");
}

#[test]
fn strangers_are_well_formed() {
    for stranger in strangers(1) {
        match stranger.identifier() {
            Identifier::ClientCode(code) => assert_eq!(code.len(), 15),
            Identifier::SocialCard(number, series) => {
                assert_eq!((number.len(), series.len()), (19, 8));
            }
            Identifier::Snils(_) => panic!("a card has no insurance number"),
        }
    }
}

/// 100,000 holders of a usual registry: two cards and three rights each.
#[test]
fn holders_take_little_memory() {
    let bytes = 100_000 * (size_of::<Holder>() + 2 * size_of::<Card>() + 3 * 6);
    assert!(bytes < 15_000_000, "{bytes}");
}

use crate::registry::holders::Holder;
