//! What a statement's beginning, or a comment of the dump tool, means.

use super::{ObjectKind, SectionKind};
use crate::sql::unquote;

/// What the scanner must know of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Created(ObjectKind, String),
    /// The preamble that both tools write before a table's first trigger.
    TriggersBegin,
    /// The session's sql_mode from here on; empty for one that cannot be known, the header's.
    SqlMode(String),
    SessionBinlog {
        restores: bool,
    },
    TrailerBegins,
    Position(String, u64),
    Nothing,
}

/// Headings of mysqldump and mariadb-dump, the part after "-- ".
const HEADINGS: &[(&str, SectionKind)] = &[
    ("Table structure for table ", SectionKind::Table),
    ("Dumping data for table ", SectionKind::Data),
    ("Sequence structure for ", SectionKind::Sequence),
    ("Temporary table structure for view ", SectionKind::Placeholder),
    ("Temporary view structure for view ", SectionKind::Placeholder),
    ("Temporary structure for view ", SectionKind::Placeholder),
    ("Final view structure for view ", SectionKind::View),
    ("Dumping events for database ", SectionKind::Events),
    ("Dumping routines for database ", SectionKind::Routines),
    ("The deferred gtid setting for slave", SectionKind::Trailer),
];

/// Understands the beginning of a statement, comments left out; `version` is that of the `/*!` it began with.
pub(super) fn meaning(head: &[u8], version: u32) -> Meaning {
    let text = head.trim_ascii();
    if text.starts_with(b"SET @@SESSION.SQL_LOG_BIN") || text.starts_with(b"SET @MYSQLDUMP_TEMP_LOG_BIN") {
        let restores = text.ends_with(b"@MYSQLDUMP_TEMP_LOG_BIN");
        return Meaning::SessionBinlog { restores };
    }
    if text.starts_with(b"SET TIME_ZONE=@OLD_TIME_ZONE") {
        return Meaning::TrailerBegins;
    }
    if version == 50003 && text.starts_with(b"SET @saved_cs_client") {
        return Meaning::TriggersBegin;
    }
    let tokens = tokens(text);
    match tokens.first() {
        Some(Token::Word("CREATE" | "create")) => match created(&tokens) {
            Some((kind, name)) => Meaning::Created(kind, name),
            None => Meaning::Nothing,
        },
        Some(Token::Word("SET" | "set")) => sql_mode(&tokens).map_or(Meaning::Nothing, Meaning::SqlMode),
        Some(Token::Word("CHANGE")) => position(text).map_or(Meaning::Nothing, |(file, pos)| Meaning::Position(file, pos)),
        _ => Meaning::Nothing,
    }
}

/// The section that a comment line announces.
pub(super) fn heading(line: &str) -> Option<(SectionKind, String)> {
    let (prefix, kind) = HEADINGS.iter().find(|(prefix, _)| line.starts_with(prefix))?;
    let name = if *kind == SectionKind::Trailer { "" } else { &line[prefix.len()..] };
    Some((*kind, unquote(name)))
}

/// `CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=615`, or the same with SOURCE.
pub(super) fn position(text: &[u8]) -> Option<(String, u64)> {
    if !text.starts_with(b"CHANGE MASTER TO ") && !text.starts_with(b"CHANGE REPLICATION SOURCE TO ") {
        return None;
    }
    let (mut file, mut pos) = (None, None);
    for three in tokens(text).windows(3) {
        match three {
            [Token::Word("MASTER_LOG_FILE" | "SOURCE_LOG_FILE"), Token::Sign(b'='), Token::Quoted(name)] => file = Some(unquote(name)),
            [Token::Word("MASTER_LOG_POS" | "SOURCE_LOG_POS"), Token::Sign(b'='), Token::Word(number)] => pos = number.parse().ok(),
            _ => {}
        }
    }
    Some((file?, pos?))
}

/// `SET GLOBAL gtid_slave_pos='0-11-22';`
pub(super) fn gtid_slave_pos(line: &str) -> Option<String> {
    let set = line.strip_prefix("SET GLOBAL gtid_slave_pos='")?;
    Some(set.split_once('\'')?.0.to_owned())
}

/// ` SET @@GLOBAL.GTID_PURGED='+526f...:1-2,\n...';`, the content of a comment.
pub(super) fn gtid_purged(comment: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(comment).ok()?;
    let set = text.trim_start().strip_prefix("SET @@GLOBAL.GTID_PURGED='")?;
    let (set, _) = set.split_once('\'')?;
    Some(set.trim_start_matches('+').split_whitespace().collect())
}

