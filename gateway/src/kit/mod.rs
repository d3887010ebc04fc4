//! The offline kit: holder registries for validators, and the signing of tickets.
//!
//! One build makes a registry of one version for every organization that has active terminals and
//! offers services of the configured kinds. It goes over the holders once ([`population`]), puts
//! every card into one of few classes with the same rights, and then writes a file for each
//! organization from the sorted list of identifiers, with the organization's own view of each class
//! ([`offers`]). It reads one revision of the registry, which never changes, on a background thread:
//! no shard and no check waits for it.
//!
//! A build of a million holders holds 50 MB, whatever the number of organizations.
//!
//! # Map
//! [`builder`] builds, [`store`] keeps files and deltas, [`registries`] is what the link, the trips
//! and the administration ask, [`schedule`] decides when.

pub mod builder;
pub mod judge;
pub mod metrics;
pub mod offers;
pub mod population;
pub mod registries;
pub mod schedule;
pub mod settings;
pub mod store;

use engine::calendar::{Day, Timestamp, UtcOffset};
use engine::directory::ServiceKind;

/// How registries are built and kept.
#[derive(Clone, Debug)]
pub struct KitSettings {
    /// Times of the day in UTC, minutes after midnight; none: on demand only. Where there are some, the
    /// first registry is built as soon as there is an organization to build it for.
    pub build_at: Vec<u16>,
    /// Whether every import is followed by a build.
    pub after_import: bool,
    /// How long a registry is valid.
    pub valid_hours: u16,
    /// Versions of an organization that are kept, so that trips can be judged by them.
    pub keep_versions: usize,
    /// Versions before the newest from which there is a delta.
    pub delta_versions: usize,
    /// Bytes of all files; past it the oldest versions go earlier.
    pub bytes_max: u64,
    /// What is built.
    pub content: ContentSettings,
}

/// What stands in a registry.
#[derive(Clone, Debug)]
pub struct ContentSettings {
    /// The kinds of services.
    pub kinds: Vec<ServiceKind>,
    /// Whether a device may grant alone what is limited in its uses.
    pub limited_offline: bool,
}

/// The dates that matter to a registry, both included: rights that begin before them or end behind
/// them have no such end in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// The first.
    pub first: Day,
    /// The last.
    pub last: Day,
}

impl Window {
    /// The dates between two instants on a wall.
    pub fn local(from: Timestamp, to: Timestamp, offset: UtcOffset) -> Window {
        Window { first: from.local_day(offset), last: to.local_day(offset) }
    }

    /// The dates between two instants anywhere in the world.
    pub fn anywhere(from: Timestamp, to: Timestamp) -> Window {
        const WIDEST: i32 = 14 * 3_600;
        Window { first: from.local_day(UtcOffset(-WIDEST)), last: to.local_day(UtcOffset(WIDEST)) }
    }

    /// What of these dates lies within; none where nothing does.
    pub fn clip(&self, from: Day, to: Day) -> Option<(Day, Day)> {
        let from = if from <= self.first { Day::BEGINNING } else { from };
        let to = if to >= self.last { Day::FOREVER } else { to };
        (from <= self.last && to >= self.first && from <= to).then_some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_outside_of_the_window_have_no_end() {
        let window = Window { first: Day(10), last: Day(12) };
        let check = |from, to, expected: Option<(Day, Day)>| {
            assert_eq!(window.clip(Day(from), Day(to)), expected, "{from} {to}");
        };
        check(1, 9, None);
        check(13, 20, None);
        check(1, 20, Some((Day::BEGINNING, Day::FOREVER)));
        check(10, 12, Some((Day::BEGINNING, Day::FOREVER)));
        check(11, 11, Some((Day(11), Day(11))));
        check(1, 10, Some((Day::BEGINNING, Day(10))));
        check(12, 20, Some((Day(12), Day::FOREVER)));
        check(12, 11, None);
    }
}
