//! Runs mysqldump or mariadb-dump into the archive, and watches that it does not stand in anybody's way.

use super::{
    DumpConfig,
    error::{DumpError, LOCK_WAIT_TIMEOUT, error_number},
    locks::{DdlLock, connection_id},
    pump::{self, Content, PumpError, Signals},
};
use crate::{
    control::Control,
    fingerprint::Fingerprint,
    option_file::OptionFile,
    process::{Child, Command, Exit, ProcessError},
    section_writer::SectionWriter,
    server::{Flavour, Server},
    sessions::{self, Blockers, Session},
    sql::{self, quote_text},
    tools::FoundTool,
};
use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::MySqlConnection;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// How often the tool is looked after.
const TICK: Duration = Duration::from_secs(1);
/// How often an idle session of ours says something, lest the server forget it.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What a run of the tool gave.
pub(super) struct Outcome {
    pub(super) content: Content,
    /// When the snapshot had been taken for sure, by the server's clock.
    pub(super) taken_at: DateTime<Utc>,
    /// MariaDB's GTIDs at the snapshot's position, where the dump itself does not say them.
    pub(super) gtids: Option<String>,
}

/// Why a run failed.
pub(super) enum Failure {
    Dump(DumpError),
    /// By the tool's failure, which a changed definition may explain; the fingerprints must tell.
    Tool(Exit),
}

impl<E: Into<DumpError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Dump(error.into())
    }
}

/// What the tool is run with: a dump that restores exactly.
///
/// * `--hex-blob`: BINARY, BLOB, BIT and spatial values survive any character set.
/// * `--complete-insert`: rows name their columns, so that they fit a table whose columns have moved. Both tools leave
///   out or set right generated and invisible columns by themselves (seen on 9.7 and 10.11).
/// * `--no-tablespaces`: reading them needs PROCESS, and InnoDB has none to restore.
/// * `--max-allowed-packet=1G`: the largest row that a server can send. Statements stay at net_buffer_length, about
///   1 MiB, which any server accepts; only a larger row makes a larger statement.
/// * `--set-gtid-purged=COMMENTED`: mysqldump reads the GTIDs under the same read lock as the position; the general
///   log shows FLUSH TABLES WITH READ LOCK, START TRANSACTION, SELECT @@GLOBAL.GTID_EXECUTED, SHOW BINARY LOG STATUS,
///   UNLOCK TABLES. The pump makes the sql_log_bin statements that come with it comments.
/// * mariadb-dump takes no lock: its position is that of the snapshot, `binlog_snapshot_*`.
/// * `loose-` is for what only some versions know. The tool's own lock_wait_timeout is the last resort if we are killed:
///   a server does not notice that the client of a waiting FLUSH is gone (seen on 9.7).
fn arguments(server: &Server, fingerprint: &Fingerprint, lock_wait: Duration, source_data: &str) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--single-transaction",
        "--quick",
        "--skip-lock-tables",
        "--routines",
        "--triggers",
        "--events",
        "--hex-blob",
        "--complete-insert",
        "--comments",
        "--default-character-set=utf8mb4",
        "--tz-utc",
        "--no-tablespaces",
        "--max-allowed-packet=1G",
    ]
    .map(str::to_owned)
    .to_vec();
    if server.log_bin {
        arguments.push(format!("--{source_data}=2"));
    }
    match server.flavour {
        Flavour::MySql => {
            arguments.push(format!("--set-gtid-purged={}", if server.log_bin && server.gtid { "COMMENTED" } else { "OFF" }));
            // Statistics are the server's to gather, and masking policies belong to the whole server.
            arguments.push("--loose-column-statistics=0".to_owned());
            arguments.push("--loose-masking-policies=0".to_owned());
            let seconds = lock_wait.as_secs() + 5;
            arguments.push(format!("--loose-init-command=SET SESSION lock_wait_timeout = {seconds}, max_execution_time = 0"));
        }
        Flavour::MariaDb if !fingerprint.versioned.is_empty() => arguments.push("--loose-dump-history".to_owned()),
        Flavour::MariaDb => {}
    }
    arguments
}

