//! The directory: regions, areas, categories, services, organizations, offers and terminals.
//!
//! It is small, read by every check and replaced as a whole by an import. What a check needs is
//! worked out once, when the directory is built: for every offer the categories that can win it, in
//! the order in which they win.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::calendar::{Day, Period, Timestamp, UtcOffset, Validity};
use crate::ids::{AreaId, CategoryId, Kopecks, OrganizationId, RegionCode, ServiceId, TerminalId};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// A region of the programme.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its clock.
    pub utc_offset: UtcOffset,
    /// Its designation in D2 messages.
    pub prg_code: Option<String>,
}

/// An area of a region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Area {
    /// Its name, at most 50 characters.
    pub name: String,
    /// Where it lies.
    pub region: RegionCode,
}

/// A benefit category.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Category {
    /// Its name, at most 100 characters.
    pub name: String,
    /// The smaller wins.
    pub priority: i32,
    /// Whether a companion travels on the same right.
    pub with_companion: bool,
    /// When the category exists.
    pub validity: Validity,
}

/// What a service is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceKind {
    /// Attendance register.
    Attendance,
    /// Discount of a partner.
    Discount,
    /// Goods.
    Goods,
    /// Meal.
    Meal,
    /// Entry pass.
    Pass,
    /// Social payment.
    Payment,
    /// Travel.
    Transport,
    /// A visit to a museum, a pool.
    Visit,
}

/// How often a category may use a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Uses of one holder.
    pub count: u32,
    /// Over which span.
    pub period: Period,
}

/// A category that gives a right to a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServiceCategory {
    /// The category.
    pub category: CategoryId,
    /// Replaces the category's own priority for this service.
    pub priority: Option<i32>,
    /// Size of the benefit, 0 to 100.
    pub discount_percent: u8,
    /// How often, where limited (C-45).
    pub limit: Option<Limit>,
}

/// A service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Its name, at most 100 characters.
    pub name: String,
    /// What it is.
    pub kind: ServiceKind,
    /// Who has a right to it.
    pub categories: Vec<ServiceCategory>,
}

/// How an organization is connected (D0 §1.4, A1 row 9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connection {
    /// Gives state support through the bank's program, with the bank's terminals.
    T1V1,
    /// The same with other terminals or none.
    T1V2,
    /// Ticket system "Digital Pass".
    T2V1,
    /// Its own ticket system.
    T2V2,
    /// Gives discounts, own ticket system.
    T3,
    /// Sells air tickets.
    Airline,
}

/// The "connection type" of D0 Annex 2; not the same scale as [`Connection`] (C-05).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ApiType {
    /// Identifies by client code or social card.
    One,
    /// Identifies by SNILS.
    Two,
    /// Gives discounts: the check itself is the fact.
    Three,
}

impl Connection {
    /// The connection type of D0 Annex 2, where there is a web service at all.
    pub fn api_type(self) -> Option<ApiType> {
        match self {
            Connection::Airline | Connection::T2V2 => Some(ApiType::One),
            Connection::T2V1 => Some(ApiType::Two),
            Connection::T3 => Some(ApiType::Three),
            Connection::T1V1 | Connection::T1V2 => None,
        }
    }
}

/// Where an organization stands in its life as a participant (catalogue §3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OrganizationState {
    /// Application accepted.
    Accepted,
    /// Serves cards.
    Active,
    /// Serves cards while a change is worked on.
    ChangePending,
    /// Out.
    Excluded,
    /// Application returned.
    Returned,
    /// Application sent.
    Submitted,
    /// About to be excluded.
    Suspending,
    /// Tests before activation.
    Testing,
}

/// What an organization is to the programme.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OrganizationRole {
    /// It serves cards and is reimbursed.
    #[default]
    Acceptor,
    /// It decides on claims.
    Ministry,
}

/// A keyed digest of a client secret; the secret itself is nowhere.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct SecretDigest(pub [u8; 32]);

impl std::fmt::Debug for SecretDigest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SecretDigest")
    }
}

