//! Our own dumper: several sessions on one snapshot, each reading tables, all writing one stream.
//!
//! Everything that is read from the server on these sessions is read on threads that may block ([`crate::wire`]); a
//! watching session of its own looks after them: it names who keeps them waiting, and ends them when the dump is over.

mod code;
mod outlet;
mod rows;
mod snapshot;

use super::{
    DumpConfig,
    error::{DumpError, LOCK_WAIT_TIMEOUT},
    locks::DdlLock,
    tool::Outcome,
};
use crate::{
    control::Control,
    effort::Effort,
    fingerprint::{Change, Fingerprint},
    privileges::Privileges,
    section_writer::SectionWriter,
    server::{Flavour, Server},
    sessions::{self, Blockers, Session},
    sql_scan::SectionKind,
    wire::{Stopper, Wire, WireError},
};
use code::{Code, Names};
use outlet::Outlet;
use rows::{Tables, Tasks};
use snapshot::{Opener, Snapshot};
use sqlx::MySqlConnection;
use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How often the sessions are looked after.
const TICK: Duration = Duration::from_millis(500);
/// How often the lock on definitions is looked after, in ticks.
const KEEP_ALIVE: u32 = 120;

/// What the dump is called in manifests and messages.
pub(super) fn version() -> String {
    format!("heratio-backup {}", env!("CARGO_PKG_VERSION"))
}

/// Why the dump failed, before it is known what it means.
#[derive(Debug)]
pub(super) enum NativeError {
    /// A session could not be opened.
    Connect(WireError),
    /// The server refused something, or was lost; what was tried completes "cannot".
    Session { what: &'static str, error: WireError },
    /// The same, of one object.
    Object { object: String, error: WireError },
    /// The account may not see an object's definition.
    Denied { object: String },
    /// No way to tie the snapshot to its position is open to the account.
    NoSnapshot,
    /// What would be dumped wrong.
    Unsupported { object: String, why: String },
    /// The archive could not be written.
    Write(io::Error),
    /// Another thread failed, or the caller asked to stop.
    Stopped,
}

impl NativeError {
    fn connect(error: WireError) -> Self {
        Self::Connect(error)
    }

    fn session(what: &'static str, error: WireError) -> Self {
        Self::Session { what, error }
    }

    fn on(object: String, error: WireError) -> Self {
        Self::Object { object, error }
    }

    /// Says which object an error of the session was about.
    fn about(self, object: impl FnOnce() -> String) -> Self {
        match self {
            Self::Session { error, .. } => Self::Object { object: object(), error },
            other => other,
        }
    }
}

impl From<WireError> for NativeError {
    fn from(error: WireError) -> Self {
        Self::Session { what: "read rows", error }
    }
}

/// What ends all sessions.
#[derive(Default)]
pub(super) struct Stop {
    stopped: AtomicBool,
    sessions: Mutex<Vec<(u64, Stopper)>>,
}

impl Stop {
    fn sessions(&self) -> MutexGuard<'_, Vec<(u64, Stopper)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new session into its care.
    fn watch(&self, wire: &Wire) -> Result<(), NativeError> {
        let stopper = wire.stopper().map_err(|e| NativeError::Connect(e.into()))?;
        let mut sessions = self.sessions();
        if self.is_stopped() {
            return Err(NativeError::Stopped);
        }
        sessions.push((wire.id(), stopper));
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends all sessions, on our side.
    fn stop(&self) {
        let sessions = self.sessions();
        self.stopped.store(true, Ordering::Relaxed);
        sessions.iter().for_each(|(_, stopper)| stopper.stop());
    }

    fn ids(&self) -> Vec<u64> {
        self.sessions().iter().map(|(id, _)| *id).collect()
    }
}

/// Why a dump failed.
pub(super) enum Failure {
    /// It is known.
    Dump(DumpError),
    /// A changed definition may explain it, which the fingerprints must tell; with who was in the way of a lock.
    Native(NativeError, Blockers),
}

impl<E: Into<DumpError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Dump(error.into())
    }
}

