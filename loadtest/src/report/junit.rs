//! A verdict as JUnit XML, one test case an objective, so that a pipeline shows what was missed.
//!
//! What lacks data is an error, not a pass; an objective that is only shown is skipped.

use crate::report::markup::escaped;
use crate::run::Run;
use crate::verdict::{self, Judged, Outcome, TAINTED_PERCENT_MAX, Verdict};

/// The document.
pub fn print(run: &Run, verdict: &Verdict) -> String {
    let mut cases: Vec<Judged> = verdict.judged.clone();
    cases.extend([generator(verdict), scenario(run)]);
    let count = |test: fn(&Judged) -> bool| cases.iter().filter(|judged| test(judged)).count();
    let failures = count(|judged| judged.decides && judged.outcome == Outcome::Fail);
    let errors = count(|judged| judged.decides && judged.outcome == Outcome::NotEnoughData);
    let skipped = count(|judged| !judged.decides);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites>\n<testsuite name=\"eligo-load: {}\" tests=\"{}\" failures=\"{failures}\" \
         errors=\"{errors}\" skipped=\"{skipped}\" time=\"{:.3}\" timestamp=\"{}\">\n",
        escaped(&run.scenario),
        cases.len(),
        run.duration_seconds,
        escaped(run.begun.trim_end_matches('Z')),
    );
    for judged in &cases {
        text.push_str(&case(judged));
    }
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

fn case(judged: &Judged) -> String {
    let message = escaped(&format!("limit {}, measured {}", judged.limit, judged.measured));
    let body = match (judged.decides, judged.outcome) {
        (false, outcome) => format!("<skipped message=\"{}: {message}\"/>", outcome.text()),
        (true, Outcome::Fail) => format!("<failure type=\"missed\" message=\"{message}\"/>"),
        (true, Outcome::NotEnoughData) => {
            format!("<error type=\"not enough data\" message=\"{message}\"/>")
        }
        (true, Outcome::Pass) => format!("<system-out>{message}</system-out>"),
    };
    let (id, name) = (escaped(&judged.id), escaped(&judged.name));
    format!(
        "<testcase classname=\"eligo-load.{id}\" name=\"{name}\" time=\"0\">{body}</testcase>\n"
    )
}

fn generator(verdict: &Verdict) -> Judged {
    let tainted = verdict.tainted_percent > TAINTED_PERCENT_MAX;
    Judged {
        id: "generator".into(),
        name: "the generator kept its schedule".into(),
        limit: format!("≤ {TAINTED_PERCENT_MAX} % of the seconds late"),
        measured: format!("{:.2} %", verdict.tainted_percent),
        outcome: if tainted { Outcome::NotEnoughData } else { Outcome::Pass },
        decides: true,
    }
}

fn scenario(run: &Run) -> Judged {
    let doubts = verdict::doubts(run);
    Judged {
        id: "scenario".into(),
        name: "the run was what its scenario says".into(),
        limit: "no doubts".into(),
        measured: if doubts.is_empty() { "none".into() } else { doubts.join("; ") },
        outcome: if doubts.is_empty() { Outcome::Pass } else { Outcome::NotEnoughData },
        decides: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::verdict::judge;

    #[test]
    fn each_objective_is_a_case() {
        let mut run = fixture::run(9_699, 301);
        run.scenario = "<\"&>".into();
        let verdict = judge(&run);
        let text = print(&run, &verdict);
        assert_eq!(text.matches("<testcase ").count(), verdict.judged.len() + 2);
        // All checks, and those by ecs cards.
        assert_eq!(text.matches("<failure ").count(), 2);
        assert!(text.contains("failures=\"2\" errors=\"0\" skipped=\"5\""), "{text}");
        assert!(text.contains("classname=\"eligo-load.slow_or_unanswered\""), "{text}");
        assert!(text.contains("eligo-load: &lt;&quot;&amp;&gt;"), "{text}");
    }

    #[test]
    fn what_lacks_data_is_an_error() {
        let run = fixture::run(10, 0);
        let text = print(&run, &judge(&run));
        assert!(text.contains("<error type=\"not enough data\""), "{text}");
        // Otherwise the pipeline is green and the command is not.
        let mut run = fixture::run(10_000, 0);
        assert!(print(&run, &judge(&run)).contains("errors=\"0\""));
        run.failures.push("documents are missing".into());
        let text = print(&run, &judge(&run));
        assert!(text.contains("errors=\"1\"") && text.contains("documents are missing"), "{text}");
    }
}
