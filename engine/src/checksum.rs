//! A table's checksum: computed while it is dumped, and again from what was restored.
//!
//! The checksum of a table is the sum, modulo 2^64, of XXH3-64 (seed 0) over each row's text
//! `(value,value,...)`, parentheses included. The text is the one in the dump: values in the forms of
//! [`crate::tuple`], in the order of the columns, generated columns left out ([`crate::table`]), in a session
//! whose time zone is `+00:00` and whose character set is utf8mb4. A sum does not depend on the rows' order; that of no
//! row is 0. Of MariaDB's system-versioned tables, old versions of rows count too.
//!
//! `CHECKSUM TABLE` would not do: it differs by version, flavour and row format.

use crate::{
    server::ServerError,
    sql::{self, quote_name},
    table::{Table, Versioning},
};
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use std::{fmt, str::FromStr};
use twox_hash::XxHash3_64;

/// What is compared of two tables that should hold the same rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableSum {
    /// Rows.
    pub rows: u64,
    /// The sum of all rows' hashes.
    pub checksum: u64,
}

impl TableSum {
    /// Adds a row by its text, parentheses included.
    pub(crate) fn add(&mut self, row: &[u8]) {
        self.add_hash(XxHash3_64::oneshot(row));
    }

    /// Adds a row by the hash of its text.
    pub(crate) fn add_hash(&mut self, hash: u64) {
        self.rows += 1;
        self.checksum = self.checksum.wrapping_add(hash);
    }

    /// Adds the rows of another part of the table.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.checksum = self.checksum.wrapping_add(other.checksum);
    }

    /// The checksum as manifests and the catalog hold it: 16 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.checksum)
    }
}

/// `12 rows, checksum 00ab...`.
impl fmt::Display for TableSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, checksum {:016x}", self.rows, self.checksum)
    }
}

/// Reads [`TableSum::hex`]'s digits back.
pub fn from_hex(digits: &str) -> Option<u64> {
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

impl FromStr for TableSum {
    type Err = std::num::ParseIntError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rows, checksum) = text.split_once(" rows, checksum ").unwrap_or((text, ""));
        Ok(Self { rows: rows.parse()?, checksum: u64::from_str_radix(checksum, 16)? })
    }
}

/// Reads all rows of a base table, one at a time, and sums them up.
///
/// The session must be one that [`ServerConfig::connect`](crate::server::ServerConfig::connect) opened and nothing changed
/// since: its time zone, character set and sql_mode are part of the checksum's definition.
pub async fn of_table(conn: &mut MySqlConnection, schema: &str, table: &str) -> Result<TableSum, ServerError> {
    let failed = || ServerError::query(format!("compute the checksum of table `{table}`"));
    let from = format!("{}.{}", quote_name(schema), quote_name(table));
    let rows = sql::rows(conn, format!("SHOW CREATE TABLE {from}")).await.map_err(failed())?;
    let definition = rows.first().map(|row| row.text_at(1)).unwrap_or_default();
    let not_a_table = || failed()(sqlx::Error::Protocol(format!("{from} is no table whose rows can be read")));
    let table = Table::parse(table, &definition).filter(|t| t.versioning != Versioning::Transaction).ok_or_else(not_a_table)?;
    let (forms, mut sum, mut text) = (table.forms(), TableSum::default(), Vec::new());
    let mut rows = sqlx::raw_sql(AssertSqlSafe(table.select(&from))).fetch(conn);
    while let Some(row) = rows.try_next().await.map_err(failed())? {
        text.clear();
        text.push(b'(');
        for (at, form) in forms.iter().enumerate() {
            if at > 0 {
                text.push(b',');
            }
            let value = row.try_get_unchecked::<Option<&[u8]>, _>(at).map_err(failed())?;
            form.write(value, &mut text);
        }
        text.push(b')');
        sum.add(&text);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::Form;

    #[test]
    fn the_order_of_rows_and_parts_does_not_matter() {
        let sum = |rows: &[&str]| {
            let mut sum = TableSum::default();
            rows.iter().for_each(|row| sum.add(row.as_bytes()));
            sum
        };
        let all = sum(&["(1,'a')", "(2,'b')", "(2,'b')", "(3,NULL)"]);
        assert_eq!(all, sum(&["(3,NULL)", "(2,'b')", "(1,'a')", "(2,'b')"]));
        let mut parts = sum(&["(1,'a')", "(2,'b')"]);
        parts.merge(sum(&["(3,NULL)", "(2,'b')"]));
        assert_eq!(all, parts);
        assert_ne!(all, sum(&["(1,'a')", "(2,'b')", "(3,NULL)"]));
        assert_ne!(all.checksum, sum(&["(1,'a')", "(3,NULL)"]).checksum, "the same row twice does not cancel out");
        assert_eq!(sum(&[]), TableSum::default());
    }

    /// A manifest outlives this program: the algorithm is fixed.
    #[test]
    fn the_checksum_is_the_one_described() {
        let mut text = b"(".to_vec();
        Form::Plain.write(Some(b"1"), &mut text);
        text.push(b',');
        Form::Text.write(Some(b"it's"), &mut text);
        text.push(b')');
        assert_eq!(text, b"(1,'it\\'s')");
        let mut sum = TableSum::default();
        sum.add(&text);
        assert_eq!(sum.hex(), "77f9aa32721e97b2");
        assert_eq!(from_hex(&sum.hex()), Some(sum.checksum));
        assert_eq!(sum.to_string().parse::<TableSum>().unwrap(), sum);
        assert_eq!(from_hex("12"), None);
        // A published vector of XXH3-64: the empty text.
        assert_eq!(XxHash3_64::oneshot(b""), 0x2d06_8005_38d3_94c2);
    }
}
