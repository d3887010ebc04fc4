//! Writes a registry from ascending entries, in one pass.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};

use crate::registry::block::{self, BLOCK_ENTRIES};
use crate::registry::header::Header;
use crate::registry::rights::Dictionary;
use crate::registry::{Entry, RegistryError, Sha256};
use crate::signing::{Purpose, SIGNATURE_BYTES, SigningKey};

/// A registry under construction.
pub struct Writer<W> {
    out: Hashed<W>,
    expected: u64,
    lists: u32,
    value_bits: u32,
    block: Vec<(u64, u32)>,
    encoded: Vec<u8>,
    index: Vec<u8>,
    body_bytes: u32,
    written: u64,
    last: Option<u64>,
    summary: crc32fast::Hasher,
}

impl<W: Write> Writer<W> {
    /// Writes header and dictionary. `header` says how many entries will come; what it says of the
    /// dictionary is put right here.
    pub fn new(
        out: W,
        mut header: Header,
        dictionary: &Dictionary,
    ) -> Result<Writer<W>, RegistryError> {
        let lists = dictionary.to_bytes();
        header.lists = dictionary.count();
        header.dictionary_bytes =
            u32::try_from(lists.len()).map_err(|_| RegistryError::TooLarge)?;
        let mut writer = Writer {
            out: Hashed { out, hash: Context::new(&SHA256) },
            expected: header.count,
            lists: header.lists,
            value_bits: value_bits(header.lists),
            block: Vec::with_capacity(BLOCK_ENTRIES),
            encoded: Vec::new(),
            index: Vec::new(),
            body_bytes: 0,
            written: 0,
            last: None,
            summary: crc32fast::Hasher::new(),
        };
        for part in [header.to_bytes().as_slice(), &lists] {
            writer.summary.update(part);
            writer.out.write(part)?;
        }
        Ok(writer)
    }

    /// The next entry; digests ascend.
    pub fn push(&mut self, entry: Entry) -> Result<(), RegistryError> {
        let number = entry.digest.number();
        if self.last.is_some_and(|last| last >= number) || entry.rights >= self.lists {
            return Err(RegistryError::Damaged("entries that do not ascend or have no rights"));
        }
        self.last = Some(number);
        self.block.push((number, entry.rights));
        if self.block.len() == BLOCK_ENTRIES { self.flush() } else { Ok(()) }
    }

    /// Ends the file with a signature by `key`.
    pub fn finish(self, key: &SigningKey) -> Result<(W, Sha256), RegistryError> {
        let (mut out, hash) = self.finish_unsigned()?;
        let signature = key.sign(Purpose::Registry, &hash);
        let signature = signature.ok_or_else(|| io::Error::other("no signature can be made"))?;
        out.write_all(&signature)?;
        Ok((out, hash))
    }

    /// Ends the file with a signature made before, if what was written has the hash `expected`.
    pub fn finish_as(
        self,
        expected: &Sha256,
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<W, RegistryError> {
        let (mut out, hash) = self.finish_unsigned()?;
        if hash != *expected {
            return Err(RegistryError::Damaged("its hash is not the expected one"));
        }
        out.write_all(signature)?;
        Ok(out)
    }

    fn finish_unsigned(mut self) -> Result<(W, Sha256), RegistryError> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        if self.written != self.expected {
            return Err(RegistryError::Damaged("the number of its entries"));
        }
        self.summary.update(&self.index);
        self.out.write(&self.index)?;
        self.out.write(&self.summary.finalize().to_le_bytes())?;
        let Hashed { mut out, hash } = self.out;
        let hash = hash.finish();
        let hash = hash.as_ref().first_chunk().copied().unwrap_or_default();
        out.write_all(&hash)?;
        Ok((out, hash))
    }

    fn flush(&mut self) -> Result<(), RegistryError> {
        let (first, _) = self.block.first().copied().unwrap_or_default();
        self.encoded.clear();
        block::encode(&self.block, self.value_bits, &mut self.encoded)
            .map_err(|block::NotAscending| RegistryError::Damaged("entries do not ascend"))?;
        self.index.extend_from_slice(&first.to_le_bytes());
        self.index.extend_from_slice(&self.body_bytes.to_le_bytes());
        self.index.extend_from_slice(&crc32fast::hash(&self.encoded).to_le_bytes());
        self.out.write(&self.encoded)?;
        let bytes = u32::try_from(self.encoded.len()).ok();
        let bytes = bytes.and_then(|bytes| self.body_bytes.checked_add(bytes));
        self.body_bytes = bytes.ok_or(RegistryError::TooLarge)?;
        self.written += u64::try_from(self.block.len()).unwrap_or(u64::MAX);
        self.block.clear();
        Ok(())
    }
}

/// Bits of the number of a list, where there are this many.
pub fn value_bits(lists: u32) -> u32 {
    block::bits_for(u64::from(lists.saturating_sub(1)))
}

struct Hashed<W> {
    out: W,
    hash: Context,
}

impl<W: Write> Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}
