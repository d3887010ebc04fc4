//! A cash desk that checks, confirms, repeats and cancels, and remembers what it was told.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tests::calls::{BOTH, CANCEL, CHECK, CONFIRM};
use tests::http::{Client, Response};
use tests::server::Server;

use crate::{
    CATEGORY, FIRST_HOLDER, HOLDERS, LIMITED_SERVICE, RECORDED_SERVICE, UNLIMITED_SERVICE,
};

/// Where a transaction ended, as far as the server has told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Cancelled,
    Confirmed,
    /// The check died with the server.
    Gone,
}

/// What a desk knows of a transaction.
#[derive(Clone, Debug)]
pub struct Fact {
    pub transaction: u64,
    pub holder: u64,
    pub service: u64,
    pub price_kopecks: u64,
    /// Of a check of type 3 there is none.
    pub discounted_kopecks: Option<u64>,
    pub round: u32,
    pub confirm_asked: bool,
    pub cancel_asked: bool,
    pub end: Option<End>,
}

impl Fact {
    fn confirm(&self, discounted_kopecks: u64) -> String {
        let Fact { transaction, holder, .. } = self;
        let (price, discounted) = (rubles(self.price_kopecks), rubles(discounted_kopecks));
        format!(
            r#"{{"clientId":{holder},"benefitCategoryId":{CATEGORY},"transactionId":{transaction},"price":{price},"discountedPrice":{discounted}}}"#
        )
    }

    fn cancel(&self) -> String {
        let Fact { transaction, holder, .. } = self;
        format!(r#"{{"clientId":{holder},"transactionId":{transaction}}}"#)
    }
}

/// A cash desk: what it was told, over all rounds.
pub struct Desk {
    pub organization: u64,
    random: SmallRng,
    pub facts: Vec<Fact>,
    /// Checks of type 3 without an answer, by holder: each may be in the history.
    pub unanswered: BTreeMap<u64, usize>,
    /// Answers 503/6, which leave open what became of the request.
    pub unavailable: usize,
    pub round: u32,
    /// The last round that ended without warning: checks from then may be lost.
    pub fragile_through: u32,
}

/// A desk's connection in one round.
pub struct Line {
    pub client: Client,
    pub token: String,
}

impl Line {
    /// The answer, or nothing when the server is gone.
    pub fn call(&mut self, path: &str, body: &str) -> Option<Response> {
        self.client.try_call(&self.token, path, body)
    }
}

impl Desk {
    pub fn new(organization: u64, seed: u64) -> Desk {
        Desk {
            organization,
            random: SmallRng::seed_from_u64(seed ^ organization),
            facts: Vec::new(),
            unanswered: BTreeMap::new(),
            unavailable: 0,
            round: 0,
            fragile_through: 0,
        }
    }

    pub fn line(&self, server: &Server) -> Line {
        let organization = self.organization.to_string();
        let (client_id, secret) = match self.organization {
            3 => ("333", "s333"),
            _ => (organization.as_str(), "s"),
        };
        Line { client: server.client(), token: server.token(client_id, secret, BOTH) }
    }

    /// Works until the server is gone.
    pub fn work(&mut self, mut line: Line) {
        while self.work_once(&mut line).is_some() {}
    }

    fn work_once(&mut self, line: &mut Line) -> Option<()> {
        if self.organization == 3 {
            return self.record(line);
        }
        if let Some(newest) = self.check(line)? {
            match self.random.random_range(0..10) {
                0..6 => self.confirm(line, newest)?,
                6 => self.cancel(line, newest)?,
                7 => {
                    self.confirm(line, newest)?;
                    self.confirm(line, newest)?;
                }
                _ => {}
            }
        }
        if self.facts.is_empty() {
            return Some(());
        }
        let any = self.random.random_range(0..self.facts.len());
        match self.random.random_range(0..10) {
            0..3 => self.confirm(line, any),
            3 => self.cancel(line, any),
            4 => self.confirm_otherwise(line, any),
            _ => Some(()),
        }
    }

    /// A check; the index of its fact where it opened a transaction.
    fn check(&mut self, line: &mut Line) -> Option<Option<usize>> {
        let limited = self.random.random_ratio(1, 8);
        let service = if limited { LIMITED_SERVICE } else { UNLIMITED_SERVICE };
        let holder = self.any_holder();
        let terminal = self.organization;
        let code = client_code(holder);
        let body = format!(
            r#"{{"serviceId":{service},"organizationTerminalId":{terminal},"clientCode":"{code}"}}"#
        );
        let answer = line.call(CHECK, &body)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        match answer["resultCode"].as_u64() {
            Some(0) => {}
            Some(1) if limited => return Some(None),
            Some(6) => {
                self.unavailable += 1;
                return Some(None);
            }
            _ => panic!("{body}: {answer}"),
        }
        assert_eq!(answer["clientId"], holder);
        let price_kopecks = self.random.random_range(0..100_000);
        self.facts.push(Fact {
            transaction: answer["transactionId"].as_u64().unwrap(),
            holder,
            service,
            price_kopecks,
            discounted_kopecks: Some(self.random.random_range(0..=price_kopecks)),
            round: self.round,
            confirm_asked: false,
            cancel_asked: false,
            end: None,
        });
        Some(Some(self.facts.len() - 1))
    }

