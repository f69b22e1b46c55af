//! Trees that change places: what is live goes aside, what was unpacked beside it takes its place.
//!
//! A [`Swap`] is a list of entries below one directory. Each changes place by renames on one file system, of which
//! [`Swap::step`] does one per call, looking at what is where before it: by the numbers of the inodes, which renames keep. So
//! whoever comes after a crash calls it until there is nothing left to do, or [`Swap::step_back`] until all is as it was.
//! Where the file system can exchange two names (renameat2(2), RENAME_EXCHANGE), an entry is old or new at every instant.
//!
//! No name is followed through a symbolic link, and nothing is renamed over anything.

use super::{
    exclude::{Exclude, Excludes},
    section_name,
};
use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
        fchown, fstat, fsync, futimens, mkdirat, openat, openat2, renameat, renameat_with, statat,
    },
    io::Errno,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// How the names of our working directories begin: backups leave them out.
pub const WORK_PREFIX: &str = ".heratio-backup-";

/// A path below a directory, in plain names; in JSON and for people as [`section_name`] writes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Below(Vec<u8>);

impl Below {
    /// From its bytes; the error says what is wrong with it.
    pub fn new(path: &[u8]) -> Result<Self, &'static str> {
        Ok(Self(super::extract::parts(path)?.join(&b'/')))
    }

    /// The bytes; empty for the directory itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a path.
    pub fn as_path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }

    /// A name in it.
    fn child(&self, name: &[u8]) -> Self {
        if self.0.is_empty() { Self(name.to_vec()) } else { Self([&self.0, &b"/"[..], name].concat()) }
    }

    /// All directories above it, the outermost first, without the one that all is below.
    pub fn above(&self) -> impl Iterator<Item = Self> + '_ {
        self.0.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| Self(self.0[..at].to_vec()))
    }

    /// The directory that it is in, and its name there.
    fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (b"", &self.0),
        }
    }
}

impl fmt::Display for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&section_name(&self.0))
    }
}

impl fmt::Debug for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl Serialize for Below {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Below {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = bytes_of(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no path")))?;
        Self::new(&bytes).map_err(serde::de::Error::custom)
    }
}

/// What [`section_name`] made of some bytes, turned back.
fn bytes_of(name: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(name.len()), name.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, rest) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                rest = after;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return None,
            (byte, _) => bytes.push(byte),
        }
    }
    Some(bytes)
}

/// Why trees did not change places.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SwapError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is a directory with `{stays}`, which stays, and the archive has no directory there", path.display())]
    InTheWay { path: PathBuf, stays: Below },
    #[error("{} is gone, and was to become live", path.display())]
    Gone { path: PathBuf },
    #[error("{} is a mount point inside {}", mount.display(), root.display())]
    Mount { root: PathBuf, mount: PathBuf },
}

impl SwapError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the worker's user must be able to write there")
            }
            Self::Mount { .. } => Some("unmount it, or unpack the archive by hand (tar -xzf) into an empty directory"),
            Self::InTheWay { .. } => Some("move it away, then again"),
            _ => None,
        }
    }
}

fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> SwapError {
    let path = path.into();
    move |error| SwapError::Io { action, path, source: error.into() }
}

/// What is set on a directory besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since 1970 UTC, and nanoseconds.
    mtime: (i64, i64),
}

impl Meta {
    fn of(stat: &Stat) -> Self {
        Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime: (stat.st_mtime, stat.st_mtime_nsec as i64) }
    }

    /// The owner where we may set it, the mode, the time.
    fn set(&self, fd: &OwnedFd) -> rustix::io::Result<()> {
        match fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid))) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        let time = Timespec { tv_sec: self.mtime.0, tv_nsec: self.mtime.1 as _ };
        // A directory that is not ours keeps its mode and time, and that is all that is wrong with it.
        match fchmod(fd, Mode::from_raw_mode(self.mode))
            .and_then(|()| futimens(fd, &Timestamps { last_access: time, last_modification: time }))
        {
            Err(Errno::PERM) => Ok(()),
            other => other,
        }
    }
}

/// One thing that changes place; at least one side is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below [`Swap::base`].
    pub path: Below,
    /// Inode of what is live before.
    pub old: Option<u64>,
    /// Inode of what is live afterwards.
    pub new: Option<u64>,
}

