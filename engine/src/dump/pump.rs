//! From the dump tool's stdout through the scanner into the archive, on a thread that may block.

use crate::{
    control::Progress,
    manifest::Section,
    section_writer::SectionWriter,
    sql_scan::{Event, ObjectKind, Scanner, SectionKind},
};
use std::{
    collections::BTreeSet,
    io::{self, Read},
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::oneshot;

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// What went by.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// The parts, in order; a table's rows belong to its section, its triggers have their own.
    pub(crate) sections: Vec<Section>,
    /// Objects whose definitions are in it.
    pub(crate) created: BTreeSet<(ObjectKind, String)>,
    /// Log file and position.
    pub(crate) position: Option<(String, u64)>,
    /// GTIDs at that position.
    pub(crate) gtids: Option<String>,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Whether the trailer is its last line.
    pub(crate) complete: bool,
}

/// Which side failed.
#[derive(Debug)]
pub(crate) enum PumpError {
    Read(io::Error),
    Write(io::Error),
}

/// What the pump tells while it runs.
pub(crate) struct Signals<'a> {
    /// Sent the position (if any) once the snapshot has been taken for sure.
    pub(crate) snapshot: Option<oneshot::Sender<Option<(String, u64)>>>,
    /// Bytes read so far.
    pub(crate) bytes: &'a AtomicU64,
    pub(crate) progress: &'a Progress,
}

/// Pumps until the end of `from`; ends early only by an error.
///
/// Lines that turn the session's binary log off and on are made comments, in place: mysqldump writes them
/// with the GTIDs, and they would need a privilege to restore and hide the restore from replicas. A semicolon that
/// would keep a trigger or event from being loaded becomes a space (see [`Event::StraySemicolon`]).
pub(crate) fn pump<W: SectionWriter>(mut from: impl Read, writer: &mut W, mut signals: Signals<'_>) -> Result<Content, PumpError> {
    let (mut scanner, mut content, mut events) = (Scanner::default(), Content::default(), vec![]);
    // `buffer[..held]` has been scanned and not yet written; it begins at offset `base` of the stream.
    let (mut buffer, mut held, mut base) = (vec![0; 2 * CHUNK], 0, 0u64);
    loop {
        if buffer.len() < held + CHUNK {
            buffer.resize(held + CHUNK, 0);
        }
        let read = match from.read(&mut buffer[held..]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(PumpError::Read(e)),
        };
        signals.bytes.fetch_add(read as u64, Ordering::Relaxed);
        signals.progress.add(read as u64);
        scanner.feed(&buffer[held..held + read], &mut events);
        held += read;
        let mut written = 0;
        for event in events.drain(..) {
            match event {
                Event::SessionBinlog { start } => {
                    let at = (start - base) as usize;
                    buffer[at..at + 3].copy_from_slice(b"-- ");
                }
                Event::StraySemicolon { start } => buffer[(start - base) as usize] = b' ',
                Event::Section { kind, name, start } if content.begins_section(kind, &name) => {
                    let upto = (start - base) as usize;
                    writer.write_all(&buffer[written..upto]).map_err(PumpError::Write)?;
                    if start > 0 {
                        writer.cut().map_err(PumpError::Write)?;
                    }
                    written = upto;
                    content.begin_section(kind, name, start);
                }
                other => content.note(other),
            }
        }
        if (content.position.is_some() || content.sections.len() > 1)
            && let Some(signal) = signals.snapshot.take()
        {
            let _ = signal.send(content.position.clone());
        }
        let upto = (scanner.settled() - base) as usize;
        writer.write_all(&buffer[written..upto]).map_err(PumpError::Write)?;
        buffer.copy_within(upto..held, 0);
        (held, base) = (held - upto, base + upto as u64);
    }
    writer.write_all(&buffer[..held]).map_err(PumpError::Write)?;
    content.bytes = scanner.position();
    content.complete = scanner.is_complete();
    content.end_section(content.bytes);
    Ok(content)
}

impl Content {
    fn begins_section(&self, kind: SectionKind, name: &str) -> bool {
        let same = |s: &Section| s.kind == SectionKind::Table.word() && s.name == name;
        !(kind == SectionKind::Data && self.sections.last().is_some_and(same))
    }

    fn begin_section(&mut self, kind: SectionKind, name: String, start: u64) {
        self.end_section(start);
        let rows = matches!(kind, SectionKind::Table | SectionKind::Data).then_some(0);
        self.sections.push(Section { kind: kind.word().to_owned(), name, start, end: start, rows, checksum: None });
    }

    fn end_section(&mut self, end: u64) {
        if let Some(last) = self.sections.last_mut() {
            last.end = end;
        }
    }

