//! The local interface: JSON lines, commands in, answers and events out.
//!
//! A command has an `id` (a number of the caller's) and says in `do` what is wanted:
//!
//! ```json
//! {"id":1,"do":"tap","card":{"mifare_uid":"04BCD4C2E05C80"},"journey":{"service":12,"price":2500,"route":"7","vehicle":"A123","from_stop":"Lenina"}}
//! {"id":2,"do":"board","card":{"num_sid":"9645010000000019"},"ticket":"ELT1:…","journey":{"service":12}}
//! {"id":3,"do":"ticket","text":"ELT1:…","journey":{"service":12}}
//! {"id":4,"do":"status"}
//! {"id":5,"do":"sync"}
//! ```
//!
//! A card is one of `mifare_uid`, `num_sid`, `qr`, `barcode`, `card_hash`, `client_code`, `par` (text),
//! `hash_pan` (`key_id`, `hash`), `social_card` (`number`, `series`). Of a journey only `service` is
//! needed; `event` is `boarding`, `check` or `ticket_issued`; prices are kopecks.
//!
//! Every command has one answer with its `id`, in any order:
//!
//! ```json
//! {"id":1,"granted":true,"verdict":"GRANT","mode":"online","seq":41,"category":10,"discount":100,"to_pay":0,"companion":false,"registry_version":7}
//! {"id":2,"granted":false,"verdict":"DENY_NO_RIGHT","mode":"offline","reason":"there is no ticket"}
//! {"id":3,"granted":false,"error":"the disk is full"}
//! {"id":4,"linked":true,"registry_version":7,"registry_valid":true,"valid_until_ms":1748995200000,"trips_waiting":0,"trips_refused":0,"files_unreadable":0,"blocks_missed":false,"full":null,"clock_offset_ms":-12}
//! {"id":5,"done":true}
//! {"id":6,"error":"the command cannot be understood"}
//! ```
//!
//! A passenger may pass only on `granted: true`; the trip is on the disk then. `error` means that the
//! device needs help, or the command is wrong. What happens besides comes without an `id`:
//! `{"event":"link_up"}`, `link_down`, `no_link`, `registry_installed`, `registry_refused`,
//! `trips_reported`, `trips_renumbered`, `trip_refused`, `disk_failed`, `blocks_missed`; they may be
//! dropped where nobody reads, what counts is in the status. `trips_refused` of it are trips that the
//! server will not take, put aside in the file `refused-trips`; `files_unreadable` counts files of trips
//! that the disk does not give back. Either needs a person. While `blocks_missed` is true, more cards are
//! blocked than the device can know: it grants nothing alone until a newer registry knows of them, or a
//! new link tells of them again.

use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::agent::event::{Notice, TapError};
use crate::agent::run::{Request, Shown, Status};
use crate::device::card::Card;
use crate::device::{Detail, Journey, Outcome};

/// Bytes of a command.
pub const LINE_BYTES_MAX: u64 = 4_096;

#[derive(Deserialize)]
struct Line {
    id: u64,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
enum Command {
    Board { card: Card, ticket: Option<String>, journey: Journey },
    Status,
    Sync,
    Tap { card: Card, journey: Journey },
    Ticket { text: String, journey: Journey },
}

/// The next command; nothing at the end of the input. One that is too long is skipped whole.
pub fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        return Ok(Some(line));
    }
    if (line.len() as u64) < LINE_BYTES_MAX {
        return Ok(Some(line));
    }
    loop {
        line.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 || line.last() == Some(&b'\n') {
            return Ok(Some(Vec::new()));
        }
    }
}

/// Does what a line says, and tells what to answer.
pub async fn answer(line: &[u8], requests: &mpsc::Sender<Request>) -> Value {
    let Ok(Line { id, command }) = serde_json::from_slice(line) else {
        return not_understood(line);
    };
    let mut answer = match command {
        Command::Board { card, ticket, journey } => {
            tapped(requests, |answer| Request::Board { card, ticket, journey, answer }).await
        }
        Command::Tap { card, journey } => {
            tapped(requests, |answer| Request::Tap { card, journey, answer }).await
        }
        Command::Ticket { text, journey } => {
            tapped(requests, |answer| Request::Ticket { text, journey, answer }).await
        }
        Command::Status => {
            let (sender, status) = oneshot::channel();
            // A device that ends answers nothing.
            let _ended = requests.send(Request::Status(sender)).await;
            status.await.map_or_else(|_| ended(), |status| status_json(&status))
        }
        Command::Sync => {
            let sent = requests.send(Request::Sync).await;
            sent.map_or_else(|_| ended(), |()| json!({"done": true}))
        }
    };
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("id".to_owned(), id.into());
    }
    answer
}

/// Why it cannot be read is not told: the text might hold a card.
fn not_understood(line: &[u8]) -> Value {
    #[derive(Deserialize)]
    struct Identified {
        id: u64,
    }
    let error = "the command cannot be understood";
    match serde_json::from_slice(line) {
        Ok(Identified { id }) => json!({"id": id, "error": error}),
        Err(_) => json!({"error": error}),
    }
}

