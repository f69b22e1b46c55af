//! What refers to tables: triggers, views, routines, events; and MariaDB's sequences.
//!
//! Each is written as SHOW CREATE says it, in the character set of the client that made it (the server keeps the body so),
//! under the sql_mode, collation and time zone that belong to it.

use super::{NativeError, outlet::Outlet};
use crate::{
    section_writer::SectionWriter,
    sql::{quote_name, quote_text},
    sql_scan::{ObjectKind, SectionKind},
    wire::{Wire, WireError},
};

/// The objects' names, each kind in its own order.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) sequences: Vec<String>,
    pub(super) views: Vec<String>,
    pub(super) routines: Vec<(ObjectKind, String)>,
    pub(super) events: Vec<String>,
    pub(super) has_triggers: bool,
}

/// Writes them on one session.
pub(super) struct Code<'a, W> {
    pub(super) conn: &'a mut Wire,
    pub(super) outlet: &'a mut Outlet<W>,
    pub(super) schema: &'a str,
    /// The schema's own collation.
    pub(super) collation: String,
}

/// What SHOW CREATE says of an object.
struct Shown {
    text: Vec<u8>,
    sql_mode: Option<String>,
    time_zone: Option<String>,
    charset: String,
    collation: String,
    /// The schema's collation when the object was made.
    schema_collation: Option<String>,
}

/// What every section that sets something for its objects ends with.
const RESTORE: &str = "SET character_set_client = utf8mb4;\nSET character_set_results = utf8mb4;\nSET collation_connection = @heratio_collation;\n\
                       SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';\n";

/// Delimiters to choose from: one that is nowhere in the body.
const DELIMITERS: &[&str] = &[";;", "$$", "//", "||", "@@", "~~", ";;;;", "$heratio$", "$heratio-backup$"];

