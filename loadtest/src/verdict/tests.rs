use super::*;
use crate::audit::Audit;
use crate::downtime::{Availability, Lookout, Planned, Probed};
use crate::faults::Injected;
use crate::fixture;
use crate::run::Tallied;
use crate::tally::Carrier;

fn outcome_of(run: &Run, name: &str) -> Outcome {
    let verdict = judge(run);
    verdict.judged.iter().find(|judged| judged.name == name).unwrap().outcome
}

/// Row Y12: 10,000 requests.
fn check_share(failures: u64, expected: Outcome) {
    let run = fixture::run(10_000 - failures, failures);
    assert_eq!(outcome_of(&run, "slow or unanswered checks"), expected, "{failures}");
    assert_eq!(outcome_of(&run, "slow or unanswered checks, ecs cards"), expected, "{failures}");
    assert_eq!(judge(&run).outcome, expected, "{failures}");
}

#[test]
fn three_in_a_hundred_pass_and_one_more_fails() {
    check_share(0, Outcome::Pass);
    check_share(300, Outcome::Pass);
    check_share(301, Outcome::Fail);
    check_share(10_000, Outcome::Fail);
}

#[test]
fn slow_and_refused_requests_count_like_unanswered_ones() {
    let mut run = fixture::run(10_000, 0);
    let tally =
        Tally { right: 9_800, refused: 100, slow: 100, unanswered: 100, ..Tally::default() };
    run.tallies[0].tally = tally;
    assert_eq!(outcome_of(&run, "slow or unanswered checks"), Outcome::Pass);
    run.tallies[0].tally.slow += 1;
    assert_eq!(outcome_of(&run, "slow or unanswered checks"), Outcome::Fail);
}

#[test]
fn each_carrier_and_confirms_are_judged_on_their_own() {
    let mut run = fixture::run(10_000, 0);
    let tally = Tally { right: 90, unanswered: 10, ..Tally::default() };
    run.tallies.push(Tallied { kind: Kind::Check, carrier: Carrier::Social, tally });
    assert_eq!(outcome_of(&run, "slow or unanswered checks"), Outcome::Pass);
    assert_eq!(outcome_of(&run, "slow or unanswered checks, social cards"), Outcome::Fail);
    assert_eq!(judge(&run).outcome, Outcome::Fail);
    run.tallies[1].kind = Kind::Confirm;
    assert_eq!(outcome_of(&run, "slow or unanswered confirms"), Outcome::Fail);
}

#[test]
fn a_verdict_says_why() {
    let mut run = fixture::run(10_000, 0);
    run.is_kept_awake = true;
    let of = |run: &Run| judge(run).reasons();
    let notes = of(&run);
    assert!(notes[0].contains("never slept"), "{notes:?}");
    run.tallies[0].tally = Tally { right: 9_000, unanswered: 1_000, ..Tally::default() };
    let reasons = of(&run);
    assert!(reasons[0].starts_with("slow or unanswered checks: 10 %"), "{reasons:?}");
    assert!(reasons[1].starts_with("slow or unanswered checks, ecs cards: 10 %"), "{reasons:?}");
    assert_eq!(reasons[2..], notes);
}

#[test]
fn a_fault_that_failed_leaves_the_run_in_doubt() {
    let mut run = fixture::run(10_000, 0);
    run.faults.push(Injected {
        name: "kill".into(),
        at_seconds: 1.0,
        took_seconds: 0.1,
        exit_code: Some(0),
        output: String::new(),
    });
    assert_eq!(judge(&run).outcome, Outcome::Pass);
    run.faults[0].exit_code = None;
    let verdict = judge(&run);
    assert_eq!(verdict.outcome, Outcome::NotEnoughData);
    assert!(verdict.notes.iter().any(|note| note == "the fault `kill` failed"));
}

