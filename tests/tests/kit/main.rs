//! Holder registries from the engine's holders to a device's file (row S2 of the acceptance table),
//! and tickets from the web service to a device's verifier.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use engine::calendar::{Day, Timestamp};
use engine::command::Check;
use engine::decide::{Decision, LimitedPlace, Places, decide};
use engine::directory::ServiceKind;
use engine::identifier::{Digest, DigestKey, IdentifierKind};
use engine::ids::{OrganizationId, ServiceId, TerminalId};
use engine::import::Registrar;
use engine::keys::{Keys, SecretKey};
use engine::registry::Registry;
use engine::registry::writer::RegistryWriter;
use gateway::generator;
use gateway::keys::KeyRing;
use gateway::kit::registries::Registries;
use gateway::kit::store::Store;
use gateway::kit::{ContentSettings, KitSettings};
use tests::carrier::{CARRIERS, V1};
use tests::devices::{Depot, PATIENCE};
use tests::fixture;
use tests::server::{ADMIN_TOKEN, Server};
use validator::link::message::RegistryForm;
use validator::registry::delta::Delta;
use validator::registry::reader::RegistryFile;
use validator::registry::rights::Entitlement;
use validator::signing::SigningKey;
use validator::ticket::{Ticket, TicketError, TicketUse};

mod sizes;

/// Row S2's world: a carrier with a bus (100 %) and a suburban train (50 %), and who rides them.
const TOWN: &str = r#"{"kind":"region","code":"66","name":"Свердловская область","utc_offset":"+05:00"}
{"kind":"area","id":1,"name":"Екатеринбург","region":"66"}
{"kind":"category","id":10,"name":"Инвалид I группы","priority":10,"with_companion":true}
{"kind":"category","id":20,"name":"Ветеран труда","priority":20}
{"kind":"service","id":1,"name":"Автобус","service_kind":"transport","categories":[{"category":10}]}
{"kind":"service","id":2,"name":"Электричка","service_kind":"transport","categories":[{"category":20,"discount_percent":50}]}
{"kind":"service","id":3,"name":"Музей","service_kind":"visit","categories":[{"category":20}]}
{"kind":"service","id":4,"name":"Такси","service_kind":"transport","categories":[{"category":10,"limit":{"count":8,"period":"month"}}]}
{"kind":"organization","id":1,"client_id":"111","client_secret":"s111","short_name":"Перевозчик","connection":"T2V2","state":"active","area":1,"ip_allow":["127.0.0.1/32"],"categories":[10,20]}
{"kind":"organization","id":2,"client_id":"222","client_secret":"s222","short_name":"Музей","connection":"T2V2","state":"active","area":1,"ip_allow":["127.0.0.1/32"],"categories":[10,20]}
{"kind":"offer","organization":1,"service":1}
{"kind":"offer","organization":1,"service":2}
{"kind":"offer","organization":1,"service":4}
{"kind":"offer","organization":2,"service":3}
{"kind":"terminal","id":11,"organization":1}
{"kind":"terminal","id":21,"organization":2}
{"kind":"holder","id":1,"snils":"59492311630","region":"66","cards":[{"type":"esk_bank","num_sid":"9645010000000019","mifare_uid":"04BCD4C2E05C80","hashes":[{"key_id":"NSPK-1","hash":"0f1e2d3c4b5a"}],"par":"50014ABCDEF"},{"type":"social","number":"9643901401015000019","series":"14010125"}],"categories":[{"category":10}]}
{"kind":"holder","id":2,"snils":"55658806948","region":"66","cards":[{"type":"ecs","client_code":"HYHYHY"}],"categories":[{"category":20,"valid_to":"2025-06-03"}]}
{"kind":"holder","id":3,"region":"66","cards":[{"type":"ecs","client_code":"BLOCKED","status":"blocked","blocked_by":"bank"},{"type":"ecs","client_code":"FRESH","expires":"2025-06-02"}],"categories":[{"category":10}]}
{"kind":"holder","id":4,"region":"66","status":"closed","cards":[{"type":"ecs","client_code":"CLOSED"}],"categories":[{"category":10}]}
"#;
const BLOCK_X: &str = r#"{"kind":"holder","id":1,"snils":"59492311630","region":"66","cards":[{"type":"esk_bank","status":"blocked","blocked_by":"holder","num_sid":"9645010000000019","mifare_uid":"04BCD4C2E05C80"}],"categories":[{"category":10}]}
"#;
const CARRIER: OrganizationId = OrganizationId(1);
const BUS: ServiceId = ServiceId(1);
const TRAIN: ServiceId = ServiceId(2);
const TAXI: ServiceId = ServiceId(4);

