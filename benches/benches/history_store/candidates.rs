//! The candidates, each behind the same few calls.

use std::error::Error;
use std::path::Path;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// One store under test. Keys are given ready; answers are checked by their count.
pub(crate) trait Candidate {
    /// Writes a batch as one.
    fn load(&mut self, batch: &[Entry]) -> Outcome<()>;
    /// Ends the load: what is written is on the device.
    fn settle(&mut self) -> Outcome<()>;
    /// The newest `PAGE` values of a holder and how many there are.
    fn holder_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page>;
    /// The newest `PAGE` confirmations of an organization, each through its holder, and how many.
    fn organization_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page>;
    /// The confirmation of a transaction, through its place.
    fn transaction(&self, transaction: u64) -> Outcome<Option<Vec<u8>>>;
}

/// What the three keyspaces get of one confirmation.
pub(crate) struct Entry {
    pub(crate) holder_key: [u8; 24],
    pub(crate) organization_key: [u8; 20],
    pub(crate) transaction_key: [u8; 8],
    pub(crate) place: [u8; 16],
    pub(crate) confirmation: Vec<u8>,
}

pub(crate) struct Page {
    pub(crate) items: Vec<Vec<u8>>,
    pub(crate) total: u64,
}

pub(crate) fn open(name: &str, home: &Path) -> Outcome<Box<dyn Candidate>> {
    match name {
        "fjall" => Ok(Box::new(Fjall::open(home)?)),
        "redb" => Ok(Box::new(Redb::open(home)?)),
        "sled" => Ok(Box::new(Sled::open(home)?)),
        _ => Err("unknown candidate".into()),
    }
}

struct Fjall {
    database: fjall::Database,
    holders: fjall::Keyspace,
    organizations: fjall::Keyspace,
    transactions: fjall::Keyspace,
}

impl Fjall {
    fn open(home: &Path) -> Outcome<Fjall> {
        // With one worker, a compaction keeps full buffers from being written out: at 10 M that was
        // 2.3 GiB of memory and 78 s to open again.
        let database = fjall::Database::builder(home)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(128 << 20)
            .worker_threads(2)
            .open()?;
        let keyspace = |name| {
            database.keyspace(name, || {
                fjall::KeyspaceCreateOptions::default().max_memtable_size(16 << 20)
            })
        };
        let holders = keyspace("holders")?;
        let organizations = keyspace("organizations")?;
        let transactions = keyspace("transactions")?;
        Ok(Fjall { database, holders, organizations, transactions })
    }
}

impl Candidate for Fjall {
    fn load(&mut self, batch: &[Entry]) -> Outcome<()> {
        let mut writes = self.database.batch();
        for entry in batch {
            writes.insert(&self.holders, entry.holder_key, entry.confirmation.as_slice());
            let holder = entry.holder_key.first_chunk::<8>().copied().unwrap_or_default();
            writes.insert(&self.organizations, entry.organization_key, holder);
            writes.insert(&self.transactions, entry.transaction_key, entry.place);
        }
        Ok(writes.commit()?)
    }

    fn settle(&mut self) -> Outcome<()> {
        Ok(self.database.persist(fjall::PersistMode::SyncAll)?)
    }

    fn holder_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page> {
        let mut page = Page { items: Vec::new(), total: 0 };
        for found in self.holders.range(from..until).rev() {
            if page.items.len() < PAGE {
                page.items.push(found.value()?.to_vec());
            } else {
                found.key()?;
            }
            page.total += 1;
        }
        Ok(page)
    }

    fn organization_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page> {
        let mut page = Page { items: Vec::new(), total: 0 };
        for found in self.organizations.range(from..until).rev() {
            page.total += 1;
            if page.items.len() >= PAGE {
                found.key()?;
                continue;
            }
            let (at, holder) = found.into_inner()?;
            let place: [u8; 24] = key(&[&holder, at.get(4..).unwrap_or_default()]);
            let confirmation = self.holders.get(place)?.ok_or("a confirmation is missing")?;
            page.items.push(confirmation.to_vec());
        }
        Ok(page)
    }

    fn transaction(&self, transaction: u64) -> Outcome<Option<Vec<u8>>> {
        let id = transaction.to_be_bytes();
        let Some(place) = self.transactions.get(id)? else { return Ok(None) };
        let found = self.holders.get(key::<24>(&[&place, &id]))?;
        Ok(found.map(|confirmation| confirmation.to_vec()))
    }
}

struct Redb {
    database: redb::Database,
    batches: u64,
}

type Table = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;
const HOLDERS_TABLE: Table = redb::TableDefinition::new("holders");
const ORGANIZATIONS_TABLE: Table = redb::TableDefinition::new("organizations");
const TRANSACTIONS_TABLE: Table = redb::TableDefinition::new("transactions");

impl Redb {
    fn open(home: &Path) -> Outcome<Redb> {
        let cache = usize::try_from(CACHE_BYTES)?;
        let database =
            redb::Database::builder().set_cache_size(cache).create(home.join("history.redb"))?;
        Ok(Redb { database, batches: 0 })
    }

    fn write(&mut self, batch: &[Entry], durability: redb::Durability) -> Outcome<()> {
        let mut writes = self.database.begin_write()?;
        writes.set_durability(durability)?;
        {
            let mut holders = writes.open_table(HOLDERS_TABLE)?;
            let mut organizations = writes.open_table(ORGANIZATIONS_TABLE)?;
            let mut transactions = writes.open_table(TRANSACTIONS_TABLE)?;
            for entry in batch {
                holders.insert(entry.holder_key.as_slice(), entry.confirmation.as_slice())?;
                let holder = entry.holder_key.get(..8).unwrap_or_default();
                organizations.insert(entry.organization_key.as_slice(), holder)?;
                transactions.insert(entry.transaction_key.as_slice(), entry.place.as_slice())?;
            }
        }
        Ok(writes.commit()?)
    }
}

