//! The stored form of the registry's changes, in the journal and in snapshots.
//!
//! A change is one tag byte and a body. Tags are never reused; a changed shape or meaning gets a new
//! tag, and old tags stay readable. The body of a directory entry is a MessagePack array of its id
//! and its fields, nil for a deletion; the body of a holder is laid out by [`holder`].

pub mod holder;
mod number;

use std::borrow::Cow;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::calendar::{Day, Period, UtcOffset, Validity};
use crate::directory::{
    Area, Category, Connection, Limit, Offer, Organization, OrganizationRole, OrganizationState,
    Region, SecretDigest, Service, ServiceCategory, ServiceKind, Terminal,
};
use crate::ids::{
    AreaId, CategoryId, HolderId, Kopecks, OrganizationId, RegionCode, ServiceId, TerminalId,
};
use crate::registry::change::RegistryChange;
use crate::registry::stored::holder::{read_holder, write_holder};
use crate::registry::stored::number::Numbered;

const TAG_REGION: u8 = 1;
const TAG_AREA: u8 = 2;
const TAG_CATEGORY: u8 = 3;
const TAG_SERVICE: u8 = 4;
const TAG_ORGANIZATION: u8 = 5;
const TAG_OFFER: u8 = 6;
const TAG_TERMINAL: u8 = 7;
const TAG_HOLDER: u8 = 8;
const TAG_HOLDER_DELETED: u8 = 9;

/// Appends the stored form of a change.
pub fn write_change(change: &RegistryChange, out: &mut Vec<u8>) {
    match change {
        RegistryChange::Region(code, region) => {
            pack(out, TAG_REGION, &(code.0, region.as_ref().map(StoredRegion::from)));
        }
        RegistryChange::Area(id, area) => {
            pack(out, TAG_AREA, &(id.0, area.as_ref().map(StoredArea::from)));
        }
        RegistryChange::Category(id, category) => {
            pack(out, TAG_CATEGORY, &(id.0, category.as_ref().map(StoredCategory::from)));
        }
        RegistryChange::Service(id, service) => {
            pack(out, TAG_SERVICE, &(id.0, service.as_ref().map(StoredService::from)));
        }
        RegistryChange::Organization(id, organization) => {
            let stored = organization.as_ref().map(StoredOrganization::from);
            pack(out, TAG_ORGANIZATION, &(id.0, stored));
        }
        RegistryChange::Offer((organization, service), offer) => {
            let stored = offer.as_ref().map(StoredOffer::from);
            pack(out, TAG_OFFER, &(organization.0, service.0, stored));
        }
        RegistryChange::Terminal(id, terminal) => {
            let stored = terminal.map(|terminal| (terminal.organization.0, terminal.active));
            pack(out, TAG_TERMINAL, &(id.0, stored));
        }
        RegistryChange::Holder(_, Some(holder)) => {
            out.push(TAG_HOLDER);
            write_holder(holder, out);
        }
        RegistryChange::Holder(id, None) => pack(out, TAG_HOLDER_DELETED, &(id.0,)),
    }
}

/// Reads the stored form of one change, which must be all of `bytes`.
pub fn read_change(bytes: &[u8]) -> Result<RegistryChange, StoredChangeError> {
    let (tag, body) = bytes.split_first().ok_or(StoredChangeError::Cut)?;
    Ok(match *tag {
        TAG_REGION => {
            let (code, region) = unpack::<(u8, Option<StoredRegion>)>(body)?;
            RegistryChange::Region(RegionCode(code), region.map(Region::from))
        }
        TAG_AREA => {
            let (id, area) = unpack::<(u32, Option<StoredArea>)>(body)?;
            RegistryChange::Area(AreaId(id), area.map(Area::from))
        }
        TAG_CATEGORY => {
            let (id, category) = unpack::<(u32, Option<StoredCategory>)>(body)?;
            RegistryChange::Category(CategoryId(id), category.map(Category::from))
        }
        TAG_SERVICE => {
            let (id, service) = unpack::<(u32, Option<StoredService>)>(body)?;
            let service = service.map(Service::try_from).transpose()?;
            RegistryChange::Service(ServiceId(id), service)
        }
        TAG_ORGANIZATION => {
            let (id, organization) = unpack::<(u32, Option<StoredOrganization>)>(body)?;
            let organization = organization.map(Organization::try_from).transpose()?;
            RegistryChange::Organization(OrganizationId(id), organization)
        }
        TAG_OFFER => {
            let (organization, service, offer) = unpack::<(u32, u32, Option<StoredOffer>)>(body)?;
            let id = (OrganizationId(organization), ServiceId(service));
            RegistryChange::Offer(id, offer.map(Offer::from))
        }
        TAG_TERMINAL => {
            let (id, terminal) = unpack::<(u64, Option<(u32, bool)>)>(body)?;
            let terminal = terminal.map(|(organization, active)| Terminal {
                organization: OrganizationId(organization),
                active,
            });
            RegistryChange::Terminal(TerminalId(id), terminal)
        }
        TAG_HOLDER => {
            let mut rest = body;
            let holder = read_holder(&mut rest)?;
            if !rest.is_empty() {
                return Err(StoredChangeError::Trailing);
            }
            RegistryChange::Holder(holder.id, Some(holder))
        }
        TAG_HOLDER_DELETED => {
            let (id,) = unpack::<(u64,)>(body)?;
            RegistryChange::Holder(HolderId(id), None)
        }
        tag => return Err(StoredChangeError::UnknownTag(tag)),
    })
}

