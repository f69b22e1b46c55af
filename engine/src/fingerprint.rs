//! What a schema's definitions are at one moment, to see afterwards whether somebody changed them.
//!
//! A dump's snapshot covers rows, not definitions, so a fingerprint is taken before and after. Each object's
//! definition is hashed together with the time at which the server says it was made: ALTER back and forth, or
//! DROP and the same CREATE, leave the definition as it was. That time has whole seconds, so [`Fingerprint::settled`]
//! waits until the newest is past. Not seen: on MySQL, two RENAMEs that swap tables and swap them back.

use crate::{
    server::ServerError,
    sql::{self, quote_name, quote_text, server_error},
    sql_scan::ObjectKind,
};
use sha2::{Digest, Sha256};
use sqlx::MySqlConnection;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// How old the newest definition must be, by the server's clock: its whole second has passed, and a little more.
const SETTLED: Duration = Duration::from_millis(1100);
/// How often [`Fingerprint::settled`] looks again before it takes a schema that never rests as it is.
const TRIES: usize = 5;

/// The definitions of a schema's objects, and what a dump must know of its tables.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint {
    objects: BTreeMap<(ObjectKind, String), Hash>,
    /// Size of all rows by the server's statistics, in bytes; without indexes.
    pub data_length: u64,
    /// Tables of engines without transactions, with their engine: no snapshot covers their rows.
    pub not_transactional: Vec<(String, String)>,
    /// MariaDB's system-versioned tables.
    pub versioned: Vec<String>,
    /// Every table with the size of its rows, in bytes, by the server's statistics.
    pub tables: Vec<(String, u64)>,
}

/// How closely definitions are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Each object's SHOW CREATE is read.
    Whole,
    /// Tables are known by the time at which the server made them and what it lists of them: SHOW CREATE for a thousand
    /// tables takes MySQL a second. Every ALTER, TRUNCATE and CREATE sets that time on MySQL 9.7 and MariaDB 10.11, also
    /// where only the dictionary changes (tried: columns, defaults, comments, indexes and their visibility, partitions).
    Listed,
}

/// Half a SHA-256; enough to tell definitions apart.
type Hash = [u8; 16];

/// An object whose definition differs between two fingerprints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// "created", "dropped" or "changed".
    pub what: &'static str,
}

impl Fingerprint {
    /// Takes a fingerprint that any later change will differ from; waits a second or two if one was just made.
    pub async fn settled(conn: &mut MySqlConnection, schema: &str) -> Result<Self, ServerError> {
        Self::settled_to(conn, schema, Depth::Whole).await
    }

    /// As [`Self::settled`], to a chosen depth.
    pub async fn settled_to(conn: &mut MySqlConnection, schema: &str, depth: Depth) -> Result<Self, ServerError> {
        let mut listing = Listing::read(conn, schema).await?;
        for _ in 0..TRIES {
            match SETTLED.checked_sub(listing.newest_age) {
                None | Some(Duration::ZERO) => break,
                Some(rest) => tokio::time::sleep(rest).await,
            }
            listing = Listing::read(conn, schema).await?;
        }
        listing.fingerprint(conn, schema, depth).await
    }

    /// Takes a fingerprint at once.
    pub async fn take(conn: &mut MySqlConnection, schema: &str) -> Result<Self, ServerError> {
        Self::take_to(conn, schema, Depth::Whole).await
    }

    /// As [`Self::take`], to a chosen depth; only fingerprints of one depth can be compared.
    pub async fn take_to(conn: &mut MySqlConnection, schema: &str, depth: Depth) -> Result<Self, ServerError> {
        Listing::read(conn, schema).await?.fingerprint(conn, schema, depth).await
    }

    /// What differs in `later`.
    pub fn diff(&self, later: &Self) -> Vec<Change> {
        let keys: BTreeSet<_> = self.objects.keys().chain(later.objects.keys()).collect();
        let change = |(kind, name): &(ObjectKind, String)| {
            let key = (*kind, name.clone());
            let what = match (self.objects.get(&key), later.objects.get(&key)) {
                (None, _) => "created",
                (_, None) => "dropped",
                (Some(a), Some(b)) if a != b => "changed",
                _ => return None,
            };
            Some(Change { kind: *kind, name: name.clone(), what })
        };
        keys.into_iter().filter_map(change).collect()
    }