fn keys() -> Keys {
    Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
}

fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[3; 32]).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn import(registrar: &mut Registrar, file: &[u8]) {
    let prepared = registrar.prepare(&mut &*file, &keys()).unwrap();
    registrar.record(prepared, &mut |_| true);
}

fn town() -> Registrar {
    let mut registrar = Registrar::new(RegistryWriter::default(), 0);
    import(&mut registrar, TOWN.as_bytes());
    registrar
}

fn settings() -> KitSettings {
    KitSettings {
        build_at: Vec::new(),
        after_import: false,
        valid_hours: 48,
        keep_versions: 4,
        delta_versions: 2,
        bytes_max: u64::MAX,
        content: ContentSettings { kinds: vec![ServiceKind::Transport], limited_offline: false },
    }
}

fn registries(data_dir: &Path, settings: KitSettings) -> Registries {
    Registries::open(Store::open(data_dir).unwrap(), signing_key(), settings).unwrap()
}

#[test]
fn a_file_says_of_every_card_what_the_engine_decides() {
    let mut file = Vec::new();
    generator::write(1_500, 7, &mut file).unwrap();
    let mut registrar = Registrar::new(RegistryWriter::default(), 0);
    import(&mut registrar, &file);
    let registry = registrar.registry();
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.content.limited_offline = true;
    let registries = registries(data_dir.path(), settings);
    // Many rights, cards and offers end with a year or in May.
    let mut rights = 0;
    for built in ["2026-05-30T20:00:00Z", "2027-12-30T09:00:00Z"] {
        let report = registries.build(registry, at(built)).unwrap();
        assert!(report.organizations > 50 && report.entries > 50_000, "{report:?}");
        for organization in (1..=generator::ORGANIZATIONS).step_by(7).map(OrganizationId) {
            let Some(version) = registries.newest(organization) else { continue };
            let file = registries.file(organization, version).unwrap();
            file.verify(&registries.signers()).unwrap();
            for hours in [0, 20, 47] {
                rights += compare(registry, &file, at(built).plus_seconds(hours * 3_600));
            }
        }
    }
    assert!(rights > 10_000, "{rights}");
}

/// Compares file and engine for all cards at `now`; how many rights there were.
fn compare(registry: &Registry, file: &RegistryFile, now: Timestamp) -> usize {
    struct Free;
    impl Places for Free {
        fn has_free(&self, _: &LimitedPlace, _: Timestamp) -> bool {
            true
        }
    }
    let organization = file.header().organization;
    let offers = &registry.directory().compiled(organization).unwrap().offers;
    let mut rights = 0;
    for (_, holder) in registry.holders().iter() {
        for identifier in holder.identifiers().filter_map(|extra| extra.identifier()) {
            for service in offers.iter().map(|offer| offer.service) {
                let items = registry.directory().items();
                let kind = items.services.get(&service).unwrap().value.kind;
                let terminal = TerminalId(generator::first_terminal(organization.0));
                let check =
                    Check { organization, terminal, service, identifier: identifier.digest };
                let right = file.right(&check.identifier, service, file.header().day(now)).unwrap();
                let unknown = identifier.kind == IdentifierKind::Snils;
                match (decide(registry, &check, now, &Free), right) {
                    (_, Entitlement::Unknown) if unknown => {}
                    (_, Entitlement::Right(_)) if unknown => panic!("a SNILS is in the file"),
                    (Decision::Benefit(benefit), Entitlement::Right(right)) => {
                        let expected = (benefit.category, benefit.discount_percent);
                        assert_eq!((right.category, right.discount_percent), expected);
                        assert_eq!(right.limited, benefit.limit.is_some());
                        rights += 1;
                    }
                    (Decision::Refused(_), Entitlement::NoRight | Entitlement::Unknown) => {}
                    // Other services than transport are not in the file.
                    (Decision::Benefit(_), _) if kind != ServiceKind::Transport => {}
                    (decision, right) => panic!("{check:?} {decision:?} {right:?}"),
                }
            }
        }
    }
    rights
}

