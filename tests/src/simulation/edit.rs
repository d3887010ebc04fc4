//! Random changes of a [`Town`], right ones and wrong ones.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};

use crate::simulation::town::{Card, Dates, IDENTIFIER_COUNT, Identifier, Link, Person, Town};

/// Holders are `1..=HOLDERS`.
pub const HOLDERS: u64 = 9;
/// Organizations are `1..=ORGANIZATIONS`; each has the terminals `10 n + 1` and `10 n + 2`.
pub const ORGANIZATIONS: u32 = 4;
/// Services are `1..=SERVICES`.
pub const SERVICES: u32 = 3;
const CATEGORIES: u32 = 6;

impl Town {
    /// A town to begin with.
    pub fn random(random: &mut SmallRng, today: i32) -> Town {
        let mut town = Town {
            regions: BTreeMap::from([(14, 540), (77, 180), (1, -210)]),
            areas: BTreeMap::from([(1, 14), (2, 77), (3, 1)]),
            ..Town::default()
        };
        for id in 1..=CATEGORIES {
            town.edit_category(random, today, id);
        }
        (1..=SERVICES).for_each(|id| town.edit_service(random, id));
        for id in 1..=ORGANIZATIONS {
            town.edit_organization(random, id);
            (1..=SERVICES).for_each(|service| {
                town.offers.insert((id, service), (None, None));
            });
            for terminal in 1..=2 {
                town.terminals.insert(u64::from(id) * 10 + terminal, (id, true));
            }
        }
        for id in 1..=HOLDERS {
            town.edit_holder(random, today, id);
        }
        town
    }

    /// The same town after a few random changes that belong together.
    pub fn edited(&self, random: &mut SmallRng, today: i32) -> Town {
        let mut next = self.clone();
        for _ in 0..random.random_range(1..5) {
            next.edit(random, today);
        }
        next
    }

    fn edit(&mut self, random: &mut SmallRng, today: i32) {
        match random.random_range(0..14) {
            0..=3 => {
                let id = random_holder(random);
                self.edit_holder(random, today, id);
            }
            4 => {
                self.holders.remove(&random_holder(random));
            }
            5 => {
                let id = random.random_range(1..=CATEGORIES);
                self.edit_category(random, today, id);
            }
            6 | 7 => {
                let id = random.random_range(1..=SERVICES);
                self.edit_service(random, id);
            }
            8 => {
                let id = random.random_range(1..=ORGANIZATIONS);
                self.edit_organization(random, id);
            }
            9 => {
                let key =
                    (random.random_range(1..=ORGANIZATIONS), random.random_range(1..=SERVICES));
                if random.random_bool(0.2) {
                    self.offers.remove(&key);
                } else if self.organizations.contains_key(&key.0) {
                    self.offers.insert(key, random_dates(random, today));
                }
            }
            10 => {
                if let Some((_, active)) = self.terminals.values_mut().choose(random) {
                    *active = random.random_bool(0.8);
                }
            }
            11 => {
                let minutes = random.random_range(-28..=28) * 30;
                self.regions.insert([14, 77, 1][random.random_range(0..3)], minutes);
            }
            12 => self.swap_cards(random),
            _ => self.exchange_organization(random),
        }
    }

    fn edit_category(&mut self, random: &mut SmallRng, today: i32, id: u32) {
        let dates =
            if random.random_bool(0.7) { (None, None) } else { random_dates(random, today) };
        self.categories.insert(id, (random.random_range(1..4), dates));
    }

    fn edit_service(&mut self, random: &mut SmallRng, id: u32) {
        let mut links = BTreeMap::new();
        for category in (1..=CATEGORIES).filter(|id| self.categories.contains_key(id)) {
            if random.random_bool(0.2) {
                continue;
            }
            let limit = random.random_bool(0.6).then(|| {
                let period = ["day", "week", "month", "year"].choose(random).unwrap();
                (random.random_range(1..4), *period)
            });
            let priority = random.random_bool(0.3).then(|| random.random_range(0..4));
            let percent = [0, 50, 100].choose(random).copied().unwrap();
            links.insert(category, Link { priority, percent, limit });
        }
        self.services.insert(id, links);
    }

    fn edit_organization(&mut self, random: &mut SmallRng, id: u32) {
        let states = ["active", "active", "active", "active", "change_pending", "excluded"];
        let served: BTreeSet<u32> = (1..=CATEGORIES).filter(|_| random.random_bool(0.8)).collect();
        let served = served.into_iter().filter(|id| self.categories.contains_key(id)).collect();
        let area = random.random_range(1..=3);
        self.organizations.insert(id, (states.choose(random).unwrap(), area, served));
    }