    /// The objects that there are.
    pub fn objects(&self) -> impl Iterator<Item = &(ObjectKind, String)> {
        self.objects.keys()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` was {}", self.kind.word(), self.name, self.what)
    }
}

/// All objects of a schema with the times at which they were made, before their definitions are read.
///
/// A change after this moment is seen even if its definition is what we then read: its time is later.
struct Listing {
    objects: Vec<(ObjectKind, String, String)>,
    triggers: Vec<(String, Vec<u8>)>,
    newest_age: Duration,
    tables: Fingerprint,
}

impl Listing {
    async fn read(conn: &mut MySqlConnection, schema: &str) -> Result<Self, ServerError> {
        let failed = || ServerError::query(format!("read the definitions of schema `{schema}`"));
        let schema = quote_text(schema);
        // Ages are the server's arithmetic: its clock and time zone are not ours. NULL for MariaDB's views.
        let age = |column: &str| format!("TIMESTAMPDIFF(MICROSECOND, {column}, NOW(6))");
        let mut listing = Self { objects: vec![], triggers: vec![], newest_age: Duration::MAX, tables: Fingerprint::default() };

        let tables = format!(
            "SELECT t.table_name, t.table_type, CONCAT_WS(' ', IFNULL(t.create_time, ''), t.row_format, t.table_collation, t.create_options, t.table_comment), \
             {}, t.data_length, t.engine, e.transactions \
             FROM information_schema.tables t LEFT JOIN information_schema.engines e ON e.engine = t.engine WHERE t.table_schema = {schema}",
            age("t.create_time")
        );
        for row in sql::rows(conn, tables).await.map_err(failed())? {
            let (name, table_type) = (row.text_at(0), row.text_at(1));
            let kind = match table_type.as_str() {
                "BASE TABLE" | "SYSTEM VERSIONED" => ObjectKind::Table,
                "SEQUENCE" => ObjectKind::Sequence,
                "VIEW" => ObjectKind::View,
                // A session's own temporary table, which newer MariaDBs list.
                _ => continue,
            };
            listing.seen(&row.text_at(3));
            if kind == ObjectKind::Table {
                listing.tables.data_length += row.number_at(4);
                listing.tables.tables.push((name.clone(), row.number_at(4)));
                if !row.text_at(6).eq_ignore_ascii_case("YES") {
                    listing.tables.not_transactional.push((name.clone(), row.text_at(5)));
                }
                if table_type == "SYSTEM VERSIONED" {
                    listing.tables.versioned.push(name.clone());
                }
            }
            listing.objects.push((kind, name, row.text_at(2)));
        }

        let routines = format!(
            "SELECT routine_name, routine_type, last_altered, {} FROM information_schema.routines WHERE routine_schema = {schema}",
            age("last_altered")
        );
        for row in sql::rows(conn, routines).await.map_err(failed())? {
            let kind = match row.text_at(1).as_str() {
                "PROCEDURE" => ObjectKind::Procedure,
                "FUNCTION" => ObjectKind::Function,
                "PACKAGE" => ObjectKind::Package,
                "PACKAGE BODY" => ObjectKind::PackageBody,
                _ => continue,
            };
            listing.seen(&row.text_at(3));
            listing.objects.push((kind, row.text_at(0), row.text_at(2)));
        }

        // `last_executed` is left out: the scheduler changes it.
        let events = format!(
            "SELECT event_name, last_altered, {} FROM information_schema.events WHERE event_schema = {schema}",
            age("last_altered")
        );
        for row in sql::rows(conn, events).await.map_err(failed())? {
            listing.seen(&row.text_at(2));
            listing.objects.push((ObjectKind::Event, row.text_at(0), row.text_at(1)));
        }

        // One query instead of a SHOW CREATE each. `created` has hundredths of a second.
        let triggers = format!(
            "SELECT trigger_name, created, event_manipulation, event_object_table, action_timing, action_order, action_statement, \
             sql_mode, definer, character_set_client, collation_connection, database_collation \
             FROM information_schema.triggers WHERE trigger_schema = {schema}"
        );
        for row in sql::rows(conn, triggers).await.map_err(failed())? {
            listing.triggers.push((row.text_at(0), row.bytes_from(1)));
        }
        Ok(listing)
    }

    /// Takes an age in microseconds into account; negative when the server's clock was set back, empty for NULL.
    fn seen(&mut self, age: &str) {
        if let Ok(age) = age.parse::<i64>() {
            self.newest_age = self.newest_age.min(Duration::from_micros(age.max(0).unsigned_abs()));
        }
    }

    async fn fingerprint(self, conn: &mut MySqlConnection, schema: &str, depth: Depth) -> Result<Fingerprint, ServerError> {
        let mut fingerprint = self.tables;
        for (kind, name, made) in self.objects {
            let known = depth == Depth::Listed && kind == ObjectKind::Table && !made.starts_with(char::is_whitespace);
            let mut definition = if known { vec![] } else { definition(conn, schema, kind, &name).await? };
            definition.extend_from_slice(made.as_bytes());
            fingerprint.objects.insert((kind, name), hash(&definition));
        }
        for (name, definition) in self.triggers {
            fingerprint.objects.insert((ObjectKind::Trigger, name), hash(&definition));
        }
        Ok(fingerprint)
    }
}

/// Server errors that say nothing of the object: lock not had in time, deadlock, killed, shutting down, time limit.
const ABOUT_THE_SESSION: &[u16] = &[1053, 1205, 1213, 1317, 1927, 1969, 3024];

/// What SHOW CREATE says. An object that cannot be shown (a view on a table that is gone, or what was dropped
/// since it was listed) is no error here: the dump will name it.
async fn definition(conn: &mut MySqlConnection, schema: &str, kind: ObjectKind, name: &str) -> Result<Vec<u8>, ServerError> {
    let query = format!("SHOW CREATE {} {}.{}", kind.word(), quote_name(schema), quote_name(name));
    match sql::rows(conn, query).await {
        Ok(rows) => {
            let Some(row) = rows.first() else { return Ok(vec![]) };
            // Names, texts, sql_mode and character sets; of a table everything is in its text.
            let mut text = row.bytes_from(1);
            if kind == ObjectKind::Table {
                strip_auto_increment(&mut text);
            }
            Ok(text)
        }
        Err(error) => match server_error(&error) {
            Some(number) if !ABOUT_THE_SESSION.contains(&number) => Ok(number.to_string().into_bytes()),
            _ => Err(ServerError::query(format!("read the definition of {} `{name}`", kind.word()))(error)),
        },
    }
}

/// Takes `AUTO_INCREMENT=n` out of a table's options: inserting rows changes it.
fn strip_auto_increment(text: &mut Vec<u8>) {
    const OPTION: &[u8] = b" AUTO_INCREMENT=";
    let options = memchr::memmem::rfind(text, b"\n) ").unwrap_or(0);
    if let Some(at) = memchr::memmem::find(&text[options..], OPTION) {
        let start = options + at;
        let digits = text[start + OPTION.len()..].iter().take_while(|b| b.is_ascii_digit()).count();
        text.drain(start..start + OPTION.len() + digits);
    }
}

fn hash(definition: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(&Sha256::digest(definition)[..16]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(objects: &[(ObjectKind, &str, &str)]) -> Fingerprint {
        let objects = objects.iter().map(|(kind, name, text)| ((*kind, name.to_string()), hash(text.as_bytes()))).collect();
        Fingerprint { objects, ..Fingerprint::default() }
    }

    #[test]
    fn changes_are_named() {
        use ObjectKind::*;
        let before = fingerprint(&[(Table, "a", "1"), (Table, "b", "1"), (View, "v", "1"), (Event, "e", "1")]);
        let after = fingerprint(&[(Table, "a", "1"), (Table, "b", "2"), (Trigger, "t", "1"), (Event, "e", "1")]);
        let changes: Vec<_> = before.diff(&after).iter().map(Change::to_string).collect();
        assert_eq!(changes, ["table `b` was changed", "view `v` was dropped", "trigger `t` was created"]);
        assert_eq!(before.diff(&before), []);
    }

    #[test]
    fn auto_increment_is_no_definition() {
        let strip = |text: &str| {
            let mut text = text.as_bytes().to_vec();
            strip_auto_increment(&mut text);
            String::from_utf8(text).unwrap()
        };
        assert_eq!(
            strip(
                "CREATE TABLE `t` (\n  `a` int AUTO_INCREMENT COMMENT ' AUTO_INCREMENT=5'\n) ENGINE=InnoDB AUTO_INCREMENT=42 DEFAULT CHARSET=x"
            ),
            "CREATE TABLE `t` (\n  `a` int AUTO_INCREMENT COMMENT ' AUTO_INCREMENT=5'\n) ENGINE=InnoDB DEFAULT CHARSET=x"
        );
        assert_eq!(strip("CREATE TABLE `t` (\n) ENGINE=InnoDB"), "CREATE TABLE `t` (\n) ENGINE=InnoDB");
    }
}
