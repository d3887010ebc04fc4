//! Reads a registry in place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use engine::calendar::Day;
use engine::identifier::Digest;
use engine::ids::ServiceId;

use crate::link::message::Signer;
use crate::registry::block::{BLOCK_BYTES_MAX, BLOCK_ENTRIES, Block};
use crate::registry::header::{Fields, HEADER_BYTES, Header};
use crate::registry::rights::{Dictionary, Entitlement, Right, entitlement};
use crate::registry::writer::value_bits;
use crate::registry::{Entry, RegistryError, SEAL_BYTES, Sha256, ShortDigest};
use crate::signing::{self, Purpose, SIGNATURE_BYTES};

/// Bytes of an entry of the index.
const INDEX_BYTES: usize = 16;
/// Bytes of the checksum before the seal.
const SUMMARY_BYTES: usize = 4;
/// Bytes that are hashed at a time.
const PIECE_BYTES: usize = 64 << 10;

/// An open registry: header, dictionary and index in memory, entries on the disk.
#[derive(Debug)]
pub struct RegistryFile {
    file: File,
    bytes: u64,
    header: Header,
    dictionary: Dictionary,
    firsts: Vec<u64>,
    places: Vec<Place>,
    body: u64,
    value_bits: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u32,
    bytes: u16,
    crc: u32,
}

impl RegistryFile {
    /// Opens a registry, after a look at everything but the entries. Before it is trusted it has to
    /// be verified.
    pub fn open(path: &Path) -> Result<RegistryFile, RegistryError> {
        RegistryFile::read(File::open(path)?)
    }

    /// The same for an open file.
    pub fn read(file: File) -> Result<RegistryFile, RegistryError> {
        let bytes = file.metadata()?.len();
        let mut start = [0; HEADER_BYTES];
        read_at(&file, &mut start, 0)?;
        let header = Header::read(&start)?;
        let blocks = header.count.div_ceil(length(BLOCK_ENTRIES));
        let body = length(HEADER_BYTES).saturating_add(u64::from(header.dictionary_bytes));
        let index_bytes = blocks.checked_mul(length(INDEX_BYTES));
        // Nothing is allocated that the file has no bytes for.
        let index = index_bytes
            .and_then(|index_bytes| {
                bytes.checked_sub(length(SEAL_BYTES + SUMMARY_BYTES))?.checked_sub(index_bytes)
            })
            .filter(|index| *index >= body)
            .ok_or(RegistryError::Damaged("its length"))?;
        let mut lists = vec![0; usize::try_from(header.dictionary_bytes).unwrap_or(usize::MAX)];
        read_at(&file, &mut lists, length(HEADER_BYTES))?;
        let end_bytes = bytes.saturating_sub(index).saturating_sub(length(SEAL_BYTES));
        let mut end = vec![0; usize::try_from(end_bytes).map_err(|_| RegistryError::TooLarge)?];
        read_at(&file, &mut end, index)?;
        let (index_read, summary) =
            end.split_last_chunk::<SUMMARY_BYTES>().ok_or(RegistryError::Damaged("its length"))?;
        let mut hasher = crc32fast::Hasher::new();
        [&start, lists.as_slice(), index_read].iter().for_each(|part| hasher.update(part));
        if hasher.finalize() != u32::from_le_bytes(*summary) {
            return Err(RegistryError::Damaged("its checksum"));
        }
        let dictionary = Dictionary::read(&lists, header.lists)?;
        let (firsts, places) = read_index(index_read, index - body)?;
        let value_bits = value_bits(header.lists);
        Ok(RegistryFile { file, bytes, header, dictionary, firsts, places, body, value_bits })
    }