/// Everything that the dump is made of.
pub(super) struct Job<'a> {
    pub(super) config: &'a DumpConfig,
    pub(super) server: &'a Server,
    pub(super) privileges: &'a Privileges,
    pub(super) fingerprint: &'a Fingerprint,
    /// Whether the lock on definitions is to be taken once the snapshot stands.
    pub(super) lock_after_snapshot: bool,
}

/// Dumps; the writer comes back with the outcome, and after a failure it has been dropped.
pub(super) async fn run<W: SectionWriter + Send + 'static>(
    job: &Job<'_>,
    mut ddl_lock: Option<DdlLock>,
    writer: W,
    control: &Control,
) -> Result<(W, Outcome, Option<DdlLock>), Failure> {
    let stop = Arc::new(Stop::default());
    let mut watch = Watch { job, conn: None, wait: None };
    watch.connect().await?;
    let opening = {
        let (config, server, privileges) = (job.config.clone(), job.server.clone(), job.privileges.clone());
        let (tables, stop) = (job.fingerprint.tables.iter().map(|(name, _)| name.clone()).collect(), stop.clone());
        working(job.config.effort, move || {
            let opener = Opener {
                config: &config.server,
                server: &server,
                privileges: &privileges,
                tables,
                connections: config.connections.max(1),
                lock_wait: config.lock_wait,
                stop,
            };
            opener.open()
        })
    };
    let snapshot = watch.over(opening, &stop, &mut ddl_lock, control).await?;
    tracing::debug!(way = ?snapshot.way, position = ?snapshot.position, sessions = snapshot.readers.len(), "snapshot taken");
    if job.lock_after_snapshot {
        let taken = async {
            let mut conn = job.config.server.connect().await?;
            DdlLock::take(&job.config.server, job.server, &mut conn, job.config.lock_wait, control).await
        };
        match taken.await {
            Ok(lock) => ddl_lock = Some(lock),
            Err(error) => {
                watch.end(&stop).await;
                return Err(error.into());
            }
        }
    }
    let (taken_at, gtids) = (snapshot.taken_at, snapshot.gtids.clone());
    let position = snapshot.position.clone();
    let writing = {
        let stream = Stream {
            server: job.server.clone(),
            schema: job.config.server.schema.clone(),
            tables: job.fingerprint.tables.clone(),
            names: Names::of(job.fingerprint.objects()),
            has_versioned: !job.fingerprint.versioned.is_empty(),
            stop: stop.clone(),
        };
        let progress = control.progress.clone();
        working(job.config.effort, move || stream.write(snapshot, Outlet::new(writer, progress)))
    };
    let (writer, mut content) = watch.over(writing, &stop, &mut ddl_lock, control).await?;
    content.position = position;
    Ok((writer, Outcome { content, taken_at, gtids }, ddl_lock))
}

/// Starts blocking work on a thread that is as nice as it should be; so are those that it starts.
fn working<T: Send + 'static>(
    effort: Effort,
    work: impl FnOnce() -> Result<T, NativeError> + Send + 'static,
) -> tokio::task::JoinHandle<Result<T, NativeError>> {
    tokio::spawn(async move { effort.run(work).await.unwrap_or_else(|panicked| Err(NativeError::Write(panicked))) })
}