/// A directory that stays where it is, since it holds what stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Below [`Swap::base`]; empty for that itself.
    pub path: Below,
    /// What is set on it before.
    pub old: Meta,
    /// What is set on it afterwards.
    pub new: Meta,
}

/// Everything that changes places, at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The live directory; resolved.
    pub base: PathBuf,
    /// Where what becomes live lies, under the same names.
    pub source: PathBuf,
    /// Where what was live goes, under the same names.
    pub kept: PathBuf,
    /// What changes place.
    pub entries: Vec<Entry>,
    /// What does not, but holds some of it.
    pub merges: Vec<Merge>,
}

/// What a live directory keeps through a swap.
pub struct Staying {
    excludes: Excludes,
    /// That of [`Exclude::Directory`], below the live directory.
    directories: BTreeSet<Below>,
    /// Directories above something that stays, and is there.
    above: BTreeSet<Below>,
}

impl Staying {
    /// What of these there is in `live`, which is resolved. `also`: directories that are known to have held some.
    pub fn new(live: &Path, excludes: &[Exclude], also: impl IntoIterator<Item = Below>) -> Result<Self, SwapError> {
        let mut directories = BTreeSet::new();
        let mut above: BTreeSet<Below> = also.into_iter().collect();
        let live_fd = open_dir(live)?;
        for exclude in excludes {
            match exclude {
                Exclude::Directory(path) => {
                    let Ok(path) = fs::canonicalize(path) else { continue };
                    if let Ok(below) = path.strip_prefix(live)
                        && !below.as_os_str().is_empty()
                    {
                        directories.insert(Below(below.as_os_str().as_bytes().to_vec()));
                    }
                }
                Exclude::Anchored(pattern) => {
                    let pattern = Below(pattern.trim_matches('/').as_bytes().to_vec());
                    if inside(&live_fd, &pattern)?.is_some() || pattern.0.contains(&b'*') && any_match(live, &live_fd, &pattern)? {
                        above.extend(pattern.above());
                    }
                }
                Exclude::Named(_) => {}
            }
        }
        for directory in &directories {
            above.extend(directory.above());
        }
        Ok(Self { excludes: Excludes::new(excludes), directories, above })
    }

    fn may_hold(&self, path: &Below) -> bool {
        self.excludes.may_hold(&path.0) || self.directories.iter().any(|d| d.above().any(|above| above == *path))
    }

    fn has(&self, path: &Below) -> bool {
        self.excludes.has_path(&path.0) || self.directories.contains(path)
    }

    /// Whether it stays, or lies below something that does.
    pub fn covers(&self, path: &Below) -> bool {
        self.has(path) || path.above().any(|above| self.has(&above))
    }

    /// The first of what stays below a directory, for people.
    fn below(&self, path: &Below) -> Below {
        self.directories.iter().chain(&self.above).find(|p| p.0.starts_with(&path.0) && p.0.len() > path.0.len()).unwrap_or(path).clone()
    }
}

/// Whether the last name of a pattern, which has a `*`, is there.
fn any_match(live: &Path, live_fd: &OwnedFd, pattern: &Below) -> Result<bool, SwapError> {
    let (directory, name) = pattern.split();
    let below = Below(directory.to_vec());
    if !below.0.is_empty() && !inside(live_fd, &below)?.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory) {
        return Ok(false);
    }
    let star = name.iter().position(|b| *b == b'*').unwrap_or(name.len());
    let (start, end) = (&name[..star], &name[(star + 1).min(name.len())..]);
    let names = names(&live.join(below.as_path()))?;
    Ok(names.iter().any(|n| n.len() >= start.len() + end.len() && n.starts_with(start) && n.ends_with(end)))
}

impl Swap {
    /// What it takes to make `base`, but for what stays, what `source` is. Both are there.
    pub fn of_trees(base: &Path, source: &Path, kept: &Path, staying: &Staying) -> Result<Self, SwapError> {
        let mut swap =
            Self { base: base.to_owned(), source: source.to_owned(), kept: kept.to_owned(), entries: Vec::new(), merges: Vec::new() };
        swap.compare(&Below::default(), staying)?;
        Ok(swap)
    }

