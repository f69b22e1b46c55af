//! What an account may do, read from SHOW GRANTS, and what a dump needs.
//!
//! A missing TRIGGER or routine privilege makes no dump fail: mysqldump and mariadb-dump then leave the
//! objects out and end with status 0 (seen on MySQL 9.7 and MariaDB 10.11). So privileges are checked first.

use crate::{
    server::{Flavour, Server, ServerError},
    sql::{self, quote_name, unquote},
};
use sqlx::MySqlConnection;
use std::{collections::BTreeSet, fmt};

/// What one account may do.
#[derive(Debug, Clone, Default)]
pub struct Privileges {
    grants: Vec<Grant>,
    /// Schema names in grants are names, not patterns.
    literal: bool,
    /// Schemas are compared without case.
    ignores_case: bool,
}

/// A privilege that is lacking, with the statement that grants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// Its name as GRANT wants it.
    pub privilege: String,
    /// On what: "*.*", "`heratio`.*".
    pub on: String,
    /// The statement that grants it to this account.
    pub grant_statement: String,
    /// What goes wrong without it.
    pub reason: &'static str,
    /// Without it no dump is made; otherwise something is only worse.
    pub required: bool,
}

/// One line of SHOW GRANTS. Privilege names are in upper case, and "ALL PRIVILEGES" is one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    revoked: bool,
    privileges: BTreeSet<String>,
    on: Level,
    grantee: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Global,
    /// As written in the grant: a pattern, unless `partial_revokes` is on.
    Schema(String),
    Table(String, String),
}

impl Privileges {
    /// Reads the session's own privileges, with those of its active roles.
    ///
    /// Plain SHOW GRANTS: on both flavours it includes active roles, and MariaDB's, unlike
    /// `SHOW GRANTS FOR CURRENT_USER`, lists their grants and PUBLIC's.
    pub async fn read(conn: &mut MySqlConnection, server: &Server) -> Result<Self, ServerError> {
        let rows = sql::rows(conn, "SHOW GRANTS").await.map_err(ServerError::query("read the account's privileges"))?;
        let lines: Vec<_> = rows.iter().map(|row| row.text_at(0)).collect();
        Ok(Self::parse(lines.iter().map(String::as_str), server.partial_revokes, server.ignores_case))
    }

    /// Reads lines of SHOW GRANTS; lines that grant nothing on schemas or tables are passed over.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>, partial_revokes: bool, ignores_case: bool) -> Self {
        Self { grants: lines.into_iter().filter_map(Grant::parse).collect(), literal: partial_revokes, ignores_case }
    }

    /// Whether the account has `privilege` on everything.
    pub fn has_global(&self, privilege: &str) -> bool {
        self.grants.iter().any(|g| !g.revoked && g.on == Level::Global && g.holds(privilege))
    }

    /// Whether the account has `privilege` on all of `schema`.
    pub fn has(&self, privilege: &str, schema: &str) -> bool {
        let revoked = self.grants.iter().any(|g| g.revoked && g.holds(privilege) && g.matches(schema, true, self.ignores_case).is_some());
        (self.has_global(privilege) && !revoked) || self.grantees().iter().any(|grantee| self.grantee_has(grantee, privilege, schema))
    }

    /// Whether the account has `privilege` on one table.
    pub fn has_on_table(&self, privilege: &str, schema: &str, table: &str) -> bool {
        let on = Level::Table(schema.to_owned(), table.to_owned());
        self.has(privilege, schema) || self.grants.iter().any(|g| !g.revoked && g.on == on && g.holds(privilege))
    }

    fn grantees(&self) -> BTreeSet<&str> {
        self.grants.iter().map(|g| g.grantee.as_str()).collect()
    }

    /// Of one grantee's schema-level grants the server uses only the most specific that matches: a grant on
    /// `` `app` `` hides another on `` `ap%` `` (seen on both flavours). MySQL merges roles into the account before
    /// that, and its SHOW GRANTS names the account alone; MariaDB looks at account, role and PUBLIC one by one.
    /// Where two are equally specific, both must hold the privilege.
    fn grantee_has(&self, grantee: &str, privilege: &str, schema: &str) -> bool {
        let matching: Vec<_> = self
            .grants
            .iter()
            .filter(|g| !g.revoked && g.grantee == grantee)
            .filter_map(|g| Some((g.matches(schema, self.literal, self.ignores_case)?, g)))
            .collect();
        let best = matching.iter().map(|(specific, _)| *specific).max();
        let mut chosen = matching.iter().filter(|(specific, _)| Some(*specific) == best).peekable();
        chosen.peek().is_some() && chosen.all(|(_, g)| g.holds(privilege))
    }
}

