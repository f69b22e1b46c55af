//! What several readers write, as one stream of sections.

use super::{super::pump::Content, NativeError};
use crate::{
    checksum::TableSum,
    control::Progress,
    manifest::Section,
    section_writer::SectionWriter,
    sql_scan::{ObjectKind, SectionKind},
};
use std::{collections::BTreeMap, sync::Arc};

/// The stream, and what is known of what went by.
pub(super) struct Outlet<W> {
    writer: W,
    content: Content,
    progress: Arc<Progress>,
    /// Of each table: its section, and its rows so far.
    tables: BTreeMap<String, (usize, TableSum)>,
}

impl<W: SectionWriter> Outlet<W> {
    pub(super) fn new(writer: W, progress: Arc<Progress>) -> Self {
        Self { writer, content: Content::default(), progress, tables: BTreeMap::new() }
    }

    /// Writes to a section: the last one, if it is of this kind and name, or a new one.
    pub(super) fn write(&mut self, kind: SectionKind, name: &str, bytes: &[u8]) -> Result<(), NativeError> {
        let is_last = self.content.sections.last().is_some_and(|last| {
            let same_kind = last.kind == kind.word() || (kind == SectionKind::Data && last.kind == SectionKind::Table.word());
            same_kind && last.name == name
        });
        if !is_last {
            self.end_section();
            if !self.content.sections.is_empty() {
                self.writer.cut().map_err(NativeError::Write)?;
            }
            let start = self.writer.raw_offset();
            if kind == SectionKind::Table {
                self.tables.insert(name.to_owned(), (self.content.sections.len(), TableSum::default()));
            }
            self.content.sections.push(Section {
                kind: kind.word().to_owned(),
                name: name.to_owned(),
                start,
                end: start,
                ..Section::default()
            });
        }
        self.writer.write_all(bytes).map_err(NativeError::Write)?;
        self.progress.add(bytes.len() as u64);
        Ok(())
    }

    /// Notes rows of a table that have been written.
    pub(super) fn add_rows(&mut self, table: &str, sum: TableSum) {
        if let Some((_, total)) = self.tables.get_mut(table) {
            total.merge(sum);
        }
    }

    /// Notes a table whose rows are not its own: nothing is said of them.
    pub(super) fn has_no_rows(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// Notes an object whose definition has been written.
    pub(super) fn created(&mut self, kind: ObjectKind, name: &str) {
        self.content.created.insert((kind, name.to_owned()));
    }

    /// The stream and its content, once all is written.
    pub(super) fn finish(mut self) -> (W, Content) {
        self.end_section();
        for (section, sum) in self.tables.into_values() {
            if let Some(section) = self.content.sections.get_mut(section) {
                (section.rows, section.checksum) = (Some(sum.rows), Some(sum.hex()));
            }
        }
        self.content.bytes = self.writer.raw_offset();
        self.content.complete = true;
        (self.writer, self.content)
    }

    fn end_section(&mut self) {
        let end = self.writer.raw_offset();
        if let Some(last) = self.content.sections.last_mut() {
            last.end = end;
        }
    }
}
