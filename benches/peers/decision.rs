//! The decision in process: eligo among all holders, Cedar among those whose entities are ready.

use std::hint::black_box;
use std::time::Instant;

use benches::report::median;
use engine::command::Check;
use engine::decide::{Decision, decide, decide_all};

use crate::ROUNDS;
use crate::cedar::Cedar;
use crate::data::{Data, Unlimited};

const CHECKS: usize = 1_000_000;
const BATCH: usize = 1_000;

pub fn beside_cedar(data: &Data, holders: impl Iterator<Item = u64> + Clone) {
    let checks: Vec<Check> = holders.clone().take(CHECKS).map(|id| data.check(id)).collect();
    let cedar = Cedar::new(data, holders);
    let (mut one, mut named, mut in_order, mut all) = (vec![], vec![], vec![], vec![]);
    let (mut ours, mut together) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        ours.push(decision_nanos(data, &checks));
        together.push(batch_nanos(data, &checks));
        one.push(cedar.one());
        named.push(cedar.named());
        in_order.push(cedar.in_order());
        all.push(cedar.named_among_all());
    }
    let (by_reasons, one_by_one) = (median(&named), median(&in_order));
    println!(
        "  Cedar names the category by reasons in {by_reasons:.0} ns, one by one in {one_by_one:.0} ns"
    );
    let what = format!("the same among {} policies of all offers", cedar.policy_count());
    print(&what, &all, &ours, "≥ 100");
    let best = if by_reasons < one_by_one { named } else { in_order };
    print("decision in process, Cedar says yes or no", &one, &ours, "≥ 15");
    print("decision in process, Cedar names the category", &best, &ours, "≥ 100");
    print("decision in batches, Cedar says yes or no", &one, &together, "none");
}

/// Here the smaller figure is the better one; the ratio says how much faster eligo is.
fn print(what: &str, theirs: &[f64], ours: &[f64], target: &str) {
    let (theirs, ours) = (median(theirs), median(ours));
    let ratio = theirs / ours;
    println!("{what}: eligo {ours:.0} ns, peer {theirs:.0} ns, ratio {ratio:.1} (target {target})");
}

fn decision_nanos(data: &Data, checks: &[Check]) -> f64 {
    timed(checks, |granted| {
        for check in checks {
            let decision = decide(data.registry(), black_box(check), data.now, &Unlimited);
            *granted += usize::from(matches!(decision, Decision::Benefit(_)));
        }
    })
}

fn batch_nanos(data: &Data, checks: &[Check]) -> f64 {
    timed(checks, |granted| {
        for batch in checks.chunks(BATCH) {
            let registry = data.registry();
            decide_all(registry, black_box(batch), data.now, &Unlimited, |_, decision, _| {
                *granted += usize::from(matches!(decision, Decision::Benefit(_)));
            });
        }
    })
}

/// Nanoseconds of one of the checks that `decide_them` decides, counting what it grants.
fn timed(checks: &[Check], decide_them: impl FnOnce(&mut usize)) -> f64 {
    let mut granted = 0_usize;
    let begun = Instant::now();
    decide_them(&mut granted);
    let nanos = begun.elapsed().as_nanos() as f64;
    assert!(black_box(granted) > checks.len() / 10, "only {granted} granted");
    nanos / checks.len() as f64
}