    fn edit_holder(&mut self, random: &mut SmallRng, today: i32, id: u64) {
        let mut cards: Vec<Card> = Vec::new();
        self.holders.remove(&id);
        for _ in 0..random.random_range(0..4) {
            let code = random.random_range(0..IDENTIFIER_COUNT);
            // A code that another holder has changes hands with this very import.
            for person in self.holders.values_mut().filter(|_| random.random_bool(0.5)) {
                person.cards.retain(|(known, ..)| *known != code);
            }
            let known = cards.iter().any(|(known, ..)| *known == code);
            if known || self.find(Identifier::Code(code)).is_some() {
                continue;
            }
            let statuses = ["active", "active", "active", "active", "blocked", "replaced"];
            let expires = random.random_bool(0.3).then(|| today + random.random_range(-2..4));
            cards.push((code, *statuses.choose(random).unwrap(), expires));
        }
        let snils = random.random_range(0..IDENTIFIER_COUNT);
        let snils = self.find(Identifier::Snils(snils)).is_none().then_some(snils);
        let rights = (0..random.random_range(2..8)).map(|_| {
            let categories = self.categories.keys().copied();
            let unlimited = random.random_bool(0.6);
            let dates = if unlimited { (None, None) } else { random_dates(random, today) };
            (categories.choose(random).unwrap(), dates)
        });
        let rights = rights.collect();
        let closed = random.random_bool(0.1);
        let region = *self.regions.keys().choose(random).unwrap();
        self.holders.insert(id, Person { closed, region, snils, cards, rights });
    }

    /// Two holders exchange their cards, so that every identifier changes hands.
    fn swap_cards(&mut self, random: &mut SmallRng) {
        let (one, other) = (random_holder(random), random_holder(random));
        let (Some(first), Some(second)) = (self.holders.get(&one), self.holders.get(&other)) else {
            return;
        };
        let (first, second) = (first.clone(), second.clone());
        let mine = Person { cards: second.cards.clone(), snils: second.snils, ..first.clone() };
        let theirs = Person { cards: first.cards, snils: first.snils, ..second };
        self.holders.insert(one, mine);
        self.holders.insert(other, theirs);
    }

    /// The last organization goes with all it has, or comes back.
    fn exchange_organization(&mut self, random: &mut SmallRng) {
        if self.organizations.remove(&ORGANIZATIONS).is_some() {
            self.offers.retain(|(organization, _), _| *organization != ORGANIZATIONS);
            self.terminals.retain(|_, (organization, _)| *organization != ORGANIZATIONS);
        } else {
            self.edit_organization(random, ORGANIZATIONS);
            self.terminals.insert(u64::from(ORGANIZATIONS) * 10 + 1, (ORGANIZATIONS, true));
            self.offers.insert((ORGANIZATIONS, 1), (None, None));
        }
    }

    /// A line that is wrong in this town, wherever in a file it stands.
    pub fn broken_line(&self, random: &mut SmallRng) -> String {
        let foreign = self.holders.values().find_map(|person| person.cards.first());
        let foreign = foreign.map_or(r#""par":"!""#.to_owned(), |(code, ..)| {
            format!(r#""client_code":"{}""#, Identifier::Code(*code).text())
        });
        let lines = [
            r#"{"kind":"holder","id":900,"region":"14","cards":[{"type":"ecs","client_code":"A B"}]}"#,
            r#"{"kind":"holder","id":900,"region":"99"}"#,
            r#"{"kind":"holder","id":900,"region":"14","categories":[{"category":99}]}"#,
            r#"{"kind":"holder","id":0,"region":"14"}"#,
            r#"{"kind":"holder","id":900,"region":"14","snils":"12345678901"}"#,
            r#"{"kind":"area","id":77,"name":"A","region":"98"}"#,
            r#"{"kind":"offer","organization":1,"service":99}"#,
            r#"{"kind":"terminal","id":99,"organization":99}"#,
            r#"{"kind":"service","id":88,"name":"S","service_kind":"visit","categories":[{"category":99}]}"#,
            r#"{"kind":"region","code":"14","deleted":true}"#,
            r#"{"kind":"area","id":88,"name":"A","region":"14","colour":1}"#,
            r#"{"kind":"planet"}"#,
            "{",
            "\u{feff}{}",
        ];
        let theft = format!(
            r#"{{"kind":"holder","id":901,"region":"14","cards":[{{"type":"ecs",{foreign}}}]}}"#
        );
        let other = lines.choose(random).unwrap();
        if random.random_bool(0.2) { theft } else { (*other).to_owned() }
    }
}

/// The lines of a file in random order, some of them blank.
pub fn shuffled(random: &mut SmallRng, mut lines: Vec<String>) -> Vec<String> {
    lines.shuffle(random);
    for _ in 0..random.random_range(0..3) {
        lines.insert(random.random_range(0..=lines.len()), String::new());
    }
    lines
}

fn random_holder(random: &mut SmallRng) -> u64 {
    random.random_range(1..=HOLDERS)
}

fn random_dates(random: &mut SmallRng, today: i32) -> Dates {
    let from = random.random_bool(0.5).then(|| today + random.random_range(-3..2));
    let to = random.random_bool(0.5).then(|| today + random.random_range(-1..4));
    match (from, to) {
        (Some(from), Some(to)) if from > to => (Some(to), Some(from)),
        dates => dates,
    }
}