/// Says what an error means; `changes` are the definitions that differ from those before.
pub(super) fn explain(error: NativeError, changes: &[Change], lock_wait: Duration, wait: Blockers) -> DumpError {
    let tool = version();
    let (subject, object, error) = match error {
        NativeError::Write(source) => return DumpError::Write(source),
        NativeError::Stopped => return DumpError::Cancelled,
        NativeError::NoSnapshot => return DumpError::NoPosition { tool },
        NativeError::Unsupported { object, why } => return DumpError::Unsupported { object, why },
        NativeError::Denied { object } => {
            return DumpError::ToolDenied { tool, stderr: format!("the server does not show the definition of {object}") };
        }
        NativeError::Connect(error) => ("open a session".to_owned(), None, error),
        NativeError::Session { what, error } => (what.to_owned(), None, error),
        NativeError::Object { object, error } => (format!("read {object}"), Some(object), error),
    };
    let stderr = format!("cannot {subject}: {error}");
    match error.number() {
        Some(LOCK_WAIT_TIMEOUT) => DumpError::LockWait { what: subject, waited: lock_wait, blockers: wait },
        Some(1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698) => DumpError::ToolDenied { tool, stderr },
        None | Some(1040 | 1053 | 1152 | 1159 | 1161 | 1203 | 1317 | 1927) => DumpError::ConnectionLost { tool, stderr },
        _ if !changes.is_empty() => DumpError::DdlChanged { changes: changes.iter().map(Change::to_string).collect() },
        // Table definition has changed: MariaDB's TRUNCATE shows in no definition.
        Some(1412) => DumpError::DdlChanged { changes: vec![stderr] },
        Some(1356 | 1449) => DumpError::Unreadable { object: object.unwrap_or_else(|| "an object".to_owned()), message: stderr },
        Some(_) => DumpError::ToolFailed { tool, outcome: "failed".to_owned(), stderr },
    }
}

/// Whether a changed definition may explain it.
fn may_be_a_change(error: &NativeError) -> bool {
    match error {
        NativeError::Session { error, .. } | NativeError::Object { error, .. } => error.number().is_some(),
        NativeError::Unsupported { .. } => true,
        _ => false,
    }
}

/// What the stream is made from, on threads that may block.
struct Stream {
    server: Server,
    schema: String,
    tables: Vec<(String, u64)>,
    names: Names,
    has_versioned: bool,
    stop: Arc<Stop>,
}

impl Stream {
    fn write<W: SectionWriter + Send>(
        self,
        mut snapshot: Snapshot,
        mut outlet: Outlet<W>,
    ) -> Result<(W, super::pump::Content), NativeError> {
        outlet.write(SectionKind::Header, "", self.header(&snapshot).as_bytes())?;
        let Some((first, others)) = snapshot.readers.split_first_mut() else { return Err(NativeError::NoSnapshot) };
        let collation = first.query("SELECT @@collation_database").map_err(|e| NativeError::session("read the schema's collation", e))?;
        let collation =
            collation.into_iter().flatten().flatten().next().map(|c| String::from_utf8_lossy(&c).into_owned()).unwrap_or_default();
        self.refuse_libraries(first)?;
        self.code(first, &mut outlet, &collation).sequences(&self.names.sequences)?;

        let (tasks, shared) = (Tasks::new(self.tables.clone()), Mutex::new(outlet));
        let tables = Tables { flavour: self.server.flavour, schema: &self.schema, tasks: &tasks, outlet: &shared, stop: &self.stop };
        let failures: Vec<NativeError> = std::thread::scope(|scope| {
            let helpers: Vec<_> = others.iter_mut().map(|reader| scope.spawn(|| tables.work(reader))).collect();
            let own = tables.work(first);
            let joined = helpers.into_iter().map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            std::iter::once(own).chain(joined).filter_map(Result::err).collect()
        });
        // The first to fail ended the others' sessions; theirs are no reasons.
        if let Some(error) = failures.into_iter().min_by_key(|e| matches!(e, NativeError::Stopped) || is_lost(e)) {
            return Err(error);
        }
        if self.stop.is_stopped() {
            return Err(NativeError::Stopped);
        }
        let mut outlet = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut code = self.code(first, &mut outlet, &collation);
        code.placeholders(&self.names.views)?;
        if self.names.has_triggers {
            code.triggers()?;
        }
        code.routines(&self.names.routines)?;
        code.views(&self.names.views)?;
        // Last: the scheduler may start one at once.
        code.events(&self.names.events)?;
        outlet.write(SectionKind::Trailer, "", self.trailer().as_bytes())?;
        Ok(outlet.finish())
    }