#[test]
fn devices_get_what_their_cards_may() {
    let data_dir = tempfile::tempdir().unwrap();
    let registries = registries(data_dir.path(), settings());
    let report = registries.build(town().registry(), at("2025-06-02T00:00:00Z")).unwrap();
    // Three of holder 1's and two of a bank's hashes, holder 2's and the card that ends today.
    assert_eq!((report.version, report.organizations, report.entries), (1, 1, 7));
    let key = keys().identifiers;
    let today = Day::parse("2025-06-02").unwrap();
    let ask = |digest: Result<Digest, _>, service, day: Day| {
        let digest: Result<Digest, engine::identifier::IdentifierError> = digest;
        let file = registries.file(CARRIER, 1).unwrap();
        let right = file.right(&digest.unwrap(), service, day).unwrap();
        match right {
            Entitlement::NoRight => "no right".to_string(),
            Entitlement::Unknown => "unknown".to_string(),
            Entitlement::Right(right) => format!(
                "{} {}%{}{}",
                right.category,
                right.discount_percent,
                if right.companion { " companion" } else { "" },
                if right.offline { "" } else { " online" }
            ),
        }
    };
    let check = |digest, service, expected| assert_eq!(ask(digest, service, today), expected);
    for digest in [
        key.mifare_uid("04BCD4C2E05C80"),
        key.num_sid("9645010000000019"),
        key.hash_pan("NSPK-1", "0F1E2D3C4B5A"),
        key.par("50014abcdef"),
        key.social_card("9643901401015000019", "14010125"),
    ] {
        check(digest, BUS, "10 100% companion");
    }
    check(key.mifare_uid("04BCD4C2E05C80"), TRAIN, "no right");
    check(key.mifare_uid("04BCD4C2E05C80"), TAXI, "10 100% companion online");
    check(key.snils("59492311630"), BUS, "unknown");
    check(key.client_code("HYHYHY"), BUS, "no right");
    check(key.client_code("HYHYHY"), TRAIN, "20 50%");
    assert_eq!(ask(key.client_code("HYHYHY"), TRAIN, Day(today.0 + 2)), "no right");
    check(key.client_code("FRESH"), BUS, "10 100% companion");
    assert_eq!(ask(key.client_code("FRESH"), BUS, today.next()), "no right");
    for unknown in ["BLOCKED", "CLOSED", "NOBODY"] {
        check(key.client_code(unknown), BUS, "unknown");
    }
    assert!(registries.file(CARRIER, 2).is_err());
    assert_eq!(registries.newest(OrganizationId(2)), None);
    assert_eq!(registries.pull(OrganizationId(2), 0).form, RegistryForm::None);
}

