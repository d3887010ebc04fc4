//! The registry of the model: plain maps, and the decision as catalogue §3.6 tells it.

use std::collections::{BTreeMap, BTreeSet};

use engine::calendar::{Day, Timestamp};
use engine::command::Refusal;
use engine::decide::LimitKey;
use engine::directory::Item;
use engine::identifier::{Digest, DigestKey};
use engine::ids::{CategoryId, HolderId, OrganizationId, ServiceId, TerminalId};
use engine::keys::{Keys, SecretKey};
use engine::registry::Registry;
use engine::registry::change::RegistryChange;
use engine::registry::file::parse_line;
use engine::transaction::LimitPeriod;

/// Client codes and insurance numbers are taken from `0..IDENTIFIER_COUNT`.
pub const IDENTIFIER_COUNT: u32 = 24;

/// The keys of every test deployment.
pub fn keys() -> Keys {
    Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
}

/// Dates from and to, both included, either absent.
pub type Dates = (Option<i32>, Option<i32>);

/// Everything that is imported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Town {
    /// Minutes that a region is ahead of UTC.
    pub regions: BTreeMap<u8, i32>,
    /// The region of each area.
    pub areas: BTreeMap<u32, u8>,
    /// Priority and dates of each category.
    pub categories: BTreeMap<u32, (i32, Dates)>,
    /// The categories that have a right to a service.
    pub services: BTreeMap<u32, BTreeMap<u32, Link>>,
    /// State, area and categories of each organization.
    pub organizations: BTreeMap<u32, (&'static str, u32, BTreeSet<u32>)>,
    /// Which service is offered by whom, and when.
    pub offers: BTreeMap<(u32, u32), Dates>,
    /// Whose each terminal is, and whether it may be used.
    pub terminals: BTreeMap<u64, (u32, bool)>,
    /// The holders.
    pub holders: BTreeMap<u64, Person>,
}

/// How a category has a right to a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// In place of the category's own priority.
    pub priority: Option<i32>,
    /// Size of the benefit.
    pub percent: u8,
    /// How often per which period.
    pub limit: Option<(u32, &'static str)>,
}

/// Client code, status and last date of a card.
pub type Card = (u32, &'static str, Option<i32>);

/// A holder.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Whether out of the programme.
    pub closed: bool,
    /// Where the holder lives.
    pub region: u8,
    /// Insurance number.
    pub snils: Option<u32>,
    /// Client code, status and last date of each card.
    pub cards: Vec<Card>,
    /// Categories and their dates.
    pub rights: Vec<(u32, Dates)>,
}

/// How somebody shows who they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Identifier {
    /// By a card.
    Code(u32),
    /// As a person.
    Snils(u32),
}

/// A check in the words of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Who asks.
    pub organization: u32,
    /// Where.
    pub terminal: u64,
    /// For what.
    pub service: u32,
    /// Who stands there.
    pub identifier: Identifier,
}

/// What wins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Benefit {
    /// Whose right.
    pub holder: u64,
    /// Which.
    pub category: u32,
    /// Its size.
    pub percent: u8,
    /// The limit it falls under, and how many places that has.
    pub place: Option<(LimitKey, u32)>,
}

impl Identifier {
    /// As the registry file writes it.
    pub fn text(self) -> String {
        match self {
            Identifier::Code(number) => format!("CODE{number}"),
            Identifier::Snils(number) => format!("{:09}00", number + 1),
        }
    }

    /// As a check carries it.
    pub fn digest(self) -> Digest {
        let keys = keys();
        match self {
            Identifier::Code(_) => keys.identifiers.client_code(&self.text()).unwrap(),
            Identifier::Snils(_) => keys.identifiers.snils(&self.text()).unwrap(),
        }
    }
}

impl Question {
    /// The same question to the engine.
    pub fn check(&self) -> engine::command::Check {
        engine::command::Check {
            organization: OrganizationId(self.organization),
            terminal: TerminalId(self.terminal),
            service: ServiceId(self.service),
            identifier: self.identifier.digest(),
        }
    }
}

