//! Archive files: written once under a temporary name, self-describing, published by rename.
//!
//! ```text
//! member member ... member          the content, as independent gzip members
//! empty  empty  ... empty           extra field "HM": the manifest, gzipped JSON in chunks
//! empty                             extra field "HF": where the manifest starts; always FOOTER_BYTES long
//! ```
//!
//! `gunzip -c` sees the content alone. Crash story: until [`PartialArchive::publish`] the file is
//! `.{name}.{tag}.partial`, which no catalog row or listing names; `publish` renames only after
//! content and manifest are on disk (fsync), and never over another file.

use crate::{
    control::Control,
    effort::{Effort, Throttle},
    gzip::{self, MemberWriter, Unpacker},
    manifest::Manifest,
    section_writer::SectionWriter,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const MANIFEST_ID: [u8; 2] = *b"HM";
const FOOTER_ID: [u8; 2] = *b"HF";
/// Magic and version, manifest offset and length (both in the file, little-endian), SHA-256 of the manifest members.
const FOOTER_DATA: usize = 4 + 8 + 8 + 32;
const FOOTER_MAGIC: [u8; 4] = *b"HBA1";
/// Length of the last member of every archive.
pub const FOOTER_BYTES: u64 = (FOOTER_DATA + gzip::EXTRA_OVERHEAD) as u64;

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file of the final name is already there; it is left alone.
    #[error("refusing to replace {}: a file of this name already exists", .0.display())]
    Exists(PathBuf),
    /// The footer says that there is a manifest, and it is not what was written.
    #[error("the manifest of {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

impl ArchiveError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(
                "free space in the backup directory, or point the setting backup_path (or HERATIO_BACKUPS_PATH) at a larger file system",
            ),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the worker's user must be able to write in the backup directory")
            }
            Self::Damaged { .. } => Some("take the archive from its replica, or use another backup"),
            _ => None,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// An archive being written; dropping it removes the file.
pub struct ArchiveWriter {
    members: MemberWriter<HashingFile>,
    raw_hash: Sha256,
    raw_size: u64,
    throttle: Option<Throttle>,
    control: Control,
    file: TempFile,
    target: PathBuf,
}

/// What [`ArchiveWriter::finish`] and [`PartialArchive::publish`] know of the file.
#[derive(Debug, Clone)]
pub struct ArchiveFile {
    /// Its final path.
    pub path: PathBuf,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// The manifest inside.
    pub manifest: Manifest,
}

/// A complete, synced archive that still has its temporary name; dropping it removes the file.
pub struct PartialArchive {
    temp: TempFile,
    archive: ArchiveFile,
}

impl ArchiveWriter {
    /// Creates `.{name}.{tag}.partial` in `dir` with mode 0600.
    ///
    /// A file of that temporary name can only be the same attempt's, and is an error.
    pub fn create(dir: &Path, name: &str, tag: &str, effort: &Effort, control: &Control) -> Result<Self, ArchiveError> {
        let path = dir.join(format!(".{name}.{tag}.partial"));
        let file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(ArchiveError::io("create", &path))?;
        let members = MemberWriter::new(HashingFile { file, path: path.clone(), hash: Sha256::new(), size: 0 }, effort);
        Ok(Self {
            members,
            raw_hash: Sha256::new(),
            raw_size: 0,
            throttle: effort.max_rate.map(Throttle::new),
            control: control.clone(),
            file: TempFile(Some(path)),
            target: dir.join(name),
        })
    }

    /// Writes the manifest, with sizes, checksums and the member index filled in here, and syncs the file.
    pub fn finish(self, mut manifest: Manifest) -> Result<PartialArchive, ArchiveError> {
        let Self { members, raw_hash, raw_size, file: temp, target, .. } = self;
        let (mut file, members) = members.finish().map_err(ArchiveError::io("write", &target))?;
        manifest.raw_size = raw_size;
        manifest.raw_sha256 = hex::encode(raw_hash.finalize());
        manifest.members = members;
        write_manifest(&mut file, &manifest).and_then(|()| file.file.sync_all()).map_err(ArchiveError::io("write", &target))?;
        let archive = ArchiveFile { path: target, size: file.size, sha256: hex::encode(file.hash.finalize()), manifest };
        Ok(PartialArchive { temp, archive })
    }
}

