//! The registry that every system is loaded with, and what it answers to a check.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use benches::population::{SEED, keys};
use engine::calendar::{Day, Timestamp};
use engine::command::{Check, Refusal};
use engine::decide::{Decision, Places, decide};
use engine::identifier::{Digest, DigestKey};
use engine::ids::{OrganizationId, ServiceId, TerminalId};
use engine::import::Registrar;
use engine::registry::Registry;
use engine::registry::writer::RegistryWriter;
use serde::Deserialize;

/// Who asks in every check: the first organization, from its first terminal.
pub const ORGANIZATION: OrganizationId = OrganizationId(1);
/// What is asked for; its uses are not limited, so no system has to count them.
pub const SERVICE: ServiceId = ServiceId(1);

/// A registry as a file and in memory.
pub struct Data {
    pub file: PathBuf,
    pub holders: u64,
    pub now: Timestamp,
    pub today: Day,
    writer: RegistryWriter,
    key: DigestKey,
}

/// What a check is answered with, in the words of every system.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Answered {
    pub code: u32,
    pub holder: u64,
    pub category: u32,
}

impl Data {
    /// Generates the registry in `directory`, unless that was done before, and reads it.
    pub fn open(holders: u64, directory: &Path) -> Data {
        let file = directory.join("registry.ndjson");
        once(directory, "generated", || {
            let mut out = BufWriter::new(File::create(&file).unwrap());
            gateway::generator::write(holders, SEED, &mut out).unwrap();
            out.flush().unwrap();
        });
        let keys = keys();
        let mut registrar = Registrar::new(RegistryWriter::default(), 0);
        let mut reader = BufReader::new(File::open(&file).unwrap());
        let prepared = registrar.prepare(&mut reader, &keys).unwrap();
        registrar.record(prepared, &mut |_| true);
        let writer = registrar.into_writer();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = Timestamp(i64::try_from(since.as_micros()).unwrap());
        let offset = writer.registry().directory().compiled(ORGANIZATION).unwrap().utc_offset;
        let today = now.local_day(offset);
        Data { file, holders, now, today, writer, key: keys.identifiers }
    }

    pub fn registry(&self) -> &Registry {
        self.writer.registry()
    }

    pub fn digest(&self, holder: u64) -> Digest {
        self.key.client_code(&gateway::generator::client_code(holder)).unwrap()
    }

    pub fn check(&self, holder: u64) -> Check {
        Check {
            organization: ORGANIZATION,
            terminal: terminal(),
            service: SERVICE,
            identifier: self.digest(holder),
        }
    }

    /// What a check of this holder's first card must be answered with.
    pub fn expected(&self, holder: u64) -> Answered {
        let code = match decide(self.registry(), &self.check(holder), self.now, &Unlimited) {
            Decision::Benefit(benefit) => {
                let (holder, category) = (benefit.holder.0, benefit.category.0);
                return Answered { code: 0, holder, category };
            }
            Decision::Refused(Refusal::NoBenefit) => 1,
            Decision::Refused(Refusal::HolderNotFound) => 2,
            Decision::Refused(Refusal::CardInactive) => 5,
            Decision::Refused(Refusal::OrganizationUnknown) => 7,
            Decision::Refused(Refusal::ServiceUnknown) => 8,
        };
        Answered { code, ..Answered::default() }
    }

    /// Calls `take` with every holder of the file.
    pub fn each_holder(&self, mut take: impl FnMut(&HolderLine<'_>)) {
        for line in BufReader::new(File::open(&self.file).unwrap()).lines().map(Result::unwrap) {
            if line.starts_with(r#"{"kind":"holder""#) {
                take(&serde_json::from_str(&line).unwrap());
            }
        }
    }
}

/// Does `act` if it was not done before; the file `mark` remembers it.
pub fn once(directory: &Path, mark: &str, act: impl FnOnce()) {
    let mark = directory.join(mark);
    if !mark.exists() {
        act();
        File::create(mark).unwrap();
    }
}

/// Every place is free; decides what is not limited.
pub struct Unlimited;

impl Places for Unlimited {
    fn has_free(&self, _: &engine::decide::LimitedPlace, _: Timestamp) -> bool {
        true
    }
}

pub fn terminal() -> TerminalId {
    TerminalId(gateway::generator::first_terminal(ORGANIZATION.0))
}

/// A holder as the file has it.
#[derive(Deserialize)]
pub struct HolderLine<'a> {
    pub id: u64,
    snils: &'a str,
    #[serde(default)]
    status: Status,
    pub cards: Vec<CardLine<'a>>,
    #[serde(rename = "categories")]
    pub rights: Vec<RightLine<'a>>,
}

#[derive(Deserialize)]
pub struct CardLine<'a> {
    #[serde(default)]
    status: Status,
    issued: Option<&'a str>,
    expires: Option<&'a str>,
    client_code: Option<&'a str>,
    number: Option<&'a str>,
    series: Option<&'a str>,
    num_sid: Option<&'a str>,
    card_hash: Option<&'a str>,
    mifare_uid: Option<&'a str>,
    #[serde(default)]
    hashes: Vec<HashLine<'a>>,
    par: Option<&'a str>,
}

#[derive(Deserialize)]
struct HashLine<'a> {
    key_id: &'a str,
    hash: &'a str,
}

#[derive(Deserialize)]
pub struct RightLine<'a> {
    pub category: u32,
    valid_from: Option<&'a str>,
    valid_to: Option<&'a str>,
}

#[derive(Clone, Copy, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Status {
    #[default]
    Active,
    Blocked,
    Closed,
    Replaced,
}

/// One way to find a holder: a letter for its kind, the text, and the card that it names.
pub struct Identifier {
    pub kind: char,
    pub text: String,
    pub card: Option<usize>,
}

impl HolderLine<'_> {
    pub fn is_closed(&self) -> bool {
        self.status == Status::Closed
    }

    /// All that eligo indexes, too.
    pub fn identifiers(&self) -> Vec<Identifier> {
        let mut found = vec![Identifier { kind: 's', text: self.snils.to_owned(), card: None }];
        for (at, card) in self.cards.iter().enumerate() {
            let mut push = |kind, text: Option<&str>| {
                found.extend(text.map(|text| Identifier {
                    kind,
                    text: text.to_owned(),
                    card: Some(at),
                }));
            };
            push('c', card.client_code);
            let number = card.number.zip(card.series);
            push('n', number.map(|(number, series)| format!("{number}{series}")).as_deref());
            push('u', card.num_sid);
            push('k', card.card_hash);
            push('m', card.mifare_uid);
            push('p', card.par);
            for HashLine { key_id, hash } in &card.hashes {
                push('h', Some(&format!("{key_id}:{hash}")));
            }
        }
        found
    }
}

impl CardLine<'_> {
    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    pub fn issued(&self) -> Day {
        day(self.issued, Day::BEGINNING)
    }

    pub fn expires(&self) -> Day {
        day(self.expires, Day::FOREVER)
    }
}

impl RightLine<'_> {
    pub fn from(&self) -> Day {
        day(self.valid_from, Day::BEGINNING)
    }

    pub fn to(&self) -> Day {
        day(self.valid_to, Day::FOREVER)
    }
}

fn day(text: Option<&str>, unlimited: Day) -> Day {
    text.map_or(unlimited, |text| Day::parse(text).unwrap())
}
