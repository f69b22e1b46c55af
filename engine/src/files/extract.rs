//! Unpacking an archive of files into an empty directory.
//!
//! Nothing of an archive is trusted: [`inspect`] reads every header before anything is written, and refuses the archive,
//! naming the member, for an absolute path, `..`, a link that leads out, a member below a link, a device, or a name that
//! comes twice. [`extract`] checks the same again, and the kernel sees to it that no path leaves the directory
//! (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS).
//!
//! Owner and group by number (where we may set them), mode, modification time, holes, links. Crash story: it writes into
//! the one directory that the caller has made for it, and nowhere else.

mod one;

use super::section_name;
use crate::{
    archive::{ArchiveError, read_manifest},
    control::Control,
    effort::Effort,
    gzip::MemberReader,
};
use flate2::read::MultiGzDecoder;
use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, fchmod, fchown, ftruncate, futimens, linkat, mkdirat,
        openat, openat2, symlinkat, syncfs, utimensat,
    },
    io::Errno,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};
use tar::{Archive, Entry, EntryType};

pub use one::{extract_one, find};

/// A file up to this size is read whole and written by another thread.
const SMALL: u64 = 1 << 20;
/// Bytes copied at once of larger ones, and between two looks at whether to stop.
const CHUNK: usize = 256 << 10;
/// Holes are told from zeros in pieces of this size.
const HOLE: usize = 4096;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ExtractError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{} is refused, nothing was written: member `{member}` {why}", path.display())]
    Refused { path: PathBuf, member: String, why: String },
    #[error("{} cannot be read to its end: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{member}` below {}: {source}", path.display())]
    Write { path: PathBuf, member: String, source: io::Error },
    #[error("{} has no file `{wanted}`{}", path.display(), nearest(near))]
    NotThere { path: PathBuf, wanted: String, near: Vec<String> },
    #[error("unpacking was cancelled")]
    Cancelled,
}

impl ExtractError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Archive(error) => error.hint(),
            Self::Refused { .. } => Some("look at it with `tar -tvzf`, and unpack by hand, into an empty directory, what you trust"),
            Self::Read { .. } => Some("take the archive from its replica, or use another backup: `enqueue backups` lists them"),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some("free space on that file system"),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the worker's user must be able to write there")
            }
            Self::NotThere { .. } => Some("`tar -tzf` lists what it has; the path is that below the component's directory"),
            Self::Write { .. } | Self::Cancelled => None,
        }
    }
}

fn nearest(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; nearest: {}", names.join(", ")) }
}

/// Whether a file, gzipped or not, is a tar, by its first block.
pub fn is_tar(path: &Path) -> Result<bool, ArchiveError> {
    let io = |action| move |source| ArchiveError::Io { action, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io("open"))?;
    let mut block = Vec::with_capacity(512);
    (&mut file).take(2).read_to_end(&mut block).map_err(io("read"))?;
    let zipped = block == [0x1f, 0x8b];
    let file = File::open(path).map_err(io("open"))?;
    let mut stream: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    block.clear();
    // What is no gzip at all is no tar either.
    if stream.by_ref().take(512).read_to_end(&mut block).is_err() {
        return Ok(false);
    }
    Ok(block.len() == 512 && block[257..262] == *b"ustar")
}

/// What an archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Name of the one directory that all is in.
    pub top: String,
    /// Regular files, further names of one included.
    pub files: u64,
    /// Directories, the top one included.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of the files' content.
    pub bytes: u64,
    /// Members whose owner could not be set, since only root may.
    pub not_owned: u64,
}

/// Reads every header, and refuses an archive that could write anywhere but below its own directory. `live` is where its
/// tree is to be in the end: an absolute link to something below it is harmless.
pub fn inspect(path: &Path, live: &Path, effort: &Effort, control: &Control) -> Result<Contents, ExtractError> {
    let mut archive = Archive::new(open(path, effort, control)?);
    let mut checker = Checker::new(path, live);
    let mut contents = Contents::default();
    let read = |source| read_error(path, control, source);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let member = checker.check(&mut entry)?;
        contents.count(&member);
    }
    contents.top = section_name(&checker.top);
    Ok(contents)
}