/// Runs the tool to its end. The writer comes back with the outcome; after a failure it has been dropped.
///
/// A lock on definitions is held already, or is to be taken once the snapshot stands; it comes back too.
pub(super) async fn run<W: SectionWriter + Send + 'static>(
    config: &DumpConfig,
    server: &Server,
    tool: &FoundTool,
    fingerprint: &Fingerprint,
    (ddl_lock, lock_after_snapshot): (Option<DdlLock>, bool),
    mut writer: W,
    control: &Control,
) -> Result<(W, Outcome, Option<DdlLock>), Failure> {
    let start_error = |source| ProcessError::Spawn { program: tool.path.clone(), source };
    // The watching session must be older than the tool's: ids tell which sessions cannot be the tool's.
    let mut watch = Watch::new(config, server, ddl_lock).await?;
    let source_data = if tool.has_option("source-data").await? { "source-data" } else { "master-data" };
    let command = OptionFile::client(&config.server, server.flavour).apply(Command::new(&tool.path)).map_err(start_error)?;
    let mut command = command
        .args(arguments(server, fingerprint, config.lock_wait, source_data))
        .arg("--")
        .arg(&config.server.schema)
        .nice(config.effort.nice);
    let stdout = command.pipe_stdout().map_err(start_error)?;
    let mut child = command.spawn().await?;
    watch.pid = child.id();

    let (snapshot_sender, mut snapshot) = oneshot::channel();
    let bytes = watch.bytes.clone();
    let progress = control.progress.clone();
    let mut pumping = tokio::task::spawn_blocking(move || {
        let signals = Signals { snapshot: Some(snapshot_sender), bytes: &bytes, progress: &progress };
        let result = pump::pump(stdout, &mut writer, signals);
        (result, writer)
    });

    let mut stopped = None;
    let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
    let pumped = loop {
        tokio::select! {
            pumped = &mut pumping => break pumped,
            () = control.cancel.cancelled(), if stopped.is_none() => stopped = Some(DumpError::Cancelled),
            position = &mut snapshot, if watch.snapshot.is_none() => {
                watch.note_snapshot(position.ok().flatten()).await;
                if lock_after_snapshot && stopped.is_none() {
                    stopped = watch.lock_definitions(control).await.err();
                }
            }
            _ = ticks.tick(), if stopped.is_none() => stopped = watch.look().await,
        }
        if stopped.is_some() {
            // The pump sees the end of the stream, and the loop the end of the pump.
            child.kill();
        }
    };
    let result = end(config, tool, &mut watch, &mut child, stopped, pumped, control).await;
    if result.is_err() {
        watch.end_session().await;
    }
    result.map(|(writer, outcome)| (writer, outcome, watch.ddl_lock))
}

/// Judges how pump and tool ended; every failure of either counts.
async fn end<W>(
    config: &DumpConfig,
    tool: &FoundTool,
    watch: &mut Watch<'_>,
    child: &mut Child,
    stopped: Option<DumpError>,
    pumped: Result<(Result<Content, PumpError>, W), tokio::task::JoinError>,
    control: &Control,
) -> Result<(W, Outcome), Failure> {
    let name = tool.version.split(' ').next().unwrap_or_default().to_owned();
    let (pumped, writer) = pumped.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    if stopped.is_some() || pumped.is_err() {
        child.kill();
    }
    let exit = tokio::select! {
        exit = child.wait() => exit?,
        () = control.cancel.cancelled(), if stopped.is_none() => return Err(DumpError::Cancelled.into()),
    };
    if let Some(error) = stopped {
        return Err(error.into());
    }
    let content = match pumped {
        Ok(content) => content,
        // The archive writer refuses to write on once cancelled.
        Err(PumpError::Write(_)) if control.cancel.is_cancelled() => return Err(DumpError::Cancelled.into()),
        Err(PumpError::Write(source)) => return Err(DumpError::Write(source).into()),
        Err(PumpError::Read(source)) => return Err(DumpError::Read { tool: name, source }.into()),
    };
    if !exit.success() {
        if error_number(&exit.stderr) == Some(LOCK_WAIT_TIMEOUT) {
            return Err(watch.lock_wait(config.lock_wait).into());
        }
        return Err(match DumpError::from_exit(&exit, &name, content.bytes) {
            Some(error) => Failure::Dump(error),
            None => Failure::Tool(exit),
        });
    }
    if !content.complete {
        return Err(DumpError::Truncated { tool: name, bytes: content.bytes }.into());
    }
    if watch.snapshot.is_none() {
        // The tool was done before its first words were heard.
        watch.note_snapshot(content.position.clone()).await;
    }
    let (taken_at, gtids) = watch.snapshot.take().unwrap_or_else(|| (Utc::now(), None));
    Ok((writer, Outcome { content, taken_at, gtids }))
}

