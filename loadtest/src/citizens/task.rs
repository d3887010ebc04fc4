//! What was asked, until it is judged.

use crate::books::Mark;
use crate::calendar::Day;
use crate::citizens::open::{Open, Settled};
use crate::oracle::Question;

/// A check.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What it asks.
    pub question: Question,
    /// Which card, if it is nobody's.
    pub stranger: u16,
    /// The earliest date that the server may judge by.
    pub first_day: Day,
    /// The price; 0 stands for none.
    pub price_kopecks: u32,
    /// Whether it may take a limited use.
    pub is_limited: bool,
    /// Whether it records what it grants.
    pub records: bool,
}

impl Asked {
    /// Whether the server counts it, so that asking twice is not asking once.
    pub fn is_counted(&self) -> bool {
        self.is_limited || self.records
    }
}

/// A confirm or a cancel.
#[derive(Clone, Copy, Debug)]
pub struct Settle {
    /// Of what.
    pub open: Open,
    /// A cancel, or else a confirm.
    pub is_cancel: bool,
}

/// How a settled check is repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Repetition {
    /// Cancelled after it was confirmed.
    Cancel,
    /// Confirmed after it was cancelled.
    Confirm,
    /// Confirmed with other amounts.
    OtherAmounts,
    /// Confirmed with another category.
    OtherCategory,
    /// Confirmed by an organization that confirms, but not this.
    OtherOrganization,
    /// Confirmed by an organization that may not confirm.
    OtherType,
    /// As it was.
    Same,
}

/// A confirm or cancel that was answered before.
#[derive(Clone, Copy, Debug)]
pub struct Repeat {
    /// Of what.
    pub settled: Settled,
    /// By whom, by place.
    pub organization: u16,
    /// How.
    pub repetition: Repetition,
}

/// A history request.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// The card that is shown.
    pub card: u32,
    /// Whose, by place in the sample.
    pub holder: u32,
    /// By whom, by place.
    pub organization: u16,
    /// What was known before.
    pub mark: Mark,
    /// Which dates.
    pub window: Window,
    /// The last date.
    pub to: Day,
    /// The page.
    pub page: u16,
    /// Items a page.
    pub page_size: u16,
}

/// Which dates a history request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Window {
    /// Days that have not come.
    Future,
    /// Days before the run.
    Past,
    /// Every day of the run.
    Run,
}

/// A services request.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// By whom, by place.
    pub organization: u16,
    /// The page.
    pub page: u16,
    /// Items a page.
    pub page_size: u16,
    /// The earliest date that the server may judge by.
    pub first_day: Day,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// Checks in one call, by the place where they are kept.
    Batch(u32),
    /// One check.
    Check(Asked),
    /// A history request.
    History(Past),
    /// A services request.
    List(Listing),
    /// A body that must be refused.
    Malformed {
        /// By whom, by place.
        organization: u16,
        /// Which of the bodies.
        row: u16,
    },
    /// A confirm or cancel again.
    Repeat(Repeat),
    /// A confirm or cancel.
    Settle(Settle),
}

/// Things under way, by places that are used again; memory stays at the most that were ever under
/// way together.
#[derive(Debug)]
pub struct Slab<T> {
    things: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab::new()
    }
}

impl<T> Slab<T> {
    /// An empty one.
    pub fn new() -> Slab<T> {
        Slab { things: Vec::new(), free: Vec::new() }
    }

    /// A free place and what was left there, if it was used before.
    pub fn reuse(&mut self) -> Option<(u32, &mut T)> {
        let place = self.free.pop()?;
        let thing = self.things.get_mut(usize::try_from(place).ok()?)?;
        Some((place, thing))
    }

    /// Keeps a thing; its place.
    pub fn insert(&mut self, thing: T) -> u32 {
        if let Some((place, old)) = self.reuse() {
            *old = thing;
            return place;
        }
        self.things.push(thing);
        u32::try_from(self.things.len() - 1).unwrap_or(u32::MAX)
    }

    /// What is kept at a place.
    pub fn at(&self, place: u32) -> Option<&T> {
        self.things.get(usize::try_from(place).ok()?)
    }

    /// The same to change it.
    pub fn at_mut(&mut self, place: u32) -> Option<&mut T> {
        self.things.get_mut(usize::try_from(place).ok()?)
    }

    /// Makes a place free.
    pub fn release(&mut self, place: u32) {
        self.free.push(place);
    }
}
