//! Putting a loaded schema in the place of a live one: what is where, and the statements that move it.
//!
//! All tables change places by one RENAME TABLE statement, so that every table's rows are the old or the new ones at every
//! instant. Who calls this keeps a journal: each function may run again after a crash.
//!
//! Triggers block a move between schemas (error 1435), so they are dropped before and made again after it. MySQL lets a
//! session rename what it holds under LOCK TABLES ... WRITE, so nobody writes without triggers; MariaDB refuses that (1192).

use crate::{
    server::{Flavour, Server, ServerConfig, ServerError},
    sessions::{self, Blockers, Session},
    sql::{self, quote_name, quote_text, server_error},
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Executor, MySqlConnection};
use std::{collections::BTreeSet, time::Duration};

/// The server's error number for a lock that was not had in time.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// And for one that was refused, since two would have waited for each other: with another session's FLUSH TABLES, for one.
const DEADLOCK: u16 = 1213;
/// How often the list of sessions is looked at while a lock is waited for.
const LOOK: Duration = Duration::from_millis(300);

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum CutOverError {
    #[error("cannot {what} within {} s: {blockers}", waited.as_secs())]
    LockWait { what: String, waited: Duration, blockers: Blockers },
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl CutOverError {
    /// Whether it was a lock that others hold.
    pub fn is_lock_wait(&self) -> bool {
        matches!(self, Self::LockWait { .. })
    }
}

/// A foreign key in another schema that refers to a table of this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Where it is.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The table that it refers to.
    pub referenced_table: String,
    /// And its columns.
    pub referenced_columns: Vec<String>,
    /// ON UPDATE.
    pub on_update: String,
    /// ON DELETE.
    pub on_delete: String,
}

impl ForeignKey {
    /// Takes it away.
    pub fn drop_statement(&self) -> String {
        format!("ALTER TABLE {}.{} DROP FOREIGN KEY {}", quote_name(&self.schema), quote_name(&self.table), quote_name(&self.name))
    }

    /// Makes it again, on the table that now has the name in `schema`.
    pub fn make_statement(&self, schema: &str) -> String {
        let list = |names: &[String]| names.iter().map(|n| quote_name(n)).collect::<Vec<_>>().join(", ");
        format!(
            "ALTER TABLE {}.{} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {}.{} ({}) ON UPDATE {} ON DELETE {}",
            quote_name(&self.schema),
            quote_name(&self.table),
            quote_name(&self.name),
            list(&self.columns),
            quote_name(schema),
            quote_name(&self.referenced_table),
            list(&self.referenced_columns),
            self.on_update,
            self.on_delete
        )
    }
}

/// `shop`.`order` (`order_item`).
impl std::fmt::Display for ForeignKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {}.{} (refers to {})",
            quote_name(&self.name),
            quote_name(&self.schema),
            quote_name(&self.table),
            quote_name(&self.referenced_table)
        )
    }
}

/// Foreign keys of other schemas that refer to tables of `schema`. An account sees those of tables that it may use.
pub async fn foreign_keys_from_elsewhere(conn: &mut MySqlConnection, schema: &str) -> Result<Vec<ForeignKey>, ServerError> {
    let quoted = quote_text(schema);
    let rows = sql::rows(
        conn,
        format!(
            "SELECT k.table_schema, k.table_name, k.constraint_name, k.column_name, k.referenced_table_name, k.referenced_column_name, \
                    r.update_rule, r.delete_rule \
               FROM information_schema.key_column_usage k JOIN information_schema.referential_constraints r \
                 ON r.constraint_schema = k.constraint_schema AND r.table_name = k.table_name AND r.constraint_name = k.constraint_name \
              WHERE k.referenced_table_schema = {quoted} AND k.table_schema <> {quoted} \
              ORDER BY k.table_schema, k.table_name, k.constraint_name, k.ordinal_position"
        ),
    )
    .await
    .map_err(ServerError::query(format!("list the foreign keys that refer to schema `{schema}`")))?;
    let mut found: Vec<ForeignKey> = Vec::new();
    for row in rows {
        let (owner, table, name) = (row.text_at(0), row.text_at(1), row.text_at(2));
        match found.last_mut() {
            Some(last) if (&last.schema, &last.table, &last.name) == (&owner, &table, &name) => {
                last.columns.push(row.text_at(3));
                last.referenced_columns.push(row.text_at(5));
            }
            _ => found.push(ForeignKey {
                schema: owner,
                table,
                name,
                columns: vec![row.text_at(3)],
                referenced_table: row.text_at(4),
                referenced_columns: vec![row.text_at(5)],
                on_update: row.text_at(6),
                on_delete: row.text_at(7),
            }),
        }
    }
    Ok(found)
}