/// Once a full disk of the tester lost the whole run.
#[test]
fn what_the_tester_could_not_do_leaves_the_run_in_doubt() {
    let mut run = fixture::run(10_000, 0);
    run.failures.push("the disk is full".into());
    let verdict = judge(&run);
    assert_eq!((verdict.outcome, verdict.exit_code()), (Outcome::NotEnoughData, 3));
    assert!(verdict.notes.contains(&"the disk is full".into()));
    // What was missed is missed.
    run.tallies[0].tally.wrong = 1;
    assert_eq!(judge(&run).exit_code(), 1);
}

#[test]
fn too_few_requests_say_nothing() {
    assert_eq!(judge(&fixture::run(98, 0)).outcome, Outcome::NotEnoughData);
    assert_eq!(judge(&fixture::run(96, 2)).outcome, Outcome::NotEnoughData);
    assert_eq!(judge(&fixture::run(10, 80)).outcome, Outcome::Fail);
    assert_eq!(judge(&fixture::run(99, 0)).outcome, Outcome::Pass);
    assert_eq!(judge(&fixture::run(0, 0)).exit_code(), 3);
}

/// Row Y12: minutes in a month of service, to the minute.
fn check_downtime(month: u32, minutes: u32, expected: Outcome) {
    let mut run = fixture::run(10_000, 0);
    run.terms.month_of_service = month;
    let end = 43_200.0 * 60.0;
    let probes: Lookout = (0..43_200 * 12)
        .map(|probe: u32| Probed {
            at_seconds: f64::from(probe) * 5.0,
            took_seconds: (probe >= minutes * 12).then_some(0.01),
        })
        .collect();
    run.availability = Some(Availability::of(&probes, end, &[]));
    assert_eq!(outcome_of(&run, "downtime"), expected, "month {month}: {minutes}");
    let exit_code = if expected == Outcome::Pass { 0 } else { 1 };
    assert_eq!(judge(&run).exit_code(), exit_code);
    // What was announced a day before is excluded, with 23 hours it is not.
    for (notice, expected) in [(86_400.0, Outcome::Pass), (82_800.0, expected)] {
        let window =
            Planned { announced_seconds: -notice, from_seconds: 0.0, to_seconds: 100_000.0 };
        run.availability = Some(Availability::of(&probes, end, &[window]));
        assert_eq!(outcome_of(&run, "downtime"), expected, "month {month}: {minutes}");
    }
}

#[test]
fn downtime_is_judged_by_the_minutes_of_the_month() {
    check_downtime(1, 1_296, Outcome::Pass);
    check_downtime(1, 1_297, Outcome::Fail);
    check_downtime(3, 1_296, Outcome::Pass);
    check_downtime(3, 1_297, Outcome::Fail);
    check_downtime(4, 432, Outcome::Pass);
    check_downtime(4, 433, Outcome::Fail);
}

/// Once a minute without any answer held the limit of 432 minutes, because it is less.
#[test]
fn downtime_that_would_not_last_a_month_never_passes() {
    let check = |down: u32, minutes: u32, expected: Outcome| {
        let probes = (0..minutes * 12).map(|probe| Probed {
            at_seconds: f64::from(probe) * 5.0,
            took_seconds: (probe >= down).then_some(0.01),
        });
        let mut run = fixture::run(10_000, 0);
        let end = f64::from(minutes) * 60.0;
        run.availability = Some(Availability::of(&probes.collect(), end, &[]));
        assert_eq!(outcome_of(&run, "downtime"), expected, "{down} of {minutes} min");
    };
    check(12, 1, Outcome::NotEnoughData);
    check(0, 1, Outcome::Pass);
    // One probe is no outage.
    check(1, 1, Outcome::Pass);
    // 1 %, and a probe more.
    check(12, 100, Outcome::Pass);
    check(13, 100, Outcome::NotEnoughData);
    check(432 * 12, 43_199, Outcome::NotEnoughData);
    check(433 * 12, 500, Outcome::Fail);
}

