//! Trees that change, refuse or hold what no archive can, while they are archived.

use super::*;

#[test]
fn a_shrinking_file_is_padded() {
    let (_dir, root, source) = uploads();
    let path = write(&root, "b.log", vec![b'x'; 1_000_000]);
    write(&root, "c", "after");
    let (tape, result) =
        run_into(&source, Tape::when("uploads/b.log", move || File::options().write(true).open(path).unwrap().set_len(700_000).unwrap()));
    let content = tape.content("uploads/b.log");
    assert_eq!(content.len(), 1_000_000);
    assert!(content[..700_000].iter().all(|&b| b == b'x') && content[700_000..].iter().all(|&b| b == 0));
    assert_eq!(tape.content("uploads/c"), b"after");
    assert_eq!(result.warnings, ["uploads/b.log: shrank from 1000000 to 700000 bytes while being read, padded with zeros in the archive"]);
}

#[test]
fn a_growing_file_ends_where_its_header_says() {
    let (_dir, root, source) = uploads();
    let path = write(&root, "b.log", vec![b'x'; 1_000_001]);
    write(&root, "c", "after");
    let grow = move || File::options().append(true).open(path).unwrap().write_all(&[b'y'; 99]).unwrap();
    let (tape, result) = run_into(&source, Tape::when("uploads/b.log", grow));
    assert!(tape.content("uploads/b.log") == vec![b'x'; 1_000_001]);
    assert_eq!(tape.content("uploads/c"), b"after");
    assert_eq!(result.warnings, ["uploads/b.log: grew from 1000001 to 1000100 bytes while being read, the archive has the first 1000001"]);
}

#[test]
fn a_file_overwritten_while_read_is_named() {
    let (_dir, root, source) = uploads();
    let path = write(&root, "b.log", vec![b'x'; 1_000_000]);
    set_mtime(&path, 1_000, 0);
    let (_, result) = run_into(&source, Tape::when("uploads/b.log", move || fs::write(path, vec![b'z'; 1_000_000]).unwrap()));
    assert_eq!(result.warnings, ["uploads/b.log: changed while being read"]);
}

#[test]
fn what_vanishes_is_skipped_and_named() {
    let (_dir, root, source) = uploads();
    write(&root, "a", vec![b'x'; 1_000_000]);
    let gone = write(&root, "gone", "");
    let directory = write(&root, "gone directory/file", "");
    symlink("x", root.join("gone link")).unwrap();
    let link = root.join("gone link");
    write(&root, "z", "last");
    let vanish = move || {
        fs::remove_file(gone).unwrap();
        fs::remove_file(link).unwrap();
        fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    };
    let (tape, result) = run_into(&source, Tape::when("uploads/a", vanish));
    assert_eq!(tape.paths(), ["uploads/", "uploads/a", "uploads/z"]);
    assert_eq!(
        result.warnings,
        ["gone", "gone directory", "gone link"].map(|name| format!("uploads/{name}: vanished while being read, not in the archive"))
    );
    assert_eq!(result.facts.unreadable, 0);
}

