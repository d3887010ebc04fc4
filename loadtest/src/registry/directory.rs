//! The directory: categories, services, organizations with their offers, terminals.
//!
//! Things refer to each other by their places in the lists. For every offer the categories that can
//! win it are worked out once, in the order in which they win (catalogue §3.6): priority, then larger
//! benefit, then smaller id.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use crate::calendar::{Day, Offset, Period, Validity};
use crate::registry::line::{
    AreaLine, CategoryLine, OfferLine, OrganizationLine, RegionLine, ServiceLine, TerminalLine,
};

/// Everything but holders.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// By ascending id.
    pub categories: Vec<Category>,
    /// By ascending id.
    pub services: Vec<Service>,
    /// By ascending id; a [`crate::request::Call`] names organizations by their places here.
    pub organizations: Vec<Organization>,
    /// By ascending id.
    pub terminals: Vec<Terminal>,
}

/// A benefit category.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Category {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The smaller wins.
    pub priority: i64,
    /// When it exists.
    pub validity: Validity,
}

/// A service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a journey, which validators check.
    pub is_transport: bool,
}

/// How often a category may use a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Uses of one holder.
    pub count: u32,
    /// Over which span.
    pub period: Period,
}

/// The connection type of D0 Annex 2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionType {
    /// Identifies by client code or social card.
    One,
    /// Identifies by SNILS.
    Two,
    /// Gives discounts: the check itself is the fact.
    Three,
}

/// A client secret, which nothing prints.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// An organization.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Organization {
    /// Its id.
    pub id: u32,
    /// What it authenticates as.
    pub client_id: String,
    /// What it authenticates with.
    pub secret: Secret,
    /// None where it has no web service.
    pub connection: Option<ConnectionType>,
    /// Whether it may check and confirm.
    pub serves: bool,
    /// Whether the server gives it tokens.
    pub is_known: bool,
    /// The clock on its wall.
    pub offset: Offset,
    /// Whether it may ask for the history.
    pub history: bool,
    /// By ascending service id.
    pub offers: Vec<Offer>,
    /// Its terminals that may be used.
    pub terminals: Vec<u64>,
}

/// A service in the list of an organization.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    /// The service's place.
    pub service: u16,
    /// When it is offered.
    pub validity: Validity,
    /// Who can win it, the best first.
    pub candidates: Vec<Candidate>,
    /// Whether uses are limited for any of them.
    pub is_limited: bool,
}

/// A category that can win an offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// The category's place.
    pub category: u16,
    /// The place of service and category among all such pairs.
    pub link: u16,
    /// How often, where limited.
    pub limit: Option<Limit>,
}

/// A terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terminal {
    /// Its id.
    pub id: u64,
    /// The place of its organization, if that exists.
    pub organization: Option<u16>,
    /// Whether it may be used.
    pub is_active: bool,
}

impl Directory {
    /// The place of a category.
    pub fn category(&self, id: u32) -> Option<u16> {
        self.categories.binary_search_by_key(&id, |category| category.id).ok().and_then(narrow)
    }

    /// The place of a service.
    pub fn service(&self, id: u32) -> Option<u16> {
        self.services.binary_search_by_key(&id, |service| service.id).ok().and_then(narrow)
    }

    /// A terminal.
    pub fn terminal(&self, id: u64) -> Option<&Terminal> {
        let at = self.terminals.binary_search_by_key(&id, |terminal| terminal.id).ok()?;
        self.terminals.get(at)
    }

    /// An organization by its place.
    pub fn organization(&self, place: u16) -> Option<&Organization> {
        self.organizations.get(usize::from(place))
    }

    /// The place of an organization.
    pub fn organization_place(&self, id: u32) -> Option<u16> {
        let at = self.organizations.binary_search_by_key(&id, |organization| organization.id);
        at.ok().and_then(narrow)
    }
}

impl Organization {
    /// Its offer of a service, valid or not.
    pub fn offer(&self, service: u16) -> Option<&Offer> {
        let at = self.offers.binary_search_by_key(&service, |offer| offer.service).ok()?;
        self.offers.get(at)
    }
}

