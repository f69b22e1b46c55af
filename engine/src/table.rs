//! How a table's rows are selected and written: one answer for the dump and for every checksum.
//!
//! Everything is read from what SHOW CREATE TABLE says: it is one statement on either flavour, tells generated and
//! invisible columns, and is in the dump anyway.

use crate::{sql::quote_name, tuple::Form};

/// What must be known of a table to read and write its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Columns that can be written, in order; generated ones are left out, for the server makes them anew.
    pub columns: Vec<Column>,
    /// Its storage engine, as the server writes it.
    pub engine: String,
    /// The columns of its primary key, in order.
    pub primary_key: Vec<String>,
    /// MariaDB keeps old versions of its rows.
    pub versioning: Versioning,
}

/// A column that can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The first word of its type, in lower case.
    pub kind: String,
    /// How its values are written.
    pub form: Form,
}

/// Whether, and how, MariaDB keeps old versions of a table's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versioning {
    /// It does not.
    #[default]
    None,
    /// By time: old versions can be read and inserted.
    Time,
    /// By transaction: no session can insert them.
    Transaction,
}

impl Table {
    /// Reads what SHOW CREATE TABLE says in a session without ANSI_QUOTES and NO_BACKSLASH_ESCAPES; `None` when it is
    /// not that.
    pub fn parse(name: &str, definition: &str) -> Option<Self> {
        let mut table = Self { name: name.to_owned(), ..Self::default() };
        let open = skip_to_open(definition)?;
        let (items, options) = items(&definition[open..])?;
        let (mut row_start, mut row_end) = (false, None);
        for item in items {
            let Some((name, rest)) = leading_name(item) else {
                if let Some(columns) = item.strip_prefix("PRIMARY KEY ") {
                    table.primary_key = names_in(columns);
                }
                continue;
            };
            let kind: String = rest.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            let words = words(rest);
            let has = |sequence: &[&str]| words.windows(sequence.len()).any(|w| w == sequence);
            if has(&["AS", "ROW", "START"]) {
                row_start = true;
            } else if has(&["AS", "ROW", "END"]) {
                row_end = Some(kind.to_ascii_lowercase());
            } else if has(&["GENERATED", "ALWAYS", "AS"]) {
                continue;
            }
            let kind = kind.to_ascii_lowercase();
            table.columns.push(Column { name, form: Form::of(&kind), kind });
        }
        let words = words(options);
        table.engine = words.iter().skip_while(|w| **w != "ENGINE").nth(1).copied().unwrap_or_default().to_owned();
        if words.windows(3).any(|w| w == ["WITH", "SYSTEM", "VERSIONING"]) {
            table.versioning = match row_end.as_deref() {
                Some("bigint") => Versioning::Transaction,
                _ => Versioning::Time,
            };
            if !row_start {
                for name in ["row_start", "row_end"] {
                    table.columns.push(Column { name: name.to_owned(), kind: "timestamp".to_owned(), form: Form::Text });
                }
            }
        }
        Some(table)
    }

    /// The statement that reads all rows of the table, which `from` names with its quotes.
    pub fn select(&self, from: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(Column::select).collect();
        let list = if columns.is_empty() { "1".to_owned() } else { columns.join(", ") };
        let history = if self.versioning == Versioning::Time { " FOR SYSTEM_TIME ALL" } else { "" };
        format!("SELECT {list} FROM {from}{history}")
    }

    /// The beginning of a statement that inserts rows.
    pub fn insert(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|c| quote_name(&c.name)).collect();
        format!("INSERT INTO {} ({}) VALUES\n", quote_name(&self.name), columns.join(","))
    }

    /// How each column is written.
    pub fn forms(&self) -> Vec<Form> {
        self.columns.iter().map(|c| c.form).collect()
    }

    /// The first column of the primary key, where it holds whole numbers: large tables are cut along it.
    pub fn range_column(&self) -> Option<&str> {
        let first = self.primary_key.first()?;
        let column = self.columns.iter().find(|c| c.name == *first)?;
        matches!(column.kind.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint").then_some(first)
    }
}

impl Column {
    /// As it stands in a select list. The text protocol shows of a FLOAT six digits; the DOUBLE that it becomes by
    /// adding zero is shown whole.
    fn select(&self) -> String {
        let name = quote_name(&self.name);
        match self.kind.as_str() {
            "float" => format!("{name}+0e0"),
            // Client libraries do not know the type.
            "vector" => format!("CAST({name} AS BINARY)"),
            _ => name,
        }
    }
}

/// Offset of the parenthesis after the table's name.
fn skip_to_open(definition: &str) -> Option<usize> {
    let mut at = 0;
    while at < definition.len() {
        match definition.as_bytes()[at] {
            b'(' => return Some(at),
            b'`' => at = skip_quoted(definition.as_bytes(), at),
            _ => at += 1,
        }
    }
    None
}

