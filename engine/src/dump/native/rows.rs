//! Tables: definition and rows, on as many sessions as there are.

use super::{NativeError, Stop, outlet::Outlet};
use crate::{
    checksum::TableSum,
    section_writer::SectionWriter,
    server::Flavour,
    sql::quote_name,
    sql_scan::{ObjectKind, SectionKind},
    table::{Table, Versioning},
    tuple::Form,
    wire::{RowPart, Values, Wire},
};
use std::{
    collections::VecDeque,
    hash::Hasher,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};
use twox_hash::xxhash3_64::Hasher as RowHasher;

/// A statement is ended once it is as large, in bytes: a gzip member then holds it whole.
const STATEMENT: usize = 1_000_000;
/// A table is cut into ranges if its rows take more, in bytes by the server's statistics; each range then has about as many.
const RANGE: u64 = 16 << 20;

/// What a session does next.
enum Task {
    /// A table: definition, then rows, or ranges of them for all.
    Table(String, u64),
    /// A range of a table's rows.
    Range(Arc<Table>, String),
}

/// Tables and ranges that nobody has begun. A table that is being begun may bring more.
pub(super) struct Tasks {
    queue: Mutex<(VecDeque<Task>, usize)>,
    changed: Condvar,
}

impl Tasks {
    /// The largest tables first: what comes last should be small, lest one session wait for the other.
    pub(super) fn new(mut tables: Vec<(String, u64)>) -> Self {
        tables.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let queue = tables.into_iter().map(|(name, size)| Task::Table(name, size)).collect();
        Self { queue: Mutex::new((queue, 0)), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<Task>, usize)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task; `None` once no more can come.
    fn next(&self, stop: &Stop) -> Option<Task> {
        let mut queue = self.lock();
        loop {
            if stop.is_stopped() {
                return None;
            }
            if let Some(task) = queue.0.pop_front() {
                queue.1 += 1;
                return Some(task);
            }
            if queue.1 == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self) {
        self.lock().1 -= 1;
        self.changed.notify_all();
    }

    fn add(&self, ranges: Vec<Task>) {
        let mut queue = self.lock();
        for range in ranges.into_iter().rev() {
            queue.0.push_front(range);
        }
        drop(queue);
        self.changed.notify_all();
    }
}

/// One session's work on tables.
pub(super) struct Tables<'a, W> {
    pub(super) flavour: Flavour,
    pub(super) schema: &'a str,
    pub(super) tasks: &'a Tasks,
    pub(super) outlet: &'a Mutex<Outlet<W>>,
    pub(super) stop: &'a Stop,
}

impl<W: SectionWriter> Tables<'_, W> {
    /// Works until nothing is left to do.
    pub(super) fn work(&self, conn: &mut Wire) -> Result<(), NativeError> {
        let mut buffer = Vec::with_capacity(STATEMENT + (64 << 10));
        // Rolling back to it gives up the metadata lock that reading takes, which would otherwise be kept until the dump's
        // end. The savepoint itself stays.
        conn.run("SAVEPOINT table_done").map_err(|e| NativeError::session("set a savepoint", e))?;
        while let Some(task) = self.tasks.next(self.stop) {
            let done = match task {
                Task::Table(name, size) => self.table(conn, &name, size, &mut buffer),
                Task::Range(table, range) => self.range(conn, &table, &range, &mut buffer),
            };
            if done.is_err() {
                self.stop.stop();
            }
            self.tasks.done();
            done?;
        }
        Ok(())
    }

    fn range(&self, conn: &mut Wire, table: &Table, range: &str, buffer: &mut Vec<u8>) -> Result<(), NativeError> {
        let on = |e| NativeError::on(format!("table {}", quote_name(&table.name)), e);
        buffer.clear();
        self.rows(conn, table, Some(range), buffer)?;
        conn.run("ROLLBACK TO SAVEPOINT table_done").map_err(on)
    }