/// Views, triggers, routines and events of other schemas whose text names `schema`: "view `other`.`v`".
pub async fn code_elsewhere(conn: &mut MySqlConnection, schema: &str) -> Result<Vec<String>, ServerError> {
    let quoted = quote_text(schema);
    // A pattern for LIKE; `_` and `%` in the name are taken literally.
    let escaped = schema.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let names = |text: &str| {
        format!("({text} LIKE {} OR {text} LIKE {})", quote_text(&format!("%`{escaped}`.%")), quote_text(&format!("%{escaped}.%")))
    };
    let queries = [
        format!(
            "SELECT 'view', table_schema, table_name FROM information_schema.views WHERE table_schema NOT IN ({quoted}, 'sys') AND {}",
            names("view_definition")
        ),
        format!(
            "SELECT 'trigger', trigger_schema, trigger_name FROM information_schema.triggers WHERE trigger_schema NOT IN ({quoted}, 'sys') AND {}",
            names("action_statement")
        ),
        format!(
            "SELECT LOWER(routine_type), routine_schema, routine_name FROM information_schema.routines WHERE routine_schema NOT IN ({quoted}, 'sys') AND {}",
            names("routine_definition")
        ),
        format!(
            "SELECT 'event', event_schema, event_name FROM information_schema.events WHERE event_schema <> {quoted} AND {}",
            names("event_definition")
        ),
    ];
    let mut found = Vec::new();
    for query in queries {
        for row in sql::rows(conn, query).await.map_err(ServerError::query(format!("look for what names schema `{schema}`")))? {
            found.push(format!("{} {}.{}", row.text_at(0), quote_name(&row.text_at(1)), quote_name(&row.text_at(2))));
        }
    }
    Ok(found)
}

/// Whether there is such a schema.
pub async fn schema_exists(conn: &mut MySqlConnection, schema: &str) -> Result<bool, ServerError> {
    let query = format!("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = {}", quote_text(schema));
    Ok(sql::value(conn, query).await.map_err(ServerError::query(format!("look for schema `{schema}`")))? != "0")
}

/// The default collation of a schema.
pub async fn collation(conn: &mut MySqlConnection, schema: &str) -> Result<String, ServerError> {
    let query = format!("SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = {}", quote_text(schema));
    sql::value(conn, query).await.map_err(ServerError::query(format!("read the collation of schema `{schema}`")))
}

/// Makes a schema, if it is not there.
pub async fn make_schema(conn: &mut MySqlConnection, schema: &str, collation: &str) -> Result<(), ServerError> {
    let statement = format!("CREATE DATABASE IF NOT EXISTS {} COLLATE {collation}", quote_name(schema));
    sql::run(conn, statement).await.map_err(ServerError::query(format!("make schema `{schema}`")))
}

/// Drops a schema, if it is there.
pub async fn drop_schema(conn: &mut MySqlConnection, schema: &str) -> Result<(), ServerError> {
    let statement = format!("DROP DATABASE IF EXISTS {}", quote_name(schema));
    sql::run(conn, statement).await.map_err(ServerError::query(format!("drop schema `{schema}`")))
}

/// The tables of a schema, and MariaDB's sequences: what RENAME TABLE moves.
pub async fn tables(conn: &mut MySqlConnection, schema: &str) -> Result<BTreeSet<String>, ServerError> {
    let query = format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = {} AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE')",
        quote_text(schema)
    );
    let rows = sql::rows(conn, query).await.map_err(ServerError::query(format!("list the tables of schema `{schema}`")))?;
    Ok(rows.iter().map(|row| row.text_at(0)).collect())
}

/// Where tables come from and go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The schema that is replaced.
    pub live: String,
    /// Where the new tables are.
    pub stage: String,
    /// Where the replaced ones go.
    pub undo: String,
}

/// Which tables change places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// Those that are live before.
    pub old: BTreeSet<String>,
    /// Those that are live afterwards.
    pub new: BTreeSet<String>,
}

/// How far a move has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remaining {
    /// Old tables that are still live.
    pub old: BTreeSet<String>,
    /// New tables that are not yet live.
    pub new: BTreeSet<String>,
}

impl Moves {
    /// What has not yet been moved, by what is where.
    pub async fn remaining(&self, conn: &mut MySqlConnection, places: &Places) -> Result<Remaining, ServerError> {
        let (stage, undo) = (tables(conn, &places.stage).await?, tables(conn, &places.undo).await?);
        Ok(Remaining { old: self.old.difference(&undo).cloned().collect(), new: self.new.intersection(&stage).cloned().collect() })
    }

