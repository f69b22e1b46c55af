//! Whether an archive is whole: size and SHA-256 of the file, every gzip member, the content's own checksum, and of SQL the
//! last line. One pass over the file, its members unpacked in parallel; nothing is loaded anywhere.

use crate::{
    archive::{ArchiveError, read_manifest},
    control::Control,
    effort::Effort,
    gzip::MemberReader,
    manifest::Manifest,
    sql_scan::Scanner,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// What a catalog knows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Bytes.
    pub size: u64,
    /// Of the file, hex.
    pub sha256: String,
}

/// What a whole archive is.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Bytes.
    pub size: u64,
    /// Of the file, hex.
    pub sha256: String,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// Why an archive is not whole, or not one of ours.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum VerifyError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{} has {actual} bytes, and the catalog says {expected}: it was cut or changed since it was made", path.display())]
    Size { path: PathBuf, actual: u64, expected: u64 },
    #[error("{} is not what was written: its SHA-256 is {actual}, and the catalog says {expected}", path.display())]
    Sha256 { path: PathBuf, actual: String, expected: String },
    #[error("{} is damaged at byte {at} of its content: {source}", path.display())]
    Gzip { path: PathBuf, at: u64, source: io::Error },
    #[error("{} is damaged: its content's SHA-256 is {actual}, and its manifest says {expected}", path.display())]
    Content { path: PathBuf, actual: String, expected: String },
    #[error("{} is incomplete: its last line is not `-- Dump completed`", path.display())]
    Trailer { path: PathBuf },
    #[error("{} is not an archive of this program: it has no manifest", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is an archive of {component}, not of a database", path.display())]
    Component { path: PathBuf, component: String },
    #[error("verifying was cancelled")]
    Cancelled,
}

impl VerifyError {
    /// Whether it condemns the archive: not what only keeps it from being read now.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Archive(ArchiveError::Io { source, .. }) => source.kind() == io::ErrorKind::NotFound,
            Self::Archive(_)
            | Self::Size { .. }
            | Self::Sha256 { .. }
            | Self::Gzip { .. }
            | Self::Content { .. }
            | Self::Trailer { .. } => true,
            Self::Foreign { .. } => true,
            Self::Component { .. } | Self::Cancelled => false,
        }
    }

    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Archive(error) => error.hint(),
            Self::Size { .. } | Self::Sha256 { .. } | Self::Gzip { .. } | Self::Content { .. } | Self::Trailer { .. } => {
                Some("take the archive from its replica, or use another backup: `enqueue backups` lists them")
            }
            Self::Component { .. } => Some("name the backup's database archive: `enqueue backups` lists them"),
            Self::Foreign { .. } | Self::Cancelled => None,
        }
    }
}

/// The same of a database archive; that of another component is refused before it is read.
pub fn database(path: &Path, expected: Option<&Expected>, effort: &Effort, control: &Control) -> Result<Verified, VerifyError> {
    match read_manifest(path)? {
        Some(manifest) if manifest.component != "database" => {
            Err(VerifyError::Component { path: path.to_owned(), component: manifest.component })
        }
        manifest => whole(path, expected, effort, control, || Ok(manifest)),
    }
}

/// Size and SHA-256 of a file, whoever wrote it, and that the catalog says the same. Blocks: call it on a thread that may.
pub fn hash(path: &Path, expected: Option<&Expected>, control: &Control) -> Result<(u64, String), VerifyError> {
    let io = |action| move |source| ArchiveError::Io { action, path: path.to_owned(), source };
    let file = File::open(path).map_err(io("open"))?;
    let size = file.metadata().map_err(io("read"))?.len();
    if let Some(expected) = expected.filter(|e| e.size != size) {
        return Err(VerifyError::Size { path: path.to_owned(), actual: size, expected: expected.size });
    }
    control.progress.phase(format!("reading {}", path.display()), size);
    let mut hashed = Hashed::new(file, control);
    let copied = io::copy(&mut io::BufReader::with_capacity(1 << 20, &mut hashed), &mut io::sink());
    copied.map_err(|e| if control.cancel.is_cancelled() { VerifyError::Cancelled } else { io("read")(e).into() })?;
    let sha256 = hex::encode(hashed.hash.finalize());
    match expected.filter(|e| e.sha256 != sha256) {
        Some(expected) => Err(VerifyError::Sha256 { path: path.to_owned(), actual: sha256, expected: expected.sha256.clone() }),
        None => Ok((size, sha256)),
    }
}

/// Reads the whole file. Progress is in its bytes. Blocks: call it on a thread that may.
pub fn archive(path: &Path, expected: Option<&Expected>, effort: &Effort, control: &Control) -> Result<Verified, VerifyError> {
    whole(path, expected, effort, control, || read_manifest(path))
}

