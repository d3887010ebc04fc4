//! What turns one registry into a later one.
//!
//! Applied to the registry that it was made from, a delta gives the later file byte by byte, with
//! its hash and signature, so that a device need not trust what it computed.
//!
//! # Bytes
//! Numbers are little-endian.
//!
//! | part | bytes | what |
//! |---|---|---|
//! | header | 8 | `eligoDLT` |
//! | | 2 | format, 1 |
//! | | 6 | 0 |
//! | | 8 | version that it is applied to |
//! | | 32 | SHA-256 of that registry |
//! | | 32 | SHA-256 of the registry that it makes |
//! | | 64 | signature of that registry |
//! | | 64 | header of that registry |
//! | | 4 | lists in the dictionary of the old registry |
//! | | 8 | changes |
//! | | 8 | additions |
//! | dictionary | | that of the new registry |
//! | carry | 4 each | for each old list, which new one entries have instead: its number plus 1, or 0 where they are gone; what most of its entries do |
//! | changes | | entries that do otherwise: the place of each in the old registry, and the same beside it |
//! | additions | | entries of identifiers that the old registry did not have: digest, number of the list plus 1 |
//! | end | 32 | SHA-256 of everything before |
//! | | 64 | Ed25519 signature of `eligo holder registry delta 1`, a zero byte and that SHA-256 |
//!
//! Changes and additions stand in blocks of 128, each with its first number (8) before it and packed
//! as in a registry.
//!
//! # Why
//! Most days change few cards; but on some dates, or when a benefit changes its size, a great part of
//! all cards changes in the same way. Then one number of the carry says so for all of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use aws_lc_rs::digest::{SHA256, digest};

use crate::link::message::Signer;
use crate::registry::block::{self, BLOCK_ENTRIES, Block};
use crate::registry::header::{Fields, HEADER_BYTES, Header};
use crate::registry::reader::RegistryFile;
use crate::registry::rights::Dictionary;
use crate::registry::writer::Writer;
use crate::registry::{Entry, RegistryError, SEAL_BYTES, Sha256, ShortDigest};
use crate::signing::{self, Purpose, SIGNATURE_BYTES, SigningKey};

/// Bytes of the largest delta; past it a device takes the whole registry.
pub const DELTA_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"eligoDLT";
const FORMAT: u16 = 1;
/// Where the header of the later registry stands.
const HEADER_AT: usize = 152;
/// Stands for "gone" where else the number of a list plus 1 stands.
const GONE: u32 = 0;

const WRONG: RegistryError = RegistryError::Damaged("the delta");

/// A delta that was verified and understood.
#[derive(Debug)]
pub struct Delta {
    base_version: u64,
    base_hash: Sha256,
    hash: Sha256,
    signature: [u8; SIGNATURE_BYTES],
    header: Header,
    dictionary: Dictionary,
    carry: Vec<u32>,
    changes: Vec<(u64, u32)>,
    additions: Vec<(u64, u32)>,
}

impl Delta {
    /// The delta from `old` to `new`.
    pub fn between(old: &RegistryFile, new: &RegistryFile) -> Result<Delta, RegistryError> {
        let carry = carry(old, new)?;
        let mut delta = Delta {
            base_version: old.header().version,
            base_hash: old.seal()?.0,
            hash: new.seal()?.0,
            signature: new.seal()?.1,
            header: *new.header(),
            dictionary: new.dictionary().clone(),
            carry,
            changes: Vec::new(),
            additions: Vec::new(),
        };
        merge(old, new, |place, before, after| {
            let after_value = after.map_or(GONE, |entry| entry.rights.saturating_add(1));
            match (before, after) {
                (Some(before), _) if delta.carried(before.rights) != Some(after_value) => {
                    delta.changes.push((place, after_value));
                }
                (None, Some(after)) => delta.additions.push((after.digest.number(), after_value)),
                _ => {}
            }
        })?;
        Ok(delta)
    }

