//! The registry file: one JSON object a line, parsed into changes that cannot be wrong by themselves.
//!
//! Everything that can be told from one line is checked here. What takes the whole file, the
//! directory or other holders is checked later: references in [`crate::registry::references`],
//! identifiers of two holders by the holders' index.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::calendar::{Period, UtcOffset};
use crate::directory::{
    Area, Category, Connection, Limit, Offer, Organization, OrganizationRole, OrganizationState,
    Region, Service, ServiceCategory, ServiceKind, Terminal,
};
use crate::ids::{AreaId, CategoryId, OrganizationId, ServiceId, TerminalId};
use crate::keys::Keys;
use crate::limits::REGISTRY_LINE_BYTES_MAX;
use crate::registry::change::RegistryChange;
use crate::registry::fault::LineFault;
use crate::registry::field;
use crate::registry::holder_line;
use crate::registry::line::{
    self, AreaLine, CategoryLine, LimitLine, Object, OfferLine, OrganizationLine, RegionLine,
    ServiceCategoryLine, ServiceLine, TerminalLine, Text,
};

/// Characters of the name of a category, a region or a service, and of a client id.
const NAME_CHARACTERS_MAX: usize = 100;
/// Characters of the name of an area or an organization.
const SHORT_NAME_CHARACTERS_MAX: usize = 50;
/// Characters of a region's designation in D2 messages.
const PRG_CODE_CHARACTERS_MAX: usize = 5;

const SERVICE_KINDS: &[(&str, ServiceKind)] = &[
    ("transport", ServiceKind::Transport),
    ("visit", ServiceKind::Visit),
    ("discount", ServiceKind::Discount),
    ("meal", ServiceKind::Meal),
    ("pass", ServiceKind::Pass),
    ("attendance", ServiceKind::Attendance),
    ("payment", ServiceKind::Payment),
    ("goods", ServiceKind::Goods),
];
const PERIODS: &[(&str, Period)] = &[
    ("day", Period::Day),
    ("week", Period::Week),
    ("month", Period::Month),
    ("year", Period::Year),
];
const CONNECTIONS: &[(&str, Connection)] = &[
    ("T1V1", Connection::T1V1),
    ("T1V2", Connection::T1V2),
    ("T2V1", Connection::T2V1),
    ("T2V2", Connection::T2V2),
    ("T3", Connection::T3),
    ("AIRLINE", Connection::Airline),
];
/// In the order of an organization's life (catalogue §3.2).
const ORGANIZATION_STATES: &[(&str, OrganizationState)] = &[
    ("submitted", OrganizationState::Submitted),
    ("returned", OrganizationState::Returned),
    ("accepted", OrganizationState::Accepted),
    ("testing", OrganizationState::Testing),
    ("active", OrganizationState::Active),
    ("change_pending", OrganizationState::ChangePending),
    ("suspending", OrganizationState::Suspending),
    ("excluded", OrganizationState::Excluded),
];
const ROLES: &[(&str, OrganizationRole)] =
    &[("acceptor", OrganizationRole::Acceptor), ("ministry", OrganizationRole::Ministry)];
/// Whether a terminal in this state may be used.
const TERMINAL_STATES: &[(&str, bool)] = &[("active", true), ("blocked", false)];

/// Parses one line that is not blank. Where `deleted` is true only the id is required and the other
/// fields are ignored, though an unknown one or one of a wrong type is still a fault.
pub fn parse_line(line: &[u8], keys: &Keys) -> Result<RegistryChange, LineFault> {
    if line.len() > REGISTRY_LINE_BYTES_MAX {
        let reason = format!("longer than {REGISTRY_LINE_BYTES_MAX} bytes");
        return Err(LineFault::of_line(reason));
    }
    let text = std::str::from_utf8(line).map_err(|_| LineFault::of_line("not UTF-8"))?;
    match line::kind(text) {
        Some("holder") => holder_line::change(line::read(text)?, &keys.identifiers),
        Some("region") => region(line::read(text)?),
        Some("area") => area(line::read(text)?),
        Some("category") => category(line::read(text)?),
        Some("service") => service(line::read(text)?),
        Some("organization") => organization(line::read(text)?, keys),
        Some("offer") => offer(line::read(text)?),
        Some("terminal") => terminal(line::read(text)?),
        Some(_) => Err(LineFault::of_field("kind", "unknown")),
        None => Err(LineFault::of_field("kind", "not the first field of a JSON object")),
    }
}

