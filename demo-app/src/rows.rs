//! INSERT statements, many rows each, as the dump tools write them.

use std::io::{self, Write};

/// A statement is ended beyond this size: far below any server's max_allowed_packet.
const STATEMENT: usize = 256 * 1024;

/// Writes the rows of one table.
pub(crate) struct Rows<'w, W: Write> {
    out: &'w mut W,
    head: String,
    statement: Vec<u8>,
}

impl<'w, W: Write> Rows<'w, W> {
    pub(crate) fn into(out: &'w mut W, table: &str, columns: &[&str]) -> Self {
        let quoted: Vec<String> = columns.iter().map(|c| format!("`{}`", c.replace('`', "``"))).collect();
        Self { out, head: format!("INSERT INTO `{table}` ({}) VALUES\n", quoted.join(", ")), statement: Vec::new() }
    }

    /// Begins a row; [`Row::end`] completes it.
    pub(crate) fn row(&mut self) -> io::Result<Row<'_>> {
        if self.statement.len() > STATEMENT {
            self.flush()?;
        }
        let separator = if self.statement.is_empty() { self.head.as_bytes() } else { b",\n" };
        self.statement.extend_from_slice(separator);
        Ok(Row { sql: &mut self.statement, separator: b'(' })
    }

    /// Ends the last statement.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.statement.is_empty() {
            self.statement.extend_from_slice(b";\n");
            self.out.write_all(&self.statement)?;
            self.statement.clear();
        }
        Ok(())
    }
}

/// One row, given value by value in the order of the columns.
#[must_use = "a row needs its end"]
pub(crate) struct Row<'s> {
    sql: &'s mut Vec<u8>,
    separator: u8,
}

impl Row<'_> {
    /// An SQL expression as it stands.
    pub(crate) fn raw(mut self, expression: &str) -> Self {
        self.next().extend_from_slice(expression.as_bytes());
        self
    }

    pub(crate) fn int(mut self, value: impl Into<i64>) -> Self {
        let value: i64 = value.into();
        self.next();
        // Writing to a Vec cannot fail.
        write!(self.sql, "{value}").ok();
        self
    }

    pub(crate) fn opt_int(self, value: Option<impl Into<i64>>) -> Self {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    pub(crate) fn null(self) -> Self {
        self.raw("NULL")
    }

    pub(crate) fn text(mut self, value: &str) -> Self {
        let sql = self.next();
        sql.push(b'\'');
        let bytes = value.as_bytes();
        let mut copied = 0;
        for (i, &byte) in bytes.iter().enumerate() {
            let escaped = match byte {
                b'\'' | b'\\' => byte,
                b'\n' => b'n',
                b'\r' => b'r',
                0 => b'0',
                0x1a => b'Z',
                _ => continue,
            };
            sql.extend_from_slice(&bytes[copied..i]);
            sql.extend_from_slice(&[b'\\', escaped]);
            copied = i + 1;
        }
        sql.extend_from_slice(&bytes[copied..]);
        sql.push(b'\'');
        self
    }

    pub(crate) fn opt_text(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    pub(crate) fn blob(mut self, value: &[u8]) -> Self {
        let sql = self.next();
        sql.extend_from_slice(b"x'");
        sql.extend_from_slice(hex::encode(value).as_bytes());
        sql.push(b'\'');
        self
    }

    pub(crate) fn end(self) {
        self.sql.push(b')');
    }

    fn next(&mut self) -> &mut Vec<u8> {
        self.sql.push(self.separator);
        self.separator = b',';
        self.sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        let mut out = Vec::new();
        let mut rows = Rows::into(&mut out, "t", &["a", "b`c"]);
        rows.row().unwrap().text("it's\\a\n\r\0\x1a\"€").blob(b"\0'").end();
        rows.row().unwrap().int(-1).opt_text(None).end();
        rows.end().unwrap();
        let expected = "INSERT INTO `t` (`a`, `b``c`) VALUES\n('it\\'s\\\\a\\n\\r\\0\\Z\"€',x'0027'),\n(-1,NULL);\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn no_row_no_statement() {
        let mut out = Vec::new();
        Rows::into(&mut out, "t", &["a"]).end().unwrap();
        assert!(out.is_empty());
    }
}
