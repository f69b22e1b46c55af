//! Archive files: independent gzip members, a manifest and an index inside, written once and published by rename.
//! (contract; the implementation follows)

use crate::{control::Control, manifest::Manifest};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused; the message names the file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "write", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// An archive being written under a temporary name; dropping it removes the file.
pub struct ArchiveWriter {}

impl ArchiveWriter {
    /// Creates `.{name}.{tag}.partial` in `dir` with mode 0600. `threads` compress.
    pub fn create(_dir: &Path, _name: &str, _tag: &str, _threads: usize, _control: &Control) -> Result<Self, ArchiveError> {
        unimplemented!()
    }
    /// Bytes of uncompressed input written so far.
    pub fn raw_offset(&self) -> u64 {
        unimplemented!()
    }
    /// Ends the current gzip member, so that what follows can be read by seeking to it.
    pub fn cut(&mut self) -> io::Result<()> {
        unimplemented!()
    }
    /// Writes manifest and index, flushes and fsyncs; the file still has its temporary name.
    /// `fill` sets what only the caller knows; member index, sizes and checksums are filled in here.
    pub fn finish(self, _manifest: Manifest) -> Result<PartialArchive, ArchiveError> {
        unimplemented!()
    }
}

impl io::Write for ArchiveWriter {
    fn write(&mut self, _buf: &[u8]) -> io::Result<usize> {
        unimplemented!()
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A complete archive that still has its temporary name; dropping it removes the file.
pub struct PartialArchive {}