/// Why bytes are not a stored change or holder.
#[derive(Debug, thiserror::Error)]
pub enum StoredChangeError {
    /// They end too early.
    #[error("a stored change that ends too early")]
    Cut,
    /// A field of a directory entry has a value that its type does not know.
    #[error("a stored change with an unknown value")]
    Field,
    /// A holder past its limits or with a value that its type does not know.
    #[error("a stored holder that cannot be read")]
    Holder,
    /// The body does not have the shape that the tag promises.
    #[error("a stored change that cannot be read")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// They go on behind the end.
    #[error("a stored change with bytes behind its end")]
    Trailing,
    /// A holder written by a newer program.
    #[error("a stored holder with the unknown layout {0}")]
    UnknownLayout(u8),
    /// Written by a newer program.
    #[error("a stored change with the unknown tag {0}")]
    UnknownTag(u8),
}

/// First and last day.
type StoredValidity = (i32, i32);

#[derive(Deserialize, Serialize)]
struct StoredRegion<'a> {
    name: Cow<'a, str>,
    utc_offset: i32,
    prg_code: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Region> for StoredRegion<'a> {
    fn from(region: &'a Region) -> StoredRegion<'a> {
        StoredRegion {
            name: Cow::from(&region.name),
            utc_offset: region.utc_offset.0,
            prg_code: region.prg_code.as_ref().map(Cow::from),
        }
    }
}

impl From<StoredRegion<'_>> for Region {
    fn from(stored: StoredRegion<'_>) -> Region {
        Region {
            name: stored.name.into_owned(),
            utc_offset: UtcOffset(stored.utc_offset),
            prg_code: stored.prg_code.map(Cow::into_owned),
        }
    }
}

#[derive(Deserialize, Serialize)]
struct StoredArea<'a> {
    name: Cow<'a, str>,
    region: u8,
}

impl<'a> From<&'a Area> for StoredArea<'a> {
    fn from(area: &'a Area) -> StoredArea<'a> {
        StoredArea { name: Cow::from(&area.name), region: area.region.0 }
    }
}

impl From<StoredArea<'_>> for Area {
    fn from(stored: StoredArea<'_>) -> Area {
        Area { name: stored.name.into_owned(), region: RegionCode(stored.region) }
    }
}

#[derive(Deserialize, Serialize)]
struct StoredCategory<'a> {
    name: Cow<'a, str>,
    priority: i32,
    with_companion: bool,
    validity: StoredValidity,
}

impl<'a> From<&'a Category> for StoredCategory<'a> {
    fn from(category: &'a Category) -> StoredCategory<'a> {
        StoredCategory {
            name: Cow::from(&category.name),
            priority: category.priority,
            with_companion: category.with_companion,
            validity: stored_validity(category.validity),
        }
    }
}

impl From<StoredCategory<'_>> for Category {
    fn from(stored: StoredCategory<'_>) -> Category {
        Category {
            name: stored.name.into_owned(),
            priority: stored.priority,
            with_companion: stored.with_companion,
            validity: validity(stored.validity),
        }
    }
}

#[derive(Deserialize, Serialize)]
struct StoredService<'a> {
    name: Cow<'a, str>,
    kind: u8,
    categories: Vec<StoredServiceCategory>,
}

