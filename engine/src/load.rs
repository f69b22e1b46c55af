//! Loads a database archive into a schema, over several connections at once.
//!
//! The archive's parts are independent gzip members, so every table is read and loaded by itself, the largest first. A
//! connection that finds no table left helps with one that is still being loaded. What refers to tables (triggers, views,
//! routines, events) comes after all rows, on one connection, in the archive's order.
//!
//! The text is split into statements as the mysql client does it ([`crate::sql_scan`]), and every INSERT is a transaction
//! of its own: one that meets a deadlock is tried again. `LOCK TABLES` and `COMMIT` are left out, since one session's locks
//! would keep the others out.

mod statements;

use crate::{
    archive::{ArchiveError, read_part},
    control::Control,
    manifest::{Manifest, Section},
    sql::{quote_name, server_error},
    sql_scan::{ObjectKind, SectionKind, created},
    stored_code::{unqualified_trigger, unqualified_view},
};
use sqlx::{AssertSqlSafe, Executor, MySqlConnection};
use statements::{Statement, split};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, RwLock, Semaphore, mpsc};

/// Statements that have been read and not yet run: at most so many bytes of them, or one.
const READ_AHEAD: u32 = 16 << 20;
/// Tries of a statement that meets a deadlock or a lock's time limit.
const TRIES: u32 = 10;
/// Smaller tables are loaded by one connection alone.
const SHARED_FROM: u64 = 4 << 20;

/// What is loaded besides tables, rows and sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Nothing.
    None,
    /// Triggers, views and routines. Events are left out, since the scheduler would start to run them.
    WithoutEvents,
    /// Everything.
    All,
}

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum LoadError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot read {part} of {}: {source}", path.display())]
    Read { path: PathBuf, part: String, source: io::Error },
    #[error("{part} of {} ends in the middle of a statement", path.display())]
    Truncated { path: PathBuf, part: String },
    #[error("{part} of {} holds text that is not UTF-8", path.display())]
    NotUtf8 { path: PathBuf, part: String },
    #[error("the server refuses a statement of {part}, `{excerpt}`: {source}")]
    Refused { part: String, excerpt: String, source: sqlx::Error },
    #[error("loading was cancelled")]
    Cancelled,
}

