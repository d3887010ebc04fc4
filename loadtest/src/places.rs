//! Places of limited uses: how many the server must have given out at least, and at most.
//!
//! Memory is fixed: an open table of [`PLACES_MAX`] entries. Who finds it full asks for no further
//! limited service.

use std::num::NonZeroU64;

use crate::numbers::mix;

/// Entries of the table.
pub const PLACES_MAX: usize = 1 << 19;
/// Of eight entries so many are used.
const FILL_EIGHTHS: usize = 7;
/// A count that is no longer exact.
const MANY: u8 = u8::MAX;

/// Whose uses of what, when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PlaceKey(NonZeroU64);

impl PlaceKey {
    /// The uses of a holder, for a service by a category, in a period. No run lasts 256 periods.
    pub fn new(holder: u32, link: u16, ordinal: i32) -> PlaceKey {
        let [period, ..] = ordinal.to_le_bytes();
        let key = (u64::from(holder) + 1) << 24 | u64::from(link) << 8 | u64::from(period);
        PlaceKey(NonZeroU64::new(key).unwrap_or(NonZeroU64::MIN))
    }
}

/// Uses of one limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Uses {
    /// Confirmed for sure.
    pub spent: u8,
    /// Held by an open check for sure, unless the server lost it in a crash.
    pub held: u8,
    /// Perhaps spent or held.
    pub possible: u8,
}

impl Uses {
    /// How many places are taken at least.
    pub fn least(&self, holds_count: bool) -> u32 {
        u32::from(self.spent) + if holds_count { u32::from(self.held) } else { 0 }
    }

    /// How many places may be taken; none if there is no bound.
    pub fn most(&self) -> Option<u32> {
        let counts = [self.spent, self.held, self.possible];
        (!counts.contains(&MANY)).then(|| counts.into_iter().map(u32::from).sum())
    }

    /// A check holds a place.
    pub fn hold(&mut self) {
        self.held = self.held.saturating_add(1);
    }

    /// A check is the fact itself.
    pub fn spend(&mut self) {
        self.spent = self.spent.saturating_add(1);
    }

    /// A check that held a place is confirmed.
    pub fn settle(&mut self) {
        self.take_hold();
        self.spend();
    }

    /// A check that held a place is cancelled.
    pub fn release(&mut self) {
        self.take_hold();
    }

    /// A place may be taken.
    pub fn suspect(&mut self) {
        self.possible = self.possible.saturating_add(1);
    }

    /// A place that was held may be free.
    pub fn doubt(&mut self) {
        self.take_hold();
        self.suspect();
    }

    fn take_hold(&mut self) {
        match self.held {
            // Nobody knows how many there were.
            MANY => (self.held, self.possible) = (0, MANY),
            held => self.held = held.saturating_sub(1),
        }
    }
}

/// The uses of all limits that were touched.
pub struct Places {
    keys: Vec<u64>,
    uses: Vec<Uses>,
    count: usize,
}

impl Places {
    /// An empty table of `slots` entries, rounded up to a power of two.
    pub fn new(slots: usize) -> Places {
        let slots = slots.max(8).next_power_of_two();
        Places { keys: vec![0; slots], uses: vec![Uses::default(); slots], count: 0 }
    }

    /// Whether another limit can be tracked.
    pub fn has_room(&self) -> bool {
        self.count < self.keys.len() / 8 * FILL_EIGHTHS
    }

    /// What is known of a limit.
    pub fn uses(&self, key: PlaceKey) -> Uses {
        let at = self.slot(key);
        match self.keys.get(at) {
            Some(known) if *known == key.0.get() => self.uses.get(at).copied().unwrap_or_default(),
            _ => Uses::default(),
        }
    }

    /// Changes what is known of a limit. Asked for only while there is room, or for a known limit;
    /// otherwise nothing is kept, which [`Places::has_room`] lets the caller avoid.
    pub fn change(&mut self, key: PlaceKey, change: impl FnOnce(&mut Uses)) {
        let at = self.slot(key);
        let has_room = self.count < self.keys.len().saturating_sub(1);
        if let (Some(known), Some(uses)) = (self.keys.get_mut(at), self.uses.get_mut(at)) {
            if *known == 0 && has_room {
                *known = key.0.get();
                self.count += 1;
            }
            if *known == key.0.get() {
                change(uses);
            }
        }
    }

    /// Where a key is, or would be.
    fn slot(&self, key: PlaceKey) -> usize {
        let mask = self.keys.len() - 1;
        let mut at = usize::try_from(mix(key.0.get()) >> 16).unwrap_or_default() & mask;
        while let Some(known) = self.keys.get(at) {
            if *known == 0 || *known == key.0.get() {
                break;
            }
            at = (at + 1) & mask;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_limit_has_its_own_uses() {
        let mut places = Places::new(1 << 12);
        let mut expected = HashMap::new();
        let mut holder = 0;
        while places.has_room() {
            let key = PlaceKey::new(holder, (holder % 7).try_into().unwrap(), 20_000);
            for _ in 0..=holder % 3 {
                places.change(key, Uses::hold);
            }
            expected.insert(key.0, holder % 3 + 1);
            holder += 1;
        }
        assert_eq!(places.count, (1 << 12) / 8 * 7);
        for (key, held) in expected {
            assert_eq!(places.uses(PlaceKey(key)).least(true), held);
        }
        let absent = PlaceKey::new(holder, 0, 20_000);
        assert_eq!(places.uses(absent), Uses::default());
    }

    #[test]
    fn bounds_follow_what_happened() {
        let mut uses = Uses::default();
        let check = |uses: &Uses, least, least_without_holds, most| {
            assert_eq!(uses.least(true), least);
            assert_eq!(uses.least(false), least_without_holds);
            assert_eq!(uses.most(), most);
        };
        uses.hold();
        uses.hold();
        check(&uses, 2, 0, Some(2));
        uses.settle();
        check(&uses, 2, 1, Some(2));
        uses.doubt();
        check(&uses, 1, 1, Some(2));
        uses.suspect();
        check(&uses, 1, 1, Some(3));
        (0..300).for_each(|_| uses.hold());
        check(&uses, 256, 1, None);
        uses.release();
        check(&uses, 1, 1, None);
    }
}