impl Write for ArchiveWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.members.write(buf)?;
        self.raw_hash.update(&buf[..n]);
        self.raw_size += n as u64;
        if let Some(throttle) = &mut self.throttle {
            throttle.pay(n, &self.control.cancel)?;
        }
        Ok(n)
    }

    /// Does nothing; see [`ArchiveWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SectionWriter for ArchiveWriter {
    fn raw_offset(&self) -> u64 {
        self.raw_size
    }

    fn cut(&mut self) -> io::Result<()> {
        self.members.cut()
    }
}

impl PartialArchive {
    /// What is known of the archive, under the name that it will have.
    pub fn archive(&self) -> &ArchiveFile {
        &self.archive
    }

    /// Gives the file its final name and syncs the directory.
    ///
    /// Dies before the rename: a `.partial` file, swept later. Dies after it, before the caller's catalog
    /// row: a complete file that the catalog still calls unfinished, swept likewise.
    pub fn publish(mut self) -> Result<ArchiveFile, ArchiveError> {
        let target = &self.archive.path;
        if let Some(temp) = &self.temp.0 {
            rename_new(temp, target)?;
            self.temp.0 = None;
        }
        let dir = target.parent().unwrap_or(Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(ArchiveError::io("sync directory", dir))?;
        Ok(self.archive)
    }
}

/// Renames without replacing; by link and unlink where the file system knows no RENAME_NOREPLACE (NFS).
fn rename_new(from: &Path, to: &Path) -> Result<(), ArchiveError> {
    let result = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        other => other.map_err(io::Error::from),
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(ArchiveError::Exists(to.to_owned())),
        other => other.map_err(ArchiveError::io("rename to", to)),
    }
}

fn write_manifest(file: &mut HashingFile, manifest: &Manifest) -> io::Result<()> {
    let packed = gzip::member(&serde_json::to_vec(manifest).map_err(io::Error::other)?);
    let start = file.size;
    let mut hash = Sha256::new();
    for chunk in packed.chunks(gzip::EXTRA_MAX) {
        let member = gzip::extra_member(MANIFEST_ID, chunk);
        hash.update(&member);
        file.write_all(&member)?;
    }
    let mut footer = Vec::with_capacity(FOOTER_DATA);
    footer.extend_from_slice(&FOOTER_MAGIC);
    footer.extend_from_slice(&start.to_le_bytes());
    footer.extend_from_slice(&(file.size - start).to_le_bytes());
    footer.extend_from_slice(&hash.finalize());
    file.write_all(&gzip::extra_member(FOOTER_ID, &footer))
}