/// The table of `INSERT [IGNORE] [INTO] [db.]t ...`, without quotes.
pub(super) fn insert_table(head: &[u8]) -> String {
    let tokens = tokens(head.trim_ascii());
    let is_modifier = |t: &Token| matches!(t, Token::Word(w) if ["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"].iter().any(|m| w.eq_ignore_ascii_case(m)));
    tokens
        .get(1..)
        .map(|rest| rest.iter().skip_while(|t| is_modifier(t)).collect::<Vec<_>>())
        .and_then(|rest| name(&rest))
        .unwrap_or_default()
}

#[derive(Debug, Clone, Copy)]
enum Token<'a> {
    Word(&'a str),
    /// With its quotes: a name or a string.
    Quoted(&'a str),
    Sign(u8),
}

/// The tokens of a statement's beginning; one that is not UTF-8 ends there.
fn tokens(text: &[u8]) -> Vec<Token<'_>> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
    };
    let (bytes, mut at, mut tokens) = (text.as_bytes(), 0, vec![]);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            quote @ (b'`' | b'\'' | b'"') => {
                at += 1;
                while at < bytes.len() {
                    match bytes[at] {
                        b'\\' if quote != b'`' => at += 2,
                        b if b == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
                        b if b == quote => break,
                        _ => at += 1,
                    }
                }
                at = (at + 1).min(bytes.len());
                // An escape may end inside a character only in text that was cut off.
                tokens.push(Token::Quoted(text.get(start..at).unwrap_or_default()));
            }
            b if b.is_ascii_whitespace() => at += 1,
            b if is_word(b) => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                tokens.push(Token::Word(&text[start..at]));
            }
            sign => {
                at += 1;
                tokens.push(Token::Sign(sign));
            }
        }
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

/// What a CREATE creates. All options before the kind's word (DEFINER, SQL SECURITY) are passed over.
fn created(tokens: &[Token]) -> Option<(ObjectKind, String)> {
    for (at, token) in tokens.iter().enumerate().skip(1) {
        let word = match token {
            Token::Word(word) => word.to_uppercase(),
            Token::Sign(b'(') => return None,
            _ => continue,
        };
        let kind = match word.as_str() {
            "TABLE" => ObjectKind::Table,
            "SEQUENCE" => ObjectKind::Sequence,
            "VIEW" => ObjectKind::View,
            "TRIGGER" => ObjectKind::Trigger,
            "PROCEDURE" => ObjectKind::Procedure,
            "FUNCTION" => ObjectKind::Function,
            "EVENT" => ObjectKind::Event,
            "PACKAGE" if matches!(tokens.get(at + 1), Some(Token::Word(w)) if w.eq_ignore_ascii_case("BODY")) => ObjectKind::PackageBody,
            "PACKAGE" => ObjectKind::Package,
            "DATABASE" | "SCHEMA" | "USER" | "ROLE" | "INDEX" | "SERVER" | "TABLESPACE" => return None,
            _ => continue,
        };
        let filler = ["BODY", "IF", "NOT", "EXISTS"];
        let is_filler = |t: &&Token| matches!(t, Token::Word(w) if filler.iter().any(|f| w.eq_ignore_ascii_case(f)));
        let rest: Vec<_> = tokens[at + 1..].iter().skip_while(is_filler).collect();
        return name(&rest).map(|name| (kind, name));
    }
    None
}

/// A name, perhaps with its schema's before it.
fn name(tokens: &[&Token]) -> Option<String> {
    let text = |token: &Token| match token {
        Token::Word(word) => Some((*word).to_owned()),
        Token::Quoted(name) => Some(unquote(name)),
        Token::Sign(_) => None,
    };
    match tokens {
        [_, Token::Sign(b'.'), name, ..] | [name, ..] => text(name),
        [] => None,
    }
}