    /// One entry and nothing else.
    pub fn of_one(base: &Path, source: &Path, kept: &Path, path: Below) -> Result<Self, SwapError> {
        let mut swap =
            Self { base: base.to_owned(), source: source.to_owned(), kept: kept.to_owned(), entries: Vec::new(), merges: Vec::new() };
        let entry = Entry { old: swap.inode(base, &path)?, new: swap.inode(source, &path)?, path };
        if entry.old.is_some() || entry.new.is_some() {
            swap.entries.push(entry);
        }
        Ok(swap)
    }

    /// Sets directories that stay to what they were before an earlier swap, which this one undoes.
    pub fn with_metas_of(&mut self, undone: &Self) {
        for merge in &mut self.merges {
            if let Some(before) = undone.merges.iter().find(|m| m.path == merge.path) {
                merge.new = before.old;
            }
        }
    }

    fn inode(&self, directory: &Path, path: &Below) -> Result<Option<u64>, SwapError> {
        Ok(inside(&open_dir(directory)?, path)?.map(|stat| stat.st_ino))
    }

    fn compare(&mut self, directory: &Below, staying: &Staying) -> Result<(), SwapError> {
        let (base_fd, source_fd) = (open_dir(&self.base)?, open_dir(&self.source)?);
        let look = |fd: &OwnedFd, path: &Below| -> Result<Option<Stat>, SwapError> {
            if path.0.is_empty() { Ok(Some(fstat(fd).map_err(failed("look at", &self.base))?)) } else { inside(fd, path) }
        };
        let (live, new) = (look(&base_fd, directory)?, look(&source_fd, directory)?);
        let Some(live) = live else { return Ok(()) };
        let old_meta = Meta::of(&live);
        let new_meta = new.as_ref().map_or(old_meta, Meta::of);
        self.merges.push(Merge { path: directory.clone(), old: old_meta, new: new_meta });
        let mut children: BTreeSet<Vec<u8>> = names(&self.base.join(directory.as_path()))?.into_iter().collect();
        if new.is_some() {
            children.extend(names(&self.source.join(directory.as_path()))?);
        }
        for name in children {
            let path = directory.child(&name);
            if staying.has(&path) {
                continue;
            }
            let (live, new) = (inside(&base_fd, &path)?, inside(&source_fd, &path)?);
            let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if staying.above.contains(&path) && live.as_ref().is_some_and(is_dir) {
                if new.as_ref().is_some_and(|stat| !is_dir(stat)) {
                    return Err(SwapError::InTheWay { stays: staying.below(&path), path: self.base.join(path.as_path()) });
                }
                self.compare(&path, staying)?;
            } else {
                self.entries.push(Entry { path, old: live.map(|s| s.st_ino), new: new.map(|s| s.st_ino) });
            }
        }
        Ok(())
    }

    /// Makes what of `source` stays out go away: what is not to become live is not to be looked at.
    pub fn leave_out(source: &Path, staying: &Staying) -> Result<Vec<Below>, SwapError> {
        let (mut left_out, mut waiting) = (Vec::new(), vec![Below::default()]);
        while let Some(directory) = waiting.pop() {
            let full = source.join(directory.as_path());
            let fd = open_dir(&full)?;
            let before = Meta::of(&fstat(&fd).map_err(failed("look at", &full))?);
            let already = left_out.len();
            for name in names(&full)? {
                let path = directory.child(&name);
                let there = source.join(path.as_path());
                let is_dir = fs::symlink_metadata(&there).is_ok_and(|m| m.is_dir());
                if staying.has(&path) {
                    let removed = if is_dir { remove_tree(&there) } else { fs::remove_file(&there) };
                    removed.map_err(|source| SwapError::Io { action: "remove", path: there, source })?;
                    left_out.push(path);
                } else if is_dir && staying.may_hold(&path) {
                    waiting.push(path);
                }
            }
            // Its time is what was recorded, not that of this.
            if left_out.len() > already {
                before.set(&fd).map_err(failed("set the time of", &full))?;
            }
        }
        Ok(left_out)
    }