#[test]
fn s2_a_device_is_brought_up_to_date() {
    let data_dir = tempfile::tempdir().unwrap();
    let mut registrar = town();
    let mut world = registries(data_dir.path(), settings());
    let mut fulls = vec![Vec::new()];
    for version in 1..=7 {
        if version == 6 {
            import(&mut registrar, BLOCK_X.as_bytes());
            // A restart forgets nothing.
            world = registries(data_dir.path(), settings());
        }
        let now = at("2025-05-27T00:00:00Z").plus_seconds(version * 86_400);
        let report = world.build(registrar.registry(), now).unwrap();
        assert_eq!(i64::try_from(report.version).unwrap(), version);
        fulls.push(fs::read(world.pull(CARRIER, 0).path.unwrap()).unwrap());
    }
    // A device at 5 gets a delta, which makes the same bytes.
    let offer = world.pull(CARRIER, 5);
    assert_eq!((offer.form, offer.version), (RegistryForm::Delta, 7));
    let delta_path = offer.path.unwrap();
    assert_eq!(fs::metadata(&delta_path).unwrap().len(), offer.bytes);
    let old = world.file(CARRIER, 5).unwrap();
    let delta = Delta::read(File::open(&delta_path).unwrap(), &world.signers()).unwrap();
    let mut made = tempfile::NamedTempFile::new().unwrap();
    delta.apply(&old, &mut made).unwrap();
    assert_eq!(fs::read(made.path()).unwrap(), fulls[7]);
    let installed = RegistryFile::open(made.path()).unwrap();
    let sha256 = installed.verify(&world.signers()).unwrap();
    // The one at 1 and 4 have waited too long, the one at 7 is up to date.
    for (have, form) in [(1, RegistryForm::Full), (4, RegistryForm::Full), (0, RegistryForm::Full)]
    {
        assert_eq!(world.pull(CARRIER, have).form, form);
    }
    assert_eq!(world.pull(CARRIER, 7).form, RegistryForm::UpToDate);
    // A corrupted byte is rejected, and the old file stays what it was.
    let mut corrupted = fs::read(&delta_path).unwrap();
    corrupted[200] ^= 4;
    assert!(Delta::read(corrupted.as_slice(), &world.signers()).is_err());
    old.verify(&world.signers()).unwrap();
    // What the device installed is noted; something else is not.
    let now = at("2025-06-03T09:00:00Z");
    assert!(!world.acknowledge(TerminalId(11), (CARRIER, 7), &[0; 32], now));
    world.note(TerminalId(11), CARRIER, 5, now);
    assert_eq!((world.status(now).devices, world.status(now).devices_behind), (1, 1));
    assert!(world.acknowledge(TerminalId(11), (CARRIER, 7), &sha256, now));
    assert_eq!((world.status(now).devices, world.status(now).devices_behind), (1, 0));
    // One that is heard of no more is not counted for ever.
    world.note(TerminalId(12), CARRIER, 7, now.plus_seconds(-30 * 86_400));
    world.note(TerminalId(13), CARRIER, 7, now.plus_seconds(-30 * 86_400 - 1));
    assert_eq!(world.status(now).devices, 2);
    world.forget(TerminalId(12));
    assert_eq!((world.status(now).devices, world.device(TerminalId(12))), (1, None));
    // Version 3 is gone, 4 is kept to judge trips by; whoever is blocked since 6 was not in 5.
    let uid = keys().identifiers.mifare_uid("04BCD4C2E05C80").unwrap();
    let today = Day::parse("2025-06-02").unwrap();
    let right = |version| world.file(CARRIER, version).unwrap().right(&uid, BUS, today).unwrap();
    assert!(world.file(CARRIER, 3).is_err());
    assert!(matches!(right(5), Entitlement::Right(_)));
    assert_eq!(right(6), Entitlement::Unknown);
    assert!(fs::read_dir(data_dir.path().join("registries/1")).unwrap().count() <= 4 + 2);
    // Nor is it kept for ever.
    assert!(world.device(TerminalId(13)).is_some());
    world.build(registrar.registry(), now).unwrap();
    assert!(world.device(TerminalId(13)).is_none() && world.device(TerminalId(11)).is_some());
}

#[test]
fn s2_no_identifier_is_in_a_file() {
    let data_dir = tempfile::tempdir().unwrap();
    let registries = registries(data_dir.path(), settings());
    let mut registrar = town();
    registries.build(registrar.registry(), at("2025-06-02T00:00:00Z")).unwrap();
    import(&mut registrar, BLOCK_X.as_bytes());
    registries.build(registrar.registry(), at("2025-06-03T00:00:00Z")).unwrap();
    let forbidden: Vec<&[u8]> = vec![
        b"59492311630",
        b"55658806948",
        b"9645010000000019",
        b"9643901401015000019",
        b"04BCD4C2E05C80",
        b"HYHYHY",
        b"0f1e2d3c4b5a",
        b"50014ABCDEF",
        &[0x04, 0xbc, 0xd4, 0xc2],
        &[0x80, 0x5c, 0xe0, 0xc2],
        "Инвалид".as_bytes(),
    ];
    let snils = keys().identifiers.snils("59492311630").unwrap();
    let files = fs::read_dir(data_dir.path().join("registries/1")).unwrap();
    let files: Vec<Vec<u8>> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert_eq!(files.len(), 3);
    for file in &files {
        for text in forbidden.iter().copied().chain([&snils.0[..6]]) {
            assert!(!file.windows(text.len()).any(|window| window == text), "{text:02x?}");
        }
    }
}

#[test]
fn an_organization_without_a_file_holds_up_no_other() {
    let data_dir = tempfile::tempdir().unwrap();
    let registries = registries(data_dir.path(), settings());
    let mut registrar = town();
    let second =
        TOWN.lines().filter(|line| line.contains("\"organization\"") && line.contains("111"));
    let second: String =
        second.map(|line| line.replace("\"id\":1,", "\"id\":3,").replace("111", "333")).collect();
    let offer = "{\"kind\":\"offer\",\"organization\":3,\"service\":1}";
    let terminal = "{\"kind\":\"terminal\",\"id\":31,\"organization\":3}";
    import(&mut registrar, format!("{second}\n{offer}\n{terminal}\n").as_bytes());
    fs::write(data_dir.path().join("registries/1"), "no directory").unwrap();
    let report = registries.build(registrar.registry(), at("2025-06-02T00:00:00Z")).unwrap();
    assert_eq!((report.organizations, report.failed), (1, 1));
    assert_eq!((registries.newest(CARRIER), registries.newest(OrganizationId(3))), (None, Some(1)));
}

