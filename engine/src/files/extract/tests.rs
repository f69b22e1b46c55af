//! What comes out is what went in; what must not come out is refused before anything is written.

use super::*;
use crate::{
    archive::ArchiveWriter,
    files::{FileSource, archive},
    manifest::Manifest,
};
use flate2::{Compression, write::GzEncoder};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};
use tar::{Builder, Header};
use tempfile::TempDir;

const LIVE: &str = "/srv/heratio/uploads";

/// An archive of ours of the tree.
fn archived(dir: &Path, root: &Path) -> PathBuf {
    let control = Control::default();
    let mut writer = ArchiveWriter::create(dir, "a.tar.gz", "1.1", &Effort::full(2), &control).unwrap();
    let made = archive(&FileSource::new("uploads", root), &mut writer, &control).unwrap();
    let manifest = Manifest { component: "uploads".into(), sections: made.sections, files: Some(made.facts), ..Manifest::default() };
    writer.finish(manifest).unwrap().publish().unwrap().path
}

/// Another program's archive.
fn foreign(dir: &Path, fill: impl FnOnce(&mut Builder<GzEncoder<File>>)) -> PathBuf {
    let path = dir.join("foreign.tar.gz");
    let mut builder = Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
    fill(&mut builder);
    builder.into_inner().unwrap().finish().unwrap();
    path
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(1_700_000_000);
    header.set_uid(rustix::process::getuid().as_raw().into());
    header.set_gid(rustix::process::getgid().as_raw().into());
    header
}

/// As `set_path` and `set_link_name` would refuse it.
fn raw(kind: EntryType, name: &str, target: &str, size: u64) -> Header {
    let mut header = header(kind, size);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    header
}

fn unpack(path: &Path) -> (TempDir, Result<Contents, ExtractError>) {
    let into = tempfile::tempdir().unwrap();
    let result = extract(path, Path::new(LIVE), into.path(), &Effort::full(2), &Control::default());
    (into, result)
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("uploads");
    fs::create_dir_all(root.join("r/deep/er")).unwrap();
    for i in 0..300 {
        fs::write(root.join(format!("r/{i}.txt")), format!("file {i}").repeat(i)).unwrap();
    }
    let noise: Vec<u8> = (0..5_000_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    fs::write(root.join("r/deep/er/large.tif"), &noise).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("имя \u{1f600} with \\ and \"quotes\""), "x").unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 20 << 20).unwrap();
    fs::hard_link(root.join("r/7.txt"), root.join("r/deep/seven")).unwrap();
    symlink("../7.txt", root.join("r/deep/link")).unwrap();
    symlink(format!("{LIVE}/r/7.txt"), root.join("absolute")).unwrap();
    fs::set_permissions(root.join("r/1.txt"), fs::Permissions::from_mode(0o2751)).unwrap();
    fs::set_permissions(root.join("r/deep"), fs::Permissions::from_mode(0o1700)).unwrap();
    let old = Timestamps {
        last_access: Timespec { tv_sec: -5, tv_nsec: 250_000_000 },
        last_modification: Timespec { tv_sec: -5, tv_nsec: 250_000_000 },
    };
    utimensat(CWD, root.join("r/2.txt"), &old, AtFlags::empty()).unwrap();
    utimensat(CWD, root.join("r"), &old, AtFlags::empty()).unwrap();

    let path = archived(dir.path(), &root);
    let contents = inspect(&path, Path::new(LIVE), &Effort::full(2), &Control::default()).unwrap();
    let (into, extracted) = unpack(&path);
    let extracted = extracted.unwrap();
    assert_eq!(extracted, contents);
    assert_eq!((contents.top.as_str(), contents.files, contents.directories, contents.links), ("uploads", 305, 4, 2));
    let same = std::process::Command::new("diff").args(["-r", "--no-dereference"]).arg(&root).arg(into.path()).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    for name in ["", "r", "r/1.txt", "r/2.txt", "r/deep", "r/deep/link", "r/deep/er/large.tif", "sparse", "empty"] {
        let (was, is) = (fs::symlink_metadata(root.join(name)).unwrap(), fs::symlink_metadata(into.path().join(name)).unwrap());
        assert_eq!(
            (was.mode(), was.uid(), was.gid(), was.mtime(), was.mtime_nsec()),
            (is.mode(), is.uid(), is.gid(), is.mtime(), is.mtime_nsec()),
            "{name}"
        );
    }
    assert!(fs::metadata(into.path().join("sparse")).unwrap().blocks() < 1000, "holes are holes again");
    let seven = |name: &str| fs::metadata(into.path().join(name)).unwrap().ino();
    assert_eq!(seven("r/7.txt"), seven("r/deep/seven"));
}