#[derive(Deserialize, Serialize)]
struct StoredServiceCategory {
    category: u32,
    priority: Option<i32>,
    discount_percent: u8,
    /// Count and period.
    limit: Option<(u32, u8)>,
}

impl<'a> From<&'a Service> for StoredService<'a> {
    fn from(service: &'a Service) -> StoredService<'a> {
        let category = |link: &ServiceCategory| StoredServiceCategory {
            category: link.category.0,
            priority: link.priority,
            discount_percent: link.discount_percent,
            limit: link.limit.map(|limit| (limit.count, limit.period.number())),
        };
        StoredService {
            name: Cow::from(&service.name),
            kind: service.kind.number(),
            categories: service.categories.iter().map(category).collect(),
        }
    }
}

impl TryFrom<StoredService<'_>> for Service {
    type Error = StoredChangeError;

    fn try_from(stored: StoredService<'_>) -> Result<Service, StoredChangeError> {
        let limit = |(count, period)| {
            let period = Period::from_number(period).ok_or(StoredChangeError::Field)?;
            Ok::<Limit, StoredChangeError>(Limit { count, period })
        };
        let mut categories = Vec::with_capacity(stored.categories.len());
        for link in stored.categories {
            categories.push(ServiceCategory {
                category: CategoryId(link.category),
                priority: link.priority,
                discount_percent: link.discount_percent,
                limit: link.limit.map(limit).transpose()?,
            });
        }
        Ok(Service {
            name: stored.name.into_owned(),
            kind: ServiceKind::from_number(stored.kind).ok_or(StoredChangeError::Field)?,
            categories,
        })
    }
}

#[derive(Deserialize, Serialize)]
struct StoredOrganization<'a> {
    client_id: Cow<'a, str>,
    secret: ByteArray<32>,
    short_name: Cow<'a, str>,
    connection: u8,
    state: u8,
    area: u32,
    /// In CIDR notation.
    ip_allow: Vec<String>,
    categories: Vec<u32>,
    history: bool,
    /// 1 for the ministry; absent for everybody else, so that older programs read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<u8>,
}

impl<'a> From<&'a Organization> for StoredOrganization<'a> {
    fn from(organization: &'a Organization) -> StoredOrganization<'a> {
        StoredOrganization {
            client_id: Cow::from(&organization.client_id),
            secret: ByteArray::new(organization.secret.0),
            short_name: Cow::from(&organization.short_name),
            connection: organization.connection.number(),
            state: organization.state.number(),
            area: organization.area.0,
            ip_allow: organization.ip_allow.iter().map(IpNet::to_string).collect(),
            categories: organization.categories.iter().map(|category| category.0).collect(),
            history: organization.history,
            role: (organization.role == OrganizationRole::Ministry).then_some(1),
        }
    }
}

impl TryFrom<StoredOrganization<'_>> for Organization {
    type Error = StoredChangeError;

    fn try_from(stored: StoredOrganization<'_>) -> Result<Organization, StoredChangeError> {
        let network = |text: &String| text.parse().map_err(|_| StoredChangeError::Field);
        let connection = Connection::from_number(stored.connection);
        let state = OrganizationState::from_number(stored.state);
        Ok(Organization {
            client_id: stored.client_id.into_owned(),
            secret: SecretDigest(stored.secret.into_array()),
            short_name: stored.short_name.into_owned(),
            connection: connection.ok_or(StoredChangeError::Field)?,
            state: state.ok_or(StoredChangeError::Field)?,
            area: AreaId(stored.area),
            ip_allow: stored.ip_allow.iter().map(network).collect::<Result<_, _>>()?,
            categories: stored.categories.into_iter().map(CategoryId).collect(),
            history: stored.history,
            role: match stored.role {
                None => OrganizationRole::Acceptor,
                Some(1) => OrganizationRole::Ministry,
                Some(_) => return Err(StoredChangeError::Field),
            },
        })
    }
}

#[derive(Deserialize, Serialize)]
struct StoredOffer<'a> {
    validity: StoredValidity,
    base_price: Option<u64>,
    linked: bool,
    working_hours: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Offer> for StoredOffer<'a> {
    fn from(offer: &'a Offer) -> StoredOffer<'a> {
        StoredOffer {
            validity: stored_validity(offer.validity),
            base_price: offer.base_price.map(|kopecks| kopecks.0),
            linked: offer.linked,
            working_hours: offer.working_hours.as_ref().map(Cow::from),
        }
    }
}