fn whole(
    path: &Path,
    expected: Option<&Expected>,
    effort: &Effort,
    control: &Control,
    manifest: impl FnOnce() -> Result<Option<Manifest>, ArchiveError>,
) -> Result<Verified, VerifyError> {
    let io = |action| move |source| ArchiveError::Io { action, path: path.to_owned(), source };
    let file = File::open(path).map_err(io("open"))?;
    let size = file.metadata().map_err(io("read"))?.len();
    if let Some(expected) = expected.filter(|e| e.size != size) {
        return Err(VerifyError::Size { path: path.to_owned(), actual: size, expected: expected.size });
    }
    let manifest = manifest()?.ok_or_else(|| VerifyError::Foreign { path: path.to_owned() })?;
    let is_sql = manifest.component == "database";
    control.progress.phase(format!("verifying {}", path.display()), size);
    let hashed = Arc::new(Mutex::new(Hashed::new(file, control)));
    let mut reader = MemberReader::new(Shared(hashed.clone()), manifest.members.clone(), effort);
    let (mut raw_hash, mut scanner, mut events, mut at) = (Sha256::new(), Scanner::default(), Vec::new(), 0u64);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) if control.cancel.is_cancelled() => return Err(VerifyError::Cancelled),
            Err(source) => return Err(VerifyError::Gzip { path: path.to_owned(), at, source }),
        };
        raw_hash.update(&buffer[..read]);
        if is_sql {
            scanner.feed(&buffer[..read], &mut events);
            events.clear();
        }
        at += read as u64;
    }
    // The manifest's members belong to the file all the same.
    io::copy(&mut Shared(hashed.clone()), &mut io::sink()).map_err(io("read"))?;
    let hash = hashed.lock().unwrap_or_else(PoisonError::into_inner).hash.clone();
    let sha256 = hex::encode(hash.finalize());
    if let Some(expected) = expected.filter(|e| e.sha256 != sha256) {
        return Err(VerifyError::Sha256 { path: path.to_owned(), actual: sha256, expected: expected.sha256.clone() });
    }
    let raw = hex::encode(raw_hash.finalize());
    if raw != manifest.raw_sha256 {
        return Err(VerifyError::Content { path: path.to_owned(), actual: raw, expected: manifest.raw_sha256 });
    }
    if is_sql && !scanner.is_complete() {
        return Err(VerifyError::Trailer { path: path.to_owned() });
    }
    Ok(Verified { size, sha256, manifest })
}

/// A file that one thread reads after the other.
struct Shared(Arc<Mutex<Hashed>>);

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(buf)
    }
}

/// The file, hashed on its way.
pub(crate) struct Hashed {
    file: File,
    pub(crate) hash: Sha256,
    control: Control,
}

impl Hashed {
    pub(crate) fn new(file: File, control: &Control) -> Self {
        Self { file, hash: Sha256::new(), control: control.clone() }
    }
}

impl Read for Hashed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.file.read(buf)?;
        self.hash.update(&buf[..n]);
        self.control.progress.add(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{archive::ArchiveWriter, effort::Effort};
    use std::{fs, io::Write};

    fn write(dir: &Path, name: &str, component: &str, sql: &str) -> Expected {
        let mut writer = ArchiveWriter::create(dir, name, "1.1", &Effort::full(1), &Control::default()).unwrap();
        writer.write_all(sql.as_bytes()).unwrap();
        let archive = writer.finish(Manifest { component: component.into(), ..Manifest::default() }).unwrap().publish().unwrap();
        Expected { size: archive.size, sha256: archive.sha256 }
    }

    #[test]
    fn every_damage_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sql.gz");
        let sql = format!("INSERT INTO `t` VALUES {};\n-- Dump completed\n", vec!["(1)"; 9999].join(","));
        let expected = write(dir.path(), "a.sql.gz", "database", &sql);
        let check = |path: &Path, expected: Option<&Expected>| database(path, expected, &Effort::full(2), &Control::default());
        assert_eq!(check(&path, Some(&expected)).unwrap().sha256, expected.sha256);
        assert!(check(&path, None).is_ok());

        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(check(&path, Some(&expected)), Err(VerifyError::Size { .. })));
        let mut bytes = whole.clone();
        bytes[30] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let error = check(&path, None).unwrap_err();
        assert!(matches!(error, VerifyError::Gzip { .. } | VerifyError::Content { .. }) && error.hint().is_some(), "{error}");
        let other = Expected { sha256: "0".repeat(64), ..expected };
        fs::write(&path, &whole).unwrap();
        assert!(matches!(check(&path, Some(&other)), Err(VerifyError::Sha256 { .. })));

        write(dir.path(), "b.sql.gz", "database", "SELECT 1;\n");
        assert!(matches!(check(&dir.path().join("b.sql.gz"), None), Err(VerifyError::Trailer { .. })));
        write(dir.path(), "c.tar.gz", "uploads", "");
        assert!(matches!(check(&dir.path().join("c.tar.gz"), None), Err(VerifyError::Component { .. })));
        fs::write(dir.path().join("d.gz"), crate::gzip::member(&vec![b'x'; 10_000])).unwrap();
        assert!(matches!(check(&dir.path().join("d.gz"), None), Err(VerifyError::Foreign { .. })));
    }
}