impl Grant {
    /// `GRANT a, b (c) ON [TABLE] x.y TO z ...` and the same with REVOKE ... FROM.
    fn parse(line: &str) -> Option<Self> {
        let (revoked, rest) = match line.split_once(' ')? {
            ("GRANT", rest) => (false, rest),
            ("REVOKE", rest) => (true, rest),
            _ => return None,
        };
        let (privileges, rest) = split_outside_quotes(rest, " ON ")?;
        let (on, grantee) = split_outside_quotes(rest, if revoked { " FROM " } else { " TO " })?;
        let (grantee, _) = split_outside_quotes(grantee, " ").unwrap_or((grantee, ""));
        let (schema, table) = split_outside_quotes(on.strip_prefix("TABLE ").unwrap_or(on), ".")?;
        let on = match (schema, table) {
            ("*", "*") => Level::Global,
            (_, "*") => Level::Schema(unquote(schema)),
            _ if on.starts_with("PROCEDURE ") || on.starts_with("FUNCTION ") || on.starts_with("PACKAGE ") => return None,
            _ => Level::Table(unquote(schema), unquote(table)),
        };
        Some(Self { revoked, privileges: privilege_names(privileges), on, grantee: grantee.to_owned() })
    }

    fn holds(&self, privilege: &str) -> bool {
        // GRANT OPTION is never part of ALL PRIVILEGES.
        self.privileges.contains(privilege) || (self.privileges.contains("ALL PRIVILEGES") && privilege != "GRANT OPTION")
    }

    /// How specifically a schema-level grant matches; `None` when it does not.
    ///
    /// The server sorts patterns by the place of their first wildcard; one without any comes first.
    fn matches(&self, schema: &str, literal: bool, ignores_case: bool) -> Option<usize> {
        let Level::Schema(pattern) = &self.on else { return None };
        let (pattern, schema) = match ignores_case {
            true => (pattern.to_lowercase(), schema.to_lowercase()),
            false => (pattern.clone(), schema.to_owned()),
        };
        if literal {
            // Older grants may still be written with escapes.
            return (pattern == schema || pattern.replace("\\_", "_") == schema).then_some(usize::MAX);
        }
        let pattern: Vec<Pattern> = Pattern::parse(&pattern);
        let name: Vec<char> = schema.chars().collect();
        let first_wildcard = pattern.iter().position(|p| !matches!(p, Pattern::Char(_)));
        Pattern::like(&pattern, &name).then_some(first_wildcard.unwrap_or(usize::MAX))
    }
}

/// One element of a schema pattern.
#[derive(Clone, Copy)]
enum Pattern {
    Char(char),
    AnyOne,
    AnyMany,
}

impl Pattern {
    fn parse(text: &str) -> Vec<Self> {
        let mut chars = text.chars();
        let mut pattern = vec![];
        while let Some(c) = chars.next() {
            pattern.push(match c {
                '\\' => Self::Char(chars.next().unwrap_or('\\')),
                '_' => Self::AnyOne,
                '%' => Self::AnyMany,
                c => Self::Char(c),
            });
        }
        pattern
    }

    fn like(pattern: &[Self], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(Self::AnyMany), _) => (0..=name.len()).any(|n| Self::like(&pattern[1..], &name[n..])),
            (Some(Self::AnyOne), Some(_)) => Self::like(&pattern[1..], &name[1..]),
            (Some(Self::Char(p)), Some(c)) => p == c && Self::like(&pattern[1..], &name[1..]),
            _ => false,
        }
    }
}

/// Splits at the first `separator` that is not inside quotes or parentheses.
fn split_outside_quotes<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, _) if depth == 0 && text[at..].starts_with(separator) => return Some((&text[..at], &text[at + separator.len()..])),
            (None, '`' | '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (Some(q), _) if q == c => quote = None,
            _ => {}
        }
    }
    None
}

