//! Restoring files: what was changed since the backup is undone, what stays stays, and nothing is ever half of each.

use crate::{
    restore::{damage, patient, restore},
    test_app::{Mount, Ran, TestApp, on_both_flavours},
};
use engine::server::Flavour;
use futures::{StreamExt, stream};
use jobs::{
    backup::Backup, component::Component, failpoint, queue::history::JobRow, restore::Restore, restore_plan::RestorePlan, state::State,
    test_kinds::TestNothing,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

/// Everything in a tree but our own directories: owner, mode, time, and content or target.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let (mut all, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let what = if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|e| e.unwrap().path());
            waiting.extend(entries.filter(|p| !p.file_name().unwrap().to_str().unwrap().starts_with(".heratio-backup-")));
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            fs::read_to_string(&path).unwrap()
        };
        let about = format!("{:o} {}:{} {}.{} {what}", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        all.insert(path.strip_prefix(root).unwrap().display().to_string(), about);
    }
    all
}

/// Makes files, with directories above them, each with its own path as content.
fn files(root: &Path, paths: &[&str]) {
    for path in paths {
        let full = root.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(&full, path).unwrap();
    }
}

fn uploads(app: &TestApp) -> PathBuf {
    app.dir.join("uploads")
}

fn root(app: &TestApp) -> PathBuf {
    app.dir.join("root")
}

/// Files with all that a restore has to bring back.
fn furnish(app: &TestApp) {
    files(&uploads(app), &["r/x/y.tif", "r/x/big.bin", "r/z.txt"]);
    fs::write(uploads(app).join("r/x/big.bin"), "0123456789abcdef".repeat(150_000)).unwrap();
    fs::hard_link(uploads(app).join("r/z.txt"), uploads(app).join("r/zz.txt")).unwrap();
    symlink("x/y.tif", uploads(app).join("r/link")).unwrap();
    let y = uploads(app).join("r/x/y.tif");
    std::os::unix::fs::chown(&y, Some(33), Some(33)).unwrap();
    fs::set_permissions(&y, fs::Permissions::from_mode(0o640)).unwrap();
    fs::File::options().write(true).open(&y).unwrap().set_modified(UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789)).unwrap();
    files(
        &root(app),
        &[
            "artisan",
            "app/b.php",
            "config/app.php",
            "storage/app/kept.txt",
            "storage/logs/laravel.log",
            "storage/framework/cache/c",
            "bootstrap/app.php",
            "bootstrap/cache/services.php",
            "bootstrap/cache/.gitignore",
            "public/index.php",
            "public/build/manifest.json",
            "vendor/autoload.php",
            ".git/HEAD",
            ".env",
        ],
    );
    symlink("../storage/app", root(app).join("public/storage")).unwrap();
}

/// Changes what [`furnish`] made, and what stays through a restore of the framework.
fn change(app: &TestApp) {
    fs::write(uploads(app).join("r/x/y.tif"), "overwritten").unwrap();
    fs::remove_file(uploads(app).join("r/link")).unwrap();
    files(&uploads(app), &["r/later/new.txt", "top.txt"]);
    fs::write(root(app).join("artisan"), "broken").unwrap();
    fs::remove_dir_all(root(app).join("config")).unwrap();
    fs::remove_file(root(app).join("public/storage")).unwrap();
    files(
        &root(app),
        &[
            "malware.php",
            "storage/app/new.txt",
            "storage/logs/later.log",
            "packages/two/x.php",
            "bootstrap/cache/packages.php",
            "vendor/later.php",
        ],
    );
    fs::write(root(app).join(".env"), "APP_KEY=later").unwrap();
}

async fn back_up(app: &TestApp, components: &[Component]) -> Vec<String> {
    let id = app.enqueue(&Backup { components: components.to_vec(), label: None }).await;
    let job = app.completed(id).await;
    job.result.unwrap()["files"].as_array().unwrap().iter().map(|f| f["file_name"].as_str().unwrap().to_owned()).collect()
}