/// The items between the parentheses with which the text begins, and what comes after.
fn items(text: &str) -> Option<(Vec<&str>, &str)> {
    let bytes = text.as_bytes();
    let (mut items, mut depth, mut start, mut at) = (vec![], 0, 1, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' | b'`' => {
                at = skip_quoted(bytes, at);
                continue;
            }
            b'(' => depth += 1,
            b',' if depth == 1 => {
                items.push(text[start..at].trim());
                start = at + 1;
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    items.push(text[start..at].trim());
                    return Some((items, &text[at + 1..]));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Offset after a quoted name or string that begins at `at`.
pub(crate) fn skip_quoted(bytes: &[u8], mut at: usize) -> usize {
    let quote = bytes[at];
    at += 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote != b'`' => at += 2,
            // A doubled quote ends one and begins another, which comes to the same.
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The quoted name with which an item begins, and the rest.
fn leading_name(item: &str) -> Option<(String, &str)> {
    let inner = item.strip_prefix('`')?;
    let (mut name, mut rest) = (String::new(), inner);
    loop {
        let (part, after) = rest.split_once('`')?;
        name.push_str(part);
        match after.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

/// The quoted names of a key's list: `` (`a`,`b`(10) DESC) ``.
fn names_in(list: &str) -> Vec<String> {
    let Some((items, _)) = list.find('(').and_then(|at| items(&list[at..])) else { return vec![] };
    items.into_iter().filter_map(|item| Some(leading_name(item)?.0)).collect()
}

/// The words outside quotes and parentheses.
fn words(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut words, mut depth, mut at) = (vec![], 0, 0);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'\'' | b'"' | b'`' => at = skip_quoted(bytes, at),
            b'(' => (depth, at) = (depth + 1, at + 1),
            b')' => (depth, at) = (depth - 1, at + 1),
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                if depth == 0 {
                    words.push(&text[start..at]);
                }
            }
            _ => at += 1,
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_whatever_they_are_called_and_said_of() {
        let definition = "CREATE TABLE `a``(b` (\n  `id` int unsigned NOT NULL AUTO_INCREMENT,\n  `x``,` varchar(10) DEFAULT 'it''s, (\\'' COMMENT 'GENERATED ALWAYS AS',\n  \
            `f` float(7,2) DEFAULT NULL,\n  `g` int GENERATED ALWAYS AS ((`id` + 1)) VIRTUAL,\n  `e` enum('GENERATED ALWAYS AS','b') NOT NULL,\n  \
            `h` int DEFAULT NULL /*!80023 INVISIBLE */,\n  `b` varbinary(16) DEFAULT (uuid_to_bin(uuid())),\n  PRIMARY KEY (`id`,`x``,`(3) DESC),\n  \
            KEY `k` (`f`),\n  CONSTRAINT `c` CHECK ((`id` > 0))\n) ENGINE=InnoDB AUTO_INCREMENT=3 DEFAULT CHARSET=utf8mb4 COMMENT='WITH SYSTEM VERSIONING'";
        let table = Table::parse("a`(b", definition).unwrap();
        let columns: Vec<_> = table.columns.iter().map(|c| (c.name.as_str(), c.form)).collect();
        let expected =
            [("id", Form::Plain), ("x`,", Form::Text), ("f", Form::Float), ("e", Form::Text), ("h", Form::Plain), ("b", Form::Hex)];
        assert_eq!(columns, expected);
        assert_eq!((table.engine.as_str(), table.versioning, table.range_column()), ("InnoDB", Versioning::None, Some("id")));
        assert_eq!(table.primary_key, ["id", "x`,"]);
        assert_eq!(table.select("`t`"), "SELECT `id`, `x``,`, `f`+0e0, `e`, `h`, `b` FROM `t`");
        assert_eq!(table.insert(), "INSERT INTO `a``(b` (`id`,`x``,`,`f`,`e`,`h`,`b`) VALUES\n");
    }

    #[test]
    fn old_versions_of_rows_are_read_too() {
        let implicit = Table::parse("t", "CREATE TABLE `t` (\n  `a` int(11) DEFAULT NULL\n) ENGINE=InnoDB WITH SYSTEM VERSIONING").unwrap();
        assert_eq!(implicit.select("`t`"), "SELECT `a`, `row_start`, `row_end` FROM `t` FOR SYSTEM_TIME ALL");
        let explicit = "CREATE TABLE `t` (\n  `a` int(11) DEFAULT NULL,\n  `s` timestamp(6) GENERATED ALWAYS AS ROW START,\n  \
            `e` timestamp(6) GENERATED ALWAYS AS ROW END,\n  PERIOD FOR SYSTEM_TIME (`s`, `e`)\n) ENGINE=InnoDB WITH SYSTEM VERSIONING";
        let table = Table::parse("t", explicit).unwrap();
        assert_eq!(table.select("`t`"), "SELECT `a`, `s`, `e` FROM `t` FOR SYSTEM_TIME ALL");
        let by_transaction = Table::parse("t", &explicit.replace("timestamp(6)", "bigint(20) unsigned")).unwrap();
        assert_eq!(by_transaction.versioning, Versioning::Transaction);
    }
}