fn region(line: RegionLine<'_>) -> Result<RegistryChange, LineFault> {
    let code = field::region("code", line.code)?;
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Region(code, None));
    }
    let name = field::name("name", line.name, NAME_CHARACTERS_MAX)?;
    let utc_offset = field::required("utc_offset", line.utc_offset)?;
    let utc_offset = UtcOffset::parse(utc_offset.as_str())
        .ok_or_else(|| LineFault::of_field("utc_offset", "not an offset like `+09:00`"))?;
    let prg_code = match line.prg_code {
        Some(code) => Some(field::name("prg_code", Some(code), PRG_CODE_CHARACTERS_MAX)?),
        None => None,
    };
    Ok(RegistryChange::Region(code, Some(Region { name, utc_offset, prg_code })))
}

fn area(line: AreaLine<'_>) -> Result<RegistryChange, LineFault> {
    let id = AreaId(field::small_id("id", line.id)?);
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Area(id, None));
    }
    let name = field::name("name", line.name, SHORT_NAME_CHARACTERS_MAX)?;
    let region = field::region("region", line.region)?;
    Ok(RegistryChange::Area(id, Some(Area { name, region })))
}

fn category(line: CategoryLine<'_>) -> Result<RegistryChange, LineFault> {
    let id = CategoryId(field::small_id("id", line.id)?);
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Category(id, None));
    }
    let category = Category {
        name: field::name("name", line.name, NAME_CHARACTERS_MAX)?,
        priority: priority(field::required("priority", line.priority)?)?,
        with_companion: line.with_companion.unwrap_or(false),
        validity: field::validity(line.valid_from, line.valid_to)?,
    };
    Ok(RegistryChange::Category(id, Some(category)))
}

fn service(line: ServiceLine<'_>) -> Result<RegistryChange, LineFault> {
    let id = ServiceId(field::small_id("id", line.id)?);
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Service(id, None));
    }
    let name = field::name("name", line.name, NAME_CHARACTERS_MAX)?;
    let kind = field::required("service_kind", line.service_kind)?;
    let kind = field::word("service_kind", kind.as_str(), SERVICE_KINDS)?;
    let mut categories: Vec<ServiceCategory> = Vec::new();
    for Object(line) in line.categories.unwrap_or_default() {
        let link = service_category(line)?;
        if categories.iter().any(|earlier| earlier.category == link.category) {
            return Err(LineFault::of_field("categories", "the same category twice"));
        }
        categories.push(link);
    }
    Ok(RegistryChange::Service(id, Some(Service { name, kind, categories })))
}

fn service_category(line: ServiceCategoryLine<'_>) -> Result<ServiceCategory, LineFault> {
    let percent = line.discount_percent.unwrap_or(100);
    let discount_percent = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
    Ok(ServiceCategory {
        category: CategoryId(field::small_id("category", line.category)?),
        priority: line.priority.map(priority).transpose()?,
        discount_percent: discount_percent
            .ok_or_else(|| LineFault::of_field("discount_percent", "not between 0 and 100"))?,
        limit: line.limit.map(|Object(line)| limit(line)).transpose()?,
    })
}

fn limit(line: LimitLine<'_>) -> Result<Limit, LineFault> {
    let period = field::required("period", line.period)?;
    Ok(Limit {
        count: field::small_id("count", line.count)?,
        period: field::word("period", period.as_str(), PERIODS)?,
    })
}

