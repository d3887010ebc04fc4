//! What happens: a seed, step after step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};

use engine::calendar::{Clock, Timestamp};
use engine::command::CheckAnswer;
use engine::ids::{HolderId, RevisionId, TerminalId, TransactionId};
use engine::ledger::LedgerSettings;
use engine::transaction::{Amounts, Transaction};

use crate::memory::{AppendFault, HandClock};
use crate::simulation::book::Book;
use crate::simulation::call::{Flight, Pending};
use crate::simulation::edit::{ORGANIZATIONS, SERVICES};
use crate::simulation::node::{Disk, Node, Retired};
use crate::simulation::town::{Benefit, IDENTIFIER_COUNT, Identifier, Question, Town};
use crate::simulation::trace::Trace;
use crate::simulation::travel::Travel;

/// Steps of one seed.
const STEPS: u32 = 600;
/// Monday noon in most regions.
const BEGINNING: &str = "2025-06-02T03:00:00Z";

/// An engine, a model of it, and what lies between them.
pub struct Story {
    pub(crate) random: SmallRng,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) disk: Disk,
    pub(crate) settings: LedgerSettings,
    pub(crate) node: Node,
    /// The registry as every check must see it.
    pub(crate) town: Town,
    /// What an import may have made of it whose end is unknown.
    pub(crate) unresolved: Option<(Town, RevisionId)>,
    /// The transactions, with everything that shards have worked on.
    pub(crate) book: Book,
    /// Whether the journal has failed and was not recovered yet.
    pub(crate) has_failed: bool,
    /// The shard that has no worker, if there is one.
    pub(crate) retired: Option<Retired>,
    /// What waits for each shard.
    pub(crate) mailboxes: Vec<VecDeque<Pending>>,
    /// What waits for the committer.
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) confirmed: BTreeMap<TransactionId, Amounts>,
    pub(crate) cancelled: BTreeSet<TransactionId>,
    pub(crate) ids: BTreeSet<TransactionId>,
    /// Everything that was ever granted, to be settled.
    pub(crate) granted: Vec<Transaction>,
    /// Checks that died with the power, though a snapshot from before may still know them.
    pub(crate) lost: Vec<Transaction>,
    pub(crate) swept_at: Option<Timestamp>,
    pub(crate) damaged: BTreeSet<u64>,
    pub(crate) travel: Travel,
    trace: Rc<Trace>,
}

/// Runs one seed to its end; panics when a promise is broken, showing the last steps before that.
pub fn run(seed: u64, shown: usize) {
    let trace = Rc::new(Trace::new(seed, shown));
    let mut story = Story::new(seed, trace.clone());
    for step in 1..=STEPS {
        trace.begin(step);
        story.step();
        if step.is_multiple_of(50) {
            story.audit();
        }
    }
    story.crash();
}

impl Story {
    fn new(seed: u64, trace: Rc<Trace>) -> Story {
        let mut random = SmallRng::seed_from_u64(seed);
        let clock = HandClock::at(BEGINNING);
        let disk = Disk::default();
        let settings = LedgerSettings {
            checked_ttl_seconds: *[24 * 3_600, 3_600, 600].choose(&mut random).unwrap(),
            transactions_max: if random.random_bool(0.1) { 30 } else { 1_000 },
            shard_count: random.random_range(1..=3),
        };
        let node = Node::start(&disk, clock.clone(), settings).unwrap();
        let mut story = Story {
            mailboxes: (0..settings.shard_count).map(|_| VecDeque::new()).collect(),
            book: Book::new(settings.checked_ttl_seconds),
            random,
            clock,
            disk,
            settings,
            node,
            town: Town::default(),
            unresolved: None,
            has_failed: false,
            retired: None,
            flights: VecDeque::new(),
            confirmed: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            ids: BTreeSet::new(),
            granted: Vec::new(),
            lost: Vec::new(),
            swept_at: None,
            damaged: BTreeSet::new(),
            travel: Travel::default(),
            trace,
        };
        let today = story.today();
        let town = Town::random(&mut story.random, today);
        story.import_town(town);
        story
    }

    fn step(&mut self) {
        match self.random.random_range(0..1_000) {
            0..10 => self.snapshot(),
            10..14 => self.damage_snapshot(),
            14..20 => self.crash(),
            _ => self.small_step(),
        }
    }

    /// Everything that may also happen while a snapshot is written.
    pub(crate) fn small_step(&mut self) {
        match self.random.random_range(0..1_050) {
            1_000..1_035 => self.upload(),
            1_035..1_050 => self.claim(),
            0..70 if self.has_failed => self.recover(),
            70..170 if self.retired.is_some() => self.rebuild(),
            0..220 => self.check(),
            220..280 => self.record(),
            280..480 => self.confirm(),
            480..560 => self.cancel(),
            560..740 => self.drain(),
            740..890 => self.commit(),
            890..935 => self.move_clock(),
            935..945 => self.sweep(),
            945..965 => self.import(),
            965..975 => self.import_wrongly(),
            975..987 => self.plan_fault(),
            _ => self.lose_worker(),
        }
    }

