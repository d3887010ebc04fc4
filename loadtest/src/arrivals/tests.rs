use std::io::Write;

use proptest::prelude::*;

use super::*;

const MINUTE: Nanos = Nanos::from_seconds(60);

fn arrivals(toml: &str) -> Result<Arrivals, String> {
    toml::from_str(toml).map_err(|error| error.to_string())
}

fn dues(toml: &str, seed: u64) -> Vec<u64> {
    let plan = arrivals(toml).unwrap().plan(MINUTE, seed).unwrap();
    plan.map(|due| due.0).collect()
}

#[test]
fn even_plans_follow_their_rates() {
    let check = |toml: &str, expected: usize| assert_eq!(dues(toml, 1).len(), expected, "{toml}");
    check("kind = 'constant'\nrate = 100", 6_000);
    check("kind = 'constant'\nrate = 0.5", 30);
    check("kind = 'ramp'\nfrom = 0\nto = 100", 3_000);
    check("kind = 'ramp'\nfrom = 100\nto = 0", 3_000);
    check("kind = 'steps'\nrates = [10, 0, 20]\nstep_seconds = 10", 600);
    check("kind = 'burst'\nbase = 10\nrate = 100\nevery_seconds = 20\nburst_seconds = 5", 1_950);
    let constant = dues("kind = 'constant'\nrate = 2000", 1);
    assert_eq!(constant[..3], [0, 500_000, 1_000_000]);
    // The second step begins at 10 s and is silent.
    let steps = dues("kind = 'steps'\nrates = [10, 0, 20]\nstep_seconds = 10", 1);
    assert!(steps.iter().all(|due| !(10_000_000_000..20_000_000_000).contains(due)));
}

#[test]
fn a_peak_hour_is_highest_in_its_middle() {
    let dues = dues("kind = 'peak_hour'\nbase = 100\npeak = 1000", 1);
    let within = |from: u64, to: u64| {
        dues.iter().filter(move |due| (from..to).contains(&(**due / 1_000_000_000)))
    };
    assert_eq!(within(26, 36).count(), 10_000);
    assert!(within(0, 5).count() < 1_000);
}

#[test]
fn mistakes_are_told_in_clear() {
    let check = |toml: &str, part: &str| {
        let error = arrivals(toml).unwrap_err();
        assert!(error.contains(part), "{toml}: {error}");
    };
    check("kind = 'constant'\nrate = 0", "`rate` is 0; it must be above 0");
    check("kind = 'constant'\nrate = -5", "`rate` is -5");
    check("kind = 'poisson'\nrate = nan", "`rate` is NaN");
    check("kind = 'poisson'\nrate = inf", "`rate` is inf");
    check("kind = 'poisson'\nrate = 10000001", "at most 10000000");
    check("kind = 'ramp'\nfrom = 0\nto = 0", "no request is ever due");
    check("kind = 'ramp'\nfrom = -1\nto = 5", "`from` is -1");
    check("kind = 'steps'\nrates = []\nstep_seconds = 1", "0 steps");
    check("kind = 'steps'\nrates = [1]\nstep_seconds = 0", "`step_seconds` is 0");
    check(
        "kind = 'burst'\nbase = 1\nrate = 2\nevery_seconds = 5\nburst_seconds = 5",
        "must be below",
    );
    check("kind = 'constant'\nrate = 5\nspeed = 2", "unknown field");
    check("kind = 'gentle'", "unknown variant");
    check("kind = 'replay'\nfile = 'x'\nspeed = 0", "`speed` is 0");
}

#[test]
fn a_trace_is_replayed_at_its_speed() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"0\n0.5\n1500000000ns\n1.5\n90\n").unwrap();
    let shape = |speed| Shape::Replay { file: file.path().to_owned(), speed };
    let dues = |speed| {
        let arrivals = Arrivals::try_from(shape(speed)).unwrap();
        arrivals.plan(MINUTE, 1).unwrap().map(|due| due.0).collect::<Vec<_>>()
    };
    assert_eq!(dues(1.0), [0, 500_000_000, 1_500_000_000, 1_500_000_000]);
    assert_eq!(dues(2.0), [0, 250_000_000, 750_000_000, 750_000_000, 45_000_000_000]);
}

