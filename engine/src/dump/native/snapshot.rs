//! Several sessions that see one moment, and where that moment is in the binary log.
//!
//! The ways, by what the account may do:
//!
//! 1. `FLUSH TABLES WITH READ LOCK` (RELOAD, or MySQL's FLUSH_TABLES): no transaction commits while the sessions open
//!    their snapshots and the position is read.
//! 2. `LOCK TABLES ... READ` on all base tables (LOCK TABLES): nobody changes them meanwhile, and a transaction that has
//!    changed one keeps its metadata lock until it has committed.
//! 3. All sessions open their snapshots, and the position is the same before and after; else again. On MariaDB each session
//!    knows the position of its own snapshot (`binlog_snapshot_*`). On MySQL the position alone does not do, since it moves
//!    before a transaction has committed: no GTID may be owned either once the position has been read.
//! 4. One session: MariaDB's knows its position; MySQL's without a binary log needs none.
//!
//! MariaDB takes the third way first: it locks nobody. A transaction that is not logged (`sql_log_bin = 0`) is not seen
//! by it, so the sessions might differ in that; whoever writes so has left point-in-time recovery anyway.

use super::{NativeError, Stop};
use crate::{
    privileges::Privileges,
    server::{Flavour, Server, ServerConfig},
    sql::{quote_name, quote_text},
    wire::{Wire, WireError},
};
use chrono::{DateTime, NaiveDateTime, Utc};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Tries of the third way.
const TRIES: usize = 20;
/// How long everybody's writes may be held up by a read lock that waits, before they are let through and it is tried again.
const READ_LOCK_WAIT: Duration = Duration::from_secs(2);
/// How long they are let through.
const PAUSE: Duration = Duration::from_millis(500);

/// How the snapshot was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dump) enum Way {
    ReadLock,
    TableLocks,
    SamePosition,
    OneSession,
}

/// Position in the binary log, and GTIDs.
type Place = (Option<(String, u64)>, Option<String>);

/// One moment's sessions.
pub(super) struct Snapshot {
    pub(super) readers: Vec<Wire>,
    pub(super) position: Option<(String, u64)>,
    pub(super) gtids: Option<String>,
    pub(super) taken_at: DateTime<Utc>,
    pub(super) way: Way,
}

/// What is needed to open one.
pub(super) struct Opener<'a> {
    pub(super) config: &'a ServerConfig,
    pub(super) server: &'a Server,
    pub(super) privileges: &'a Privileges,
    pub(super) tables: Vec<String>,
    pub(super) connections: usize,
    pub(super) lock_wait: Duration,
    pub(super) stop: Arc<Stop>,
}

