//! Other sessions of the server: which one is in the way, and ending one of ours.

use crate::{
    server::{Flavour, Server, ServerConfig},
    sql,
};
use sqlx::MySqlConnection;
use std::{fmt, time::Duration};

/// How long the watching session may take to answer before it is given up for another, and a cancel be delayed.
const PATIENCE: Duration = Duration::from_millis(800);

/// A session as SHOW PROCESSLIST lists it. Without PROCESS an account sees its own sessions only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// Connection id, for KILL.
    pub id: u64,
    /// Account name.
    pub user: String,
    /// Where it comes from.
    pub host: String,
    /// Its default schema; empty for none.
    pub schema: String,
    /// "Query", "Sleep", ...
    pub command: String,
    /// How long it has been in this state, in seconds.
    pub seconds: u64,
    /// "Waiting for table flush", ...
    pub state: String,
    /// The statement it runs; empty for none.
    pub statement: String,
}

/// Asks the watching session, or a new one where it was lost. No answer is no reason to end what is watched.
pub(crate) async fn ask<T>(
    watching: &mut Option<MySqlConnection>,
    server: &ServerConfig,
    question: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
) -> Option<T> {
    let answer = async {
        let mut conn = match watching.take() {
            Some(conn) => conn,
            None => server.connect().await.ok()?,
        };
        let answer = question(&mut conn).await;
        // A refusal by the server leaves the session good.
        let lost = matches!(&answer, Err(error) if error.as_database_error().is_none());
        Some((answer.ok(), (!lost).then_some(conn)))
    };
    let (answer, conn) = tokio::time::timeout(PATIENCE, answer).await.ok().flatten()?;
    *watching = conn;
    answer
}

/// Lists the sessions that the account may see.
pub async fn list(conn: &mut MySqlConnection) -> Result<Vec<Session>, sqlx::Error> {
    let rows = sql::rows(conn, "SHOW FULL PROCESSLIST").await?;
    Ok(rows
        .iter()
        .map(|row| Session {
            id: row.number_at(0),
            user: row.text_at(1),
            host: row.text_at(2),
            schema: row.text_at(3),
            command: row.text_at(4),
            // Negative or NULL while a session logs in.
            seconds: row.number_at(5),
            state: row.text_at(6),
            statement: row.text_at(7),
        })
        .collect())
}

impl Session {
    /// Whether it waits for a lock of a table, of all tables, or on definitions.
    pub fn waits_for_lock(&self) -> bool {
        self.state.starts_with("Waiting for ") && (self.state.ends_with(" lock") || self.state.ends_with("table flush"))
    }

    /// Whether it is running a statement of a client that is not itself waiting for a lock.
    pub fn is_busy(&self) -> bool {
        matches!(self.command.as_str(), "Query" | "Execute") && !self.waits_for_lock()
    }
}

/// `session 41 (root@localhost, Query for 95 s: SELECT sleep)`. Of the statement only the beginning is shown, and
/// nothing from the first quote on: that may be anybody's data, or a password.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} ({}@{}, {} for {} s", self.id, self.user, self.host, self.command, self.seconds)?;
        let words = self.statement.split(['\'', '"']).next().unwrap_or_default().split_whitespace();
        let text: String = words.collect::<Vec<_>>().join(" ").chars().take(80).collect();
        match text.is_empty() {
            true => f.write_str(")"),
            false => write!(f, ": {text})"),
        }
    }
}

/// `blocked by session 41 (...) or one of 2 others`.
impl fmt::Display for Blockers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let perhaps = if self.sure { "" } else { "perhaps " };
        match self.sessions.as_slice() {
            [] => f.write_str("no other session that this account may see is in the way"),
            [one] => write!(f, "{perhaps}blocked by {one}"),
            [first, second] => write!(f, "{perhaps}blocked by {first} or {second}"),
            [first, rest @ ..] => write!(f, "{perhaps}blocked by {first} or one of {} others", rest.len()),
        }
    }
}

/// The server's id of the session that our child `pid` opened. MySQL's clients tell their process id to the server.
pub async fn of_child(conn: &mut MySqlConnection, pid: u32) -> Option<u64> {
    let query = format!(
        "SELECT processlist_id FROM performance_schema.session_account_connect_attrs WHERE attr_name = '_pid' AND attr_value = '{pid}'"
    );
    // Absent on MariaDB, where performance_schema is off by default.
    let rows = sql::rows(conn, query).await.ok()?;
    match rows.as_slice() {
        [only] => Some(only.number_at(0)),
        // Several: clients on different hosts may have the same process id.
        _ => None,
    }
}

/// Ends a session of ours; no privilege is needed for that. One that is gone already is no error.
pub async fn kill(conn: &mut MySqlConnection, id: u64) {
    let _ = sql::run(conn, format!("KILL {id}")).await;
}

/// The sessions that keep another from a lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blockers {
    /// The likeliest first; empty when none can be seen.
    pub sessions: Vec<Session>,
    /// Whether the server said so; otherwise they are who could be.
    pub sure: bool,
}

