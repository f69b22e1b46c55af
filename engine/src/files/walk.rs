//! The walk over a directory tree: sorted, and never out of the tree.
//!
//! Every step opens one name relative to the descriptor of the directory it was read from, never through a
//! symbolic link, so that a directory exchanged for a link during the walk leads nowhere. Other file systems
//! mounted inside the tree belong to it.

use super::exclude::{Excludes, FileId, file_id};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, statat},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    mem::MaybeUninit,
    rc::Rc,
};

/// Descriptors kept open for the way back up; a deeper tree has its outer directories reopened.
const MAX_OPEN: usize = 64;

/// What the walk came upon; [`Walk::path`] says where.
pub(super) enum Step {
    /// A directory, opened; its entries follow.
    Directory(Stat),
    /// Anything else: its name in `dir`, unopened, and what the directory says that it is.
    Entry { dir: Rc<OwnedFd>, name: CString, kind: FileType },
    /// A directory that cannot be read, or an entry that cannot be looked at.
    Problem(Errno),
}

/// A walk over one tree; directories come before their entries, entries sorted by the bytes of their names.
pub(super) struct Walk<'a> {
    excludes: &'a Excludes,
    root: Option<OwnedFd>,
    levels: Vec<Level>,
    /// The current entry's path, the top directory's name included.
    path: Vec<u8>,
    top: usize,
    opener: Opener,
    buffer: Vec<MaybeUninit<u8>>,
}

/// A directory that the walk is in.
struct Level {
    /// None while too many deeper ones are open, or when it could not be reopened.
    dir: Option<Rc<OwnedFd>>,
    id: FileId,
    /// What is still to be visited, last first.
    names: Vec<(CString, FileType)>,
    path_len: usize,
}

impl<'a> Walk<'a> {
    /// A walk below `root` that calls it `top`.
    pub(super) fn new(root: OwnedFd, top: &[u8], excludes: &'a Excludes) -> Self {
        let buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        let opener = Opener { no_atime: OFlags::NOATIME };
        Self { excludes, root: Some(root), levels: Vec::new(), path: top.to_vec(), top: top.len(), opener, buffer }
    }

    /// Path of the last step, beginning with the top directory's name.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Opens a file of the current directory for reading; what is no regular file any more neither blocks nor is followed.
    pub(super) fn open(&mut self, dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
        self.opener.open(dir, name, OFlags::NONBLOCK)
    }

    /// Goes one step further; `None` at the end.
    pub(super) fn advance(&mut self) -> Option<Step> {
        if let Some(root) = self.root.take() {
            return self.enter(root).unwrap_or_else(|error| Some(Step::Problem(error)));
        }
        loop {
            let level = self.levels.last_mut()?;
            self.path.truncate(level.path_len);
            let Some((name, kind)) = level.names.pop() else {
                if let Err(error) = self.leave() {
                    return Some(Step::Problem(error));
                }
                continue;
            };
            let Some(dir) = level.dir.clone() else { continue };
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            if self.excludes.has_path(&self.path[self.top + 1..]) {
                continue;
            }
            match self.visit(dir, name, kind) {
                Ok(Some(step)) => return Some(step),
                Ok(None) => continue,
                Err(error) => return Some(Step::Problem(error)),
            }
        }
    }

    fn visit(&mut self, dir: Rc<OwnedFd>, name: CString, mut kind: FileType) -> Result<Option<Step>, Errno> {
        if kind == FileType::Unknown {
            kind = FileType::from_raw_mode(statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        }
        if kind == FileType::Directory {
            let fd = self.opener.open(&dir, &name, OFlags::DIRECTORY)?;
            return self.enter(fd);
        }
        Ok(Some(Step::Entry { dir, name, kind }))
    }

    /// Reads the directory's names; `None` when it is excluded.
    fn enter(&mut self, fd: OwnedFd) -> Result<Option<Step>, Errno> {
        let stat = fstat(&fd)?;
        if self.excludes.directory(&stat).is_some() {
            return Ok(None);
        }
        let mut names = Vec::new();
        let mut entries = RawDir::new(&fd, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        self.levels.push(Level { dir: Some(Rc::new(fd)), id: file_id(&stat), names, path_len: self.path.len() });
        if let Some(outer) = self.levels.len().checked_sub(MAX_OPEN + 1) {
            self.levels[outer].dir = None;
        }
        Ok(Some(Step::Directory(stat)))
    }

    /// Goes back up, and reopens the directory there if need be: through `..`, and only if that still is the same one.
    fn leave(&mut self) -> Result<(), Errno> {
        let left = self.levels.pop();
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        if level.dir.is_some() {
            return Ok(());
        }
        self.path.truncate(level.path_len);
        let inner = left.and_then(|left| left.dir).ok_or(Errno::STALE)?;
        let dir = self.opener.open(&inner, c"..", OFlags::DIRECTORY)?;
        if file_id(&fstat(&dir)?) != level.id {
            return Err(Errno::STALE);
        }
        level.dir = Some(Rc::new(dir));
        Ok(())
    }
}

/// Opens without touching access times, as long as the system allows that (to a file's owner and to root).
struct Opener {
    no_atime: OFlags,
}

impl Opener {
    fn open(&mut self, dir: impl AsFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(dir.as_fd(), name, flags | self.no_atime, Mode::empty()) {
            Err(Errno::PERM) if !self.no_atime.is_empty() => {
                self.no_atime = OFlags::empty();
                openat(dir, name, flags, Mode::empty())
            }
            result => result,
        }
    }
}