#[test]
fn nothing_exchanged_during_the_walk_leads_out_of_the_tree() {
    let (dir, root, source) = uploads();
    let secret = write(dir.path(), "secret/key", "secret");
    write(&root, "a", vec![b'x'; 1_000_000]);
    write(&root, "b/key", "harmless");
    write(&root, "c", "harmless");
    write(&root, "d", "harmless");
    let tree = root.clone();
    let exchange = move || {
        fs::remove_dir_all(tree.join("b")).unwrap();
        symlink(secret.parent().unwrap(), tree.join("b")).unwrap();
        fs::remove_file(tree.join("c")).unwrap();
        symlink(secret, tree.join("c")).unwrap();
        fs::remove_file(tree.join("d")).unwrap();
        mknodat(CWD, tree.join("d"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    let (tape, result) = run_into(&source, Tape::when("uploads/a", exchange));
    assert_eq!(tape.paths(), ["uploads/", "uploads/a"]);
    assert_eq!(
        result.warnings,
        ["b", "c", "d"].map(|name| format!("uploads/{name}: became something else while being read, not in the archive"))
    );
}

#[test]
fn sockets_and_pipes_are_noted() {
    let (_dir, root, source) = uploads();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("s.sock")).unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    write(&root, "x", "");
    let (tape, result) = run(&source);
    assert_eq!(tape.paths(), ["uploads/", "uploads/x"]);
    assert_eq!(result.warnings, ["uploads/pipe: named pipe, not in the archive", "uploads/s.sock: socket, not in the archive"]);
}

/// Root may read everything, so the test runs itself again as nobody.
#[test]
fn what_may_not_be_read_is_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = dir.path().join("uploads");
    write(&root, "a", "readable");
    write(&root, "locked", "x");
    write(&root, "locked directory/x", "x");
    write(&root, "z", "readable");
    for (path, mode) in [("locked", 0o000), ("locked directory", 0o000)] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    if !is_root() {
        archive_unreadable(&root);
    } else {
        let program = dir.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let output = Command::new(&program)
            .args(["--exact", "files::tests::in_use::as_nobody", "--ignored"])
            .env("HERATIO_TEST_UPLOADS", &root)
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    fs::set_permissions(root.join("locked directory"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
#[ignore = "run by what_may_not_be_read_is_counted_and_named"]
fn as_nobody() {
    archive_unreadable(Path::new(&std::env::var_os("HERATIO_TEST_UPLOADS").unwrap()));
}

fn archive_unreadable(root: &Path) {
    let (tape, result) = run(&FileSource::new("uploads", root));
    assert_eq!(tape.paths(), ["uploads/", "uploads/a", "uploads/z"]);
    assert_eq!(
        result.warnings,
        ["locked", "locked directory"]
            .map(|name| format!("uploads/{name}: cannot be read, not in the archive: Permission denied (os error 13)"))
    );
    assert_eq!(result.facts.unreadable, 2);
}

#[test]
fn cancelling_stops_in_the_middle_of_a_file() {
    let (_dir, root, source) = uploads();
    write(&root, "large", vec![1; 20_000_000]);
    let control = Control::default();
    let cancel = control.cancel.clone();
    let mut tape = Tape::when("uploads/large", move || cancel.cancel());
    let error = archive(&source, &mut tape, &control).unwrap_err();
    assert!(matches!(error, FilesError::Cancelled), "{error}");
    assert!(tape.bytes.len() < 2_000_000);
    let error = archive(&source, &mut Tape::default(), &control).unwrap_err();
    assert!(matches!(error, FilesError::Cancelled), "{error}");
}

#[test]
fn a_stream_that_refuses_ends_the_work() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl SectionWriter for Full {
        fn raw_offset(&self) -> u64 {
            0
        }
        fn cut(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_dir, _root, source) = uploads();
    let error = archive(&source, &mut Full, &Control::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot write the uploads archive: "), "{error}");
    assert!(error.hint().unwrap().contains("backup_path"));
}

#[test]
fn warnings_are_bounded() {
    let (_dir, root, source) = uploads();
    for i in 0..1_200 {
        mknodat(CWD, root.join(i.to_string()), FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
    write(&root, "x", "x");
    let (_, result) = run(&source);
    assert_eq!(result.warnings.len(), 1_001);
    assert_eq!(result.warnings.last().unwrap(), "and 200 more such warnings, in the worker's log");
}

/// A disk error in the middle of a file, which no test can ask of a disk.
#[test]
fn a_failing_read_leaves_zeros() {
    struct Failing;
    impl FileExt for Failing {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            match offset {
                0 => {
                    buf[..3].copy_from_slice(b"abc");
                    Ok(3)
                }
                _ => Err(Errno::IO.into()),
            }
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
    let mut buffer = b"before".to_vec();
    let (own, error) = read_exactly(&Failing, 0, 6, &mut buffer);
    assert_eq!((own, error.unwrap().raw_os_error()), (3, Some(Errno::IO.raw_os_error())));
    assert_eq!(buffer, b"beforeabc\0\0\0");
}