    /// Whether nothing has been moved.
    pub fn is_untouched(&self, remaining: &Remaining) -> bool {
        self.old == remaining.old && self.new == remaining.new
    }
}

impl Remaining {
    /// Whether everything has been moved.
    pub fn is_none(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }

    /// The one statement that moves it.
    pub fn statement(&self, places: &Places) -> String {
        let (live, stage, undo) = (quote_name(&places.live), quote_name(&places.stage), quote_name(&places.undo));
        let away = self.old.iter().map(|t| format!("{live}.{0} TO {undo}.{0}", quote_name(t)));
        let here = self.new.iter().map(|t| format!("{stage}.{0} TO {live}.{0}", quote_name(t)));
        format!("RENAME TABLE {}", away.chain(here).collect::<Vec<_>>().join(", "))
    }

    /// The statement that lets nobody else use any of them; MySQL alone can rename under it.
    pub fn lock_statement(&self, places: &Places) -> String {
        let (live, stage) = (quote_name(&places.live), quote_name(&places.stage));
        let old = self.old.iter().map(|t| format!("{live}.{} WRITE", quote_name(t)));
        let new = self.new.iter().map(|t| format!("{stage}.{} WRITE", quote_name(t)));
        format!("LOCK TABLES {}", old.chain(new).collect::<Vec<_>>().join(", "))
    }
}

/// Runs statements that may have to wait for others' locks, each at most `patience`, and names who was in the way.
pub struct Patient<'a> {
    /// To look at the server's sessions meanwhile.
    pub config: &'a ServerConfig,
    /// What it is.
    pub server: &'a Server,
    /// How long each statement waits.
    pub patience: Duration,
}

impl Patient<'_> {
    /// Limits the session's waits.
    pub async fn prepare(&self, conn: &mut MySqlConnection) -> Result<(), ServerError> {
        // The rows of a table are waited for as its definition is.
        let seconds = self.patience.as_secs().max(1);
        let set = format!("SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}");
        sql::run(conn, set).await.map_err(ServerError::query("limit the session's wait for locks"))
    }

    /// Runs a statement; `what` completes "cannot ...".
    pub async fn run(&self, conn: &mut MySqlConnection, statement: &str, what: &str) -> Result<(), CutOverError> {
        let id = sql::value(conn, "SELECT CONNECTION_ID()").await.map_err(ServerError::query("read the session's id"))?;
        let id: u64 = id.parse().unwrap_or(0);
        let mut watcher = None;
        let mut blockers = Blockers::default();
        let mut running = std::pin::pin!(conn.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))));
        loop {
            tokio::select! {
                result = &mut running => {
                    return match result {
                        Ok(_) => Ok(()),
                        Err(error) if matches!(server_error(&error), Some(LOCK_WAIT_TIMEOUT | DEADLOCK)) => {
                            Err(CutOverError::LockWait { what: what.to_owned(), waited: self.patience, blockers })
                        }
                        Err(error) => Err(ServerError::query(what)(error).into()),
                    };
                }
                () = tokio::time::sleep(LOOK) => {
                    // Without it nobody is named; the statement itself matters more.
                    if watcher.is_none() {
                        watcher = self.config.connect_without_schema().await.ok();
                    }
                    if let Some(watcher) = &mut watcher
                        && let Some(waiting) = waiting(watcher, id).await
                    {
                        blockers = sessions::blockers(watcher, self.server, &waiting).await;
                    }
                }
            }
        }
    }
}

/// Session `id`, if it waits for a lock.
async fn waiting(conn: &mut MySqlConnection, id: u64) -> Option<Session> {
    sessions::list(conn).await.ok()?.into_iter().find(|s| s.id == id && s.waits_for_lock())
}

/// Whether RENAME TABLE is possible under LOCK TABLES.
pub fn renames_under_lock(server: &Server) -> bool {
    server.flavour == Flavour::MySql
}

/// Why nothing may be restored to this server; `None`: it takes writes, and is the one that does.
pub async fn unfit(conn: &mut MySqlConnection, server: &Server) -> Option<String> {
    if server.read_only {
        return Some("the server is read_only. Next: point HERATIO_DATABASE_URL at the one server that takes writes".into());
    }
    // Without the privilege to ask, nothing is known.
    if sql::rows(conn, "SHOW REPLICA STATUS").await.is_ok_and(|sources| !sources.is_empty()) {
        return Some(
            "the server is a replica: what is changed here is not on its source. Next: point HERATIO_DATABASE_URL at the source".into(),
        );
    }
    for variable in ["wsrep_on", "group_replication_group_name"] {
        if server.variable(variable).is_some_and(|v| !v.is_empty() && !v.eq_ignore_ascii_case("off") && v != "0") {
            return Some(format!(
                "the server is a member of a cluster ({variable}), where one RENAME is not one for all. Next: restore with --into on a server of its own"
            ));
        }
    }
    None
}

