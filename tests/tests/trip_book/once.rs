//! What is paid for once, though trips of other cards, tickets and claims tell of it.

use engine::command::{Check, CheckAnswer};
use engine::identifier::Digest;
use engine::ids::{ServiceId, TerminalId, TransactionId};
use engine::trips::claim::ClaimOrder;
use engine::trips::ruling::{Ruling, RulingOutcome, RulingVerdict};
use engine::trips::trip::{
    RegistryVersion, Trip, TripEvent, TripMode, TripName, TripReason, TripSeq,
};
use tests::trips::trip;

use crate::node::{ACCEPTED, CARRIER, Node, disputed, keys, x, y};

const LIMITED: &str = r#"{"kind":"service","id":1,"name":"Автобус","service_kind":"transport","categories":[{"category":20,"limit":{"count":2,"period":"day"}}]}"#;

fn at(minute: u64) -> String {
    format!("2025-06-02T09:{minute:02}:00Z")
}

/// The other card of the holder of `x`.
fn social_card() -> Digest {
    keys().identifiers.social_card("9643901401015000019", "14010125").unwrap()
}

/// A transaction of the server's for the holder of `x`.
pub(crate) fn transaction(node: &Node) -> TransactionId {
    let (terminal, service) = (TerminalId(2), ServiceId(1));
    let check = Check { organization: CARRIER, terminal, service, identifier: x() };
    match node.engine.check(&node.engine.registry(), &check) {
        CheckAnswer::Granted(granted) => granted.transaction,
        other => panic!("{other:?}"),
    }
}

/// A trip that the server granted.
pub(crate) fn online(seq: u64, identifier: Digest, transaction: TransactionId) -> Trip {
    let mut online = trip(seq, &at(seq), identifier);
    (online.mode, online.transaction) = (TripMode::Online, Some(transaction));
    online
}

/// Somebody boards with a ticket that needs no card.
pub(crate) fn shown(seq: u64, number: TransactionId) -> Trip {
    let mut shown = trip(seq, &at(seq), Digest([0; 16]));
    shown.texts.ticket = number.0.to_string();
    shown
}

/// The sale of a ticket with the server's help, which names its number alone.
fn sale(seq: u64, number: TransactionId) -> Trip {
    let mut sale = trip(seq, &at(seq), x());
    (sale.mode, sale.event) = (TripMode::Online, TripEvent::TicketIssued);
    sale.texts.ticket = number.0.to_string();
    sale
}

/// Uploads all of `trips`, each into a claim of its own that is handed in at once, or all into one;
/// which of them are claimed.
fn claimed(trips: &dyn Fn(&Node) -> Vec<Trip>, apart: bool) -> Vec<u64> {
    let node = Node::start();
    let mut claimed = Vec::new();
    let trips = trips(&node);
    for some in trips.chunks(if apart { 1 } else { trips.len() }) {
        assert_eq!(node.upload(some), vec![ACCEPTED; some.len()]);
        let id = node.draft().id;
        claimed.extend(node.lines(id));
        // A draft without lines cannot be handed in, and is drawn up again.
        let _empty = node.order(ClaimOrder::Submit(CARRIER, id));
    }
    claimed
}

/// Trips that named one transaction and different cards were all paid for.
#[test]
fn a_transaction_is_paid_for_once_across_cards_tickets_and_claims() {
    for apart in [false, true] {
        let cards = |node: &Node| {
            let id = transaction(node);
            vec![online(1, x(), id), online(2, y(), id), shown(3, id)]
        };
        assert_eq!(claimed(&cards, apart), [1], "{apart}");
        let tickets = |node: &Node| {
            let id = transaction(node);
            vec![shown(1, id), online(2, y(), id), shown(3, id)]
        };
        assert_eq!(claimed(&tickets, apart), [1], "{apart}");
        let others = |node: &Node| {
            let ids = [transaction(node), transaction(node)];
            vec![online(1, x(), ids[0]), online(2, y(), ids[1])]
        };
        assert_eq!(claimed(&others, apart), [1, 2], "{apart}");
    }
}

/// The sale of a ticket that did not name its transaction was paid for, and so was whoever boarded
/// with the ticket.
#[test]
fn a_sale_and_its_ticket_are_paid_for_once() {
    for apart in [false, true] {
        let sold_first = |node: &Node| {
            let id = transaction(node);
            vec![sale(1, id), shown(2, id)]
        };
        assert_eq!(claimed(&sold_first, apart), [1], "{apart}");
        let shown_first = |node: &Node| {
            let id = transaction(node);
            vec![shown(1, id), sale(2, id)]
        };
        assert_eq!(claimed(&shown_first, apart), [1], "{apart}");
        // A carrier may number its own tickets as it likes.
        let own = |node: &Node| {
            let id = transaction(node);
            let mut other = sale(2, id);
            other.identifier = social_card();
            let mut offline = sale(3, id);
            offline.mode = TripMode::Offline;
            offline.identifier = y();
            vec![sale(1, id), other, offline]
        };
        let node = Node::start();
        let mut registries = node.registries.clone();
        registries.grant(social_card(), 1, 100);
        registries.grant(y(), 1, 100);
        node.engine.trips().judge_by(registries);
        assert_eq!(node.upload(&own(&node)), [ACCEPTED; 3]);
        assert_eq!(node.lines(node.draft().id), [1, 2, 3]);
    }
}

fn limited() -> Node {
    let node = Node::start();
    node.engine.import(&mut LIMITED.as_bytes()).unwrap();
    let mut registries = node.registries.clone();
    registries.grant(social_card(), 1, 100);
    node.engine.trips().judge_by(registries);
    node
}

/// Of another card of the holder only those uses were counted that the same claim might take.
#[test]
fn a_limit_counts_all_cards_of_a_holder_over_all_claims() {
    let node = limited();
    assert_eq!(node.upload(&[trip(1, &at(1), x()), trip(2, &at(2), x())]), [ACCEPTED; 2]);
    let id = node.draft().id;
    assert_eq!(node.lines(id), [1, 2]);
    node.order(ClaimOrder::Submit(CARRIER, id)).unwrap();
    assert_eq!(node.one(&trip(3, &at(3), social_card())), ACCEPTED);
    assert_eq!(node.draft().totals.line_count, 0);
}

/// Only trips of the same card were looked at again, though others had been left out too.
#[test]
fn what_other_cards_lost_to_a_rejected_trip_is_looked_at_again() {
    let node = limited();
    let id = transaction(&node);
    let doubtful = |seq: u64| {
        let mut doubtful = trip(seq, &at(seq), x());
        (doubtful.registry, doubtful.transaction) = (RegistryVersion(6), Some(id));
        doubtful
    };
    let doubt = disputed(TripReason::Registry);
    let others = [trip(2, &at(2), social_card()), trip(3, &at(3), social_card()), shown(4, id)];
    assert_eq!(node.one(&doubtful(1)), doubt);
    assert_eq!(node.upload(&others), [ACCEPTED; 3]);
    let rule = |verdict| {
        let name = TripName { terminal: TerminalId(2), seq: TripSeq(1) };
        let ruling = Ruling { name, verdict, reason: "act".to_owned() };
        assert_eq!(node.rule(vec![ruling]), [RulingOutcome::Ruled(verdict)]);
    };
    rule(RulingVerdict::Accepted);
    let draft = node.draft().id;
    assert_eq!(node.lines(draft), [1, 2]);
    rule(RulingVerdict::Rejected);
    assert_eq!(node.lines(node.draft().id), [2, 3, 4]);
}