impl Town {
    /// Catalogue §3.6 in its order; `taken` counts the uses under a limit.
    pub fn decide(
        &self,
        question: &Question,
        now: Timestamp,
        taken: impl Fn(&LimitKey) -> usize,
    ) -> Result<Benefit, Refusal> {
        let terminal = self.terminals.get(&question.terminal);
        let organization = self.organizations.get(&question.organization);
        let (Some((owner, true)), Some((state, area, served))) = (terminal, organization) else {
            return Err(Refusal::OrganizationUnknown);
        };
        if *owner != question.organization || !["active", "change_pending"].contains(state) {
            return Err(Refusal::OrganizationUnknown);
        }
        let offset = self.regions[&self.areas[area]];
        let today = (now.0.div_euclid(1_000_000) + i64::from(offset) * 60).div_euclid(86_400);
        let today = i32::try_from(today).unwrap();
        let offer = self.offers.get(&(question.organization, question.service));
        let links = match (offer, self.services.get(&question.service)) {
            (Some(dates), Some(links)) if covers(*dates, today) => links,
            _ => return Err(Refusal::ServiceUnknown),
        };
        let (id, person, card) = self.find(question.identifier).ok_or(Refusal::HolderNotFound)?;
        let card_works = card.is_none_or(|(_, status, expires)| {
            status == "active" && expires.is_none_or(|last| today <= last)
        });
        if person.closed || !card_works {
            return Err(Refusal::CardInactive);
        }
        let mut best: Option<((i32, i32, u32), Benefit)> = None;
        for (category, link) in links {
            let (priority, exists) = self.categories[category];
            let held =
                person.rights.iter().any(|(of, dates)| of == category && covers(*dates, today));
            let place = link.limit.map(|(count, period)| {
                (limit_key(id, question.service, *category, period_of(today, period)), count)
            });
            let free = place.is_none_or(|(key, count)| taken(&key) < count as usize);
            let rank = (link.priority.unwrap_or(priority), -i32::from(link.percent), *category);
            let eligible = served.contains(category) && held && covers(exists, today) && free;
            if eligible && best.as_ref().is_none_or(|(known, _)| rank < *known) {
                let (category, percent) = (*category, link.percent);
                best = Some((rank, Benefit { holder: id, category, percent, place }));
            }
        }
        best.map(|(_, benefit)| benefit).ok_or(Refusal::NoBenefit)
    }

    /// Who has this identifier, and the card it stands on.
    pub fn find(&self, identifier: Identifier) -> Option<(u64, &Person, Option<Card>)> {
        self.holders.iter().find_map(|(id, person)| match identifier {
            Identifier::Snils(number) => {
                (person.snils == Some(number)).then_some((*id, person, None))
            }
            Identifier::Code(number) => {
                let card = person.cards.iter().find(|(code, ..)| *code == number)?;
                Some((*id, person, Some(*card)))
            }
        })
    }

