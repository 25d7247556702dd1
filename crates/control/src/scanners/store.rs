//! Sources in a file, each written for itself.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nfguard_ban::Target;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};
use rustix::fs::{FlockOperation, OFlags};

use super::source::Source;
use crate::{Error, trusted_file};

/// From a source, as `nfguard bans` writes it, to what it did, as JSON.
const SOURCES: TableDefinition<&str, &[u8]> = TableDefinition::new("sources");

/// Size of the cache while the file is open, in bytes.
const CACHE_SIZE: usize = 4 << 20;
/// Longest time that another process may have it open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A source and what is to be written of it; `None` if it is to be removed.
pub(crate) type Change = (Target, Option<Vec<u8>>);

/// The file of all sources. It is open no longer than a read or a write takes: one process can write,
/// and many can read.
#[derive(Clone)]
pub(crate) struct Store(PathBuf);

impl Store {
    pub(crate) fn new(path: PathBuf) -> Store {
        Store(path)
    }

    /// Makes this process the only one that writes, as long as the value lives.
    pub(crate) fn claim(&self) -> Result<File, Error> {
        let folder = self.0.parent().unwrap_or(&self.0);
        let claim = || {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let folder = trusted_file::open_own_folder(folder)?;
            rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
            io::Result::Ok(folder)
        };
        claim().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                Error::Usage("another `nfguard log --keep` is running".to_owned())
            }
            _ => Error::file(folder)(error),
        })
    }

    /// Returns all sources; none if there is no file.
    pub(crate) fn read(&self) -> Result<HashMap<Target, Source>, Error> {
        if !self.0.try_exists().map_err(Error::file(&self.0))? {
            return Ok(HashMap::new());
        }
        let database = self.open()?;
        read(&database).map_err(|error| self.failure(error))
    }

    /// Writes all changes or none, safe from a power cut.
    pub(crate) fn write(&self, changes: &[Change]) -> Result<(), Error> {
        let database = self.open()?;
        write(&database, changes).map_err(|error| self.failure(error))
    }

    fn open(&self) -> Result<Database, Error> {
        let since = Instant::now();
        loop {
            let flags = OFlags::CREATE | OFlags::RDWR;
            let file = trusted_file::open_own(&self.0, flags).map_err(Error::file(&self.0))?;
            let opened = FileBackend::new(file).and_then(|backend| {
                Database::builder().set_cache_size(CACHE_SIZE).create_with_backend(backend)
            });
            match opened {
                Err(DatabaseError::DatabaseAlreadyOpen) if since.elapsed() < OPEN_TIMEOUT => {
                    sleep(Duration::from_millis(20));
                }
                opened => return opened.map_err(|error| self.failure(error)),
            }
        }
    }

    fn failure(&self, error: impl Display) -> Error {
        Error::file(&self.0)(io::Error::other(format!("{error}; remove the file to start again")))
    }
}

fn read(database: &Database) -> Result<HashMap<Target, Source>, Box<dyn std::error::Error>> {
    let table = match database.begin_read()?.open_table(SOURCES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(HashMap::new()),
        table => table?,
    };
    let mut sources = HashMap::new();
    for entry in table.iter()? {
        let (target, source) = entry?;
        sources.insert(target.value().parse()?, serde_json::from_slice(source.value())?);
    }
    Ok(sources)
}

fn write(database: &Database, changes: &[Change]) -> Result<(), Box<dyn std::error::Error>> {
    let write = database.begin_write()?;
    let mut table = write.open_table(SOURCES)?;
    for (target, source) in changes {
        let target = target.to_string();
        match source {
            Some(source) => table.insert(target.as_str(), source.as_slice())?,
            None => table.remove(target.as_str())?,
        };
    }
    drop(table);
    write.commit()?;
    Ok(())
}
