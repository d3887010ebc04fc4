//! A registry like Yakutia's, for the demo, the load tester and the tests.
//!
//! The same number of holders and the same seed give the same file for ever: the numbers come from a
//! generator of our own, and a holder's numbers depend on nothing but the seed and the holder's id.
//! Every identifier is valid and belongs to one holder. Whoever drives a server needs no file to know
//! what to send: [`client_code`], [`snils`], [`credentials`], [`first_terminal`] and [`services_of`]
//! derive it.

mod numbers;
mod tables;

use std::fmt::Write as _;
use std::io::{self, Write};

use engine::identifier::{luhn, snils_control};

use crate::generator::numbers::{Numbers, STREAM_DIRECTORY, STREAM_HOLDERS, STREAM_SECRETS};
use crate::generator::tables::{
    AREAS, CATEGORIES, CONNECTIONS, LAST_STATES, ORGANIZATION_KINDS, ORGANIZATION_NAMES, REGIONS,
    SERVICES,
};

/// Organizations of every generated registry, with the ids 1 and up.
pub const ORGANIZATIONS: u32 = 200;
/// Terminals of one organization.
pub const TERMINALS_PER_ORGANIZATION: u64 = 10;
/// Services that one organization offers.
const OFFERS_PER_ORGANIZATION: u32 = 6;
/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes a registry with `holders` holders, the directory first.
pub fn write(holders: u64, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = String::with_capacity(BUFFER_BYTES + 4096);
    push_directory(&mut lines, seed);
    for holder in 1..=holders {
        push_holder(&mut lines, holder, seed);
        if lines.len() >= BUFFER_BYTES {
            out.write_all(lines.as_bytes())?;
            lines.clear();
        }
    }
    out.write_all(lines.as_bytes())
}

/// The client code of a holder's first card, which is an `ecs` card: `E` and the holder's id in base
/// 36 with eight digits; one to one below 36^8.
pub fn client_code(holder: u64) -> String {
    format!("E{}", base36(holder, 8))
}

/// The SNILS of a holder, digits only; one to one below 900 million.
pub fn snils(holder: u64) -> String {
    // The factor shares no divisor with the modulus, so no two holders meet.
    let nine = 100_000_000 + holder % 900_000_000 * 7_654_321 % 900_000_000;
    let control = snils_control(u32::try_from(nine).unwrap_or_default());
    format!("{nine}{control:02}")
}

/// What an organization authenticates with.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// "1001" for the first organization.
    pub client_id: String,
    /// Sixteen letters and digits, different for every seed.
    pub client_secret: String,
}

impl std::fmt::Debug for Credentials {
    /// Without the secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Credentials({})", self.client_id)
    }
}

/// The credentials of an organization, `1..=ORGANIZATIONS`.
pub fn credentials(organization: u32, seed: u64) -> Credentials {
    let mut numbers = Numbers::of(seed, u64::from(organization), STREAM_SECRETS);
    let client_secret = format!("{}{}", base36(numbers.next(), 8), base36(numbers.next(), 8));
    let client_secret = client_secret.to_ascii_lowercase();
    Credentials { client_id: (1_000 + u64::from(organization)).to_string(), client_secret }
}

/// The first terminal of an organization; the others follow it. It is never blocked.
pub fn first_terminal(organization: u32) -> u64 {
    u64::from(organization.saturating_sub(1)) * TERMINALS_PER_ORGANIZATION + 1
}

/// The services that an organization offers; the first of them without an end.
pub fn services_of(organization: u32) -> impl Iterator<Item = u32> {
    let service_count = u32::try_from(SERVICES.len()).unwrap_or(u32::MAX);
    let first = organization.saturating_sub(1);
    // Six steps of three stay below the 25 services, so the six differ.
    (0..OFFERS_PER_ORGANIZATION).map(move |offer| (first + offer * 3) % service_count + 1)
}

