use engine::ids::CategoryId;

use super::*;
use crate::link::message::BlockPush;
use crate::signing::SigningKey;

const BUS: u32 = 1;
const RAIL: u32 = 2;
const MINUTE_MS: i64 = 60_000;
/// 2025-06-02T00:00:00Z.
const BUILT_MS: i64 = 1_748_822_400_000;
const TEN_MS: i64 = BUILT_MS + 10 * MS_PER_HOUR;

struct Rights(Vec<(Digest, u32, Right)>);

impl HolderRegistry for Rights {
    fn life(&self) -> Life {
        let valid_until_ms = BUILT_MS + 48 * MS_PER_HOUR;
        Life { organization: 4, version: 7, built_at_ms: BUILT_MS, valid_until_ms }
    }

    fn look_up(&self, digest: &Digest, service: ServiceId, _: Timestamp) -> Found {
        let mut known = self.0.iter().filter(|(other, _, _)| other == digest).peekable();
        if known.peek().is_none() {
            return Found::Unknown;
        }
        let right = known.find(|(_, other, _)| *other == service.0);
        right.map_or(Found::NoRight, |(_, _, right)| Found::Right(*right))
    }
}

fn card(text: &str) -> Card {
    Card::MifareUid(text.to_owned())
}

fn holder_x() -> Card {
    card("04BCD4C2E05C80")
}

fn holder_y() -> Card {
    card("1A2B3C4D")
}

fn device() -> Device<Rights> {
    let key = CardKey::new([3; 16]);
    let right =
        |category, discount, companion| Right { category, discount, companion, offline: true };
    let registry = Rights(vec![
        (holder_x().digest(&key).unwrap(), BUS, right(10, 100, false)),
        (holder_y().digest(&key).unwrap(), RAIL, right(20, 50, true)),
    ]);
    Device {
        card_key: Some(key),
        organization: 4,
        signers: Vec::new(),
        rules: Rules { passback_seconds: 420, grace_hours: 0 },
        registry: Some(registry),
        blocks: Blocks::default(),
        passback: Passback::default(),
        clock: ServerClock::default(),
    }
}

fn journey(service: u32) -> Journey {
    Journey {
        event: TripEvent::Boarding,
        service,
        price: 9_001,
        route: "7".to_owned(),
        vehicle: String::new(),
        from_stop: "A".to_owned(),
        to_stop: String::new(),
        ticket: String::new(),
    }
}

fn at(wall_ms: i64) -> Now {
    Now { wall_ms, steady_ms: 5 }
}

/// A tap without a link; what is granted is taken note of, as by the agent.
fn tap(device: &mut Device<Rights>, card: &Card, journey: Journey, now: Now) -> Outcome {
    let outcome = match device.begin(card, journey, now) {
        Begun::Ask(asked) => device.decide_offline(&asked),
        Begun::Decided(outcome) => outcome,
    };
    outcome.entry.iter().for_each(|entry| {
        device.passback.note(entry);
    });
    outcome
}

fn asked(device: &Device<Rights>, card: &Card, service: u32) -> Asked {
    match device.begin(card, journey(service), at(TEN_MS)) {
        Begun::Ask(asked) => asked,
        Begun::Decided(outcome) => panic!("{outcome:?}"),
    }
}

#[test]
fn s3_offline_decisions() {
    let check = |card: Card, service, wall_ms, expected| {
        let outcome = tap(&mut device(), &card, journey(service), at(wall_ms));
        assert_eq!(outcome.verdict, expected);
        assert_eq!(outcome.entry.is_some(), expected == Verdict::Grant);
    };
    let end_ms = BUILT_MS + 48 * MS_PER_HOUR;
    check(holder_x(), BUS, TEN_MS, Verdict::Grant);
    check(holder_x(), RAIL, TEN_MS, Verdict::DenyNoRight);
    check(holder_y(), BUS, TEN_MS, Verdict::DenyNoRight);
    check(card("04AAAAAAAAAAAA"), BUS, TEN_MS, Verdict::DenyUnknown);
    check(card("08A1B2C3"), BUS, TEN_MS, Verdict::DenyUnknown);
    check(holder_x(), BUS, end_ms, Verdict::Grant);
    check(holder_x(), BUS, end_ms + 1, Verdict::DenyStale);
    check(holder_x(), BUS, BUILT_MS - 5 * MINUTE_MS, Verdict::Grant);
    check(holder_x(), BUS, BUILT_MS - 5 * MINUTE_MS - 1, Verdict::DenyStale);
}