#[test]
fn what_could_write_elsewhere_is_refused_by_name() {
    type Fill = fn(&mut Builder<GzEncoder<File>>);
    let cases: [(&str, &str, Fill); 13] = [
        ("/etc/passwd", "an absolute path", |b| b.append(&raw(EntryType::Regular, "/etc/passwd", "", 1), &b"x"[..]).unwrap()),
        ("up/../../x", "`..`", |b| b.append(&raw(EntryType::Regular, "up/../../x", "", 1), &b"x"[..]).unwrap()),
        ("up/a", "which leads out", |b| b.append(&raw(EntryType::Symlink, "up/a", "../../etc", 0), io::empty()).unwrap()),
        ("up/a", "which leads out", |b| b.append(&raw(EntryType::Symlink, "up/a", "/etc/passwd", 0), io::empty()).unwrap()),
        ("up/a", "which leads out", |b| {
            b.append(&raw(EntryType::Symlink, "up/a", "/srv/heratio/uploads/../../x", 0), io::empty()).unwrap()
        }),
        ("up/a", "which leads out", |b| b.append(&raw(EntryType::Symlink, "up/a", "/srv/heratio/uploads2", 0), io::empty()).unwrap()),
        ("up/a/b", "lies below `a`", |b| {
            b.append(&raw(EntryType::Symlink, "up/a", ".", 0), io::empty()).unwrap();
            b.append(&raw(EntryType::Regular, "up/a/b", "", 1), &b"x"[..]).unwrap();
        }),
        ("up/h", "no file before it", |b| b.append(&raw(EntryType::Link, "up/h", "/etc/passwd", 0), io::empty()).unwrap()),
        ("up/h", "no file before it", |b| b.append(&raw(EntryType::Link, "up/h", "up/later", 0), io::empty()).unwrap()),
        ("up/tty", "a device", |b| b.append(&raw(EntryType::Char, "up/tty", "", 0), io::empty()).unwrap()),
        ("up/pipe", "a named pipe", |b| b.append(&raw(EntryType::Fifo, "up/pipe", "", 0), io::empty()).unwrap()),
        ("up/a", "comes twice", |b| {
            b.append(&raw(EntryType::Directory, "up/a", "", 0), io::empty()).unwrap();
            b.append(&raw(EntryType::Symlink, "up/a", ".", 0), io::empty()).unwrap();
        }),
        ("other/b", "is not below `up`", |b| {
            b.append(&raw(EntryType::Regular, "up/a", "", 1), &b"x"[..]).unwrap();
            b.append(&raw(EntryType::Regular, "other/b", "", 1), &b"x"[..]).unwrap();
        }),
    ];
    for (member, why, fill) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = foreign(dir.path(), fill);
        let error = inspect(&path, Path::new(LIVE), &Effort::full(2), &Control::default()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ExtractError::Refused { .. }) && error.hint().is_some(), "{text}");
        assert!(text.contains(&format!("member `{member}`")) && text.contains(why), "{member} {why}: {text}");
        // And unpacking it at once would not have written outside either.
        let (into, extracted) = unpack(&path);
        assert!(extracted.is_err(), "{member}");
        assert!(!into.path().join("tty").exists() && !into.path().join("a/b").exists());
    }
}