impl<W: SectionWriter> Code<'_, W> {
    pub(super) fn sequences(&mut self, names: &[String]) -> Result<(), NativeError> {
        for name in names {
            let quoted = quote_name(name);
            let on = |e| NativeError::on(format!("sequence {quoted}"), e);
            let definition = self.conn.query(&format!("SHOW CREATE SEQUENCE {quoted}")).map_err(on)?;
            let state = self.conn.query(&format!("SELECT next_not_cached_value, cycle_count FROM {quoted}")).map_err(on)?;
            let [definition, next, cycle] =
                [(&definition, 1), (&state, 0), (&state, 1)].map(|(rows, at)| rows.first().map(|row| text_of(row, at)).unwrap_or_default());
            let sql = format!(
                "--\n-- Sequence structure for {quoted}\n--\n\nDROP SEQUENCE IF EXISTS {quoted};\n{definition};\nDO SETVAL({quoted}, {next}, 0, {cycle});\n\n"
            );
            self.outlet.write(SectionKind::Sequence, name, sql.as_bytes())?;
            self.outlet.created(ObjectKind::Sequence, name);
        }
        Ok(())
    }

    /// Views with their columns only, for views and routines that refer to them whatever their order.
    pub(super) fn placeholders(&mut self, views: &[String]) -> Result<(), NativeError> {
        for name in views {
            let quoted = quote_name(name);
            let fields =
                self.conn.query(&format!("SHOW FIELDS FROM {quoted}")).map_err(|e| NativeError::on(format!("view {quoted}"), e))?;
            let columns: Vec<String> = fields.iter().map(|row| format!(" 1 AS {}", quote_name(&text_of(row, 0)))).collect();
            let sql = format!(
                "--\n-- Temporary view structure for view {quoted}\n--\n\nDROP TABLE IF EXISTS {quoted};\nDROP VIEW IF EXISTS {quoted};\nCREATE VIEW {quoted} AS SELECT\n{};\n\n",
                columns.join(",\n")
            );
            self.outlet.write(SectionKind::Placeholder, name, sql.as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn views(&mut self, views: &[String]) -> Result<(), NativeError> {
        for name in views {
            let quoted = quote_name(name);
            let mut shown = self.show("VIEW", name)?;
            shown.text = without_own_schema(&shown.text, self.schema);
            let mut sql = format!("--\n-- Final view structure for view {quoted}\n--\n\n").into_bytes();
            write_object(&mut sql, &shown, &self.collation, &format!("DROP VIEW IF EXISTS {quoted};\n"));
            self.outlet.write(SectionKind::View, name, &sql)?;
            self.outlet.created(ObjectKind::View, name);
        }
        Ok(())
    }

    /// Triggers in the order in which they fire, which they are made anew in.
    pub(super) fn triggers(&mut self) -> Result<(), NativeError> {
        let list = format!(
            "SELECT event_object_table, trigger_name FROM information_schema.triggers WHERE trigger_schema = {} \
             ORDER BY event_object_table, action_timing, event_manipulation, action_order",
            quote_text(self.schema)
        );
        let rows = self.conn.query(&list).map_err(|e| NativeError::session("list the triggers", e))?;
        for row in rows {
            let (table, name) = (text_of(&row, 0), text_of(&row, 1));
            let shown = self.show("TRIGGER", &name)?;
            let mut sql = format!("--\n-- Trigger {} of table {}\n--\n\n", one_line(&name), one_line(&table)).into_bytes();
            write_object(&mut sql, &shown, &self.collation, "");
            self.outlet.write(SectionKind::Triggers, &table, &sql)?;
            self.outlet.created(ObjectKind::Trigger, &name);
        }
        Ok(())
    }

    pub(super) fn routines(&mut self, routines: &[(ObjectKind, String)]) -> Result<(), NativeError> {
        let mut sql = format!("--\n-- Dumping routines for database {}\n--\n\n", quote_text(self.schema)).into_bytes();
        for (kind, name) in routines {
            let word = kind.word().to_uppercase();
            let shown = self.show(&word, name)?;
            write_object(&mut sql, &shown, &self.collation, &format!("DROP {word} IF EXISTS {};\n", quote_name(name)));
            self.outlet.created(*kind, name);
            self.outlet.write(SectionKind::Routines, self.schema, &std::mem::take(&mut sql))?;
        }
        Ok(())
    }

    pub(super) fn events(&mut self, events: &[String]) -> Result<(), NativeError> {
        let mut sql = format!("--\n-- Dumping events for database {}\n--\n\n", quote_text(self.schema)).into_bytes();
        for name in events {
            let shown = self.show("EVENT", name)?;
            write_object(&mut sql, &shown, &self.collation, &format!("DROP EVENT IF EXISTS {};\n", quote_name(name)));
            self.outlet.created(ObjectKind::Event, name);
            self.outlet.write(SectionKind::Events, self.schema, &std::mem::take(&mut sql))?;
        }
        Ok(())
    }

    /// An object's text is read as utf8mb4, or, where its own character set may hold what that would spoil, in its own.
    fn show(&mut self, word: &str, name: &str) -> Result<Shown, NativeError> {
        let object = format!("{} {}", word.to_lowercase(), quote_name(name));
        let on = |e| NativeError::on(object.clone(), e);
        let shown = self.show_once(word, name).map_err(on)?;
        let shown = if shown.text.is_ascii() || shown.charset.starts_with("utf8") {
            shown
        } else {
            self.conn.run(&format!("SET character_set_results = {}", shown.charset)).map_err(on)?;
            let in_its_own = self.show_once(word, name).map_err(on)?;
            self.conn.run("SET character_set_results = utf8mb4").map_err(on)?;
            in_its_own
        };
        match shown.text.is_empty() {
            // NULL for who may not see it.
            true => Err(NativeError::Denied { object }),
            false => Ok(shown),
        }
    }

    fn show_once(&mut self, word: &str, name: &str) -> Result<Shown, WireError> {
        let rows = self.conn.query(&format!("SHOW CREATE {word} {}", quote_name(name)))?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let text = |at: usize| text_of(row, at);
        // Name, [sql_mode, [time_zone]], text, character_set_client, collation_connection, [Database Collation].
        let (at, sql_mode, time_zone) = match word {
            "VIEW" => (1, None, None),
            "EVENT" => (3, Some(text(1)), Some(text(2))),
            _ => (2, Some(text(1)), None),
        };
        Ok(Shown {
            text: row.get(at).cloned().flatten().unwrap_or_default(),
            sql_mode,
            time_zone,
            charset: text(at + 1),
            collation: text(at + 2),
            schema_collation: (word != "VIEW").then(|| text(at + 3)),
        })
    }
}

/// Writes an object with what has to be set for it, and sets it back; `drop` is what drops the one that may be there.
/// MariaDB knows packages in one sql_mode only, also to drop them.
fn write_object(sql: &mut Vec<u8>, shown: &Shown, schema_collation: &str, drop: &str) {
    let mut add = |text: String| sql.extend_from_slice(text.as_bytes());
    add("SET @heratio_collation = @@collation_connection;\n".to_owned());
    let other_schema_collation = shown.schema_collation.as_deref().filter(|c| *c != schema_collation && !c.is_empty());
    if let Some(collation) = other_schema_collation {
        add(alter_schema(collation));
    }
    add(format!("SET character_set_client = {0};\nSET character_set_results = {0};\n", shown.charset));
    add(format!("SET collation_connection = {};\n", shown.collation));
    if let Some(mode) = &shown.sql_mode {
        add(format!("SET sql_mode = {};\n", quote_text(mode)));
    }
    add(drop.to_owned());
    if let Some(zone) = &shown.time_zone {
        add(format!("SET @heratio_time_zone = @@time_zone;\nSET time_zone = {};\n", quote_text(zone)));
    }
    let mut body = shown.text.trim_ascii_end();
    // MySQL keeps the semicolon that ended a body when it came with other statements.
    while let Some(rest) = body.strip_suffix(b";") {
        body = rest.trim_ascii_end();
    }
    let is_in = |delimiter: &&&str| memchr::memmem::find(body, delimiter.as_bytes()).is_some();
    let delimiter = DELIMITERS.iter().find(|d| !is_in(d)).copied().unwrap_or("$heratio-backup-dump$");
    add(format!("DELIMITER {delimiter}\n"));
    sql.extend_from_slice(body);
    // A line of its own, since the body may end in a comment.
    let mut add = |text: String| sql.extend_from_slice(text.as_bytes());
    add(format!("\n{delimiter}\nDELIMITER ;\n"));
    if shown.time_zone.is_some() {
        add("SET time_zone = @heratio_time_zone;\n".to_owned());
    }
    add(RESTORE.to_owned());
    if other_schema_collation.is_some() {
        add(alter_schema(schema_collation));
    }
    add("\n".to_owned());
}

/// MariaDB names the schema of every table as soon as one is another schema's: the view must load into another one. A view in
/// which the schema's name is also a table's alias is left as it is.
fn without_own_schema(text: &[u8], schema: &str) -> Vec<u8> {
    let quoted = quote_name(schema);
    let is_in = |what: String| memchr::memmem::find(text, what.as_bytes()).is_some();
    if is_in(format!("` {quoted}")) || is_in(format!(") {quoted}")) {
        return text.to_vec();
    }
    let qualifier = format!("{quoted}.`");
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        if text[at..].starts_with(qualifier.as_bytes()) {
            at += quoted.len() + 1;
        }
        let start = at;
        at = match text[at] {
            b'\'' | b'`' => crate::table::skip_quoted(text, at),
            _ => at + 1,
        };
        out.extend_from_slice(&text[start..at]);
    }
    out
}

/// Parameters and variables without a character set take the schema's when they are made. No name: it is the one that is
/// being restored into.
fn alter_schema(collation: &str) -> String {
    let charset = collation.split('_').next().unwrap_or(collation);
    format!("ALTER DATABASE CHARACTER SET {charset} COLLATE {collation};\n")
}

/// A name in a comment must not end it.
fn one_line(name: &str) -> String {
    quote_name(name).replace(['\n', '\r'], " ")
}

fn text_of(row: &[Option<Vec<u8>>], at: usize) -> String {
    row.get(at).and_then(|v| v.as_deref()).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
}

impl Names {
    pub(super) fn of<'a>(objects: impl Iterator<Item = &'a (ObjectKind, String)>) -> Self {
        let mut names = Self::default();
        for (kind, name) in objects {
            match kind {
                ObjectKind::Table => {}
                ObjectKind::Sequence => names.sequences.push(name.clone()),
                ObjectKind::View => names.views.push(name.clone()),
                ObjectKind::Trigger => names.has_triggers = true,
                ObjectKind::Event => names.events.push(name.clone()),
                ObjectKind::Procedure | ObjectKind::Function | ObjectKind::Package | ObjectKind::PackageBody => {
                    names.routines.push((*kind, name.clone()));
                }
            }
        }
        // A package's body needs the package.
        names.routines.sort_by_key(|(kind, _)| *kind == ObjectKind::PackageBody);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_does_not_name_its_schema() {
        let without = |text: &str| String::from_utf8(without_own_schema(text.as_bytes(), "a`b")).unwrap();
        let view = "select `t`.`x` AS `a``b`,'`a``b`.`t`',`a``b`.`f`(1) from (`a``b`.`t` join `o`.`a``b`)";
        assert_eq!(without(view), "select `t`.`x` AS `a``b`,'`a``b`.`t`',`f`(1) from (`t` join `o`.`a``b`)");
        let alias = "select `a``b`.`x` AS `x` from `a``b`.`t` `a``b`";
        assert_eq!(without(alias), alias);
    }

    #[test]
    fn a_body_ends_where_its_delimiter_stands() {
        let shown = Shown {
            text: b"CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN END -- done;;\n;\n".to_vec(),
            sql_mode: Some("ANSI_QUOTES".to_owned()),
            time_zone: None,
            charset: "latin1".to_owned(),
            collation: "latin1_swedish_ci".to_owned(),
            schema_collation: Some("latin1_bin".to_owned()),
        };
        let mut sql = vec![];
        write_object(&mut sql, &shown, "utf8mb4_bin", "");
        let sql = String::from_utf8(sql).unwrap();
        assert!(sql.contains("SET sql_mode = 'ANSI_QUOTES';\nDELIMITER ;;\nCREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN END -- done\n;;\nDELIMITER ;\n"), "{sql}");
        assert!(sql.contains("ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_bin;\n"), "{sql}");
        assert!(sql.ends_with("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n\n"), "{sql}");
        let mut sql = vec![];
        write_object(&mut sql, &Shown { text: b"CREATE EVENT e DO SELECT ';;'".to_vec(), ..shown }, "latin1_bin", "");
        let sql = String::from_utf8(sql).unwrap();
        assert!(sql.contains("DELIMITER $$\nCREATE EVENT e DO SELECT ';;'\n$$\nDELIMITER ;\n") && !sql.contains("ALTER DATABASE"), "{sql}");
    }
}
