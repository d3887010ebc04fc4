//! What a failure of a simulation shows.

use std::cell::Cell;

/// Tells on a failure which seed it was, and the last steps before it.
pub(crate) struct Trace {
    seed: u64,
    shown: usize,
    step: Cell<u32>,
    steps: Cell<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(seed: u64, shown: usize) -> Trace {
        Trace { seed, shown, step: Cell::new(0), steps: Cell::default() }
    }

    pub(crate) fn begin(&self, step: u32) {
        self.step.set(step);
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let mut steps = self.steps.take();
        steps.push(format!("{:4} {}", self.step.get(), what()));
        self.steps.set(steps);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let steps = self.steps.take();
            let last = steps.len().saturating_sub(self.shown);
            eprintln!("{}", steps[last..].join("\n"));
            let (seed, step) = (self.seed, self.step.get());
            eprintln!("failed in step {step} of seed {seed}: ELIGO_SIM_SEED={seed} reruns it");
        }
    }
}