    fn table(&self, conn: &mut Wire, name: &str, size: u64, buffer: &mut Vec<u8>) -> Result<(), NativeError> {
        let quoted = quote_name(name);
        let on = |e| NativeError::on(format!("table {quoted}"), e);
        let rows = conn.query(&format!("SHOW CREATE TABLE {quoted}")).map_err(on)?;
        let definition = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten().unwrap_or_default();
        let unsupported = |why: &str| NativeError::Unsupported { object: format!("table {quoted}"), why: why.to_owned() };
        let definition = String::from_utf8(definition).or_else(|e| literals_as_hex(e.as_bytes()));
        let definition = definition.map_err(|_| unsupported("its definition is not UTF-8"))?;
        let table = Table::parse(name, &definition).ok_or_else(|| unsupported("its definition is in no form that we know"))?;
        if table.versioning == Versioning::Transaction {
            return Err(unsupported("old versions of rows by transaction number cannot be inserted"));
        }
        buffer.clear();
        buffer.extend_from_slice(format!("--\n-- Table structure for table {quoted}\n--\n\nDROP TABLE IF EXISTS {quoted};\n").as_bytes());
        match self.flavour {
            Flavour::MySql => buffer.extend_from_slice(definition.as_bytes()),
            Flavour::MariaDb => buffer.extend_from_slice(without_own_schema(&definition, self.schema).as_bytes()),
        }
        buffer.extend_from_slice(b";\n\n");
        self.lock().created(ObjectKind::Table, name);
        // Their rows are other tables', or another server's.
        let has_rows = !table.engine.starts_with("MRG_") && table.engine != "FEDERATED";
        let ranges = if size > RANGE && has_rows { self.ranges(conn, &table, size).map_err(on)? } else { vec![] };
        if has_rows && ranges.is_empty() {
            self.rows(conn, &table, None, buffer)?;
        } else {
            let mut outlet = self.lock();
            outlet.write(SectionKind::Table, name, buffer)?;
            if !has_rows {
                outlet.has_no_rows(name);
            }
            drop(outlet);
            buffer.clear();
            let table = Arc::new(table);
            self.tasks.add(ranges.into_iter().map(|range| Task::Range(table.clone(), range)).collect());
        }
        conn.run("ROLLBACK TO SAVEPOINT table_done").map_err(on)
    }

    /// Conditions that each choose a part of a large table and together choose all; none where it cannot be cut.
    fn ranges(&self, conn: &mut Wire, table: &Table, size: u64) -> Result<Vec<String>, crate::wire::WireError> {
        let Some(column) = table.range_column().filter(|_| table.versioning == Versioning::None) else { return Ok(vec![]) };
        let column = quote_name(column);
        let rows = conn.query(&format!("SELECT MIN({column}), MAX({column}) FROM {}", quote_name(&table.name)))?;
        let number = |at: usize| -> Option<i128> { std::str::from_utf8(rows.first()?.get(at)?.as_deref()?).ok()?.parse().ok() };
        let (Some(low), Some(high)) = (number(0), number(1)) else { return Ok(vec![]) };
        Ok(cuts(low, high, size / RANGE + 1, &column))
    }

    /// Reads rows and writes them; `buffer` may begin with the table's definition.
    fn rows(&self, conn: &mut Wire, table: &Table, range: Option<&str>, buffer: &mut Vec<u8>) -> Result<(), NativeError> {
        let mut select = table.select(&quote_name(&table.name));
        if let Some(range) = range {
            select.push_str(" WHERE ");
            select.push_str(range);
        }
        let mut writer = RowWriter {
            outlet: self.outlet,
            table,
            kind: if buffer.is_empty() { SectionKind::Data } else { SectionKind::Table },
            insert: table.insert(),
            forms: table.forms(),
            buffer,
            statement: None,
            sum: TableSum::default(),
            large: None,
        };
        let read = conn.rows(&select, |part| writer.part(part));
        read.map_err(|e| e.about(|| format!("table {}", quote_name(&table.name))))?;
        writer.finish()
    }

