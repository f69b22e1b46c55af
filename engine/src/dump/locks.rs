//! Locks, and waiting for them: the moment's quiet that MySQL's snapshot needs, the last attempt's hold on definitions,
//! and sessions that wait no longer than they are told.

use super::error::{DumpError, LOCK_WAIT_TIMEOUT};
use crate::{
    control::Control,
    server::{Flavour, Server, ServerConfig, ServerError},
    sessions::{self, Blockers, Session},
    sql::{self, server_error},
};
use sqlx::MySqlConnection;
use std::time::{Duration, Instant};

/// A statement that has run this long will not end at once, in seconds.
const LONG: u64 = 3;
/// How often the list of sessions is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Opens a session that waits at most `wait` for a lock: even SHOW CREATE TABLE may have to.
///
/// On MySQL it does after a FLUSH TABLES was given up while somebody holds LOCK TABLES (seen on 9.7).
pub(super) async fn session(config: &ServerConfig, wait: Duration) -> Result<MySqlConnection, ServerError> {
    let mut conn = config.connect().await?;
    let set = format!("SET SESSION lock_wait_timeout = {}", wait.as_secs().max(1));
    sql::run(&mut conn, set).await.map_err(ServerError::query("limit the session's wait for locks"))?;
    Ok(conn)
}

/// Names who was in the way, if the error is a lock that was not had in time; `conn` is the session that waited.
pub(super) async fn explain(error: ServerError, conn: &mut MySqlConnection, server: &Server, wait: Duration) -> DumpError {
    match &error {
        ServerError::Query { what, source } if server_error(source) == Some(LOCK_WAIT_TIMEOUT) => {
            let waited = Session { seconds: wait.as_secs(), ..Session::default() };
            let blockers = sessions::blockers(conn, server, &waited).await;
            DumpError::LockWait { what: what.clone(), waited: wait, blockers }
        }
        _ => error.into(),
    }
}

/// Waits until no statement runs that FLUSH TABLES would have to wait for.
///
/// On MySQL mysqldump takes its snapshot under FLUSH TABLES and FLUSH TABLES WITH READ LOCK. While either waits for
/// a long SELECT, every new statement on that table waits behind it, and goes on waiting when the FLUSH gives up or
/// is killed: until the SELECT ends (seen on 9.7). So the FLUSH is not even tried while one runs. An account without
/// PROCESS sees its own sessions only; then nothing can be waited for.
pub(super) async fn wait_for_quiet(conn: &mut MySqlConnection, wait: Duration, control: &Control) -> Result<(), DumpError> {
    let (start, own) = (Instant::now(), connection_id(conn).await?);
    loop {
        let sessions = sessions::list(conn).await.map_err(ServerError::query("list the server's sessions"))?;
        let mut long: Vec<_> = sessions.into_iter().filter(|s| s.is_busy() && s.seconds >= LONG && s.id != own).collect();
        if let (false, Some(using_tables)) = (long.is_empty(), sessions::using_tables(conn).await) {
            // SELECT SLEEP(3600) is in nobody's way.
            long.retain(|s| using_tables.contains(&s.id));
        }
        if long.is_empty() {
            return Ok(());
        }
        if start.elapsed() >= wait {
            long.sort_by_key(|s| std::cmp::Reverse(s.seconds));
            let blockers = Blockers { sessions: long, sure: true };
            return Err(DumpError::LockWait { what: "find a moment to flush the tables".to_owned(), waited: wait, blockers });
        }
        tokio::select! {
            () = control.cancel.cancelled() => return Err(DumpError::Cancelled),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Keeps others from changing definitions, on a session of its own, until dropped. Rows can be changed meanwhile.
///
/// Tried on MySQL 9.7 (LOCK INSTANCE FOR BACKUP) and MariaDB 10.11 (BACKUP STAGE BLOCK_DDL): CREATE, ALTER, DROP, TRUNCATE
/// and RENAME of tables, views, triggers, routines, events and indexes all wait; the dump tool does not.
pub(super) struct DdlLock(MySqlConnection);

impl DdlLock {
    /// Takes the lock; `conn` is another session, to look at who is in the way.
    pub(super) async fn take(
        config: &ServerConfig,
        server: &Server,
        conn: &mut MySqlConnection,
        wait: Duration,
        control: &Control,
    ) -> Result<Self, DumpError> {
        let mut lock = config.connect().await?;
        let id = connection_id(&mut lock).await?;
        let statements: &[&str] = match server.flavour {
            Flavour::MySql => &["LOCK INSTANCE FOR BACKUP"],
            Flavour::MariaDb => &["BACKUP STAGE START", "BACKUP STAGE BLOCK_DDL"],
        };
        let locked = async {
            // The server forgets sessions that say nothing for long; ours is asked in between, but not often.
            sql::run(&mut lock, format!("SET SESSION wait_timeout = 86400, lock_wait_timeout = {}", wait.as_secs().max(1))).await?;
            for statement in statements {
                sql::run(&mut lock, *statement).await?;
            }
            Ok(lock)
        };
        let mut locked = std::pin::pin!(locked);
        let mut blockers = Blockers::default();
        loop {
            tokio::select! {
                result = &mut locked => {
                    return match result {
                        Ok(lock) => Ok(Self(lock)),
                        Err(error) if server_error(&error) == Some(LOCK_WAIT_TIMEOUT) => {
                            Err(DumpError::LockWait { what: "keep others from changing definitions".to_owned(), waited: wait, blockers })
                        }
                        Err(error) => Err(ServerError::query("keep others from changing definitions")(error).into()),
                    };
                }
                () = control.cancel.cancelled() => {
                    sessions::kill(conn, id).await;
                    return Err(DumpError::Cancelled);
                }
                () = tokio::time::sleep(LOOK) => {
                    let waiting = waiting(conn, id).await;
                    if let Some(waiting) = waiting {
                        blockers = sessions::blockers(conn, server, &waiting).await;
                    }
                }
            }
        }
    }

    /// Whether the session, and with it the lock, is still there; also keeps it from being forgotten.
    pub(super) async fn is_held(&mut self) -> bool {
        sql::value(&mut self.0, "SELECT 1").await.is_ok()
    }
}

/// Session `id`, if it waits for a lock.
async fn waiting(conn: &mut MySqlConnection, id: u64) -> Option<Session> {
    sessions::list(conn).await.ok()?.into_iter().find(|s| s.id == id && s.waits_for_lock())
}

/// The session's own id.
pub(super) async fn connection_id(conn: &mut MySqlConnection) -> Result<u64, ServerError> {
    let id = sql::value(conn, "SELECT CONNECTION_ID()").await.map_err(ServerError::query("read the session's id"))?;
    Ok(id.parse().unwrap_or(0))
}
