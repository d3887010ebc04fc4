//! Puts the directory's part of an import into the directory, and checks that all references resolve.
//!
//! The order inside a file is free, so references are looked at only when all changes are in. Holders
//! are no part of the directory; whoever keeps them checks what they refer to.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::directory::{DirectoryItems, Item};
use crate::ids::{AreaId, CategoryId, OrganizationId, RegionCode, ServiceId, TerminalId};
use crate::limits::IMPORT_ERRORS_MAX;
use crate::registry::change::RegistryChange;
use crate::registry::fault::{LineError, LineFault};

/// Applies all changes but those of holders, each with its line number, and returns how many of them
/// changed something. All or nothing: on errors, which come in the order of the lines and at most
/// [`IMPORT_ERRORS_MAX`] of them, `items` stays as it was.
///
/// A reference that does not resolve is reported at the referring line if it is in this file, else
/// at the line that deletes what is referred to.
pub fn apply_directory(
    items: &mut DirectoryItems,
    changes: &[(u64, RegistryChange)],
) -> Result<u64, Vec<LineError>> {
    let mut next = items.clone();
    let mut lines = HashMap::new();
    let mut errors = Vec::new();
    let mut changed = 0;
    for (line, change) in changes {
        let Some(entry) = Entry::of(change) else { continue };
        if let Some(earlier) = lines.insert(entry, *line) {
            let reason = format!("{entry} is already in line {earlier}");
            errors.push(LineFault::of_line(reason).at(*line));
            continue;
        }
        changed += u64::from(apply_change(&mut next, change));
    }
    let mut references = References { lines, errors };
    references.check_places(&next);
    references.check_organizations(&next);
    references.check_offers(&next);
    let mut errors = references.errors;
    if !errors.is_empty() {
        errors.sort_by_key(|error| error.line);
        errors.truncate(IMPORT_ERRORS_MAX);
        return Err(errors);
    }
    *items = next;
    Ok(changed)
}

/// Applies one change without looking at references; a holder changes nothing here. Returns whether
/// `items` is different now.
///
/// Deleted areas, organizations and services stay, marked, so that the history can name them.
pub fn apply_change(items: &mut DirectoryItems, change: &RegistryChange) -> bool {
    match change {
        RegistryChange::Area(id, area) => put_item(&mut items.areas, *id, area),
        RegistryChange::Category(id, category) => put(&mut items.categories, *id, category),
        RegistryChange::Holder(..) => false,
        RegistryChange::Offer(id, offer) => put(&mut items.offers, *id, offer),
        RegistryChange::Organization(id, organization) => {
            put_item(&mut items.organizations, *id, organization)
        }
        RegistryChange::Region(code, region) => put(&mut items.regions, *code, region),
        RegistryChange::Service(id, service) => put_item(&mut items.services, *id, service),
        RegistryChange::Terminal(id, terminal) => put(&mut items.terminals, *id, terminal),
    }
}

/// What a line of the directory speaks of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Entry {
    Area(AreaId),
    Category(CategoryId),
    Offer(OrganizationId, ServiceId),
    Organization(OrganizationId),
    Region(RegionCode),
    Service(ServiceId),
    Terminal(TerminalId),
}

impl Entry {
    fn of(change: &RegistryChange) -> Option<Entry> {
        Some(match change {
            RegistryChange::Area(id, _) => Entry::Area(*id),
            RegistryChange::Category(id, _) => Entry::Category(*id),
            RegistryChange::Holder(..) => return None,
            RegistryChange::Offer((organization, service), _) => {
                Entry::Offer(*organization, *service)
            }
            RegistryChange::Organization(id, _) => Entry::Organization(*id),
            RegistryChange::Region(code, _) => Entry::Region(*code),
            RegistryChange::Service(id, _) => Entry::Service(*id),
            RegistryChange::Terminal(id, _) => Entry::Terminal(*id),
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Area(id) => write!(formatter, "area {id}"),
            Entry::Category(id) => write!(formatter, "category {id}"),
            Entry::Offer(organization, service) => {
                write!(formatter, "the offer of service {service} by organization {organization}")
            }
            Entry::Organization(id) => write!(formatter, "organization {id}"),
            Entry::Region(code) => write!(formatter, "region {:02}", code.0),
            Entry::Service(id) => write!(formatter, "service {id}"),
            Entry::Terminal(id) => write!(formatter, "terminal {id}"),
        }
    }
}

/// One entry names another.
struct Reference {
    from: Entry,
    field: &'static str,
    to: Entry,
}

/// The check of a whole directory after the changes of one file.
struct References {
    /// The line of each entry that the file speaks of.
    lines: HashMap<Entry, u64>,
    errors: Vec<LineError>,
}

impl References {
    fn check_places(&mut self, items: &DirectoryItems) {
        for (id, item) in &items.areas {
            let Some(area) = item.present() else { continue };
            if !items.regions.contains_key(&area.region) {
                let (from, to) = (Entry::Area(*id), Entry::Region(area.region));
                self.dangling(Reference { from, field: "region", to });
            }
        }
    }

