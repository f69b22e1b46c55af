//! Views, triggers, routines and events as texts with all that it takes to make them again.
//!
//! What SHOW CREATE says is right only under the sql_mode, character set and collations of its making, so these are
//! kept with it. Definitions are read with the schema as the session's default: the server then leaves its name out, and
//! the text makes the same object in any schema.

use crate::{
    server::ServerError,
    sql::{self, TextRow, quote_name, quote_text, server_error, unquote},
    sql_scan::ObjectKind,
};
use sqlx::MySqlConnection;
use std::collections::BTreeSet;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCode {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// What SHOW CREATE says.
    pub definition: String,
    /// Under which it was made; empty for views.
    pub sql_mode: String,
    /// `character_set_client` of that time.
    pub character_set: String,
    /// `collation_connection` of that time.
    pub collation: String,
    /// The schema's of that time; empty for views.
    pub database_collation: String,
    /// Of an event; otherwise empty.
    pub time_zone: String,
    /// `user@host`; empty when it has none.
    pub definer: String,
    /// Whether an event fires; true for the rest.
    pub enabled: bool,
}

/// All that is in the session's default schema `schema`, in an order in which it can be made: routines, views, triggers
/// in the order in which they fire, events.
pub async fn read(conn: &mut MySqlConnection, schema: &str) -> Result<Vec<StoredCode>, ServerError> {
    let mut found = Vec::new();
    for (kind, name) in list(conn, schema).await? {
        let what = format!("read the definition of {} `{name}`", kind.word());
        let query = format!("SHOW CREATE {} {}", kind.word(), quote_name(&name));
        let rows = sql::rows(conn, query).await.map_err(ServerError::query(&what))?;
        let mut code = rows.first().and_then(|row| StoredCode::of(kind, &name, row));
        if let Some(code) = &mut code
            && kind == ObjectKind::View
            && let Some(plain) = unqualified_view(&code.definition, schema)
        {
            code.definition = plain;
        }
        found.push(code.ok_or_else(|| {
            ServerError::query(what)(sqlx::Error::Protocol("the account may not see it (`worker grants` prints what it needs)".into()))
        })?);
    }
    Ok(found)
}

/// Which objects there are, in the order of [`read`].
pub async fn list(conn: &mut MySqlConnection, schema: &str) -> Result<Vec<(ObjectKind, String)>, ServerError> {
    let quoted = quote_text(schema);
    let queries = [
        format!("SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = {quoted} ORDER BY 1, 2"),
        format!("SELECT 'VIEW', table_name FROM information_schema.views WHERE table_schema = {quoted} ORDER BY 2"),
        format!(
            "SELECT 'TRIGGER', trigger_name FROM information_schema.triggers WHERE trigger_schema = {quoted} \
             ORDER BY event_object_table, event_manipulation, action_timing, action_order"
        ),
        format!("SELECT 'EVENT', event_name FROM information_schema.events WHERE event_schema = {quoted} ORDER BY 2"),
    ];
    let mut found = Vec::new();
    for query in queries {
        for row in sql::rows(conn, query).await.map_err(ServerError::query(format!("list the objects of schema `{schema}`")))? {
            found.extend(kind_of(&row.text_at(0)).map(|kind| (kind, row.text_at(1))));
        }
    }
    Ok(found)
}

fn kind_of(word: &str) -> Option<ObjectKind> {
    use ObjectKind::{Event, Function, Package, PackageBody, Procedure, Trigger, View};
    [View, Trigger, Procedure, Function, Package, PackageBody, Event].into_iter().find(|k| k.word().eq_ignore_ascii_case(word))
}

/// The kind of this name in messages and journals.
pub fn kind_from_word(word: &str) -> Option<ObjectKind> {
    kind_of(word)
}

impl StoredCode {
    fn of(kind: ObjectKind, name: &str, row: &TextRow) -> Option<Self> {
        // Name, sql_mode (not views), time zone (events), text, character set, collation, the schema's collation (not views).
        let (mode, zone, text) = match kind {
            ObjectKind::View => (None, None, 1),
            ObjectKind::Event => (Some(1), Some(2), 3),
            _ => (Some(1), None, 2),
        };
        let at = |column: Option<usize>| column.map_or_else(String::new, |c| row.text_at(c));
        let definition = row.text_at(text);
        if definition.is_empty() {
            return None;
        }
        let enabled = kind != ObjectKind::Event || is_enabled(&definition);
        Some(Self {
            kind,
            name: name.to_owned(),
            definer: definer(&definition).unwrap_or_default(),
            sql_mode: at(mode),
            character_set: row.text_at(text + 1),
            collation: row.text_at(text + 2),
            database_collation: if kind == ObjectKind::View { String::new() } else { row.text_at(text + 3) },
            time_zone: at(zone),
            enabled,
            definition,
        })
    }
}