    /// Reads a delta that one of `signers` signed.
    pub fn read(mut file: impl Read, signers: &[Signer]) -> Result<Delta, RegistryError> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(DELTA_BYTES_MAX).unwrap_or(u64::MAX);
        file.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() > DELTA_BYTES_MAX {
            return Err(RegistryError::TooLarge);
        }
        let content = bytes.len().checked_sub(SEAL_BYTES).ok_or(WRONG)?;
        let (content, seal) = bytes.split_at_checked(content).ok_or(WRONG)?;
        let (hash, signature) = seal.split_first_chunk::<32>().ok_or(WRONG)?;
        if digest(&SHA256, content).as_ref() != hash {
            return Err(WRONG);
        }
        let header = Header::read(content.get(HEADER_AT..).unwrap_or_default())?;
        signing::verify(signers, header.signer, (Purpose::Delta, hash), signature)?;
        Delta::parse(content)
    }

    /// The version that it is applied to.
    pub fn base_version(&self) -> u64 {
        self.base_version
    }

    /// What stands at the beginning of the registry that it makes.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Writes the later registry, which is then still to be verified like any other.
    pub fn apply<W: Write>(&self, old: &RegistryFile, out: W) -> Result<W, RegistryError> {
        let same = old.header().version == self.base_version && old.seal()?.0 == self.base_hash;
        if !same {
            return Err(RegistryError::Damaged("the delta is for another registry"));
        }
        let mut writer = Writer::new(out, self.header, &self.dictionary)?;
        let mut changes = self.changes.iter().copied().peekable();
        let mut additions = self.additions.iter().copied().peekable();
        let mut push = |number: u64, value: u32| match value.checked_sub(1) {
            Some(rights) => {
                let digest = ShortDigest::from_number(number).ok_or(WRONG)?;
                writer.push(Entry { digest, rights })
            }
            None => Ok(()),
        };
        for (place, entry) in (0..).zip(old.entries()) {
            let entry = entry?;
            let number = entry.digest.number();
            while let Some((added, value)) = additions.next_if(|(added, _)| *added < number) {
                push(added, value)?;
            }
            let change = changes.next_if(|(changed, _)| *changed == place);
            let value = change.map(|(_, value)| value).or_else(|| self.carried(entry.rights));
            push(number, value.ok_or(WRONG)?)?;
        }
        for (added, value) in additions {
            push(added, value)?;
        }
        writer.finish_as(&self.hash, &self.signature)
    }

    /// The bytes, signed by `key`, which must be the one that signed the later registry.
    pub fn to_bytes(&self, key: &SigningKey) -> Result<Vec<u8>, RegistryError> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.base_version.to_le_bytes());
        out.extend_from_slice(&self.base_hash);
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.signature);
        out.extend_from_slice(&self.header.to_bytes());
        out.extend_from_slice(&u32::try_from(self.carry.len()).unwrap_or(u32::MAX).to_le_bytes());
        for list in [&self.changes, &self.additions] {
            out.extend_from_slice(&u64::try_from(list.len()).unwrap_or(u64::MAX).to_le_bytes());
        }
        out.extend_from_slice(&self.dictionary.to_bytes());
        self.carry.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        for list in [&self.changes, &self.additions] {
            for block in list.chunks(BLOCK_ENTRIES) {
                let (first, _) = block.first().copied().unwrap_or_default();
                out.extend_from_slice(&first.to_le_bytes());
                block::encode(block, self.value_bits(), &mut out).map_err(|_| WRONG)?;
            }
        }
        let hash = digest(&SHA256, &out);
        let signature = key.sign(Purpose::Delta, hash.as_ref()).ok_or(WRONG)?;
        out.extend_from_slice(hash.as_ref());
        out.extend_from_slice(&signature);
        if out.len() > DELTA_BYTES_MAX { Err(RegistryError::TooLarge) } else { Ok(out) }
    }

    fn parse(content: &[u8]) -> Result<Delta, RegistryError> {
        let mut fields = Fields { rest: content };
        if fields.take::<8>()? != MAGIC {
            return Err(RegistryError::Foreign);
        }
        let format = u16::from_le_bytes(fields.take()?);
        if format != FORMAT {
            return Err(RegistryError::Format(format));
        }
        if fields.take::<6>()? != [0; 6] {
            return Err(WRONG);
        }
        let base_version = u64::from_le_bytes(fields.take()?);
        let (base_hash, hash, signature) = (fields.take()?, fields.take()?, fields.take()?);
        let header = Header::read(&fields.take::<HEADER_BYTES>()?)?;
        let carry_count = u32::from_le_bytes(fields.take()?);
        let change_count = u64::from_le_bytes(fields.take()?);
        let addition_count = u64::from_le_bytes(fields.take()?);
        let dictionary_bytes = usize::try_from(header.dictionary_bytes).map_err(|_| WRONG)?;
        let dictionary = Dictionary::read(fields.take_slice(dictionary_bytes)?, header.lists)?;
        let carry = usize::try_from(carry_count).ok().and_then(|count| count.checked_mul(4));
        let carry = fields.take_slice(carry.ok_or(WRONG)?)?.chunks_exact(4);
        let carry = carry.filter_map(|value| value.first_chunk().copied().map(u32::from_le_bytes));
        let mut delta = Delta {
            base_version,
            base_hash,
            hash,
            signature,
            header,
            dictionary,
            carry: carry.collect(),
            changes: Vec::new(),
            additions: Vec::new(),
        };
        delta.changes = read_blocks(&mut fields, change_count, delta.value_bits())?;
        delta.additions = read_blocks(&mut fields, addition_count, delta.value_bits())?;
        let lists = delta.dictionary.count();
        let values = delta.changes.iter().chain(&delta.additions).map(|(_, value)| value);
        let known = values.chain(&delta.carry).all(|value| *value <= lists);
        if known && fields.rest.is_empty() { Ok(delta) } else { Err(WRONG) }
    }

    fn carried(&self, rights: u32) -> Option<u32> {
        self.carry.get(usize::try_from(rights).ok()?).copied()
    }

    fn value_bits(&self) -> u32 {
        block::bits_for(self.dictionary.count().into())
    }
}

