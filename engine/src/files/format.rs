//! The headers of a tar: POSIX (ustar) with PAX records for what does not fit, and GNU's for sparse files.
//!
//! GNU's older sparse format, not PAX 1.0, because the `tar` crate, GNU tar, bsdtar and Python all read it.
//! The PAX records are `path` and `linkpath` for names over 100 bytes, as the file system has them (no
//! character set is assumed), and `mtime` for a time with a fraction of a second or before 1970.

use super::content::Extent;
use rustix::fs::Stat;
use std::{collections::HashMap, fs};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

/// Everything in a tar is a multiple of this many bytes.
pub(super) const BLOCK: usize = 512;

/// Two blocks of zeros end a tar.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What kind of entry a header announces.
pub(super) enum Kind<'a> {
    Directory,
    File,
    /// A file of which only these parts follow.
    Sparse(&'a [Extent]),
    /// A symbolic link and what it holds.
    SymbolicLink(&'a [u8]),
    /// Another name of the file that the tar has under this path.
    HardLink(&'a [u8]),
}

/// Appends all header blocks of one entry. Content, if it has some, follows in [`pad`]ded form.
pub(super) fn push_header(blocks: &mut Vec<u8>, path: &[u8], kind: &Kind, stat: &Stat, owners: &Owners) {
    let (mut header, entry_type, mode, size, target) = match *kind {
        Kind::Directory => (Header::new_ustar(), EntryType::Directory, stat.st_mode, 0, None),
        Kind::File => (Header::new_ustar(), EntryType::Regular, stat.st_mode, stat.st_size.unsigned_abs(), None),
        Kind::Sparse(extents) => {
            let stored = extents.iter().map(|extent| extent.len).sum();
            (Header::new_gnu(), EntryType::GNUSparse, stat.st_mode, stored, None)
        }
        Kind::SymbolicLink(target) => (Header::new_ustar(), EntryType::Symlink, 0o777, 0, Some(target)),
        Kind::HardLink(target) => (Header::new_ustar(), EntryType::Link, stat.st_mode, 0, Some(target)),
    };
    header.set_entry_type(entry_type);
    header.set_mode(mode & 0o7777);
    header.set_size(size);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    // Names that do not fit were left out of `owners`.
    header.set_username(owners.user(stat.st_uid)).ok();
    header.set_groupname(owners.group(stat.st_gid)).ok();
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));

    let mut records = Vec::new();
    set_name(&mut header.as_old_mut().name, path, "path", &mut records);
    if let Some(target) = target {
        set_name(&mut header.as_old_mut().linkname, target, "linkpath", &mut records);
    }
    if stat.st_mtime < 0 || stat.st_mtime_nsec != 0 {
        push_record(&mut records, "mtime", decimal_time(stat).as_bytes());
    }
    if !records.is_empty() {
        let mut pax = Header::new_ustar();
        pax.set_entry_type(EntryType::XHeader);
        let name = [b"PaxHeaders/", path.rsplit(|&b| b == b'/').find(|name| !name.is_empty()).unwrap_or(b"")].concat();
        fill(&mut pax.as_old_mut().name, &name);
        pax.set_mode(0o644);
        pax.set_size(records.len() as u64);
        pax.set_cksum();
        blocks.extend_from_slice(pax.as_bytes());
        blocks.extend_from_slice(&records);
        pad(blocks);
    }
    let more = match *kind {
        Kind::Sparse(extents) => set_sparse(&mut header, extents, stat.st_size.unsigned_abs()),
        _ => Vec::new(),
    };
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    blocks.extend_from_slice(&more);
}

/// Fills up the last block with zeros.
pub(super) fn pad(blocks: &mut Vec<u8>) {
    blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
}

/// Writes the map of a sparse file into its header, and returns the blocks with what has no room there.
fn set_sparse(header: &mut Header, extents: &[Extent], size: u64) -> Vec<u8> {
    let end = extents.last().map_or(0, |last| last.offset + last.len);
    // A hole at the end is told from the end of the map by an empty part after it.
    let closing = (end < size).then_some(Extent { offset: size, len: 0 });
    let mut map = extents.iter().copied().chain(closing).peekable();
    let mut set = |slots: &mut [GnuSparseHeader]| {
        for (slot, extent) in slots.iter_mut().zip(&mut map) {
            slot.set_offset(extent.offset);
            slot.set_length(extent.len);
        }
        map.peek().is_some()
    };
    let mut more = Vec::new();
    let Some(gnu) = header.as_gnu_mut() else { return more };
    gnu.set_real_size(size);
    let mut is_extended = set(&mut gnu.sparse);
    gnu.set_is_extended(is_extended);
    while is_extended {
        let mut block = GnuExtSparseHeader::new();
        is_extended = set(block.sparse_mut());
        block.set_is_extended(is_extended);
        more.extend_from_slice(block.as_bytes());
    }
    more
}

fn set_name(field: &mut [u8], name: &[u8], key: &str, records: &mut Vec<u8>) {
    fill(field, name);
    if name.len() > field.len() {
        push_record(records, key, name);
    }
}

fn fill(field: &mut [u8], name: &[u8]) {
    let len = name.len().min(field.len());
    field[..len].copy_from_slice(&name[..len]);
}

/// A PAX record, `LENGTH KEY=VALUE\n`, whose length counts its own digits.
fn push_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() > len {
        len += 1;
    }
    records.extend_from_slice(format!("{len} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The modification time in seconds since 1970 UTC with nine decimals.
fn decimal_time(stat: &Stat) -> String {
    if stat.st_mtime < 0 && stat.st_mtime_nsec != 0 {
        // -2 s + 0.75 s is -1.25 s
        format!("-{}.{:09}", -(stat.st_mtime + 1), 1_000_000_000 - stat.st_mtime_nsec)
    } else {
        format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec)
    }
}

/// Names of users and groups, from `/etc/passwd` and `/etc/group`. Those that only a directory service knows
/// are stored by number alone, which is what a restore on the same system needs.
pub(super) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    pub(super) fn read() -> Self {
        Self { users: read_names("/etc/passwd"), groups: read_names("/etc/group") }
    }

    fn user(&self, id: u32) -> &str {
        self.users.get(&id).map_or("", String::as_str)
    }

    fn group(&self, id: u32) -> &str {
        self.groups.get(&id).map_or("", String::as_str)
    }
}

/// Reads `name:password:id:...` lines; the first name of an id counts. No file, no names.
fn read_names(file: &str) -> HashMap<u32, String> {
    let text = fs::read(file).unwrap_or_default();
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok()))
            && name.len() < 32
        {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for len in [1, 2, 85, 86, 87, 88, 89, 90, 91, 985, 986, 987, 988, 989, 990, 991, 4000] {
            let mut records = Vec::new();
            push_record(&mut records, "path", &vec![b'x'; len]);
            let text = String::from_utf8(records.clone()).unwrap();
            let (told, _) = text.split_once(' ').unwrap();
            assert_eq!(told.parse::<usize>().unwrap(), records.len(), "value of {len} bytes");
        }
    }

    #[test]
    fn times_before_1970_count_down() {
        let mut stat = rustix::fs::stat("/").unwrap();
        for (seconds, nanoseconds, text) in [
            (0, 5, "0.000000005"),
            (1_700_000_000, 123_456_789, "1700000000.123456789"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 750_000_000, "-1.250000000"),
            (-3, 0, "-3.000000000"),
        ] {
            (stat.st_mtime, stat.st_mtime_nsec) = (seconds, nanoseconds);
            assert_eq!(decimal_time(&stat), text);
        }
    }
}
