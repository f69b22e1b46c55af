//! Archives of directories: uploads, packages and Heratio's own files, as a tar that GNU tar restores.
//!
//! Stored: regular files (holes stay holes), directories, symbolic links as links, hard links between files, owner by number and
//! name, mode with set-id and sticky bits, modification time to the nanosecond, names of any length and bytes. What
//! is mounted inside the tree belongs to it. Not stored: extended attributes, ACLs, security labels; sockets, pipes
//! and devices, which are noted.
//!
//! The tree may be in use. The tar is well-formed whatever happens to the files meanwhile, and whatever could not be
//! stored as it was is named in a warning. Crash story: nothing is written but the stream that the caller gives.

mod content;
mod exclude;
pub mod extract;
mod format;
pub mod swap;
#[cfg(test)]
mod tests;
mod walk;

use crate::{
    control::Control,
    manifest::{FileFacts, Section},
    section_writer::SectionWriter,
};
use content::{Extent, read_exactly, sparse_map};
pub use exclude::{Exclude, framework_excludes};
use exclude::{Excludes, FileId, file_id};
use format::{END, Kind, Owners, pad, push_header};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat},
    io::Errno,
};
use std::{
    collections::{HashMap, HashSet},
    ffi::{CStr, CString},
    fs::File,
    io,
    path::{Path, PathBuf},
};
pub use swap::WORK_PREFIX;
use walk::{Step, Walk};

/// Bytes read and written at once, and between two looks at whether to stop.
const CHUNK: usize = 256 * 1024;

/// A file larger than this starts a gzip member, a smaller one follows at most about this much after the start of one.
const CUT_EVERY: u64 = 1024 * 1024;

/// Warnings kept word for word; of those after them only the number is.
const MAX_WARNINGS: usize = 1_000;

/// A directory to archive.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// `uploads`, `packages` or `framework`: for messages.
    pub component: String,
    /// The directory; may be a symbolic link to it.
    pub root: PathBuf,
    /// What the directory is called in the tar.
    pub top: String,
    /// What stays out.
    pub excludes: Vec<Exclude>,
}

impl FileSource {
    /// The directory `root` under its own name, as `tar -C DIRNAME BASENAME` would have it, with nothing excluded.
    pub fn new(component: &str, root: &Path) -> Self {
        // `/`, and paths that end in `..`, have no name of their own.
        let top = root.file_name().map_or_else(|| component.to_owned(), |name| name.to_string_lossy().into_owned());
        Self { component: component.to_owned(), root: root.to_owned(), top, excludes: Vec::new() }
    }
}

/// What [`archive`] wrote.
#[derive(Debug, Default)]
pub struct FileArchive {
    /// Counts.
    pub facts: FileFacts,
    /// Every regular file in stream order, from its first header block to the end of its content. A further name of a
    /// hard-linked file has only a header, which names the first.
    pub sections: Vec<Section>,
    /// What is not in the archive, or not as it was, each named; the first thousand, then their number.
    pub warnings: Vec<String>,
}

/// Why a directory could not be archived.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no such directory.
    #[error("{component} directory not found: {}", path.display())]
    NotFound {
        /// The component.
        component: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// It is there and cannot be opened.
    #[error("cannot open the {component} directory {}: {source}", path.display())]
    Open {
        /// The component.
        component: String,
        /// The directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// An exclude would leave nothing.
    #[error("the {component} directory {} is the excluded directory {}", path.display(), exclude.display())]
    Excluded {
        /// The component.
        component: String,
        /// The directory.
        path: PathBuf,
        /// The other path to it.
        exclude: PathBuf,
    },
    /// The stream did not take it.
    #[error("cannot write the {component} archive: {source}")]
    Write {
        /// The component.
        component: String,
        /// The stream's word.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl FilesError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotFound { component, .. } if component == "uploads" => {
                Some("set HERATIO_UPLOADS_PATH to the uploads directory, and see that its file system is mounted")
            }
            Self::NotFound { component, .. } if component == "packages" => {
                Some("set HERATIO_ROOT to Heratio's directory; the packages are the directory `packages` in it")
            }
            Self::NotFound { .. } => Some("set HERATIO_ROOT to Heratio's directory, and see that its file system is mounted"),
            Self::Open { .. } => Some("the worker's user must be able to read the directory and all in it"),
            Self::Excluded { .. } => Some("give each component and the backups a directory of its own"),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(
                "free space in the backup directory, or point the setting backup_path (or HERATIO_BACKUPS_PATH) at a larger file system",
            ),
            Self::Write { .. } | Self::Cancelled => None,
        }
    }
}