    /// Does the next rename of an entry; false: it is done.
    pub fn step(&self, entry: &Entry) -> Result<bool, SwapError> {
        let Places { base, source, kept } = self.places(entry)?;
        let (live, at_source) = (base.inode()?, source.inode()?);
        if live == entry.new {
            // Exchanged, and what was live is where the new one was.
            if entry.new.is_some() && at_source.is_some() {
                self.put_away(&source, &kept)?;
                return Ok(true);
            }
            return Ok(false);
        }
        match (live, entry.new) {
            (Some(_), Some(new)) if at_source == Some(new) => match base.exchange(&source) {
                Ok(()) => Ok(true),
                Err(SwapError::Io { source: error, .. }) if cannot_exchange(&error) => {
                    self.put_away(&base, &kept)?;
                    Ok(true)
                }
                Err(error) => Err(error),
            },
            (None, Some(new)) if at_source == Some(new) => {
                source.rename(&base)?;
                Ok(true)
            }
            (_, Some(_)) => Err(SwapError::Gone { path: self.source.join(entry.path.as_path()) }),
            (_, None) => {
                self.put_away(&base, &kept)?;
                Ok(true)
            }
        }
    }

    /// Moves what was live to where it is kept. What somebody made meanwhile, and whose place is taken there, goes beside it.
    fn put_away(&self, from: &Place, kept: &Place) -> Result<(), SwapError> {
        if kept.inode()?.is_none() {
            return from.rename(kept);
        }
        for number in 1..1000 {
            let to = kept.named([&kept.name[..], format!(".{number}").as_bytes()].concat())?;
            if to.inode()?.is_none() {
                return from.rename(&to);
            }
        }
        Err(SwapError::Io { action: "find a free name beside", path: kept.full.clone(), source: io::ErrorKind::AlreadyExists.into() })
    }

    /// Undoes the last rename of an entry; false: it is as it was.
    pub fn step_back(&self, entry: &Entry) -> Result<bool, SwapError> {
        let Places { base, source, kept } = self.places(entry)?;
        let (live, at_source, at_kept) = (base.inode()?, source.inode()?, kept.inode()?);
        if let Some(new) = entry.new {
            if at_kept == Some(new) {
                kept.rename(&source)?;
                return Ok(true);
            }
            if live == Some(new) {
                let other = if at_source.is_some() { Some(&source) } else { at_kept.map(|_| &kept) };
                match other.map(|other| base.exchange(other)) {
                    Some(Ok(())) => return Ok(true),
                    Some(Err(SwapError::Io { source: error, .. })) if cannot_exchange(&error) => {}
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
                base.rename(&source)?;
                return Ok(true);
            }
        }
        if live.is_none() && at_kept.is_some() {
            kept.rename(&base)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Sets owner, mode and time of the directories that stayed, the deepest first; `back`: as they were.
    pub fn set_merged(&self, back: bool) -> Result<(), SwapError> {
        let base = open_dir(&self.base)?;
        for merge in self.merges.iter().rev() {
            let full = self.base.join(merge.path.as_path());
            let path: &[u8] = if merge.path.0.is_empty() { b"." } else { &merge.path.0 };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let set = openat2(&base, path, flags, Mode::empty(), beneath()).and_then(|fd| {
                if back { merge.old.set(&fd) } else { merge.new.set(&fd) }?;
                fsync(&fd)
            });
            match set {
                // Somebody removed it; there is nothing to set.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("set owner and mode of", full)(error)),
            }
        }
        Ok(())
    }

    fn places(&self, entry: &Entry) -> Result<Places, SwapError> {
        Ok(Places {
            base: Place::of(&self.base, &entry.path, None)?,
            source: Place::of(&self.source, &entry.path, Some(&self.base))?,
            kept: Place::of(&self.kept, &entry.path, Some(&self.base))?,
        })
    }
}

struct Places {
    base: Place,
    source: Place,
    kept: Place,
}

/// A name in an open directory.
struct Place {
    directory: OwnedFd,
    name: Vec<u8>,
    full: PathBuf,
}

impl Place {
    /// Where `path` is, or would be, below `root`. `like`: the directories in between are made, with owner and mode of those.
    fn of(root: &Path, path: &Below, like: Option<&Path>) -> Result<Self, SwapError> {
        let (directory, name) = path.split();
        let full = root.join(path.as_path());
        let root_fd = open_dir(root)?;
        if let Some(like) = like {
            for above in path.above() {
                make_like(&root_fd, &above, &like.join(above.as_path())).map_err(failed("make", root.join(above.as_path())))?;
            }
        }
        let directory = if directory.is_empty() { &b"."[..] } else { directory };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            openat2(&root_fd, directory, flags, Mode::empty(), beneath()).map_err(failed("open the directory of", full.clone()))?;
        Ok(Self { directory, name: name.to_vec(), full })
    }

    fn inode(&self) -> Result<Option<u64>, SwapError> {
        match statat(&self.directory, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("look at", &self.full)(error)),
        }
    }

    /// Another name in the same directory.
    fn named(&self, name: Vec<u8>) -> Result<Self, SwapError> {
        let directory = rustix::io::dup(&self.directory).map_err(failed("look at", &self.full))?;
        let full = self.full.with_file_name(std::ffi::OsStr::from_bytes(&name));
        Ok(Self { directory, name, full })
    }

    fn exchange(&self, other: &Place) -> Result<(), SwapError> {
        let (mine, theirs) = (self.name.as_slice(), other.name.as_slice());
        renameat_with(&self.directory, mine, &other.directory, theirs, RenameFlags::EXCHANGE).map_err(failed("exchange", &self.full))?;
        self.sync(other)
    }

    /// Moves it; nothing may be there.
    fn rename(&self, to: &Place) -> Result<(), SwapError> {
        let (mine, theirs) = (self.name.as_slice(), to.name.as_slice());
        let moved = match renameat_with(&self.directory, mine, &to.directory, theirs, RenameFlags::NOREPLACE) {
            // NFS knows no such flag; that nothing is there was seen just now.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if to.inode()?.is_none() => {
                renameat(&self.directory, mine, &to.directory, theirs)
            }
            other => other,
        };
        moved.map_err(failed("move", &self.full))?;
        self.sync(to)
    }

    fn sync(&self, other: &Place) -> Result<(), SwapError> {
        fsync(&self.directory).and_then(|()| fsync(&other.directory)).map_err(failed("sync the directory of", &self.full))
    }
}

fn cannot_exchange(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP))
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn open_dir(path: &Path) -> Result<OwnedFd, SwapError> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open", path))
}