    fn lock(&self) -> MutexGuard<'_, Outlet<W>> {
        self.outlet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts `low..=high` into `parts`; the first has no lower bound and the last no upper one.
fn cuts(low: i128, high: i128, parts: u64, column: &str) -> Vec<String> {
    let step = (high - low) / i128::from(parts) + 1;
    let bounds: Vec<i128> = (1..i128::from(parts)).map(|n| low + n * step).filter(|bound| *bound <= high).collect();
    let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else { return vec![] };
    let mut ranges = vec![format!("{column} < {first}")];
    ranges.extend(bounds.windows(2).map(|two| format!("{column} >= {} AND {column} < {}", two[0], two[1])));
    ranges.push(format!("{column} >= {last}"));
    ranges
}

/// MariaDB shows a default of bytes as it is. Writes literals that are no UTF-8 in hexadecimal instead.
fn literals_as_hex(definition: &[u8]) -> Result<String, std::string::FromUtf8Error> {
    let (mut out, mut at) = (vec![], 0);
    while at < definition.len() {
        let quote = definition[at];
        if !matches!(quote, b'\'' | b'`') {
            out.push(quote);
            at += 1;
            continue;
        }
        let (start, mut bytes) = (at, vec![]);
        at += 1;
        while at < definition.len() {
            match (definition[at], definition.get(at + 1)) {
                (b'\\', Some(&next)) if quote == b'\'' => {
                    bytes.push(match next {
                        b'0' => 0,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'Z' => 0x1a,
                        other => other,
                    });
                    at += 2;
                }
                (byte, Some(&next)) if byte == quote && next == quote => {
                    bytes.push(quote);
                    at += 2;
                }
                (byte, _) => {
                    at += 1;
                    if byte == quote {
                        break;
                    }
                    bytes.push(byte);
                }
            }
        }
        match std::str::from_utf8(&definition[start..at]) {
            Ok(text) => out.extend_from_slice(text.as_bytes()),
            Err(_) => out.extend_from_slice(format!("x'{}'", hex::encode(bytes)).as_bytes()),
        }
    }
    String::from_utf8(out)
}

/// MariaDB names a sequence in a default with its schema, even its table's own: the dump must load into another one.
fn without_own_schema(definition: &str, schema: &str) -> String {
    let qualified = format!("({}.", quote_name(schema));
    let mut text = definition.to_owned();
    for function in ["nextval", "lastval", "setval"] {
        text = text.replace(&format!("{function}{qualified}"), &format!("{function}("));
    }
    text
}

/// Rows on their way into the stream.
struct RowWriter<'a, 'b, W> {
    outlet: &'a Mutex<Outlet<W>>,
    table: &'b Table,
    kind: SectionKind,
    insert: String,
    forms: Vec<Form>,
    buffer: &'b mut Vec<u8>,
    /// Where in the buffer the statement began that has not ended.
    statement: Option<usize>,
    /// Rows that have not yet been noted.
    sum: TableSum,
    large: Option<Large<'a, W>>,
}

/// A row that comes in pieces; the stream is this table's until its end.
struct Large<'a, W> {
    outlet: MutexGuard<'a, Outlet<W>>,
    hash: RowHasher,
    /// Up to where the buffer has been hashed.
    hashed: usize,
    column: usize,
    value: Option<usize>,
}

impl<W: SectionWriter> RowWriter<'_, '_, W> {
    fn part(&mut self, part: RowPart<'_>) -> Result<(), NativeError> {
        match part {
            RowPart::Whole(row) => return self.row(row),
            RowPart::Value(len) => {
                if self.large.is_none() {
                    self.begin_large()?;
                }
                let Some(large) = &mut self.large else { return Ok(()) };
                self.buffer.push(if large.column == 0 { b'(' } else { b',' });
                large.value = len;
                match (len, self.forms.get(large.column)) {
                    (Some(len), Some(form)) => form.begin(len, self.buffer),
                    _ => self.buffer.extend_from_slice(b"NULL"),
                }
            }
            RowPart::Piece(bytes) => {
                let Some(large) = &mut self.large else { return Ok(()) };
                // Both forms at most double a piece.
                for bytes in bytes.chunks(256 << 10) {
                    if let Some(form) = self.forms.get(large.column) {
                        form.piece(bytes, self.buffer);
                    }
                    if self.buffer.len() >= STATEMENT {
                        large.pass_on(&self.table.name, self.buffer)?;
                    }
                }
            }
            RowPart::ValueEnd => {
                let Some(large) = &mut self.large else { return Ok(()) };
                if let (Some(len), Some(form)) = (large.value, self.forms.get(large.column)) {
                    form.end(len, self.buffer);
                }
                large.column += 1;
            }
            RowPart::RowEnd => {
                let Some(mut large) = self.large.take() else { return Ok(()) };
                self.buffer.push(b')');
                large.hash.write(&self.buffer[large.hashed..]);
                self.sum.add_hash(large.hash.finish());
                self.buffer.extend_from_slice(b";\n");
                large.outlet.write(SectionKind::Data, &self.table.name, self.buffer)?;
                large.outlet.add_rows(&self.table.name, std::mem::take(&mut self.sum));
                self.buffer.clear();
            }
        }
        Ok(())
    }

