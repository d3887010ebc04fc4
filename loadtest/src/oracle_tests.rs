use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::calendar::{Offset, Wall};
use crate::request::Identifier;

const UNTOUCHED: Taken = Taken { least: 0, most: Some(0) };

fn load(text: &str) -> Registry {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Registry::load(file.path(), 1_000, 1).unwrap()
}

fn fixture() -> Registry {
    load(include_str!("../../tests/data/fixture.ndjson"))
}

/// Whom an identifier leads to, found the slow way.
fn person(registry: &Registry, text: &str) -> Person {
    for holder in 0..u32::try_from(registry.holders.len()).unwrap() {
        if registry.holders.holder(holder).unwrap().snils() == Some(text) {
            return Person::Holder(holder);
        }
        for card in registry.holders.cards_of(holder) {
            let found = match registry.holders.card(card).unwrap().identifier() {
                Identifier::ClientCode(code) | Identifier::Snils(code) => code == text,
                Identifier::SocialCard(number, _) => number == text,
            };
            if found {
                return Person::Card { holder, card };
            }
        }
    }
    Person::Stranger
}

/// The only right decision: a category's id, or a result code as a negative number.
fn decided(registry: &Registry, question: &Question, now: &str) -> i64 {
    let day = Wall::parse(now).unwrap().day(Offset(9 * 3_600));
    let mut right = Vec::new();
    decisions(registry, question, day, &|_| UNTOUCHED, &mut right);
    assert_eq!(right.len(), 1);
    match right[0] {
        Decision::Benefit(won) => {
            registry.directory.categories[usize::from(won.category)].id.into()
        }
        Decision::Refused(code) => -i64::from(code),
    }
}

#[test]
fn the_acceptance_table_is_foretold() {
    let registry = fixture();
    let now = "2025-06-02T10:00:00Z";
    let check = |place: (u16, u64, u32), text: &str, now: &str, expected: i64| {
        let (organization, terminal, service) = place;
        let person = person(&registry, text);
        let question = Question { organization, terminal, service, person };
        assert_eq!(decided(&registry, &question, now), expected, "{place:?} {text} {now}");
    };
    let pool = (0, 2, 1);
    // Y4.
    check(pool, "AAABBBCCC", now, 20);
    check(pool, "AAABBBCCC", "2025-05-31T14:59:59Z", 10);
    check(pool, "AAABBBCCC", "2025-05-31T15:00:00Z", 20);
    check(pool, "9643901401015000019", now, 20);
    // Y5.
    check((0, 2, 2), "AAABBBCCC", now, -1);
    check(pool, "DDDEEEFFF", now, -1);
    check(pool, "ZZZ", now, -2);
    check(pool, "AAABBBCC0", now, -5);
    check(pool, "GGGHHHIII", now, -5);
    check((0, 20, 1), "AAABBBCCC", now, -7);
    check((3, 2, 1), "AAABBBCCC", now, -7);
    check((0, 2, 99), "AAABBBCCC", now, -8);
    check((0, 2, 4), "AAABBBCCC", now, -8);
    check((0, 2, 4), "AAABBBCCC", "2025-05-31T10:00:00Z", 10);
    // Y7.
    check((1, 20, 1), "59492311630", now, 20);
    check((2, 30, 3), "AAABBBCCC", now, 20);
}