fn organization(line: OrganizationLine<'_>, keys: &Keys) -> Result<RegistryChange, LineFault> {
    let id = OrganizationId(field::small_id("id", line.id)?);
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Organization(id, None));
    }
    let secret = field::required("client_secret", line.client_secret)?;
    if secret.as_str().is_empty() {
        return Err(LineFault::of_field("client_secret", "empty"));
    }
    let connection = field::required("connection", line.connection)?;
    let state = field::required("state", line.state)?;
    let mut categories = Vec::new();
    for category in line.categories.unwrap_or_default() {
        categories.push(CategoryId(field::small_id("categories", Some(category))?));
    }
    let ip_allow = line.ip_allow.unwrap_or_default();
    let organization = Organization {
        client_id: field::name("client_id", line.client_id, NAME_CHARACTERS_MAX)?,
        secret: keys.secrets.digest(id, secret.as_str()),
        short_name: field::name("short_name", line.short_name, SHORT_NAME_CHARACTERS_MAX)?,
        connection: field::word("connection", connection.as_str(), CONNECTIONS)?,
        state: field::word("state", state.as_str(), ORGANIZATION_STATES)?,
        area: AreaId(field::small_id("area", line.area)?),
        ip_allow: ip_allow.iter().map(network).collect::<Result<_, _>>()?,
        categories,
        history: line.history.unwrap_or(false),
        role: match line.role {
            Some(role) => field::word("role", role.as_str(), ROLES)?,
            None => OrganizationRole::Acceptor,
        },
    };
    Ok(RegistryChange::Organization(id, Some(organization)))
}

/// A network in CIDR notation, or one address; bits below the prefix are cleared.
fn network(text: &Text<'_>) -> Result<IpNet, LineFault> {
    let text = text.as_str();
    let network = text.parse::<IpNet>().ok();
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = network.map(|network| network.trunc());
    network.ok_or_else(|| LineFault::of_field("ip_allow", "not a network like `10.0.0.0/8`"))
}

fn offer(line: OfferLine<'_>) -> Result<RegistryChange, LineFault> {
    let organization = OrganizationId(field::small_id("organization", line.organization)?);
    let id = (organization, ServiceId(field::small_id("service", line.service)?));
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Offer(id, None));
    }
    let price = line.base_price.map(|price| field::rubles("base_price", price.get()));
    let offer = Offer {
        validity: field::validity(line.valid_from, line.valid_to)?,
        base_price: price.transpose()?,
        linked: line.linked.unwrap_or(false),
        working_hours: line.working_hours.map(|hours| hours.as_str().to_owned()),
    };
    Ok(RegistryChange::Offer(id, Some(offer)))
}

fn terminal(line: TerminalLine<'_>) -> Result<RegistryChange, LineFault> {
    let id = TerminalId(field::large_id("id", line.id)?);
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Terminal(id, None));
    }
    let active = match line.state {
        Some(state) => field::word("state", state.as_str(), TERMINAL_STATES)?,
        None => true,
    };
    let organization = OrganizationId(field::small_id("organization", line.organization)?);
    Ok(RegistryChange::Terminal(id, Some(Terminal { organization, active })))
}

