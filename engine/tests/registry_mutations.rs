//! Damaged lines and damaged stored forms: an answer every time, and only a faithful one.

use engine::identifier::DigestKey;
use engine::keys::{Keys, SecretKey};
use engine::registry::file::parse_line;
use engine::registry::stored::{read_change, write_change};

const LINES: &[&str] = &[
    r#"{"kind":"region","code":"14","name":"Республика Саха (Якутия)","utc_offset":"+09:00","prg_code":"YKT"}"#,
    r#"{"kind":"area","id":1,"name":"Якутск","region":"14"}"#,
    r#"{"kind":"category","id":20,"name":"Ветеран труда","priority":20,"with_companion":true,"valid_from":"2020-01-01","valid_to":null}"#,
    r#"{"kind":"service","id":1,"name":"Посещение бассейна","service_kind":"visit","categories":[{"category":10},{"category":20,"priority":5,"discount_percent":50,"limit":{"count":2,"period":"month"}}]}"#,
    r#"{"kind":"organization","id":1,"client_id":"111","client_secret":"aaaa7bbbb7cccc","short_name":"ООО «Якутия»","connection":"T2V2","state":"active","area":1,"ip_allow":["127.0.0.1/32","::1"],"categories":[10,20,30],"history":true}"#,
    r#"{"kind":"offer","organization":1,"service":1,"valid_to":"2025-05-31","base_price":300.50,"linked":true,"working_hours":"9–18 \"ежедневно\""}"#,
    r#"{"kind":"terminal","id":2,"organization":1,"state":"blocked"}"#,
    r#"{"kind":"holder","id":1,"snils":"594-923-116 30","region":"14","status":"active","cards":[{"type":"ecs","client_code":"AAABBBCCC"},{"type":"resident","status":"blocked","blocked_by":"bank","issued":"2024-02-29","num_sid":"9645010000000019","card_hash":"ab","hashes":[{"key_id":"K1","hash":"0f"}],"mifare_uid":"04:BC:D4:C2:E0:5C:80","par":"A1"},{"type":"social","number":"9643901401015000019","series":"14010125","expires":"2027-12-31"}],"categories":[{"category":10,"valid_to":"2025-05-31"},{"category":30}]}"#,
    r#"{"kind":"holder","id":7,"deleted":true}"#,
];
/// Bytes that mean something to JSON, to the format or to UTF-8, and some that do not.
const BYTES: &[u8] = b"\"\\{}[]:,.-+0129eE nulltrue\n\0\x7f\x80\xc3\xff";
const ROUNDS: u64 = 20_000;

fn keys() -> Keys {
    Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
}

/// SplitMix64: the same numbers for the same seed for ever.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end.max(1)).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        match self.below(4) {
            0 => self.next().to_le_bytes()[0],
            _ => BYTES[self.below(BYTES.len())],
        }
    }

    /// One to three bytes changed, removed, added, or swapped for a piece of the same line.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => drop(bytes.drain(at..bytes.len().min(at + 1 + self.below(12)))),
                1 => bytes.insert(at, self.byte()),
                2 => {
                    let from = self.below(bytes.len());
                    let piece = bytes[from..bytes.len().min(from + self.below(24))].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ if bytes.is_empty() => bytes.push(self.byte()),
                _ => bytes[at] = self.byte(),
            }
        }
    }
}

#[test]
fn damaged_lines_are_faults_or_changes_that_can_be_stored() {
    let keys = keys();
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..ROUNDS {
        let mut numbers = Numbers(seed);
        let mut line = LINES[numbers.below(LINES.len())].as_bytes().to_vec();
        numbers.damage(&mut line);
        let Ok(change) = parse_line(&line, &keys) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let mut stored = Vec::new();
        write_change(&change, &mut stored);
        assert_eq!(read_change(&stored).unwrap(), change, "seed {seed}");
    }
    assert!(accepted > 300 && refused > 10_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn faults_do_not_quote_what_they_refuse() {
    let keys = keys();
    let secrets = ["59492311630", "594-923-116", "AAABBBCCC", "9643901401", "aaaa7", "Якут"];
    for seed in 0..ROUNDS {
        let mut numbers = Numbers(seed);
        let mut line = LINES[numbers.below(LINES.len())].as_bytes().to_vec();
        numbers.damage(&mut line);
        if let Err(fault) = parse_line(&line, &keys) {
            let leaked = secrets.iter().any(|secret| fault.reason.contains(secret));
            assert!(!leaked, "seed {seed}: {fault}");
        }
    }
}

#[test]
fn damaged_stored_forms_are_errors_or_changes_that_can_be_stored() {
    let keys = keys();
    for seed in 0..ROUNDS {
        let mut numbers = Numbers(seed);
        let line = LINES[numbers.below(LINES.len())];
        let mut stored = Vec::new();
        write_change(&parse_line(line.as_bytes(), &keys).unwrap(), &mut stored);
        numbers.damage(&mut stored);
        let Ok(change) = read_change(&stored) else { continue };
        let mut again = Vec::new();
        write_change(&change, &mut again);
        assert_eq!(read_change(&again).unwrap(), change, "seed {seed}");
    }
}
