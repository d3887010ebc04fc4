//! The real agent, killed at random in the middle of taps: what it granted is in its queue, once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use engine::calendar::{Day, UtcOffset};
use engine::identifier::CardKey;
use engine::ids::{CategoryId, OrganizationId, ServiceId};
use serde_bytes::ByteArray;
use serde_json::{Value, json};
use validator::agent::memory::{self, ServerFacts};
use validator::agent::wall::wall_ms;
use validator::device::card::Card;
use validator::files::directory::Directory;
use validator::link::message::Rules;
use validator::queue::TripQueue;
use validator::random::Random;
use validator::registry::header::Header;
use validator::registry::rights::{Dictionary, Right};
use validator::registry::writer::Writer;
use validator::registry::{Entry, ShortDigest};
use validator::signing::SigningKey;

const ROUNDS: u64 = 50;
const TAPS_OF_ROUND: u64 = 40;
const TERMINAL: u64 = 11;
const ORGANIZATION: u32 = 4;
const CARD_KEY: [u8; 16] = [3; 16];

fn uid(tap: u64) -> String {
    format!("{:014X}", 0x04_0000_0000_0000_u64 + tap)
}

/// A registry in which every tap's card has a right.
fn registry(key: &SigningKey) -> Vec<u8> {
    let digest_of = |tap| Card::MifareUid(uid(tap)).digest(&CardKey::new(CARD_KEY)).unwrap();
    let cards = 1..=ROUNDS * TAPS_OF_ROUND;
    let mut digests: Vec<_> = cards.map(|tap| ShortDigest::of(&digest_of(tap))).collect();
    digests.sort_unstable();
    let right = Right {
        service: ServiceId(1),
        category: CategoryId(10),
        valid_from: Day::BEGINNING,
        valid_to: Day::FOREVER,
        discount_percent: 100,
        companion: false,
        limited: false,
        offline: true,
    };
    let header = Header {
        organization: OrganizationId(ORGANIZATION),
        version: 7,
        built_at_ms: wall_ms(),
        valid_until_ms: wall_ms() + 48 * 3_600_000,
        utc_offset: UtcOffset(18_000),
        signer: key.signer().id,
        count: digests.len() as u64,
        lists: 0,
        dictionary_bytes: 0,
    };
    let dictionary = Dictionary::of([vec![right]]).unwrap();
    let mut writer = Writer::new(Vec::new(), header, &dictionary).unwrap();
    digests.into_iter().for_each(|digest| writer.push(Entry { digest, rights: 0 }).unwrap());
    writer.finish(key).unwrap().0
}

/// A device that had a link once, and its settings. Nobody listens at the server's address.
fn prepare(home: &Path) {
    let key = SigningKey::from_seed(&[5; 32]).unwrap();
    let facts = ServerFacts {
        terminal: TERMINAL,
        organization: ORGANIZATION,
        card_key: ByteArray::new(CARD_KEY),
        signers: vec![key.signer().clone()],
        rules: Rules { passback_seconds: 420, grace_hours: 0 },
        clock_offset_ms: 0,
    };
    memory::write_facts(&Directory::take(&home.join("state")).unwrap(), &facts).unwrap();
    fs::create_dir(home.join("registries")).unwrap();
    fs::write(home.join("registries/registry-00000000000000000007"), registry(&key)).unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["device".to_owned()]).unwrap();
    fs::write(home.join("device.pem"), pair.cert.pem()).unwrap();
    fs::write(home.join("device.key"), pair.signing_key.serialize_pem()).unwrap();
    let settings = format!(
        "server = \"127.0.0.1:9\"\nserver_name = \"nobody\"\nterminal = {TERMINAL}\n\
         authority = \"{0}/device.pem\"\ncertificate = \"{0}/device.pem\"\nkey = \"{0}/device.key\"\n\
         data_dir = \"{0}\"\nbind = \"127.0.0.1:0\"\n",
        home.display()
    );
    fs::write(home.join("settings.toml"), settings).unwrap();
}

fn start(home: &Path) -> Child {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_eligo-validator"));
    agent.arg("--config").arg(home.join("settings.toml"));
    agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Taps all cards of a round at once, and kills the agent after some of its answers.
fn tap_and_kill(agent: &mut Child, taps: &[u64], answers: u64, granted: &mut BTreeMap<u64, u64>) {
    let mut input = agent.stdin.take().unwrap();
    for tap in taps {
        let card = json!({"mifare_uid": uid(*tap)});
        let journey = json!({"service": 1, "price": tap, "from_stop": "A"});
        let line = json!({"id": tap, "do": "tap", "card": card, "journey": journey});
        writeln!(input, "{line}").unwrap();
    }
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut take = |line: String| {
        let answer: Value = serde_json::from_str(&line).unwrap();
        let Some(tap) = answer["id"].as_u64() else { return false };
        assert_eq!(answer["granted"], json!(true), "{answer}");
        granted.insert(tap, answer["seq"].as_u64().unwrap());
        true
    };
    let mut seen = 0;
    while seen < answers {
        seen += u64::from(take(lines.next().unwrap().unwrap()));
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    // What was written before the end was answered too, but for a line that was cut.
    for line in lines.map_while(Result::ok).filter(|line| line.ends_with('}')) {
        take(line);
    }
}

#[test]
fn what_a_killed_agent_granted_is_in_its_queue_once() {
    let home = tempfile::tempdir().unwrap();
    prepare(home.path());
    let mut random = Random::new(1);
    let mut granted = BTreeMap::new();
    for round in 0..ROUNDS {
        let first = round * TAPS_OF_ROUND + 1;
        let taps: Vec<u64> = (first..first + TAPS_OF_ROUND).collect();
        let answers = random.below(TAPS_OF_ROUND + 1);
        tap_and_kill(&mut start(home.path()), &taps, answers, &mut granted);
        let files = Directory::take(&home.path().join("state")).unwrap();
        let (mut queue, recovered) = TripQueue::open(Arc::new(files), wall_ms()).unwrap();
        assert_eq!((recovered.spoiled, recovered.numbers_lost), (0, false));
        let waiting = queue.pending(0, usize::MAX).entries;
        let numbers: BTreeMap<u64, u64> =
            waiting.iter().map(|entry| (entry.trip.tariff, entry.trip.seq)).collect();
        assert_eq!(numbers.len(), waiting.len(), "round {round}: a tap is there twice");
        for (tap, seq) in &granted {
            assert_eq!(numbers.get(tap), Some(seq), "round {round}: a granted tap is lost");
        }
    }
    assert!(granted.len() as u64 > ROUNDS * TAPS_OF_ROUND / 4, "{}", granted.len());
}

/// An agent whose output nobody reads any more went on granting.
#[test]
fn an_agent_ends_when_its_output_breaks() {
    let home = tempfile::tempdir().unwrap();
    prepare(home.path());
    let mut agent = start(home.path());
    drop(agent.stdout.take());
    let mut input = agent.stdin.take().unwrap();
    writeln!(input, r#"{{"id":1,"do":"status"}}"#).unwrap();
    // The input stays open: without the end of the agent this waits for ever.
    assert_eq!(agent.wait().unwrap().code(), Some(1));
    drop(input);
}
