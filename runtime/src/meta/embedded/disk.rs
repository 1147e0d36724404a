//! The embedded store's file: a redb database with three tables.
//!
//! ```text
//!   rows     (revision u64, index u32) -> change     one per change that can still be seen
//!   leases   id u64 -> seconds to live u64
//!   facts    name -> u64: "format", "compacted", "last_lease"
//!
//!   change:  0      1                 9        17      25           29
//!            kind | create revision | version | lease | key bytes | key | value
//!            kind 1: put; 2: delete (all numbers 0, no value). Little-endian.
//! ```
//! Owns the layout. One call of [`Disk::write`] is one transaction: durable as a whole when it returns, or not there.

use super::StartError;
use ashlar_core::meta::{KeyValue, Record, Saved};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the layout. Older versions are read, newer ones refused.
const FORMAT: u64 = 1;
/// The store's contents are in memory anyway; the cache only serves commits.
const CACHE_BYTES: usize = 8 << 20;

const ROWS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("rows");
const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
/// Bytes before the key.
const ROW_HEADER: usize = 29;

/// The open file.
pub(super) struct Disk {
    database: Database,
}

impl Disk {
    /// Opens or creates the file: what it holds.
    pub(super) fn open(path: &Path) -> Result<(Disk, Saved), StartError> {
        let is_new = !path.exists();
        // The check reads everything once; a store is small, and damage is better told than met later.
        let opened = Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path);
        let disk = Disk { database: opened.map_err(|error| open_error(path, error))? };
        if is_new {
            sync_folder(path).map_err(|error| StartError::Unopened(path.into(), error.to_string()))?;
        }
        let unreadable = |error: redb::Error| StartError::Damaged(path.into(), error.to_string());
        match disk.format().map_err(unreadable)? {
            Format::Ours(FORMAT) => (),
            Format::Ours(found) => return Err(StartError::Newer { path: path.into(), found, known: FORMAT }),
            Format::Foreign => return Err(StartError::Foreign(path.into(), "a database with other tables".into())),
            Format::Empty => disk.initialize().map_err(unreadable)?,
        }
        let saved = disk.load().map_err(|reason| StartError::Damaged(path.into(), reason))?;
        Ok((disk, saved))
    }

    fn format(&self) -> Result<Format, redb::Error> {
        let transaction = self.database.begin_read()?;
        match transaction.open_table(FACTS) {
            Ok(facts) => Ok(facts.get("format")?.map_or(Format::Foreign, |format| Format::Ours(format.value()))),
            Err(TableError::TableDoesNotExist(_)) if transaction.list_tables()?.next().is_none() => Ok(Format::Empty),
            Err(TableError::Storage(error)) => Err(error.into()),
            Err(_) => Ok(Format::Foreign),
        }
    }

    fn initialize(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(FACTS)?.insert("format", FORMAT)?;
        transaction.open_table(ROWS)?;
        transaction.open_table(LEASES)?;
        transaction.commit()?;
        Ok(())
    }

    fn load(&self) -> Result<Saved, String> {
        let text = |error: redb::Error| error.to_string();
        let (rows, leases, facts) = self.tables().map_err(text)?;
        let fact = |name: &str| facts.get(name).map(|fact| fact.map_or(0, |fact| fact.value()));
        let mut saved = Saved {
            compacted: fact("compacted").map_err(|error| error.to_string())?,
            last_chosen_lease: fact("last_lease").map_err(|error| error.to_string())?,
            ..Saved::default()
        };
        for row in rows.iter().map_err(|error| error.to_string())? {
            let (key, value) = row.map_err(|error| error.to_string())?;
            saved.rows.push(decode_row(key.value(), value.value())?);
        }
        for lease in leases.iter().map_err(|error| error.to_string())? {
            let (id, ttl) = lease.map_err(|error| error.to_string())?;
            saved.leases.push((id.value(), ttl.value()));
        }
        Ok(saved)
    }

    #[allow(clippy::type_complexity, reason = "three tables of three types, in one place")]
    fn tables(
        &self,
    ) -> Result<
        (
            redb::ReadOnlyTable<(u64, u32), &'static [u8]>,
            redb::ReadOnlyTable<u64, u64>,
            redb::ReadOnlyTable<&'static str, u64>,
        ),
        redb::Error,
    > {
        let transaction = self.database.begin_read()?;
        Ok((transaction.open_table(ROWS)?, transaction.open_table(LEASES)?, transaction.open_table(FACTS)?))
    }

    /// Makes records durable, all or none.
    pub(super) fn write(&self, records: &[Record]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut rows = transaction.open_table(ROWS)?;
            let mut leases = transaction.open_table(LEASES)?;
            let mut facts = transaction.open_table(FACTS)?;
            let mut row = Vec::new();
            for record in records {
                match record {
                    Record::Put { index, kv } => {
                        encode_put(kv, &mut row);
                        rows.insert((kv.mod_revision, *index), row.as_slice())?;
                    }
                    Record::Delete { revision, index, key } => {
                        encode_row(KIND_DELETE, [0; 3], key, &[], &mut row);
                        rows.insert((*revision, *index), row.as_slice())?;
                    }
                    Record::Forget { revision, index } => drop(rows.remove((*revision, *index))?),
                    Record::Compacted(revision) => drop(facts.insert("compacted", revision)?),
                    Record::Lease { lease, ttl, last_chosen } => {
                        leases.insert(lease, ttl)?;
                        facts.insert("last_lease", last_chosen)?;
                    }
                    Record::LeaseEnded(lease) => drop(leases.remove(lease)?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

enum Format {
    Ours(u64),
    Foreign,
    Empty,
}

fn open_error(path: &Path, error: DatabaseError) -> StartError {
    let path = PathBuf::from(path);
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StartError::Locked(path),
        DatabaseError::UpgradeRequired(version) => {
            StartError::Foreign(path, format!("a database of the old file format {version}"))
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
            StartError::Foreign(path, error.to_string())
        }
        DatabaseError::Storage(StorageError::Corrupted(reason)) => StartError::Damaged(path, reason),
        other => StartError::Unopened(path, other.to_string()),
    }
}

/// A new file survives a power loss only when its folder has been told.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

fn encode_put(kv: &KeyValue, row: &mut Vec<u8>) {
    encode_row(KIND_PUT, [kv.create_revision, kv.version, kv.lease], &kv.key, &kv.value, row);
}

fn encode_row(kind: u8, numbers: [u64; 3], key: &str, value: &[u8], row: &mut Vec<u8>) {
    row.clear();
    row.push(kind);
    for number in numbers {
        row.extend_from_slice(&number.to_le_bytes());
    }
    let key_bytes = u32::try_from(key.len()).expect("bounded by the size of a transaction");
    row.extend_from_slice(&key_bytes.to_le_bytes());
    row.extend_from_slice(key.as_bytes());
    row.extend_from_slice(value);
}

fn decode_row((revision, index): (u64, u32), row: &[u8]) -> Result<Record, String> {
    let wrong = |what: &str| format!("row {revision}.{index}: {what}");
    let (header, rest) = row.split_at_checked(ROW_HEADER).ok_or_else(|| wrong("too short"))?;
    let number = |place: usize| u64::from_le_bytes(header[place..place + 8].try_into().expect("8 bytes"));
    let key_bytes = u32::from_le_bytes(header[25..].try_into().expect("4 bytes")) as usize;
    let (key, value) = rest.split_at_checked(key_bytes).ok_or_else(|| wrong("the key is cut off"))?;
    let key = std::str::from_utf8(key).map_err(|_| wrong("the key is not text"))?;
    match header[0] {
        KIND_PUT => {
            let kv = KeyValue {
                key: key.into(),
                value: value.into(),
                create_revision: number(1),
                mod_revision: revision,
                version: number(9),
                lease: number(17),
            };
            Ok(Record::Put { index, kv: Arc::new(kv) })
        }
        KIND_DELETE => Ok(Record::Delete { revision, index, key: key.into() }),
        kind => Err(wrong(&format!("unknown kind {kind}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_these_bytes() {
        let kv = KeyValue {
            key: "/a".into(),
            value: b"v".into(),
            create_revision: 2,
            mod_revision: 7,
            version: 3,
            lease: 9,
        };
        let mut row = Vec::new();
        encode_put(&kv, &mut row);
        let golden = b"\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0/av";
        assert_eq!(row, golden);
        assert_eq!(decode_row((7, 4), &row), Ok(Record::Put { index: 4, kv: Arc::new(kv) }));
        encode_row(KIND_DELETE, [0; 3], "/a", &[], &mut row);
        assert_eq!(decode_row((8, 0), &row), Ok(Record::Delete { revision: 8, index: 0, key: "/a".into() }));
    }

    #[test]
    fn damaged_rows_are_told() {
        let mut row = Vec::new();
        encode_row(KIND_DELETE, [0; 3], "/key", &[], &mut row);
        for (row, what) in
            [(&row[..20], "too short"), (&row[..31], "cut off"), (&[7; 29], "cut off"), (&[0; 29], "kind")]
        {
            assert!(decode_row((1, 0), row).expect_err(what).contains(what));
        }
    }
}