fn priority(value: i64) -> Result<i32, LineFault> {
    i32::try_from(value).map_err(|_| LineFault::of_field("priority", "too large or too small"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::calendar::{Day, Validity};
    use crate::identifier::DigestKey;
    use crate::ids::{Kopecks, RegionCode};
    use crate::keys::SecretKey;

    fn keys() -> Keys {
        Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
    }

    fn parse(line: &str) -> Result<RegistryChange, LineFault> {
        parse_line(line.as_bytes(), &keys())
    }

    /// `expected` is the fault as it is printed.
    fn check(line: &str, expected: &str) {
        match parse(line) {
            Ok(change) => panic!("{line} is {change:?}, expected {expected}"),
            Err(fault) => assert_eq!(fault.to_string(), expected, "{line}"),
        }
    }

    /// A line with some fields replaced or added; `null` stands for absent.
    fn with(line: &str, field: &str, value: &str) -> String {
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).unwrap();
        object.insert(field.to_owned(), serde_json::from_str(value).unwrap());
        let kind = object.remove("kind").unwrap();
        let rest = serde_json::to_string(&object).unwrap();
        format!("{{\"kind\":{kind},{}", rest.strip_prefix('{').unwrap())
    }

    const REGION: &str = r#"{"kind":"region","code":"14","name":"Саха","utc_offset":"+09:00"}"#;
    const AREA: &str = r#"{"kind":"area","id":1,"name":"Якутск","region":"14"}"#;
    const CATEGORY: &str = r#"{"kind":"category","id":20,"name":"Ветеран труда","priority":20}"#;
    const SERVICE: &str = r#"{"kind":"service","id":1,"name":"Посещение бассейна","service_kind":"visit","categories":[{"category":10},{"category":20,"priority":-5,"discount_percent":0,"limit":{"count":2,"period":"week"}}]}"#;
    const ORGANIZATION: &str = r#"{"kind":"organization","id":1,"client_id":"111","client_secret":"aaaabbbbbcccccc","short_name":"ООО «Якутия»","connection":"T2V2","state":"active","area":1,"ip_allow":["127.0.0.1/32"],"categories":[10,20,30]}"#;
    const OFFER: &str = r#"{"kind":"offer","organization":1,"service":4}"#;
    const TERMINAL: &str = r#"{"kind":"terminal","id":2,"organization":1}"#;

    fn validity(from: &str, to: &str) -> Validity {
        Validity { from: Day::parse(from).unwrap(), to: Day::parse(to).unwrap() }
    }

    #[test]
    fn the_example_of_the_format_is_read() {
        let name = || "Саха".to_owned();
        let region = Region { name: name(), utc_offset: UtcOffset(32_400), prg_code: None };
        assert_eq!(parse(REGION), Ok(RegistryChange::Region(RegionCode(14), Some(region))));
        let area = Area { name: "Якутск".to_owned(), region: RegionCode(14) };
        assert_eq!(parse(AREA), Ok(RegistryChange::Area(AreaId(1), Some(area))));
        let category = Category {
            name: "Ветеран труда".to_owned(),
            priority: 20,
            with_companion: false,
            validity: Validity::UNLIMITED,
        };
        let expected = RegistryChange::Category(CategoryId(20), Some(category));
        assert_eq!(parse(CATEGORY), Ok(expected));
        let organization = Organization {
            client_id: "111".to_owned(),
            secret: keys().secrets.digest(OrganizationId(1), "aaaabbbbbcccccc"),
            short_name: "ООО «Якутия»".to_owned(),
            connection: Connection::T2V2,
            state: OrganizationState::Active,
            area: AreaId(1),
            ip_allow: vec!["127.0.0.1/32".parse().unwrap()],
            categories: vec![CategoryId(10), CategoryId(20), CategoryId(30)],
            history: false,
            role: OrganizationRole::Acceptor,
        };
        let expected = RegistryChange::Organization(OrganizationId(1), Some(organization));
        assert_eq!(parse(ORGANIZATION), Ok(expected));
        let terminal = Terminal { organization: OrganizationId(1), active: true };
        let expected = RegistryChange::Terminal(TerminalId(2), Some(terminal));
        assert_eq!(parse(TERMINAL), Ok(expected));
    }

    #[test]
    fn services_have_categories_with_defaults() {
        let Ok(RegistryChange::Service(ServiceId(1), Some(service))) = parse(SERVICE) else {
            panic!("not a service");
        };
        let plain = ServiceCategory {
            category: CategoryId(10),
            priority: None,
            discount_percent: 100,
            limit: None,
        };
        let limited = ServiceCategory {
            category: CategoryId(20),
            priority: Some(-5),
            discount_percent: 0,
            limit: Some(Limit { count: 2, period: Period::Week }),
        };
        assert_eq!(service.categories, [plain, limited]);
    }

    #[test]
    fn offers_have_money_and_dates() {
        let line = r#"{"kind":"offer","organization":1,"service":4,"valid_from":"2024-01-01","valid_to":"2025-05-31","base_price":300.5,"linked":true,"working_hours":"пн–пт \"9–18\""}"#;
        let expected = Offer {
            validity: validity("2024-01-01", "2025-05-31"),
            base_price: Some(Kopecks(30_050)),
            linked: true,
            working_hours: Some("пн–пт \"9–18\"".to_owned()),
        };
        let id = (OrganizationId(1), ServiceId(4));
        assert_eq!(parse(line), Ok(RegistryChange::Offer(id, Some(expected))));
        let price = |text: &str| match parse(&format!(
            "{},\"base_price\":{text}}}",
            OFFER.strip_suffix('}').unwrap()
        )) {
            Ok(RegistryChange::Offer(_, Some(offer))) => Ok(offer.base_price),
            other => Err(other.unwrap_err().to_string()),
        };
        assert_eq!(price("null"), Ok(None));
        assert_eq!(price("0"), Ok(Some(Kopecks(0))));
        assert_eq!(price("0.07"), Ok(Some(Kopecks(7))));
        assert_eq!(price("100.00"), Ok(Some(Kopecks(10_000))));
        let most = Kopecks(u64::try_from(i64::MAX).unwrap());
        assert_eq!(price("92233720368547758.07"), Ok(Some(most)));
        let fault = |text, expected: &str| {
            assert_eq!(price(text), Err(format!("`base_price`: {expected}")), "{text}");
        };
        fault("92233720368547758.08", "too large");
        fault("99999999999999999999999", "too large");
        fault("1.001", "more than two decimals");
        fault("-1", "not a number of rubles like `300.50`");
        fault("1e2", "not a number of rubles like `300.50`");
        fault("\"300\"", "not a number of rubles like `300.50`");
        fault("[]", "not a number of rubles like `300.50`");
    }

    #[test]
    fn lines_that_are_no_objects_of_a_kind() {
        check("[]", "`kind`: not the first field of a JSON object");
        check(r#"{"id":1,"kind":"area"}"#, "`kind`: not the first field of a JSON object");
        check(r#"{"kind":"region"#, "`kind`: not the first field of a JSON object");
        check(r#"{"kind":"person","id":1}"#, "`kind`: unknown");
        check(r#"{"kind":"area","id":1"#, "not valid JSON at column 21");
        check(r#"{"kind":"area","id":1}}"#, "not valid JSON at column 23");
        check(r#"{"kind":"area","id":1,"kind":"area"}"#, "`kind`: given twice");
        check(r#"{"kind":"area","id":1,"id":2}"#, "`id`: given twice");
        check(r#"{"kind":"area","id":1,"nmae":"x"}"#, "unknown field `nmae`");
        check(r#"{"kind":"area","id":1,"59492311630":"x"}"#, "unknown field at column 35");
        check(r#"{"kind":"area","id":1,"secret","name":""}"#, "unknown field at column 30");
        assert_eq!(parse_line(b"{\"kind\":\"\xff\"}", &keys()).unwrap_err().reason, "not UTF-8");
        let spaces = " ".repeat(REGISTRY_LINE_BYTES_MAX);
        check(&format!("{AREA}{spaces}"), "longer than 65536 bytes");
        assert!(parse(&format!(" {AREA}\r\n")).is_ok());
        assert!(parse(r#"{ "kind" : "area" , "id":1,"deleted":true}"#).is_ok());
    }

    #[test]
    fn types_are_told_by_field_and_values_are_not_quoted() {
        check(&with(AREA, "id", "\"59492311630\""), "`id`: not a whole number");
        check(&with(AREA, "id", "1.0"), "`id`: not a whole number");
        check(&with(AREA, "id", "99999999999999999999"), "`id`: not a whole number");
        check(&with(AREA, "name", "59492311630"), "`name`: not a string");
        check(
            &with(CATEGORY, "with_companion", "1"),
            "`with_companion`: neither `true` nor `false`",
        );
        check(&with(SERVICE, "categories", "{}"), "`categories`: not a list");
        check(&with(SERVICE, "categories", "[[10,1,1,null]]"), "`categories`: not an object");
        let limit = r#"[{"category":1,"limit":[1,"day"]}]"#;
        check(&with(SERVICE, "categories", limit), "`limit`: not an object");
        check(&with(ORGANIZATION, "ip_allow", "[1]"), "`ip_allow`: not a string");
    }

    #[test]
    fn required_fields_of_the_directory() {
        for (line, fields) in [
            (REGION, ["code", "name", "utc_offset"].as_slice()),
            (AREA, &["id", "name", "region"]),
            (CATEGORY, &["id", "name", "priority"]),
            (SERVICE, &["id", "name", "service_kind"]),
            (
                ORGANIZATION,
                &["id", "client_id", "client_secret", "short_name", "connection", "state", "area"],
            ),
            (OFFER, &["organization", "service"]),
            (TERMINAL, &["id", "organization"]),
        ] {
            assert!(parse(line).is_ok(), "{line}");
            for field in fields {
                check(&with(line, field, "null"), &format!("`{field}`: missing"));
            }
        }
    }

    #[test]
    fn ids_and_numbers_have_ranges() {
        let range = "`id`: not between 1 and 4294967295";
        for line in [AREA, CATEGORY, SERVICE, ORGANIZATION] {
            check(&with(line, "id", "0"), range);
            check(&with(line, "id", "-1"), range);
            check(&with(line, "id", "4294967296"), range);
            assert!(parse(&with(line, "id", "4294967295")).is_ok());
        }
        check(&with(TERMINAL, "id", "0"), "`id`: not positive");
        assert!(parse(&with(TERMINAL, "id", "9223372036854775807")).is_ok());
        check(&with(TERMINAL, "id", "9223372036854775808"), "`id`: not a whole number");
        check(&with(CATEGORY, "priority", "2147483648"), "`priority`: too large or too small");
        let link = |fields: &str| with(SERVICE, "categories", &format!("[{{{fields}}}]"));
        check(&link("\"priority\":1"), "`category`: missing");
        let percent = "`discount_percent`: not between 0 and 100";
        check(&link("\"category\":1,\"discount_percent\":101"), percent);
        check(&link("\"category\":1,\"discount_percent\":-1"), percent);
        let limit = |fields: &str| link(&format!("\"category\":1,\"limit\":{{{fields}}}"));
        let count = "`count`: not between 1 and 4294967295";
        check(&limit("\"count\":0,\"period\":\"day\""), count);
        check(&limit("\"period\":\"day\""), "`count`: missing");
        check(&limit("\"count\":1"), "`period`: missing");
        let period = "`period`: none of `day`, `week`, `month`, `year`";
        check(&limit("\"count\":1,\"period\":\"hour\""), period);
        check(&limit("\"count\":1,\"period\":\"day\",\"x\":1"), "unknown field `x`");
        let twice = "[{\"category\":1},{\"category\":1}]";
        check(&with(SERVICE, "categories", twice), "`categories`: the same category twice");
    }

    #[test]
    fn texts_have_rules() {
        for (line, field, characters_max) in [
            (REGION, "name", 100),
            (REGION, "prg_code", 5),
            (AREA, "name", 50),
            (CATEGORY, "name", 100),
            (SERVICE, "name", 100),
            (ORGANIZATION, "short_name", 50),
            (ORGANIZATION, "client_id", 100),
        ] {
            let text = |characters: usize| format!("\"{}\"", "Ы".repeat(characters));
            assert!(parse(&with(line, field, &text(characters_max))).is_ok(), "{field}");
            let expected = format!("`{field}`: longer than {characters_max} characters");
            check(&with(line, field, &text(characters_max + 1)), &expected);
            check(&with(line, field, "\" \""), &format!("`{field}`: empty"));
        }
        check(&with(ORGANIZATION, "client_secret", "\"\""), "`client_secret`: empty");
        for code in ["1", "014", "1x", "+1", "１４"] {
            let code = format!("\"{code}\"");
            check(&with(REGION, "code", &code), "`code`: not a code of two digits");
            check(&with(AREA, "region", &code), "`region`: not a code of two digits");
        }
        let offset = "`utc_offset`: not an offset like `+09:00`";
        check(&with(REGION, "utc_offset", "\"+9:00\""), offset);
        check(&with(REGION, "utc_offset", "\"+15:00\""), offset);
        let kinds = "`service_kind`: none of `transport`, `visit`, `discount`, `meal`, `pass`, \
                     `attendance`, `payment`, `goods`";
        check(&with(SERVICE, "service_kind", "\"Visit\""), kinds);
        let connections = "`connection`: none of `T1V1`, `T1V2`, `T2V1`, `T2V2`, `T3`, `AIRLINE`";
        check(&with(ORGANIZATION, "connection", "\"T4\""), connections);
        let states = "`state`: none of `submitted`, `returned`, `accepted`, `testing`, `active`, \
                      `change_pending`, `suspending`, `excluded`";
        check(&with(ORGANIZATION, "state", "\"connected\""), states);
        check(&with(TERMINAL, "state", "\"x\""), "`state`: none of `active`, `blocked`");
    }

    #[test]
    fn every_word_is_known() {
        let accepts = |line: &str, field: &str, words: &[&str]| {
            for word in words {
                assert!(parse(&with(line, field, &format!("\"{word}\""))).is_ok(), "{word}");
            }
        };
        let words = SERVICE_KINDS.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        accepts(SERVICE, "service_kind", &words);
        let words = CONNECTIONS.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        accepts(ORGANIZATION, "connection", &words);
        let words = ORGANIZATION_STATES.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        accepts(ORGANIZATION, "state", &words);
        accepts(TERMINAL, "state", &["active", "blocked"]);
    }

    #[test]
    fn dates_are_local_and_inclusive() {
        for line in [CATEGORY, OFFER] {
            let date = "not a date like `2025-12-31`";
            check(&with(line, "valid_from", "\"2025-02-29\""), &format!("`valid_from`: {date}"));
            check(&with(line, "valid_to", "\"31.12.2025\""), &format!("`valid_to`: {date}"));
            let one_day = with(line, "valid_from", "\"2025-01-01\"");
            assert!(parse(&with(&one_day, "valid_to", "\"2025-01-01\"")).is_ok());
            let reversed = with(&one_day, "valid_to", "\"2024-12-31\"");
            check(&reversed, "`valid_from`: after `valid_to`");
        }
    }

    #[test]
    fn networks_and_addresses() {
        let allowed = |text: &str| match parse(&with(ORGANIZATION, "ip_allow", text)) {
            Ok(RegistryChange::Organization(_, Some(organization))) => {
                organization.ip_allow.iter().map(IpNet::to_string).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(allowed("[]"), [""; 0]);
        assert_eq!(allowed("null"), [""; 0]);
        assert_eq!(
            allowed(r#"["10.1.2.3/8","10.0.0.1","2001:db8::1","2001:db8::/32"]"#),
            ["10.0.0.0/8", "10.0.0.1/32", "2001:db8::1/128", "2001:db8::/32"]
        );
        let network = "`ip_allow`: not a network like `10.0.0.0/8`";
        for text in ["10.0.0.0/33", "10.0.0", "localhost", ""] {
            check(&with(ORGANIZATION, "ip_allow", &format!("[\"{text}\"]")), network);
        }
    }

    #[test]
    fn a_deletion_needs_the_id_alone() {
        let check = |line: &str, expected| assert_eq!(parse(line), Ok(expected), "{line}");
        let region = RegistryChange::Region(RegionCode(14), None);
        check(r#"{"kind":"region","code":"14","deleted":true}"#, region);
        check(r#"{"kind":"area","id":1,"deleted":true}"#, RegistryChange::Area(AreaId(1), None));
        let category = RegistryChange::Category(CategoryId(1), None);
        check(r#"{"kind":"category","id":1,"deleted":true}"#, category);
        let service = RegistryChange::Service(ServiceId(1), None);
        check(r#"{"kind":"service","id":1,"deleted":true}"#, service);
        let organization = RegistryChange::Organization(OrganizationId(1), None);
        check(r#"{"kind":"organization","id":1,"deleted":true}"#, organization);
        let offer = RegistryChange::Offer((OrganizationId(1), ServiceId(2)), None);
        check(r#"{"kind":"offer","organization":1,"service":2,"deleted":true}"#, offer);
        let terminal = RegistryChange::Terminal(TerminalId(1), None);
        check(r#"{"kind":"terminal","id":1,"deleted":true,"state":"?"}"#, terminal);
        assert!(parse(r#"{"kind":"area","deleted":true}"#).is_err());
        assert!(parse(r#"{"kind":"area","id":1,"deleted":true,"x":1}"#).is_err());
        assert!(parse(r#"{"kind":"area","id":1,"deleted":false}"#).is_err());
    }
}
