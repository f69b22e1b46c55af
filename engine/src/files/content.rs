//! What is inside a regular file: where its data lies, and reading exactly as much as the header promised.

use super::format::BLOCK;
use rustix::{
    fd::AsFd,
    fs::{SeekFrom, Stat, seek},
    io::Errno,
};
use std::{io, os::unix::fs::FileExt};

/// Parts kept apart in one sparse file; what comes after them is read as if it had no holes.
const MAX_EXTENTS: usize = 16_384;

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The parts of a file that hold data, or `None` when it has no holes or the file system tells of none.
///
/// All but the last begin and end on a [`BLOCK`], because a tar stores them so.
pub(super) fn sparse_map(file: impl AsFd, stat: &Stat) -> Option<Vec<Extent>> {
    let size = stat.st_size.unsigned_abs();
    if stat.st_blocks.unsigned_abs() * 512 >= size {
        return None;
    }
    let block = BLOCK as u64;
    let mut extents: Vec<Extent> = Vec::new();
    let mut position = 0;
    while position < size {
        let data = match seek(&file, SeekFrom::Data(position)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        // The file may have grown since it was looked at.
        if data >= size {
            break;
        }
        let hole = if extents.len() + 1 < MAX_EXTENTS { seek(&file, SeekFrom::Hole(data)).ok()? } else { size };
        let offset = data / block * block;
        let end = hole.next_multiple_of(block).min(size);
        match extents.last_mut() {
            Some(last) if last.offset + last.len >= offset => last.len = end - last.offset,
            _ => extents.push(Extent { offset, len: end - offset }),
        }
        position = end;
    }
    (extents != [Extent { offset: 0, len: size }]).then_some(extents)
}

/// Reads `len` bytes at `offset` onto the end of `buffer`, which grows by exactly `len` whatever happens: what the
/// file does not have any more, or refuses, becomes zeros. Returns how many bytes are the file's own.
pub(super) fn read_exactly(file: &impl FileExt, offset: u64, len: usize, buffer: &mut Vec<u8>) -> (usize, Option<io::Error>) {
    let start = buffer.len();
    buffer.resize(start + len, 0);
    let mut done = 0;
    while done < len {
        match file.read_at(&mut buffer[start + done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}