/// For every old list what most of its entries have instead; among equals the smallest.
fn carry(old: &RegistryFile, new: &RegistryFile) -> Result<Vec<u32>, RegistryError> {
    let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    merge(old, new, |_, before, after| {
        if let Some(before) = before {
            let value = after.map_or(GONE, |entry| entry.rights.saturating_add(1));
            *counts.entry((before.rights, value)).or_default() += 1;
        }
    })?;
    let lists = 0..old.dictionary().count();
    Ok(lists
        .map(|list| {
            let values = counts.range((list, 0)..=(list, u32::MAX));
            let most =
                values.max_by_key(|((_, value), count)| (**count, std::cmp::Reverse(*value)));
            most.map_or(GONE, |((_, value), _)| *value)
        })
        .collect())
}

/// Walks both registries in the order of the digests; tells the place in the old one where there is
/// an old entry.
fn merge(
    old: &RegistryFile,
    new: &RegistryFile,
    mut take: impl FnMut(u64, Option<Entry>, Option<Entry>),
) -> Result<(), RegistryError> {
    let (mut olds, mut news) = ((0..).zip(old.entries()), new.entries());
    let mut next_old = move || match olds.next() {
        Some((place, entry)) => entry.map(|entry| Some((place, entry))),
        None => Ok(None),
    };
    let mut next_new = move || news.next().transpose();
    let (mut before, mut after) = (next_old()?, next_new()?);
    loop {
        match (before, after) {
            (None, None) => return Ok(()),
            (Some((place, entry)), Some(other)) if entry.digest == other.digest => {
                take(place, Some(entry), Some(other));
                (before, after) = (next_old()?, next_new()?);
            }
            (Some((place, entry)), other)
                if other.is_none_or(|other| entry.digest < other.digest) =>
            {
                take(place, Some(entry), None);
                before = next_old()?;
            }
            (_, Some(other)) => {
                take(0, None, Some(other));
                after = next_new()?;
            }
            (Some(_), None) => return Err(WRONG),
        }
    }
}

fn read_blocks(
    fields: &mut Fields<'_>,
    count: u64,
    value_bits: u32,
) -> Result<Vec<(u64, u32)>, RegistryError> {
    let mut entries: Vec<(u64, u32)> = Vec::new();
    let mut padded = [0; block::BLOCK_BYTES_MAX + Block::PADDING];
    let mut left = count;
    while left > 0 {
        let first = u64::from_le_bytes(fields.take()?);
        if entries.last().is_some_and(|(last, _)| *last >= first) {
            return Err(WRONG);
        }
        let rest = fields.rest.get(..block::BLOCK_BYTES_MAX).unwrap_or(fields.rest);
        padded.fill(0);
        padded.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
        let in_block = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_ENTRIES);
        let block = Block::read(&padded, first, in_block, value_bits).ok_or(WRONG)?;
        fields.take_slice(block.bytes())?;
        if !block.push_to(&mut entries) {
            return Err(WRONG);
        }
        left -= u64::try_from(in_block).unwrap_or(left);
    }
    Ok(entries)
}