/// The settings that a restore leaves as they stood: the rows of `ahg_settings` in group `backup`.
pub const SETTINGS: &str = "ahg_settings";
/// Their condition.
pub const KEPT: &str = "setting_group = 'backup'";

/// Copies the backup group of settings from the live schema to the staging schema, so that it stays as it is. Returns how many rows,
/// or `None` where there is nothing to keep.
///
/// Runs under LOCK TABLES as well, so no table is named twice in a statement. May run again.
pub async fn keep_settings(conn: &mut MySqlConnection, places: &Places, moves: &Moves) -> Result<Option<usize>, ServerError> {
    if !moves.old.contains(SETTINGS) || !moves.new.contains(SETTINGS) {
        return Ok(None);
    }
    let failed = || ServerError::query("keep the settings of the group `backup`");
    let (live, stage) = (format!("{}.{SETTINGS}", quote_name(&places.live)), format!("{}.{SETTINGS}", quote_name(&places.stage)));
    let columns = async |conn: &mut MySqlConnection, schema: &str| {
        let query = format!(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = {} AND table_name = '{SETTINGS}' AND COALESCE(generation_expression, '') = ''",
            quote_text(schema)
        );
        let rows = sql::rows(conn, query).await.map_err(failed())?;
        Ok::<BTreeSet<String>, ServerError>(rows.iter().map(|row| row.text_at(0)).collect())
    };
    let there = columns(conn, &places.stage).await?;
    let shared: Vec<String> = columns(conn, &places.live).await?.into_iter().filter(|c| there.contains(c)).collect();
    if !["setting_key", "setting_group"].iter().all(|c| shared.iter().any(|s| s == c)) {
        return Ok(None);
    }
    let list = shared.iter().map(|c| quote_name(c)).collect::<Vec<_>>().join(", ");
    let texts = shared.iter().map(|c| format!("QUOTE({})", quote_name(c))).collect::<Vec<_>>().join(", ");
    let kept = sql::rows(conn, format!("SELECT {texts} FROM {live} WHERE {KEPT}")).await.map_err(failed())?;
    sql::run(conn, format!("DELETE FROM {stage} WHERE {KEPT}")).await.map_err(failed())?;
    let place = |name: &str| shared.iter().position(|c| c == name);
    for row in &kept {
        let mut values: Vec<String> = (0..shared.len()).map(|at| row.text_at(at)).collect();
        if let Some(key) = place("setting_key") {
            // A key is unique, whatever its group.
            sql::run(conn, format!("DELETE FROM {stage} WHERE setting_key = {}", values[key])).await.map_err(failed())?;
        }
        if let Some(id) = place("id") {
            let taken = sql::value(conn, format!("SELECT COUNT(*) FROM {stage} WHERE id = {}", values[id])).await.map_err(failed())?;
            if taken != "0" {
                values[id] = "NULL".into();
            }
        }
        sql::run(conn, format!("INSERT INTO {stage} ({list}) VALUES ({})", values.join(", "))).await.map_err(failed())?;
    }
    Ok(Some(kept.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn one_statement_moves_everything() {
        let places = Places { live: "app".into(), stage: "s".into(), undo: "u".into() };
        let remaining = Remaining { old: set(&["a", "b`c"]), new: set(&["a"]) };
        assert_eq!(remaining.statement(&places), "RENAME TABLE `app`.`a` TO `u`.`a`, `app`.`b``c` TO `u`.`b``c`, `s`.`a` TO `app`.`a`");
        assert_eq!(remaining.lock_statement(&places), "LOCK TABLES `app`.`a` WRITE, `app`.`b``c` WRITE, `s`.`a` WRITE");
        assert!(!remaining.is_none());
    }

    #[test]
    fn foreign_keys_are_made_again() {
        let key = ForeignKey {
            schema: "shop".into(),
            table: "order".into(),
            name: "fk".into(),
            columns: vec!["a".into(), "b".into()],
            referenced_table: "item".into(),
            referenced_columns: vec!["x".into(), "y".into()],
            on_update: "RESTRICT".into(),
            on_delete: "CASCADE".into(),
        };
        assert_eq!(key.drop_statement(), "ALTER TABLE `shop`.`order` DROP FOREIGN KEY `fk`");
        assert_eq!(
            key.make_statement("app"),
            "ALTER TABLE `shop`.`order` ADD CONSTRAINT `fk` FOREIGN KEY (`a`, `b`) REFERENCES `app`.`item` (`x`, `y`) ON UPDATE RESTRICT ON DELETE CASCADE"
        );
    }
}