#[test]
fn the_trip_of_an_offline_grant_says_all_of_it() {
    let mut device = device();
    device.clock.handle_sample(at(0), Now { wall_ms: 0, steady_ms: 5 }, 5);
    let now = Now { wall_ms: TEN_MS, steady_ms: (TEN_MS - 700).unsigned_abs() };
    let outcome = tap(&mut device, &holder_y(), journey(RAIL), now);
    let entry = outcome.entry.unwrap();
    let trip = &entry.trip;
    assert_eq!((trip.at_ms, trip.clock_offset_ms), (TEN_MS, 700));
    assert_eq!((trip.registry_version, trip.category), (7, Some(20)));
    assert_eq!((trip.tariff, trip.discount, trip.benefit), (9_001, 50, 4_501));
    assert_eq!((trip.mode, trip.tx, entry.confirm), (TripMode::Offline, None, None));
    assert!(entry.with_companion);
}

#[test]
fn grace_and_the_servers_clock_decide_whether_a_registry_counts() {
    let mut device = device();
    let late = at(BUILT_MS + 50 * MS_PER_HOUR);
    assert_eq!(tap(&mut device, &holder_x(), journey(BUS), late).verdict, Verdict::DenyStale);
    device.rules.grace_hours = 2;
    assert_eq!(tap(&mut device, &holder_x(), journey(BUS), late).verdict, Verdict::Grant);
    device.rules.grace_hours = 0;
    device.clock = ServerClock::remembering(2 * MS_PER_HOUR);
    let other = journey(BUS);
    assert_eq!(tap(&mut device, &holder_x(), other, late).verdict, Verdict::Grant);
    device.registry = None;
    assert_eq!(tap(&mut device, &holder_x(), journey(BUS), at(TEN_MS)).verdict, Verdict::DenyStale);
    device.card_key = None;
    assert_eq!(tap(&mut device, &holder_x(), journey(BUS), at(TEN_MS)).verdict, Verdict::DenyStale);
}

#[test]
fn s8_repeats_and_companions() {
    let mut device = device();
    let mut check = |card: Card, service, seconds: i64, expected, companion| {
        let outcome = tap(&mut device, &card, journey(service), at(TEN_MS + seconds * 1_000));
        assert_eq!(outcome.verdict, expected, "{seconds}");
        assert_eq!(outcome.entry.is_some_and(|entry| entry.trip.companion), companion, "{seconds}");
    };
    check(holder_x(), BUS, 0, Verdict::Grant, false);
    check(holder_x(), BUS, 60, Verdict::DenyRepeat, false);
    check(holder_x(), BUS, 419, Verdict::DenyRepeat, false);
    check(holder_x(), BUS, 420, Verdict::Grant, false);
    check(holder_y(), RAIL, 0, Verdict::Grant, false);
    check(holder_y(), RAIL, 60, Verdict::Grant, true);
    check(holder_y(), RAIL, 120, Verdict::DenyRepeat, false);
    check(holder_y(), RAIL, 419, Verdict::DenyRepeat, false);
    check(holder_y(), RAIL, 420, Verdict::Grant, false);
    let elsewhere = Journey { from_stop: "B".to_owned(), ..journey(BUS) };
    let outcome = tap(&mut device, &holder_x(), elsewhere, at(TEN_MS + 421_000));
    assert_eq!(outcome.verdict, Verdict::Grant, "another stop");
    device.rules.passback_seconds = 0;
    let outcome = tap(&mut device, &holder_x(), journey(BUS), at(TEN_MS + 422_000));
    assert_eq!(outcome.verdict, Verdict::Grant, "the rule is off");
}

#[test]
fn a_companion_is_decided_by_the_registry_and_without_one_by_the_server() {
    let mut device = device();
    let answer = CheckResult {
        tx: Some(77),
        holder: Some(5),
        category: Some(20),
        discount: Some(50),
        companion: true,
        ..CheckResult::default()
    };
    let outcome = device.decide_online(&asked(&device, &holder_y(), RAIL), &answer).unwrap();
    let entry = outcome.entry.unwrap();
    let confirm = entry.confirm.clone().unwrap();
    assert_eq!((confirm.tx, confirm.price, confirm.discounted), (77, Some(9_001), Some(4_500)));
    device.passback.note(&entry);
    let begun = device.begin(&holder_y(), journey(RAIL), at(TEN_MS + 1_000));
    let Begun::Decided(outcome) = begun else { panic!("the registry is valid") };
    let entry = outcome.entry.unwrap();
    assert_eq!((entry.trip.companion, entry.trip.tx, entry.confirm), (true, None, None));

    device.registry = None;
    let second = asked(&device, &holder_y(), RAIL);
    assert_eq!(device.decide_offline(&second).verdict, Verdict::DenyStale);
    let alone = CheckResult { companion: false, ..answer.clone() };
    assert_eq!(device.decide_online(&second, &alone).unwrap().verdict, Verdict::DenyRepeat);
    let answer = CheckResult { tx: Some(78), ..answer };
    let entry = device.decide_online(&second, &answer).unwrap().entry.unwrap();
    assert_eq!(
        (entry.trip.companion, entry.trip.tx, entry.with_companion),
        (true, Some(78), false)
    );
    device.passback.note(&entry);
    let outcome = tap(&mut device, &holder_y(), journey(RAIL), at(TEN_MS + 2_000));
    assert_eq!(outcome.verdict, Verdict::DenyRepeat);
}