impl LoadError {
    /// Whether another server would not take the archive either: not privileges, space or a lost connection.
    pub fn condemns_the_archive(&self) -> bool {
        match self {
            Self::Archive(_) | Self::Read { .. } | Self::Truncated { .. } | Self::NotUtf8 { .. } => true,
            Self::Refused { source, .. } => {
                !matches!(server_error(source), None | Some(1044 | 1142 | 1227 | 1419 | 1153 | 1114 | 1021 | 3 | 28 | 1205 | 1213 | 1317))
            }
            Self::Cancelled => false,
        }
    }

    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Archive(error) => error.hint(),
            Self::Read { .. } | Self::Truncated { .. } => Some("take the archive from its replica, or use another backup"),
            Self::Refused { source, .. } => match server_error(source)? {
                1044 | 1142 => Some("`worker grants` prints the privileges that a restore needs"),
                1227 => Some(
                    "the archive has objects of other accounts (DEFINER): grant SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER and, for definers like root, SYSTEM_USER (MySQL 8.2 and later), SET_USER_ID (MySQL 8.0) or SET USER (MariaDB) to the worker's account",
                ),
                1419 => Some("set log_bin_trust_function_creators = 1 on the server, or grant SUPER to the worker's account"),
                1153 => Some("raise max_allowed_packet on the server: the archive has a row that is larger"),
                1114 | 1021 | 3 | 28 => Some("the server's disk is full: free space there"),
                1273 | 1115 => Some("the archive comes from another flavour or version, whose collations this server does not know"),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Tables and sequences.
    pub tables: u64,
    /// Statements that were run.
    pub statements: u64,
    /// Statements that met a deadlock and were tried again.
    pub retried: u64,
}

/// How many connections to give to [`load`] on a machine of so many threads.
///
/// Half of them load rows, which keeps the server's processors busy; the others make the many small tables meanwhile, which
/// waits for its disk: an fsync or more for each CREATE TABLE.
pub const fn load_sessions(threads: usize) -> usize {
    2 * match threads {
        0 | 1 => 1,
        2..=4 => threads,
        _ => 4,
    }
}

/// Loads the archive into `schema`, which exists and is empty, and is the default schema of every connection; there is at least one.
///
/// Progress is in uncompressed bytes. After an error, or when cancelled, the schema holds a part of the archive, and the
/// connections are gone.
pub async fn load(
    path: &Path,
    manifest: &Manifest,
    schema: &str,
    code: Code,
    mut connections: Vec<MySqlConnection>,
    control: &Control,
) -> Result<Loaded, LoadError> {
    let job = Arc::new(Load {
        path: path.to_owned(),
        manifest: manifest.clone(),
        schema: schema.to_owned(),
        control: control.clone(),
        read_ahead: Arc::new(Semaphore::new(READ_AHEAD as usize)),
        waiting: StdMutex::default(),
        shared: StdMutex::default(),
        counts: StdMutex::default(),
    });
    let steps = async {
        let plan = Plan::of(manifest, code);
        let total = plan.bytes();
        control.progress.phase(format!("loading into `{schema}`"), total);
        for connection in &mut connections {
            for section in &plan.header {
                job.alone(section, connection).await?;
            }
        }
        if let Some(first) = connections.first_mut() {
            for section in &plan.sequences {
                job.alone(section, first).await?;
            }
        }
        job.counts().tables = (plan.tables.len() + plan.sequences.len()) as u64;
        job.waiting().extend(plan.tables);
        let mut tasks = tokio::task::JoinSet::new();
        for (number, connection) in connections.into_iter().enumerate() {
            let (job, end) = (job.clone(), if number % 2 == 0 { End::Largest } else { End::Smallest });
            tasks.spawn(async move { job.tables(connection, end).await });
        }
        let mut back = None;
        while let Some(task) = tasks.join_next().await {
            // The other tasks end with the set.
            back = Some(task.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
        }
        if let Some(mut connection) = back {
            for section in &plan.code {
                job.alone(section, &mut connection).await?;
            }
        }
        Ok(job.counts().clone())
    };
    tokio::select! {
        biased;
        () = control.cancel.cancelled() => Err(LoadError::Cancelled),
        loaded = steps => loaded,
    }
}

/// The text of the statements in the sections of some kinds, in the archive's order.
pub fn statements_of(path: &Path, manifest: &Manifest, kinds: &[SectionKind]) -> Result<Vec<String>, LoadError> {
    let mut found = Vec::new();
    for section in manifest.sections.iter().filter(|s| kinds.iter().any(|k| k.word() == s.kind)) {
        let part = part(section);
        let reader = read_part(path, manifest, section.start, section.end)?;
        let complete = split(reader, |statement| {
            found.push(statement);
            true
        });
        match complete {
            Ok(true) => {}
            Ok(false) => return Err(LoadError::Truncated { path: path.to_owned(), part }),
            Err(source) => return Err(LoadError::Read { path: path.to_owned(), part, source }),
        }
    }
    found
        .into_iter()
        .map(|s| String::from_utf8(s.text).map_err(|_| LoadError::NotUtf8 { path: path.to_owned(), part: "a section".into() }))
        .collect()
}

/// In which order the parts are loaded.
#[derive(Default)]
struct Plan {
    header: Vec<Section>,
    sequences: Vec<Section>,
    /// Each with its rows, the largest first.
    tables: Vec<Vec<Section>>,
    code: Vec<Section>,
}

impl Plan {
    fn of(manifest: &Manifest, code: Code) -> Self {
        let mut plan = Self::default();
        let mut tables: BTreeMap<&str, Vec<Section>> = BTreeMap::new();
        for section in &manifest.sections {
            let is = |kind: SectionKind| section.kind == kind.word();
            if is(SectionKind::Table) || is(SectionKind::Data) {
                tables.entry(&section.name).or_default().push(section.clone());
            } else if is(SectionKind::Header) {
                plan.header.push(section.clone());
            } else if is(SectionKind::Sequence) {
                plan.sequences.push(section.clone());
            } else if is(SectionKind::Trailer) || code == Code::None || (is(SectionKind::Events) && code != Code::All) {
                // Restores the session's settings, or is not wanted.
            } else {
                plan.code.push(section.clone());
            }
        }
        plan.tables = tables.into_values().collect();
        plan.tables.sort_by_key(|sections| std::cmp::Reverse(size(sections)));
        plan
    }

    fn bytes(&self) -> u64 {
        size(&self.sequences) + size(&self.code) + self.tables.iter().map(|t| size(t)).sum::<u64>()
    }
}

fn size(sections: &[Section]) -> u64 {
    sections.iter().map(|s| s.end - s.start).sum()
}

fn part(section: &Section) -> String {
    match section.name.as_str() {
        "" => format!("the {}", section.kind),
        name => format!("{} `{name}`", section.kind),
    }
}

/// With which tables a connection begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Largest,
    Smallest,
}

/// A table that more than one connection may load.
struct Shared {
    part: String,
    statements: Mutex<mpsc::Receiver<Read_>>,
    /// Whoever runs rows holds it for reading, anything else waits for them.
    rows: RwLock<()>,
}

/// A statement that has been read, with its share of what may be read ahead; or why there are no more.
type Read_ = Result<(Statement, OwnedSemaphorePermit), LoadError>;

struct Load {
    path: PathBuf,
    manifest: Manifest,
    schema: String,
    control: Control,
    read_ahead: Arc<Semaphore>,
    /// Tables that nobody has begun.
    waiting: StdMutex<VecDeque<Vec<Section>>>,
    /// Tables whose rows are being loaded.
    shared: StdMutex<Vec<Arc<Shared>>>,
    counts: StdMutex<Loaded>,
}

impl Load {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Vec<Section>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Loaded> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a section on one connection.
    async fn alone(self: &Arc<Self>, section: &Section, connection: &mut MySqlConnection) -> Result<(), LoadError> {
        let part = part(section);
        let mut statements = self.read(vec![section.clone()]);
        while let Some(read) = statements.recv().await {
            let (statement, _held) = read?;
            self.run(&part, statement, connection).await?;
        }
        Ok(())
    }