    fn check(&mut self) {
        let question = self.question();
        let now = self.clock.now();
        let expected = self.town.decide(&question, now, |key| self.book.taken(key, now));
        let is_full =
            self.node.partition.ledger().transaction_count() >= self.settings.transactions_max;
        let registry = self.node.partition.registry_full();
        let answer = self.node.partition.check(&registry, &question.check());
        self.note(|| format!("check {question:?} at {now}: {answer:?}"));
        match (expected, answer) {
            (Err(expected), CheckAnswer::Refused(refusal)) => assert_eq!(refusal, expected),
            (Ok(benefit), CheckAnswer::Unavailable) => {
                let shard = self.node.partition.ledger().shard(HolderId(benefit.holder));
                let is_retired = self.is_retired(usize::from(shard.0));
                assert!(self.has_failed || is_full || is_retired);
            }
            (Ok(benefit), CheckAnswer::Granted(granted)) => {
                assert!(!self.has_failed);
                assert_eq!(granted.holder.0, benefit.holder);
                assert_eq!(granted.category.0, benefit.category);
                assert!(self.ids.insert(granted.transaction), "an id is given again");
                let facts = self.facts(&question, granted, &benefit);
                self.book.open(facts);
                self.granted.push(facts);
                if let Some((key, count)) = benefit.place {
                    assert!(self.book.taken(&key, now) <= usize::try_from(count).unwrap());
                }
            }
            (expected, answer) => panic!("{answer:?} instead of {expected:?}"),
        }
    }

    /// Somebody at some terminal, mostly one that works.
    pub(crate) fn question(&mut self) -> Question {
        let random = &mut self.random;
        let open = |(id, (state, ..)): (&u32, &(&str, u32, BTreeSet<u32>))| {
            (*state == "active").then_some(*id)
        };
        let organizations = self.town.organizations.iter().filter_map(open);
        let wrong = random.random_bool(0.05);
        let any = random.random_range(1..=ORGANIZATIONS);
        let organization = organizations.choose(random).filter(|_| !wrong).unwrap_or(any);
        let owner = if wrong { random.random_range(0..6) } else { organization };
        let number = random.random_range(0..IDENTIFIER_COUNT);
        let holder = self.town.holders.values().choose(random);
        // Mostly somebody who exists.
        let identifier = match holder.map(|holder| (holder.cards.choose(random), holder.snils)) {
            Some((Some((code, ..)), _)) if random.random_bool(0.6) => Identifier::Code(*code),
            Some((_, Some(snils))) if random.random_bool(0.9) => Identifier::Snils(snils),
            _ => Identifier::Code(number),
        };
        let service = random.random_range(1..=SERVICES + 1).min(SERVICES + u32::from(wrong));
        Question {
            organization,
            terminal: u64::from(owner) * 10 + random.random_range(1..=2),
            service,
            identifier,
        }
    }

    /// The transaction that a grant must have opened.
    pub(crate) fn facts(
        &self,
        question: &Question,
        granted: engine::command::Granted,
        benefit: &Benefit,
    ) -> Transaction {
        let check = question.check();
        Transaction {
            id: granted.transaction,
            organization: check.organization,
            terminal: TerminalId(question.terminal),
            service: check.service,
            category: granted.category,
            holder: granted.holder,
            checked_at: self.clock.now(),
            discount_percent: Some(benefit.percent),
            limit_period: benefit.place.map(|(key, _)| key.period),
        }
    }

    fn move_clock(&mut self) {
        let ttl = self.settings.checked_ttl_seconds;
        let seconds = match self.random.random_range(0..10) {
            0..4 => self.random.random_range(0..300),
            4..6 => -self.random.random_range(0..1_500),
            6 => ttl - self.random.random_range(0..3),
            7 => 24 * 3_600,
            8 => self.random.random_range(0..2 * ttl),
            _ => self.random.random_range(0..9 * 3_600),
        };
        self.clock.pass_seconds(seconds);
        self.note(|| format!("the clock moves by {seconds} s"));
    }

    fn sweep(&mut self) {
        let now = self.clock.now();
        self.note(|| format!("sweep at {now}"));
        self.node.partition.ledger().sweep(now);
        self.swept_at = self.swept_at.max(Some(now));
    }

    fn plan_fault(&mut self) {
        let fault = *[AppendFault::Kept, AppendFault::Lost].choose(&mut self.random).unwrap();
        self.note(|| format!("the next append will be {fault:?}"));
        self.disk.journal.plan_faults([Some(fault)]);
    }

    pub(crate) fn today(&self) -> i32 {
        i32::try_from(self.clock.now().unix_seconds().div_euclid(86_400)).unwrap()
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        self.trace.note(what);
    }
}