    /// A check of type 3.
    fn record(&mut self, line: &mut Line) -> Option<()> {
        let holder = self.any_holder();
        let price_kopecks = self.random.random_range(0..100_000);
        let (code, price) = (client_code(holder), rubles(price_kopecks));
        let body = format!(
            r#"{{"serviceId":{RECORDED_SERVICE},"organizationTerminalId":30,"clientCode":"{code}","price":{price}}}"#
        );
        *self.unanswered.entry(holder).or_default() += 1;
        let answer = line.call(CHECK, &body)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        if answer["resultCode"] == 6 {
            self.unavailable += 1;
            return Some(());
        }
        assert_eq!(answer["resultCode"], 0, "{answer}");
        *self.unanswered.entry(holder).or_default() -= 1;
        self.facts.push(Fact {
            transaction: answer["transactionId"].as_u64().unwrap(),
            holder,
            service: RECORDED_SERVICE,
            price_kopecks,
            discounted_kopecks: None,
            round: self.round,
            confirm_asked: true,
            cancel_asked: false,
            end: Some(End::Confirmed),
        });
        Some(())
    }

    fn confirm(&mut self, line: &mut Line, at: usize) -> Option<()> {
        let fact = &mut self.facts[at];
        let body = fact.confirm(fact.discounted_kopecks.unwrap());
        fact.confirm_asked = true;
        let answer = line.call(CONFIRM, &body)?;
        let lost = fact.round <= self.fragile_through || fact.cancel_asked;
        match (fact.end, outcome(&answer)) {
            (_, (503, Some(6))) => self.unavailable += 1,
            (None | Some(End::Confirmed), (200, None)) => fact.end = Some(End::Confirmed),
            (Some(End::Cancelled | End::Gone), (404, Some(106))) => {}
            (None, (404, Some(106))) if lost => fact.end = Some(End::Gone),
            _ => panic!("confirm in round {}: {fact:?}: {answer:?}", self.round),
        }
        Some(())
    }

    /// A confirm that contradicts the one before, of facts that are settled.
    fn confirm_otherwise(&mut self, line: &mut Line, at: usize) -> Option<()> {
        let fact = &self.facts[at];
        let Some(end) = fact.end else { return Some(()) };
        let other = fact.discounted_kopecks.unwrap().checked_sub(1).unwrap_or(fact.price_kopecks);
        if Some(other) == fact.discounted_kopecks {
            return Some(());
        }
        let answer = line.call(CONFIRM, &fact.confirm(other))?;
        match (end, outcome(&answer)) {
            (_, (503, Some(6))) => self.unavailable += 1,
            (End::Confirmed, (409, Some(107))) => {}
            (End::Cancelled | End::Gone, (404, Some(106))) => {}
            _ => panic!("other amounts in round {}: {fact:?}: {answer:?}", self.round),
        }
        Some(())
    }

    fn cancel(&mut self, line: &mut Line, at: usize) -> Option<()> {
        let fact = &mut self.facts[at];
        fact.cancel_asked = true;
        let answer = line.call(CANCEL, &fact.cancel())?;
        let lost = fact.round <= self.fragile_through;
        match (fact.end, outcome(&answer)) {
            (_, (503, Some(6))) => self.unavailable += 1,
            (None | Some(End::Cancelled), (200, None)) => fact.end = Some(End::Cancelled),
            // A cancel that went through without an answer is known by its repeat.
            (Some(End::Gone), (200, None) | (404, Some(106))) => {}
            (Some(End::Confirmed), (409, Some(107))) => {}
            (None, (409, Some(107))) if fact.confirm_asked => fact.end = Some(End::Confirmed),
            (None, (404, Some(106))) if lost => fact.end = Some(End::Gone),
            _ => panic!("cancel in round {}: {fact:?}: {answer:?}", self.round),
        }
        Some(())
    }

    /// Confirms everything once more, so that nothing is left unknown.
    pub fn settle_all(&mut self, mut line: Line) {
        if self.organization != 3 {
            (0..self.facts.len()).for_each(|at| self.confirm(&mut line, at).unwrap());
        }
    }

    fn any_holder(&mut self) -> u64 {
        FIRST_HOLDER + self.random.random_range(0..HOLDERS)
    }
}

pub fn outcome(answer: &Response) -> (u16, Option<i64>) {
    if answer.body.is_empty() { (answer.status, None) } else { answer.error() }
}

pub fn client_code(holder: u64) -> String {
    format!("CRASH{holder}")
}

pub fn rubles(kopecks: u64) -> String {
    format!("{}.{:02}", kopecks / 100, kopecks % 100)
}
