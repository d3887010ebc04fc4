//! Who looks on while a run goes on.

use std::ops::ControlFlow;

use crate::run::Run;
use crate::second::Second;

/// Somebody who looks on while a run goes on.
pub trait Watch {
    /// A second of one generator is over; breaking ends the run early.
    fn second(&mut self, second: &Second) -> ControlFlow<()>;

    /// Whether the end is wanted now.
    fn wants_end(&self) -> bool {
        false
    }

    /// Whether it wants to know how the run stands.
    fn wants_standing(&self) -> bool;

    /// The run so far, without audit, faults and samples.
    fn standing(&mut self, run: &Run);
}

/// Nobody.
impl Watch for () {
    fn second(&mut self, _second: &Second) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn wants_standing(&self) -> bool {
        false
    }

    fn standing(&mut self, _run: &Run) {}
}