/// Unpacks what is below the archive's top directory into `into`, an empty directory, and syncs the file system.
///
/// Progress is in bytes of content. After an error, what has been unpacked is left there.
pub fn extract(path: &Path, live: &Path, into: &Path, effort: &Effort, control: &Control) -> Result<Contents, ExtractError> {
    let write = |member: &[u8], source: io::Error| ExtractError::Write { path: into.to_owned(), member: section_name(member), source };
    let root = openat(CWD, into, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| write(b"", e.into()))?;
    let root = Arc::new(root);
    let mut archive = Archive::new(open(path, effort, control)?);
    let mut checker = Checker::new(path, live);
    let mut contents = Contents::default();
    let read = |source| read_error(path, control, source);
    let mut writers = Writers::start(root.clone(), effort);
    let (mut directories, mut hard_links) = (Vec::new(), Vec::new());
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        if control.cancel.is_cancelled() {
            return Err(ExtractError::Cancelled);
        }
        let member = checker.check(&mut entry)?;
        contents.count(&member);
        let meta = member.meta;
        match member.kind {
            MemberKind::Directory => {
                if !member.path.is_empty() {
                    make_directory(&root, &member.path).map_err(|e| write(&member.path, e))?;
                }
                directories.push((member.path, meta));
            }
            MemberKind::Symlink(target) => {
                let owned = make_symlink(&root, &member.path, &target, &meta).map_err(|e| write(&member.path, e))?;
                contents.not_owned += u64::from(!owned);
            }
            // Its first name may not be written yet.
            MemberKind::HardLink(first) => hard_links.push((member.path, first)),
            MemberKind::File { size, sparse } if sparse || size > SMALL => {
                let file = create(&root, &member.path).map_err(|e| write(&member.path, e))?;
                copy(&mut entry, &file, size, control).map_err(|error| match error {
                    Copy::Read(source) => read_error(path, control, source),
                    Copy::Write(source) => write(&member.path, source),
                })?;
                let owned = set_meta(&file.into(), &meta).map_err(|e| write(&member.path, e))?;
                contents.not_owned += u64::from(!owned);
            }
            MemberKind::File { size, .. } => {
                let mut data = Vec::with_capacity(size as usize);
                entry.read_to_end(&mut data).map_err(read)?;
                control.progress.add(size);
                if !writers.send(Small { path: member.path, data, meta }) {
                    break;
                }
            }
        }
    }
    contents.not_owned += writers.finish().map_err(|(member, source)| write(&member, source))?;
    for (name, first) in hard_links {
        // Both were checked: plain names below the root, no link above them.
        linkat(&*root, first.as_slice(), &*root, name.as_slice(), AtFlags::empty()).map_err(|e| write(&name, e.into()))?;
    }
    // The deepest first, since writing into one changes its time.
    for (name, meta) in directories.iter().rev() {
        let name: &[u8] = if name.is_empty() { b"." } else { name };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let owned = openat2(&*root, name, flags, Mode::empty(), beneath())
            .map_err(io::Error::from)
            .and_then(|fd| set_meta(&fd, meta))
            .map_err(|e| write(name, e))?;
        contents.not_owned += u64::from(!owned);
    }
    syncfs(&*root).map_err(|e| write(b".", e.into()))?;
    contents.top = section_name(&checker.top);
    Ok(contents)
}

fn read_error(path: &Path, control: &Control, source: io::Error) -> ExtractError {
    if control.cancel.is_cancelled() { ExtractError::Cancelled } else { ExtractError::Read { path: path.to_owned(), source } }
}

/// The tar inside: by its members, in parallel, where the manifest tells them, else as one stream.
fn open(path: &Path, effort: &Effort, control: &Control) -> Result<Box<dyn Read>, ExtractError> {
    let file = File::open(path).map_err(|source| ArchiveError::Io { action: "open", path: path.to_owned(), source })?;
    let stream: Box<dyn Read> = match read_manifest(path)? {
        Some(manifest) => Box::new(MemberReader::new(file, manifest.members, effort)),
        None => Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 17, file))),
    };
    Ok(Box::new(Stoppable { stream, control: control.clone() }))
}

