//! Trees change places and back, from every place at which somebody may have died.

use super::*;
use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};
use tempfile::TempDir;

/// Makes files, with directories above them, each with its own path as content.
fn files(root: &Path, paths: &[&str]) {
    for path in paths {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.display().to_string()).unwrap();
    }
}

/// Everything in a tree: mode, and content or target.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let (mut all, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let what = if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            fs::read_to_string(&path).unwrap()
        };
        all.insert(name, format!("{:o} {} {what}", meta.mode(), meta.mtime()));
    }
    all
}

struct Host {
    _dir: TempDir,
    base: PathBuf,
    source: PathBuf,
    kept: PathBuf,
}

/// A framework's live directory, and what a backup has of it.
fn host() -> Host {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    let (base, source, kept) = (root.join("live"), root.join("new"), root.join("old"));
    files(
        &base,
        &[
            "artisan",
            "app/a.php",
            "app/later.php",
            "later/b.php",
            "vendor/autoload.php",
            ".git/HEAD",
            "packages/one/composer.json",
            "storage/logs/laravel.log",
            "storage/app/old.txt",
            "storage/framework/cache/c",
            "bootstrap/app.php",
            "bootstrap/cache/services.php",
            "bootstrap/cache/.gitignore",
            "public/index.php",
            "public/build/manifest.json",
            ".env",
            ".heratio-backup-7-uploads/x",
            "up/r/1.tif",
        ],
    );
    files(
        &source,
        &[
            "artisan",
            "app/a.php",
            "gone/c.php",
            "storage/app/new.txt",
            "bootstrap/app.php",
            "bootstrap/cache/.gitignore",
            "public/index.php",
            ".env",
        ],
    );
    fs::create_dir_all(source.join("storage/framework")).unwrap();
    symlink("../storage/app", source.join("public/storage")).unwrap();
    fs::set_permissions(source.join("storage"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::create_dir(&kept).unwrap();
    Host { _dir: dir, base, source, kept }
}

fn excludes(host: &Host) -> Vec<Exclude> {
    let mut excludes = super::super::framework_excludes();
    excludes.push(Exclude::Directory(host.base.join("up")));
    excludes.push(Exclude::Named(WORK_PREFIX.into()));
    excludes.push(Exclude::Anchored(".env".into()));
    excludes
}

fn swap_of(host: &Host) -> Swap {
    let staying = Staying::new(&host.base, &excludes(host), []).unwrap();
    Swap::of_trees(&host.base, &host.source, &host.kept, &staying).unwrap()
}

fn forward(swap: &Swap) {
    for entry in &swap.entries {
        while swap.step(entry).unwrap() {}
    }
    swap.set_merged(false).unwrap();
}

fn back(swap: &Swap) {
    for entry in swap.entries.iter().rev() {
        while swap.step_back(entry).unwrap() {}
    }
    swap.set_merged(true).unwrap();
}

#[test]
fn all_but_what_stays_changes_place_and_back() {
    let it = host();
    let before = tree(&it.base);
    let swap = swap_of(&it);
    let text = serde_json::to_string(&swap).unwrap();
    assert_eq!(serde_json::from_str::<Swap>(&text).unwrap(), swap);
    forward(&swap);
    let now = tree(&it.base);
    for stays in [
        "vendor/autoload.php",
        ".git/HEAD",
        "packages/one/composer.json",
        "storage/logs/laravel.log",
        "storage/framework/cache/c",
        "bootstrap/cache/services.php",
        "public/build/manifest.json",
        ".env",
        "up/r/1.tif",
        ".heratio-backup-7-uploads/x",
    ] {
        assert_eq!(now.get(stays), before.get(stays), "{stays}");
    }
    for gone in ["later/b.php", "app/later.php", "storage/app/old.txt"] {
        assert!(!now.contains_key(gone), "{gone}");
    }
    for new in
        ["artisan", "app/a.php", "gone/c.php", "storage/app/new.txt", "bootstrap/app.php", "bootstrap/cache/.gitignore", "public/index.php"]
    {
        assert!(now[new].contains("/new/"), "{new}: {}", now[new]);
    }
    assert!(now["public/storage"].ends_with("../storage/app"));
    assert!(now["storage"].starts_with("42775"), "{}", now["storage"]);
    assert!(!it.source.join(".env").exists() || now[".env"].contains("/live/"));

    // Another swap, from what was kept: as undo does it.
    let again = it.kept.with_file_name("again");
    fs::create_dir(&again).unwrap();
    let staying = Staying::new(&it.base, &excludes(&it), swap.merges.iter().map(|m| m.path.clone())).unwrap();
    let mut undo = Swap::of_trees(&it.base, &it.kept, &again, &staying).unwrap();
    undo.with_metas_of(&swap);
    files(&it.base, &["storage/app/since.txt"]);
    forward(&undo);
    assert_eq!(tree(&it.base), before);
    assert!(again.join("storage/app/since.txt").exists());
}

#[test]
fn it_is_finished_or_put_back_from_every_step() {
    let steps = {
        let it = host();
        let swap = swap_of(&it);
        swap.entries.iter().map(|e| std::iter::from_fn(|| swap.step(e).unwrap().then_some(())).count()).sum::<usize>()
    };
    assert!(steps >= 15, "{steps}");
    for dies_after in 0..=steps {
        for finish in [true, false] {
            let it = host();
            let before = tree(&it.base);
            let swap = swap_of(&it);
            let mut left = dies_after;
            'dying: for entry in &swap.entries {
                loop {
                    if left == 0 {
                        break 'dying;
                    }
                    if !swap.step(entry).unwrap() {
                        break;
                    }
                    left -= 1;
                    let live = fs::symlink_metadata(it.base.join(entry.path.as_path())).ok().map(|m| m.ino());
                    assert!(live == entry.old || live == entry.new, "{:?} is neither", entry.path);
                }
            }
            if finish {
                forward(&swap);
                assert!(it.base.join("gone/c.php").exists() && !it.base.join("later").exists());
            }
            back(&swap);
            assert_eq!(tree(&it.base), before, "died after {dies_after}, finished first: {finish}");
        }
    }
}

#[test]
fn what_somebody_makes_meanwhile_is_kept_too() {
    let it = host();
    let swap = swap_of(&it);
    // An editor saves by rename; something appears where nothing was.
    files(&it.base, &["artisan2", "gone"]);
    fs::rename(it.base.join("artisan2"), it.base.join("artisan")).unwrap();
    forward(&swap);
    assert!(fs::read_to_string(it.base.join("artisan")).unwrap().contains("/new/"));
    assert!(fs::read_to_string(it.kept.join("artisan")).unwrap().contains("artisan2"));
    assert!(it.base.join("gone/c.php").exists() && it.kept.join("gone").is_file());
}

#[test]
fn a_directory_that_holds_what_stays_is_not_replaced_by_a_file() {
    let it = host();
    fs::remove_dir_all(it.source.join("storage")).unwrap();
    files(&it.source, &["storage"]);
    let staying = Staying::new(&it.base, &excludes(&it), []).unwrap();
    let error = Swap::of_trees(&it.base, &it.source, &it.kept, &staying).unwrap_err().to_string();
    assert!(error.contains("live/storage") && error.contains("stays"), "{error}");
}

#[test]
fn what_stays_out_is_not_taken_from_an_archive_either() {
    let it = host();
    files(&it.source, &["vendor/new.php", "storage/logs/new.log", "bootstrap/cache/packages.php", "up/2.tif"]);
    let staying = Staying::new(&it.base, &excludes(&it), []).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    fs::File::open(&it.source).unwrap().set_modified(long_ago).unwrap();
    let left_out: BTreeSet<String> = Swap::leave_out(&it.source, &staying).unwrap().iter().map(ToString::to_string).collect();
    let expected = [".env", "bootstrap/cache/packages.php", "storage/logs", "up", "vendor"];
    assert_eq!(left_out, expected.map(str::to_owned).into());
    assert_eq!(fs::metadata(&it.source).unwrap().modified().unwrap(), long_ago);
    assert!(!it.source.join("vendor").exists() && it.source.join("storage/app/new.txt").exists());
}

#[test]
fn paths_come_back_from_their_text() {
    for path in [&b"a/b"[..], b"a\\b/\xff\x01/\xc3\xa9", b"with \n break"] {
        let below = Below::new(path).unwrap();
        assert_eq!(serde_json::from_str::<Below>(&serde_json::to_string(&below).unwrap()).unwrap(), below);
        assert_eq!(below.as_bytes(), path);
    }
    assert!(serde_json::from_str::<Below>("\"../x\"").is_err() && Below::new(b"/a").is_err());
}

#[test]
fn a_tree_of_directories_without_rights_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path(), &["t/a/b/c"]);
    fs::set_permissions(dir.path().join("t/a/b"), fs::Permissions::from_mode(0o000)).unwrap();
    remove_tree(&dir.path().join("t")).unwrap();
    assert!(!dir.path().join("t").exists());
    remove_tree(&dir.path().join("t")).unwrap();
    assert!(is_mount(Path::new("/proc")).unwrap() && !is_mount(Path::new("/usr/bin")).unwrap_or(true));
    assert!(!mounts_below(Path::new("/")).unwrap().is_empty());
}
