//! The decision in process beside a bare prototype: 1 M holders, 2 M cards, 3 M rights, random
//! identifiers. `ELIGO_BENCH_HOLDERS` changes the size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::hint::black_box;
use std::time::Instant;

use benches::population::{identifiers, keys, registry_file};
use benches::report::{median, print_figure, print_ratio, setting};
use engine::calendar::{Day, Timestamp};
use engine::command::Check;
use engine::decide::{Decision, decide, decide_all};
use engine::identifier::Digest;
use engine::ids::{OrganizationId, ServiceId, TerminalId, TransactionId};
use engine::import::Registrar;
use engine::ledger::{Ledger, LedgerSettings};
use engine::registry::Registry;
use engine::registry::writer::RegistryWriter;
use hashbrown::HashMap;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;
const CHECKS: usize = 1_000_000;
const BATCH: usize = 1_000;

fn main() {
    let holders = setting("ELIGO_BENCH_HOLDERS", 1_000_000);
    let writer = load(holders);
    let registry = writer.registry();

    let prototype = Prototype::of(registry);
    let wanted = identifiers(holders, CHECKS);
    let now = Timestamp::parse("2026-06-02T10:00:00Z").unwrap();
    let check = check_of(registry);
    let ledger = Ledger::new(LedgerSettings {
        checked_ttl_seconds: 86_400,
        transactions_max: ROUNDS * CHECKS + 1,
        shard_count: 2,
    });
    ledger.reserve_ids(TransactionId(1 << 40));
    let (mut ours, mut bare, mut together) = (vec![], vec![], vec![]);
    let (mut opened, mut digested) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        ours.push(timed(&wanted, |identifier| {
            let check = Check { identifier: *identifier, ..check };
            matches!(decide(registry, &check, now, &ledger), Decision::Benefit(_))
        }));
        together.push(timed_together(registry, &wanted, check, now, &ledger));
        bare.push(timed(&wanted, |identifier| prototype.decide(identifier, Day(20_600))));
        opened.push(timed(&wanted, |identifier| {
            let check = Check { identifier: *identifier, ..check };
            let Decision::Benefit(benefit) = decide(registry, &check, now, &ledger) else {
                return false;
            };
            ledger.open(&ledger.claim(&benefit, &check, now).unwrap());
            ledger.take_openings(usize::MAX).count() == 1
        }));
        digested.push(time_digests(&keys().identifiers));
    }
    print_ratio("decision, one by one", median(&ours), median(&bare), "ns", "≤ 1.5");
    print_ratio("decision, in batches", median(&together), median(&bare), "ns", "≤ 1.5");
    print_figure("decision with opening", median(&opened), "ns", "≤ 1000, on one core");
    print_figure("digest of a client code", median(&digested), "ns", "none");
}

fn load(holders: u64) -> RegistryWriter {
    let mut registrar = Registrar::new(RegistryWriter::default(), 0);
    let prepared = registrar.prepare(&mut registry_file(holders), &keys()).unwrap();
    registrar.record(prepared, &mut |_| true);
    registrar.into_writer()
}

/// A terminal and service of the first organization.
fn check_of(registry: &Registry) -> Check {
    let items = registry.directory().items();
    let organization = OrganizationId(1);
    let (terminal, _) =
        items.terminals.iter().find(|(_, t)| t.organization == organization && t.active).unwrap();
    let ((_, service), _) = items
        .offers
        .iter()
        .find(|((owner, _), offer)| *owner == organization && offer.validity.covers(Day(20_600)))
        .unwrap();
    let terminal: TerminalId = *terminal;
    let service: ServiceId = *service;
    Check { organization, terminal, service, identifier: Digest([0; 16]) }
}

/// Nanoseconds of one call.
fn timed(wanted: &[Digest], mut decide: impl FnMut(&Digest) -> bool) -> f64 {
    let mut granted = 0_usize;
    let begun = Instant::now();
    for batch in wanted.chunks(BATCH) {
        granted += batch.iter().filter(|identifier| decide(black_box(identifier))).count();
    }
    let nanos = begun.elapsed().as_nanos() as f64;
    assert!(black_box(granted) > wanted.len() / 10, "only {granted} granted");
    nanos / wanted.len() as f64
}

/// Nanoseconds of one decision among those of a batch.
fn timed_together(
    registry: &Registry,
    wanted: &[Digest],
    check: Check,
    now: Timestamp,
    ledger: &Ledger,
) -> f64 {
    let batches = wanted.chunks(BATCH);
    let batches: Vec<Vec<Check>> = batches
        .map(|batch| {
            batch.iter().map(|identifier| Check { identifier: *identifier, ..check }).collect()
        })
        .collect();
    let mut granted = 0_usize;
    let begun = Instant::now();
    for batch in &batches {
        decide_all(registry, black_box(batch), now, ledger, |_, decision, _| {
            granted += usize::from(matches!(decision, Decision::Benefit(_)));
        });
    }
    let nanos = begun.elapsed().as_nanos() as f64;
    assert!(black_box(granted) > wanted.len() / 10, "only {granted} granted");
    nanos / wanted.len() as f64
}

fn time_digests(key: &engine::identifier::DigestKey) -> f64 {
    let begun = Instant::now();
    for _ in 0..CHECKS {
        black_box(key.client_code(black_box("E0000ABCD1")).unwrap());
    }
    begun.elapsed().as_nanos() as f64 / CHECKS as f64
}

/// The least that a decision can be: one hash lookup, an array of holders with four inline rights,
/// a table of services.
struct Prototype {
    cards: HashMap<[u8; 16], u32, foldhash::fast::FixedState>,
    holders: Vec<BareHolder>,
    service: Vec<(u32, i32)>,
}

#[derive(Clone, Copy, Default)]
struct BareHolder {
    active: bool,
    rights: [(u32, i32, i32); 4],
}

impl Prototype {
    fn of(registry: &Registry) -> Prototype {
        let check = check_of(registry);
        let compiled = registry.directory().compiled(check.organization).unwrap();
        let offer = compiled.offer(check.service).unwrap();
        let service = offer.candidates.iter().map(|c| (c.category.0, c.priority)).collect();
        let mut cards = HashMap::default();
        let mut holders = Vec::new();
        for (_, holder) in registry.holders().iter() {
            let mut bare = BareHolder { active: !holder.is_closed(), ..BareHolder::default() };
            for (place, right) in bare.rights.iter_mut().zip(holder.rights()) {
                *place = (right.category.0, right.validity.from.0, right.validity.to.0);
            }
            for identifier in holder.identifiers() {
                cards.insert(identifier.digest().0, u32::try_from(holders.len()).unwrap());
            }
            holders.push(bare);
        }
        Prototype { cards, holders, service }
    }

    fn decide(&self, identifier: &Digest, today: Day) -> bool {
        let Some(holder) = self.cards.get(&identifier.0) else { return false };
        let holder = &self.holders[*holder as usize];
        let valid = |right: &&(u32, i32, i32)| right.1 <= today.0 && today.0 <= right.2;
        let priority = |right: &(u32, i32, i32)| {
            self.service.iter().find(|(category, _)| *category == right.0).map(|found| found.1)
        };
        let best = holder.rights.iter().filter(valid).filter_map(priority).min();
        holder.active && black_box(best).is_some()
    }
}