    /// Asserts that a registry of the engine is this one, no more and no less.
    pub fn assert_is(&self, registry: &Registry) {
        let items = registry.directory().items();
        let lines = self.lines();
        let mut holders = BTreeMap::new();
        for line in lines.values() {
            match parse_line(line.as_bytes(), &keys()).unwrap() {
                RegistryChange::Area(id, new) => {
                    assert_eq!(items.areas.get(&id).and_then(Item::present), new.as_ref());
                }
                RegistryChange::Category(id, new) => {
                    assert_eq!(items.categories.get(&id), new.as_ref());
                }
                RegistryChange::Holder(id, new) => {
                    holders.insert(id, new.unwrap());
                }
                RegistryChange::Offer(id, new) => assert_eq!(items.offers.get(&id), new.as_ref()),
                RegistryChange::Organization(id, new) => {
                    assert_eq!(items.organizations.get(&id).and_then(Item::present), new.as_ref());
                }
                RegistryChange::Region(id, new) => {
                    assert_eq!(items.regions.get(&id), new.as_ref());
                }
                RegistryChange::Service(id, new) => {
                    assert_eq!(items.services.get(&id).and_then(Item::present), new.as_ref());
                }
                RegistryChange::Terminal(id, new) => {
                    assert_eq!(items.terminals.get(&id), new.as_ref());
                }
            }
        }
        assert_eq!(registry.holder_count(), holders.len());
        let known = registry.holders().iter().map(|(_, holder)| (holder.id(), holder.to_holder()));
        assert_eq!(known.collect::<BTreeMap<_, _>>(), holders);
        let present = items.areas.values().filter(|item| !item.deleted).count()
            + items.services.values().filter(|item| !item.deleted).count()
            + items.organizations.values().filter(|item| !item.deleted).count();
        let plain = items.regions.len() + items.categories.len();
        let plain = plain + items.offers.len() + items.terminals.len();
        assert_eq!(present + plain + holders.len(), lines.len());
        for number in 0..IDENTIFIER_COUNT {
            for identifier in [Identifier::Code(number), Identifier::Snils(number)] {
                let found = registry.holder_id(&identifier.digest());
                assert_eq!(found, self.find(identifier).map(|(id, ..)| HolderId(id)));
            }
        }
    }