/// Reads the manifest from an archive's end; `None` for a file that is not one of ours.
pub fn read_manifest(path: &Path) -> Result<Option<Manifest>, ArchiveError> {
    let read = ArchiveError::io;
    let damaged = |reason: &str| ArchiveError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let mut file = File::open(path).map_err(read("open", path))?;
    let size = file.metadata().map_err(read("read", path))?.len();
    let Some(footer_at) = size.checked_sub(FOOTER_BYTES) else { return Ok(None) };
    let mut footer = [0; FOOTER_BYTES as usize];
    file.seek(SeekFrom::Start(footer_at)).and_then(|_| file.read_exact(&mut footer)).map_err(read("read", path))?;
    let Some((data, _)) = gzip::read_extra(FOOTER_ID, &footer) else { return Ok(None) };
    if data.len() != FOOTER_DATA || data[..4] != FOOTER_MAGIC {
        return Err(damaged("this version does not know its format"));
    }
    let number = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap_or_default());
    let (start, len) = (number(4), number(12));
    if start.checked_add(len) != Some(footer_at) {
        return Err(damaged("its footer points elsewhere"));
    }
    let mut members = vec![0; len as usize];
    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut members)).map_err(read("read", path))?;
    if Sha256::digest(&members)[..] != data[20..52] {
        return Err(damaged("its checksum differs"));
    }
    let (mut packed, mut rest) = (Vec::new(), &members[..]);
    while !rest.is_empty() {
        let (chunk, used) = gzip::read_extra(MANIFEST_ID, rest).ok_or_else(|| damaged("a member of it is malformed"))?;
        packed.extend_from_slice(chunk);
        rest = &rest[used..];
    }
    serde_json::from_reader(flate2::read::GzDecoder::new(&packed[..])).map(Some).map_err(|e| damaged(&e.to_string()))
}

/// Reads a part of an archive's content, from `start` up to `end`: the members that it lies in, each checked as a whole.
pub fn read_part(path: &Path, manifest: &Manifest, start: u64, end: u64) -> Result<impl Read + Send + use<>, ArchiveError> {
    let (mut at, mut packed_at, mut members) = (0, 0, VecDeque::new());
    let (mut first, mut skip) = (0, 0);
    for &(raw, packed) in &manifest.members {
        if at + raw > start && at < end {
            if members.is_empty() {
                (first, skip) = (packed_at, start - at);
            }
            members.push_back((raw, packed));
        }
        (at, packed_at) = (at + raw, packed_at + packed);
    }
    if start > end || end > at {
        return Err(ArchiveError::Damaged { path: path.to_owned(), reason: "a section lies outside its members".to_owned() });
    }
    let mut file = File::open(path).map_err(ArchiveError::io("open", path))?;
    file.seek(SeekFrom::Start(first)).map_err(ArchiveError::io("read", path))?;
    Ok(Part { file, members, unpacker: Unpacker::new(), content: Vec::new(), at: 0, skip: skip as usize }.take(end - start))
}

