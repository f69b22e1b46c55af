//! Dumps that other programs wrote: plain `mysqldump` or `mariadb-dump` output, gzipped or not.
//!
//! One is read once from its beginning to its end and written anew as an archive of ours, into a file that no directory
//! names any more: then everything that reads archives reads it too, and nothing is left when its reader is gone.

use crate::{
    archive::{ArchiveError, ArchiveWriter},
    control::Control,
    dump::pump::{Content, PumpError, Signals, pump},
    effort::Effort,
    manifest::{DatabaseFacts, FORMAT, Manifest},
    sql_scan::ObjectKind,
    verify::{Hashed, Verified},
};
use sha2::Digest;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, Read},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

/// Why a file is no dump that can be restored.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ForeignError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} begins with a message of the dump tool instead of SQL: {line}", path.display())]
    Message { path: PathBuf, line: String },
    #[error("{} is no dump of a database: it begins with neither `-- MySQL dump` nor `-- MariaDB dump`", path.display())]
    NoDump { path: PathBuf },
    #[error("{} is incomplete: its last line is not `-- Dump completed`", path.display())]
    Trailer { path: PathBuf },
    #[error("{} holds more than one database: {}", path.display(), databases.join(", "))]
    Several { path: PathBuf, databases: Vec<String> },
    #[error("reading was cancelled")]
    Cancelled,
}

impl ForeignError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Archive(error) => return error.hint(),
            Self::Message { .. } => {
                "its standard error went into the file with its output; if it is one line, `gunzip -c FILE | tail -n +2 | gzip > OTHER` takes it away"
            }
            Self::NoDump { .. } => "restore what mysqldump or mariadb-dump wrote with its comments (no --skip-comments, no --compact)",
            Self::Trailer { .. } => "the dump died, or the file was cut: use another one",
            Self::Several { .. } => "dump them one by one, or restore it by hand into a server of its own",
            Self::Read { .. } | Self::Cancelled => return None,
        })
    }
}

/// A dump, as an archive of ours.
pub struct Imported {
    /// Of the original file; the manifest is the new one's.
    pub verified: Verified,
    /// The archive; gone when it is dropped.
    file: File,
}

impl Imported {
    /// Where this process reads it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Reads the dump at `path` and writes it anew in `scratch`. Blocks: call it on a thread that may.
///
/// Dies in the middle: the new file has no name any more, so nothing is left.
pub fn import(path: &Path, scratch: &Path, tag: &str, threads: usize, control: &Control) -> Result<Imported, ForeignError> {
    let read = |source| ForeignError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut magic = [0; 2];
    let zipped = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    let file = File::open(path).map_err(read)?;
    control.progress.phase(format!("reading {}", path.display()), size);
    let mut hashed = Hashed::new(file, control);
    let unzipped: Box<dyn Read + '_> = if zipped {
        Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(1 << 17, &mut hashed)))
    } else {
        Box::new(&mut hashed)
    };
    let mut lines = Lines::new(unzipped);
    let head = lines.head().map_err(read)?;
    let about = about(path, &head)?;

    let name = "imported";
    let mut writer = ArchiveWriter::create(scratch, name, tag, &Effort::full(threads), control)?;
    let partial = scratch.join(format!(".{name}.{tag}.partial"));
    let archive = File::open(&partial).map_err(read)?;
    fs::remove_file(&partial).map_err(read)?;
    let bytes = AtomicU64::new(0);
    let pumped = pump(&mut lines, &mut writer, Signals { snapshot: None, bytes: &bytes, progress: &Default::default() });
    let databases = std::mem::take(&mut lines.databases);
    drop(lines);
    let content: Content = match pumped {
        Err(_) if control.cancel.is_cancelled() => return Err(ForeignError::Cancelled),
        Err(PumpError::Read(source)) => return Err(read(source)),
        Err(PumpError::Write(source)) => return Err(ArchiveError::Io { action: "write", path: partial, source }.into()),
        Ok(content) => content,
    };
    if !content.complete {
        return Err(ForeignError::Trailer { path: path.to_owned() });
    }
    if databases.len() > 1 {
        return Err(ForeignError::Several { path: path.to_owned(), databases: databases.into_iter().collect() });
    }
    let database = DatabaseFacts {
        tables: content.count(&[ObjectKind::Table]),
        views: content.count(&[ObjectKind::View]),
        triggers: content.count(&[ObjectKind::Trigger]),
        routines: content.count(&[ObjectKind::Procedure, ObjectKind::Function, ObjectKind::Package, ObjectKind::PackageBody]),
        events: content.count(&[ObjectKind::Event]),
        schema: databases.into_iter().next().unwrap_or(about.schema),
        ..about.facts
    };
    let manifest = Manifest {
        format: FORMAT,
        component: "database".into(),
        sections: content.sections,
        database: Some(database),
        ..Manifest::default()
    };
    let manifest = writer.finish(manifest)?.archive().manifest.clone();
    io::copy(&mut hashed, &mut io::sink()).map_err(read)?;
    let verified = Verified { size, sha256: hex::encode(hashed.hash.finalize()), manifest };
    Ok(Imported { verified, file: archive })
}

/// What a dump's first lines say.
#[derive(Debug, Default, PartialEq, Eq)]
struct About {
    schema: String,
    facts: DatabaseFacts,
}

