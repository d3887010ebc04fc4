//! Citizens against a server made of a few maps, which decides by the same rules but exact numbers,
//! answers when it likes, loses answers, and acts on requests after they were given up.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;

use super::*;
use crate::answer::{CheckAnswer, HistoryItem, Page};
use crate::oracle::{self, Counted, Person, Question, Taken};
use crate::registry::directory::ConnectionType;
use crate::request::{Identifier, Request};

/// What a server gets wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lie {
    /// Nothing.
    None,
    ForgetsConfirms,
    IgnoresLimits,
    IgnoresRepeatedAmounts,
    ListsCancelled,
    TakesMalformed,
    WrongName,
}

struct Transaction {
    holder: u64,
    category: u32,
    organization: u16,
    service: u32,
    amounts: (Option<u64>, Option<u64>),
    state: State,
    place: Option<(u64, u16, i32)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Cancelled,
    Confirmed,
    Open,
}

struct Server<'r> {
    registry: &'r Registry,
    lie: Lie,
    now: Wall,
    people: BTreeMap<String, Person>,
    transactions: BTreeMap<u64, Transaction>,
    taken: BTreeMap<(u64, u16, i32), u32>,
}

impl<'r> Server<'r> {
    fn new(registry: &'r Registry, lie: Lie, now: Wall) -> Server<'r> {
        let holders = &registry.holders;
        let mut people = BTreeMap::new();
        for holder in 0..u32::try_from(holders.len()).unwrap() {
            let snils = holders.holder(holder).unwrap().snils();
            people.extend(snils.map(|snils| (snils.to_owned(), Person::Holder(holder))));
            for card in holders.cards_of(holder) {
                let key = key(&holders.card(card).unwrap().identifier());
                people.insert(key, Person::Card { holder, card });
            }
        }
        let (transactions, taken) = (BTreeMap::new(), BTreeMap::new());
        Server { registry, lie, now, people, transactions, taken }
    }

    /// What may come twice comes twice.
    fn answer(&mut self, call: &Call<'_>) -> Answer<'static> {
        if call.may_repeat {
            self.answer_once(call);
        }
        self.answer_once(call)
    }

    fn answer_once(&mut self, call: &Call<'_>) -> Answer<'static> {
        let organization = call.organization;
        match &call.request {
            Request::Batch(checks) => {
                Answer::Batch(checks.iter().map(|check| self.check(organization, check)).collect())
            }
            Request::Check(check) => Answer::Check(self.check(organization, check)),
            Request::Confirm(confirm) => self.confirm(organization, confirm),
            Request::Cancel { holder, transaction } => {
                let Some(found) = self.transactions.get_mut(transaction) else {
                    return refusal(404, 106);
                };
                if found.organization != organization {
                    return refusal(404, 106);
                }
                assert_eq!(found.holder, *holder);
                match found.state {
                    State::Confirmed => return refusal(409, 107),
                    State::Cancelled => {}
                    State::Open => {
                        found.state = State::Cancelled;
                        if let Some(place) = found.place {
                            *self.taken.get_mut(&place).unwrap() -= 1;
                        }
                    }
                }
                Answer::Done
            }
            Request::History { identifier, from, page, page_size, .. } => {
                self.history(identifier, from, *page, *page_size)
            }
            Request::Malformed(body) => self.malformed(organization, body),
            Request::Services { page, page_size } => {
                let directory = &self.registry.directory;
                let organization = directory.organization(organization).unwrap();
                let day = self.now.day(organization.offset);
                let offers = organization.offers.iter().filter(|offer| offer.validity.covers(day));
                let services = offers.map(|offer| {
                    let service = &directory.services[usize::from(offer.service)];
                    (service.id, service.name.clone())
                });
                Answer::Services(cut(services.collect(), *page, *page_size))
            }
        }
    }

    fn check(&mut self, organization: u16, check: &Check<'_>) -> CheckAnswer<'static> {
        let caller = self.registry.directory.organization(organization).unwrap();
        assert_eq!(check.price_kopecks.is_some(), caller.connection == Some(ConnectionType::Three));
        let is_snils = matches!(check.identifier, Identifier::Snils(_));
        assert_eq!(is_snils, caller.connection == Some(ConnectionType::Two));
        self.decide(self.question(organization, check))
    }

    fn question(&self, organization: u16, check: &Check<'_>) -> Question {
        let person = self.people.get(&key(&check.identifier)).copied();
        Question {
            organization,
            terminal: check.terminal,
            service: check.service,
            person: person.unwrap_or(Person::Stranger),
        }
    }

    fn decide(&mut self, question: Question) -> CheckAnswer<'static> {
        let directory = &self.registry.directory;
        let caller = directory.organization(question.organization).unwrap();
        let day = self.now.day(caller.offset);
        let id = |holder: u32| self.registry.holders.holder(holder).unwrap().id;
        let place = |counted: &Counted| {
            (id(counted.holder), counted.link, counted.day.ordinal(counted.limit.period))
        };
        let taken = |counted: Counted| {
            let taken = self.taken.get(&place(&counted)).copied().unwrap_or_default();
            let least = if self.lie == Lie::IgnoresLimits { 0 } else { taken };
            Taken { least, most: Some(least) }
        };
        let mut right = Vec::new();
        oracle::decisions(self.registry, &question, day, &taken, &mut right);
        assert_eq!(right.len(), 1);
        let candidate = match right[0] {
            Decision::Refused(code) => {
                return CheckAnswer { code, transaction: 0, holder: 0, benefit: None };
            }
            Decision::Benefit(candidate) => candidate,
        };
        let holder = question.person.holder().unwrap();
        let place = candidate
            .limit
            .map(|limit| place(&Counted { holder, link: candidate.link, limit, day }));
        if let Some(place) = place {
            *self.taken.entry(place).or_default() += 1;
        }
        let transaction = u64::try_from(self.transactions.len()).unwrap() + 1;
        let category = &directory.categories[usize::from(candidate.category)];
        let records = caller.connection == Some(ConnectionType::Three);
        self.transactions.insert(
            transaction,
            Transaction {
                holder: id(holder),
                category: category.id,
                organization: question.organization,
                service: question.service,
                amounts: (None, None),
                state: if records { State::Confirmed } else { State::Open },
                place,
            },
        );
        let name = if self.lie == Lie::WrongName { "?".to_owned() } else { category.name.clone() };
        let benefit = Some((category.id, Cow::Owned(name)));
        CheckAnswer { code: 0, transaction, holder: id(holder), benefit }
    }

    fn confirm(&mut self, organization: u16, confirm: &crate::request::Confirm) -> Answer<'static> {
        let caller = self.registry.directory.organization(organization).unwrap();
        if caller.connection == Some(ConnectionType::Three) {
            return refusal(403, 103);
        }
        let amounts = (confirm.price_kopecks, confirm.discounted_kopecks);
        let Some(found) = self.transactions.get_mut(&confirm.transaction) else {
            return refusal(404, 106);
        };
        if found.organization != organization || found.state == State::Cancelled {
            return refusal(404, 106);
        }
        if (found.holder, found.category) != (confirm.holder, confirm.category) {
            return refusal(409, 108);
        }
        let is_same = found.amounts == amounts || self.lie == Lie::IgnoresRepeatedAmounts;
        if found.state == State::Confirmed && !is_same {
            return refusal(409, 107);
        }
        if self.lie != Lie::ForgetsConfirms || !confirm.transaction.is_multiple_of(10) {
            (found.state, found.amounts) = (State::Confirmed, amounts);
        }
        Answer::Done
    }

    fn history(
        &self,
        identifier: &Identifier<'_>,
        from: &str,
        page: u32,
        page_size: u32,
    ) -> Answer<'static> {
        let holder = self.people[&key(identifier)].holder().unwrap();
        let holder = self.registry.holders.holder(holder).unwrap().id;
        // Whole days are enough here: the run's window begins a month before it.
        let days = Day::parse(from).unwrap().0 - self.now.day(Offset(0)).0;
        let is_run = (-32..=-28).contains(&days);
        let listed = self.transactions.iter().filter(|(_, found)| {
            let state = found.state == State::Confirmed
                || (self.lie == Lie::ListsCancelled && found.state == State::Cancelled);
            is_run && found.holder == holder && state
        });
        let items = listed.map(|(id, found)| HistoryItem {
            transaction: *id,
            service: found.service,
            organization: self.registry.directory.organization(found.organization).unwrap().id,
            confirmed: self.now,
            discounted_kopecks: found.amounts.1,
        });
        Answer::History(cut(items.collect(), page, page_size))
    }

    fn malformed(&self, organization: u16, body: &str) -> Answer<'static> {
        let connection = self.registry.directory.organization(organization).unwrap().connection;
        let rows = malformed::rows(connection.unwrap());
        let row = rows.iter().find(|row| row.body == body).unwrap();
        if self.lie == Lie::TakesMalformed { Answer::Done } else { refusal(row.status, row.code) }
    }
}