    fn check_organizations(&mut self, items: &DirectoryItems) {
        let mut clients: BTreeMap<&str, OrganizationId> = BTreeMap::new();
        for (id, item) in &items.organizations {
            let Some(organization) = item.present() else { continue };
            let from = Entry::Organization(*id);
            if !is_present(&items.areas, &organization.area) {
                let to = Entry::Area(organization.area);
                self.dangling(Reference { from, field: "area", to });
            }
            for category in &organization.categories {
                self.check_category(items, from, *category);
            }
            if let Some(other) = clients.insert(&organization.client_id, *id) {
                self.client_id_taken(*id, other);
            }
        }
    }

    fn check_offers(&mut self, items: &DirectoryItems) {
        for (id, item) in &items.services {
            let Some(service) = item.present() else { continue };
            for link in &service.categories {
                self.check_category(items, Entry::Service(*id), link.category);
            }
        }
        for (organization, service) in items.offers.keys() {
            let from = Entry::Offer(*organization, *service);
            self.check_organization(items, from, *organization);
            if !is_present(&items.services, service) {
                let to = Entry::Service(*service);
                self.dangling(Reference { from, field: "service", to });
            }
        }
        for (id, terminal) in &items.terminals {
            self.check_organization(items, Entry::Terminal(*id), terminal.organization);
        }
    }

    fn check_category(&mut self, items: &DirectoryItems, from: Entry, id: CategoryId) {
        if !items.categories.contains_key(&id) {
            self.dangling(Reference { from, field: "categories", to: Entry::Category(id) });
        }
    }

    fn check_organization(&mut self, items: &DirectoryItems, from: Entry, id: OrganizationId) {
        if !is_present(&items.organizations, &id) {
            self.dangling(Reference { from, field: "organization", to: Entry::Organization(id) });
        }
    }

    /// Everything resolved before this file, so it has the line of one end at least.
    fn dangling(&mut self, reference: Reference) {
        let Reference { from, field, to } = reference;
        if let Some(line) = self.lines.get(&from) {
            let fault = LineFault::of_field(field, format!("{to} does not exist"));
            self.errors.push(fault.at(*line));
            return;
        }
        let line = self.lines.get(&to).copied().unwrap_or_default();
        let fault = LineFault::of_field("deleted", format!("{from} still refers to {to}"));
        self.errors.push(fault.at(line));
    }

    /// Reported at the later of the two lines.
    fn client_id_taken(&mut self, id: OrganizationId, other: OrganizationId) {
        let line = |id| self.lines.get(&Entry::Organization(id)).copied().unwrap_or_default();
        let (line, other) =
            if line(id) >= line(other) { (line(id), other) } else { (line(other), id) };
        let reason = format!("already the client id of organization {other}");
        self.errors.push(LineFault::of_field("client_id", reason).at(line));
    }
}

fn is_present<K: Ord, V>(items: &BTreeMap<K, Item<V>>, key: &K) -> bool {
    items.get(key).is_some_and(|item| !item.deleted)
}

fn put<K: Ord, V: Clone + PartialEq>(
    items: &mut BTreeMap<K, V>,
    key: K,
    value: &Option<V>,
) -> bool {
    if items.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => items.insert(key, value.clone()),
        None => items.remove(&key),
    };
    true
}