#[test]
fn every_part_of_an_answer_counts() {
    let registry = fixture();
    let candidate = registry.directory.organizations[0].offers[0].candidates[1];
    let benefit = Decision::Benefit(candidate);
    let right = CheckAnswer {
        code: 0,
        transaction: 7,
        holder: 1,
        benefit: Some((20, Cow::Borrowed("Ветеран труда"))),
    };
    let is_right = |decision: &Decision, answer: &CheckAnswer<'_>| {
        says(&registry, Some(0), decision, answer, 0)
    };
    assert!(is_right(&benefit, &right));
    assert!(says(&registry, Some(0), &benefit, &CheckAnswer { code: 1, ..right.clone() }, 1));
    for wrong in [
        CheckAnswer { code: 1, ..right.clone() },
        CheckAnswer { transaction: 0, ..right.clone() },
        CheckAnswer { holder: 2, ..right.clone() },
        CheckAnswer { benefit: None, ..right.clone() },
        CheckAnswer {
            benefit: Some((30, Cow::Borrowed("Ветеран труда"))), ..right.clone()
        },
        CheckAnswer { benefit: Some((20, Cow::Borrowed("Ветеран"))), ..right.clone() },
    ] {
        assert!(!is_right(&benefit, &wrong), "{wrong:?}");
    }
    let refused = Decision::Refused(NO_BENEFIT);
    let no = CheckAnswer { code: 1, transaction: 0, holder: 0, benefit: None };
    assert!(is_right(&refused, &no));
    for wrong in [
        CheckAnswer { code: 2, ..no.clone() },
        CheckAnswer { transaction: 7, ..no.clone() },
        CheckAnswer { holder: 1, ..no.clone() },
        CheckAnswer { benefit: right.benefit.clone(), ..no.clone() },
    ] {
        assert!(!is_right(&refused, &wrong), "{wrong:?}");
    }
}

/// A registry in words of its own, and the rules applied to it without any cleverness.
#[derive(Clone, Debug)]
struct Town {
    categories: Vec<(i64, i32, i32)>,
    links: Vec<(Option<i64>, u8, Option<u32>)>,
    served: Vec<bool>,
    offer: (i32, i32),
    rights: Vec<(usize, i32, i32)>,
    card: (bool, i32),
    is_closed: bool,
    organization_serves: bool,
    terminal_is_active: bool,
}

fn dates() -> impl Strategy<Value = (i32, i32)> {
    (0..10_i32, 0..10_i32).prop_map(|(one, other)| (one.min(other), one.max(other)))
}

prop_compose! {
    fn town()(
        categories in prop::collection::vec((0..4_i64, dates()), 4),
        links in prop::collection::vec(
            (prop::option::of(0..4_i64), prop::sample::select(vec![50_u8, 100]),
             prop::option::of(1..4_u32)), 4),
        served in prop::collection::vec(prop::bool::weighted(0.8), 4),
        offer in dates(),
        rights in prop::collection::vec((0..4_usize, dates()), 0..6),
        card in (prop::bool::weighted(0.9), 0..10),
        is_closed in prop::bool::weighted(0.1),
        organization_serves in prop::bool::weighted(0.9),
        terminal_is_active in prop::bool::weighted(0.9),
    ) -> Town {
        Town {
            categories: categories.into_iter().map(|(priority, (from, to))| (priority, from, to)).collect(),
            links,
            served,
            offer,
            rights: rights.into_iter().map(|(category, (from, to))| (category, from, to)).collect(),
            card,
            is_closed,
            organization_serves,
            terminal_is_active,
        }
    }
}

/// The tenth days of January 2030 are days 0 to 9.
fn date(day: i32) -> String {
    format!("2030-01-{:02}", day + 10)
}

fn first_day() -> Day {
    Day::parse("2030-01-10").unwrap()
}

