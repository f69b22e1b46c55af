//! Small things about SQL text: quoting, and rows as the server writes them.

use sqlx::{AssertSqlSafe, MySqlConnection, Row, mysql::MySqlRow};

/// A row's columns as text; `None` is NULL.
pub(crate) struct TextRow(MySqlRow);

impl TextRow {
    /// A column as text, by its place; empty when it is NULL or absent.
    pub(crate) fn text_at(&self, column: usize) -> String {
        String::from_utf8_lossy(self.bytes_at(column)).into_owned()
    }

    /// The bytes of a column, by its place; empty when it is NULL or absent.
    pub(crate) fn bytes_at(&self, column: usize) -> &[u8] {
        self.0.try_get_unchecked::<Option<&[u8]>, _>(column).ok().flatten().unwrap_or_default()
    }

    /// All columns from a place on, each ended by a zero byte.
    pub(crate) fn bytes_from(&self, first: usize) -> Vec<u8> {
        (first..self.0.len()).flat_map(|at| [self.bytes_at(at), b"\0"].concat()).collect()
    }

    /// A whole number, by its place; 0 when it is NULL, absent or none.
    pub(crate) fn number_at(&self, column: usize) -> u64 {
        self.text_at(column).parse().unwrap_or(0)
    }
}

/// Runs one statement through the text protocol, in which all types are text on both flavours.
pub(crate) async fn rows(conn: &mut MySqlConnection, sql: impl Into<String>) -> Result<Vec<TextRow>, sqlx::Error> {
    Ok(sqlx::raw_sql(AssertSqlSafe(sql.into())).fetch_all(conn).await?.into_iter().map(TextRow).collect())
}

/// Runs one statement and returns the first column of its first row; empty when there is none.
pub(crate) async fn value(conn: &mut MySqlConnection, sql: impl Into<String>) -> Result<String, sqlx::Error> {
    Ok(rows(conn, sql).await?.first().map(|row| row.text_at(0)).unwrap_or_default())
}

/// Runs one statement for its effect.
pub(crate) async fn run(conn: &mut MySqlConnection, sql: impl Into<String>) -> Result<(), sqlx::Error> {
    rows(conn, sql).await.map(drop)
}

/// The server's error number; `None` for errors that are not the server's.
pub fn server_error(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?;
    Some(error.number())
}

/// Quotes an identifier.
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Quotes a string for a session without NO_BACKSLASH_ESCAPES, such as [`ServerConfig::connect`](crate::server::ServerConfig::connect) opens.
pub fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Takes a quoted name's quotes away: `` `a``b` `` is ``a`b``; an unquoted name is returned as it is.
pub(crate) fn unquote(name: &str) -> String {
    for quote in ["`", "'", "\""] {
        if let Some(inner) = name.strip_prefix(quote).and_then(|n| n.strip_suffix(quote)) {
            return inner.replace(&quote.repeat(2), quote);
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(quote_name("a`b"), "`a``b`");
        assert_eq!(quote_text(r"it's \ x"), r"'it''s \\ x'");
        assert_eq!(unquote("`a``b`"), "a`b");
        assert_eq!(unquote("'x''y'"), "x'y");
        assert_eq!(unquote("plain"), "plain");
        assert_eq!(unquote("`"), "`");
    }
}