fn put_item<K: Ord, V: Clone + PartialEq>(
    items: &mut BTreeMap<K, Item<V>>,
    key: K,
    value: &Option<V>,
) -> bool {
    match value {
        Some(value) => {
            if items.get(&key).and_then(Item::present) == Some(value) {
                return false;
            }
            items.insert(key, Item { value: value.clone(), deleted: false });
            true
        }
        None => match items.get_mut(&key) {
            Some(item) if !item.deleted => {
                item.deleted = true;
                true
            }
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::identifier::DigestKey;
    use crate::keys::{Keys, SecretKey};
    use crate::registry::file::parse_line;

    const FILE: &[&str] = &[
        r#"{"kind":"terminal","id":2,"organization":1}"#,
        r#"{"kind":"offer","organization":1,"service":1}"#,
        r#"{"kind":"organization","id":1,"client_id":"111","client_secret":"s","short_name":"Музей","connection":"T2V2","state":"active","area":1,"categories":[10,20]}"#,
        r#"{"kind":"service","id":1,"name":"Посещение","service_kind":"visit","categories":[{"category":10}]}"#,
        r#"{"kind":"category","id":10,"name":"Инвалид","priority":10}"#,
        r#"{"kind":"category","id":20,"name":"Ветеран","priority":20}"#,
        r#"{"kind":"area","id":1,"name":"Якутск","region":"14"}"#,
        r#"{"kind":"region","code":"14","name":"Саха","utc_offset":"+09:00"}"#,
    ];

    fn changes(lines: &[&str]) -> Vec<(u64, RegistryChange)> {
        let keys = Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) };
        let parse = |line: &&str| parse_line(line.as_bytes(), &keys).unwrap();
        (1..).zip(lines.iter().map(parse)).collect()
    }

    fn loaded() -> DirectoryItems {
        let mut items = DirectoryItems::default();
        assert_eq!(apply_directory(&mut items, &changes(FILE)), Ok(8));
        items
    }

    /// Imports into the loaded directory, expects these errors and no change.
    fn check(lines: &[&str], expected: &[&str]) {
        let mut items = loaded();
        let errors = apply_directory(&mut items, &changes(lines)).unwrap_err();
        let errors: Vec<String> = errors.iter().map(LineError::to_string).collect();
        assert_eq!(errors, expected);
        assert_eq!(items, loaded());
    }

    #[test]
    fn the_order_of_lines_is_free_and_the_second_time_changes_nothing() {
        let mut items = loaded();
        assert_eq!(apply_directory(&mut items, &changes(FILE)), Ok(0));
        assert_eq!(items, loaded());
        let renamed = r#"{"kind":"area","id":1,"name":"Мирный","region":"14"}"#;
        assert_eq!(apply_directory(&mut items, &changes(&[renamed])), Ok(1));
        assert_eq!(items.areas.get(&AreaId(1)).unwrap().value.name, "Мирный");
        let holder = r#"{"kind":"holder","id":1,"region":"77"}"#;
        assert_eq!(apply_directory(&mut items, &changes(&[holder])), Ok(0));
    }

    #[test]
    fn what_the_history_names_stays_and_can_come_back() {
        let mut items = loaded();
        let deletions = [
            r#"{"kind":"region","code":"14","deleted":true}"#,
            r#"{"kind":"area","id":1,"deleted":true}"#,
            r#"{"kind":"category","id":10,"deleted":true}"#,
            r#"{"kind":"category","id":20,"deleted":true}"#,
            r#"{"kind":"service","id":1,"deleted":true}"#,
            r#"{"kind":"organization","id":1,"deleted":true}"#,
            r#"{"kind":"offer","organization":1,"service":1,"deleted":true}"#,
            r#"{"kind":"terminal","id":2,"deleted":true}"#,
        ];
        assert_eq!(apply_directory(&mut items, &changes(&deletions)), Ok(8));
        assert!(items.areas.get(&AreaId(1)).unwrap().deleted);
        assert!(items.services.get(&ServiceId(1)).unwrap().deleted);
        assert!(items.organizations.get(&OrganizationId(1)).unwrap().deleted);
        assert!(items.regions.is_empty() && items.categories.is_empty());
        assert!(items.offers.is_empty() && items.terminals.is_empty());
        assert_eq!(apply_directory(&mut items, &changes(&deletions)), Ok(0));
        assert_eq!(apply_directory(&mut items, &changes(FILE)), Ok(8));
        assert_eq!(items, loaded());
    }

    #[test]
    fn references_to_nothing_are_errors_of_the_referring_line() {
        check(
            &[
                r#"{"kind":"area","id":2,"name":"Мирный","region":"15"}"#,
                r#"{"kind":"service","id":2,"name":"Каток","service_kind":"visit","categories":[{"category":11}]}"#,
                r#"{"kind":"organization","id":2,"client_id":"222","client_secret":"s","short_name":"Цирк","connection":"T3","state":"active","area":3,"categories":[12]}"#,
                r#"{"kind":"offer","organization":3,"service":1}"#,
                r#"{"kind":"offer","organization":1,"service":3}"#,
                r#"{"kind":"terminal","id":3,"organization":3}"#,
            ],
            &[
                "line 1: `region`: region 15 does not exist",
                "line 2: `categories`: category 11 does not exist",
                "line 3: `area`: area 3 does not exist",
                "line 3: `categories`: category 12 does not exist",
                "line 4: `organization`: organization 3 does not exist",
                "line 5: `service`: service 3 does not exist",
                "line 6: `organization`: organization 3 does not exist",
            ],
        );
    }

    #[test]
    fn deletions_of_what_is_in_use_are_errors_of_the_deleting_line() {
        check(
            &[r#"{"kind":"region","code":"14","deleted":true}"#],
            &["line 1: `deleted`: area 1 still refers to region 14"],
        );
        check(
            &[r#"{"kind":"area","id":1,"deleted":true}"#],
            &["line 1: `deleted`: organization 1 still refers to area 1"],
        );
        check(
            &[r#"{"kind":"category","id":10,"deleted":true}"#],
            &[
                "line 1: `deleted`: organization 1 still refers to category 10",
                "line 1: `deleted`: service 1 still refers to category 10",
            ],
        );
        let offer = "the offer of service 1 by organization 1";
        check(
            &[r#"{"kind":"service","id":1,"deleted":true}"#],
            &[&format!("line 1: `deleted`: {offer} still refers to service 1")],
        );
        check(
            &[r#"{"kind":"organization","id":1,"deleted":true}"#],
            &[
                &format!("line 1: `deleted`: {offer} still refers to organization 1"),
                "line 1: `deleted`: terminal 2 still refers to organization 1",
            ],
        );
        check(
            &[
                r#"{"kind":"region","code":"14","deleted":true}"#,
                r#"{"kind":"area","id":1,"name":"Мирный","region":"14"}"#,
            ],
            &["line 2: `region`: region 14 does not exist"],
        );
    }

    #[test]
    fn client_ids_belong_to_one_organization() {
        let line = |id, client_id: &str| {
            format!(
                r#"{{"kind":"organization","id":{id},"client_id":"{client_id}","client_secret":"s","short_name":"Цирк","connection":"T3","state":"active","area":1}}"#
            )
        };
        let taken = "`client_id`: already the client id of organization 1";
        check(&[&line(2, "111")], &[&format!("line 1: {taken}")]);
        check(
            &[&line(3, "333"), &line(2, "333")],
            &["line 2: `client_id`: already the client id of organization 3"],
        );
        let mut items = loaded();
        let swapped = [line(1, "222"), line(2, "111")];
        let swapped = changes(&[&swapped[0], &swapped[1]]);
        assert_eq!(apply_directory(&mut items, &swapped), Ok(2));
    }

    #[test]
    fn an_entry_stands_once_in_a_file() {
        check(
            &[
                r#"{"kind":"category","id":30,"name":"Семья","priority":30}"#,
                r#"{"kind":"area","id":30,"name":"Мирный","region":"14"}"#,
                r#"{"kind":"category","id":30,"deleted":true}"#,
            ],
            &["line 3: category 30 is already in line 1"],
        );
    }

    #[test]
    fn reports_are_limited() {
        let lines: Vec<String> = (3..5_000)
            .map(|id| format!(r#"{{"kind":"terminal","id":{id},"organization":9}}"#))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let errors = apply_directory(&mut loaded(), &changes(&lines)).unwrap_err();
        assert_eq!(errors.len(), IMPORT_ERRORS_MAX);
        assert_eq!(errors.first().map(|error| error.line), Some(1));
    }
}