#[test]
fn a_wrong_trace_stops_before_the_run() {
    let check = |text: &[u8], expected: Option<u64>| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let arrivals =
            Arrivals::try_from(Shape::Replay { file: file.path().to_owned(), speed: 1.0 }).unwrap();
        match arrivals.plan(MINUTE, 1) {
            Ok(_) => assert_eq!(expected, None),
            Err(ArrivalsError::TraceWrong(line)) => assert_eq!(Some(line), expected),
            Err(error) => panic!("{error}"),
        }
    };
    check(b"", None);
    check(b"1\n2\n2", None);
    check(b"1\n0.5\n", Some(2));
    check(b"1\n\n2\n", Some(2));
    check(b"1\nx\n", Some(2));
    check(&[b'1'; 1_000], Some(1));
    check(b"\xff\n", Some(1));
}

/// Everything that can be drawn, with the number of requests that a minute of it holds.
fn any_shape() -> impl Strategy<Value = (Shape, f64)> {
    let spacing = prop_oneof![Just(Spacing::Even), Just(Spacing::Random)];
    (0.0..1_000.0, 1.0..1_000.0, 1.0..60.0, spacing, 0..6_u8).prop_map(
        |(low, high, seconds, spacing, which): (f64, f64, f64, Spacing, u8)| match which {
            0 => (Shape::Constant { rate: high }, high * 60.0),
            1 => (Shape::Poisson { rate: high }, high * 60.0),
            2 => (Shape::Ramp { from: low, to: high, spacing }, (low + high) * 30.0),
            3 => {
                let shape = Shape::Burst {
                    base: low,
                    rate: high,
                    every_seconds: 15.0,
                    burst_seconds: seconds / 5.0,
                    spacing,
                };
                (shape, 4.0 * (low * (15.0 - seconds / 5.0) + high * seconds / 5.0))
            }
            4 => {
                let shares: f64 = PEAK_HOUR.windows(2).map(|ends| (ends[0] + ends[1]) / 2.0).sum();
                let requests = 60.0 * low + 5.0 * (high - low) * shares;
                (Shape::PeakHour { base: low, peak: high, spacing }, requests)
            }
            _ => {
                let rates = vec![low, high, 0.0];
                (Shape::Steps { rates, step_seconds: 10.0, spacing }, 20.0 * (low + high))
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plans_follow_the_curve_ascend_and_repeat((shape, expected) in any_shape(), seed: u64) {
        let is_random = matches!(
            shape,
            Shape::Poisson { .. }
                | Shape::Burst { spacing: Spacing::Random, .. }
                | Shape::PeakHour { spacing: Spacing::Random, .. }
                | Shape::Ramp { spacing: Spacing::Random, .. }
                | Shape::Steps { spacing: Spacing::Random, .. }
        );
        let arrivals = Arrivals::try_from(shape).unwrap();
        let plan = |seed| arrivals.plan(MINUTE, seed).unwrap().collect::<Vec<_>>();
        let dues = plan(seed);
        prop_assert_eq!(&dues, &plan(seed));
        prop_assert!(dues.is_sorted());
        prop_assert!(dues.iter().all(|due| *due < MINUTE));
        // Six standard deviations of a Poisson count.
        let allowed = if is_random { 6.0 * expected.sqrt() + 2.0 } else { 2.0 };
        prop_assert!((dues.len() as f64 - expected).abs() <= allowed, "{} {expected}", dues.len());
        if is_random && dues.len() > 10 {
            prop_assert_ne!(&dues, &plan(seed.wrapping_add(1)));
        }
    }
}