/// One old version that could not be read kept the carrier from every newer one.
#[test]
fn an_old_version_that_is_spoiled_holds_up_no_new_one() {
    let data_dir = tempfile::tempdir().unwrap();
    let registries = registries(data_dir.path(), settings());
    let build = |day: i64| {
        let now = at("2025-06-02T00:00:00Z").plus_seconds(day * 86_400);
        registries.build(town().registry(), now).unwrap()
    };
    build(0);
    build(1);
    let path = registries.pull(CARRIER, 0).path.unwrap();
    let first = path.to_str().unwrap().replace("2.registry", "1.registry");
    assert_ne!(path.to_str().unwrap(), first);
    fs::write(&first, "spoiled").unwrap();
    assert_eq!(build(2).failed, 0);
    let forms = [1, 2].map(|have| registries.pull(CARRIER, have).form);
    assert_eq!(forms, [RegistryForm::Full, RegistryForm::Delta]);
}

#[test]
fn files_past_their_bytes_go_from_the_oldest_but_never_the_newest() {
    let data_dir = tempfile::tempdir().unwrap();
    let registries = registries(data_dir.path(), KitSettings { bytes_max: 1_500, ..settings() });
    for day in 0..6 {
        let now = at("2025-06-02T00:00:00Z").plus_seconds(day * 86_400);
        registries.build(town().registry(), now).unwrap();
    }
    assert_eq!(registries.newest(CARRIER), Some(6));
    registries.file(CARRIER, 6).unwrap();
    assert!(registries.file(CARRIER, 3).is_err());
}

#[test]
fn a_server_builds_registries_and_signs_tickets() {
    let data_dir = tempfile::tempdir().unwrap();
    let lines = data_dir.path().join("town.ndjson");
    fs::write(&lines, TOWN).unwrap();
    let lines = lines.display().to_string();
    let clock = ["--clock", "manual:2025-06-02T10:00:00Z"];
    let server = Server::start(data_dir.path(), &[&clock[..], &["--import", &lines]].concat());
    let build = |token: &str| {
        let authorization = format!("Authorization: Bearer {token}");
        tests::http::Client::connect(server.admin).post("/admin/registry", &[&authorization], b"")
    };
    assert_eq!(build("nobody").status, 401);
    let built = build(ADMIN_TOKEN).json();
    assert_eq!((built["version"].as_u64(), built["entries"].as_u64()), (Some(1), Some(7)));
    let metrics = tests::http::Client::connect(server.admin).get("/metrics").body;
    for line in ["eligo_holder_registry_version 1\n", "eligo_holder_registry_age_seconds 0\n"] {
        assert!(metrics.contains(line), "{line}");
    }
    let token = server.token("111", "s111", "ECS.WebAPI OrganizationAPI");
    let authorization = format!("Authorization: Bearer {token}");
    let ask =
        |body: &str| server.client().post("/api/v2/tickets", &[&authorization], body.as_bytes());
    let card = r#""serviceId":1,"organizationTerminalId":11,"cardNumber":"9643901401015000019","cardSeries":"14010125""#;
    let answer = ask(&format!("{{{card},\"validSeconds\":60,\"cardRequired\":true}}")).json();
    assert_eq!(
        (answer["resultCode"].as_i64(), answer["validTo"].as_i64()),
        (Some(0), Some(1_748_858_460))
    );
    let ring = KeyRing::open(data_dir.path()).unwrap();
    let signers = [SigningKey::from_seed(&ring.kit_seed).unwrap().signer().clone()];
    let ticket = Ticket::read(answer["ticket"].as_str().unwrap(), &signers).unwrap();
    assert_eq!(Some(ticket.number), answer["transactionId"].as_u64());
    let digest =
        ring.engine.identifiers.cards().social_card("9643901401015000019", "14010125").unwrap();
    let use_ = TicketUse {
        organization: CARRIER,
        service: BUS,
        now: at("2025-06-02T10:00:30Z"),
        card: Some(validator::registry::ShortDigest::of(&digest)),
    };
    assert_eq!(ticket.admit(&use_), Ok(()));
    let tomorrow = TicketUse { now: at("2025-06-03T10:00:30Z"), ..use_ };
    assert_eq!(ticket.admit(&tomorrow), Err(TicketError::Expired));
    // Of another date, for another person, without a life.
    let paper = ask(&format!("{{{card},\"validDate\":\"2025-06-03\"}}")).json();
    let paper = Ticket::read(paper["ticket"].as_str().unwrap(), &signers).unwrap();
    assert_eq!(paper.admit(&use_), Err(TicketError::NotYet));
    assert_eq!(paper.admit(&tomorrow), Ok(()));
    let nobody = r#""serviceId":1,"organizationTerminalId":11,"clientCode":"HYHYHY""#;
    let refused = ask(&format!("{{{nobody},\"validSeconds\":60}}")).json();
    assert_eq!((refused["resultCode"].as_i64(), refused.get("ticket")), (Some(1), None));
    assert_eq!(ask(&format!("{{{card}}}")).error(), (400, Some(101)));
    assert_eq!(ask(&format!("{{{card},\"validSeconds\":5}}")).error(), (400, Some(105)));
}