/// Finds the sessions that keep `waiting` from its lock.
///
/// Metadata locks say it exactly, where there are any to read: not on MariaDB without performance_schema or the plugin
/// metadata_lock_info, and not for "Waiting for table flush", which is for no metadata lock; but then LOCK TABLES shows.
/// Otherwise it is whoever has been running for longer, or else whoever is idle in a transaction or in the same schema.
pub async fn blockers(conn: &mut MySqlConnection, server: &Server, waiting: &Session) -> Blockers {
    let sessions = list(conn).await.unwrap_or_default();
    let own = sql::value(conn, "SELECT CONNECTION_ID()").await.ok().and_then(|id| id.parse().ok()).unwrap_or(0);
    let mut holders = lock_holders(conn, waiting.id).await;
    if holders.is_empty() {
        holders = table_lockers(conn, server).await;
    }
    let in_transaction = ids(conn, "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx").await.unwrap_or_default();
    let others = |is_one: &dyn Fn(&Session) -> bool| {
        let may_be = |s: &&Session| ![own, waiting.id].contains(&s.id) && is_one(s);
        let mut sessions: Vec<_> = sessions.iter().filter(may_be).cloned().collect();
        sessions.sort_by_key(|s| (s.waits_for_lock(), std::cmp::Reverse(s.seconds)));
        sessions
    };
    let known = others(&|s| holders.contains(&s.id));
    if !known.is_empty() {
        return Blockers { sessions: known, sure: true };
    }
    // Times are whole seconds: in the first one, any passing query of another application seems to have run for as long.
    let is_told = |s: &Session| waiting.seconds > 0 || s.schema == waiting.schema || in_transaction.contains(&s.id);
    let running = others(&|s| s.is_busy() && s.seconds >= waiting.seconds && is_told(s));
    if !running.is_empty() {
        return Blockers { sessions: running, sure: false };
    }
    let idle = others(&|s| {
        let uses_schema = s.command == "Sleep" && s.schema == waiting.schema;
        s.seconds >= waiting.seconds && (in_transaction.contains(&s.id) || uses_schema || s.waits_for_lock())
    });
    Blockers { sessions: idle, sure: false }
}

/// The sessions whose statement or transaction uses a table; `None` when the account may not know.
pub(crate) async fn using_tables(conn: &mut MySqlConnection) -> Option<Vec<u64>> {
    ids(
        conn,
        "SELECT DISTINCT t.processlist_id FROM performance_schema.metadata_locks l \
         JOIN performance_schema.threads t ON t.thread_id = l.owner_thread_id WHERE l.object_type = 'TABLE' AND l.lock_status = 'GRANTED'",
    )
    .await
}

/// Sessions that hold a metadata lock on what session `id` waits for.
async fn lock_holders(conn: &mut MySqlConnection, id: u64) -> Vec<u64> {
    let query = format!(
        "SELECT DISTINCT ht.processlist_id FROM performance_schema.threads wt \
         JOIN performance_schema.metadata_locks w ON w.owner_thread_id = wt.thread_id AND w.lock_status = 'PENDING' \
         JOIN performance_schema.metadata_locks h ON h.object_type = w.object_type AND h.object_schema <=> w.object_schema \
           AND h.object_name <=> w.object_name AND h.lock_status = 'GRANTED' AND h.owner_thread_id <> w.owner_thread_id \
         JOIN performance_schema.threads ht ON ht.thread_id = h.owner_thread_id WHERE wt.processlist_id = {id}"
    );
    ids(conn, &query).await.unwrap_or_default()
}

/// Sessions that keep others from reading or writing a table, or from changing definitions: LOCK TABLES, DDL, backups.
async fn table_lockers(conn: &mut MySqlConnection, server: &Server) -> Vec<u64> {
    let query = match server.flavour {
        Flavour::MySql => {
            "SELECT DISTINCT t.processlist_id FROM performance_schema.metadata_locks l \
             JOIN performance_schema.threads t ON t.thread_id = l.owner_thread_id WHERE l.object_type = 'TABLE' AND l.lock_status = 'GRANTED' \
             AND l.lock_type IN ('SHARED_READ_ONLY', 'SHARED_NO_WRITE', 'SHARED_NO_READ_WRITE', 'EXCLUSIVE')"
        }
        // A plugin that must have been installed.
        Flavour::MariaDb => {
            "SELECT DISTINCT thread_id FROM information_schema.metadata_lock_info \
             WHERE lock_mode IN ('MDL_SHARED_READ_ONLY', 'MDL_SHARED_NO_WRITE', 'MDL_SHARED_NO_READ_WRITE', 'MDL_EXCLUSIVE', 'MDL_BACKUP_DDL')"
        }
    };
    ids(conn, query).await.unwrap_or_default()
}

async fn ids(conn: &mut MySqlConnection, query: &str) -> Option<Vec<u64>> {
    Some(sql::rows(conn, query).await.ok()?.iter().map(|row| row.number_at(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_in_messages() {
        let session = Session {
            id: 41,
            user: "root".to_owned(),
            host: "localhost".to_owned(),
            command: "Query".to_owned(),
            seconds: 95,
            statement: "ALTER USER\n  x IDENTIFIED BY 's3cret'".to_owned(),
            ..Session::default()
        };
        assert_eq!(session.to_string(), "session 41 (root@localhost, Query for 95 s: ALTER USER x IDENTIFIED BY)");
        let idle = Session { command: "Sleep".to_owned(), statement: String::new(), ..session };
        assert_eq!(idle.to_string(), "session 41 (root@localhost, Sleep for 95 s)");
    }

    #[test]
    fn lock_waits_are_known_by_their_state() {
        let session = |state: &str| Session { command: "Query".to_owned(), state: state.to_owned(), ..Session::default() };
        for state in
            ["Waiting for table flush", "Waiting for global read lock", "Waiting for table metadata lock", "Waiting for backup lock"]
        {
            assert!(session(state).waits_for_lock() && !session(state).is_busy(), "{state}");
        }
        for state in ["Sending to client", "Writing to net", "User sleep", "Waiting for next activation", ""] {
            assert!(!session(state).waits_for_lock(), "{state}");
        }
    }
}
