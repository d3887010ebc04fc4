//! Properties of the core, each over a few hundred random cases that are the same in every run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use engine::calendar::{Day, Timestamp};
use engine::command::{Cancel, Check, Confirm, SettleAnswer};
use engine::decide::{Benefit, Decision, LimitKey, LimitedPlace, Places, Verdict, decide, explain};
use engine::identifier::Digest;
use engine::ids::{
    CategoryId, HolderId, Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId,
};
use engine::import::{ImportError, Recorded, Registrar};
use engine::ledger::{BatchMark, Entry, Ledger, LedgerSettings};
use engine::plan::{Plan, plan_cancel, plan_confirm};
use engine::registry::writer::RegistryWriter;
use engine::transaction::{Amounts, Event, LimitPeriod};
use tests::simulation::book::Book;
use tests::simulation::edit::{ORGANIZATIONS, SERVICES, shuffled};
use tests::simulation::town::{IDENTIFIER_COUNT, Identifier, Question, Town, keys};

const TODAY: i32 = 20_241;
const TTL_SECONDS: i64 = 3_600;
const PLACES: u32 = 2;

fn config(cases: u32) -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(2_025);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

fn random_town(seed: u64) -> (SmallRng, Town) {
    let mut random = SmallRng::seed_from_u64(seed);
    let town = Town::random(&mut random, TODAY).edited(&mut random, TODAY);
    (random, town)
}

fn import(registrar: &mut Registrar, lines: &[String]) -> Result<u64, ImportError> {
    let file = lines.join("\n");
    let prepared = registrar.prepare(&mut file.as_bytes(), &keys())?;
    let changes = prepared.changes;
    assert_eq!(registrar.record(prepared, &mut |_| true), Recorded::Committed);
    Ok(changes)
}

fn registrar_of(lines: &[String]) -> Registrar {
    let mut registrar = Registrar::new(RegistryWriter::default(), 0);
    import(&mut registrar, lines).unwrap();
    registrar
}

/// Some places taken, by the look of the key.
struct Crowd;

impl Crowd {
    fn taken(key: &LimitKey) -> usize {
        let mixed = key.holder.0 + u64::from(key.service.0) + u64::from(key.category.0);
        usize::try_from(mixed % 4).unwrap()
    }
}

impl Places for Crowd {
    fn has_free(&self, place: &LimitedPlace, _: Timestamp) -> bool {
        Crowd::taken(&place.key) < usize::try_from(place.count).unwrap()
    }
}