    /// Whose registry this is, which one, and until when it counts.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The lists that entries share.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads all of the file: whether every byte is as one of `signers` signed it.
    pub fn verify(&self, signers: &[Signer]) -> Result<Sha256, RegistryError> {
        let (sealed, signature) = self.seal()?;
        let mut hash = Context::new(&SHA256);
        let mut piece = vec![0; PIECE_BYTES];
        let (mut at, end) = (0, self.bytes.saturating_sub(length(SEAL_BYTES)));
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let part = piece.get_mut(..left).unwrap_or_default();
            read_at(&self.file, part, at)?;
            hash.update(part);
            at += length(left);
        }
        if hash.finish().as_ref() != sealed {
            return Err(RegistryError::Damaged("its hash"));
        }
        signing::verify(signers, self.header.signer, (Purpose::Registry, &sealed), &signature)?;
        Ok(sealed)
    }

    /// Hash and signature as the file has them.
    pub fn seal(&self) -> Result<(Sha256, [u8; SIGNATURE_BYTES]), RegistryError> {
        let mut seal = [0; SEAL_BYTES];
        read_at(&self.file, &mut seal, self.bytes.saturating_sub(length(SEAL_BYTES)))?;
        let mut fields = Fields { rest: &seal };
        Ok((fields.take()?, fields.take()?))
    }

    /// What the card with this identifier may have on `day`, a date of the organization's region.
    /// Whether the registry is still valid is another question.
    pub fn right(
        &self,
        digest: &Digest,
        service: ServiceId,
        day: Day,
    ) -> Result<Entitlement, RegistryError> {
        let rights = self.find(ShortDigest::of(digest))?;
        Ok(rights.map_or(Entitlement::Unknown, |rights| entitlement(rights, service, day)))
    }

    /// All rights of the card with this identifier, in the order in which they win.
    pub fn find(&self, digest: ShortDigest) -> Result<Option<&[Right]>, RegistryError> {
        let number = digest.number();
        let behind = self.firsts.partition_point(|first| *first <= number);
        let Some(at) = behind.checked_sub(1) else { return Ok(None) };
        let mut buffer = [0; BLOCK_BYTES_MAX + Block::PADDING];
        let Some(rights) = self.block(at, &mut buffer)?.find(number) else { return Ok(None) };
        let list = self.dictionary.list(rights);
        list.map(Some).ok_or(RegistryError::Damaged("an entry"))
    }

    /// All entries, ascending.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, RegistryError>> {
        let (mut at, mut block) = (0, Vec::new().into_iter());
        std::iter::from_fn(move || {
            loop {
                if let Some((number, rights)) = block.next() {
                    let digest = ShortDigest::from_number(number);
                    let digest = digest.filter(|_| rights < self.header.lists);
                    return Some(match digest {
                        Some(digest) => Ok(Entry { digest, rights }),
                        None => Err(RegistryError::Damaged("an entry")),
                    });
                }
                if at >= self.places.len() {
                    return None;
                }
                match self.block_entries(at) {
                    Ok(entries) => block = entries.into_iter(),
                    Err(error) => {
                        at = usize::MAX;
                        return Some(Err(error));
                    }
                }
                at += 1;
            }
        })
    }

    fn block_entries(&self, at: usize) -> Result<Vec<(u64, u32)>, RegistryError> {
        let mut buffer = [0; BLOCK_BYTES_MAX + Block::PADDING];
        let mut entries = Vec::with_capacity(BLOCK_ENTRIES);
        let ascending = self.block(at, &mut buffer)?.push_to(&mut entries);
        if ascending { Ok(entries) } else { Err(RegistryError::Damaged("an entry")) }
    }

    #[inline]
    fn block<'a>(
        &self,
        at: usize,
        buffer: &'a mut [u8; BLOCK_BYTES_MAX + Block::PADDING],
    ) -> Result<Block<'a>, RegistryError> {
        const WRONG: RegistryError = RegistryError::Damaged("a block");
        let (first, place) = self.firsts.get(at).zip(self.places.get(at)).ok_or(WRONG)?;
        let bytes = usize::from(place.bytes);
        let read = buffer.get_mut(..bytes).ok_or(WRONG)?;
        read_at(&self.file, read, self.body.saturating_add(place.offset.into()))?;
        if crc32fast::hash(read) != place.crc {
            return Err(WRONG);
        }
        let before = length(at).saturating_mul(length(BLOCK_ENTRIES));
        let count = self.header.count.saturating_sub(before).min(length(BLOCK_ENTRIES));
        let count = usize::try_from(count).unwrap_or(BLOCK_ENTRIES);
        let block = Block::read(buffer, *first, count, self.value_bits).ok_or(WRONG)?;
        if block.bytes() == bytes { Ok(block) } else { Err(WRONG) }
    }
}

fn read_index(bytes: &[u8], body_bytes: u64) -> Result<(Vec<u64>, Vec<Place>), RegistryError> {
    const WRONG: RegistryError = RegistryError::Damaged("its index");
    let mut fields = Fields { rest: bytes };
    let count = bytes.len() / INDEX_BYTES;
    let (mut firsts, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let first = u64::from_le_bytes(fields.take()?);
        if firsts.last().is_some_and(|last| *last >= first) {
            return Err(WRONG);
        }
        firsts.push(first);
        let offset = u32::from_le_bytes(fields.take()?);
        places.push(Place { offset, bytes: 0, crc: u32::from_le_bytes(fields.take()?) });
    }
    if firsts.last().is_some_and(|last| ShortDigest::from_number(*last).is_none()) {
        return Err(WRONG);
    }
    let mut end = body_bytes;
    for place in places.iter_mut().rev() {
        let bytes = end.checked_sub(place.offset.into()).ok_or(WRONG)?;
        let fits = (1..=length(BLOCK_BYTES_MAX)).contains(&bytes);
        place.bytes = u16::try_from(bytes).ok().filter(|_| fits).ok_or(WRONG)?;
        end = place.offset.into();
    }
    if end == 0 { Ok((firsts, places)) } else { Err(WRONG) }
}

/// A file that ends too early is damaged; anything else is the system's fault.
fn read_at(file: &File, into: &mut [u8], at: u64) -> Result<(), RegistryError> {
    file.read_exact_at(into, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => RegistryError::Damaged("its end is missing"),
        _ => RegistryError::Io(error),
    })
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

const _: () = assert!(BLOCK_BYTES_MAX <= u16::MAX as usize);