/// A session beside the tool's that looks after it.
struct Watch<'a> {
    config: &'a DumpConfig,
    server: &'a Server,
    conn: Option<MySqlConnection>,
    /// The first watching session's id.
    own_id: u64,
    ddl_lock: Option<DdlLock>,
    pid: Option<u32>,
    /// The tool's session, once it is known.
    session: Option<u64>,
    bytes: Arc<AtomicU64>,
    /// Bytes at the last look, and since when there have been no more.
    seen: (u64, Instant),
    spoke: Instant,
    /// The wait that the tool was last seen in, and who was in its way.
    wait: Option<(Session, Blockers)>,
    /// When the snapshot had been taken, and MariaDB's GTIDs.
    snapshot: Option<(DateTime<Utc>, Option<String>)>,
}

impl<'a> Watch<'a> {
    async fn new(config: &'a DumpConfig, server: &'a Server, ddl_lock: Option<DdlLock>) -> Result<Self, DumpError> {
        let mut conn = config.server.connect().await?;
        let own_id = connection_id(&mut conn).await?;
        let now = Instant::now();
        Ok(Self {
            config,
            server,
            conn: Some(conn),
            own_id,
            ddl_lock,
            pid: None,
            session: None,
            bytes: Arc::default(),
            seen: (0, now),
            spoke: now,
            wait: None,
            snapshot: None,
        })
    }

    /// Keeps others from changing definitions from now on; those changed since the fingerprint are found by the next one.
    async fn lock_definitions(&mut self, control: &Control) -> Result<(), DumpError> {
        let mut conn = self.config.server.connect().await?;
        let lock = DdlLock::take(&self.config.server, self.server, &mut conn, self.config.lock_wait, control).await?;
        self.ddl_lock = Some(lock);
        Ok(())
    }

    /// Reads the server's clock, and on MariaDB the GTIDs of the position, while its log is surely there.
    async fn note_snapshot(&mut self, position: Option<(String, u64)>) {
        let gtids = match (&position, self.server.flavour) {
            (Some((file, pos)), Flavour::MariaDb) => format!("BINLOG_GTID_POS({}, {pos})", quote_text(file)),
            _ => "NULL".to_owned(),
        };
        let query = format!("SELECT UTC_TIMESTAMP(6), {gtids}");
        let asked = self.ask(async |conn| sql::rows(conn, query).await).await;
        let row = asked.as_ref().and_then(|rows| rows.first());
        let time = row.and_then(|row| NaiveDateTime::parse_from_str(&row.text_at(0), "%Y-%m-%d %H:%M:%S%.f").ok());
        let gtids = row.map(|row| row.text_at(1)).filter(|gtids| !gtids.is_empty());
        self.snapshot = Some((time.map_or_else(Utc::now, |time| time.and_utc()), gtids));
    }