/// An organization that serves the card.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Organization {
    /// Its OAuth2 client id.
    pub client_id: String,
    /// Its client secret, hashed.
    pub secret: SecretDigest,
    /// Its short name, at most 50 characters.
    pub short_name: String,
    /// How it is connected.
    pub connection: Connection,
    /// Where it stands.
    pub state: OrganizationState,
    /// Where it is.
    pub area: AreaId,
    /// From where it may call; empty means from nowhere.
    pub ip_allow: Vec<IpNet>,
    /// The categories that it serves.
    pub categories: Vec<CategoryId>,
    /// Whether it may ask for the history (D0 §8).
    pub history: bool,
    /// What it is to the programme.
    pub role: OrganizationRole,
}

impl Organization {
    /// Only active organizations check and confirm (catalogue §3.2).
    pub fn serves(&self) -> bool {
        matches!(self.state, OrganizationState::Active | OrganizationState::ChangePending)
    }
}

/// A service in the list of an organization.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    /// When it is offered.
    pub validity: Validity,
    /// Full price.
    pub base_price: Option<Kopecks>,
    /// «Признак связанности льготы», kept and shown only (C-50).
    pub linked: bool,
    /// Information only.
    pub working_hours: Option<String>,
}

/// A terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terminal {
    /// Whose it is.
    pub organization: OrganizationId,
    /// Whether it may be used.
    pub active: bool,
}

/// Everything that an import can put into the directory, as it was given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DirectoryItems {
    /// Regions.
    pub regions: BTreeMap<RegionCode, Region>,
    /// Areas.
    pub areas: BTreeMap<AreaId, Item<Area>>,
    /// Categories.
    pub categories: BTreeMap<CategoryId, Category>,
    /// Services.
    pub services: BTreeMap<ServiceId, Item<Service>>,
    /// Organizations.
    pub organizations: BTreeMap<OrganizationId, Item<Organization>>,
    /// Offers.
    pub offers: BTreeMap<(OrganizationId, ServiceId), Offer>,
    /// Terminals.
    pub terminals: BTreeMap<TerminalId, Terminal>,
}

/// Something that stays nameable in the history after it was deleted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item<T> {
    /// The thing.
    pub value: T,
    /// Whether only the history still knows it.
    pub deleted: bool,
}

impl<T> Item<T> {
    /// The thing, unless it was deleted.
    pub fn present(&self) -> Option<&T> {
        (!self.deleted).then_some(&self.value)
    }
}

/// A category that can win an offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// The category.
    pub category: CategoryId,
    /// Its priority for this service; the smaller wins.
    pub priority: i32,
    /// Size of the benefit, 0 to 100.
    pub discount_percent: u8,
    /// How often, where limited.
    pub limit: Option<Limit>,
    /// When the category exists.
    pub validity: Validity,
    /// Whether a companion travels on the same right.
    pub with_companion: bool,
}

/// An offer, worked out for checks.
#[derive(Clone, Debug)]
pub struct CompiledOffer {
    /// The service.
    pub service: ServiceId,
    /// When it is offered.
    pub validity: Validity,
    /// Who can win it, the best first: priority, then larger benefit, then smaller id (§3.6).
    pub candidates: Box<[Candidate]>,
}

/// An organization, worked out for checks.
#[derive(Clone, Debug)]
pub struct CompiledOrganization {
    /// Whether it may check and confirm.
    pub serves: bool,
    /// The clock on its wall.
    pub utc_offset: UtcOffset,
    /// Its offers by ascending service id.
    pub offers: Box<[CompiledOffer]>,
}

impl CompiledOrganization {
    /// The offer of `service`, valid or not.
    pub fn offer(&self, service: ServiceId) -> Option<&CompiledOffer> {
        let at = self.offers.binary_search_by_key(&service, |offer| offer.service).ok()?;
        self.offers.get(at)
    }
}

/// The directory of one revision.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    items: DirectoryItems,
    organizations: FastMap<OrganizationId, CompiledOrganization>,
    terminals: FastMap<TerminalId, Terminal>,
    clients: FastMap<String, OrganizationId>,
}

impl Directory {
    /// Works out what checks need from `items`, whose references have been checked.
    pub fn build(items: DirectoryItems) -> Directory {
        let mut organizations = FastMap::default();
        let mut clients = FastMap::default();
        for (id, item) in &items.organizations {
            let Some(organization) = item.present() else { continue };
            organizations.insert(*id, compile(&items, *id, organization));
            clients.insert(organization.client_id.clone(), *id);
        }
        let terminals = fast_map(items.terminals.iter().map(|(id, terminal)| (*id, *terminal)));
        Directory { items, organizations, terminals, clients }
    }