impl Candidate for Redb {
    fn load(&mut self, batch: &[Entry]) -> Outcome<()> {
        // redb frees the pages that it copied only at a durable commit, so one in a hundred is.
        self.batches += 1;
        let durable = self.batches.is_multiple_of(100);
        let durability = if durable { redb::Durability::Immediate } else { redb::Durability::None };
        self.write(batch, durability)
    }

    fn settle(&mut self) -> Outcome<()> {
        self.write(&[], redb::Durability::Immediate)
    }

    fn holder_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page> {
        use redb::ReadableDatabase;
        let holders = self.database.begin_read()?.open_table(HOLDERS_TABLE)?;
        let mut page = Page { items: Vec::new(), total: 0 };
        for found in holders.range::<&[u8]>(from..until)?.rev() {
            let (_, confirmation) = found?;
            if page.items.len() < PAGE {
                page.items.push(confirmation.value().to_vec());
            }
            page.total += 1;
        }
        Ok(page)
    }

    fn organization_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page> {
        use redb::ReadableDatabase;
        let reads = self.database.begin_read()?;
        let organizations = reads.open_table(ORGANIZATIONS_TABLE)?;
        let holders = reads.open_table(HOLDERS_TABLE)?;
        let mut page = Page { items: Vec::new(), total: 0 };
        for found in organizations.range::<&[u8]>(from..until)?.rev() {
            let (at, holder) = found?;
            page.total += 1;
            if page.items.len() >= PAGE {
                continue;
            }
            let place: [u8; 24] = key(&[holder.value(), at.value().get(4..).unwrap_or_default()]);
            let confirmation = holders.get(place.as_slice())?.ok_or("a confirmation is missing")?;
            page.items.push(confirmation.value().to_vec());
        }
        Ok(page)
    }

    fn transaction(&self, transaction: u64) -> Outcome<Option<Vec<u8>>> {
        use redb::ReadableDatabase;
        let reads = self.database.begin_read()?;
        let id = transaction.to_be_bytes();
        let transactions = reads.open_table(TRANSACTIONS_TABLE)?;
        let Some(place) = transactions.get(id.as_slice())? else { return Ok(None) };
        let holders = reads.open_table(HOLDERS_TABLE)?;
        let found = holders.get(key::<24>(&[place.value(), &id]).as_slice())?;
        Ok(found.map(|confirmation| confirmation.value().to_vec()))
    }
}

struct Sled {
    database: sled::Db,
    holders: sled::Tree,
    organizations: sled::Tree,
    transactions: sled::Tree,
}

impl Sled {
    fn open(home: &Path) -> Outcome<Sled> {
        let database = sled::Config::new()
            .path(home)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(500))
            .open()?;
        let holders = database.open_tree("holders")?;
        let organizations = database.open_tree("organizations")?;
        let transactions = database.open_tree("transactions")?;
        Ok(Sled { database, holders, organizations, transactions })
    }
}

impl Candidate for Sled {
    fn load(&mut self, batch: &[Entry]) -> Outcome<()> {
        // A batch of sled is of one tree: between the trees there is no common instant.
        let mut holders = sled::Batch::default();
        let mut organizations = sled::Batch::default();
        let mut transactions = sled::Batch::default();
        for entry in batch {
            holders.insert(&entry.holder_key, entry.confirmation.as_slice());
            let holder = entry.holder_key.get(..8).unwrap_or_default();
            organizations.insert(&entry.organization_key, holder);
            transactions.insert(&entry.transaction_key, &entry.place);
        }
        self.holders.apply_batch(holders)?;
        self.organizations.apply_batch(organizations)?;
        Ok(self.transactions.apply_batch(transactions)?)
    }

    fn settle(&mut self) -> Outcome<()> {
        self.database.flush()?;
        Ok(())
    }

    fn holder_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page> {
        let mut page = Page { items: Vec::new(), total: 0 };
        for found in self.holders.range(from..until).rev() {
            let (_, confirmation) = found?;
            if page.items.len() < PAGE {
                page.items.push(confirmation.to_vec());
            }
            page.total += 1;
        }
        Ok(page)
    }

    fn organization_page(&self, from: &[u8], until: &[u8]) -> Outcome<Page> {
        let mut page = Page { items: Vec::new(), total: 0 };
        for found in self.organizations.range(from..until).rev() {
            let (at, holder) = found?;
            page.total += 1;
            if page.items.len() >= PAGE {
                continue;
            }
            let place: [u8; 24] = key(&[&holder, at.get(4..).unwrap_or_default()]);
            let confirmation = self.holders.get(place)?.ok_or("a confirmation is missing")?;
            page.items.push(confirmation.to_vec());
        }
        Ok(page)
    }

    fn transaction(&self, transaction: u64) -> Outcome<Option<Vec<u8>>> {
        let id = transaction.to_be_bytes();
        let Some(place) = self.transactions.get(id)? else { return Ok(None) };
        let found = self.holders.get(key::<24>(&[&place, &id]))?;
        Ok(found.map(|confirmation| confirmation.to_vec()))
    }
}

/// Joins the parts of a key; what does not fit is cut, what is missing is zero.
pub(crate) fn key<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    for (place, byte) in key.iter_mut().zip(parts.iter().copied().flatten()) {
        *place = *byte;
    }
    key
}

/// Items of a page.
pub(crate) const PAGE: usize = 50;
const CACHE_BYTES: u64 = 64 << 20;