struct Stoppable {
    stream: Box<dyn Read>,
    control: Control,
}

impl Read for Stoppable {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.stream.read(buf)
    }
}

/// A member that may be written.
struct Member {
    /// Below the top directory; empty for that itself.
    path: Vec<u8>,
    kind: MemberKind,
    meta: Meta,
}

enum MemberKind {
    Directory,
    File {
        size: u64,
        sparse: bool,
    },
    Symlink(Vec<u8>),
    /// With the path of the name that came first.
    HardLink(Vec<u8>),
}

/// What is set on a file besides its content.
#[derive(Clone, Copy)]
struct Meta {
    mode: u32,
    owner: (u32, u32),
    mtime: Timespec,
}

impl Contents {
    fn count(&mut self, member: &Member) {
        match member.kind {
            MemberKind::Directory => self.directories += 1,
            MemberKind::Symlink(_) => self.links += 1,
            MemberKind::HardLink(_) => self.files += 1,
            MemberKind::File { size, .. } => {
                self.files += 1;
                self.bytes += size;
            }
        }
    }
}

/// What has come so far, as far as it forbids what comes.
struct Checker<'a> {
    archive: &'a Path,
    live: &'a Path,
    top: Vec<u8>,
    seen: HashMap<Vec<u8>, Seen>,
}

#[derive(PartialEq, Clone, Copy)]
enum Seen {
    Directory,
    File,
    Symlink,
}

impl<'a> Checker<'a> {
    fn new(archive: &'a Path, live: &'a Path) -> Self {
        Self { archive, live, top: Vec::new(), seen: HashMap::new() }
    }

    fn check<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<Member, ExtractError> {
        let name = entry.path_bytes().into_owned();
        let refuse = |why: String| ExtractError::Refused { path: self.archive.to_owned(), member: section_name(&name), why };
        let names = parts(&name).map_err(|why| refuse(why.into()))?;
        let Some((first, rest)) = names.split_first() else { return Err(refuse("has no name".into())) };
        if self.top.is_empty() {
            self.top = first.to_vec();
        } else if *first != self.top {
            return Err(refuse(format!("is not below `{}`, as all before it", section_name(&self.top))));
        }
        let path = rest.join(&b'/');
        for end in (0..path.len()).filter(|at| path[*at] == b'/') {
            match self.seen.get(&path[..end]) {
                Some(Seen::Directory) | None => {}
                Some(_) => return Err(refuse(format!("lies below `{}`, which is no directory", section_name(&path[..end])))),
            }
        }
        let header = entry.header();
        let target = || entry.link_name_bytes().map(|t| t.into_owned()).unwrap_or_default();
        let (kind, seen) = match header.entry_type() {
            EntryType::Directory => (MemberKind::Directory, Seen::Directory),
            EntryType::Regular | EntryType::Continuous => (MemberKind::File { size: entry.size(), sparse: false }, Seen::File),
            EntryType::GNUSparse => (MemberKind::File { size: entry.size(), sparse: true }, Seen::File),
            EntryType::Symlink => {
                let target = target();
                self.inside(rest, &target).map_err(|why| refuse(format!("is a link to `{}`, {why}", section_name(&target))))?;
                (MemberKind::Symlink(target), Seen::Symlink)
            }
            EntryType::Link => {
                let target = target();
                let wrong = || refuse(format!("is another name of `{}`, which is no file before it", section_name(&target)));
                let to = parts(&target).map_err(|_| wrong())?;
                let first = to.get(1..).unwrap_or_default().join(&b'/');
                if to.first() != Some(&self.top.as_slice()) || self.seen.get(&first) != Some(&Seen::File) {
                    return Err(wrong());
                }
                (MemberKind::HardLink(first), Seen::File)
            }
            EntryType::Char | EntryType::Block => return Err(refuse("is a device".into())),
            EntryType::Fifo => return Err(refuse("is a named pipe".into())),
            other => return Err(refuse(format!("is of the unknown kind {:?}", char::from(other.as_byte())))),
        };
        if path.is_empty() && seen != Seen::Directory {
            return Err(refuse("is the top, and no directory".into()));
        }
        let before = self.seen.insert(path.clone(), seen);
        if before.is_some_and(|before| !(before == Seen::Directory && seen == Seen::Directory)) {
            return Err(refuse("comes twice".into()));
        }
        let meta = meta(entry).map_err(|e| refuse(format!("has a damaged header: {e}")))?;
        Ok(Member { path, kind, meta })
    }

