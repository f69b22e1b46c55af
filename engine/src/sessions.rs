//! Other sessions of the server: which one is in the way, and ending one of ours.

use crate::{
    server::{Flavour, Server},
    sql,
};
use sqlx::MySqlConnection;
use std::fmt;

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

/// The sessions that keep `waiting` from its lock, the likeliest first; empty when none can be seen.
///
/// Metadata locks say it exactly, where the account may read them; but MySQL's "Waiting for table flush" is for
/// no metadata lock. Otherwise it is whoever has been running the longest.
pub async fn blockers(conn: &mut MySqlConnection, server: &Server, waiting: &Session) -> Vec<Session> {
    let sessions = list(conn).await.unwrap_or_default();
    let own = sql::value(conn, "SELECT CONNECTION_ID()").await.ok().and_then(|id| id.parse().ok()).unwrap_or(0);
    let holders = lock_holders(conn, server, waiting.id).await;
    let mut blockers: Vec<_> = sessions.iter().filter(|s| holders.contains(&s.id) && s.id != waiting.id).cloned().collect();
    if blockers.is_empty() {
        let may_block = |s: &&Session| s.is_busy() && s.seconds >= waiting.seconds && ![own, waiting.id].contains(&s.id);
        blockers = sessions.iter().filter(may_block).cloned().collect();
    }
    blockers.sort_by_key(|s| std::cmp::Reverse(s.seconds));
    blockers
}

/// Sessions that hold a metadata lock on what session `id` waits for.
async fn lock_holders(conn: &mut MySqlConnection, server: &Server, id: u64) -> Vec<u64> {
    let by_schema = format!(
        "SELECT DISTINCT ht.processlist_id FROM performance_schema.threads wt \
         JOIN performance_schema.metadata_locks w ON w.owner_thread_id = wt.thread_id AND w.lock_status = 'PENDING' \
         JOIN performance_schema.metadata_locks h ON h.object_type = w.object_type AND h.object_schema <=> w.object_schema \
           AND h.object_name <=> w.object_name AND h.lock_status = 'GRANTED' AND h.owner_thread_id <> w.owner_thread_id \
         JOIN performance_schema.threads ht ON ht.thread_id = h.owner_thread_id WHERE wt.processlist_id = {id}"
    );
    // MariaDB's plugin lists granted locks only, so all holders of locks that keep readers out are suspects.
    let by_plugin = "SELECT DISTINCT thread_id FROM information_schema.metadata_lock_info \
                     WHERE lock_mode IN ('MDL_EXCLUSIVE', 'MDL_SHARED_NO_READ_WRITE', 'MDL_SHARED_READ_ONLY', 'MDL_BACKUP_DDL')";
    let mut holders = ids(conn, &by_schema).await;
    if holders.is_empty() && server.flavour == Flavour::MariaDb {
        holders = ids(conn, by_plugin).await;
    }
    holders
}

async fn ids(conn: &mut MySqlConnection, query: &str) -> Vec<u64> {
    sql::rows(conn, query).await.map(|rows| rows.iter().map(|row| row.number_at(0)).collect()).unwrap_or_default()
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
