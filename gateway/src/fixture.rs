//! A small directory for the unit tests of this crate, after catalogue §12.0.

use std::sync::OnceLock;

use engine::calendar::{UtcOffset, Validity};
use engine::directory::{
    Area, Category, Connection, Directory, DirectoryItems, Item, Organization, OrganizationRole,
    OrganizationState, Region, Terminal,
};
use engine::ids::{AreaId, CategoryId, OrganizationId, RegionCode, TerminalId};

use crate::keys::KeyRing;

/// Keys of a deployment, made once for all tests of the process.
pub fn keys() -> &'static KeyRing {
    static KEYS: OnceLock<KeyRing> = OnceLock::new();
    KEYS.get_or_init(|| KeyRing::open(tempfile::tempdir().unwrap().path()).unwrap())
}

/// Organizations 1 (`111`, type 1), 2 (`222`, type 2), 3 (`333`, type 3), 4 (`444`, excluded) and 9
/// (`900`, history only), after `change`.
pub fn directory(change: impl FnOnce(&mut DirectoryItems)) -> Directory {
    let mut items = DirectoryItems::default();
    let yakutsk = UtcOffset::parse("+09:00").unwrap();
    let region = Region { name: "Якутия".to_string(), utc_offset: yakutsk, prg_code: None };
    items.regions.insert(RegionCode(14), region);
    let area = Area { name: "Якутск".to_string(), region: RegionCode(14) };
    items.areas.insert(AreaId(1), present(area));
    let category = Category {
        name: "Ветеран труда".to_string(),
        priority: 20,
        with_companion: false,
        validity: Validity::UNLIMITED,
    };
    items.categories.insert(CategoryId(20), category);
    let mut add = |id: u32, client_id: &str, secret: &str, connection: Connection| {
        let organization = Organization {
            client_id: client_id.to_string(),
            secret: keys().engine.secrets.digest(OrganizationId(id), secret),
            short_name: "ООО «Якутия»".to_string(),
            connection,
            state: OrganizationState::Active,
            area: AreaId(1),
            ip_allow: vec!["127.0.0.1/32".parse().unwrap()],
            categories: vec![CategoryId(20)],
            history: id == 9,
            role: OrganizationRole::Acceptor,
        };
        items.organizations.insert(OrganizationId(id), present(organization));
    };
    add(1, "111", "aaaabbbbbcccccc", Connection::T2V2);
    add(2, "222", "s222", Connection::T2V1);
    add(3, "333", "s333", Connection::T3);
    add(4, "444", "s444", Connection::T2V2);
    add(9, "900", "s900", Connection::T1V1);
    items.organizations.get_mut(&OrganizationId(4)).unwrap().value.state =
        OrganizationState::Excluded;
    items
        .terminals
        .insert(TerminalId(2), Terminal { organization: OrganizationId(1), active: true });
    change(&mut items);
    Directory::build(items)
}

fn present<T>(value: T) -> Item<T> {
    Item { value, deleted: false }
}