    fn code<'a, W>(&'a self, conn: &'a mut Wire, outlet: &'a mut Outlet<W>, collation: &str) -> Code<'a, W> {
        Code { conn, outlet, schema: &self.schema, collation: collation.to_owned() }
    }

    /// MySQL 9 has libraries of JavaScript, which no restore of ours would bring back.
    fn refuse_libraries(&self, conn: &mut Wire) -> Result<(), NativeError> {
        let list = "SELECT library_name FROM information_schema.libraries WHERE library_schema = DATABASE() LIMIT 1";
        // Where the server has none, it has no such list either.
        let rows = conn.query(list).unwrap_or_default();
        match rows.into_iter().flatten().flatten().next() {
            None => Ok(()),
            Some(name) => Err(NativeError::Unsupported {
                object: format!("library `{}`", String::from_utf8_lossy(&name)),
                why: "libraries cannot be dumped".to_owned(),
            }),
        }
    }

    fn header(&self, snapshot: &Snapshot) -> String {
        let server = &self.server;
        let mut text = format!(
            "-- {} dump of database {:?} from {} {}\n-- Snapshot taken at {} UTC\n\n",
            version(),
            self.schema,
            server.flavour,
            server.version,
            snapshot.taken_at.format("%Y-%m-%d %H:%M:%S%.6f"),
        );
        if let Some((file, at)) = &snapshot.position {
            text.push_str("--\n-- Position of the snapshot in the binary log\n--\n\n");
            text.push_str(&match server.flavour {
                Flavour::MySql => format!("-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='{file}', SOURCE_LOG_POS={at};\n"),
                Flavour::MariaDb => format!("-- CHANGE MASTER TO MASTER_LOG_FILE='{file}', MASTER_LOG_POS={at};\n"),
            });
            if let Some(gtids) = &snapshot.gtids {
                text.push_str(&match server.flavour {
                    Flavour::MySql => format!("/* SET @@GLOBAL.GTID_PURGED='+{gtids}';*/\n"),
                    Flavour::MariaDb => format!("-- SET GLOBAL gtid_slave_pos='{gtids}';\n"),
                });
            }
            text.push('\n');
        }
        text.push_str(
            "SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT;\n\
             SET @OLD_CHARACTER_SET_RESULTS=@@CHARACTER_SET_RESULTS;\n\
             SET @OLD_COLLATION_CONNECTION=@@COLLATION_CONNECTION;\n\
             SET NAMES utf8mb4;\n\
             SET @OLD_TIME_ZONE=@@TIME_ZONE;\n\
             SET TIME_ZONE='+00:00';\n\
             SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0;\n\
             SET @OLD_FOREIGN_KEY_CHECKS=@@FOREIGN_KEY_CHECKS, FOREIGN_KEY_CHECKS=0;\n\
             SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO';\n\
             SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0;\n",
        );
        if self.has_versioned {
            text.push_str("/*M!101100 SET @old_system_versioning_insert_history=@@system_versioning_insert_history, system_versioning_insert_history=1 */;\n");
        }
        text.push('\n');
        text
    }

    fn trailer(&self) -> String {
        let history = match self.has_versioned {
            true => "/*M!101100 SET system_versioning_insert_history=@old_system_versioning_insert_history */;\n",
            false => "",
        };
        format!(
            "SET TIME_ZONE=@OLD_TIME_ZONE;\n{history}\
             SET SQL_MODE=@OLD_SQL_MODE;\n\
             SET FOREIGN_KEY_CHECKS=@OLD_FOREIGN_KEY_CHECKS;\n\
             SET UNIQUE_CHECKS=@OLD_UNIQUE_CHECKS;\n\
             SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT;\n\
             SET CHARACTER_SET_RESULTS=@OLD_CHARACTER_SET_RESULTS;\n\
             SET COLLATION_CONNECTION=@OLD_COLLATION_CONNECTION;\n\
             SET SQL_NOTES=@OLD_SQL_NOTES;\n\n\
             -- Dump completed\n"
        )
    }
}