    /// Whether a link at these components, below the top, stays below it.
    fn inside(&self, from: &[&[u8]], target: &[u8]) -> Result<(), &'static str> {
        use std::os::unix::ffi::OsStrExt;
        if target.is_empty() || target.contains(&0) {
            return Err("which is no path");
        }
        if target[0] == b'/' {
            let to = Path::new(std::ffi::OsStr::from_bytes(target));
            let plain = to.components().all(|c| !matches!(c, std::path::Component::ParentDir));
            return if plain && to.starts_with(self.live) { Ok(()) } else { Err("which leads out") };
        }
        let mut depth = from.len().saturating_sub(1);
        for part in target.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => depth = depth.checked_sub(1).ok_or("which leads out")?,
                _ => depth += 1,
            }
        }
        Ok(())
    }
}

/// A member's name in its parts, which are plain names.
pub(super) fn parts(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.contains(&0) {
        return Err("has a zero byte in its name");
    }
    if name.first() == Some(&b'/') {
        return Err("has an absolute path");
    }
    let mut parts = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("has `..` in its path"),
            part => parts.push(part),
        }
    }
    Ok(parts)
}

fn meta<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Meta> {
    // The records of this very entry; they are at hand without reading on.
    let exact = pax_mtime(entry)?;
    let header = entry.header();
    let id = |n: u64| u32::try_from(n).map_err(|_| io::Error::other("an owner's number is too large"));
    let mut mtime = Timespec { tv_sec: i64::try_from(header.mtime()?).map_err(io::Error::other)?, tv_nsec: 0 };
    if let Some(text) = exact {
        mtime = parse_time(&text).ok_or_else(|| io::Error::other(format!("`{text}` is no time")))?;
    }
    Ok(Meta { mode: header.mode()? & 0o7777, owner: (id(header.uid()?)?, id(header.gid()?)?), mtime })
}

fn pax_mtime<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Option<String>> {
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if record.key_bytes() == b"mtime" {
            return Ok(Some(String::from_utf8_lossy(record.value_bytes()).into_owned()));
        }
    }
    Ok(None)
}