#[test]
fn a_probe_that_saw_too_much_says_so() {
    let mut run = fixture::run(10_000, 0);
    let seen = run.availability.as_mut().unwrap();
    (seen.is_cut, seen.observed_seconds) = (true, 7.5);
    let note = "too many outages to keep: downtime is that of the first 7.5 s";
    assert!(judge(&run).notes.iter().any(|known| known == note));
}

#[test]
fn without_a_probe_downtime_is_unknown() {
    let mut run = fixture::run(10_000, 0);
    let mut check = |seen: Option<Availability>, expected: &str| {
        run.availability = seen;
        let verdict = judge(&run);
        let downtime = verdict.judged.iter().find(|judged| judged.id == "downtime").unwrap();
        assert_eq!((downtime.measured.as_str(), verdict.exit_code()), (expected, 3));
    };
    check(None, "no probes");
    let one = Probed { at_seconds: 0.0, took_seconds: Some(0.001) };
    check(Some(Availability::of(&[one].into_iter().collect(), 3.0, &[])), "1 probe, 2 are needed");
}

#[test]
fn one_wrong_answer_fails_a_run() {
    let mut run = fixture::run(10_000, 0);
    run.tallies[0].tally.wrong = 1;
    assert_eq!(judge(&run).exit_code(), 1);
}

#[test]
fn what_the_audit_finds_fails_a_run() {
    let mut run = fixture::run(100_000, 0);
    run.audit = Some(Audit { acknowledged: 5, ..Audit::default() });
    assert_eq!(judge(&run).exit_code(), 0);
    for audit in [
        Audit { lost: 1, ..Audit::default() },
        Audit { doubled: 1, ..Audit::default() },
        Audit { phantom: 1, ..Audit::default() },
    ] {
        run.audit = Some(audit);
        assert_eq!(judge(&run).exit_code(), 1, "{audit:?}");
    }
}

#[test]
fn a_history_that_was_not_read_proves_nothing() {
    let mut run = fixture::run(100_000, 0);
    run.audit = Some(Audit { acknowledged: 5, unchecked_holders: 1, ..Audit::default() });
    assert_eq!(judge(&run).exit_code(), 3);
    assert_eq!(outcome_of(&run, "lost confirms"), Outcome::NotEnoughData);
    // What was found in the rest counts.
    run.audit = Some(Audit { lost: 1, unchecked_holders: 1, ..Audit::default() });
    assert_eq!(judge(&run).exit_code(), 1);
}

/// Once phantoms and doubles passed wherever others could record, too.
#[test]
fn a_confirm_that_nobody_explains_is_not_taken_for_others() {
    let mut run = fixture::run(100_000, 0);
    run.audit = Some(Audit { acknowledged: 5, unexplained: 1, ..Audit::default() });
    assert_eq!(judge(&run).exit_code(), 3);
    for (name, expected) in [
        ("doubled confirms", Outcome::NotEnoughData),
        ("lost confirms", Outcome::Pass),
        ("phantom confirms", Outcome::NotEnoughData),
    ] {
        assert_eq!(outcome_of(&run, name), expected, "{name}");
    }
    run.audit = Some(Audit { phantom: 1, unexplained: 1, ..Audit::default() });
    assert_eq!(judge(&run).exit_code(), 1);
}

#[test]
fn a_late_generator_blames_nobody_for_time() {
    let mut run = fixture::run(9_000, 1_000);
    run.seconds[0].lateness_p99 = 1_000_001;
    let verdict = judge(&run);
    assert_eq!((verdict.tainted_seconds, verdict.exit_code()), (1, 3));
    let timed = verdict.judged.iter().filter(|judged| judged.name != "wrong answers");
    assert!(timed.clone().all(|judged| judged.outcome == Outcome::NotEnoughData));
    // What it answered wrongly stays wrong.
    run.tallies[0].tally.wrong = 1;
    assert_eq!(judge(&run).exit_code(), 1);
    // One second of twenty is 5 % and bears a verdict.
    let mut run = fixture::run(10_000, 0);
    run.seconds.extend(run.seconds.clone());
    run.seconds[0].lateness_p99 = 1_000_001;
    assert_eq!(judge(&run).exit_code(), 0);
}

