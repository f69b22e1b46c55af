//! Trees archived, and read back by GNU tar and by the `tar` crate.

mod in_use;

use super::*;
use rustix::fs::{Mode, mknodat, utimensat};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    process::Command,
};
use tempfile::TempDir;

/// A stream in memory that remembers its cuts, and does something when it has seen a text.
#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    cuts: Vec<u64>,
    when: Option<(&'static str, Act)>,
}

type Act = Box<dyn FnOnce()>;

impl Tape {
    /// What a live system does the moment the header of `name` has been written.
    fn when(name: &'static str, act: impl FnOnce() + 'static) -> Self {
        Self { when: Some((name, Box::new(act))), ..Self::default() }
    }

    fn to_gzip(&self, file: &Path) {
        let mut out = File::create(file).unwrap();
        let starts: Vec<usize> = [0].into_iter().chain(self.cuts.iter().map(|&cut| cut as usize)).collect();
        for (i, &start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(self.bytes.len());
            let mut member = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
            member.write_all(&self.bytes[start..end]).unwrap();
            member.finish().unwrap();
        }
    }

    /// Paths in the tar, and what each file holds.
    fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut tar = tar::Archive::new(self.bytes.as_slice());
        let read = |mut entry: tar::Entry<&[u8]>| {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path_bytes().into_owned(), content)
        };
        tar.entries().unwrap().map(|entry| read(entry.unwrap())).collect()
    }

    fn paths(&self) -> Vec<String> {
        self.entries().into_iter().map(|(path, _)| String::from_utf8_lossy(&path).into_owned()).collect()
    }

    fn content(&self, path: &str) -> Vec<u8> {
        self.entries().into_iter().find(|(found, _)| found == path.as_bytes()).unwrap_or_else(|| panic!("no {path}")).1
    }
}

