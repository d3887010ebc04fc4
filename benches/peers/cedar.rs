//! Cedar, in process: policies of one offer (`one.cedar`, `named.cedar`), a holder's record as the
//! principal's attributes, day and card in the context.
//!
//! Requests and entities are made before the clock starts, so only deciding is timed. Cedar looks at
//! every policy of a set; the caller may keep a set for each offer, or one for all, as is usual: both
//! are measured. Finding the holder by the card, which eligo's figure contains,
//! is not in Cedar's.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::str::FromStr;
use std::time::Instant;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, Policy, PolicyId, PolicySet,
    Request, RestrictedExpression,
};
use engine::calendar::Day;
use engine::holder::CardStatus;

use crate::data::{Answered, Data, ORGANIZATION, SERVICE};

/// Holders whose entities are kept ready: a million would take sixteen gigabytes.
const HOLDERS: u64 = 10_000;

pub struct Cedar {
    authorizer: Authorizer,
    one: PolicySet,
    named: PolicySet,
    /// The same for all offers of the organization.
    all: PolicySet,
    /// One policy each, the best category first.
    in_order: Vec<(u32, PolicySet)>,
    places: HashMap<PolicyId, usize>,
    questions: Vec<Question>,
}

struct Question {
    request: Request,
    entities: Entities,
    expected: Answered,
}

impl Cedar {
    pub fn new(data: &Data, holders: impl Iterator<Item = u64>) -> Cedar {
        let mut all = PolicySet::new();
        let mut named = PolicySet::new();
        let mut in_order = Vec::new();
        let mut places = HashMap::new();
        let mut clauses = Vec::new();
        for offer in &data.registry().directory().compiled(ORGANIZATION).unwrap().offers {
            for (place, candidate) in offer.candidates.iter().enumerate() {
                let clause = clause(candidate.category.0);
                let text = include_str!("named.cedar").replace("{clause}", &clause);
                let text = text.replace("{offer}", &offer.service.to_string());
                let id = PolicyId::new(format!("{}:{}", offer.service, candidate.category));
                let policy = Policy::parse(Some(id.clone()), text).unwrap();
                all.add(policy.clone()).unwrap();
                if offer.service == SERVICE {
                    named.add(policy.clone()).unwrap();
                    let alone = PolicySet::from_policies([policy]).unwrap();
                    in_order.push((candidate.category.0, alone));
                    places.insert(id, place);
                    clauses.push(clause);
                }
            }
        }
        let one = include_str!("one.cedar").replace("{any}", &clauses.join(" || "));
        let one = PolicySet::from_str(&one.replace("{offer}", &SERVICE.to_string())).unwrap();
        let questions = holders.take(usize::try_from(HOLDERS).unwrap());
        let questions = questions.filter_map(|holder| Question::new(data, holder)).collect();
        Cedar { authorizer: Authorizer::new(), one, named, all, in_order, places, questions }
    }

    /// How many policies the organization's offers have together.
    pub fn policy_count(&self) -> usize {
        self.all.policies().count()
    }

    /// Nanoseconds of a yes or no.
    pub fn one(&self) -> f64 {
        self.timed(|question| {
            let granted = self.allows(question, &self.one);
            granted == (question.expected.code == 0)
        })
    }

    /// Nanoseconds of naming the category by the policies that allow.
    pub fn named(&self) -> f64 {
        self.timed_by_reasons(&self.named)
    }

    /// The same among the policies of all offers.
    pub fn named_among_all(&self) -> f64 {
        self.timed_by_reasons(&self.all)
    }

    /// Nanoseconds of naming the category by asking for one after the other.
    pub fn in_order(&self) -> f64 {
        self.timed(|question| {
            let mut policies = self.in_order.iter();
            let best = policies.find(|(_, policy)| self.allows(question, policy));
            best.map_or(0, |(category, _)| *category) == question.expected.category
        })
    }

    fn timed_by_reasons(&self, policies: &PolicySet) -> f64 {
        self.timed(|question| {
            let Question { request, entities, .. } = question;
            let answer = self.authorizer.is_authorized(request, policies, entities);
            let best = answer.diagnostics().reason().map(|policy| self.places[policy]).min();
            best.map_or(0, |place| self.in_order[place].0) == question.expected.category
        })
    }

    fn allows(&self, question: &Question, policies: &PolicySet) -> bool {
        let Question { request, entities, .. } = question;
        self.authorizer.is_authorized(request, policies, entities).decision() == Decision::Allow
    }

    fn timed(&self, mut is_right: impl FnMut(&Question) -> bool) -> f64 {
        let mut right = 0;
        let begun = Instant::now();
        for question in &self.questions {
            right += usize::from(is_right(black_box(question)));
        }
        let nanos = begun.elapsed().as_nanos() as f64;
        assert_eq!(right, self.questions.len(), "Cedar decides otherwise");
        nanos / self.questions.len() as f64
    }
}

impl Question {
    fn new(data: &Data, holder: u64) -> Option<Question> {
        let found = data.registry().find(&data.digest(holder))?;
        let principal: EntityUid = format!(r#"Holder::"{holder}""#).parse().unwrap();
        let long = |day: Day| RestrictedExpression::new_long(day.0.into());
        let record = |fields: [(&str, RestrictedExpression); 2]| {
            let fields = fields.map(|(name, value)| (name.to_owned(), value));
            RestrictedExpression::new_record(fields).unwrap()
        };
        let mut attributes = HashMap::from([(
            "closed".to_owned(),
            RestrictedExpression::new_bool(found.holder.is_closed()),
        )]);
        for right in found.holder.rights() {
            let validity = [("from", long(right.validity.from)), ("to", long(right.validity.to))];
            attributes.insert(format!("c{}", right.category), record(validity));
        }
        let entity = Entity::new(principal.clone(), attributes, HashSet::new()).unwrap();
        let card = found.holder.cards().nth(found.card?.into())?;
        let active = RestrictedExpression::new_bool(card.status == CardStatus::Active);
        let card = record([("active", active), ("expires", long(card.expires))]);
        let context = [("card".to_owned(), card), ("today".to_owned(), long(data.today))];
        let context = Context::from_pairs(context).unwrap();
        let [action, resource] = [r#"Action::"use""#.to_owned(), format!(r#"Offer::"{SERVICE}""#)]
            .map(|text| text.parse::<EntityUid>().unwrap());
        let request = Request::new(principal, action, resource, context, None).unwrap();
        let entities = Entities::from_entities([entity], None).unwrap();
        Some(Question { request, entities, expected: data.expected(holder) })
    }
}

fn clause(category: u32) -> String {
    include_str!("clause.cedar").trim().replace("{category}", &category.to_string())
}