    /// Everything as it was given.
    pub fn items(&self) -> &DirectoryItems {
        &self.items
    }

    /// What checks need of an organization.
    pub fn compiled(&self, organization: OrganizationId) -> Option<&CompiledOrganization> {
        self.organizations.get(&organization)
    }

    /// An organization that was not deleted.
    pub fn organization(&self, id: OrganizationId) -> Option<&Organization> {
        self.items.organizations.get(&id)?.present()
    }

    /// The organization with this client id.
    pub fn client(&self, client_id: &str) -> Option<(OrganizationId, &Organization)> {
        let id = *self.clients.get(client_id)?;
        Some((id, self.organization(id)?))
    }

    /// A terminal.
    pub fn terminal(&self, id: TerminalId) -> Option<&Terminal> {
        self.terminals.get(&id)
    }

    /// The name of a category.
    pub fn category_name(&self, id: CategoryId) -> Option<&str> {
        self.items.categories.get(&id).map(|category| category.name.as_str())
    }

    /// The name of a service, even of a deleted one.
    pub fn service_name(&self, id: ServiceId) -> Option<&str> {
        self.items.services.get(&id).map(|item| item.value.name.as_str())
    }

    /// An organization as the history names it, even a deleted one, with its area.
    pub fn place(&self, id: OrganizationId) -> Option<(&Organization, AreaId, &Area)> {
        let organization = &self.items.organizations.get(&id)?.value;
        let area = &self.items.areas.get(&organization.area)?.value;
        Some((organization, organization.area, area))
    }

    /// The services that an organization offers at `now`, by ascending id (D0 A2).
    pub fn services(
        &self,
        organization: OrganizationId,
        now: Timestamp,
    ) -> impl Iterator<Item = (ServiceId, &str)> {
        let compiled = self.compiled(organization);
        let today = compiled.map(|compiled| now.local_day(compiled.utc_offset));
        compiled.into_iter().flat_map(|compiled| compiled.offers.iter()).filter_map(move |offer| {
            let offered = today.is_some_and(|today: Day| offer.validity.covers(today));
            offered.then(|| Some((offer.service, self.service_name(offer.service)?))).flatten()
        })
    }
}

fn compile(
    items: &DirectoryItems,
    id: OrganizationId,
    organization: &Organization,
) -> CompiledOrganization {
    let area = items.areas.get(&organization.area).map(|item| item.value.region);
    let region = area.and_then(|region| items.regions.get(&region));
    let offers = items.offers.range((id, ServiceId(0))..=(id, ServiceId(u32::MAX)));
    let offers = offers.filter_map(|((_, service), offer)| {
        let definition = items.services.get(service)?.present()?;
        Some(CompiledOffer {
            service: *service,
            validity: offer.validity,
            candidates: candidates(items, organization, definition),
        })
    });
    CompiledOrganization {
        serves: organization.serves(),
        utc_offset: region.map(|region| region.utc_offset).unwrap_or_default(),
        offers: offers.collect(),
    }
}

/// The categories that are both linked to the service and served by the acceptor (A7 code 01).
fn candidates(
    items: &DirectoryItems,
    organization: &Organization,
    service: &Service,
) -> Box<[Candidate]> {
    let served = |link: &&ServiceCategory| organization.categories.contains(&link.category);
    let mut candidates: Vec<Candidate> = service
        .categories
        .iter()
        .filter(served)
        .filter_map(|link| {
            let category = items.categories.get(&link.category)?;
            Some(Candidate {
                category: link.category,
                priority: link.priority.unwrap_or(category.priority),
                discount_percent: link.discount_percent,
                limit: link.limit,
                validity: category.validity,
                with_companion: category.with_companion,
            })
        })
        .collect();
    candidates.sort_by_key(|candidate| {
        (candidate.priority, std::cmp::Reverse(candidate.discount_percent), candidate.category)
    });
    candidates.into_boxed_slice()
}

fn fast_map<K: Eq + Hash, V>(entries: impl Iterator<Item = (K, V)>) -> FastMap<K, V> {
    entries.collect()
}