/// Makes the object in the session's default schema, whose collation is `collation`; an event as `enabled` says.
///
/// Dies in the middle: the session ends, and at most the schema's default collation is another than it was; see
/// [`set_collation`].
pub async fn make(conn: &mut MySqlConnection, schema: &str, collation: &str, code: &StoredCode) -> Result<(), sqlx::Error> {
    // Text of another character set would be taken for it; what is ASCII is the same in all that a client may have.
    let settable = code.character_set.starts_with("utf8") || code.definition.is_ascii();
    let mut settings = Vec::new();
    if settable && !code.character_set.is_empty() {
        settings.push(format!("character_set_client = {}", code.character_set));
        settings.push(format!("collation_connection = {}", code.collation));
    }
    if code.kind != ObjectKind::View {
        settings.push(format!("sql_mode = {}", quote_text(&code.sql_mode)));
    }
    if !code.time_zone.is_empty() {
        settings.push(format!("time_zone = {}", quote_text(&code.time_zone)));
    }
    let other = !code.database_collation.is_empty() && code.database_collation != collation;
    if other {
        set_collation(conn, schema, &code.database_collation).await?;
    }
    let text = match code.kind {
        // Never by ALTER EVENT, which makes its caller the definer.
        ObjectKind::Event if code.enabled => set_enabled(&code.definition, true).unwrap_or_else(|| code.definition.clone()),
        _ => code.definition.clone(),
    };
    if !settings.is_empty() {
        sql::run(conn, format!("SET SESSION {}", settings.join(", "))).await?;
    }
    let made = sql::run(conn, text).await;
    sql::run(conn, "SET NAMES utf8mb4").await?;
    sql::run(conn, "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'").await?;
    if other {
        set_collation(conn, schema, collation).await?;
    }
    made
}

/// Gives the schema this default collation.
pub async fn set_collation(conn: &mut MySqlConnection, schema: &str, collation: &str) -> Result<(), sqlx::Error> {
    // The character set follows from it.
    sql::run(conn, format!("ALTER DATABASE {} COLLATE {collation}", quote_name(schema))).await
}

/// Drops the object if it is there.
pub async fn drop(conn: &mut MySqlConnection, schema: &str, kind: ObjectKind, name: &str) -> Result<(), sqlx::Error> {
    sql::run(conn, format!("DROP {} IF EXISTS {}.{}", kind.word(), quote_name(schema), quote_name(name))).await
}

/// Whether the text of CREATE EVENT makes one that fires.
pub fn is_enabled(definition: &str) -> bool {
    set_enabled(definition, true).is_none_or(|on| on == definition)
}