struct Part {
    file: File,
    /// Uncompressed and compressed bytes of those that are still to be read.
    members: VecDeque<(u64, u64)>,
    unpacker: Unpacker,
    content: Vec<u8>,
    at: usize,
    /// Bytes of the first member that lie before the part.
    skip: usize,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.content.len() {
            let Some((raw, packed)) = self.members.pop_front() else { return Ok(0) };
            self.content = self.unpacker.member(raw, &gzip::read_packed(&mut self.file, packed)?)?;
            self.at = std::mem::take(&mut self.skip);
        }
        let n = buf.len().min(self.content.len() - self.at);
        buf[..n].copy_from_slice(&self.content[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The file, counted and hashed on its way to the disk.
struct HashingFile {
    file: File,
    path: PathBuf,
    hash: Sha256,
    size: u64,
}

impl Write for HashingFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf).map_err(|e| io::Error::new(e.kind(), format!("cannot write {}: {e}", self.path.display())))?;
        self.hash.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A temporary file that goes when its owner goes.
struct TempFile(Option<PathBuf>);

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the partial archive; prune will sweep it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Section;
    use std::os::unix::fs::PermissionsExt;

    fn text() -> String {
        format!("{}second", "first".repeat(8001))
    }

    fn write(dir: &Path, name: &str) -> PartialArchive {
        let mut writer = ArchiveWriter::create(dir, name, "41.1", &Effort::full(2), &Control::default()).unwrap();
        writer.write_all(&b"first".repeat(8001)).unwrap();
        writer.cut().unwrap();
        writer.write_all(b"second").unwrap();
        // Names that do not compress, so that the manifest needs several members.
        let section = |i: u64| Section {
            kind: "table".into(),
            name: hex::encode(Sha256::digest(i.to_le_bytes())),
            start: i,
            end: i + 1,
            rows: Some(i),
            checksum: None,
        };
        let manifest =
            Manifest { format: 1, component: "database".into(), sections: (0..5000).map(section).collect(), ..Manifest::default() };
        writer.finish(manifest).unwrap()
    }

    #[test]
    fn content_and_manifest_come_back_and_the_checksum_is_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let archive = write(dir.path(), "a.sql.gz").publish().unwrap();
        let bytes = fs::read(&archive.path).unwrap();
        assert_eq!(archive.size, bytes.len() as u64);
        assert_eq!(archive.sha256, hex::encode(Sha256::digest(&bytes)));
        assert_eq!(fs::metadata(&archive.path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut content = String::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut content).unwrap();
        assert_eq!(content, text());
        let manifest = read_manifest(&archive.path).unwrap().unwrap();
        assert_eq!(manifest, archive.manifest);
        assert_eq!(manifest.raw_sha256, hex::encode(Sha256::digest(text())));
        assert_eq!(manifest.members.iter().map(|m| m.0).collect::<Vec<_>>(), [40_005, 6]);
        let plain = std::process::Command::new("gunzip").arg("-c").arg(&archive.path).output().unwrap();
        assert!(plain.status.success() && plain.stderr.is_empty() && plain.stdout == text().as_bytes());
    }

    #[test]
    fn a_part_is_read_alone_wherever_its_member_begins() {
        let dir = tempfile::tempdir().unwrap();
        let archive = write(dir.path(), "a.sql.gz").publish().unwrap();
        for (start, end) in [(0, 40_011), (0, 5), (39_999, 40_007), (40_004, 40_005), (40_005, 40_011), (40_007, 40_008), (7, 7)] {
            let mut part = String::new();
            read_part(&archive.path, &archive.manifest, start, end).unwrap().read_to_string(&mut part).unwrap();
            assert_eq!(part, text()[start as usize..end as usize], "{start}..{end}");
        }
        assert!(read_part(&archive.path, &archive.manifest, 5, 40_012).is_err());
        assert!(read_part(&archive.path, &archive.manifest, 6, 5).is_err());
    }

    #[test]
    fn nothing_is_left_of_what_was_not_published_and_nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
        let partial = write(dir.path(), "a.sql.gz");
        assert_eq!(names(), [".a.sql.gz.41.1.partial"]);
        drop(partial);
        assert!(names().is_empty());
        fs::write(dir.path().join("a.sql.gz"), "precious").unwrap();
        assert!(matches!(write(dir.path(), "a.sql.gz").publish(), Err(ArchiveError::Exists(_))));
        assert_eq!(names(), ["a.sql.gz"]);
        assert_eq!(fs::read(dir.path().join("a.sql.gz")).unwrap(), b"precious");
    }

    #[test]
    fn a_foreign_or_damaged_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("foreign.sql.gz");
        fs::write(&foreign, gzip::member(&vec![b'x'; 100_000])).unwrap();
        assert!(read_manifest(&foreign).unwrap().is_none());
        fs::write(&foreign, b"").unwrap();
        assert!(read_manifest(&foreign).unwrap().is_none());
        let archive = write(dir.path(), "a.sql.gz").publish().unwrap();
        let mut bytes = fs::read(&archive.path).unwrap();
        let at = bytes.len() - 200;
        bytes[at] ^= 1;
        fs::write(&archive.path, &bytes).unwrap();
        assert!(matches!(read_manifest(&archive.path), Err(ArchiveError::Damaged { .. })));
    }

    #[test]
    fn a_cancelled_writer_stops() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::default();
        let mut writer = ArchiveWriter::create(dir.path(), "a.sql.gz", "1.1", &Effort::full(1), &control).unwrap();
        writer.write_all(b"x").unwrap();
        control.cancel.cancel();
        assert_eq!(writer.write_all(b"y").unwrap_err().to_string(), "cancelled");
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
