//! What the server answered, free of any protocol.

use std::borrow::Cow;

use validator::verdict::Verdict;

use crate::calendar::Wall;

/// An answer, read and understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<'a> {
    /// To a batch, item by item.
    Batch(Vec<CheckAnswer<'a>>),
    /// To a check.
    Check(CheckAnswer<'a>),
    /// To a confirm or a cancel: it is recorded.
    Done,
    /// To a check, by the device itself: the link brought no answer in its time.
    Offline(OfflineAnswer),
    /// To a history request.
    History(Page<HistoryItem>),
    /// The server said why not: a transport error of the protocol.
    Refusal {
        /// The HTTP status, or what stands for it elsewhere.
        status: u16,
        /// The document's `errorCode`, if there is one.
        code: Option<u32>,
    },
    /// To a services request: ids and names.
    Services(Page<(u32, String)>),
    /// Not what the protocol promises.
    Unreadable,
}

/// What a device decided on its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OfflineAnswer {
    /// Grant, or why not.
    pub verdict: Verdict,
    /// The category that it granted by.
    pub category: Option<u32>,
}

/// The answer to a check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckAnswer<'a> {
    /// `resultCode`.
    pub code: u32,
    /// 0 when refused.
    pub transaction: u64,
    /// 0 when refused.
    pub holder: u64,
    /// Id and name of the benefit's category.
    pub benefit: Option<(u32, Cow<'a, str>)>,
}

/// One page of a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// How many there are on all pages.
    pub total: u64,
    /// Which page it is, from 0.
    pub index: u32,
}

/// A confirmed transaction of the history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryItem {
    /// Its id.
    pub transaction: u64,
    /// What was used.
    pub service: u32,
    /// Where.
    pub organization: u32,
    /// When it was confirmed, by the server's clock.
    pub confirmed: Wall,
    /// What was paid.
    pub discounted_kopecks: Option<u64>,
}