impl io::Write for Tape {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(buf);
        if let Some((_, act)) = self.when.take_if(|(name, _)| memchr::memmem::find(buf, name.as_bytes()).is_some()) {
            act();
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SectionWriter for Tape {
    fn raw_offset(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn cut(&mut self) -> io::Result<()> {
        self.cuts.push(self.bytes.len() as u64);
        Ok(())
    }
}

/// An empty `uploads` directory, and the source that archives it.
fn uploads() -> (TempDir, PathBuf, FileSource) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("uploads");
    fs::create_dir(&root).unwrap();
    let source = FileSource::new("uploads", &root);
    (dir, root, source)
}

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn run(source: &FileSource) -> (Tape, FileArchive) {
    run_into(source, Tape::default())
}

fn run_into(source: &FileSource, mut tape: Tape) -> (Tape, FileArchive) {
    let result = archive(source, &mut tape, &Control::default()).unwrap();
    assert_eq!(tape.bytes.len() % 512, 0);
    assert!(tape.bytes.ends_with(&END));
    (tape, result)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn output(program: &str, args: &[&str], dir: &Path) -> String {
    let output = Command::new(program).args(args).current_dir(dir).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every property of every entry below `dir` that an archive keeps.
fn listing(dir: &Path) -> String {
    let listing = output("find", &[".", "-printf", "%p|%y|%m|%U|%G|%s|%T@|%n|%l\\n"], dir);
    let mut lines: Vec<String> = listing.lines().map(without_directory_sizes).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// A directory's size and link count are its file system's own.
fn without_directory_sizes(line: &str) -> String {
    let mut fields: Vec<&str> = line.split('|').collect();
    if fields.get(1) == Some(&"d") {
        (fields[5], fields[7]) = ("-", "-");
    }
    fields.join("|")
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of everything that an archive can hold.
fn tree_of_everything(root: &Path) {
    write(root, "empty", "");
    write(root, "one block", [b'x'; 512]);
    write(root, "a/b/c/file.txt", "text");
    write(root, "large.bin", (0..3_000_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect::<Vec<_>>());
    write(root, &"n".repeat(255), "a name of 255 bytes");
    let long = (0..20).map(|i| format!("directory number {i}")).collect::<Vec<_>>().join("/");
    write(root, &format!("{long}/file"), "a long path");
    symlink("é".repeat(100), root.join(long).join("link with a long target")).unwrap();
    for name in [b"caf\xe9.jpg".as_slice(), b"new\nline", b"back\\slash", "üñí ☃.txt".as_bytes(), b"-rf", b"a\tb*?"] {
        let path = root.join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        set_mtime(&path, 1_700_000_000, 0);
    }
    // Names of exactly the length of the header's field and one more.
    for len in [99, 100, 101] {
        write(root, &"f".repeat(len - "uploads/".len()), len.to_string());
        fs::create_dir(root.join("d".repeat(len - "uploads//".len()))).unwrap();
    }
    symlink("a/b", root.join("link to directory")).unwrap();
    symlink("/etc/passwd", root.join("link out")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("large.bin"), root.join("linked.bin")).unwrap();
    fs::hard_link(root.join("n".repeat(255)), root.join("z linked to a long name")).unwrap();
    fs::create_dir(root.join("empty directory")).unwrap();

    let holes = File::create(root.join("holes.img")).unwrap();
    holes.write_at(b"start", 0).unwrap();
    for i in 0..40 {
        holes.write_at(b"island", 1_000_000 * i + 500_000).unwrap();
    }
    holes.set_len(50_000_001).unwrap();
    let tail = File::create(root.join("ends in data.img")).unwrap();
    tail.write_at(b"the end", 5_000_000).unwrap();
    File::create(root.join("all hole")).unwrap().set_len(3_000_000).unwrap();
    let long_sparse = File::create(root.join("s".repeat(200))).unwrap();
    long_sparse.write_at(b"x", 200_000).unwrap();
    long_sparse.set_len(400_000).unwrap();

    if is_root() {
        chown(root.join("empty"), Some(1), Some(2)).unwrap();
        chown(root.join("a/b"), Some(3_000_000), Some(4_000_000_000)).unwrap();
        rustix::fs::chownat(CWD, root.join("dangling"), Some(rustix::fs::Uid::from_raw(7)), None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let unreadable_to_most = if is_root() { 0 } else { 0o400 };
    for (path, mode) in
        [("empty", 0o4755), ("one block", 0o2640), ("a/b", 0o1777), ("a/b/c", 0o711), ("a/b/c/file.txt", unreadable_to_most)]
    {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    set_mtime(&root.join("empty"), 1_700_000_000, 123_456_789);
    set_mtime(&root.join("one block"), 0, 0);
    set_mtime(&root.join("large.bin"), -3, 250_000_000);
    set_mtime(&root.join("dangling"), 1_000_000_000, 500_000_000);
    set_mtime(&root.join("all hole"), 4_000_000_000, 1);
    set_mtime(&root.join("a/b"), 1_234_567_890, 987_654_321);
}

#[test]
fn gnu_tar_restores_everything() {
    let (dir, root, source) = uploads();
    tree_of_everything(&root);
    let (tape, result) = run(&source);
    assert_eq!(result.warnings, Vec::<String>::new());

    let file = dir.path().join("uploads.tar.gz");
    tape.to_gzip(&file);
    let restored = dir.path().join("restored");
    fs::create_dir(&restored).unwrap();
    let listed = output("tar", &["-tzf", file.to_str().unwrap()], &restored);
    output("tar", &["-xzpf", file.to_str().unwrap(), "--numeric-owner", "--warning=no-timestamp"], &restored);

    let (before, after) = (listing(&root), listing(&restored.join("uploads")));
    assert_eq!(before, after);
    output("diff", &["-r", "--no-dereference", root.to_str().unwrap(), "restored/uploads"], dir.path());
    assert_eq!(output("find", &[".", "-printf", "x"], &root).len(), listed.lines().count());

    let found = |kind: &str| output("find", &[".", "-type", kind, "-printf", "x"], &root).len() as u64;
    let facts = &result.facts;
    assert_eq!((facts.files, facts.directories, facts.links), (found("f"), found("d"), found("l")));
    assert_eq!(facts.unreadable, 0);
    let id = |name: &str| fs::metadata(restored.join("uploads").join(name)).unwrap().ino();
    assert_eq!(id("large.bin"), id("linked.bin"));
    for name in ["holes.img", "all hole", "ends in data.img"] {
        let blocks = |dir: &Path| fs::metadata(dir.join(name)).unwrap().blocks();
        assert!(blocks(&restored.join("uploads")) <= blocks(&root), "{name} lost its holes");
    }
}

#[test]
fn owners_have_names() {
    let (_dir, root, source) = uploads();
    write(&root, "a", "");
    if !is_root() {
        return;
    }
    chown(root.join("a"), Some(0), Some(0)).unwrap();
    let (tape, _) = run(&source);
    let mut tar = tar::Archive::new(tape.bytes.as_slice());
    let entry = tar.entries().unwrap().nth(1).unwrap().unwrap();
    assert_eq!((entry.header().username().unwrap(), entry.header().groupname().unwrap()), (Some("root"), Some("root")));
}

#[test]
fn the_tar_crate_reads_everything() {
    let (_dir, root, source) = uploads();
    tree_of_everything(&root);
    fs::remove_file(root.join("linked.bin")).unwrap();
    fs::remove_file(root.join("z linked to a long name")).unwrap();
    let (tape, _) = run(&source);
    let mut files = 0;
    for (path, content) in tape.entries() {
        let path = root.parent().unwrap().join(std::ffi::OsStr::from_bytes(&path));
        if fs::symlink_metadata(&path).unwrap().is_file() {
            assert!(fs::read(&path).unwrap() == content, "{}", path.display());
            files += 1;
        }
    }
    assert!(files > 15);
}

#[test]
fn the_same_tree_gives_the_same_bytes_sorted() {
    let (_dir, root, source) = uploads();
    for name in ["b", "a/z", "a/b/c", "a.txt", "B", "a/y", "c"] {
        write(&root, name, name);
    }
    let (first, _) = run(&source);
    let (second, _) = run(&source);
    assert!(first.bytes == second.bytes);
    assert_eq!(first.paths(), ["", "B", "a/", "a/b/", "a/b/c", "a/y", "a/z", "a.txt", "b", "c"].map(|path| format!("uploads/{path}")));
}

#[test]
fn single_files_are_found_by_their_section() {
    let (_dir, root, source) = uploads();
    for i in 0..300 {
        write(&root, &format!("small/{i:03}"), vec![i as u8; 20_000]);
    }
    write(&root, "large", vec![7; 5_000_000]);
    write(&root, "zlast", "last");
    let (tape, result) = run(&source);
    assert_eq!(result.sections.len() as u64, result.facts.files);
    for section in &result.sections {
        let (start, end) = (section.start as usize, section.end as usize);
        let mut tar = tar::Archive::new(&tape.bytes[start..end]);
        let mut entry = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(*entry.path_bytes(), *section.name.as_bytes());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(content == fs::read(root.parent().unwrap().join(&section.name)).unwrap());
        assert_eq!(section.kind, "file");

        let cut = tape.cuts.iter().copied().filter(|&cut| cut <= section.start).max().unwrap_or(0);
        assert!(section.start - cut < CUT_EVERY + 25_000, "{} is {} bytes after a cut", section.name, section.start - cut);
        if content.len() as u64 > CUT_EVERY {
            assert_eq!(cut, section.start);
        }
    }
    assert!(tape.cuts.len() < 12, "{:?}", tape.cuts);
}

#[test]
fn a_large_sparse_file_costs_what_it_holds() {
    let (dir, root, source) = uploads();
    const SIZE: u64 = 10 << 30;
    let file = File::create(root.join("disk.img")).unwrap();
    file.write_at(b"first", 0).unwrap();
    file.write_at(b"past 8 GiB", 9 << 30).unwrap();
    file.set_len(SIZE).unwrap();
    let control = Control::default();
    let mut tape = Tape::default();
    let result = archive(&source, &mut tape, &control).unwrap();
    assert!(tape.bytes.len() < 64 * 1024, "{} bytes", tape.bytes.len());
    assert_eq!(result.facts.bytes, SIZE);
    let progress = control.progress.read();
    assert_eq!((progress.done, progress.total), (SIZE, SIZE));

    let restored = dir.path().join("restored");
    fs::create_dir(&restored).unwrap();
    fs::write(restored.join("tar"), &tape.bytes).unwrap();
    output("tar", &["-xf", "tar"], &restored);
    let copy = File::open(restored.join("uploads/disk.img")).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), SIZE);
    assert!(copy.metadata().unwrap().blocks() < 1024);
    let mut buffer = [0; 10];
    copy.read_exact_at(&mut buffer, 9 << 30).unwrap();
    assert_eq!(&buffer, b"past 8 GiB");
}

#[test]
fn a_file_of_very_many_holes_is_complete() {
    let (_dir, root, source) = uploads();
    let file = File::create(root.join("sieve")).unwrap();
    for i in 0..16_500u64 {
        file.write_at(&i.to_le_bytes(), i * 8192).unwrap();
    }
    file.set_len(16_510 * 8192).unwrap();
    let (tape, result) = run(&source);
    assert_eq!(result.warnings, Vec::<String>::new());
    assert!(tape.content("uploads/sieve") == fs::read(root.join("sieve")).unwrap());
}

#[test]
fn excluded_directories_are_known_by_any_path() {
    let (dir, root, mut source) = uploads();
    write(&root, "backups/old.sql.gz", "old");
    write(&root, "packages/aip/METS.xml", "aip");
    write(&root, "deep/tmp/x", "x");
    write(&root, "deep/tmp2/x", "x");
    symlink(root.join("backups"), dir.path().join("alias")).unwrap();
    source.excludes = vec![
        Exclude::Directory(dir.path().join("alias")),
        Exclude::Directory(root.join("not there")),
        Exclude::Anchored("deep/tmp".to_owned()),
    ];
    let (tape, _) = run(&source);
    assert_eq!(
        tape.paths(),
        ["", "deep/", "deep/tmp2/", "deep/tmp2/x", "packages/", "packages/aip/", "packages/aip/METS.xml"]
            .map(|path| format!("uploads/{path}"))
    );

    source.excludes.push(Exclude::Directory(root.join("deep/..")));
    let error = archive(&source, &mut Tape::default(), &Control::default()).unwrap_err();
    assert!(matches!(error, FilesError::Excluded { .. }), "{error}");
}

#[test]
fn the_framework_loses_only_what_is_anchored() {
    let (_dir, root, mut source) = uploads();
    let kept = ["app/node_modules/x", "bootstrap/cache/.gitignore", "public/vendor/x", "storage/app/x", "uploads/packages/x"];
    let dropped = [
        ".git/HEAD",
        "bootstrap/cache/services.php",
        "node_modules/x",
        "packages/ahg/x",
        "public/build/x",
        "public/hot",
        "storage/framework/cache/x",
        "storage/framework/sessions/x",
        "storage/framework/views/x",
        "storage/logs/laravel.log",
        "vendor/x",
    ];
    for path in kept.iter().chain(&dropped) {
        write(&root, path, "x");
    }
    source.excludes = framework_excludes();
    let (tape, result) = run(&source);
    let files: Vec<String> = tape.paths().into_iter().filter(|path| !path.ends_with('/')).collect();
    assert_eq!(files, kept.map(|path| format!("uploads/{path}")));
    assert_eq!(result.facts.files, kept.len() as u64);
}

#[test]
fn the_root_may_be_a_symbolic_link() {
    let (dir, root, _) = uploads();
    write(&root, "x", "x");
    symlink(&root, dir.path().join("current")).unwrap();
    let (tape, _) = run(&FileSource::new("uploads", &dir.path().join("current/")));
    assert_eq!(tape.paths(), ["current/", "current/x"]);
}

#[test]
fn a_missing_directory_is_named_with_its_variable() {
    for (component, variable) in [("uploads", "HERATIO_UPLOADS_PATH"), ("packages", "HERATIO_ROOT"), ("framework", "HERATIO_ROOT")] {
        let error = archive(&FileSource::new(component, Path::new("/not/there")), &mut Tape::default(), &Control::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("{component} directory not found: /not/there"));
        assert!(error.hint().unwrap().contains(variable));
    }
    let error = archive(&FileSource::new("uploads", Path::new("/etc/passwd")), &mut Tape::default(), &Control::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot open the uploads directory /etc/passwd: Not a directory (os error 20)");
}

#[test]
fn an_empty_directory_is_archived_and_named() {
    let (_dir, root, source) = uploads();
    let (tape, result) = run(&source);
    assert_eq!(tape.paths(), ["uploads/"]);
    assert_eq!(result.warnings, [format!("no file found in the uploads directory {}", root.display())]);
}

#[test]
fn a_tree_deeper_than_there_are_descriptors_is_walked() {
    let (_dir, root, source) = uploads();
    let depth = 1_200;
    // Relative to each directory, since the whole path is too long for one call.
    let mut dir = openat(CWD, root.as_path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..depth {
        for name in ["a", "z"] {
            File::from(openat(&dir, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap())
                .write_all(level.to_string().as_bytes())
                .unwrap();
        }
        rustix::fs::mkdirat(&dir, "d234", Mode::RWXU).unwrap();
        dir = openat(&dir, "d234", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let (tape, result) = run(&source);
    assert_eq!(result.warnings, Vec::<String>::new());
    assert_eq!((result.facts.files, result.facts.directories), (2 * depth, depth + 1));
    let paths = tape.paths();
    assert!(paths.last().unwrap() == "uploads/z" && paths.iter().map(String::len).max().unwrap() > 5_000);
    output("rm", &["-rf", "uploads"], root.parent().unwrap());
}

#[test]
fn section_names_are_one_line_each_and_differ() {
    for (path, name) in [
        (b"uploads/plain \xc3\xa9".as_slice(), "uploads/plain é"),
        (b"caf\xe9", "caf\\351"),
        (b"caf\\351", "caf\\\\351"),
        (b"a\nb", "a\\012b"),
    ] {
        assert_eq!(section_name(path), name);
    }
}