    /// Loads tables until none is left; who began with large ones then helps others. The connection comes back.
    async fn tables(self: Arc<Self>, mut connection: MySqlConnection, end: End) -> Result<MySqlConnection, LoadError> {
        loop {
            let next = match end {
                End::Largest => self.waiting().pop_front(),
                End::Smallest => self.waiting().pop_back(),
            };
            let Some(sections) = next else { break };
            let large = size(&sections) >= SHARED_FROM;
            let Some(first) = sections.first() else { continue };
            let table = Arc::new(Shared { part: part(first), statements: Mutex::new(self.read(sections)), rows: RwLock::default() });
            let mut alone = true;
            while let Some(read) = next_of(&table).await {
                let (statement, held) = read?;
                // Once the first rows have come, the table is there for all.
                if statement.is_rows() && large && alone {
                    self.shared().push(table.clone());
                    alone = false;
                }
                self.share(&table, statement, &mut connection).await?;
                drop(held);
            }
            self.shared().retain(|other| !Arc::ptr_eq(other, &table));
        }
        // More sessions in one table than processors only get into each other's way.
        if end == End::Smallest {
            return Ok(connection);
        }
        loop {
            let busy = self.shared().first().cloned();
            let Some(table) = busy else { return Ok(connection) };
            while let Some(read) = next_of(&table).await {
                let (statement, held) = read?;
                self.share(&table, statement, &mut connection).await?;
                drop(held);
            }
            self.shared().retain(|other| !Arc::ptr_eq(other, &table));
        }
    }