#[test]
fn the_servers_codes_become_verdicts() {
    let device = device();
    let asked = asked(&device, &holder_x(), BUS);
    let check = |code, expected| {
        let answer = CheckResult { code, ..CheckResult::default() };
        let outcome = device.decide_online(&asked, &answer);
        assert_eq!(outcome.map(|outcome| outcome.verdict), expected, "{code}");
    };
    check(1, Some(Verdict::DenyNoRight));
    check(2, Some(Verdict::DenyUnknown));
    check(5, Some(Verdict::DenyBlocked));
    check(6, None);
    check(8, Some(Verdict::DenyNoRight));
    check(200, None);
    check(0, None);
}

#[test]
fn two_readers_do_not_grant_one_card_twice() {
    let mut device = device();
    let [first, second] = [(); 2].map(|()| asked(&device, &holder_x(), BUS));
    let answer = CheckResult {
        tx: Some(1),
        holder: Some(5),
        category: Some(10),
        discount: Some(100),
        ..CheckResult::default()
    };
    let granted = device.decide_online(&first, &answer).unwrap().entry.unwrap();
    let noted = device.passback.note(&granted).unwrap();
    assert_eq!(device.decide_online(&second, &answer).unwrap().verdict, Verdict::DenyRepeat);
    assert_eq!(device.decide_offline(&second).verdict, Verdict::DenyRepeat);
    device.passback.undo(noted);
    assert_eq!(device.decide_offline(&second).verdict, Verdict::Grant);
}

#[test]
fn blocked_cards_are_refused_ahead_of_the_next_registry() {
    let mut device = device();
    let id_hash = asked(&device, &holder_x(), BUS).check().id_hash;
    device.blocks.handle_push(&BlockPush { id_hash, blocked: true, at_ms: TEN_MS });
    let outcome = tap(&mut device, &holder_x(), journey(BUS), at(TEN_MS));
    assert_eq!(outcome.verdict, Verdict::DenyBlocked);
}

#[test]
fn a_look_at_the_right_uses_nothing() {
    let mut device = device();
    for _ in 0..3 {
        let journey = Journey { event: TripEvent::Check, ..journey(BUS) };
        let outcome = tap(&mut device, &holder_x(), journey, at(TEN_MS));
        assert_eq!(outcome.verdict, Verdict::Grant);
    }
    assert_eq!(tap(&mut device, &holder_x(), journey(BUS), at(TEN_MS)).verdict, Verdict::Grant);
}

#[test]
fn rights_that_only_the_server_may_grant_are_refused_alone() {
    let mut device = device();
    device.registry.as_mut().unwrap().0[0].2.offline = false;
    let outcome = tap(&mut device, &holder_x(), journey(BUS), at(TEN_MS));
    assert_eq!(outcome.verdict, Verdict::DenyNoRight);
    assert_eq!(outcome.detail, Some(Detail::OnlineOnly));
}

fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[5; 32]).unwrap()
}

/// A ticket for the bus on 2 June 2025 from nine to eleven.
fn bus_ticket(card: Option<&Card>) -> Ticket {
    let card = card.map(|card| ShortDigest::of(&card.digest(&CardKey::new([3; 16])).unwrap()));
    let hour = |hours: i64| u32::try_from((BUILT_MS + hours * MS_PER_HOUR) / 1_000).unwrap();
    Ticket {
        number: 77,
        organization: OrganizationId(4),
        service: ServiceId(BUS),
        valid_from: hour(9),
        valid_to: hour(11),
        category: CategoryId(30),
        discount_percent: 100,
        card,
    }
}

fn board(device: &Device<Rights>, card: &Card, ticket: Option<&str>, service: u32) -> Outcome {
    match device.board(card, ticket, (journey(service), at(TEN_MS))) {
        Begun::Ask(asked) => device.decide_offline(&asked),
        Begun::Decided(outcome) => outcome,
    }
}