/// Our working directories on this test's disk.
fn works(app: &TestApp) -> Vec<String> {
    let mut found = Vec::new();
    for directory in [app.dir.clone(), root(app), uploads(app)] {
        let names = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        found.extend(names.filter(|n| n.starts_with(".heratio-backup-")));
    }
    found.sort();
    found
}

fn undo(app: &TestApp, job: u64) -> (Ran, u64) {
    let ran = app.run_enqueue(&["undo", &job.to_string(), "--yes", "--wait"]);
    let id = ran.out.split("job ").nth(1).and_then(|t| t.split(' ').next()).and_then(|n| n.parse().ok()).unwrap_or(0);
    (ran, id)
}

/// Leaves out what a later comparison cannot hold equal: the times of directories that others write to.
fn without(tree: BTreeMap<String, String>, names: &[&str]) -> BTreeMap<String, String> {
    tree.into_iter().filter(|(path, _)| !names.iter().any(|n| path == n || path.starts_with(&format!("{n}/")))).collect()
}

async fn uploads_come_back_and_go_again(flavour: Flavour) {
    let mut app = patient(flavour).await;
    // What nobody needs is removed at each quarter of it.
    app.set("BACKUP_LEASE", "8");
    furnish(&app);
    app.worker();
    let before = tree(&uploads(&app));
    let archive = back_up(&app, &[Component::Uploads]).await.remove(0);
    change(&app);
    let changed = tree(&uploads(&app));

    let plan = app.run_enqueue(&["restore", &archive, "--dry-run"]);
    assert_eq!(plan.code, Some(0), "{plan:?}");
    for words in [&archive, "5 files", "by one exchange", "kept for 24 hours", "needed in", "free", &uploads(&app).display().to_string()] {
        assert!(plan.out.contains(words), "`{words}` is not in {plan:?}");
    }
    assert_eq!(tree(&uploads(&app)), changed);
    assert!(works(&app).is_empty());
    // Nobody types anything; the archive's name would be it.
    let unasked = app.run_enqueue(&["restore", &archive]);
    assert!(unasked.code == Some(2) && unasked.err.contains(&format!("type `{archive}`")), "{unasked:?}");

    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?} {job:#?}");
    assert!(ran.out.contains("5 files restored") && ran.out.contains(&format!("enqueue undo {}", job.id)), "{ran:?}");
    assert_eq!(tree(&uploads(&app)), before);
    assert_eq!(works(&app), [format!(".heratio-backup-{}-uploads", job.id)]);
    assert_eq!(job.result.unwrap()["components"], serde_json::json!({ "uploads": "restored" }));
    let shown = app.run_enqueue(&["show", &job.id.to_string()]).out;
    assert!(shown.contains("uploads in") && shown.contains("is kept in") && shown.contains("enqueue undo"), "{shown}");
    assert!(!shown.contains("database"), "{shown}");
    // No chain has ended, so no backup of the database is due.
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'backup'").await, "1");
    // What is kept is in no backup.
    let listed = app.run_enqueue(&["backups"]).out;
    assert!(listed.contains("undo points") && listed.contains(&format!("enqueue undo {}", job.id)), "{listed}");

    let (undone, undo_job) = undo(&app, job.id);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(tree(&uploads(&app)), changed);
    let again = app.run_enqueue(&["undo", &job.id.to_string(), "--yes"]);
    assert!(again.code == Some(2) && again.err.contains("undone already"), "{again:?}");
    let (redone, _) = undo(&app, undo_job);
    assert_eq!(redone.code, Some(0), "{redone:?}");
    assert_eq!(tree(&uploads(&app)), before);
    // Of three only the last holds something.
    app.until("used directories to go", || works(&app).len() == 1).await;
    app.control_sql("UPDATE tree_swaps SET undo_until = UTC_TIMESTAMP(6)").await;
    app.until("the expired directory to go", || works(&app).is_empty()).await;
    assert_eq!(app.control_value("SELECT COUNT(*) FROM tree_swaps WHERE work_gone").await, "3");
}

