//! What is printed at the end of a run above its verdict: how requests ended, how long the answers
//! took, and the share of slow or unanswered ones in windows.

use crate::histogram::percentile;
use crate::report::svg::clock;
use crate::run::Run;
use crate::tally::Tally;
use crate::verdict::{Verdict, share_text, time};
use crate::views::View;

const NS_PER_MS: f64 = 1e6;

/// Three lines for a terminal.
pub fn print(run: &Run, verdict: &Verdict) -> String {
    let mut all = Tally::default();
    run.tallies.iter().for_each(|tallied| all.add(&tallied.tally));
    let in_time = all.right - all.slow.min(all.right);
    let mut text = format!(
        "answers        within 3 s {in_time}   later {}   unanswered {}   refused {}   wrong {}\n",
        all.slow, all.unanswered, all.refused, all.wrong
    );
    let times = &run.times.response;
    let at = |at| percentile(times, at).map_or("too few".into(), nanos);
    text.push_str(&format!(
        "response time  p50 {}   p90 {}   p99 {}   p99.9 {}   max {}\n",
        at(50.0),
        at(90.0),
        at(99.0),
        at(99.9),
        nanos(times.max()),
    ));
    // Windows that are longer than the run hold the same.
    let partial = verdict.views.iter().position(View::is_partial);
    let shown = partial.map_or(verdict.views.len(), |at| at + 1);
    let views = verdict.views.iter().take(shown).map(|view| {
        let name = view.name();
        let share = share_text(view.failures, view.all);
        if view.is_partial() {
            format!("{} of {name} {share}", clock(view.seconds as f64))
        } else {
            format!("{name} {share}")
        }
    });
    let views: Vec<String> = views.collect();
    text.push_str(&format!("slow or unanswered, the worst  {}\n", views.join("   ")));
    text
}

fn nanos(value: u64) -> String {
    time(value as f64 / NS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::verdict::judge;

    fn check(run: &Run, expected: [&str; 3]) {
        let text = print(run, &judge(run));
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn it_says_how_requests_ended_and_how_long_answers_took() {
        let mut run = fixture::run(9_700, 300);
        run.tallies[0].tally.slow = 10;
        run.times.response.record_n(3_100_000_000, 10).unwrap();
        check(
            &run,
            [
                "answers        within 3 s 9690   later 10   unanswered 300   refused 0   wrong 0",
                "response time  p50 1 ms   p90 1 ms   p99 1 ms   p99.9 too few   max 3.102 s",
                "slow or unanswered, the worst  0:10 of 5 min 3 % (300 of 10000)",
            ],
        );
    }
}