/// The privileges of "SELECT, INSERT (`a`, `b`), SHOW VIEW" (MySQL's dynamic ones come without spaces); those on
/// single columns do not count.
fn privilege_names(mut list: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    loop {
        let (name, rest) = split_outside_quotes(list, ",").unwrap_or((list, ""));
        if !name.contains('(') {
            names.insert(match name.trim().to_uppercase().as_str() {
                "ALL" => "ALL PRIVILEGES".to_owned(),
                name => name.to_owned(),
            });
        }
        if rest.is_empty() {
            return names;
        }
        list = rest;
    }
}

/// What `privileges` lack for a complete dump of `schema`.
///
/// Found by experiment with limited accounts (MySQL 9.7, MariaDB 10.11; --single-transaction): LOCK TABLES and
/// PROCESS are not needed; MariaDB needs neither RELOAD nor BINLOG MONITOR, since mariadb-dump reads the
/// position from `binlog_snapshot_*`; MySQL needs FLUSH TABLES WITH READ LOCK and SHOW BINARY LOG STATUS.
pub fn missing_for_dump(privileges: &Privileges, server: &Server, schema: &str, binlog: bool) -> Vec<MissingPrivilege> {
    let mut missing = vec![];
    let mut need = needing(server, &mut missing);
    for (privilege, reason) in [
        ("SELECT", "the rows could not be read"),
        ("SHOW VIEW", "views could not be read"),
        ("TRIGGER", "the dump would silently lack all triggers"),
        ("EVENT", "events could not be read"),
    ] {
        need(privileges.has(privilege, schema), privilege, on_schema(schema, server.partial_revokes), reason, true);
    }
    let no_execute = "views that call functions could not be read";
    need(privileges.has("EXECUTE", schema), "EXECUTE", on_schema(schema, server.partial_revokes), no_execute, false);
    let no_routines = "the dump would silently lack procedures and functions";
    let no_ddl_lock = "the last attempt of a dump could not keep others from changing definitions";
    match server.flavour {
        Flavour::MySql => {
            let routines = privileges.has_global("SHOW_ROUTINE") || privileges.has_global("SELECT");
            need(routines, "SHOW_ROUTINE", "*.*".to_owned(), no_routines, true);
            if binlog {
                let flush = privileges.has_global("RELOAD") || privileges.has_global("FLUSH_TABLES");
                need(flush, "FLUSH_TABLES", "*.*".to_owned(), "snapshot and binary log position could not be tied together", true);
                let position = privileges.has_global("REPLICATION CLIENT") || privileges.has_global("SUPER");
                need(position, "REPLICATION CLIENT", "*.*".to_owned(), "the binary log position could not be read", true);
            }
            need(privileges.has_global("BACKUP_ADMIN"), "BACKUP_ADMIN", "*.*".to_owned(), no_ddl_lock, false);
        }
        Flavour::MariaDb => {
            // `mysql.proc` holds all routines' texts; newer servers also have a privilege for them.
            let routines = privileges.has_on_table("SELECT", "mysql", "proc") || privileges.has("SHOW CREATE ROUTINE", schema);
            need(routines, "SELECT", "`mysql`.`proc`".to_owned(), no_routines, true);
            need(privileges.has_global("RELOAD"), "RELOAD", "*.*".to_owned(), no_ddl_lock, false);
        }
    }
    let process = "a session that blocks a dump could not be named, nor long statements be waited for";
    need(privileges.has_global("PROCESS"), "PROCESS", "*.*".to_owned(), process, false);
    drop(need);
    missing
}