    async fn share(&self, table: &Shared, statement: Statement, connection: &mut MySqlConnection) -> Result<(), LoadError> {
        if statement.is_rows() {
            let _rows = table.rows.read().await;
            return self.run(&table.part, statement, connection).await;
        }
        let _alone = table.rows.write().await;
        self.run(&table.part, statement, connection).await
    }

    /// Runs a statement, if it is to be run at all.
    async fn run(&self, part: &str, statement: Statement, connection: &mut MySqlConnection) -> Result<(), LoadError> {
        let bytes = statement.text.len() as u64;
        if !statement.is_for_one_session() {
            let is_rows = statement.is_rows();
            let mut sql = Statement::to_utf8(statement.into_text(&quote_name(&self.schema)))
                .ok_or_else(|| LoadError::NotUtf8 { path: self.path.clone(), part: part.to_owned() })?;
            if !is_rows && let Some(plain) = self.for_any_schema(&sql) {
                sql = plain;
            }
            let mut tries = 1;
            loop {
                let again = is_rows && tries < TRIES;
                match connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.as_str()))).await {
                    Ok(_) => break,
                    Err(error) if again && matches!(server_error(&error), Some(1205 | 1213)) => {
                        self.counts().retried += 1;
                        tokio::time::sleep(Duration::from_millis(20 << tries.min(6))).await;
                        tries += 1;
                    }
                    Err(source) => return Err(LoadError::Refused { part: part.to_owned(), excerpt: excerpt(&sql), source }),
                }
            }
            self.counts().statements += 1;
        }
        self.control.progress.add(bytes);
        Ok(())
    }

    /// The statement without the name of the schema that was dumped, where the dump tools leave it in and it would lead there.
    fn for_any_schema(&self, sql: &str) -> Option<String> {
        match created(sql)?.0 {
            ObjectKind::Trigger => unqualified_trigger(sql),
            ObjectKind::View => unqualified_view(sql, &self.manifest.database.as_ref()?.schema),
            _ => None,
        }
    }

    /// Reads sections on a thread of its own.
    fn read(self: &Arc<Self>, sections: Vec<Section>) -> mpsc::Receiver<Read_> {
        let (sender, receiver) = mpsc::channel(64);
        let job = self.clone();
        tokio::task::spawn_blocking(move || {
            for section in sections {
                if let Err(error) = job.read_section(&section, &sender) {
                    // The receiver is gone when somebody else has failed.
                    drop(sender.blocking_send(Err(error)));
                    return;
                }
            }
        });
        receiver
    }

    fn read_section(&self, section: &Section, sender: &mpsc::Sender<Read_>) -> Result<(), LoadError> {
        let reader: Box<dyn Read> = Box::new(read_part(&self.path, &self.manifest, section.start, section.end)?);
        let runtime = tokio::runtime::Handle::current();
        let complete = split(reader, |statement| {
            let share = (statement.text.len() as u32).clamp(1, READ_AHEAD);
            let held = runtime.block_on(self.read_ahead.clone().acquire_many_owned(share));
            held.is_ok_and(|held| sender.blocking_send(Ok((statement, held))).is_ok())
        });
        match complete {
            Ok(true) => Ok(()),
            Ok(false) => Err(LoadError::Truncated { path: self.path.clone(), part: part(section) }),
            Err(source) => Err(LoadError::Read { path: self.path.clone(), part: part(section), source }),
        }
    }
}

async fn next_of(table: &Shared) -> Option<Read_> {
    table.statements.lock().await.recv().await
}

/// The beginning of a statement, for a message; never a row.
fn excerpt(sql: &str) -> String {
    let end = sql.find(" VALUES").or_else(|| sql.find('\n')).unwrap_or(sql.len());
    let text: String = sql[..end].chars().take(120).collect();
    if text.len() < sql.len() { format!("{text} ...") } else { text }
}