async fn the_framework_keeps_what_no_backup_has(flavour: Flavour) {
    let mut app = patient(flavour).await;
    furnish(&app);
    app.worker();
    // As Heratio's installer has it: the uploads inside.
    assert!(Command::new("cp").arg("-a").arg(uploads(&app)).arg(root(&app)).status().unwrap().success());
    app.set("HERATIO_UPLOADS_PATH", root(&app).join("uploads").display().to_string());
    app.worker_mut(0).kill();
    app.worker();
    let before = tree(&root(&app));
    let archive = back_up(&app, &[Component::Framework]).await.remove(0);
    change(&app);
    files(&root(&app), &["uploads/later.tif"]);
    let changed = tree(&root(&app));
    let stays = [
        "storage/logs",
        "storage/framework/cache",
        "bootstrap/cache/services.php",
        "bootstrap/cache/packages.php",
        "public/build",
        "vendor",
        ".git",
        "packages",
        ".env",
        "uploads",
    ];
    let kept = |tree: &BTreeMap<String, String>| {
        tree.iter()
            .filter(|(p, _)| stays.iter().any(|s| *p == s || p.starts_with(&format!("{s}/"))))
            .map(|(p, a)| (p.clone(), a.clone()))
            .collect::<Vec<_>>()
    };

    let plan = app.run_enqueue(&["restore", &archive, "--dry-run"]);
    assert!(
        plan.code == Some(0) && plan.out.contains("entry by entry") && plan.out.contains(".env") && plan.out.contains("uploads"),
        "{plan:?}"
    );
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?} {job:#?}");
    assert!(ran.out.contains("stays as it is: .env"), "{ran:?}");
    let now = tree(&root(&app));
    assert_eq!(kept(&now), kept(&changed));
    assert_eq!(without(now.clone(), &stays), without(before.clone(), &stays));
    let (undone, _) = undo(&app, job.id);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(tree(&root(&app)), changed);

    let (ran, job) = restore(&app, &[&archive, "--with-env"]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert_eq!(fs::read_to_string(root(&app).join(".env")).unwrap(), ".env");
    let (undone, _) = undo(&app, job.id);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(tree(&root(&app)), changed);
}

async fn one_file_comes_back_through_the_index(flavour: Flavour) {
    let mut app = patient(flavour).await;
    furnish(&app);
    app.worker();
    let before = tree(&uploads(&app));
    let archive = back_up(&app, &[Component::Uploads]).await.remove(0);
    change(&app);
    let changed = tree(&uploads(&app));
    let (ran, job) = restore(&app, &[&archive, "--path", "uploads/r/x/y.tif"]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?} {job:#?}");
    let now = tree(&uploads(&app));
    assert_eq!(now["r/x/y.tif"], before["r/x/y.tif"]);
    assert_eq!(without(now, &["r/x/y.tif", "r/x"]), without(changed.clone(), &["r/x/y.tif", "r/x"]));
    let (undone, _) = undo(&app, job.id);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(tree(&uploads(&app))["r/x/y.tif"], changed["r/x/y.tif"]);

    // By the backup's number; a second name of a file; with its directory gone.
    fs::remove_dir_all(uploads(&app).join("r")).unwrap();
    for path in ["uploads/r/zz.txt", "uploads/r/x/big.bin"] {
        let (ran, job) = restore(&app, &["1", "--path", path]).await;
        assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
        let below = path.strip_prefix("uploads/").unwrap();
        assert_eq!(tree(&uploads(&app))[below], before[below], "{path}");
    }
    for (path, words) in [
        ("uploads/r/x/y.tiff", "nearest: uploads/r/x/"),
        ("uploads/elsewhere/z.txt", "nearest: uploads/r/z.txt"),
        ("uploads/r/x", "nearest: uploads/r/x/"),
        ("uploads/../root/app/a.php", "`..`"),
    ] {
        let (ran, _) = restore(&app, &[&archive, "--path", path]).await;
        assert!(ran.code == Some(2) && ran.out.contains(words), "{path}: `{words}` is not in {ran:?}");
    }
    let (ran, _) = restore(&app, &["1", "--path", "r/x/y.tif"]).await;
    assert!(ran.code == Some(2) && ran.err.contains("--components"), "{ran:?}");
}

async fn what_could_write_elsewhere_is_refused_by_name(flavour: Flavour) {
    let mut app = patient(flavour).await;
    furnish(&app);
    app.worker();
    let before = tree(&app.dir.join("uploads"));
    let source = app.dir.join("bad");
    files(&source, &["uploads/ok.txt", "outside.txt"]);
    symlink("/etc/passwd", source.join("uploads/absolute")).unwrap();
    symlink("../../x", source.join("uploads/climbing")).unwrap();
    assert!(Command::new("mknod").arg(source.join("uploads/device")).args(["c", "1", "3"]).status().unwrap().success());
    let tar = |name: &str, args: &[&str]| {
        let made = Command::new("tar").current_dir(&source).arg("-czPf").arg(app.backups_dir().join(name)).args(args).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    let absolute = source.join("outside.txt").display().to_string();
    for (args, words) in [
        (vec!["uploads/ok.txt", absolute.as_str()], "has an absolute path"),
        (vec!["--transform", "s,outside,uploads/../../outside,", "uploads/ok.txt", "outside.txt"], "has `..` in its path"),
        (vec!["uploads/ok.txt", "uploads/absolute"], "is a link to `/etc/passwd`, which leads out"),
        (vec!["uploads/ok.txt", "uploads/climbing"], "is a link to `../../x`, which leads out"),
        (vec!["uploads/ok.txt", "uploads/device"], "is a device"),
    ] {
        tar("uploads_bad.tar.gz", &args);
        let (ran, job) = restore(&app, &["uploads_bad.tar.gz"]).await;
        assert!(ran.code == Some(2) && job.kind == "restore_plan", "{ran:?}");
        assert!(ran.out.contains(words) && ran.out.contains("nothing was written"), "`{words}` is not in {ran:?}");
        assert!(works(&app).is_empty());
    }
    assert_eq!(tree(&uploads(&app)), before);
}

/// Archives as Heratio's own scripts make them.
async fn heratios_older_archives(flavour: Flavour) {
    let mut app = patient(flavour).await;
    furnish(&app);
    app.worker();
    let (before, packages) = (tree(&uploads(&app)), tree(&root(&app).join("packages")));
    for (name, directory, top) in
        [("uploads_2025-01-31_020000.tar.gz", app.dir.clone(), "uploads"), ("plugins_2025-01-31_020000.tar.gz", root(&app), "packages")]
    {
        let made = Command::new("tar").args(["-czf"]).arg(app.backups_dir().join(name)).arg("-C").arg(directory).arg(top).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    change(&app);
    let listed = app.run_enqueue(&["backups"]).out;
    assert!(listed.contains("foreign files") && listed.contains("plugins_2025-01-31_020000.tar.gz"), "{listed}");
    for name in ["uploads_2025-01-31_020000.tar.gz", "plugins_2025-01-31_020000.tar.gz"] {
        let (ran, job) = restore(&app, &[name]).await;
        assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
        assert!(ran.out.contains("foreign  "), "{ran:?}");
    }
    // GNU tar's own format has whole seconds.
    let seconds = |tree: BTreeMap<String, String>| -> Vec<String> {
        tree.into_iter()
            .map(|(p, a)| {
                let mut w: Vec<&str> = a.splitn(4, ' ').collect();
                w[2] = w[2].split('.').next().unwrap();
                format!("{p} {}", w.join(" "))
            })
            .collect()
    };
    assert_eq!(seconds(tree(&uploads(&app))), seconds(before.clone()));
    assert_eq!(seconds(tree(&root(&app).join("packages"))), seconds(packages));
    fs::remove_file(uploads(&app).join("r/z.txt")).unwrap();
    let (ran, job) = restore(&app, &["uploads_2025-01-31_020000.tar.gz", "--path", "uploads/r/z.txt"]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert!(uploads(&app).join("r/z.txt").is_file());

    for (args, words) in [
        (vec!["uploads_2025-01-31_020000.tar.gz", "--components", "packages"], "an archive of uploads, not of packages"),
        (vec!["uploads_2025-01-31_020000.tar.gz", "--into", "x"], "--into is about the database"),
        (vec!["uploads_2025-01-31_020000.tar.gz", "--with-env"], "--with-env is about the framework"),
    ] {
        let (ran, job) = restore(&app, &args).await;
        assert!([Some(1), Some(2)].contains(&ran.code) && job.kind == "restore_plan" && ran.out.contains(words), "{args:?}: {ran:?}");
    }
}

/// A whole backup is one job with one result, and one undo.
async fn all_components_at_once(flavour: Flavour) {
    let mut app = patient(flavour).await;
    furnish(&app);
    app.worker();
    let database = crate::load::everything(&app, &app.schema()).await;
    let (before, packages) = (tree(&uploads(&app)), tree(&root(&app).join("packages")));
    back_up(&app, &Component::ALL).await;
    damage(&app).await;
    change(&app);
    let damaged = crate::load::everything(&app, &app.schema()).await;
    // The time of the directory in which packages change places is another's.
    let trees = |app: &TestApp| (tree(&uploads(app)), without(tree(&root(app)), &[""]));
    let changed = trees(&app);
    let (ran, job) = restore(&app, &["1"]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?} {job:#?}");
    let expected = serde_json::json!({ "database": "restored", "uploads": "restored", "packages": "restored", "framework": "restored" });
    assert_eq!(job.result.as_ref().unwrap()["components"], expected);
    for words in ["the cut-over took", "uploads in", "packages in", "framework in"] {
        assert!(ran.out.contains(words), "`{words}` is not in {ran:?}");
    }
    assert_eq!(crate::load::everything(&app, &app.schema()).await, database);
    assert_eq!(tree(&uploads(&app)), before);
    assert_eq!(tree(&root(&app).join("packages")), packages);
    assert_eq!(fs::read_to_string(root(&app).join("artisan")).unwrap(), "artisan");
    let resources = format!("SELECT JSON_LENGTH(JSON_EXTRACT(payload, '$.components')) FROM jobs WHERE id = {}", job.id);
    assert_eq!(app.control_value(&resources).await, "4");

    let (undone, _) = undo(&app, job.id);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(crate::load::everything(&app, &app.schema()).await, damaged);
    assert_eq!(trees(&app), changed);
    // Only some of it.
    let (ran, job) = restore(&app, &["1", "--components", "uploads,packages"]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert_eq!(crate::load::everything(&app, &app.schema()).await, damaged);
    assert_eq!(tree(&uploads(&app)), before);
}

async fn a_mount_point_is_replaced_entry_by_entry_and_a_full_one_refused(flavour: Flavour) {
    let mut app = patient(flavour).await;
    // What nobody needs is removed at each quarter of it.
    app.set("BACKUP_LEASE", "8");
    let _mount = Mount::tmpfs(&uploads(&app), "12m");
    files(&uploads(&app), &["r/one/a.txt"]);
    furnish(&app);
    app.worker();
    let before = tree(&uploads(&app));
    let archive = back_up(&app, &[Component::Uploads]).await.remove(0);
    change(&app);
    let changed = tree(&uploads(&app));
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert!(ran.out.contains("entry by entry"), "{ran:?}");
    let ours = format!(".heratio-backup-{}-uploads", job.id);
    let now = without(tree(&uploads(&app)), &[&ours]);
    assert_eq!(now, before);
    // What is kept is in no backup.
    let second = back_up(&app, &[Component::Uploads]).await.remove(0);
    let listed = Command::new("tar").arg("-tzf").arg(app.backups_dir().join(second)).output().unwrap();
    assert!(!String::from_utf8(listed.stdout).unwrap().contains("heratio-backup"));
    let (undone, _) = undo(&app, job.id);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    app.control_sql("UPDATE tree_swaps SET undo_until = UTC_TIMESTAMP(6)").await;
    app.until("expired directories to go", || works(&app).is_empty()).await;
    assert_eq!(without(tree(&uploads(&app)), &[""]), without(changed.clone(), &[""]));

    // Room for what is there, and not for as much again.
    fs::write(uploads(&app).join("filler"), vec![b'x'; 8 << 20]).unwrap();
    let (ran, job) = restore(&app, &[&archive]).await;
    assert!(ran.code == Some(2) && job.kind == "restore_plan", "{ran:?}");
    for words in ["not enough space in", "are needed", "are free", "free space there"] {
        assert!(ran.out.contains(words), "`{words}` is not in {ran:?}");
    }
    assert!(works(&app).is_empty());
    fs::remove_file(uploads(&app).join("filler")).unwrap();

    // Something mounted inside cannot change places.
    let inner = Mount::tmpfs(&uploads(&app).join("r/x"), "1m");
    let (ran, _) = restore(&app, &[&archive]).await;
    assert!(ran.code == Some(2) && ran.out.contains("something is mounted at") && ran.out.contains("r/x"), "{ran:?}");
    drop(inner);
}

/// A link to the real directory is followed, and stays.
async fn a_link_as_the_live_directory(flavour: Flavour) {
    let mut app = patient(flavour).await;
    furnish(&app);
    let real = app.dir.join("volume/data");
    fs::create_dir(app.dir.join("volume")).unwrap();
    fs::rename(uploads(&app), &real).unwrap();
    symlink(&real, uploads(&app)).unwrap();
    app.worker();
    let before = tree(&real);
    let archive = back_up(&app, &[Component::Uploads]).await.remove(0);
    change(&app);
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert!(ran.out.contains("volume/data"), "{ran:?}");
    assert_eq!(tree(&real), before);
    assert!(fs::symlink_metadata(uploads(&app)).unwrap().is_symlink());
    // One that leads nowhere is refused.
    fs::remove_dir_all(&real).unwrap();
    let (ran, _) = restore(&app, &[&archive]).await;
    assert!(ran.code == Some(1) && ran.out.contains("is a link to a directory that does not exist"), "{ran:?}");
    // One that is gone is made.
    fs::remove_file(uploads(&app)).unwrap();
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert_eq!(without(tree(&uploads(&app)), &["nothing"]), before);
}

/// Changed trees, and the plan to restore both; no worker runs.
struct Case {
    app: TestApp,
    before: BTreeMap<String, String>,
    changed: (BTreeMap<String, String>, BTreeMap<String, String>),
    apply: Restore,
}

impl Case {
    async fn new(flavour: Flavour) -> Self {
        let mut app = patient(flavour).await;
        app.set("BACKUP_LEASE", "6");
        furnish(&app);
        let worker = app.worker();
        let before = tree(&uploads(&app));
        back_up(&app, &[Component::Uploads, Component::Framework]).await;
        change(&app);
        let changed = (tree(&uploads(&app)), tree(&root(&app)));
        let request = RestorePlan { archive: "1".into(), ..Default::default() };
        let id = app.enqueue(&request).await;
        let plan = app.completed(id).await;
        let evidence = plan.result.unwrap()["evidence"].as_str().unwrap().to_owned();
        let request = RestorePlan { components: vec![Component::Uploads, Component::Framework], ..request };
        // The next worker is to meet its failpoint in the restore, not in what the backup has enqueued.
        let left = format!("SELECT COUNT(*) FROM {}.jobs WHERE state IN ('available', 'running')", app.control());
        app.until("the other jobs to end", || app.server.client(&left).trim() == "0").await;
        app.worker_mut(worker).kill();
        Self { app, before, changed, apply: Restore::of(id, &evidence, request) }
    }

    /// Both trees are wholly the old or wholly the new ones. Returns whether the new.
    fn is_new(&self, case: &str) -> bool {
        let now = (tree(&uploads(&self.app)), tree(&root(&self.app)));
        if now == self.changed {
            return false;
        }
        assert_eq!(now.0, self.before, "{case}");
        for (path, content) in [
            ("artisan", "artisan"),
            ("config/app.php", "config/app.php"),
            (".env", "APP_KEY=later"),
            ("storage/logs/later.log", "storage/logs/later.log"),
        ] {
            assert_eq!(fs::read_to_string(root(&self.app).join(path)).unwrap(), content, "{case}");
        }
        for gone in ["malware.php", "storage/app/new.txt"] {
            assert!(!root(&self.app).join(gone).exists(), "{case}: {gone}");
        }
        true
    }

    async fn settled(&self, id: u64) -> JobRow {
        self.app.wait(id).await;
        let open = format!("SELECT COUNT(*) FROM {}.tree_swaps WHERE state = 'open'", self.app.control());
        self.app.until("what was open to be ended", || self.app.server.client(&open).trim() == "0").await;
        self.app.show(id).await
    }
}

async fn a_worker_is_killed_at_each_step(flavour: Flavour) {
    let swap = failpoint::FILES.iter().position(|p| *p == "files_swap").unwrap();
    let places: Vec<(&str, bool)> = failpoint::FILES.into_iter().enumerate().map(|(at, p)| (p, at >= swap)).collect();
    let places = places
        .into_iter()
        .chain([failpoint::AFTER_WORK, failpoint::IN_FINAL_TRANSACTION, failpoint::AFTER_FINAL_TRANSACTION].map(|p| (p, true)));
    let run = |(point, new): (&'static str, bool)| {
        Box::pin(async move {
            let case = format!("kill at {point}, {flavour}");
            let mut it = Case::new(flavour).await;
            let id = it.app.enqueue(&it.apply).await;
            let hit = it.app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=kill"))], &[]);
            let pid = it.app.worker_mut(hit).pid();
            let dead = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z"));
            it.app.until(&format!("{case}: the worker to die"), dead).await;
            it.app.worker();
            let job = it.settled(id).await;
            let expected = if point == failpoint::AFTER_FINAL_TRANSACTION { State::Completed } else { State::Failed };
            assert_eq!(job.state, expected, "{case}: {job:#?}");
            assert_eq!(it.is_new(&case), new, "{case}: {job:#?}");
            let shown = it.app.run_enqueue(&["show", &id.to_string()]).out;
            if new {
                assert_eq!(works(&it.app).len(), 2, "{case}");
                assert!(shown.contains("puts it back"), "{case}: {shown}");
                let (undone, _) = undo(&it.app, id);
                assert_eq!(undone.code, Some(0), "{case}: {undone:?}");
                assert!(!it.is_new(&case), "{case}");
            } else {
                assert!(works(&it.app).is_empty(), "{case}: {:?}", works(&it.app));
                assert!(shown.contains("as it was before") || shown.contains("was not touched"), "{case}: {shown}");
            }
        })
    };
    stream::iter(places.map(run)).for_each_concurrent(4, |case| case).await;
}

async fn random_kills_leave_the_old_or_the_new(flavour: Flavour) {
    let kills = if std::env::var_os("HERATIO_TEST_LONG").is_some() { 100 } else { 2 };
    let mut random = std::process::id() as usize;
    println!("{kills} kills, seed {random}");
    let (mut old, mut new) = (0, 0);
    for number in 0..kills {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut it = Case::new(flavour).await;
        let id = it.app.enqueue(&it.apply).await;
        let worker = it.app.worker();
        it.app.wait_until(id, "run", |j| j.state != State::Available).await;
        tokio::time::sleep(Duration::from_millis((random >> 33) as u64 % 250)).await;
        it.app.worker_mut(worker).kill();
        it.app.worker();
        it.settled(id).await;
        if it.is_new(&format!("random kill {number}, {flavour}")) { new += 1 } else { old += 1 }
    }
    println!("{kills} kills: {old} left the old trees, {new} the new ones");
}

/// Who looks, sees the old or the new, whatever else there is in between.
async fn readers_see_old_or_new_files_at_every_instant(flavour: Flavour) {
    let mut it = Case::new(flavour).await;
    let (stop, path) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), uploads(&it.app).join("r/x/y.tif"));
    let reader = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut seen: Vec<String> = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let now = fs::read_to_string(&path).expect("it is there at every instant");
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
            seen
        })
    };
    it.app.worker();
    let id = it.app.enqueue(&it.apply).await;
    it.app.completed(id).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(reader.join().unwrap(), ["overwritten", "r/x/y.tif"]);
}

/// What somebody still works with, nobody else touches; and nobody starts a job on it.
async fn a_held_directory_is_left_to_its_holder(flavour: Flavour) {
    let mut it = Case::new(flavour).await;
    let id = it.app.enqueue(&it.apply).await;
    let doomed = it.app.worker_with(&[("HERATIO_FAILPOINT", "files_swapping=kill")], &[]);
    it.app.worker_mut(doomed).wait();
    // As a worker would that is not quite dead.
    let holders: Vec<fs::File> = ["uploads", "framework"]
        .map(|component| it.app.dir.join(format!(".heratio-backup-{id}-{component}/lock")))
        .iter()
        .map(|lock| {
            let file = fs::File::options().write(true).open(lock).unwrap();
            file.try_lock().unwrap();
            file
        })
        .collect();
    it.app.worker();
    it.app.wait(id).await;
    let waiting = it.app.enqueue(&TestNothing { resources: vec![Component::Uploads], ..Default::default() }).await;
    let other = it.app.enqueue(&TestNothing { resources: vec![Component::Packages], ..Default::default() }).await;
    it.app.completed(other).await;
    assert_eq!(it.app.show(waiting).await.state, State::Available);
    let shown = it.app.run_enqueue(&["show", &waiting.to_string()]).out;
    assert!(shown.contains(&format!("job {id}")), "{shown}");
    assert_eq!(it.app.control_value("SELECT COUNT(*) FROM tree_swaps WHERE state = 'open'").await, "2");
    let shown = it.app.run_enqueue(&["show", &id.to_string()]).out;
    assert!(shown.contains("interrupted at step `swap`") && shown.contains("Next:"), "{shown}");
    drop(holders);
    it.settled(id).await;
    assert!(it.is_new("a held directory"));
    it.app.completed(waiting).await;
}

on_both_flavours!(
    uploads_come_back_and_go_again,
    the_framework_keeps_what_no_backup_has,
    one_file_comes_back_through_the_index,
    what_could_write_elsewhere_is_refused_by_name,
    heratios_older_archives,
    all_components_at_once,
    a_mount_point_is_replaced_entry_by_entry_and_a_full_one_refused,
    a_link_as_the_live_directory,
    a_worker_is_killed_at_each_step,
    random_kills_leave_the_old_or_the_new,
    readers_see_old_or_new_files_at_every_instant,
    a_held_directory_is_left_to_its_holder,
);
