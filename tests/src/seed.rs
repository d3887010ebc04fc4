//! What a run of a random test can be told by its environment.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// The number in an environment variable, where there is one.
pub fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// A seed that is another one each time.
pub fn any() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap()
}