impl From<StoredOffer<'_>> for Offer {
    fn from(stored: StoredOffer<'_>) -> Offer {
        Offer {
            validity: validity(stored.validity),
            base_price: stored.base_price.map(Kopecks),
            linked: stored.linked,
            working_hours: stored.working_hours.map(Cow::into_owned),
        }
    }
}

fn stored_validity(validity: Validity) -> StoredValidity {
    (validity.from.0, validity.to.0)
}

fn validity((from, to): StoredValidity) -> Validity {
    Validity { from: Day(from), to: Day(to) }
}

fn pack<T: Serialize>(out: &mut Vec<u8>, tag: u8, body: &T) {
    out.push(tag);
    let written = rmp_serde::encode::write(out, body);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

fn unpack<T: DeserializeOwned>(mut body: &[u8]) -> Result<T, StoredChangeError> {
    let value = rmp_serde::from_read(&mut body)?;
    if body.is_empty() { Ok(value) } else { Err(StoredChangeError::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::holder::{BlockedBy, Card, CardKind, CardStatus, Holder, HolderIdentifier, Right};
    use crate::identifier::{Digest, DigestKey, IdentifierKind};
    use crate::keys::{Keys, SecretKey};
    use crate::limits::{CARDS_PER_HOLDER_MAX, IDENTIFIERS_PER_HOLDER_MAX, RIGHTS_PER_HOLDER_MAX};
    use crate::registry::file::parse_line;

    fn written(change: &RegistryChange) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_change(change, &mut bytes);
        bytes
    }

    /// It comes back as it went, and neither its beginning nor more than it is a change.
    fn check(change: &RegistryChange) {
        let mut bytes = written(change);
        assert_eq!(&read_change(&bytes).unwrap(), change);
        for cut in 0..bytes.len() {
            assert!(read_change(&bytes[..cut]).is_err(), "{change:?} cut at {cut}");
        }
        bytes.push(0);
        assert!(matches!(read_change(&bytes), Err(StoredChangeError::Trailing)));
    }

    fn holder() -> Holder {
        let card = |kind, status| {
            let (issued, expires) = (Day(-3), Day::FOREVER);
            Card { kind, status, issued, expires }
        };
        let identifier = |kind, card| HolderIdentifier { digest: Digest([3; 16]), kind, card };
        Holder {
            id: HolderId(u64::MAX),
            region: RegionCode(99),
            closed: true,
            cards: vec![
                card(CardKind::Ecs, CardStatus::Active),
                card(CardKind::EskBank, CardStatus::Closed),
                card(CardKind::EskNonfin, CardStatus::Replaced),
                card(CardKind::Resident, CardStatus::Blocked(BlockedBy::Bank)),
                card(CardKind::Social, CardStatus::Blocked(BlockedBy::Department)),
                card(CardKind::Virtual, CardStatus::Blocked(BlockedBy::Holder)),
                card(CardKind::Virtual, CardStatus::Blocked(BlockedBy::System)),
            ],
            rights: vec![Right { category: CategoryId(u32::MAX), validity: Validity::UNLIMITED }],
            identifiers: vec![
                identifier(IdentifierKind::Snils, None),
                identifier(IdentifierKind::Par, Some(6)),
            ],
        }
    }

    #[test]
    fn holders_come_back_as_they_went() {
        check(&RegistryChange::Holder(holder().id, Some(holder())));
        check(&RegistryChange::Holder(HolderId(5), None));
        let bare = Holder {
            id: HolderId(1),
            region: RegionCode(14),
            closed: false,
            cards: Vec::new(),
            rights: Vec::new(),
            identifiers: Vec::new(),
        };
        check(&RegistryChange::Holder(bare.id, Some(bare.clone())));
        let mut bytes = Vec::new();
        write_holder(&holder(), &mut bytes);
        write_holder(&bare, &mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(read_holder(&mut rest).unwrap(), holder());
        assert_eq!(read_holder(&mut rest).unwrap(), bare);
        assert!(rest.is_empty());
    }

    #[test]
    fn holders_at_their_limits_come_back() {
        let mut full = holder();
        let card = *full.cards.first().unwrap();
        let right = *full.rights.first().unwrap();
        full.cards = vec![card; CARDS_PER_HOLDER_MAX];
        full.rights = vec![right; RIGHTS_PER_HOLDER_MAX];
        full.identifiers = vec![*full.identifiers.first().unwrap(); IDENTIFIERS_PER_HOLDER_MAX];
        let bytes = written(&RegistryChange::Holder(full.id, Some(full.clone())));
        assert_eq!(read_change(&bytes).unwrap(), RegistryChange::Holder(full.id, Some(full)));
    }

    #[test]
    fn directory_entries_come_back_as_they_went() {
        let keys = Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) };
        let mut lines = vec![
            r#"{"kind":"region","code":"14","name":"Саха","utc_offset":"-03:30","prg_code":"YKT"}"#
                .to_owned(),
            r#"{"kind":"area","id":1,"name":"Якутск","region":"14"}"#.to_owned(),
            r#"{"kind":"category","id":20,"name":"Ветеран","priority":-20,"with_companion":true,"valid_to":"2030-01-01"}"#.to_owned(),
            r#"{"kind":"offer","organization":1,"service":4,"base_price":300.5,"linked":true,"working_hours":"9–18","valid_from":"2020-01-01"}"#.to_owned(),
            r#"{"kind":"offer","organization":1,"service":4}"#.to_owned(),
            r#"{"kind":"terminal","id":9223372036854775807,"organization":1,"state":"blocked"}"#.to_owned(),
            r#"{"kind":"region","code":"14","deleted":true}"#.to_owned(),
            r#"{"kind":"offer","organization":1,"service":4,"deleted":true}"#.to_owned(),
        ];
        for kind in ["area", "category", "service", "organization", "terminal"] {
            lines.push(format!(r#"{{"kind":"{kind}","id":1,"deleted":true}}"#));
        }
        for (kind, period) in [
            ("transport", "day"),
            ("visit", "week"),
            ("discount", "month"),
            ("meal", "year"),
            ("pass", "day"),
            ("attendance", "day"),
            ("payment", "day"),
            ("goods", "day"),
        ] {
            lines.push(format!(
                r#"{{"kind":"service","id":1,"name":"Каток","service_kind":"{kind}","categories":[{{"category":1}},{{"category":2,"priority":3,"discount_percent":50,"limit":{{"count":2,"period":"{period}"}}}}]}}"#
            ));
        }
        for (connection, state) in [
            ("T1V1", "submitted"),
            ("T1V2", "returned"),
            ("T2V1", "accepted"),
            ("T2V2", "testing"),
            ("T3", "active"),
            ("AIRLINE", "change_pending"),
            ("AIRLINE", "suspending"),
            ("AIRLINE", "excluded"),
        ] {
            lines.push(format!(
                r#"{{"kind":"organization","id":1,"client_id":"1","client_secret":"s","short_name":"Музей","connection":"{connection}","state":"{state}","area":1,"ip_allow":["10.0.0.0/8","::1"],"categories":[10],"history":true}}"#
            ));
        }
        lines.push(
            r#"{"kind":"organization","id":2,"client_id":"m","client_secret":"s","short_name":"Минсоцполитики","connection":"T1V1","state":"active","area":1,"ip_allow":[],"categories":[],"role":"ministry"}"#
                .to_owned(),
        );
        for line in lines {
            check(&parse_line(line.as_bytes(), &keys).unwrap());
        }
    }

    #[test]
    fn unknown_numbers_are_errors() {
        assert!(matches!(read_change(&[99]), Err(StoredChangeError::UnknownTag(99))));
        let good = written(&RegistryChange::Holder(holder().id, Some(holder())));
        let check = |at: usize, byte, expected: &str| {
            let mut bytes = good.clone();
            *bytes.get_mut(at).unwrap() = byte;
            assert_eq!(read_change(&bytes).unwrap_err().to_string(), expected, "byte {at}");
        };
        check(1, 2, "a stored holder with the unknown layout 2");
        for (at, byte) in [(11, 2), (12, 65), (13, 65), (15, 2), (16, 7), (16, 0), (17, 7)] {
            check(at, byte, "a stored holder that cannot be read");
        }
        // The identifiers stand at the end: kind, card, digest.
        check(good.len() - 18, 9, "a stored holder that cannot be read");
        check(good.len() - 17, 7, "a stored holder that cannot be read");
    }
}