impl Opener<'_> {
    /// Opens it by the best way that the account may go.
    pub(super) fn open(&self) -> Result<Snapshot, NativeError> {
        let may_flush =
            self.privileges.has_global("RELOAD") || (self.server.flavour == Flavour::MySql && self.privileges.has_global("FLUSH_TABLES"));
        let may_lock = self.privileges.has("LOCK TABLES", &self.config.schema);
        let may_compare = self.server.log_bin && (self.server.flavour == Flavour::MariaDb || self.server.gtid);
        if self.server.flavour == Flavour::MariaDb
            && may_compare
            && let Some(snapshot) = self.same_position()?
        {
            return Ok(snapshot);
        }
        if may_flush {
            return self.under_read_lock();
        }
        if may_lock {
            return self.under_table_locks();
        }
        if self.server.flavour == Flavour::MySql
            && may_compare
            && let Some(snapshot) = self.same_position()?
        {
            return Ok(snapshot);
        }
        self.one_session()
    }

    /// A session that reads.
    fn session(&self) -> Result<Wire, NativeError> {
        let mut wire = Wire::connect(self.config).map_err(NativeError::connect)?;
        self.stop.watch(&wire)?;
        let seconds = self.lock_wait.as_secs().max(1);
        let limit = match self.server.flavour {
            Flavour::MySql => "max_execution_time",
            Flavour::MariaDb => "max_statement_time",
        };
        let mut set = |sql: &str| wire.run(sql).map_err(|e| NativeError::session("prepare a session", e));
        set("SET NAMES utf8mb4")?;
        set(&format!(
            "SET SESSION time_zone = '+00:00', sql_mode = '', lock_wait_timeout = {seconds}, {limit} = 0, sql_quote_show_create = 1, \
             wait_timeout = 86400, net_write_timeout = 86400"
        ))?;
        Ok(wire)
    }

    fn reader(&self) -> Result<Wire, NativeError> {
        let mut wire = self.session()?;
        wire.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").map_err(|e| NativeError::session("take a snapshot", e))?;
        Ok(wire)
    }

    fn readers(&self, count: usize) -> Result<Vec<Wire>, NativeError> {
        (0..count).map(|_| self.reader()).collect()
    }

    fn under_read_lock(&self) -> Result<Snapshot, NativeError> {
        let mut readers = self.readers(self.connections)?;
        let mut lock = self.session()?;
        let begin = Instant::now();
        loop {
            let rest = self.lock_wait.saturating_sub(begin.elapsed());
            let within = |wait: Duration| format!("SET SESSION lock_wait_timeout = {}", wait.as_secs().max(1));
            // While a plain FLUSH waits for a table, only those who want that table wait behind it.
            let flushed = lock
                .run(&within(rest))
                .and_then(|()| lock.run("FLUSH LOCAL TABLES"))
                .and_then(|()| lock.run(&within(rest.min(READ_LOCK_WAIT))))
                .and_then(|()| lock.run("FLUSH TABLES WITH READ LOCK"));
            match flushed {
                Ok(()) => break,
                Err(WireError::Server { number: 1205, .. }) if begin.elapsed() < self.lock_wait => std::thread::sleep(PAUSE),
                Err(error) => return Err(NativeError::session("flush the tables for a snapshot", error)),
            }
        }
        let snapshot = self.begin_all(&mut readers).and_then(|()| self.position(&mut lock));
        lock.run("UNLOCK TABLES").map_err(|e| NativeError::session("let go of the read lock", e))?;
        let (position, gtids) = snapshot?;
        self.snapshot(readers, position, gtids, Way::ReadLock)
    }

    fn under_table_locks(&self) -> Result<Snapshot, NativeError> {
        let mut readers = self.readers(self.connections)?;
        let mut lock = self.session()?;
        if !self.tables.is_empty() {
            let tables: Vec<String> = self.tables.iter().map(|t| format!("{} READ", quote_name(t))).collect();
            lock.run(&format!("LOCK TABLES {}", tables.join(", ")))
                .map_err(|e| NativeError::session("lock all tables for a snapshot", e))?;
        }
        let (position, gtids) = self.begin_all(&mut readers).and_then(|()| self.position(&mut lock))?;
        lock.run("UNLOCK TABLES").map_err(|e| NativeError::session("let go of the table locks", e))?;
        self.snapshot(readers, position, gtids, Way::TableLocks)
    }

    /// `None`: the server was never quiet for long enough.
    fn same_position(&self) -> Result<Option<Snapshot>, NativeError> {
        let mut readers = self.readers(self.connections)?;
        let mut watch = self.session()?;
        for attempt in 0..TRIES {
            if self.stop.is_stopped() {
                return Err(NativeError::Stopped);
            }
            if self.server.flavour == Flavour::MariaDb {
                self.begin_all(&mut readers)?;
                let positions: Vec<_> = readers.iter_mut().map(snapshot_position).collect::<Result<_, _>>()?;
                if positions.windows(2).all(|two| two[0] == two[1]) {
                    let position = positions.into_iter().next().flatten();
                    let gtids = self.gtids_at(&mut watch, position.as_ref())?;
                    return self.snapshot(readers, position, gtids, Way::SamePosition).map(Some);
                }
            } else {
                let before = self.position(&mut watch)?;
                let owned = text(&mut watch, "SELECT @@GLOBAL.gtid_owned")?;
                if owned.is_empty() {
                    self.begin_all(&mut readers)?;
                    let after = self.position(&mut watch)?;
                    if before == after {
                        return self.snapshot(readers, after.0, after.1, Way::SamePosition).map(Some);
                    }
                }
            }
            // A server that is never quiet: not even that long.
            std::thread::sleep(Duration::from_millis(1 + attempt as u64));
        }
        Ok(None)
    }

    fn one_session(&self) -> Result<Snapshot, NativeError> {
        if self.server.log_bin && self.server.flavour == Flavour::MySql {
            return Err(NativeError::NoSnapshot);
        }
        let mut readers = self.readers(1)?;
        self.begin_all(&mut readers)?;
        let position = match (readers.first_mut(), self.server.log_bin) {
            (Some(reader), true) => snapshot_position(reader)?,
            _ => None,
        };
        let mut watch = self.session()?;
        let gtids = self.gtids_at(&mut watch, position.as_ref())?;
        self.snapshot(readers, position, gtids, Way::OneSession)
    }

    fn begin_all(&self, readers: &mut [Wire]) -> Result<(), NativeError> {
        for reader in readers {
            reader.run("START TRANSACTION /*!40100 WITH CONSISTENT SNAPSHOT */").map_err(|e| NativeError::session("take a snapshot", e))?;
        }
        Ok(())
    }

    /// Where the binary log stands, under a lock that keeps it there.
    fn position(&self, conn: &mut Wire) -> Result<Place, NativeError> {
        if !self.server.log_bin {
            return Ok((None, None));
        }
        let failed = |e| NativeError::session("read the binary log position", e);
        let rows = match self.server.flavour {
            // The old statement is gone in 8.4, the new one came in 8.2.
            Flavour::MySql => conn.query("SHOW BINARY LOG STATUS").or_else(|_| conn.query("SHOW MASTER STATUS")),
            Flavour::MariaDb => conn.query("SHOW MASTER STATUS"),
        };
        let rows = rows.map_err(failed)?;
        let Some(row) = rows.first() else { return Ok((None, None)) };
        let field = |at: usize| row.get(at).and_then(|v| v.as_deref()).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
        let position = Some((field(0), field(1).parse().unwrap_or(0)));
        let gtids = match self.server.flavour {
            Flavour::MySql => self.server.gtid.then(|| field(4).split_whitespace().collect()),
            Flavour::MariaDb => self.gtids_at(conn, position.as_ref())?,
        };
        Ok((position, gtids))
    }

    /// MariaDB's GTIDs at a position.
    fn gtids_at(&self, conn: &mut Wire, position: Option<&(String, u64)>) -> Result<Option<String>, NativeError> {
        let (Some((file, at)), Flavour::MariaDb) = (position, self.server.flavour) else { return Ok(None) };
        text(conn, &format!("SELECT BINLOG_GTID_POS({}, {at})", quote_text(file))).map(Some)
    }

    fn snapshot(
        &self,
        mut readers: Vec<Wire>,
        position: Option<(String, u64)>,
        gtids: Option<String>,
        way: Way,
    ) -> Result<Snapshot, NativeError> {
        let now = match readers.first_mut() {
            Some(reader) => text(reader, "SELECT UTC_TIMESTAMP(6)")?,
            None => String::new(),
        };
        let taken_at = NaiveDateTime::parse_from_str(&now, "%Y-%m-%d %H:%M:%S%.f").map_or_else(|_| Utc::now(), |t| t.and_utc());
        Ok(Snapshot { readers, position, gtids, taken_at, way })
    }
}

/// MariaDB: the position of the session's own snapshot.
fn snapshot_position(reader: &mut Wire) -> Result<Option<(String, u64)>, NativeError> {
    let rows = reader.query("SHOW STATUS LIKE 'binlog_snapshot_%'").map_err(|e| NativeError::session("read the snapshot's position", e))?;
    let value = |wanted: &str| {
        rows.iter().find_map(|row| match row.as_slice() {
            [Some(name), Some(value)] if name.eq_ignore_ascii_case(wanted.as_bytes()) => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        })
    };
    let file = value("Binlog_snapshot_file").unwrap_or_default();
    let at = value("Binlog_snapshot_position").and_then(|at| at.parse().ok());
    Ok(at.filter(|_| !file.is_empty()).map(|at| (file, at)))
}

fn text(conn: &mut Wire, sql: &str) -> Result<String, NativeError> {
    let rows = conn.query(sql).map_err(|e| NativeError::session("read the snapshot's place", e))?;
    let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
    Ok(value.map(|v| String::from_utf8_lossy(&v).into_owned()).unwrap_or_default())
}