    fn note(&mut self, event: Event) {
        let section = self.sections.last_mut();
        match event {
            // A placeholder is not yet the view.
            Event::Created { kind: ObjectKind::View, .. }
                if section.as_ref().is_some_and(|s| s.kind == SectionKind::Placeholder.word()) => {}
            Event::Created { kind, name } => {
                self.created.insert((kind, name));
            }
            Event::Rows { rows, .. } => {
                if let Some(Section { rows: Some(count), .. }) = section {
                    *count += rows;
                }
            }
            Event::Position { file, pos } => self.position = Some((file, pos)),
            Event::Gtids { set, at_position: true } => self.gtids = Some(set),
            Event::Statement { .. }
            | Event::Gtids { .. }
            | Event::Section { .. }
            | Event::SessionBinlog { .. }
            | Event::StraySemicolon { .. } => {}
        }
    }

    /// How many objects of a kind there are.
    pub(crate) fn count(&self, kinds: &[ObjectKind]) -> u64 {
        self.created.iter().filter(|(kind, _)| kinds.contains(kind)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what is written, and where it was cut.
    #[derive(Default)]
    struct Cuts {
        bytes: Vec<u8>,
        cuts: Vec<u64>,
        fails_at: Option<usize>,
    }

    impl io::Write for Cuts {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.fails_at.is_some_and(|limit| self.bytes.len() + buf.len() > limit) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl SectionWriter for Cuts {
        fn raw_offset(&self) -> u64 {
            self.bytes.len() as u64
        }
        fn cut(&mut self) -> io::Result<()> {
            self.cuts.push(self.raw_offset());
            Ok(())
        }
    }

    /// Reads a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(buf.len()).min(self.0.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    const MYSQL: &[u8] = include_bytes!("../sql_scan/testdata/mysql.sql");
    const MARIADB: &[u8] = include_bytes!("../sql_scan/testdata/mariadb.sql");

    type Position = Option<(String, u64)>;

    fn run(dump: &[u8], step: usize, writer: &mut Cuts) -> (Result<Content, PumpError>, Option<Position>) {
        let (sender, mut receiver) = oneshot::channel();
        let (bytes, progress) = (AtomicU64::new(0), Progress::default());
        let result = pump(Trickle(dump, step), writer, Signals { snapshot: Some(sender), bytes: &bytes, progress: &progress });
        (result, receiver.try_recv().ok())
    }

    #[test]
    fn sections_cover_the_stream_and_begin_where_it_was_cut() {
        for dump in [MYSQL, MARIADB] {
            for step in [1, 7, 4096, usize::MAX] {
                let mut out = Cuts::default();
                let (content, position) = run(dump, step, &mut out);
                let content = content.unwrap();
                let starts: Vec<u64> = content.sections.iter().map(|s| s.start).collect();
                assert_eq!(starts[0], 0);
                assert_eq!(starts[1..], out.cuts);
                assert!(content.sections.windows(2).all(|two| two[0].end == two[1].start));
                assert_eq!((content.sections.last().unwrap().end, content.bytes), (dump.len() as u64, dump.len() as u64));
                assert_eq!(position, Some(content.position.clone()));
                assert!(content.complete && content.position.is_some() && content.gtids.is_some());
                let rows: Vec<_> = content.sections.iter().filter(|s| s.kind == "table").map(|s| (s.name.as_str(), s.rows)).collect();
                assert_eq!(rows[0], ("child", Some(2)));
                assert_eq!(rows.len(), 6);
                assert_eq!(content.count(&[ObjectKind::Table]), 6);
                assert_eq!(content.count(&[ObjectKind::View]), 2);
                assert_eq!(content.count(&[ObjectKind::Trigger]), 2);
            }
        }
    }

    #[test]
    fn the_sessions_binary_log_is_left_alone() {
        let mut out = Cuts::default();
        run(MYSQL, 100, &mut out).0.unwrap();
        let text = String::from_utf8(out.bytes).unwrap();
        assert_eq!(text.len(), MYSQL.len());
        let lines: Vec<_> = text.lines().filter(|line| line.contains("SQL_LOG_BIN")).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.starts_with("--  @")), "{lines:?}");
    }

    #[test]
    fn a_mariadb_dump_passes_unchanged() {
        let mut out = Cuts::default();
        run(MARIADB, 100, &mut out).0.unwrap();
        assert!(out.bytes == MARIADB);
    }

    #[test]
    fn a_full_disk_is_the_writers_error() {
        let mut out = Cuts { fails_at: Some(3000), ..Cuts::default() };
        assert!(matches!(run(MYSQL, 1000, &mut out).0, Err(PumpError::Write(e)) if e.kind() == io::ErrorKind::StorageFull));
    }

    #[test]
    fn a_truncated_stream_is_not_complete() {
        let (content, _) = run(&MYSQL[..MYSQL.len() - 20], 100, &mut Cuts::default());
        assert!(!content.unwrap().complete);
    }
}
