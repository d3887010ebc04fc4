//! The trips that the devices of the depot bring: decided offline by the registry that they had, and
//! compared with what the registry file says.

use engine::identifier::CardKey;
use validator::verdict::Verdict;

use crate::answer::OfflineAnswer;
use crate::calendar::Wall;
use crate::citizens::desks::{Desks, Stand};
use crate::fleet::device::Device;
use crate::fleet::holding::Holding;
use crate::fleet::ledger::Tap;
use crate::numbers::Numbers;
use crate::oracle::{self, Person, Question};
use crate::registry::Registry;
use crate::registry::directory::Offer;
use crate::request::Identifier;

/// Holders that are drawn until one is granted something.
const DRAWS_MAX: usize = 64;
/// How far before the registry was built a trip may lie: the server allows five minutes.
const BEFORE_MS: i64 = 240_000;
/// How far back a night reaches.
const NIGHT_MS: i64 = 8 * 3_600_000;
/// Faults that are told in words.
const FAULTS_MAX: usize = 20;
const STREAM: u64 = 0x6e69_6768;

/// Draws nights.
pub struct Night<'r> {
    registry: &'r Registry,
    key: &'r CardKey,
    numbers: Numbers,
    faults: Vec<String>,
}

impl<'r> Night<'r> {
    /// By a seed.
    pub fn new(registry: &'r Registry, key: &'r CardKey, seed: u64) -> Night<'r> {
        Night { registry, key, numbers: Numbers::of(seed, STREAM), faults: Vec::new() }
    }

    /// Gives a device the trips of a night; how many they became.
    pub fn draw(&mut self, device: &Device, trips: u32) -> u64 {
        let desks = Desks::of_validators(self.registry, &[device.berth.terminal]);
        let Some(stand) = desks.stands.get(&device.berth.organization) else { return 0 };
        let holding = device.holding();
        let mut drawn = 0;
        for _ in 0..trips {
            if let Some(tap) = self.tap(device, stand, holding.as_deref()) {
                device.record(tap);
                drawn += 1;
            }
        }
        drawn
    }

    /// What devices decided otherwise than the registry file says.
    pub fn into_faults(self) -> Vec<String> {
        self.faults
    }

    fn tap(&mut self, device: &Device, stand: &Stand, holding: Option<&Holding>) -> Option<Tap> {
        let mut last = None;
        for _ in 0..DRAWS_MAX {
            let offer = self.numbers.pick(&stand.offers)?;
            let holder = self.numbers.below(self.registry.holders.len() as u64);
            let holder = u32::try_from(holder).ok()?;
            let cards: Vec<u32> = self.registry.holders.cards_of(holder).collect();
            let Some(card) = self.numbers.pick(&cards).copied() else { continue };
            let person = Person::Card { holder, card };
            last = self.decided(device, offer, person, holding);
            if last.is_some_and(|tap| tap.verdict == Verdict::Grant) {
                break;
            }
        }
        last
    }

    fn decided(
        &mut self,
        device: &Device,
        offer: &Offer,
        person: Person,
        holding: Option<&Holding>,
    ) -> Option<Tap> {
        let registry = self.registry;
        let Person::Card { card, .. } = person else { return None };
        let digest = match registry.holders.card(card)?.identifier() {
            Identifier::ClientCode(code) => self.key.client_code(code).ok()?,
            Identifier::SocialCard(number, series) => self.key.social_card(number, series).ok()?,
            Identifier::Snils(_) => return None,
        };
        let service = registry.directory.services.get(usize::from(offer.service))?.id;
        let now_ms = device.server_ms();
        let Some(holding) = holding else {
            // Without a registry such a grant is one that a person must look at.
            let verdict = Verdict::Grant;
            let (category, discount, transaction) = (None, 100, None);
            let (at_ms, registry) = (now_ms, 0);
            let tap =
                Tap { digest, service, at_ms, registry, verdict, category, discount, transaction };
            return Some(tap);
        };
        let from = (holding.built_at_ms() - BEFORE_MS).max(now_ms - NIGHT_MS);
        let span = u64::try_from(now_ms - from).unwrap_or_default();
        let at_ms = from + i64::try_from(self.numbers.below(span)).unwrap_or_default();
        let decided = holding.decide(&digest, service, at_ms);
        let berth = device.berth;
        let organization = berth.organization;
        let question = Question { organization, terminal: berth.terminal, service, person };
        let offset = registry.directory.organization(organization)?.offset;
        let day = Wall(at_ms.saturating_mul(1_000)).day(offset);
        let answer = OfflineAnswer { verdict: decided.verdict, category: decided.category };
        if !oracle::foretells(registry, &question, day, &answer) && self.faults.len() < FAULTS_MAX {
            let (verdict, category) = (decided.verdict, decided.category.unwrap_or_default());
            self.faults.push(format!(
                "offline decision on service {service}: {verdict:?} by category {category}"
            ));
        }
        Some(Tap {
            digest,
            service,
            at_ms,
            registry: holding.version(),
            verdict: decided.verdict,
            category: decided.category,
            discount: decided.discount,
            transaction: None,
        })
    }
}