/// What is at `path`, not through any link; `None` where nothing is.
fn inside(directory: &OwnedFd, path: &Below) -> Result<Option<Stat>, SwapError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(directory, path.as_bytes(), flags, Mode::empty(), beneath()) {
        Ok(fd) => Ok(Some(fstat(&fd).map_err(failed("look at", path.as_path()))?)),
        // What is behind a link is not there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(failed("look at", path.as_path())(error)),
    }
}

fn names(directory: &Path) -> Result<Vec<Vec<u8>>, SwapError> {
    let read = |source| SwapError::Io { action: "read", path: directory.to_owned(), source };
    fs::read_dir(directory).map_err(read)?.map(|entry| Ok(entry.map_err(read)?.file_name().into_vec())).collect()
}

/// Makes a directory with owner and mode of another, if that is there.
fn make_like(root: &OwnedFd, path: &Below, like: &Path) -> rustix::io::Result<()> {
    match mkdirat(root, path.as_bytes(), Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(error),
    }
    let Ok(stat) = rustix::fs::lstat(like) else { return Ok(()) };
    // Without the right to give it away it is ours: only what undoes a removed directory would see that.
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    _ = chownat(root, path.as_bytes(), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
    chmodat(root, path.as_bytes(), Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o700), AtFlags::empty())
}

/// Removes a directory with all that is below it, also where its directories' modes forbid that to their owner.
///
/// Refused while something is mounted in it.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    if let Some(mount) = mounts_below(path)?.first() {
        return Err(io::Error::other(format!("{} is mounted there", mount.display())));
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// What is mounted strictly below a resolved directory.
pub fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = mounts()?;
    found.retain(|mount| mount.starts_with(directory) && mount != directory);
    Ok(found)
}

/// Whether something is mounted at a resolved directory itself: it cannot change places with another.
pub fn is_mount(directory: &Path) -> io::Result<bool> {
    Ok(mounts()?.iter().any(|mount| mount == directory))
}

fn mounts() -> io::Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        // The fifth field; blanks, tabs, line breaks and backslashes in octal.
        let Some(field) = line.split(|b| *b == b' ').nth(4) else { continue };
        let (mut path, mut rest) = (Vec::with_capacity(field.len()), field);
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match (first, rest) {
                (b'\\', [a, b, c, after @ ..]) if [a, b, c].iter().all(|d| (b'0'..=b'7').contains(d)) => {
                    path.push((a - b'0').wrapping_mul(64).wrapping_add((b - b'0') * 8 + (c - b'0')));
                    rest = after;
                }
                (byte, _) => path.push(byte),
            }
        }
        found.push(PathBuf::from(std::ffi::OsString::from_vec(path)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
