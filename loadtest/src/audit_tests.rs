use std::cell::Cell;
use std::collections::HashMap;
use std::io::Write;

use super::*;
use crate::request::Identifier;
use crate::transport::Connections;

/// A clock that every look moves on.
struct Ticking(Cell<u64>);

impl Clock for Ticking {
    fn now(&self) -> Nanos {
        self.0.set(self.0.get() + 1_000_000);
        Nanos(self.0.get())
    }
}

/// A history that says what it is told to, by the holders' client codes.
#[derive(Default)]
struct Past {
    items: HashMap<String, Vec<HistoryItem>>,
    /// Of each page so many answers fail first.
    failures: u32,
    failed: HashMap<(String, u32), u32>,
    /// Answers nothing at all.
    is_silent: bool,
    waiting: VecDeque<(Tag, Option<Page<HistoryItem>>)>,
}

impl Transport for Past {
    fn is_free(&self) -> bool {
        self.waiting.len() < 4
    }

    fn send(&mut self, tag: Tag, call: &Call<'_>) {
        let Request::History { identifier, page, page_size, .. } = &call.request else {
            panic!("only the history is asked for")
        };
        assert_eq!(call.organization, 4);
        let Identifier::ClientCode(code) = identifier else { panic!("a code is known") };
        let failed = self.failed.entry((code.to_string(), *page)).or_default();
        if *failed < self.failures {
            *failed += 1;
            return self.waiting.push_back((tag, None));
        }
        let all = self.items.get(*code).cloned().unwrap_or_default();
        let (page, page_size) = (*page, usize::try_from(*page_size).unwrap());
        let skipped = usize::try_from(page).unwrap() * page_size;
        let items = all.iter().skip(skipped).take(page_size).cloned().collect();
        let total = u64::try_from(all.len()).unwrap();
        self.waiting.push_back((tag, Some(Page { items, total, index: page })));
    }

    fn abandon(&mut self, tag: Tag) {
        self.waiting.retain(|(waiting, _)| *waiting != tag);
    }

