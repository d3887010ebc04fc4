//! Results of a million checks of whatever comes to mind. `ELIGO_HOSTILE_SEED` repeats those of a
//! run.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use engine::limits::BATCH_CHECKS_MAX;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tests::calls::CHECKS;
use tests::seed;
use tests::stage::Stage;

#[test]
fn a_million_checks_have_documented_results() {
    const CALLS: u32 = 100;
    let seed = seed::variable("ELIGO_HOSTILE_SEED").unwrap_or_else(seed::any);
    println!("ELIGO_HOSTILE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let stage = Stage::set();
    let tokens = [&stage.o1, &stage.o2, &stage.o3];
    let mut seen = BTreeMap::new();
    for _ in 0..CALLS {
        let mut body = r#"{"checks":["#.to_owned();
        for index in 0..BATCH_CHECKS_MAX {
            body.push_str(if index > 0 { "," } else { "" });
            strange_check(&mut random, &mut body);
        }
        body.push_str("]}");
        let answer = stage.call(tokens.choose(&mut random).unwrap(), CHECKS, &body).json();
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), BATCH_CHECKS_MAX);
        for result in results {
            let code = result["resultCode"].as_u64().or_else(|| {
                assert!(result["errorCode"].is_u64(), "{result}");
                None
            });
            *seen.entry(code).or_insert(0) += 1;
        }
    }
    // The codes 3 and 4 do not exist (Y5 e), and nothing was too much for the server.
    let expected = [None, Some(0), Some(1), Some(2), Some(5), Some(7), Some(8)];
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), expected, "{seen:?}");
    assert_eq!(stage.server.log().alarms(), Vec::<String>::new());
}

/// A check of known and unknown, right and wrong things.
fn strange_check(random: &mut SmallRng, text: &mut String) {
    const IDENTIFIERS: &[&str] = &[
        r#""clientCode":"AAABBBCCC""#,
        r#""clientCode":"AAABBBCC0""#,
        r#""clientCode":"GGGHHHIII""#,
        r#""clientCode":"ZZZ""#,
        r#""clientSnils":"59492311630""#,
        r#""cardNumber":"9643901401015000019","cardSeries":"14010125""#,
        r#""cardNumber":"9643901401015000019""#,
        r#""clientCode":null"#,
        r#""clientCode":7"#,
    ];
    const LETTERS: &[u8] = b"ABCGHIZ0159 -";
    let number = |random: &mut SmallRng| match random.random_range(0..8) {
        0 => random.random::<i64>(),
        1 => random.random_range(-1..100),
        _ => *[1, 2, 3, 4, 20, 30, 99].choose(random).unwrap(),
    };
    let (service, terminal) = (number(random), number(random));
    let code: String = (0..random.random_range(0..12))
        .map(|_| char::from(*LETTERS.choose(random).unwrap()))
        .collect();
    let code = format!(r#""clientCode":"{code}""#);
    let known = random.random_ratio(4, 5);
    let identifier = IDENTIFIERS.choose(random).copied().filter(|_| known).unwrap_or(&code);
    let fields =
        format!(r#"{{"serviceId":{service},"organizationTerminalId":{terminal},{identifier}}}"#);
    text.push_str(&fields);
}