impl Town {
    fn registry(&self) -> Registry {
        let mut text = String::new();
        let mut line = |line: String| text.push_str(&format!("{{\"kind\":{line}}}\n"));
        line("\"region\",\"code\":\"14\",\"utc_offset\":\"+00:00\"".into());
        line("\"area\",\"id\":1,\"region\":\"14\"".into());
        for (at, (priority, from, to)) in self.categories.iter().enumerate() {
            let (from, to) = (date(*from), date(*to));
            line(format!(
                "\"category\",\"id\":{},\"name\":\"c{at}\",\"priority\":{priority},\"valid_from\":\"{from}\",\"valid_to\":\"{to}\"",
                at + 1
            ));
        }
        let links: Vec<String> = self
            .links
            .iter()
            .enumerate()
            .map(|(at, (priority, percent, limit))| {
                let priority =
                    priority.map_or(String::new(), |priority| format!(",\"priority\":{priority}"));
                let limit = limit.map_or(String::new(), |count| {
                    format!(",\"limit\":{{\"count\":{count},\"period\":\"month\"}}")
                });
                format!(
                    "{{\"category\":{},\"discount_percent\":{percent}{priority}{limit}}}",
                    at + 1
                )
            })
            .collect();
        line(format!("\"service\",\"id\":1,\"name\":\"s\",\"categories\":[{}]", links.join(",")));
        let served: Vec<String> = (1..)
            .zip(&self.served)
            .filter(|(_, served)| **served)
            .map(|(id, _): (u32, _)| id.to_string())
            .collect();
        let state = if self.organization_serves { "change_pending" } else { "suspending" };
        line(format!(
            "\"organization\",\"id\":1,\"client_id\":\"1\",\"client_secret\":\"s\",\"connection\":\"T3\",\"state\":\"{state}\",\"area\":1,\"categories\":[{}]",
            served.join(",")
        ));
        line(format!(
            "\"offer\",\"organization\":1,\"service\":1,\"valid_from\":\"{}\",\"valid_to\":\"{}\"",
            date(self.offer.0),
            date(self.offer.1)
        ));
        let state = if self.terminal_is_active { "active" } else { "blocked" };
        line(format!("\"terminal\",\"id\":1,\"organization\":1,\"state\":\"{state}\""));
        let rights: Vec<String> = self
            .rights
            .iter()
            .map(|(category, from, to)| {
                format!(
                    "{{\"category\":{},\"valid_from\":\"{}\",\"valid_to\":\"{}\"}}",
                    category + 1,
                    date(*from),
                    date(*to)
                )
            })
            .collect();
        let status = if self.is_closed { "closed" } else { "active" };
        let card = if self.card.0 { "active" } else { "replaced" };
        line(format!(
            "\"holder\",\"id\":5,\"region\":\"14\",\"status\":\"{status}\",\"cards\":[{{\"type\":\"ecs\",\"client_code\":\"A\",\"status\":\"{card}\",\"expires\":\"{}\"}}],\"categories\":[{}]",
            date(self.card.1),
            rights.join(",")
        ));
        load(&text)
    }

    /// The answer, if so many places of each category are taken: a category's index or a code.
    fn answer(&self, day: i32, taken: &[u32]) -> Result<usize, u32> {
        let inside = |(from, to): (i32, i32)| from <= day && day <= to;
        if !self.organization_serves || !self.terminal_is_active {
            return Err(7);
        }
        if !inside(self.offer) {
            return Err(8);
        }
        if self.is_closed || !self.card.0 || day > self.card.1 {
            return Err(5);
        }
        let wins = |category: &usize| {
            let (_, from, to) = self.categories[*category];
            let held =
                |(held, from, to): &(usize, i32, i32)| held == category && inside((*from, *to));
            let free = self.links[*category].2.is_none_or(|count| taken[*category] < count);
            inside((from, to)) && self.served[*category] && self.rights.iter().any(held) && free
        };
        let rank = |category: &usize| {
            let (own, ..) = self.categories[*category];
            let (priority, percent, _) = self.links[*category];
            (priority.unwrap_or(own), 100 - percent, *category)
        };
        (0..4).filter(wins).min_by_key(rank).ok_or(1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Right is what some number of taken places within the bounds leads to, and nothing else.
    #[test]
    fn right_is_what_brute_force_finds(
        town in town(),
        day in 0..10,
        least in prop::collection::vec(0..4_u32, 4),
        more in prop::collection::vec(0..3_u32, 4),
    ) {
        let registry = town.registry();
        let mut expected = BTreeMap::new();
        for choice in 0..81_u32 {
            let taken: Vec<u32> = (0..4).map(|at| {
                let step = choice / 3_u32.pow(u32::try_from(at).unwrap()) % 3;
                least[at] + step.min(more[at])
            }).collect();
            expected.insert(town.answer(day, &taken), ());
        }
        let question = Question {
            organization: 0,
            terminal: 1,
            service: 1,
            person: person(&registry, "A"),
        };
        let taken = |counted: Counted| {
            let at = usize::from(counted.link);
            Taken { least: least[at], most: Some(least[at] + more[at]) }
        };
        let mut right = Vec::new();
        decisions(&registry, &question, first_day().plus(day), &taken, &mut right);
        let found: BTreeMap<Result<usize, u32>, ()> = right.iter().map(|decision| match decision {
            Decision::Benefit(candidate) => (Ok(usize::from(candidate.category)), ()),
            Decision::Refused(code) => (Err(*code), ()),
        }).collect();
        prop_assert_eq!(found, expected);
    }
}