/// When the newest registry of a carrier was built, once it has this version.
fn built(server: &Server, data_dir: &Path, version: u64) -> Timestamp {
    let expected = format!("eligo_holder_registry_version {version}");
    let until = Instant::now() + PATIENCE;
    while !server.metrics().lines().any(|line| line == expected) {
        assert!(Instant::now() < until, "no version {version}: {:?}", server.log().text());
        std::thread::yield_now();
    }
    let files = fs::read_dir(data_dir.join("registries/10")).unwrap();
    let files = files.filter_map(|file| RegistryFile::open(&file.unwrap().path()).ok());
    let newest = files.max_by_key(|file| file.header().version).unwrap();
    assert_eq!(newest.header().version, version);
    newest.header().built_at()
}

#[test]
fn registries_are_built_at_the_start_and_at_their_hour() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::make(directory.path(), &[V1]);
    let (data_dir, pki) = (directory.path().join("data"), depot.path());
    let start = |now: &str, more: &[&str]| {
        let clock = format!("manual:{now}");
        let link = ["--clock", &clock, "--quic", "127.0.0.1:0", "--quic-pki-dir", &pki];
        Server::start(&data_dir, &[&link, more].concat())
    };
    // The first one as soon as there is somebody to build it for.
    let server = start("2025-06-02T10:00:00Z", &[]);
    assert_eq!(server.import(fixture::REGISTRY).status, 200);
    assert_eq!(server.import(CARRIERS).status, 200);
    assert_eq!(built(&server, &data_dir, 1), at("2025-06-02T10:00:00Z"));
    // The next one not before its hour, whether the server has run until then or not.
    server.set_clock("2025-06-03T02:59:59Z");
    server.kill();
    let server = start("2025-06-03T02:59:59Z", &[]);
    server.set_clock("2025-06-03T03:00:00Z");
    assert_eq!(built(&server, &data_dir, 2), at("2025-06-03T03:00:00Z"));
    server.set_clock("2025-06-04T03:00:01Z");
    assert_eq!(built(&server, &data_dir, 3), at("2025-06-04T03:00:01Z"));
    server.kill();
    // An hour that passed while there was no server is made up for at its start.
    let server = start("2025-06-05T12:00:00Z", &[]);
    assert_eq!(built(&server, &data_dir, 4), at("2025-06-05T12:00:00Z"));
    server.kill();
    // At an hour of one's own.
    let server = start("2025-06-05T23:29:00Z", &["--registry-build-at", "23:30"]);
    server.set_clock("2025-06-05T23:30:00Z");
    assert_eq!(built(&server, &data_dir, 5), at("2025-06-05T23:30:00Z"));
}

#[test]
fn a_server_with_an_imported_registry_builds_the_first_one_at_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::make(directory.path(), &[V1]);
    let (data_dir, pki) = (directory.path().join("data"), depot.path());
    let lines = directory.path().join("registry.ndjson");
    fs::write(&lines, [fixture::REGISTRY.trim_end(), CARRIERS].join("\n")).unwrap();
    let (clock, lines) = ("manual:2025-06-02T10:00:00Z", lines.display().to_string());
    let link = ["--clock", clock, "--quic", "127.0.0.1:0", "--quic-pki-dir", &pki];
    let server = Server::start(&data_dir, &[&link[..], &["--import", &lines]].concat());
    assert_eq!(built(&server, &data_dir, 1), at("2025-06-02T10:00:00Z"));
}