fn narrow(place: usize) -> Option<u16> {
    u16::try_from(place).ok()
}

/// What the lines said, until all of them have been read.
#[derive(Default)]
pub(crate) struct DirectoryLines {
    regions: BTreeMap<String, Offset>,
    areas: BTreeMap<u32, String>,
    categories: BTreeMap<u32, Category>,
    services: BTreeMap<u32, (Service, Vec<Link>)>,
    organizations: BTreeMap<u32, RawOrganization>,
    offers: BTreeMap<(u32, u32), Validity>,
    terminals: BTreeMap<u64, (u32, bool)>,
}

struct Link {
    category: u32,
    priority: Option<i64>,
    discount_percent: u8,
    limit: Option<Limit>,
}

struct RawOrganization {
    organization: Organization,
    area: u32,
    categories: Vec<u32>,
}

/// A field that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not what the format says")]
pub struct FieldError(pub &'static str);

impl DirectoryLines {
    /// Takes a region.
    pub(crate) fn region(
        &mut self,
        line: &RegionLine<'_>,
        deleted: bool,
    ) -> Result<(), FieldError> {
        if deleted {
            self.regions.remove(line.code.as_ref());
            return Ok(());
        }
        let offset = Offset::parse(&line.utc_offset).ok_or(FieldError("utc_offset"))?;
        self.regions.insert(line.code.clone().into_owned(), offset);
        Ok(())
    }

    /// Takes an area.
    pub(crate) fn area(&mut self, line: &AreaLine<'_>, deleted: bool) {
        if deleted {
            self.areas.remove(&line.id);
        } else {
            self.areas.insert(line.id, line.region.clone().into_owned());
        }
    }

    /// Takes a category.
    pub(crate) fn category(
        &mut self,
        line: &CategoryLine<'_>,
        deleted: bool,
    ) -> Result<(), FieldError> {
        if deleted {
            self.categories.remove(&line.id);
            return Ok(());
        }
        let category = Category {
            id: line.id,
            name: line.name.clone().into_owned(),
            priority: line.priority,
            validity: validity(line.valid_from.as_deref(), line.valid_to.as_deref())?,
        };
        self.categories.insert(line.id, category);
        Ok(())
    }

    /// Takes a service.
    pub(crate) fn service(&mut self, line: ServiceLine<'_>, deleted: bool) {
        if deleted {
            self.services.remove(&line.id);
            return;
        }
        let links = line.categories.unwrap_or_default().into_iter().map(|link| Link {
            category: link.category,
            priority: link.priority,
            discount_percent: link.discount_percent.unwrap_or(100),
            limit: link.limit.map(|limit| Limit { count: limit.count, period: limit.period }),
        });
        let service = Service {
            id: line.id,
            name: line.name.into_owned(),
            is_transport: line.service_kind.as_deref() == Some("transport"),
        };
        self.services.insert(line.id, (service, links.collect()));
    }

    /// Takes an organization.
    pub(crate) fn organization(&mut self, line: OrganizationLine<'_>, deleted: bool) {
        if deleted {
            self.organizations.remove(&line.id);
            return;
        }
        let organization = Organization {
            id: line.id,
            client_id: line.client_id.into_owned(),
            secret: Secret(line.client_secret.into_owned()),
            // C-05: the scale of Annex 2 is another one than that of the application form.
            connection: match line.connection.as_ref() {
                "AIRLINE" | "T2V2" => Some(ConnectionType::One),
                "T2V1" => Some(ConnectionType::Two),
                "T3" => Some(ConnectionType::Three),
                _ => None,
            },
            serves: matches!(line.state.as_ref(), "active" | "change_pending"),
            is_known: line.state != "excluded",
            offset: Offset::default(),
            history: line.history,
            offers: Vec::new(),
            terminals: Vec::new(),
        };
        let categories = line.categories.unwrap_or_default();
        self.organizations
            .insert(line.id, RawOrganization { organization, area: line.area, categories });
    }

    /// Takes an offer.
    pub(crate) fn offer(&mut self, line: &OfferLine<'_>, deleted: bool) -> Result<(), FieldError> {
        let key = (line.organization, line.service);
        if deleted {
            self.offers.remove(&key);
            return Ok(());
        }
        let validity = validity(line.valid_from.as_deref(), line.valid_to.as_deref())?;
        self.offers.insert(key, validity);
        Ok(())
    }

    /// Takes a terminal.
    pub(crate) fn terminal(&mut self, line: &TerminalLine<'_>, deleted: bool) {
        if deleted {
            self.terminals.remove(&line.id);
        } else {
            let is_active = line.state.as_deref().is_none_or(|state| state == "active");
            self.terminals.insert(line.id, (line.organization, is_active));
        }
    }

    /// Resolves what refers to what.
    pub(crate) fn finish(mut self) -> Directory {
        let raw = std::mem::take(&mut self.organizations);
        let mut directory = Directory {
            categories: self.categories.values().cloned().collect(),
            services: Vec::with_capacity(self.services.len()),
            organizations: Vec::with_capacity(raw.len()),
            terminals: Vec::with_capacity(self.terminals.len()),
        };
        let mut first_links = BTreeMap::new();
        let mut link_count: usize = 0;
        for (id, (service, links)) in &self.services {
            directory.services.push(service.clone());
            first_links.insert(*id, link_count);
            link_count += links.len();
        }
        for raw in raw.into_values() {
            let organization = self.compiled(&directory, &first_links, raw);
            directory.organizations.push(organization);
        }
        for (id, (organization, is_active)) in self.terminals {
            let organization = directory.organization_place(organization);
            let place = organization.map(usize::from);
            let owner = place.and_then(|place| directory.organizations.get_mut(place));
            if let Some(owner) = owner.filter(|_| is_active) {
                owner.terminals.push(id);
            }
            directory.terminals.push(Terminal { id, organization, is_active });
        }
        directory
    }

    fn compiled(
        &self,
        directory: &Directory,
        first_links: &BTreeMap<u32, usize>,
        raw: RawOrganization,
    ) -> Organization {
        let RawOrganization { mut organization, area, categories } = raw;
        let region = self.areas.get(&area);
        let offset = region.and_then(|region| self.regions.get(region));
        organization.offset = offset.copied().unwrap_or_default();
        let id = organization.id;
        for ((_, service), validity) in self.offers.range((id, 0)..=(id, u32::MAX)) {
            let (Some(place), Some((_, links)), Some(first_link)) =
                (directory.service(*service), self.services.get(service), first_links.get(service))
            else {
                continue;
            };
            let candidates = candidates(directory, &categories, links, *first_link);
            let is_limited = candidates.iter().any(|candidate| candidate.limit.is_some());
            let validity = *validity;
            organization.offers.push(Offer { service: place, validity, candidates, is_limited });
        }
        organization
    }
}

/// The categories that are both linked to the service and served by the organization.
fn candidates(
    directory: &Directory,
    served: &[u32],
    links: &[Link],
    first_link: usize,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (at, link) in links.iter().enumerate() {
        let category =
            directory.category(link.category).filter(|_| served.contains(&link.category));
        let (Some(category), Some(place)) = (category, narrow(first_link + at)) else { continue };
        let own = directory.categories.get(usize::from(category)).map(|category| category.priority);
        let priority = link.priority.or(own).unwrap_or(i64::MAX);
        let order = (priority, Reverse(link.discount_percent), link.category);
        found.push((order, Candidate { category, link: place, limit: link.limit }));
    }
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Two optional dates.
pub(crate) fn validity(from: Option<&str>, to: Option<&str>) -> Result<Validity, FieldError> {
    let from = from.map_or(Some(Day::BEGINNING), Day::parse).ok_or(FieldError("valid_from"))?;
    let to = to.map_or(Some(Day::FOREVER), Day::parse).ok_or(FieldError("valid_to"))?;
    Ok(Validity { from, to })
}