/// What a SET makes of sql_mode: its text, or nothing for a variable's value, which is the header's.
fn sql_mode(tokens: &[Token]) -> Option<String> {
    for at in 1..tokens.len() {
        let is_variable = matches!(tokens[at], Token::Word(w) if w.eq_ignore_ascii_case("sql_mode"));
        // `SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='...'` also reads it.
        let is_read = matches!(tokens[at - 1], Token::Sign(b'@' | b'.'));
        if is_variable && !is_read && matches!(tokens.get(at + 1), Some(Token::Sign(b'='))) {
            return match tokens.get(at + 2) {
                Some(Token::Quoted(mode)) => Some(unquote(mode)),
                _ => Some(String::new()),
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(sql: &str) -> Option<(ObjectKind, String)> {
        match meaning(sql.as_bytes(), 0) {
            Meaning::Created(kind, name) => Some((kind, name)),
            _ => None,
        }
    }

    #[test]
    fn created_objects() {
        use ObjectKind::*;
        for (sql, kind, name) in [
            ("CREATE TABLE `a``b` (", Table, "a`b"),
            ("CREATE TABLE IF NOT EXISTS t (", Table, "t"),
            ("CREATE TABLE db.`таблица` (", Table, "таблица"),
            ("CREATE  DEFINER=`root`@`localhost`  TRIGGER `trigger` BEFORE INSERT ON `t1`", Trigger, "trigger"),
            ("CREATE DEFINER=`view`@`%` PROCEDURE `p``1`(a INT)", Procedure, "p`1"),
            ("CREATE DEFINER=`root`@`localhost` FUNCTION `f1`(a INT) RETURNS int(11)", Function, "f1"),
            ("CREATE ALGORITHM=UNDEFINED  DEFINER=`root`@`localhost` SQL SECURITY DEFINER  VIEW `v0` AS select", View, "v0"),
            ("CREATE  DEFINER=`root`@`localhost`  EVENT `e1` ON SCHEDULE", Event, "e1"),
            ("CREATE SEQUENCE `sq1` start with 1", Sequence, "sq1"),
            ("CREATE DEFINER=`r`@`l` PACKAGE BODY `pk` AS", PackageBody, "pk"),
            ("CREATE OR REPLACE PACKAGE pk AS", Package, "pk"),
        ] {
            assert_eq!(created(sql), Some((kind, name.to_owned())), "{sql}");
        }
        for sql in
            ["CREATE DATABASE `table`", "CREATE INDEX `view` ON t (a)", "CREATE USER `event`", "CREATE", "CREATE TABLE", "DROP TABLE t"]
        {
            assert_eq!(created(sql), None, "{sql}");
        }
    }

    #[test]
    fn settings() {
        let mode = |sql: &str| match meaning(sql.as_bytes(), 0) {
            Meaning::SqlMode(mode) => Some(mode),
            _ => None,
        };
        assert_eq!(mode(" SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' ").as_deref(), Some("NO_AUTO_VALUE_ON_ZERO"));
        assert_eq!(mode("SET sql_mode              = 'A,NO_BACKSLASH_ESCAPES'").as_deref(), Some("A,NO_BACKSLASH_ESCAPES"));
        assert_eq!(mode("SET sql_mode              = @saved_sql_mode").as_deref(), Some(""));
        assert_eq!(mode("SET @saved_sql_mode       = @@sql_mode"), None);
        assert_eq!(meaning(b"SET @@SESSION.SQL_LOG_BIN= 0", 0), Meaning::SessionBinlog { restores: false });
        assert_eq!(meaning(b"SET @@SESSION.SQL_LOG_BIN = @MYSQLDUMP_TEMP_LOG_BIN", 0), Meaning::SessionBinlog { restores: true });
        assert_eq!(meaning(b"SET @saved_cs_client      = @@character_set_client", 50003), Meaning::TriggersBegin);
        assert_eq!(meaning(b"SET @saved_cs_client     = @@character_set_client", 40101), Meaning::Nothing);
    }

    #[test]
    fn positions() {
        let expected = Some(("bin.000001".to_owned(), 615));
        assert_eq!(position(b"CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=615;"), expected);
        assert_eq!(position(b"CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='bin.000001', SOURCE_LOG_POS=615;"), expected);
        assert_eq!(position(b"CHANGE MASTER TO MASTER_LOG_FILE='bin.000001'"), None);
    }

    #[test]
    fn gtid_sets() {
        let two = b" SET @@GLOBAL.GTID_PURGED='+526fa9b8-e863-11f1-8dac-02fc00000001:1-2,\n626fa9b8-e863-11f1-8dac-02fc00000001:1';";
        let set = "526fa9b8-e863-11f1-8dac-02fc00000001:1-2,626fa9b8-e863-11f1-8dac-02fc00000001:1";
        assert_eq!(gtid_purged(two).as_deref(), Some(set));
        assert_eq!(gtid_purged(b" c "), None);
        assert_eq!(gtid_slave_pos("SET GLOBAL gtid_slave_pos='0-11-22,1-2-3';").as_deref(), Some("0-11-22,1-2-3"));
    }

    #[test]
    fn insert_tables() {
        for (sql, table) in [
            ("INSERT INTO `a``b` VALUES", "a`b"),
            ("insert ignore into t (a,b) values", "t"),
            ("REPLACE INTO `db`.`t2` VALUES ", "t2"),
            ("INSERT  IGNORE INTO t VALUES", "t"),
        ] {
            assert_eq!(insert_table(sql.as_bytes()), table, "{sql}");
        }
    }
}