fn push_directory(out: &mut String, seed: u64) {
    for (code, name, offset, prg_code) in REGIONS {
        line(
            out,
            format_args!(
                r#""region","code":"{code}","name":"{name}","utc_offset":"{offset}","prg_code":"{prg_code}""#
            ),
        );
    }
    let elsewhere = AREAS.len() - (REGIONS.len() - 1);
    for (at, name) in AREAS.iter().enumerate() {
        let region = (at + 1).saturating_sub(elsewhere);
        let region = REGIONS.get(region).map_or("14", |region| region.0);
        line(out, format_args!(r#""area","id":{},"name":"{name}","region":"{region}""#, at + 1));
    }
    for (at, (name, with_companion)) in (1..).zip(CATEGORIES) {
        let id: u32 = at * 10;
        line(
            out,
            format_args!(
                r#""category","id":{id},"name":"{name}","priority":{id},"with_companion":{with_companion}"#
            ),
        );
    }
    for (id, service) in (1..).zip(SERVICES) {
        push_service(out, id, service);
    }
    for organization in 1..=ORGANIZATIONS {
        push_organization(out, organization, seed);
    }
}

/// A service for all categories but a few, the limited ones limited for all alike.
fn push_service(out: &mut String, id: u32, service: &(&str, &str, u8, &str)) {
    let (name, kind, percent, limit) = service;
    begin(
        out,
        format_args!(
            r#""service","id":{id},"name":"{name}","service_kind":"{kind}","categories":["#
        ),
    );
    let mut numbers = Numbers::of(0, u64::from(id), STREAM_DIRECTORY);
    let mut separator = "";
    for category in 1..=count(CATEGORIES) {
        if numbers.below(100) < 25 && category != 2 {
            continue;
        }
        put(out, format_args!(r#"{separator}{{"category":{}"#, category * 10));
        if numbers.below(100) < 10 {
            put(out, format_args!(r#","priority":{}"#, numbers.below(50)));
        }
        if *percent != 100 {
            put(out, format_args!(r#","discount_percent":{percent}"#));
        }
        if !limit.is_empty() {
            put(out, format_args!(r#","limit":{limit}"#));
        }
        out.push('}');
        separator = ",";
    }
    out.push_str("]}\n");
}

fn push_organization(out: &mut String, id: u32, seed: u64) {
    let mut numbers = Numbers::of(seed, u64::from(id), STREAM_DIRECTORY);
    let Credentials { client_id, client_secret } = credentials(id, seed);
    let kind = pick(ORGANIZATION_KINDS, u64::from(id));
    let name = pick(ORGANIZATION_NAMES, numbers.next());
    let connection = pick(CONNECTIONS, u64::from(id - 1));
    let last = u64::from(ORGANIZATIONS - id);
    let state = if last < count(LAST_STATES) { pick(LAST_STATES, last) } else { "active" };
    // The first organizations are the ones that a demo speaks with.
    let area = if id <= 10 { 1 } else { 1 + numbers.below(count(AREAS)) };
    let skipped = numbers.below(4 * count(CATEGORIES)) + 1;
    let categories: Vec<String> = (1..=count(CATEGORIES))
        .filter(|category| *category != skipped || *category == 2)
        .map(|category| (category * 10).to_string())
        .collect();
    line(
        out,
        format_args!(
            r#""organization","id":{id},"client_id":"{client_id}","client_secret":"{client_secret}","short_name":"{kind} «{name}» № {id}","connection":"{connection}","state":"{state}","area":{area},"ip_allow":["127.0.0.0/8","::1/128"],"categories":[{}],"history":{}"#,
            categories.join(","),
            id % 20 == 1,
        ),
    );
    for (at, service) in services_of(id).enumerate() {
        begin(out, format_args!(r#""offer","organization":{id},"service":{service}"#));
        if at > 0 && numbers.below(100) < 20 {
            put(
                out,
                format_args!(
                    r#","valid_from":"2024-01-01","valid_to":"{}-05-31""#,
                    2025 + numbers.below(8)
                ),
            );
        }
        if numbers.below(100) < 60 {
            put(
                out,
                format_args!(
                    r#","base_price":{}.{:02}"#,
                    50 + numbers.below(950),
                    5 * numbers.below(20)
                ),
            );
        }
        out.push_str(if at == 0 {
            ",\"working_hours\":\"пн–вс 9:00–21:00\"}\n"
        } else {
            "}\n"
        });
    }
    let first = first_terminal(id);
    for terminal in first..first + TERMINALS_PER_ORGANIZATION {
        let blocked = terminal != first && numbers.below(100) < 2;
        let state = if blocked { r#","state":"blocked""# } else { "" };
        line(out, format_args!(r#""terminal","id":{terminal},"organization":{id}{state}"#));
    }
}

fn push_holder(out: &mut String, id: u64, seed: u64) {
    let mut numbers = Numbers::of(seed, id, STREAM_HOLDERS);
    let region = match numbers.below(100) {
        0..=96 => "14",
        elsewhere => REGIONS
            .get(usize::try_from(elsewhere - 96).unwrap_or(0))
            .map_or("14", |region| region.0),
    };
    let status = if numbers.below(100) == 0 { r#","status":"closed""# } else { "" };
    let snils = snils(id);
    begin(
        out,
        format_args!(
            r#""holder","id":{id},"snils":"{snils}"{status},"region":"{region}","cards":["#
        ),
    );
    put(out, format_args!(r#"{{"type":"ecs","client_code":"{}""#, client_code(id)));
    push_card_end(out, &mut numbers);
    if numbers.below(100) < 8 {
        put(
            out,
            format_args!(
                r#",{{"type":"ecs","status":"replaced","client_code":"R{}"}}"#,
                base36(id, 8)
            ),
        );
    }
    if numbers.below(100) < 55 {
        let series = numbers.below(100_000_000);
        let number = with_luhn(format!("964390{region}{:010}", id % 10_000_000_000));
        put(out, format_args!(r#",{{"type":"social","number":"{number}","series":"{series:08}""#));
        push_card_end(out, &mut numbers);
    }
    if numbers.below(100) < 20 {
        let uid = id.wrapping_mul(0x9e37_79b9_7f4b) & 0xffff_ffff_ffff;
        put(
            out,
            format_args!(
                r#",{{"type":"resident","num_sid":"{}","card_hash":"{:016x}{:016x}","mifare_uid":"04{uid:012X}""#,
                with_luhn(format!("9614{:011}", id % 100_000_000_000)),
                numbers.next(),
                numbers.next(),
            ),
        );
        push_card_end(out, &mut numbers);
    }
    if numbers.below(100) < 17 {
        put(
            out,
            format_args!(
                r#",{{"type":"esk_bank","num_sid":"{}","hashes":[{{"key_id":"NSPK-1","hash":"{:016x}{:016x}"}},{{"key_id":"OP-2","hash":"{:016x}{:016x}"}}],"par":"50014{}""#,
                with_luhn(format!("9615{:011}", id % 100_000_000_000)),
                numbers.next(),
                numbers.next(),
                numbers.next(),
                numbers.next(),
                base36(id, 24),
            ),
        );
        push_card_end(out, &mut numbers);
    }
    push_rights(out, &mut numbers);
}

/// Dates and status: most cards are active and have years to go.
fn push_card_end(out: &mut String, numbers: &mut Numbers) {
    let issued = 2019 + numbers.below(5);
    let expires = if numbers.below(100) < 3 { issued + 1 } else { 2028 + numbers.below(7) };
    let (month, day) = (1 + numbers.below(12), 1 + numbers.below(28));
    put(
        out,
        format_args!(
            r#","issued":"{issued}-{month:02}-{day:02}","expires":"{expires}-{month:02}-{day:02}""#
        ),
    );
    match numbers.below(100) {
        0..=1 => {
            let by = pick(&["bank", "holder", "department", "system"], numbers.next());
            put(out, format_args!(r#","status":"blocked","blocked_by":"{by}""#));
        }
        2 => out.push_str(r#","status":"closed""#),
        3 => out.push_str(r#","status":"replaced""#),
        _ => {}
    }
    out.push('}');
}

/// None for a few, else one to six different categories.
fn push_rights(out: &mut String, numbers: &mut Numbers) {
    out.push_str("],\"categories\":[");
    let right_count = if numbers.below(100) < 5 { 0 } else { 1 + numbers.below(6) };
    let first = numbers.below(count(CATEGORIES));
    for right in 0..right_count {
        // Steps of five visit all twelve categories before one comes again.
        let category = 10 * ((first + 5 * right) % count(CATEGORIES) + 1);
        let separator = if right == 0 { "" } else { "," };
        put(out, format_args!(r#"{separator}{{"category":{category}"#));
        let range = numbers.below(100);
        if range < 60 {
            put(out, format_args!(r#","valid_from":"{}-01-01""#, 2015 + numbers.below(9)));
        }
        if range < 8 {
            out.push_str(r#","valid_to":"2024-12-31""#);
        } else if range < 40 {
            put(out, format_args!(r#","valid_to":"{}-12-31""#, 2027 + numbers.below(8)));
        }
        out.push('}');
    }
    out.push_str("]}\n");
}

/// Begins a line with its kind and first fields.
fn begin(out: &mut String, fields: std::fmt::Arguments<'_>) {
    out.push_str("{\"kind\":");
    put(out, fields);
}

/// Writes all of a line but its first and last brackets.
fn line(out: &mut String, fields: std::fmt::Arguments<'_>) {
    begin(out, fields);
    out.push_str("}\n");
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

fn pick<'a>(list: &[&'a str], at: u64) -> &'a str {
    let at = at % count(list).max(1);
    usize::try_from(at).ok().and_then(|at| list.get(at)).copied().unwrap_or_default()
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

/// The last `digits` digits in base 36, upper-case.
fn base36(mut number: u64, digits: usize) -> String {
    let mut letters = vec!['0'; digits];
    for letter in letters.iter_mut().rev() {
        let digit = u32::try_from(number % 36).unwrap_or_default();
        *letter = char::from_digit(digit, 36).unwrap_or('0').to_ascii_uppercase();
        number /= 36;
    }
    letters.into_iter().collect()
}

/// The digits with the one behind them that makes Luhn's sum right.
fn with_luhn(mut digits: String) -> String {
    for last in '0'..='9' {
        digits.push(last);
        if luhn(&digits) {
            break;
        }
        digits.pop();
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    use engine::directory::DirectoryItems;
    use engine::holder::{CardStatus, Holder};
    use engine::identifier::DigestKey;
    use engine::ids::{OrganizationId, ServiceId, TerminalId};
    use engine::keys::{Keys, SecretKey};
    use engine::registry::change::RegistryChange;
    use engine::registry::file::parse_line;
    use engine::registry::references::apply_directory;

    const SEED: u64 = 7;
    const HOLDERS: u64 = 20_000;

    fn keys() -> Keys {
        Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
    }

    fn file(holders: u64, seed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write(holders, seed, &mut out).unwrap();
        out
    }

    fn changes(file: &[u8]) -> Vec<(u64, RegistryChange)> {
        let lines = (1..).zip(file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()));
        let parse = |(number, line)| match parse_line(line, &keys()) {
            Ok(change) => (number, change),
            Err(fault) => panic!("{}", fault.at(number)),
        };
        lines.map(parse).collect()
    }

    fn holders(changes: &[(u64, RegistryChange)]) -> Vec<&Holder> {
        changes
            .iter()
            .filter_map(|(_, change)| match change {
                RegistryChange::Holder(_, holder) => holder.as_ref(),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_directory_is_whole() {
        let changes = changes(&file(0, SEED));
        let mut items = DirectoryItems::default();
        let count = u64::try_from(changes.len()).unwrap();
        assert_eq!(apply_directory(&mut items, &changes), Ok(count));
        assert_eq!(items.services.len(), 25);
        assert_eq!(items.terminals.len(), 2_000);
        for id in 1..=ORGANIZATIONS {
            let organization = items.organizations.get(&OrganizationId(id)).unwrap();
            let Credentials { client_id, client_secret } = credentials(id, SEED);
            let digest = keys().secrets.digest(OrganizationId(id), &client_secret);
            assert_eq!(organization.value.client_id, client_id);
            assert_eq!(organization.value.secret, digest);
            assert!(items.terminals.get(&TerminalId(first_terminal(id))).unwrap().active);
            let services: HashSet<u32> = services_of(id).collect();
            assert_eq!(services.len(), 6);
            for service in services {
                assert!(items.offers.contains_key(&(OrganizationId(id), ServiceId(service))));
            }
        }
    }

    #[test]
    fn holders_are_valid_distinct_and_derivable() {
        let changes = changes(&file(HOLDERS, SEED));
        let holders = holders(&changes);
        assert_eq!(u64::try_from(holders.len()).unwrap(), HOLDERS);
        let mut seen = HashSet::new();
        let (mut cards, mut rights, mut inactive, mut without_rights) = (0, 0, 0, 0);
        let key = keys().identifiers;
        for holder in &holders {
            for identifier in &holder.identifiers {
                assert!(seen.insert(identifier.digest), "holder {}", holder.id);
            }
            let found = |digest, card| {
                let leads = |one: &engine::holder::HolderIdentifier| one.digest == digest;
                holder.identifiers.iter().find(|one| leads(one)).map(|one| one.card) == Some(card)
            };
            assert!(found(key.client_code(&client_code(holder.id.0)).unwrap(), Some(0)));
            assert!(found(key.snils(&snils(holder.id.0)).unwrap(), None));
            cards += holder.cards.len();
            rights += holder.rights.len();
            let active = |status| status == CardStatus::Active;
            inactive += holder.cards.iter().filter(|card| !active(card.status)).count();
            without_rights += usize::from(holder.rights.is_empty());
        }
        assert!((38_000..42_000).contains(&cards), "{cards} cards");
        assert!((55_000..70_000).contains(&rights), "{rights} rights");
        assert!((2_000..4_000).contains(&inactive), "{inactive} inactive");
        assert!((800..1_200).contains(&without_rights), "{without_rights} without rights");
    }

    #[test]
    fn a_seed_gives_one_file_and_a_holder_does_not_depend_on_their_number() {
        assert_eq!(file(100, SEED), file(100, SEED));
        assert_ne!(file(100, SEED), file(100, SEED + 1));
        assert!(file(200, SEED).starts_with(&file(100, SEED)));
        assert_ne!(credentials(1, 1).client_secret, credentials(1, 2).client_secret);
    }

    #[test]
    fn derived_values_are_stable() {
        assert_eq!(client_code(1), "E00000001");
        assert_eq!(client_code(36), "E00000010");
        assert_eq!(snils(1), "10765432148");
        assert_eq!(first_terminal(2), 11);
        assert_eq!(services_of(25).collect::<Vec<_>>(), [25, 3, 6, 9, 12, 15]);
        assert_eq!(credentials(1, SEED).client_id, "1001");
        assert_eq!(credentials(1, SEED).client_secret, "eag9i2gbk35zxvk3");
    }
}
