//! What a device decides at a tap (catalogue §12.4).

use serde::{Deserialize, Serialize};

/// Grant, or why not.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// The right holds.
    Grant,
    /// The card was blocked after the registry was built.
    DenyBlocked,
    /// The card is known and has no right to this service now.
    DenyNoRight,
    /// Two taps too soon after each other.
    DenyRepeat,
    /// There is no registry that is valid now.
    DenyStale,
    /// Nobody entitled has this card.
    DenyUnknown,
}