    /// Looks whether the tool waits for a lock, and says when it has waited too long.
    async fn look(&mut self) -> Option<DumpError> {
        let (bytes, now) = (self.bytes.load(Ordering::Relaxed), Instant::now());
        if now - self.spoke >= KEEP_ALIVE {
            self.spoke = now;
            self.ask(async |conn| sql::value(conn, "SELECT 1").await).await;
            if let Some(lock) = &mut self.ddl_lock
                && !lock.is_held().await
            {
                // The fingerprints still tell whether anybody made use of that.
                tracing::warn!("the session that kept others from changing definitions was lost");
                self.ddl_lock = None;
            }
        }
        if bytes != self.seen.0 {
            (self.seen, self.wait) = ((bytes, now), None);
            return None;
        }
        let quiet_for = now - self.seen.1;
        if let Some(waiting) = self.waiting().await {
            let server = self.server;
            let blockers = self.ask(async |conn| Ok(sessions::blockers(conn, server, &waiting).await)).await.unwrap_or_default();
            let waited_too_long = Duration::from_secs(waiting.seconds) >= self.config.lock_wait;
            // Who is in the way is best seen before the wait ends.
            if !blockers.sessions.is_empty() || self.wait.is_none() {
                self.wait = Some((waiting, blockers));
            }
            return (waited_too_long && quiet_for >= self.config.lock_wait).then(|| self.lock_wait(self.config.lock_wait));
        }
        // The tool's session cannot be seen, and there is not even a snapshot.
        let hangs = self.session.is_none() && self.snapshot.is_none() && quiet_for >= 2 * self.config.lock_wait;
        hangs.then(|| self.lock_wait(quiet_for))
    }

    /// The tool's session, if it waits for a lock.
    async fn waiting(&mut self) -> Option<Session> {
        if let (None, Some(pid)) = (self.session, self.pid) {
            self.session = self.ask(async |conn| Ok(sessions::of_child(conn, pid).await)).await.flatten();
        }
        let sessions = self.ask(async |conn| sessions::list(conn).await).await?;
        let (user, own_id) = (self.config.server.user.as_str(), self.own_id);
        sessions.into_iter().filter(Session::waits_for_lock).find(|s| match self.session {
            Some(id) => s.id == id,
            // MariaDB does not tell process ids: a younger session of this account, running what only the tool runs.
            None => s.id > own_id && s.user == user && is_the_tools(&s.statement),
        })
    }

    /// The error of a wait that took too long.
    fn lock_wait(&mut self, waited: Duration) -> DumpError {
        let (what, blockers) = match self.wait.take() {
            Some((waiting, blockers)) if waiting.statement.starts_with("FLUSH") => ("flush the tables for a snapshot".to_owned(), blockers),
            Some((waiting, blockers)) => match last_name(&waiting.statement) {
                Some(table) => (format!("read table {table}"), blockers),
                None => (format!("read a table ({})", waiting.state), blockers),
            },
            None => ("take a snapshot".to_owned(), Blockers::default()),
        };
        DumpError::LockWait { what, waited, blockers }
    }

    /// Ends the tool's session, which may go on waiting for its lock, with everybody else behind it, though the tool is dead.
    async fn end_session(&mut self) {
        if let (None, Some(pid)) = (self.session, self.pid) {
            self.session = self.ask(async |conn| Ok(sessions::of_child(conn, pid).await)).await.flatten();
        }
        if let Some(id) = self.session {
            self.ask(async |conn| {
                sessions::kill(conn, id).await;
                Ok(())
            })
            .await;
        }
    }

    /// See [`sessions::ask`].
    async fn ask<T>(&mut self, question: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>) -> Option<T> {
        sessions::ask(&mut self.conn, &self.config.server, question).await
    }
}

/// Whether a statement is one by which the dump tools wait for a lock.
fn is_the_tools(statement: &str) -> bool {
    let statement = statement.to_uppercase();
    statement.contains("/*!40001 SQL_NO_CACHE */") || ["FLUSH", "SHOW", "LOCK"].iter().any(|word| statement.starts_with(word))
}

/// The last quoted name of one of the tools' statements, which is the table's.
fn last_name(statement: &str) -> Option<&str> {
    let end = statement.rfind('`')?;
    let start = statement[..end].rfind('`')?;
    Some(&statement[start..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_statements() {
        let select = "SELECT /*!40001 SQL_NO_CACHE */ `id`, `p` FROM `child`";
        assert!(is_the_tools(select) && is_the_tools("show create table `t`") && is_the_tools("FLUSH /*!40101 LOCAL */ TABLES"));
        assert!(!is_the_tools("SELECT `id` FROM `child`"));
        assert_eq!(last_name(select), Some("`child`"));
        assert_eq!(last_name("SHOW TRIGGERS LIKE 'x'"), None);
    }
}