fn key(identifier: &Identifier<'_>) -> String {
    match identifier {
        Identifier::ClientCode(code) => format!("code {code}"),
        Identifier::SocialCard(number, series) => format!("{number} {series}"),
        Identifier::Snils(snils) => (*snils).to_owned(),
    }
}

fn refusal(status: u16, code: u32) -> Answer<'static> {
    Answer::Refusal { status, code: Some(code) }
}

fn cut<T>(all: Vec<T>, page: u32, page_size: u32) -> Page<T> {
    let total = u64::try_from(all.len()).unwrap();
    let (skipped, size) = (page * page_size, usize::try_from(page_size).unwrap());
    let items = all.into_iter().skip(usize::try_from(skipped).unwrap()).take(size).collect();
    Page { items, total, index: page }
}

/// Three organizations that check, one that may not, limits of every period, few holders.
fn town() -> Registry {
    let mut text = String::from(include_str!("../../tests/data/fixture.ndjson"));
    let mut line = |line: &str| text.push_str(&format!("{{\"kind\":{line}}}\n"));
    line(
        r#""service","id":5,"name":"Обед","categories":[{"category":10,"limit":{"count":2,"period":"day"}},{"category":20,"limit":{"count":1,"period":"month"}},{"category":30}]"#,
    );
    line(
        r#""service","id":6,"name":"Музей","categories":[{"category":20,"limit":{"count":3,"period":"week"}},{"category":30,"limit":{"count":2,"period":"year"}}]"#,
    );
    line(
        r#""organization","id":5,"client_id":"5","client_secret":"s","connection":"T3","state":"active","area":1,"categories":[10,20,30]"#,
    );
    line(
        r#""organization","id":6,"client_id":"6","client_secret":"s","connection":"T2V2","state":"testing","area":1,"categories":[10,20,30]"#,
    );
    line(
        r#""organization","id":7,"client_id":"7","client_secret":"s","connection":"AIRLINE","state":"active","area":1,"categories":[10,20,30]"#,
    );
    for (organization, terminal) in [(5, 50), (6, 60), (7, 70)] {
        line(&format!(r#""terminal","id":{terminal},"organization":{organization}"#));
    }
    for (organization, service) in
        [(1, 5), (1, 6), (2, 5), (2, 6), (5, 1), (5, 5), (5, 6), (6, 1), (7, 1), (7, 6)]
    {
        line(&format!(r#""offer","organization":{organization},"service":{service}"#));
    }
    for id in 10..40_u32 {
        let rights = ["10", "20", "30", "10},{\"category\":20", "20},{\"category\":30"];
        let rights = rights[usize::try_from(id % 5).unwrap()];
        line(&format!(
            r#""holder","id":{id},"snils":"001000000{id}","region":"14","cards":[{{"type":"ecs","client_code":"C{id}"}},{{"type":"social","number":"96439014010160000{id}","series":"14010125"}}],"categories":[{{"category":{rights}}}]"#
        ));
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Registry::load(file.path(), 1_000, 1).unwrap()
}

const SCENARIO: &str = r#"
    name = "town"
    duration_seconds = 600
    target = { url = "http://127.0.0.1:1", fresh = true }
    registry.path = "none"
    arrivals = { kind = "constant", rate = 10 }
    mix = { check = 60, confirm = 20, cancel = 8, history = 4, services = 2, batch = 2, malformed = 2, repeat = 4 }
    [citizens]
    batch_size = 5
    think_seconds_min = 0.01
    think_seconds_max = 0.2
    negative = 0.1
"#;

/// What happened in a run.
struct Ran {
    outcomes: BTreeMap<String, u64>,
    wrong: Vec<String>,
    places_of_facts: usize,
    confirmed: BTreeSet<u64>,
    facts: Vec<crate::acknowledged::Fact>,
}

impl Ran {
    fn count(&self, outcome: &str) -> u64 {
        self.outcomes
            .iter()
            .filter(|(name, _)| name.ends_with(outcome))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Runs `count` requests, one due every 10 ms, on a server that answers out of order. Of a hundred
/// requests `losses` get no answer; half of these are acted on, checks up to twenty seconds after
/// they were given up.
fn run(seed: u64, begun: &str, count: u64, losses: u64, lie: Lie) -> Ran {
    let registry = town();
    let scenario =
        Scenario::parse(&SCENARIO.replace("name", &format!("seed = {seed}\nname"))).unwrap();
    let begun = Wall::parse(begun).unwrap();
    let mut citizens = Citizens::new(&registry, Habits::new(&scenario, 0, begun)).unwrap();
    let mut server = Server::new(&registry, lie, begun);
    let mut numbers = Numbers::of(seed, 99);
    let mut outcomes = BTreeMap::new();
    let mut late: VecDeque<Ticket> = VecDeque::new();
    let mut answered: Vec<(Ticket, Answer<'static>)> = Vec::new();
    let mut given_up: BTreeMap<u64, Vec<Question>> = BTreeMap::new();
    for number in 0..count {
        let now = Nanos::from_millis(10 * number);
        // The server's clock is a second ahead.
        server.now = begun.plus(now).plus_seconds(1);
        for question in given_up.remove(&number).unwrap_or_default() {
            server.decide(question);
        }
        let ticket = citizens.next(now);
        late.push_back(ticket);
        if numbers.below(3) == 0 || late.len() > 20 {
            while let Some(ticket) = late.pop_front() {
                let call = citizens.call(ticket);
                let fate = numbers.below(100);
                if fate < losses / 2 {
                    citizens.miss(ticket, true, now);
                } else if fate < losses {
                    match call.request {
                        Request::Check(check) => {
                            let at = number + 1 + numbers.below(2_000);
                            let question = server.question(call.organization, &check);
                            given_up.entry(at).or_default().push(question);
                        }
                        _ => drop(server.answer(&call)),
                    }
                    citizens.miss(ticket, true, now);
                } else if fate == 99 {
                    citizens.miss(ticket, false, now);
                } else {
                    answered.push((ticket, server.answer(&call)));
                }
            }
        }
        while !answered.is_empty() && (numbers.below(2) == 0 || answered.len() > 10) {
            let (ticket, answer) = answered.swap_remove(numbers.place(answered.len()));
            let outcome = citizens.judge(ticket, &answer, now);
            *outcomes.entry(format!("{:?} {outcome:?}", ticket.kind)).or_default() += 1;
        }
    }
    let wrong = citizens.wrong_answers().to_vec();
    let (mut acknowledged, holders) = citizens.finish();
    let mut facts = Vec::new();
    acknowledged.for_each(|fact| facts.push(fact)).unwrap();
    let confirmed = server.transactions.iter().filter(|(_, found)| found.state == State::Confirmed);
    let confirmed = confirmed.map(|(id, _)| *id).collect();
    Ran { outcomes, wrong, places_of_facts: holders.len(), confirmed, facts }
}

#[test]
fn an_honest_server_is_never_wrong() {
    // In the middle of a day, over local midnight, over the end of a year.
    for begun in ["2025-06-02T10:00:00Z", "2025-06-02T14:59:30Z", "2024-12-31T14:59:40Z"] {
        for (seed, losses) in [(1, 0), (2, 5), (3, 20), (4, 2), (5, 40)] {
            let ran = run(seed, begun, 8_000, losses, Lie::None);
            assert_eq!(ran.wrong, Vec::<String>::new(), "{begun} {seed}");
            assert_eq!(ran.count("Wrong"), 0);
            assert!(ran.count("Right") > 4_000, "{:?}", ran.outcomes);
            assert_eq!(ran.outcomes.len(), 8, "every kind is asked: {:?}", ran.outcomes);
        }
    }
}

#[test]
fn facts_say_what_the_server_recorded() {
    use crate::acknowledged::Fate;
    let ran = run(7, "2025-06-02T10:00:00Z", 8_000, 0, Lie::None);
    let must = ran.facts.iter().filter(|fact| fact.fate == Fate::Must);
    let must: BTreeSet<u64> = must.map(|fact| fact.transaction).collect();
    assert!(must.len() > 500 && must.is_subset(&ran.confirmed));
    // What was never sent or not judged yet is the rest.
    assert!(ran.confirmed.difference(&must).count() < 20);
    let never = ran.facts.iter().filter(|fact| fact.fate == Fate::Never);
    assert!(never.into_iter().all(|fact| !ran.confirmed.contains(&fact.transaction)));
    assert!(ran.places_of_facts > 25);
}

#[test]
fn every_lie_is_found() {
    for lie in [
        Lie::ForgetsConfirms,
        Lie::IgnoresLimits,
        Lie::IgnoresRepeatedAmounts,
        Lie::ListsCancelled,
        Lie::TakesMalformed,
        Lie::WrongName,
    ] {
        let ran = run(1, "2025-06-02T10:00:00Z", 6_000, 2, lie);
        assert!(ran.count("Wrong") > 0, "{lie:?}");
        assert!(!ran.wrong.is_empty() && ran.wrong.len() <= WRONG_ANSWERS_MAX);
    }
}

#[test]
fn one_seed_gives_one_run() {
    let outcomes = |seed| run(seed, "2025-06-02T10:00:00Z", 2_000, 5, Lie::None).outcomes;
    assert_eq!(outcomes(1), outcomes(1));
    assert_ne!(outcomes(1), outcomes(2));
}

#[test]
fn a_server_that_cannot_is_refused_and_not_wrong() {
    let registry = town();
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let begun = Wall::parse("2025-06-02T10:00:00Z").unwrap();
    let mut citizens = Citizens::new(&registry, Habits::new(&scenario, 0, begun)).unwrap();
    for (number, status) in (0..).zip([429, 500, 503].into_iter().cycle().take(3_000)) {
        let now = Nanos::from_millis(number);
        let ticket = citizens.next(now);
        let answer = Answer::Refusal { status, code: None };
        assert_eq!(citizens.judge(ticket, &answer, now), Outcome::Refused);
        let ticket = citizens.next(now);
        if ticket.kind == Kind::Check {
            let none = CheckAnswer { code: 6, transaction: 0, holder: 0, benefit: None };
            assert_eq!(citizens.judge(ticket, &Answer::Check(none), now), Outcome::Refused);
        } else {
            assert_eq!(citizens.judge(ticket, &Answer::Unreadable, now), Outcome::Wrong);
        }
    }
}

/// What is kept of a request under way must be small: a stall leaves hundreds of thousands.
#[test]
fn requests_under_way_are_small() {
    assert!(size_of::<Task>() <= 64, "{}", size_of::<Task>());
    assert!(size_of::<Book>() <= 24);
}