#[test]
fn the_strict_set_is_shown_and_decides_only_when_asked() {
    let mut run = fixture::timed((0..100_000).map(|one| if one < 100 { 200_000_000 } else { 1 }));
    assert_eq!(outcome_of(&run, "99.99 % within 100 ms"), Outcome::Fail);
    assert_eq!(judge(&run).exit_code(), 0);
    run.terms.strict = true;
    assert_eq!(judge(&run).exit_code(), 1);
    // Nobody compared the history: with the strict set that is not enough.
    let mut run = fixture::timed((0..100_000).map(|_| 1));
    run.terms.strict = true;
    assert_eq!(judge(&run).exit_code(), 3);
    run.audit = Some(Audit::default());
    assert_eq!(judge(&run).exit_code(), 0);
}

fn with(mut run: Run, limit: Limit) -> Outcome {
    let objective = Objective::new("own", limit);
    assert_eq!(objective.fault(), None);
    run.terms.objectives = vec![objective];
    outcome_of(&run, "own")
}

#[test]
fn a_share_of_ones_own_is_judged_by_its_bound() {
    let share = |failures: u64| {
        let run = fixture::run(10_000 - failures, failures);
        let limit = Limit::Share { above_ms: 3_000.0, percent_max: 3.0, confidence_percent: 95.0 };
        with(run, limit)
    };
    // The exact bounds around 300 of 10,000.
    assert_eq!(share(271), Outcome::Pass);
    assert_eq!(share(300), Outcome::NotEnoughData);
    assert_eq!(share(330), Outcome::Fail);
}

#[test]
fn the_gates_of_a_stalling_server_tell_apart_one_and_three_percent() {
    let stalling =
        || fixture::timed((0..120_000).map(|one| if one < 2_484 { 150_000_000 } else { 1 }));
    let gate = |percent_max| {
        let limit = Limit::Share { above_ms: 100.0, percent_max, confidence_percent: 95.0 };
        with(stalling(), limit)
    };
    assert_eq!((gate(1.0), gate(3.0)), (Outcome::Fail, Outcome::Pass));
}

#[test]
fn a_percentile_needs_ten_answers_beyond_and_counts_the_missing() {
    let p99 = |run| with(run, Limit::Percentile { percentile: 99.0, ms_max: 1.5 });
    assert_eq!(p99(fixture::run(999, 0)), Outcome::NotEnoughData);
    assert_eq!(p99(fixture::run(1_000, 0)), Outcome::Pass);
    assert_eq!(p99(fixture::run(990, 10)), Outcome::Pass);
    assert_eq!(p99(fixture::run(989, 11)), Outcome::Fail);
}

#[test]
fn a_budget_and_its_burning_are_limits_too() {
    let budget = |failures: u64, used_percent_max| {
        let limit = Limit::Budget {
            above_ms: 3_000.0,
            percent_max: 3.0,
            used_percent_max,
            confidence_percent: 95.0,
        };
        with(fixture::run(10_000 - failures, failures), limit)
    };
    assert_eq!(budget(100, 50.0), Outcome::Pass);
    assert_eq!(budget(200, 50.0), Outcome::Fail);
    let burning = |minutes| Limit::BurnRate {
        percent_max: 3.0,
        rate_max: 14.4,
        long_minutes: minutes,
        short_minutes: 5,
    };
    assert_eq!(with(fixture::run(10_000, 0), burning(60)), Outcome::NotEnoughData);
}

#[test]
fn the_table_says_the_verdict_last() {
    let table = table(&judge(&fixture::run(9_700, 300)));
    assert!(table.starts_with("objective"), "{table}");
    assert!(table.contains("3 % (300 of 10000)"), "{table}");
    assert!(table.contains("≤ 432 min/month (1 %)"), "{table}");
    assert!(table.contains("verdict: pass"), "{table}");
}
