//! What the server acknowledged, on disk: memory stays the same however long a run is.
//!
//! The file has no name and is gone with the process. A fact is [`FACT_BYTES`] bytes; it holds places
//! and numbers, no identifier. A disk that fails does not end the run: it is told when facts are read.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// Bytes of a fact.
pub const FACT_BYTES: usize = 24;
const BUFFER_BYTES: usize = FACT_BYTES << 11;
/// Stands for "no amount".
const NO_AMOUNT: u32 = u32::MAX;

/// What must be found in the history of a transaction.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fate {
    /// It was cancelled: nothing.
    Never,
    /// It was not answered whether it is recorded: perhaps something.
    May,
    /// It was acknowledged: exactly one item.
    Must,
}

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fact {
    /// Which, or 0 where the answer that names it never came.
    pub transaction: u64,
    /// Whose, by place in the sample.
    pub holder: u32,
    /// At which organization, by place.
    pub organization: u16,
    /// Of what, by place.
    pub service: u16,
    /// What was paid.
    pub discounted_kopecks: Option<u32>,
    /// What must be found.
    pub fate: Fate,
}

impl Fact {
    fn to_bytes(self) -> [u8; FACT_BYTES] {
        let fate = match self.fate {
            Fate::Never => 0,
            Fate::May => 1,
            Fate::Must => 2,
        };
        let amount = self.discounted_kopecks.unwrap_or(NO_AMOUNT);
        let numbers = self.transaction.to_le_bytes().into_iter().chain(self.holder.to_le_bytes());
        let numbers = numbers.chain(amount.to_le_bytes()).chain(self.organization.to_le_bytes());
        let numbers = numbers.chain(self.service.to_le_bytes()).chain([fate]);
        let mut bytes = [0; FACT_BYTES];
        bytes.iter_mut().zip(numbers).for_each(|(byte, given)| *byte = given);
        bytes
    }

    fn from_bytes(bytes: &[u8; FACT_BYTES]) -> Fact {
        let number = |from: usize, length: usize| {
            let bytes = bytes.iter().skip(from).take(length).rev();
            bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let short = |from| u16::try_from(number(from, 2)).unwrap_or_default();
        let amount = u32::try_from(number(12, 4)).unwrap_or(NO_AMOUNT);
        Fact {
            transaction: number(0, 8),
            holder: u32::try_from(number(8, 4)).unwrap_or_default(),
            discounted_kopecks: (amount != NO_AMOUNT).then_some(amount),
            organization: short(16),
            service: short(18),
            fate: match number(20, 1) {
                0 => Fate::Never,
                1 => Fate::May,
                _ => Fate::Must,
            },
        }
    }
}

/// Facts, in the order in which they became known.
pub struct Acknowledged {
    file: BufWriter<File>,
    /// The first failure; what came after it is not on disk.
    failure: Option<io::Error>,
}

impl Acknowledged {
    /// An empty file in the system's directory of temporary files.
    pub fn create() -> io::Result<Acknowledged> {
        Ok(Acknowledged::over(tempfile::tempfile()?))
    }

    fn over(file: File) -> Acknowledged {
        Acknowledged { file: BufWriter::with_capacity(BUFFER_BYTES, file), failure: None }
    }

    /// Notes a fact. A failure is told by [`Acknowledged::for_each`].
    pub fn note(&mut self, fact: &Fact) {
        if self.failure.is_none() {
            self.failure = self.file.write_all(&fact.to_bytes()).err();
        }
    }

    /// Calls `take` for every fact, the oldest first.
    pub fn for_each(&mut self, mut take: impl FnMut(Fact)) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::new(failure.kind(), failure.to_string()));
        }
        self.file.flush()?;
        let file = self.file.get_mut();
        file.rewind()?;
        let length = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, &*file);
        let mut bytes = [0; FACT_BYTES];
        let count = length / u64::try_from(FACT_BYTES).unwrap_or(u64::MAX);
        for _ in 0..count {
            reader.read_exact(&mut bytes)?;
            take(Fact::from_bytes(&bytes));
        }
        self.file.get_mut().seek(io::SeekFrom::End(0))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_at_the_end_and_every_time() {
        let file = File::options().read(true).write(true).open("/dev/full").unwrap();
        let mut acknowledged = Acknowledged::over(file);
        let fact = Fact {
            transaction: 1,
            holder: 0,
            organization: 0,
            service: 0,
            discounted_kopecks: None,
            fate: Fate::Must,
        };
        (0..=BUFFER_BYTES / FACT_BYTES).for_each(|_| acknowledged.note(&fact));
        for _ in 0..2 {
            let error = acknowledged.for_each(|_| panic!("nothing can be read")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn facts_are_read_back_as_often_as_wanted() {
        let fact = |transaction: u64| Fact {
            transaction,
            holder: 70_000,
            organization: 300,
            service: 25,
            discounted_kopecks: (!transaction.is_multiple_of(2)).then_some(12_345),
            fate: [Fate::Never, Fate::May, Fate::Must][usize::try_from(transaction % 3).unwrap()],
        };
        let mut acknowledged = Acknowledged::create().unwrap();
        let mut expected = Vec::new();
        for round in 0..3 {
            for number in 0..5_000 {
                let fact = fact(u64::MAX - number * 3 - round);
                acknowledged.note(&fact);
                expected.push(fact);
            }
            let mut found = Vec::new();
            acknowledged.for_each(|fact| found.push(fact)).unwrap();
            assert_eq!(found, expected);
        }
    }
}
