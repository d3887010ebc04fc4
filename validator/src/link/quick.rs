//! Checks and their answers as bytes without serde, byte for byte the same.
//!
//! # Why
//! They are nearly all of the traffic. Reading one by field names through serde and writing its
//! answer took a third of the time that the server spends on it. Whatever does not have exactly the
//! expected shape (more fields, another order of bytes, arrays) is left to serde.

use crate::link::message::{Check, CheckResult};
use serde_bytes::ByteArray;

/// Reads a check of the usual shape; nothing where serde has to look.
#[inline]
pub fn read_check(bytes: &[u8]) -> Option<Check> {
    let (first, mut rest) = bytes.split_first()?;
    let fields = match first {
        0x82 => 2,
        0x83 => 3,
        _ => return None,
    };
    let (mut service, mut id_hash, mut price) = (None, None, None);
    for _ in 0..fields {
        if let Some(value) = rest.strip_prefix(b"\xa7service") {
            let (number, after) = read_number(value)?;
            service = Some(u32::try_from(number).ok()?);
            rest = after;
        } else if let Some(value) = rest.strip_prefix(b"\xa7id_hash\xc4\x10") {
            let (digest, after) = value.split_first_chunk::<16>()?;
            id_hash = Some(ByteArray::new(*digest));
            rest = after;
        } else if let Some(value) = rest.strip_prefix(b"\xa5price") {
            let (number, after) = read_number(value)?;
            price = Some(number);
            rest = after;
        } else {
            return None;
        }
    }
    let known = count_of([service.is_some(), id_hash.is_some(), price.is_some()]);
    // Fields given twice and bytes behind the last one are serde's to judge.
    let is_usual = known == fields && rest.is_empty();
    is_usual.then_some(Check { service: service?, id_hash: id_hash?, price })
}

/// Appends the answer to a check.
#[inline]
pub fn write_check_result(result: &CheckResult, out: &mut Vec<u8>) {
    let CheckResult { code, tx, holder, category, discount, valid_to, companion } = *result;
    let ids = count_of([tx.is_some(), holder.is_some(), category.is_some()]);
    let terms = count_of([discount.is_some(), valid_to.is_some(), companion]);
    // At most seven fields with the code.
    out.push(0x81 + ids + terms);
    out.extend_from_slice(b"\xa4code");
    write_number(u64::from(code), out);
    if let Some(tx) = tx {
        out.extend_from_slice(b"\xa2tx");
        write_number(tx, out);
    }
    if let Some(holder) = holder {
        out.extend_from_slice(b"\xa6holder");
        write_number(holder, out);
    }
    if let Some(category) = category {
        out.extend_from_slice(b"\xa8category");
        write_number(u64::from(category), out);
    }
    if let Some(discount) = discount {
        out.extend_from_slice(b"\xa8discount");
        write_number(u64::from(discount), out);
    }
    if let Some(day) = valid_to {
        out.extend_from_slice(b"\xa8valid_to");
        write_day(day, out);
    }
    if companion {
        out.extend_from_slice(b"\xa9companion\xc3");
    }
}

#[inline]
fn count_of([one, other, third]: [bool; 3]) -> u8 {
    u8::from(one) + u8::from(other) + u8::from(third)
}

#[inline]
fn read_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    match first {
        0x00..=0x7f => Some((u64::from(*first), rest)),
        0xcc => rest.split_first().map(|(byte, rest)| (u64::from(*byte), rest)),
        0xcd => {
            let (bytes, rest) = rest.split_first_chunk()?;
            Some((u64::from(u16::from_be_bytes(*bytes)), rest))
        }
        0xce => {
            let (bytes, rest) = rest.split_first_chunk()?;
            Some((u64::from(u32::from_be_bytes(*bytes)), rest))
        }
        0xcf => {
            let (bytes, rest) = rest.split_first_chunk()?;
            Some((u64::from_be_bytes(*bytes), rest))
        }
        _ => None,
    }
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    if let Ok(number) = u8::try_from(number) {
        if number >= 0x80 {
            out.push(0xcc);
        }
        out.push(number);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(0xcd);
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(0xce);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn write_day(day: i32, out: &mut Vec<u8>) {
    match u64::try_from(day) {
        Ok(day) => write_number(day, out),
        // A right that ended before 1970 is never granted, but has a form.
        Err(_negative) => {
            out.push(0xd2);
            out.extend_from_slice(&day.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::wire;

    const NUMBERS: [u64; 9] =
        [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff_ffff_ffff];

    #[test]
    fn checks_are_read_as_serde_reads_them() {
        for number in NUMBERS {
            for price in [None, Some(number)] {
                let service = u32::try_from(number).unwrap_or(u32::MAX);
                let check = Check { service, id_hash: ByteArray::new([7; 16]), price };
                let mut bytes = Vec::new();
                wire::encode(&check, &mut bytes);
                assert_eq!(read_check(&bytes), Some(check.clone()));
                assert_eq!(wire::decode(&bytes), Ok(check));
                for end in 0..bytes.len() {
                    assert_eq!(read_check(&bytes[..end]), None);
                }
            }
        }
        assert_eq!(read_check(b"\x82\xa7service\x01\xa7service\x01"), None);
        assert_eq!(read_check(b"\x82\xa7service\xff\xa7id_hash"), None);
    }

    #[test]
    fn answers_are_written_as_serde_writes_them() {
        for number in NUMBERS {
            for mask in 0..64_u32 {
                let has = |bit: u32| (mask >> bit) & 1 == 1;
                let small = u8::try_from(number).unwrap_or(u8::MAX);
                let result = CheckResult {
                    code: small,
                    tx: has(0).then_some(number),
                    holder: has(1).then_some(number),
                    category: has(2).then_some(u32::try_from(number).unwrap_or(u32::MAX)),
                    discount: has(3).then_some(small),
                    valid_to: has(4).then_some(i32::try_from(number).unwrap_or(i32::MAX)),
                    companion: has(5),
                };
                let (mut ours, mut serdes) = (Vec::new(), Vec::new());
                write_check_result(&result, &mut ours);
                wire::encode(&result, &mut serdes);
                assert_eq!(ours, serdes, "{result:?}");
            }
        }
    }
}