    fn row(&mut self, row: &[u8]) -> Result<(), NativeError> {
        self.separate();
        let start = self.buffer.len();
        self.buffer.push(b'(');
        let mut first = true;
        for (value, form) in Values(row).zip(&self.forms) {
            if !std::mem::take(&mut first) {
                self.buffer.push(b',');
            }
            form.write(value, self.buffer);
        }
        self.buffer.push(b')');
        self.sum.add(&self.buffer[start..]);
        if self.buffer.len() >= STATEMENT {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what comes before a row.
    fn separate(&mut self) {
        match self.statement {
            Some(_) => self.buffer.extend_from_slice(b",\n"),
            None => {
                self.statement = Some(self.buffer.len());
                self.buffer.extend_from_slice(self.insert.as_bytes());
            }
        }
    }

    /// What was before a large row goes out, and the row gets a statement of its own.
    fn begin_large(&mut self) -> Result<(), NativeError> {
        self.flush()?;
        self.separate();
        self.statement = None;
        let outlet = self.outlet.lock().unwrap_or_else(PoisonError::into_inner);
        let hashed = self.buffer.len();
        self.large = Some(Large { outlet, hash: RowHasher::new(), hashed, column: 0, value: None });
        Ok(())
    }

    /// Ends the statement and hands everything on.
    fn flush(&mut self) -> Result<(), NativeError> {
        if self.statement.take().is_some() {
            self.buffer.extend_from_slice(b";\n");
        }
        if !self.buffer.is_empty() {
            let mut outlet = self.outlet.lock().unwrap_or_else(PoisonError::into_inner);
            outlet.write(self.kind, &self.table.name, self.buffer)?;
            outlet.add_rows(&self.table.name, std::mem::take(&mut self.sum));
            self.buffer.clear();
            self.kind = SectionKind::Data;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), NativeError> {
        self.flush()
    }
}

impl<W: SectionWriter> Large<'_, W> {
    fn pass_on(&mut self, table: &str, buffer: &mut Vec<u8>) -> Result<(), NativeError> {
        self.hash.write(&buffer[self.hashed..]);
        self.outlet.write(SectionKind::Data, table, buffer)?;
        buffer.clear();
        self.hashed = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once() {
        let sql = |low, high, parts| cuts(low, high, parts, "`id`");
        assert_eq!(sql(1, 100, 2), ["`id` < 51", "`id` >= 51"]);
        assert_eq!(sql(-5, 4, 3), ["`id` < -1", "`id` >= -1 AND `id` < 3", "`id` >= 3"]);
        assert_eq!(sql(0, i128::from(u64::MAX), 2).len(), 2);
        assert!(sql(7, 7, 4).is_empty(), "one value cannot be cut");
    }

    #[test]
    fn bytes_in_a_definition_are_written_in_hexadecimal() {
        let definition = b"`a` varbinary(9) DEFAULT '\\0\xff''\\\\', `b` varchar(9) DEFAULT 'it''s \\\\', `c'`";
        assert_eq!(literals_as_hex(definition).unwrap(), "`a` varbinary(9) DEFAULT x'00ff275c', `b` varchar(9) DEFAULT 'it''s \\\\', `c'`");
    }

    #[test]
    fn the_own_schema_is_not_named() {
        let text = "`a` int DEFAULT nextval(`app`.`s`),\n `b` int DEFAULT nextval(`other`.`s`)";
        assert_eq!(without_own_schema(text, "app"), "`a` int DEFAULT nextval(`s`),\n `b` int DEFAULT nextval(`other`.`s`)");
    }
}