fn is_lost(error: &NativeError) -> bool {
    matches!(error, NativeError::Session { error: WireError::Io(_), .. } | NativeError::Object { error: WireError::Io(_), .. })
}

/// A session beside the others that looks after them.
struct Watch<'a> {
    job: &'a Job<'a>,
    conn: Option<MySqlConnection>,
    /// Who was last seen in the way of one of ours.
    wait: Option<Blockers>,
}

impl Watch<'_> {
    async fn connect(&mut self) -> Result<(), DumpError> {
        self.conn = Some(self.job.config.server.connect().await?);
        Ok(())
    }

    /// Waits for work on other threads, and ends it when the caller asks to stop.
    async fn over<T>(
        &mut self,
        mut work: tokio::task::JoinHandle<Result<T, NativeError>>,
        stop: &Arc<Stop>,
        ddl_lock: &mut Option<DdlLock>,
        control: &Control,
    ) -> Result<T, Failure> {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        let (mut cancelled, mut tick) = (false, 0u32);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = control.cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    self.end(stop).await;
                }
                _ = ticks.tick(), if !cancelled => {
                    tick += 1;
                    self.look(stop).await;
                    if tick % KEEP_ALIVE == 0
                        && let Some(lock) = ddl_lock
                        && !lock.is_held().await
                    {
                        // The fingerprints still tell whether anybody made use of that.
                        tracing::warn!("the session that kept others from changing definitions was lost");
                        *ddl_lock = None;
                    }
                }
            }
        };
        let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        match result {
            Ok(value) if !cancelled => Ok(value),
            Ok(_) => Err(DumpError::Cancelled.into()),
            Err(error) => {
                self.end(stop).await;
                let blockers = self.wait.take().unwrap_or_default();
                Err(match error {
                    _ if control.cancel.is_cancelled() => DumpError::Cancelled.into(),
                    error if may_be_a_change(&error) => Failure::Native(error, blockers),
                    error => explain(error, &[], self.job.config.lock_wait, blockers).into(),
                })
            }
        }
    }

    /// Looks who is in the way of a session that waits for a lock: that is best seen before the wait ends.
    async fn look(&mut self, stop: &Stop) {
        let (ids, server) = (stop.ids(), self.job.server);
        let seen = self
            .ask(async |conn| {
                let all = sessions::list(conn).await?;
                let Some(waiting) = all.into_iter().filter(Session::waits_for_lock).find(|s| ids.contains(&s.id)) else { return Ok(None) };
                Ok(Some(sessions::blockers(conn, server, &waiting).await))
            })
            .await
            .flatten();
        if let Some(blockers) = seen
            && (!blockers.sessions.is_empty() || self.wait.is_none())
        {
            self.wait = Some(blockers);
        }
    }

    /// Ends all sessions, on the server too: one that waits for a lock does not notice that we are gone.
    async fn end(&mut self, stop: &Stop) {
        stop.stop();
        let ids = stop.ids();
        self.ask(async |conn| {
            for id in ids {
                sessions::kill(conn, id).await;
            }
            Ok(())
        })
        .await;
    }

    /// See [`sessions::ask`].
    async fn ask<T>(&mut self, question: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>) -> Option<T> {
        sessions::ask(&mut self.conn, &self.job.config.server, question).await
    }
}

impl fmt::Display for snapshot::Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadLock => "a global read lock",
            Self::TableLocks => "read locks on all tables",
            Self::SamePosition => "equal positions of all sessions",
            Self::OneSession => "one session",
        })
    }
}