    fn poll(&mut self, until: Nanos, take: &mut dyn FnMut(Event<'_>)) {
        if self.is_silent {
            return;
        }
        if let Some((tag, page)) = self.waiting.pop_front() {
            take(match page {
                Some(page) => Event::Answered { tag, answer: Answer::History(page), at: until },
                None => Event::Lost { tag, at: until },
            });
        }
    }

    fn connections(&self) -> Connections {
        Connections::default()
    }
}

const CODES: [&str; 3] = ["AAABBBCCC", "DDDEEEFFF", "GGGHHHIII"];

fn fixture() -> Registry {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(include_bytes!("../../tests/data/fixture.ndjson")).unwrap();
    Registry::load(file.path(), 10, 1).unwrap()
}

fn fact(holder: u32, transaction: u64, fate: Fate) -> Fact {
    let discounted_kopecks = Some(100);
    Fact { transaction, holder, organization: 0, service: 0, discounted_kopecks, fate }
}

const BEGUN: Wall = Wall(1_000_000);

fn item(transaction: u64) -> HistoryItem {
    let (confirmed, discounted_kopecks) = (BEGUN, Some(100));
    HistoryItem { transaction, service: 1, organization: 1, confirmed, discounted_kopecks }
}

fn run(facts: &[Fact], past: &mut Past, is_fresh: bool, deadline: Nanos) -> Audit {
    run_unless(&|| false, facts, past, is_fresh, deadline)
}

fn run_unless(
    is_unwanted: &dyn Fn() -> bool,
    facts: &[Fact],
    past: &mut Past,
    is_fresh: bool,
    deadline: Nanos,
) -> Audit {
    let registry = fixture();
    let mut acknowledged = Acknowledged::create().unwrap();
    facts.iter().for_each(|fact| acknowledged.note(fact));
    let subject = Subject {
        registry: &registry,
        holders: &[0, 1, 2],
        organization: 4,
        from: "2025-06-01",
        to: "2025-06-03",
        begun: BEGUN,
        is_fresh,
        deadline,
        is_unwanted,
    };
    compare(&subject, &mut acknowledged, past, &Ticking(Cell::new(0))).unwrap()
}

fn past(items: &[(usize, HistoryItem)]) -> Past {
    let mut past = Past::default();
    for (holder, item) in items {
        past.items.entry(CODES[*holder].to_owned()).or_default().push(item.clone());
    }
    past
}

const CLEAN: Audit = Audit {
    acknowledged: 0,
    uncertain: 0,
    checked_holders: 3,
    unchecked_holders: 0,
    altered: 0,
    doubled: 0,
    lost: 0,
    phantom: 0,
    unexplained: 0,
};

fn check(facts: &[Fact], items: &[(usize, HistoryItem)], expected: Audit) {
    assert_eq!(run(facts, &mut past(items), true, Nanos::NEVER), expected);
}

#[test]
fn an_honest_history_is_clean() {
    let facts = [
        fact(0, 1, Fate::Must),
        fact(0, 2, Fate::May),
        fact(0, 3, Fate::May),
        fact(0, 3, Fate::Must),
        fact(1, 4, Fate::Never),
        fact(1, 0, Fate::May),
    ];
    let expected = Audit { acknowledged: 2, uncertain: 2, ..CLEAN };
    check(&facts, &[(0, item(1)), (0, item(3))], expected);
    // What is uncertain may be listed, even under an id that nobody was told.
    check(&facts, &[(0, item(1)), (0, item(2)), (0, item(3)), (1, item(9))], expected);
    assert!(expected.is_clean());
}

#[test]
fn a_lying_history_is_caught() {
    let must = [fact(0, 1, Fate::Must), fact(1, 2, Fate::Must)];
    let two = Audit { acknowledged: 2, ..CLEAN };
    check(&must, &[(1, item(2))], Audit { lost: 1, ..two });
    check(&must, &[(0, item(2)), (1, item(1))], Audit { lost: 2, phantom: 2, ..two });
    let twice = [(0, item(1)), (0, item(1)), (1, item(2))];
    check(&must, &twice, Audit { doubled: 1, ..two });
    let more = [(0, item(1)), (1, item(2)), (2, item(7))];
    check(&must, &more, Audit { phantom: 1, ..two });
    check(&[fact(0, 1, Fate::Never)], &[(0, item(1))], Audit { phantom: 1, ..CLEAN });
    let same = [fact(0, 1, Fate::Must), fact(0, 1, Fate::Must)];
    check(&same, &[(0, item(1))], Audit { acknowledged: 1, doubled: 1, ..CLEAN });
    for other in [
        HistoryItem { service: 2, ..item(1) },
        HistoryItem { organization: 2, ..item(1) },
        HistoryItem { discounted_kopecks: Some(99), ..item(1) },
        HistoryItem { discounted_kopecks: None, ..item(1) },
    ] {
        let expected = Audit { acknowledged: 1, altered: 1, ..CLEAN };
        check(&[fact(0, 1, Fate::Must)], &[(0, other)], expected);
    }
}

#[test]
fn what_others_recorded_before_the_run_does_not_count() {
    let old = |transaction| HistoryItem { confirmed: Wall(BEGUN.0 - 1), ..item(transaction) };
    let facts = [fact(0, 1, Fate::Must), fact(1, 2, Fate::Never)];
    let check = |items: &[(usize, HistoryItem)], expected| {
        assert_eq!(run(&facts, &mut past(items), false, Nanos::NEVER), expected, "{items:?}");
    };
    let one = Audit { acknowledged: 1, ..CLEAN };
    check(&[(0, item(1)), (0, old(50)), (2, old(51))], one);
    check(&[(0, item(1)), (1, item(2)), (2, old(51))], Audit { phantom: 1, ..one });
    // Others', or doubled, or made up, for whoever came.
    check(&[(0, item(1)), (0, item(50))], Audit { unexplained: 1, ..one });
    check(&[(0, item(1)), (2, item(51))], Audit { unexplained: 1, ..one });
    check(&[(0, item(1)), (0, item(1))], Audit { doubled: 1, ..one });
    // The server's clock is behind, so dates tell nothing.
    check(&[(0, old(1))], Audit { unexplained: 1, ..one });
}

#[test]
fn what_may_have_been_recorded_explains_an_item() {
    let facts = [fact(0, 0, Fate::May), fact(0, 3, Fate::May)];
    let items = [(0, item(3)), (0, item(9))];
    let audit = run(&facts, &mut past(&items), false, Nanos::NEVER);
    assert_eq!(audit, Audit { uncertain: 2, ..CLEAN });
}

#[test]
fn long_histories_are_read_to_their_end_through_failures() {
    let facts: Vec<Fact> = (1..=2_500).map(|number| fact(0, number, Fate::Must)).collect();
    let items: Vec<(usize, HistoryItem)> =
        (1..=2_499).rev().map(|number| (0, item(number))).collect();
    let mut past = past(&items);
    past.failures = 3;
    let audit = run(&facts, &mut past, true, Nanos::NEVER);
    assert_eq!(audit, Audit { acknowledged: 2_500, lost: 1, ..CLEAN });
}

#[test]
fn what_cannot_be_read_is_counted() {
    let facts = [fact(0, 1, Fate::Must)];
    let mut never = Past { failures: u32::MAX, ..Past::default() };
    let audit = run(&facts, &mut never, true, Nanos::NEVER);
    assert_eq!((audit.checked_holders, audit.unchecked_holders, audit.lost), (0, 3, 0));
    let mut late = past(&[]);
    let audit = run(&facts, &mut late, true, Nanos(1));
    assert_eq!((audit.checked_holders, audit.unchecked_holders, audit.lost), (0, 3, 0));
}

#[test]
fn what_is_left_when_nobody_wants_it_is_counted() {
    let turns = Cell::new(0);
    let is_unwanted = || turns.replace(turns.get() + 1) >= 3;
    let mut never = Past { failures: u32::MAX, ..Past::default() };
    let audit = run_unless(&is_unwanted, &[fact(0, 1, Fate::Must)], &mut never, true, Nanos::NEVER);
    assert_eq!((audit.checked_holders, audit.unchecked_holders, audit.lost), (0, 3, 0));
    assert_eq!(turns.get(), 4);
}

#[test]
fn a_server_that_answers_nothing_is_not_waited_for() {
    let turns = Cell::new(0_u64);
    let count_turns = || {
        turns.set(turns.get() + 1);
        false
    };
    let mut silent = Past { is_silent: true, ..Past::default() };
    let facts: Vec<Fact> =
        (1..=FACTS_PER_PASS + 1).map(|number| fact(1, number, Fate::Must)).collect();
    let audit = run_unless(&count_turns, &facts, &mut silent, true, Nanos::NEVER);
    assert_eq!((audit.checked_holders, audit.unchecked_holders, audit.lost), (0, 3, 0));
    // A look at the clock, and so a millisecond, each turn; and no second pass.
    assert!((59_000..=60_000).contains(&turns.get()), "{turns:?}");
}

#[test]
fn many_facts_are_compared_in_passes() {
    let count = FACTS_PER_PASS * 2 + 3;
    let facts: Vec<Fact> = (1..=count)
        .map(|number| fact(u32::try_from(number % 3).unwrap(), number, Fate::Never))
        .collect();
    let audit = run(&facts, &mut past(&[(1, item(1)), (2, item(5))]), true, Nanos::NEVER);
    assert_eq!(audit, Audit { phantom: 2, ..CLEAN });
}