#[test]
fn a_foreign_tar_without_directories_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let path = foreign(dir.path(), |b| {
        for name in ["packages/a/b/c.php", "packages/a/d.php"] {
            let mut header = header(EntryType::Regular, 5);
            b.append_data(&mut header, name, &b"<?php"[..]).unwrap();
        }
    });
    let (into, extracted) = unpack(&path);
    assert_eq!(extracted.unwrap().files, 2);
    assert_eq!(fs::read_to_string(into.path().join("a/b/c.php")).unwrap(), "<?php");
}

#[test]
fn damage_full_disks_and_stops_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("uploads");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), vec![b'a'; 3 << 20]).unwrap();
    fs::write(root.join("b"), "b").unwrap();
    let path = archived(dir.path(), &root);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[2000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(unpack(&path).1, Err(ExtractError::Read { .. })));
    fs::write(&path, &whole).unwrap();
    let control = Control::default();
    control.cancel.cancel();
    let into = tempfile::tempdir().unwrap();
    let error = extract(&path, Path::new(LIVE), into.path(), &Effort::full(2), &control).unwrap_err();
    assert!(matches!(error, ExtractError::Cancelled), "{error}");
    // A file in the way is not overwritten.
    let into = tempfile::tempdir().unwrap();
    fs::write(into.path().join("b"), "mine").unwrap();
    let error = extract(&path, Path::new(LIVE), into.path(), &Effort::full(2), &Control::default()).unwrap_err();
    assert!(matches!(error, ExtractError::Write { .. }) && error.to_string().contains("`b`"), "{error}");
    assert_eq!(fs::read_to_string(into.path().join("b")).unwrap(), "mine");
}

#[test]
fn one_file_is_read_through_the_index_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("uploads");
    fs::create_dir_all(root.join("r/x")).unwrap();
    for n in 0..40 {
        // Content that does not compress, so that members lie far apart.
        let noise: Vec<u8> = (0..300_000u64).map(|i| (i.wrapping_mul(6364136223846793005).wrapping_add(n) >> 33) as u8).collect();
        fs::write(root.join(format!("r/x/{n:02}.tif")), noise).unwrap();
    }
    fs::hard_link(root.join("r/x/00.tif"), root.join("r/x/again.tif")).unwrap();
    let path = archived(dir.path(), &root);
    // The first half of the file is damaged, the file wanted lies in the other.
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[100..half].fill(0);
    fs::write(&path, &bytes).unwrap();
    let take = |wanted: &str| {
        let into = tempfile::tempdir().unwrap();
        let result = extract_one(&path, "uploads", wanted, into.path(), &Effort::full(2), &Control::default());
        result.map(|(below, _)| {
            (String::from_utf8(below.clone()).unwrap(), fs::read(into.path().join(std::str::from_utf8(&below).unwrap())).unwrap())
        })
    };
    let (below, content) = take("uploads/r/x/39.tif").unwrap();
    assert_eq!((below.as_str(), content), ("r/x/39.tif", fs::read(root.join("r/x/39.tif")).unwrap()));
    // Without its first part too.
    assert_eq!(take("r/x/38.tif").unwrap().1, fs::read(root.join("r/x/38.tif")).unwrap());
    // A second name has its content under the first, which is damaged here.
    assert!(matches!(take("uploads/r/x/again.tif"), Err(ExtractError::Read { .. } | ExtractError::Archive(_))));
    for (wanted, near) in [("uploads/r/x/39.tiff", "r/x/00.tif"), ("uploads/r/x", "r/x/00.tif"), ("uploads/elsewhere/07.tif", "r/x/07.tif")]
    {
        let error = take(wanted).unwrap_err();
        assert!(error.to_string().contains(near) && error.hint().is_some(), "{error}");
    }
    assert!(take("uploads/../x").unwrap_err().to_string().contains("`..`"));
    assert!(!is_tar(&root.join("r/x/39.tif")).unwrap());
    assert!(is_tar(&foreign(dir.path(), |tar| tar.append_dir("uploads", &root).unwrap())).unwrap());
}