    /// The registry file, a line for each entry.
    pub fn lines(&self) -> BTreeMap<(&'static str, u64, u64), String> {
        let mut lines = BTreeMap::new();
        let mut put = |kind, id: u64, id2: u64, fields: String| {
            lines.insert((kind, id, id2), format!("{{\"kind\":\"{kind}\",{fields}}}"));
        };
        for (code, minutes) in &self.regions {
            let sign = if *minutes < 0 { '-' } else { '+' };
            let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
            let offset = format!("{sign}{hours:02}:{minutes:02}");
            let fields = format!(r#""code":"{code:02}","name":"R","utc_offset":"{offset}""#);
            put("region", (*code).into(), 0, fields);
        }
        for (id, region) in &self.areas {
            put("area", (*id).into(), 0, format!(r#""id":{id},"name":"A","region":"{region:02}""#));
        }
        for (id, (priority, valid)) in &self.categories {
            let dates = dates(*valid);
            let companion = id % 3 == 0;
            let fields = format!(
                r#""id":{id},"name":"C","priority":{priority},"with_companion":{companion}{dates}"#
            );
            put("category", (*id).into(), 0, fields);
        }
        for (id, links) in &self.services {
            let links: Vec<String> = links.iter().map(|(id, link)| link.text(*id)).collect();
            let links = links.join(",");
            let fields =
                format!(r#""id":{id},"name":"S","service_kind":"visit","categories":[{links}]"#);
            put("service", (*id).into(), 0, fields);
        }
        for (id, (state, area, categories)) in &self.organizations {
            let fields = format!(
                r#""id":{id},"client_id":"c{id}","client_secret":"s","short_name":"O","connection":"T2V2","state":"{state}","area":{area},"categories":{:?}"#,
                categories.iter().collect::<Vec<_>>()
            );
            put("organization", (*id).into(), 0, fields);
        }
        for ((organization, service), valid) in &self.offers {
            let dates = dates(*valid);
            let fields = format!(r#""organization":{organization},"service":{service}{dates}"#);
            put("offer", (*organization).into(), (*service).into(), fields);
        }
        for (id, (organization, active)) in &self.terminals {
            let state = if *active { "active" } else { "blocked" };
            let fields = format!(r#""id":{id},"organization":{organization},"state":"{state}""#);
            put("terminal", *id, 0, fields);
        }
        for (id, person) in &self.holders {
            put("holder", *id, 0, person.text(*id));
        }
        lines
    }

    /// The lines that lead from this registry to another one.
    pub fn lines_to(&self, next: &Town) -> Vec<String> {
        let (old, new) = (self.lines(), next.lines());
        let changed = new.iter().filter(|(key, line)| old.get(*key) != Some(*line));
        let mut lines: Vec<String> = changed.map(|(_, line)| line.clone()).collect();
        for (kind, id, id2) in old.keys().filter(|key| !new.contains_key(*key)) {
            let id = match *kind {
                "region" => format!(r#""code":"{id:02}""#),
                "offer" => format!(r#""organization":{id},"service":{id2}"#),
                _ => format!(r#""id":{id}"#),
            };
            lines.push(format!(r#"{{"kind":"{kind}",{id},"deleted":true}}"#));
        }
        lines
    }
}

impl Link {
    fn text(&self, category: u32) -> String {
        let priority = self.priority.map(|own| format!(r#","priority":{own}"#)).unwrap_or_default();
        let limit = self
            .limit
            .map(|(count, period)| format!(r#","limit":{{"count":{count},"period":"{period}"}}"#));
        let limit = limit.unwrap_or_default();
        let percent = self.percent;
        format!(r#"{{"category":{category},"discount_percent":{percent}{priority}{limit}}}"#)
    }
}

impl Person {
    fn text(&self, id: u64) -> String {
        let cards = self.cards.iter().map(|(code, status, expires)| {
            let code = Identifier::Code(*code).text();
            let expires = expires.map(|last| format!(r#","expires":"{}""#, Day(last)));
            let blocked = if *status == "blocked" { r#","blocked_by":"bank""# } else { "" };
            let expires = expires.unwrap_or_default();
            format!(
                r#"{{"type":"ecs","client_code":"{code}","status":"{status}"{blocked}{expires}}}"#
            )
        });
        let cards = cards.collect::<Vec<_>>().join(",");
        let rights = self
            .rights
            .iter()
            .map(|(category, valid)| format!(r#"{{"category":{category}{}}}"#, dates(*valid)));
        let rights = rights.collect::<Vec<_>>().join(",");
        let snils =
            self.snils.map(|number| format!(r#","snils":"{}""#, Identifier::Snils(number).text()));
        let status = if self.closed { "closed" } else { "active" };
        format!(
            r#""id":{id},"region":"{:02}","status":"{status}","cards":[{cards}],"categories":[{rights}]{}"#,
            self.region,
            snils.unwrap_or_default()
        )
    }
}

/// Whether a date lies inside.
pub fn covers((from, to): Dates, day: i32) -> bool {
    from.is_none_or(|from| from <= day) && to.is_none_or(|to| day <= to)
}

fn dates((from, to): Dates) -> String {
    let from = from.map(|day| format!(r#","valid_from":"{}""#, Day(day)));
    let to = to.map(|day| format!(r#","valid_to":"{}""#, Day(day)));
    from.unwrap_or_default() + &to.unwrap_or_default()
}

fn limit_key(holder: u64, service: u32, category: u32, (first, last): (i32, i32)) -> LimitKey {
    LimitKey {
        holder: HolderId(holder),
        service: ServiceId(service),
        category: CategoryId(category),
        period: LimitPeriod { first: Day(first), last: Day(last) },
    }
}

/// The period that a date lies in, found by stepping from day to day.
fn period_of(today: i32, period: &str) -> (i32, i32) {
    let name = |day: i32| -> String {
        match period {
            "day" => day.to_string(),
            // Day 0 of the epoch was a Thursday.
            "week" => (day + 3).div_euclid(7).to_string(),
            "month" => Day(day).to_string()[..7].to_owned(),
            "year" => Day(day).to_string()[..4].to_owned(),
            _ => unreachable!(),
        }
    };
    let wanted = name(today);
    let (mut first, mut last) = (today, today);
    while name(first - 1) == wanted {
        first -= 1;
    }
    while name(last + 1) == wanted {
        last += 1;
    }
    (first, last)
}
