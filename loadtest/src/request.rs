//! What is asked of the server, free of any protocol.

/// An identifier's text, at most 27 characters (a social card's number and series).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identifier<'a> {
    /// The code on an `ecs` card.
    ClientCode(&'a str),
    /// A social card's number, then its series.
    SocialCard(&'a str, &'a str),
    /// The insurance number.
    Snils(&'a str),
}

/// Which right does this person have here?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Check<'a> {
    /// What is wanted.
    pub service: u32,
    /// Where.
    pub terminal: u64,
    /// By whom.
    pub identifier: Identifier<'a>,
    /// The price, for connection type 3 only.
    pub price_kopecks: Option<u64>,
}

/// The service was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Confirm {
    /// The holder, as the check answered.
    pub holder: u64,
    /// The category, as the check answered.
    pub category: u32,
    /// The transaction, as the check answered.
    pub transaction: u64,
    /// The full price.
    pub price_kopecks: Option<u64>,
    /// What was paid.
    pub discounted_kopecks: Option<u64>,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request<'a> {
    /// Many checks in one call.
    Batch(&'a [Check<'a>]),
    /// The holder refused.
    Cancel {
        /// The holder, as the check answered.
        holder: u64,
        /// The transaction, as the check answered.
        transaction: u64,
    },
    /// One check.
    Check(Check<'a>),
    /// One confirm.
    Confirm(Confirm),
    /// The confirmed transactions of a holder, dates as `YYYY-MM-DD`, both inclusive.
    History {
        /// Any card of the holder.
        identifier: Identifier<'a>,
        /// The first day.
        from: &'a str,
        /// The last day.
        to: &'a str,
        /// The page, from 0.
        page: u32,
        /// Items a page.
        page_size: u32,
    },
    /// A body that must be refused, sent to the path of checks.
    Malformed(&'a str),
    /// The caller's services.
    Services {
        /// The page, from 0.
        page: u32,
        /// Items a page.
        page_size: u32,
    },
}

/// A request and on whose behalf it is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call<'a> {
    /// The organization, by its place in the scenario's list.
    pub organization: u16,
    /// What is asked.
    pub request: Request<'a>,
    /// Whether it may reach the server twice: the second time changes nothing that counts.
    pub may_repeat: bool,
}