/// Seconds with up to nine decimals, as in a PAX record; before 1970 they count down.
fn parse_time(text: &str) -> Option<Timespec> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if seconds.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanoseconds: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, n) => Timespec { tv_sec: seconds, tv_nsec: n },
        (true, 0) => Timespec { tv_sec: -seconds, tv_nsec: 0 },
        (true, n) => Timespec { tv_sec: -seconds - 1, tv_nsec: 1_000_000_000 - n },
    })
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// The directory in which a path lies, and its last part.
fn parent<'p>(root: &OwnedFd, path: &'p [u8]) -> io::Result<(OwnedFd, &'p [u8])> {
    let (directory, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(root, directory, flags, Mode::empty(), beneath()) {
        Ok(fd) => Ok((fd, name)),
        // Some tars name no directories: they come to be with their first member.
        Err(Errno::NOENT) => {
            make_directory(root, directory)?;
            Ok((openat2(root, directory, flags, Mode::empty(), beneath())?, name))
        }
        Err(error) => Err(error.into()),
    }
}

fn make_directory(root: &OwnedFd, path: &[u8]) -> io::Result<()> {
    let (directory, name) = parent(root, path)?;
    match mkdirat(&directory, name, Mode::RWXU) {
        // Another thread may have made it for a member of its own.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn make_symlink(root: &OwnedFd, path: &[u8], target: &[u8], meta: &Meta) -> io::Result<bool> {
    let (directory, name) = parent(root, path)?;
    symlinkat(target, &directory, name)?;
    let owner = (Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1)));
    let owned = allowed(rustix::fs::chownat(&directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))?;
    utimensat(&directory, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(owned)
}

fn create(root: &OwnedFd, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat2(root, path, flags, Mode::RUSR | Mode::WUSR, beneath()) {
        Err(Errno::NOENT) => {
            let (directory, name) = parent(root, path)?;
            openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?
        }
        other => other?,
    };
    Ok(file.into())
}

/// Owner, then mode (which setting the owner changes), then time. Tells whether the owner could be set.
fn set_meta(fd: &OwnedFd, meta: &Meta) -> io::Result<bool> {
    let owned = allowed(fchown(fd, Some(Uid::from_raw(meta.owner.0)), Some(Gid::from_raw(meta.owner.1))))?;
    // A file that is not its owner's must not run as somebody else.
    let mode = if owned { meta.mode } else { meta.mode & 0o1777 };
    fchmod(fd, Mode::from_raw_mode(mode))?;
    futimens(fd, &times(meta))?;
    Ok(owned)
}

fn allowed(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn times(meta: &Meta) -> Timestamps {
    Timestamps { last_access: meta.mtime, last_modification: meta.mtime }
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// Copies a member's content; blocks of zeros become holes.
fn copy(entry: &mut impl Read, file: &File, size: u64, control: &Control) -> Result<(), Copy> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0u64;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match entry.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Copy::Read(error)),
            }
        }
        if filled == 0 {
            break;
        }
        if buffer[..filled.min(HOLE)].iter().all(|b| *b == 0) {
            for piece in 0..filled.div_ceil(HOLE) {
                let part = &buffer[piece * HOLE..filled.min((piece + 1) * HOLE)];
                if part.iter().any(|b| *b != 0) {
                    file.write_all_at(part, at + (piece * HOLE) as u64).map_err(Copy::Write)?;
                }
            }
        } else {
            file.write_all_at(&buffer[..filled], at).map_err(Copy::Write)?;
        }
        at += filled as u64;
        control.progress.add(filled as u64);
    }
    if at != size {
        return Err(Copy::Read(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{at} of {size} bytes"))));
    }
    // A hole at the end.
    ftruncate(file, size).map_err(|e| Copy::Write(e.into()))
}

/// A file whose content is at hand.
struct Small {
    path: Vec<u8>,
    data: Vec<u8>,
    meta: Meta,
}

/// Members whose owner could not be set; or which one could not be written.
type Written = Result<u64, (Vec<u8>, io::Error)>;

/// Threads that write small files.
struct Writers {
    files: Option<mpsc::SyncSender<Small>>,
    threads: Vec<JoinHandle<Written>>,
}

impl Writers {
    fn start(root: Arc<OwnedFd>, effort: &Effort) -> Self {
        let (files, queue) = mpsc::sync_channel::<Small>(64);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..effort.threads.clamp(1, 4))
            .map(|_| {
                let (root, queue) = (root.clone(), queue.clone());
                effort.spawn(move || {
                    let mut not_owned = 0;
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(Small { path, data, meta }) = next else { return Ok(not_owned) };
                        let written = create(&root, &path).and_then(|mut file| {
                            file.write_all(&data)?;
                            set_meta(&file.into(), &meta)
                        });
                        match written {
                            Ok(owned) => not_owned += u64::from(!owned),
                            Err(error) => return Err((path, error)),
                        }
                    }
                })
            })
            .collect();
        Self { files: Some(files), threads }
    }

    /// False when all threads have failed; [`Self::finish`] says why.
    fn send(&mut self, file: Small) -> bool {
        // One that has failed takes no more, and the others go on to the end: a failure is rare, and found there.
        self.files.as_ref().is_some_and(|files| files.send(file).is_ok())
    }

    fn finish(&mut self) -> Written {
        self.files = None;
        let mut not_owned = 0;
        for thread in self.threads.drain(..) {
            not_owned += thread.join().unwrap_or_else(|_| Err((Vec::new(), io::Error::other("a writing thread panicked"))))?;
        }
        Ok(not_owned)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // After an error elsewhere: what they say does not matter any more.
        drop(self.finish());
    }
}

#[cfg(test)]
mod tests;