fn about(path: &Path, head: &str) -> Result<About, ForeignError> {
    let first = head.lines().find(|l| !l.trim().is_empty() && !l.starts_with("/*M!999999")).unwrap_or_default();
    let flavour = match first {
        line if line.starts_with("-- MySQL dump") => "mysql",
        line if line.starts_with("-- MariaDB dump") => "mariadb",
        line if ["mysqldump:", "mariadb-dump:", "Warning:", "mysqldump.exe:"].iter().any(|w| line.starts_with(w)) => {
            return Err(ForeignError::Message { path: path.to_owned(), line: line.chars().take(120).collect() });
        }
        _ => return Err(ForeignError::NoDump { path: path.to_owned() }),
    };
    let mut about = About {
        facts: DatabaseFacts { flavour: flavour.into(), tool: first.trim_start_matches("-- ").into(), ..Default::default() },
        ..About::default()
    };
    for line in head.lines() {
        if let Some((_, schema)) = line.strip_prefix("-- Host:").and_then(|rest| rest.split_once("Database: ")) {
            about.schema = schema.trim().into();
        }
        if let Some(version) = line.strip_prefix("-- Server version") {
            about.facts.server_version = version.trim().into();
        }
    }
    // MariaDB's tool may have dumped a MySQL server, and the other way round.
    if !about.facts.server_version.is_empty() {
        about.facts.flavour = if about.facts.server_version.contains("MariaDB") { "mariadb" } else { "mysql" }.into();
    }
    Ok(about)
}

/// A stream whose first bytes are looked at before, and whose USE lines are noted on its way.
struct Lines<R> {
    from: R,
    head: Vec<u8>,
    at: usize,
    line: Vec<u8>,
    databases: BTreeSet<String>,
}

impl<R: Read> Lines<R> {
    fn new(from: R) -> Self {
        Self { from, head: Vec::new(), at: 0, line: Vec::new(), databases: BTreeSet::new() }
    }

    /// The first 4 KiB, which are read again afterwards.
    fn head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        (&mut self.from).take(4096).read_to_end(&mut head)?;
        self.head = head;
        Ok(String::from_utf8_lossy(&self.head).into_owned())
    }

    /// The beginning of each line is enough: dumps write `USE` so, and data has no line breaks of its own.
    fn note(&mut self, bytes: &[u8]) {
        let mut parts = bytes.split(|b| *b == b'\n').peekable();
        while let Some(part) = parts.next() {
            if self.line.len() < 80 {
                self.line.extend_from_slice(&part[..part.len().min(80)]);
            }
            if parts.peek().is_some() {
                if let Some(name) = self.line.strip_prefix(b"USE `").and_then(|rest| rest.split(|b| *b == b'`').next()) {
                    self.databases.insert(String::from_utf8_lossy(name).into_owned());
                }
                self.line.clear();
            }
        }
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = if self.at < self.head.len() {
            let n = buf.len().min(self.head.len() - self.at);
            buf[..n].copy_from_slice(&self.head[self.at..self.at + n]);
            self.at += n;
            n
        } else {
            self.from.read(buf)?
        };
        self.note(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{archive::read_manifest, gzip};

    const DUMPS: [&[u8]; 2] = [include_bytes!("sql_scan/testdata/mysql.sql"), include_bytes!("sql_scan/testdata/mariadb.sql")];

    fn read(bytes: &[u8]) -> Result<Imported, ForeignError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump");
        fs::write(&path, bytes).unwrap();
        let imported = import(&path, dir.path(), "1.1", 1, &Control::default());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the dump has a name");
        imported
    }

    #[test]
    fn plain_and_zipped_dumps_become_archives() {
        for dump in DUMPS {
            for bytes in [dump.to_vec(), gzip::member(dump)] {
                let imported = read(&bytes).unwrap();
                let manifest = &imported.verified.manifest;
                assert_eq!(read_manifest(&imported.path()).unwrap().as_ref(), Some(manifest));
                let facts = manifest.database.as_ref().unwrap();
                assert_eq!((facts.schema.as_str(), facts.tables, facts.views, facts.triggers), ("app", 6, 2, 2));
                assert_eq!(imported.verified.sha256, hex::encode(sha2::Sha256::digest(&bytes)));
            }
        }
    }

    #[test]
    fn what_cannot_be_restored_is_told_apart() {
        let cut = &DUMPS[0][..DUMPS[0].len() - 30];
        assert!(matches!(read(cut), Err(ForeignError::Trailer { .. })));
        let warned = [b"mysqldump: [Warning] Using a password on the command line interface can be insecure.\n", DUMPS[0]].concat();
        let error = read(&warned).err().unwrap();
        assert!(matches!(error, ForeignError::Message { .. }) && error.hint().unwrap().contains("tail -n +2"), "{error}");
        assert!(matches!(read(b"hello"), Err(ForeignError::NoDump { .. })));
        let text = String::from_utf8_lossy(DUMPS[0]).into_owned();
        let two = text.replacen("--\n-- Table structure", "USE `a`;\nUSE `b`;\n--\n-- Table structure", 1);
        assert!(matches!(read(two.as_bytes()), Err(ForeignError::Several { databases, .. }) if databases == ["a", "b"]));
        let one = text.replacen("--\n-- Table structure", "USE `a`;\n--\n-- Table structure", 1);
        assert_eq!(read(one.as_bytes()).unwrap().verified.manifest.database.unwrap().schema, "a");
    }
}