/// Writes the directory as a tar to `out`, the two closing blocks of zeros included, and cuts `out` so that single
/// files can be read by seeking. Blocking; the same tree gives the same bytes.
pub fn archive<W: SectionWriter>(source: &FileSource, out: &mut W, control: &Control) -> Result<FileArchive, FilesError> {
    let excludes = Excludes::new(&source.excludes);
    let root = open_root(source, &excludes)?;
    let again = openat(&root, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let again = again.map_err(|error| open_error(source, error))?;

    control.progress.phase(format!("looking through {}", source.component), 0);
    let total = count(Walk::new(again, source.top.as_bytes(), &excludes), control)?;
    control.progress.phase(format!("archiving {}", source.component), total);

    let cut_at = out.raw_offset();
    let mut archiver = Archiver {
        component: &source.component,
        out,
        control,
        owners: Owners::read(),
        hard_links: HashMap::new(),
        result: FileArchive { facts: FileFacts { top: source.top.clone(), ..Default::default() }, ..Default::default() },
        unnamed_warnings: 0,
        blocks: Vec::with_capacity(2 * CHUNK),
        cut_at,
    };
    archiver.tree(Walk::new(root, source.top.as_bytes(), &excludes))?;
    archiver.finish(source)
}

/// A path as sections and warnings show it: UTF-8 as it is, but a backslash as `\\`, and control characters and
/// bytes that are not UTF-8 as `\ooo` in octal, so that every path has a name of its own on one line.
pub fn section_name(path: &[u8]) -> String {
    let mut name = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => name.push_str("\\\\"),
                c if c.is_ascii_control() => name.push_str(&format!("\\{:03o}", u32::from(c))),
                c => name.push(c),
            }
        }
        for byte in chunk.invalid() {
            name.push_str(&format!("\\{byte:03o}"));
        }
    }
    name
}

fn open_root(source: &FileSource, excludes: &Excludes) -> Result<OwnedFd, FilesError> {
    let root = openat(CWD, source.root.as_path(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| open_error(source, error))?;
    let stat = fstat(&root).map_err(|error| open_error(source, error))?;
    match excludes.directory(&stat) {
        Some(exclude) => {
            Err(FilesError::Excluded { component: source.component.clone(), path: source.root.clone(), exclude: exclude.to_owned() })
        }
        None => Ok(root),
    }
}

fn open_error(source: &FileSource, error: Errno) -> FilesError {
    let (component, path) = (source.component.clone(), source.root.clone());
    match error {
        Errno::NOENT => FilesError::NotFound { component, path },
        error => FilesError::Open { component, path, source: error.into() },
    }
}

/// Bytes of all files, holes included: an estimate of what archiving will go through, since the tree is in use.
fn count(mut walk: Walk, control: &Control) -> Result<u64, FilesError> {
    let mut total = 0;
    let mut linked = HashSet::new();
    while let Some(step) = walk.advance() {
        if control.cancel.is_cancelled() {
            return Err(FilesError::Cancelled);
        }
        if let Step::Entry { dir, name, kind: FileType::RegularFile } = step
            && let Ok(stat) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
            && (stat.st_nlink == 1 || linked.insert(file_id(&stat)))
        {
            total += stat.st_size.unsigned_abs();
        }
    }
    Ok(total)
}

struct Archiver<'a, W> {
    component: &'a str,
    out: &'a mut W,
    control: &'a Control,
    owners: Owners,
    /// Where the tar has each file that has several names.
    hard_links: HashMap<FileId, Vec<u8>>,
    result: FileArchive,
    unnamed_warnings: u64,
    /// What is to be written next; empty between two entries.
    blocks: Vec<u8>,
    cut_at: u64,
}