#[test]
fn s6_boarding_needs_ticket_and_right() {
    let mut device = device();
    device.signers = vec![signing_key().signer().clone()];
    let text = |ticket: Ticket| ticket.to_text(&signing_key()).unwrap();
    let good = bus_ticket(Some(&holder_x()));
    let refused = |verdict, detail| (verdict, detail, None);
    let check = |card: Card, ticket: Option<Ticket>, service, expected| {
        let outcome = board(&device, &card, ticket.map(text).as_deref(), service);
        let number = outcome.entry.map(|entry| entry.trip.ticket);
        assert_eq!((outcome.verdict, outcome.detail, number), expected);
    };
    let granted = (Verdict::Grant, None, Some("77".to_owned()));
    check(holder_x(), Some(good), BUS, granted);
    check(holder_x(), None, BUS, refused(Verdict::DenyNoRight, Some(Detail::NoTicket)));
    let of_y = bus_ticket(Some(&holder_y()));
    check(holder_y(), Some(of_y), BUS, refused(Verdict::DenyNoRight, None));
    let ticket = |error| refused(Verdict::DenyNoRight, Some(Detail::Ticket(error)));
    let tomorrow = Ticket { valid_from: good.valid_from + 86_400, valid_to: u32::MAX, ..good };
    check(holder_x(), Some(tomorrow), BUS, ticket(TicketError::NotYet));
    let yesterday = Ticket { valid_from: 0, valid_to: good.valid_to - 86_400, ..good };
    check(holder_x(), Some(yesterday), BUS, ticket(TicketError::Expired));
    check(holder_x(), Some(of_y), BUS, ticket(TicketError::OtherCard));
    check(holder_x(), Some(good), RAIL, ticket(TicketError::OtherService));
    let foreign = Ticket { organization: OrganizationId(5), ..good };
    check(holder_x(), Some(foreign), BUS, ticket(TicketError::OtherOrganization));
    let forged = text(good).replacen('0', "1", 1);
    let outcome = board(&device, &holder_x(), Some(&forged), BUS);
    assert_eq!(outcome.verdict, Verdict::DenyNoRight);
    device.signers.clear();
    let outcome = board(&device, &holder_x(), Some(&text(good)), BUS);
    assert!(matches!(outcome.detail, Some(Detail::Ticket(TicketError::Signer(_)))));
}

#[test]
fn a_ticket_without_a_card_is_a_right_of_its_own_once() {
    let mut device = device();
    device.signers = vec![signing_key().signer().clone()];
    let code = |ticket: Ticket| Card::Qr(ticket.to_text(&signing_key()).unwrap());
    let (first, second) = (bus_ticket(None), Ticket { number: 78, ..bus_ticket(None) });
    let mut check = |card: &Card, seconds: i64, expected| {
        let outcome = tap(&mut device, card, journey(BUS), at(TEN_MS + seconds * 1_000));
        assert_eq!(outcome.verdict, expected);
    };
    check(&code(first), 0, Verdict::Grant);
    check(&code(second), 1, Verdict::Grant);
    check(&code(first), 2, Verdict::DenyRepeat);
    check(&code(first), 1_000, Verdict::DenyRepeat);
    check(&code(Ticket { number: 79, ..first }), 3_600, Verdict::DenyNoRight);
    check(&code(bus_ticket(Some(&holder_x()))), 4, Verdict::DenyNoRight);
}

/// Past the limit a newly used ticket was not remembered, and could be used again at once.
#[test]
fn of_too_many_tickets_the_oldest_is_forgotten() {
    let mut device = device();
    let used = |device: &Device<Rights>, ticket: u64, now: Now| {
        let journey = Journey { ticket: ticket.to_string(), ..journey(BUS) };
        device.entry(&device.asked(NOBODY, journey, now))
    };
    for ticket in 0..=passback::GRANTS_MAX as u64 {
        let entry = used(&device, ticket, at(TEN_MS + ticket as i64));
        device.passback.note(&entry);
    }
    assert!(!device.passback.is_used("0"));
    assert!(device.passback.is_used("1"));
    assert!(device.passback.is_used(&passback::GRANTS_MAX.to_string()));
}

#[test]
fn a_text_that_is_no_ticket_opens_no_door() {
    let device = device();
    for text in ["04BCD4C2E05C80", "9645010000000019", "", "ELT1:"] {
        let Begun::Decided(outcome) = device.begin_ticket(text, journey(BUS), at(TEN_MS)) else {
            panic!("the server is asked")
        };
        assert_eq!(outcome.verdict, Verdict::DenyNoRight, "{text}");
        assert!(matches!(outcome.detail, Some(Detail::Ticket(_))), "{outcome:?}");
    }
}