/// Notes what is missing: whether it is there, its name, on what, what could not be done without it, and whether that is an error.
fn needing<'m>(server: &Server, missing: &'m mut Vec<MissingPrivilege>) -> impl FnMut(bool, &str, String, &'static str, bool) + use<'m> {
    let account = server.quoted_account();
    move |has, privilege, on, reason, required| {
        if !has {
            let grant_statement = format!("GRANT {privilege} ON {on} TO {account};");
            missing.push(MissingPrivilege { privilege: privilege.to_owned(), on, grant_statement, reason, required });
        }
    }
}

/// What `privileges` lack for a restore into `schema`, which is loaded in schemas of ours such as `stage`.
///
/// RENAME TABLE needs ALTER and DROP on the old name, CREATE and INSERT on the new one.
pub fn missing_for_restore(
    privileges: &Privileges,
    server: &Server,
    schema: &str,
    stage: &str,
    prefix: &str,
    live: bool,
) -> Vec<MissingPrivilege> {
    let mut missing = vec![];
    let mut need = needing(server, &mut missing);
    let all = ["CREATE", "DROP", "ALTER", "INSERT", "SELECT", "CREATE VIEW", "TRIGGER"];
    let ours = if server.partial_revokes { on_schema(stage, true) } else { on_schemas_of(prefix) };
    need(all.iter().all(|p| privileges.has(p, stage)), "ALL PRIVILEGES", ours, "nothing could be loaded beside the live database", true);
    let tables = "the tables could not change places";
    let code = "views, triggers, routines or events could not be made again";
    for (privilege, reason) in RESTORE {
        need(privileges.has(privilege, schema), privilege, on_schema(schema, server.partial_revokes), reason.unwrap_or(code), true);
    }
    if live && server.flavour == Flavour::MySql {
        need(privileges.has("LOCK TABLES", schema), "LOCK TABLES", on_schema(schema, server.partial_revokes), tables, true);
    }
    let definers = "what other accounts defined could not be made again";
    match server.flavour {
        Flavour::MySql => {
            let any = ["SET_ANY_DEFINER", "SET_USER_ID", "SUPER"].iter().any(|p| privileges.has_global(p));
            need(any, "SET_ANY_DEFINER", "*.*".to_owned(), definers, false);
            let unknown = ["ALLOW_NONEXISTENT_DEFINER", "SET_USER_ID", "SUPER"].iter().any(|p| privileges.has_global(p));
            need(unknown, "ALLOW_NONEXISTENT_DEFINER", "*.*".to_owned(), definers, false);
            let system = "what an account like root defined, one with SYSTEM_USER, could not be made again";
            need(privileges.has_global("SYSTEM_USER"), "SYSTEM_USER", "*.*".to_owned(), system, false);
        }
        Flavour::MariaDb => {
            let any = ["SET USER", "SUPER"].iter().any(|p| privileges.has_global(p));
            need(any, "SET USER", "*.*".to_owned(), definers, false);
        }
    }
    let trusted = !server.log_bin || server.variable("log_bin_trust_function_creators").is_some_and(|v| v == "ON" || v == "1");
    let functions =
        "functions and triggers could not be made while the binary log is on (or SET GLOBAL log_bin_trust_function_creators = 1)";
    need(trusted || privileges.has_global("SUPER"), "SUPER", "*.*".to_owned(), functions, false);
    drop(need);
    missing
}

/// What the cut-over does on the live schema.
const RESTORE: [(&str, Option<&str>); 9] = [
    ("ALTER", Some("the tables could not change places")),
    ("DROP", Some("the tables could not change places")),
    ("CREATE", Some("the tables could not change places")),
    ("INSERT", Some("the tables could not change places")),
    ("TRIGGER", None),
    ("EVENT", None),
    ("CREATE VIEW", None),
    ("CREATE ROUTINE", None),
    ("ALTER ROUTINE", None),
];

/// A schema as GRANT wants it: `_` and `%` are wildcards there unless `partial_revokes` is on.
pub fn on_schema(schema: &str, literal: bool) -> String {
    let pattern = if literal { schema.to_owned() } else { escape(schema) };
    format!("{}.*", quote_name(&pattern))
}

/// All schemas whose names begin with `prefix`, as GRANT wants them where `partial_revokes` is off.
pub fn on_schemas_of(prefix: &str) -> String {
    format!("{}.*", quote_name(&format!("{}%", escape(prefix))))
}

fn escape(name: &str) -> String {
    name.replace('_', "\\_").replace('%', "\\%")
}

impl fmt::Display for MissingPrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} ({})", self.privilege, self.on, self.reason)
    }
}

#[cfg(test)]
mod tests;