/// The text of CREATE EVENT with its switch on or off; `None` where it has none. Dumps and SHOW CREATE always write one, after
/// `ON COMPLETION [NOT] PRESERVE`.
pub fn set_enabled(definition: &str, on: bool) -> Option<String> {
    let bytes = definition.as_bytes();
    let mut words: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"' | b'`') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    // A backslash escapes in strings; in a name it never comes before a quote.
                    at += 1 + usize::from(bytes[at] == b'\\' && quote != b'`');
                }
                at += 1;
            }
            byte if byte.is_ascii_alphabetic() => {
                let start = at;
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                words.push((start, at));
                let word = |back: usize| words.len().checked_sub(back).map(|i| &definition[words[i].0..words[i].1]);
                let is = |back: usize, wanted: &str| word(back).is_some_and(|w| w.eq_ignore_ascii_case(wanted));
                if is(1, "DO") {
                    return None;
                }
                if is(2, "PRESERVE") && (is(1, "ENABLE") || is(1, "DISABLE")) {
                    let mut end = at;
                    // DISABLE ON SLAVE, DISABLE ON REPLICA
                    for suffix in [" ON SLAVE", " ON REPLICA"] {
                        if definition[at..].get(..suffix.len()).is_some_and(|s| s.eq_ignore_ascii_case(suffix)) {
                            end += suffix.len();
                        }
                    }
                    return Some(format!("{}{}{}", &definition[..start], if on { "ENABLE" } else { "DISABLE" }, &definition[end..]));
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// A CREATE TRIGGER without the schema's name before the trigger's and the table's; `None` when it has none there.
///
/// The server keeps what was written, and the dump tools write what it keeps: `CREATE TRIGGER app.t ... ON app.item` would go to
/// that schema, into whichever it is loaded.
pub fn unqualified_trigger(statement: &str) -> Option<String> {
    let mut tokens = Tokens { text: statement, at: 0 };
    let mut next = || tokens.next();
    let is = |(start, end): (usize, usize), word: &str| statement[start..end].eq_ignore_ascii_case(word);
    if !is(next()?, "CREATE") {
        return None;
    }
    let mut removed: Vec<(usize, usize)> = Vec::new();
    for keyword in ["TRIGGER", "ON"] {
        while !is(next()?, keyword) {}
        let mut name = next()?;
        if is(name, "IF") {
            (_, _, name) = (next()?, next()?, next()?);
        }
        let dot = next()?;
        if is(dot, ".") {
            removed.push((name.0, next()?.0));
        }
    }
    let mut text = statement.to_owned();
    removed.iter().rev().for_each(|(from, to)| text.replace_range(*from..*to, ""));
    (!removed.is_empty()).then_some(text)
}

/// A view's text without the name of `schema` before tables and columns; `None` when it is not there.
///
/// Where the definer does not exist, or may not read the tables, MariaDB shows a view with it, even to a session in that schema.
pub fn unqualified_view(statement: &str, schema: &str) -> Option<String> {
    let name = quote_name(schema);
    let (mut tokens, mut removed) = (Tokens { text: statement, at: 0 }, Vec::new());
    let mut before: Option<(usize, usize)> = None;
    while let Some((start, end)) = tokens.next() {
        if &statement[start..end] == "."
            && let Some((from, to)) = before
            && statement[from..to] == name
        {
            removed.push((from, end));
        }
        before = Some((start, end));
    }
    let mut text = statement.to_owned();
    removed.iter().rev().for_each(|(from, to)| text.replace_range(*from..*to, ""));
    (!removed.is_empty()).then_some(text)
}

/// Words, quoted names and signs of a statement; comments are left out, and so are the marks of versioned ones.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl Tokens<'_> {
    /// Where the next one begins and ends.
    fn next(&mut self) -> Option<(usize, usize)> {
        let bytes = self.text.as_bytes();
        loop {
            let rest = &self.text[self.at..];
            let first = *rest.as_bytes().first()?;
            if first.is_ascii_whitespace() {
                self.at += 1;
            } else if let Some(version) = rest.strip_prefix("/*!").or_else(|| rest.strip_prefix("/*M!")) {
                self.at += rest.len() - version.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            } else if rest.starts_with("*/") {
                self.at += 2;
            } else if rest.starts_with("/*") {
                self.at += rest.find("*/")? + 2;
            } else {
                break;
            }
        }
        let start = self.at;
        let first = bytes[start];
        let mut end = start + 1;
        if matches!(first, b'`' | b'"' | b'\'') {
            loop {
                match *bytes.get(end)? {
                    b'\\' if first != b'`' => end += 2,
                    byte if byte == first && bytes.get(end + 1) == Some(&first) => end += 2,
                    byte => {
                        end += 1;
                        if byte == first {
                            break;
                        }
                    }
                }
            }
        } else if is_name(first) {
            while bytes.get(end).is_some_and(|b| is_name(*b)) {
                end += 1;
            }
        }
        self.at = end;
        Some((start, end))
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

/// The account of `DEFINER=` in a statement's beginning, as `user@host`; a role has no host.
pub fn definer(statement: &str) -> Option<String> {
    let head = &statement[..statement.char_indices().nth(400).map_or(statement.len(), |(at, _)| at)];
    let (_, rest) = head.split_once("DEFINER=").or_else(|| head.split_once("DEFINER ="))?;
    let (user, rest) = quoted(rest.trim_start())?;
    Some(match rest.trim_start().strip_prefix('@').and_then(|host| quoted(host.trim_start())) {
        Some((host, _)) => format!("{user}@{host}"),
        None => user,
    })
}

/// A quoted name at the text's beginning, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| "`'\"".contains(*c))?;
    let mut end = 1;
    loop {
        end += text[end..].find(quote)? + 1;
        if !text[end..].starts_with(quote) {
            return Some((unquote(&text[..end]), &text[end..]));
        }
        end += 1;
    }
}

/// Which of these accounts (`user@host`) the server does not know; `None` when this account may not see.
pub async fn unknown_accounts(conn: &mut MySqlConnection, accounts: &BTreeSet<String>) -> Result<Option<Vec<String>>, ServerError> {
    let mut unknown = Vec::new();
    for account in accounts {
        let (user, host) = account.rsplit_once('@').unwrap_or((account, ""));
        let query = format!("SELECT COUNT(*) FROM mysql.user WHERE user = {} AND host = {}", quote_text(user), quote_text(host));
        match sql::value(conn, query).await {
            Ok(count) if count == "0" => unknown.push(account.clone()),
            Ok(_) => {}
            Err(error) if matches!(server_error(&error), Some(1044 | 1142 | 1143)) => return Ok(None),
            Err(error) => return Err(ServerError::query("look for accounts")(error)),
        }
    }
    Ok(Some(unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_switched() {
        let text = "CREATE DEFINER=`r``x`@`h` EVENT `ENABLE PRESERVE` ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' ON COMPLETION NOT PRESERVE ENABLE COMMENT 'PRESERVE DISABLE' DO DELETE FROM a";
        let off = set_enabled(text, false).unwrap();
        assert!(off.contains("NOT PRESERVE DISABLE COMMENT 'PRESERVE DISABLE'"), "{off}");
        assert_eq!(set_enabled(&off, true).unwrap(), text);
        let replica = text.replace("PRESERVE ENABLE COMMENT", "PRESERVE DISABLE ON SLAVE COMMENT");
        assert_eq!(set_enabled(&replica, true).unwrap(), text);
        assert!(is_enabled(text) && !is_enabled(&off) && !is_enabled(&replica));
        let dumped = "/*!50106 CREATE*/ /*!50117 DEFINER=`a`@`b`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE ENABLE DO SELECT 1 */";
        assert!(set_enabled(dumped, false).unwrap().contains("PRESERVE DISABLE DO"));
        assert_eq!(set_enabled("CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 'PRESERVE ENABLE'", false), None);
    }

    #[test]
    fn triggers_name_no_schema() {
        let plain = |text: &str| unqualified_trigger(text).unwrap_or_else(|| "as it was".into());
        assert_eq!(
            plain(
                "/*!50003 CREATE*/ /*!50017 DEFINER=`r`@`ON`*/ /*!50003 TRIGGER `a``b`.`t` BEFORE INSERT ON `a``b` . `c.d` FOR EACH ROW SET @x = 'ON a.b' */"
            ),
            "/*!50003 CREATE*/ /*!50017 DEFINER=`r`@`ON`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `c.d` FOR EACH ROW SET @x = 'ON a.b' */"
        );
        assert_eq!(
            plain("CREATE DEFINER=`r`@`h` TRIGGER IF NOT EXISTS app.t AFTER UPDATE on app.item FOR EACH ROW DELETE FROM app.other"),
            "CREATE DEFINER=`r`@`h` TRIGGER IF NOT EXISTS t AFTER UPDATE on item FOR EACH ROW DELETE FROM app.other"
        );
        assert_eq!(
            plain("CREATE TRIGGER t AFTER UPDATE ON app.item FOR EACH ROW BEGIN END"),
            "CREATE TRIGGER t AFTER UPDATE ON item FOR EACH ROW BEGIN END"
        );
        for other in
            ["CREATE TRIGGER `a.b` AFTER DELETE ON `c.d` FOR EACH ROW DELETE FROM x.y", "CREATE TABLE a.b (c INT)", "SET x = 1", "CREATE"]
        {
            assert_eq!(unqualified_trigger(other), None, "{other}");
        }
    }

    #[test]
    fn views_name_their_own_schema_nowhere() {
        assert_eq!(
            unqualified_view(
                "CREATE VIEW `v` AS select `a`.`item`.`id` AS `a`,'`a`.x' AS `t`,`a`.`f`(1) from (`a`.`item` join `b`.`a`)",
                "a"
            )
            .unwrap(),
            "CREATE VIEW `v` AS select `item`.`id` AS `a`,'`a`.x' AS `t`,`f`(1) from (`item` join `b`.`a`)"
        );
        assert_eq!(unqualified_view("CREATE VIEW `v` AS select `ab`.`item`.`id` from `ab`.`item`", "a"), None);
    }

    #[test]
    fn definers_are_read() {
        assert_eq!(definer("CREATE DEFINER=`a``b`@`%` VIEW `v` AS SELECT 1").unwrap(), "a`b@%");
        assert_eq!(definer("/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */").unwrap(), "root@localhost");
        assert_eq!(definer("CREATE DEFINER=`role` PROCEDURE p() SELECT 1").unwrap(), "role");
        assert_eq!(definer("CREATE PROCEDURE p() SELECT 1"), None);
    }
}