/// What is shown, as a line.
pub fn shown_json(shown: &Shown) -> Value {
    match shown {
        Shown::NoLink(error) => json!({"event": "no_link", "reason": error.to_string()}),
        Shown::Notice(notice) => match notice {
            Notice::BlocksMissed => json!({"event": "blocks_missed"}),
            Notice::LinkUp => json!({"event": "link_up"}),
            Notice::LinkDown => json!({"event": "link_down"}),
            Notice::RegistryInstalled { version } => {
                json!({"event": "registry_installed", "version": version})
            }
            Notice::RegistryRefused { reason } => {
                json!({"event": "registry_refused", "reason": reason})
            }
            Notice::TripsReported { trips, questioned } => {
                json!({"event": "trips_reported", "trips": trips, "questioned": questioned})
            }
            Notice::DiskFailed { reason } => json!({"event": "disk_failed", "reason": reason}),
            Notice::TripsRenumbered { trips } => {
                json!({"event": "trips_renumbered", "trips": trips})
            }
            Notice::TripRefused { seq, reason } => {
                json!({"event": "trip_refused", "seq": seq, "reason": reason})
            }
        },
    }
}

async fn tapped(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<Result<Outcome, TapError>>) -> Request,
) -> Value {
    let (sender, outcome) = oneshot::channel();
    // A device that ends answers nothing.
    let _ended = requests.send(request(sender)).await;
    match outcome.await {
        Ok(Ok(outcome)) => outcome_json(&outcome),
        Ok(Err(error)) => json!({"granted": false, "error": error.to_string()}),
        Err(_) => ended(),
    }
}

fn ended() -> Value {
    json!({"granted": false, "error": "the device ends"})
}

fn outcome_json(outcome: &Outcome) -> Value {
    let Some(entry) = &outcome.entry else {
        let reason = outcome.detail.map(|detail| match detail {
            Detail::BlocksMissed => "too many cards were blocked since the registry".to_owned(),
            Detail::Card(error) => error.to_string(),
            Detail::NeverLinked => "the device has never had a link".to_owned(),
            Detail::NoTicket => "there is no ticket".to_owned(),
            Detail::OnlineOnly => "only the server may grant this".to_owned(),
            Detail::Ticket(error) => error.to_string(),
            Detail::Unreadable => "the registry cannot be read".to_owned(),
        });
        return json!({
            "granted": false,
            "verdict": outcome.verdict,
            "mode": outcome.mode,
            "reason": reason,
        });
    };
    let trip = &entry.trip;
    json!({
        "granted": true,
        "verdict": outcome.verdict,
        "mode": outcome.mode,
        "seq": trip.seq,
        "category": trip.category,
        "discount": trip.discount,
        "to_pay": trip.tariff.saturating_sub(trip.benefit),
        "companion": trip.companion,
        "registry_version": trip.registry_version,
    })
}

fn status_json(status: &Status) -> Value {
    let life = status.registry.map(|(life, _)| life);
    json!({
        "linked": status.linked,
        "registry_version": life.map_or(0, |life| life.version),
        "registry_valid": status.registry.is_some_and(|(_, valid)| valid),
        "valid_until_ms": life.map(|life| life.valid_until_ms),
        "trips_waiting": status.trips_waiting,
        "trips_refused": status.trips_refused,
        "files_unreadable": status.files_unreadable,
        "blocks_missed": status.blocks_missed,
        "full": status.full,
        "clock_offset_ms": status.clock_offset_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends_and_long_ones_are_skipped() {
        let mut input = b"abc\n".to_vec();
        input.extend(vec![b'x'; 10_000]);
        input.extend(b"\nlast");
        let mut input = input.as_slice();
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [b"abc\n".to_vec(), Vec::new(), b"last".to_vec()]);
    }

    #[tokio::test]
    async fn what_cannot_be_understood_is_answered_by_its_id() {
        let (requests, _nobody) = mpsc::channel(1);
        let error = "the command cannot be understood";
        let answered = answer(br#"{"id":7,"do":"erase"}"#, &requests).await;
        assert_eq!(answered, json!({"id": 7, "error": error}));
        let answered = answer(br#"{"id":7,"do":"#, &requests).await;
        assert_eq!(answered, json!({"error": error}));
    }

    /// A text that is no ticket was tapped like a card, and granted where it was one.
    #[tokio::test]
    async fn a_ticket_is_no_card() {
        let (requests, mut asked) = mpsc::channel(1);
        let line = br#"{"id":1,"do":"ticket","text":"9645010000000019","journey":{"service":1}}"#;
        // Dropped unanswered: the command is answered then.
        let is_ticket = async { matches!(asked.recv().await, Some(Request::Ticket { .. })) };
        let (_, is_ticket) = tokio::join!(answer(line, &requests), is_ticket);
        assert!(is_ticket);
    }

    #[test]
    fn commands_are_read() {
        let check = |text: &str, good: bool| {
            assert_eq!(serde_json::from_str::<Line>(text).is_ok(), good, "{text}");
        };
        check(r#"{"id":1,"do":"tap","card":{"mifare_uid":"04"},"journey":{"service":1}}"#, true);
        check(
            r#"{"id":1,"do":"board","card":{"hash_pan":{"key_id":"1","hash":"ab"}},"journey":{"service":1}}"#,
            true,
        );
        check(
            r#"{"id":1,"do":"ticket","text":"ELT1:","journey":{"service":1,"event":"check"}}"#,
            true,
        );
        check(r#"{"id":1,"do":"status"}"#, true);
        check(r#"{"id":1,"do":"sync"}"#, true);
        check(r#"{"do":"sync"}"#, false);
        check(r#"{"id":1,"do":"tap","journey":{"service":1}}"#, false);
        check(r#"{"id":1,"do":"erase"}"#, false);
    }
}