fn random_question(random: &mut SmallRng) -> Question {
    let organization = random.random_range(0..=ORGANIZATIONS);
    let owner = if random.random_bool(0.9) { organization } else { 1 };
    let number = random.random_range(0..IDENTIFIER_COUNT);
    let by_code = random.random_bool(0.5);
    Question {
        organization,
        terminal: u64::from(owner) * 10 + random.random_range(1..=3) % 3,
        service: random.random_range(0..=SERVICES),
        identifier: if by_code { Identifier::Code(number) } else { Identifier::Snils(number) },
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn the_decision_is_the_naive_one_and_the_explanation_agrees(seed: u64) {
        let (mut random, town) = random_town(seed);
        let lines: Vec<String> = town.lines().into_values().collect();
        let registrar = registrar_of(&lines);
        for _ in 0..200 {
            let question = random_question(&mut random);
            let hours = random.random_range(-4 * 24..4 * 24);
            let noon = Timestamp(i64::from(TODAY) * 86_400_000_000);
            let now = noon.plus_seconds(hours * 3_600 - random.random_range(0..2));
            let check = question.check();
            let decision = decide(registrar.registry(), &check, now, &Crowd);
            let told = explain(registrar.registry(), &check, now, &Crowd);
            let wins = |(_, verdict): &&(CategoryId, Verdict)| *verdict == Verdict::Wins;
            let winners: Vec<_> = told.categories.iter().filter(wins).collect();
            match (town.decide(&question, now, Crowd::taken), decision) {
                (Err(expected), Decision::Refused(refusal)) => {
                    prop_assert_eq!(expected, refusal);
                    prop_assert_eq!(told.refusal, Some(refusal));
                    prop_assert!(winners.is_empty());
                }
                (Ok(expected), Decision::Benefit(benefit)) => {
                    prop_assert_eq!(expected.holder, benefit.holder.0);
                    prop_assert_eq!(expected.category, benefit.category.0);
                    let place = benefit.limit.map(|place| (place.key, place.count));
                    prop_assert_eq!(expected.place, place);
                    prop_assert_eq!(told.refusal, None);
                    let winners: Vec<_> = winners.iter().map(|(category, _)| *category).collect();
                    prop_assert_eq!(winners, vec![benefit.category]);
                }
                (expected, decision) => prop_assert!(false, "{decision:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn an_import_is_the_same_in_any_order_and_changes_nothing_twice(seed: u64) {
        let (mut random, town) = random_town(seed);
        let lines: Vec<String> = town.lines().into_values().collect();
        let mut registrar = registrar_of(&shuffled(&mut random, lines.clone()));
        town.assert_is(registrar.registry());
        let next = town.edited(&mut random, TODAY);
        let changes = town.lines_to(&next);
        for _ in 0..2 {
            let mut other = registrar_of(&lines);
            import(&mut other, &shuffled(&mut random, changes.clone())).unwrap();
            next.assert_is(other.registry());
            let revision = other.registry().id();
            let all = shuffled(&mut random, next.lines().into_values().collect());
            prop_assert_eq!(import(&mut other, &all).unwrap(), 0);
            prop_assert_eq!(import(&mut other, &changes).unwrap(), 0);
            prop_assert!(other.registry().id() > revision, "committed, though nothing changed");
        }
        let changed = u64::try_from(changes.len()).unwrap();
        prop_assert_eq!(import(&mut registrar, &changes).unwrap(), changed);
        next.assert_is(registrar.registry());
    }

    #[test]
    fn a_wrong_line_is_named_and_nothing_is_changed(seed: u64) {
        let (mut random, town) = random_town(seed);
        let lines: Vec<String> = town.lines().into_values().collect();
        let mut registrar = registrar_of(&lines);
        for _ in 0..20 {
            let next = town.edited(&mut random, TODAY);
            let mut lines = shuffled(&mut random, town.lines_to(&next));
            let broken = next.broken_line(&mut random);
            // Of two lines that exclude each other the later one is named, whichever is meant.
            let is_alone = !lines.iter().any(|line| excludes(line, &broken));
            let at = if is_alone { random.random_range(0..=lines.len()) } else { lines.len() };
            lines.insert(at, broken);
            match import(&mut registrar, &lines) {
                Err(ImportError::Rejected(errors)) => {
                    let named: BTreeSet<u64> = errors.iter().map(|error| error.line).collect();
                    let expected = BTreeSet::from([u64::try_from(at).unwrap() + 1]);
                    prop_assert_eq!(named, expected, "{}\n{:?}", lines.join("\n"), errors);
                }
                other => prop_assert!(false, "{other:?}"),
            }
            town.assert_is(registrar.registry());
        }
    }
}

/// Whether two lines speak of the same region or the same card.
fn excludes(line: &str, broken: &str) -> bool {
    let code = broken.split("client_code\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let same_code = code.is_some_and(|code| line.contains(&format!("\"{code}\"")));
    same_code || broken.contains(r#""region","code""#) && line.contains(r#""region","code":"14""#)
}

fn settings() -> LedgerSettings {
    LedgerSettings { checked_ttl_seconds: TTL_SECONDS, transactions_max: 10_000, shard_count: 2 }
}

fn ledger() -> Ledger {
    let ledger = Ledger::new(settings());
    ledger.reserve_ids(TransactionId(1_000_000));
    ledger
}

/// A right of one of two holders, whose uses are limited.
fn benefit(holder: u64) -> Benefit {
    let (holder, service, category) = (HolderId(holder), ServiceId(1), CategoryId(1));
    let period = LimitPeriod { first: Day(TODAY), last: Day(TODAY + 6) };
    let key = LimitKey { holder, service, category, period };
    let limit = Some(LimitedPlace { key, count: PLACES });
    Benefit { holder, category, discount_percent: 100, limit }
}

fn check() -> Check {
    Check {
        organization: OrganizationId(1),
        terminal: TerminalId(2),
        service: ServiceId(1),
        identifier: Digest([0; 16]),
    }
}

/// A ledger under random commands beside a plain book; every event that came of them.
struct Desk {
    random: SmallRng,
    ledger: Ledger,
    book: Book,
    now: Timestamp,
    events: Vec<Event>,
    ids: Vec<(TransactionId, HolderId)>,
}

impl Desk {
    fn new(seed: u64) -> Desk {
        Desk {
            random: SmallRng::seed_from_u64(seed),
            ledger: ledger(),
            book: Book::new(TTL_SECONDS),
            now: Timestamp(i64::from(TODAY) * 86_400_000_000),
            events: Vec::new(),
            ids: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..10) {
            0..4 => self.claim(),
            4..6 => self.settle(true),
            6..8 => self.settle(false),
            _ => {
                // Over the time to live, and back by minutes.
                let seconds = self.random.random_range(-600..TTL_SECONDS / 2);
                self.now = self.now.plus_seconds(seconds);
            }
        }
        for holder in 1..=2 {
            let place = benefit(holder).limit.unwrap();
            let taken = self.book.taken(&place.key, self.now);
            assert!(taken <= usize::try_from(PLACES).unwrap(), "{taken} uses of {PLACES}");
            let is_free = taken < usize::try_from(PLACES).unwrap();
            assert_eq!(self.ledger.has_free(&place, self.now), is_free);
        }
    }

    fn claim(&mut self) {
        let benefit = benefit(self.random.random_range(1..=2));
        let is_free = self.ledger.has_free(&benefit.limit.unwrap(), self.now);
        let claimed = self.ledger.claim(&benefit, &check(), self.now);
        assert_eq!(claimed.is_ok(), is_free);
        if let Ok(transaction) = claimed {
            self.ledger.open(&transaction);
            self.book.open(transaction);
            self.events.push(Event::Opened(transaction));
            self.ids.push((transaction.id, transaction.holder));
        }
    }

    fn settle(&mut self, confirms: bool) {
        let Some((transaction, holder)) = self.ids.choose(&mut self.random).copied() else {
            return;
        };
        let (organization, category) = (OrganizationId(1), CategoryId(1));
        let price = Some(Kopecks(self.random.random_range(1..3)));
        let amounts = Amounts { price, discounted_price: None };
        let confirm = Confirm { organization, transaction, holder, category, amounts };
        let cancel = Cancel { organization, transaction, holder };
        let (ledger, now) = (&self.ledger, self.now);
        let entry = ledger.entry(transaction);
        let is_expired = |open: &_| ledger.is_expired(open, now);
        let (plan, expected) = if confirms {
            let plan = plan_confirm(entry.as_ref(), &confirm, now, is_expired);
            (plan, self.book.confirm(&confirm, now))
        } else {
            let plan = plan_cancel(entry.as_ref(), &cancel, now, is_expired);
            (plan, self.book.cancel(&cancel, now))
        };
        match plan {
            Plan::Answer(answer) => assert_eq!(answer, expected),
            Plan::Apply(event) => {
                assert_eq!(expected, SettleAnswer::Done);
                self.ledger.apply(&event, BatchMark::default());
                self.events.push(event);
            }
        }
    }
}

/// Everything that can be seen of a ledger.
fn state(ledger: &Ledger, now: Timestamp) -> (BTreeMap<TransactionId, Entry>, String) {
    let mut entries = BTreeMap::new();
    ledger.for_each_entry(|id, entry| {
        entries.insert(id, entry.clone());
    });
    let mut spent = BTreeSet::new();
    ledger.for_each_spent(|key, id| assert!(spent.insert((*key, id)), "{id} is spent twice"));
    let free = [1, 2].map(|holder| {
        let LimitedPlace { key, .. } = benefit(holder).limit.unwrap();
        let has_free = |count: &u32| ledger.has_free(&LimitedPlace { key, count: *count }, now);
        (1..100).find(has_free)
    });
    assert_eq!(ledger.transaction_count(), entries.len());
    (entries, format!("{spent:?} {free:?}"))
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn places_are_never_more_than_there_are(seed: u64) {
        let mut desk = Desk::new(seed);
        (0..150).for_each(|_| desk.step());
    }

    #[test]
    fn applying_again_changes_nothing(seed: u64, cut in 0.0..1.0_f64) {
        let mut desk = Desk::new(seed);
        (0..60).for_each(|_| desk.step());
        let now = desk.now;
        let expected = state(&desk.ledger, now);
        let apply = |ledger: &Ledger, event| ledger.apply(event, BatchMark::default());
        let once = ledger();
        desk.events.iter().for_each(|event| apply(&once, event));
        prop_assert_eq!(&state(&once, now), &expected);
        let twice = ledger();
        for event in &desk.events {
            apply(&twice, event);
            apply(&twice, event);
        }
        prop_assert_eq!(&state(&twice, now), &expected);
        // A snapshot holds effects of what is replayed over it.
        let replayed = ledger();
        let count = desk.events.len();
        let from = (0..count).find(|at| *at as f64 >= cut * count as f64).unwrap_or(count);
        desk.events.iter().for_each(|event| apply(&replayed, event));
        desk.events[from..].iter().for_each(|event| apply(&replayed, event));
        desk.events[..from].iter().for_each(|event| apply(&replayed, event));
        prop_assert_eq!(&state(&replayed, now), &expected);
    }
}

#[test]
fn the_last_place_goes_to_one_of_many_threads() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 300;
    let ledger = ledger();
    let now = Timestamp(i64::from(TODAY) * 86_400_000_000);
    let barrier = Barrier::new(THREADS);
    let claims = || -> usize {
        let mut won = 0;
        for holder in 1..=ROUNDS {
            barrier.wait();
            let benefit = benefit(holder);
            while ledger.has_free(&benefit.limit.unwrap(), now) {
                if let Ok(transaction) = ledger.claim(&benefit, &check(), now) {
                    ledger.open(&transaction);
                    won += 1;
                }
            }
        }
        won
    };
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(claims)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let places = ROUNDS * u64::from(PLACES);
    assert_eq!(u64::try_from(won).unwrap(), places);
    let mut ids = BTreeSet::new();
    ledger.for_each_entry(|id, _| assert!(ids.insert(id)));
    assert_eq!(u64::try_from(ids.len()).unwrap(), places);
}