impl<W: SectionWriter> Archiver<'_, W> {
    fn tree(&mut self, mut walk: Walk) -> Result<(), FilesError> {
        while let Some(step) = walk.advance() {
            match step {
                Step::Directory(stat) => {
                    let path = [walk.path(), b"/"].concat();
                    self.result.facts.directories += 1;
                    self.entry(&path, &Kind::Directory, &stat, 0)?;
                }
                Step::Entry { dir, name, kind: FileType::RegularFile } => self.file(&mut walk, &dir, &name)?,
                Step::Entry { dir, name, kind: FileType::Symlink } => self.symbolic_link(walk.path(), &dir, &name)?,
                Step::Entry { kind, .. } => {
                    self.warn(walk.path(), format_args!("{}, not in the archive", describe(kind)));
                }
                Step::Problem(error) => self.problem(walk.path(), error),
            }
        }
        Ok(())
    }

    fn file(&mut self, walk: &mut Walk, dir: &OwnedFd, name: &CStr) -> Result<(), FilesError> {
        let opened = walk.open(dir, name).and_then(|fd| Ok((fstat(&fd)?, File::from(fd))));
        let path = walk.path();
        let (stat, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.problem(path, error);
                return Ok(());
            }
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.problem(path, Errno::NXIO);
            return Ok(());
        }
        self.result.facts.files += 1;
        if self.hard_link(path, &stat)? {
            return Ok(());
        }
        let size = stat.st_size.unsigned_abs();
        self.result.facts.bytes += size;
        let start = match sparse_map(&file, &stat) {
            Some(extents) => {
                let stored = extents.iter().map(|extent| extent.len).sum();
                let start = self.begin(path, &Kind::Sparse(&extents), &stat, stored)?;
                self.content(path, &file, &extents)?;
                self.control.progress.add(size - stored);
                start
            }
            None => {
                let start = self.begin(path, &Kind::File, &stat, size)?;
                self.content(path, &file, &[Extent { offset: 0, len: size }])?;
                start
            }
        };
        self.flush()?;
        self.section(path, start);
        self.compare(path, &stat, &file);
        Ok(())
    }

    fn symbolic_link(&mut self, path: &[u8], dir: &OwnedFd, name: &CString) -> Result<(), FilesError> {
        let looked = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).and_then(|stat| Ok((stat, readlinkat(dir, name, Vec::new())?)));
        match looked {
            Ok((stat, target)) => {
                self.result.facts.links += 1;
                self.entry(path, &Kind::SymbolicLink(target.to_bytes()), &stat, 0)?;
            }
            Err(error) => self.problem(path, error),
        }
        Ok(())
    }

    /// Writes a further name of a file that the tar already has; false when this is its first or only one.
    fn hard_link(&mut self, path: &[u8], stat: &Stat) -> Result<bool, FilesError> {
        if stat.st_nlink == 1 {
            return Ok(false);
        }
        let Some(first) = self.hard_links.get(&file_id(stat)) else {
            self.hard_links.insert(file_id(stat), path.to_owned());
            return Ok(false);
        };
        let first = first.clone();
        let start = self.entry(path, &Kind::HardLink(&first), stat, 0)?;
        self.section(path, start);
        Ok(true)
    }

    /// Writes an entry without content; returns where it starts.
    fn entry(&mut self, path: &[u8], kind: &Kind, stat: &Stat, size: u64) -> Result<u64, FilesError> {
        let start = self.begin(path, kind, stat, size)?;
        self.flush()?;
        Ok(start)
    }

    /// Begins an entry of `size` stored bytes, in a new gzip member where it is time for one.
    fn begin(&mut self, path: &[u8], kind: &Kind, stat: &Stat, size: u64) -> Result<u64, FilesError> {
        let start = self.out.raw_offset();
        if start > self.cut_at && (size > CUT_EVERY || start - self.cut_at >= CUT_EVERY) {
            self.out.cut().map_err(|error| self.write_error(error))?;
            self.cut_at = start;
        }
        push_header(&mut self.blocks, path, kind, stat, &self.owners);
        Ok(start)
    }

    fn content(&mut self, path: &[u8], file: &File, extents: &[Extent]) -> Result<(), FilesError> {
        let mut complete = true;
        for &Extent { offset, len } in extents {
            let end = offset + len;
            let mut position = offset;
            while position < end {
                if self.blocks.len() >= CHUNK {
                    self.flush()?;
                }
                let want = (end - position).min(CHUNK as u64) as usize;
                if complete {
                    let (own, error) = read_exactly(file, position, want, &mut self.blocks);
                    complete = own == want;
                    if let Some(error) = error {
                        let at = position + own as u64;
                        self.result.facts.unreadable += 1;
                        self.warn(path, format_args!("cannot be read from byte {at} on, zeros in the archive: {error}"));
                    }
                } else {
                    self.blocks.resize(self.blocks.len() + want, 0);
                }
                self.control.progress.add(want as u64);
                position += want as u64;
            }
        }
        pad(&mut self.blocks);
        Ok(())
    }

    /// Warns when the file is not the one whose header was written.
    fn compare(&mut self, path: &[u8], before: &Stat, file: &File) {
        let Ok(after) = fstat(file) else { return };
        let (old, new) = (before.st_size, after.st_size);
        if new < old {
            self.warn(path, format_args!("shrank from {old} to {new} bytes while being read, padded with zeros in the archive"));
        } else if new > old {
            self.warn(path, format_args!("grew from {old} to {new} bytes while being read, the archive has the first {old}"));
        } else if (before.st_mtime, before.st_mtime_nsec) != (after.st_mtime, after.st_mtime_nsec) {
            self.warn(path, format_args!("changed while being read"));
        }
    }

    fn section(&mut self, path: &[u8], start: u64) {
        let mut name = section_name(path);
        name.shrink_to_fit();
        self.result.sections.push(Section { kind: "file".to_owned(), name, start, end: self.out.raw_offset(), ..Section::default() });
    }

    fn problem(&mut self, path: &[u8], error: Errno) {
        match error {
            Errno::NOENT => self.warn(path, format_args!("vanished while being read, not in the archive")),
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO => {
                self.warn(path, format_args!("became something else while being read, not in the archive"));
            }
            error => {
                self.result.facts.unreadable += 1;
                self.warn(path, format_args!("cannot be read, not in the archive: {}", io::Error::from(error)));
            }
        }
    }

    fn warn(&mut self, path: &[u8], what: std::fmt::Arguments) {
        let warning = format!("{}: {what}", section_name(path));
        tracing::warn!(component = self.component, "{warning}");
        if self.result.warnings.len() < MAX_WARNINGS {
            self.result.warnings.push(warning);
        } else {
            self.unnamed_warnings += 1;
        }
    }

    fn flush(&mut self) -> Result<(), FilesError> {
        if self.control.cancel.is_cancelled() {
            return Err(FilesError::Cancelled);
        }
        self.out.write_all(&self.blocks).map_err(|error| self.write_error(error))?;
        self.blocks.clear();
        Ok(())
    }

    fn finish(mut self, source: &FileSource) -> Result<FileArchive, FilesError> {
        self.blocks.extend_from_slice(&END);
        self.flush()?;
        if self.unnamed_warnings > 0 {
            self.result.warnings.push(format!("and {} more such warnings, in the worker's log", self.unnamed_warnings));
        }
        if self.result.facts.files == 0 {
            self.result.warnings.push(format!("no file found in the {} directory {}", source.component, source.root.display()));
        }
        Ok(self.result)
    }

    fn write_error(&self, source: io::Error) -> FilesError {
        // A stream that shares our control refuses writes once cancelled.
        if self.control.cancel.is_cancelled() {
            return FilesError::Cancelled;
        }
        FilesError::Write { component: self.component.to_owned(), source }
    }
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "named pipe",
        FileType::BlockDevice | FileType::CharacterDevice => "device",
        _ => "of an unknown kind",
    }
}
