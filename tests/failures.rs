//! Failure is told, nothing is lost: each with a message that names the thing and the next step.

use crate::test_app::{OwnServer, TestApp, TestServer, dump_process, dump_waits, hold_dump, kill, on_both_flavours, wait_for};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, queue::history::JobRow, state::State};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

fn backup(components: &[Component]) -> Backup {
    Backup { components: components.to_vec(), label: None }
}

/// Runs a backup of these components that fails or has warnings, and returns it with its error text.
async fn fails(app: &mut TestApp, components: &[Component], state: State) -> (JobRow, String) {
    let id = app.enqueue(&backup(components)).await;
    app.worker();
    let job = app.wait(id).await;
    assert_eq!(job.state, state, "{job:#?}");
    let text = job.error.clone().unwrap_or_else(|| job.result.as_ref().map(ToString::to_string).unwrap_or_default());
    // No secret of any test is ever said.
    assert!(!format!("{job:?}").contains("hunter2"), "{job:#?}");
    (job, text)
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// Nothing is listed, and nothing is left in the backup directory.
async fn nothing_kept(app: &TestApp) {
    assert_eq!(app.control_value("SELECT COUNT(*) FROM archives WHERE state = 'complete'").await, "0");
    wait_for("leftovers to be swept", Duration::from_secs(10), || app.files().is_empty());
}

/// Another account for the application database, with these grants on it.
fn account(app: &mut TestApp, password: &str, grants: &[&str]) {
    let user = format!("{}_u", app.name);
    app.server.client(&format!("CREATE USER '{user}'@'localhost' IDENTIFIED BY '{password}'"));
    for grant in grants {
        app.server.client(&format!("GRANT {grant} TO '{user}'@'localhost'"));
    }
    let url = format!("mysql://{user}:{password}@localhost/{}?socket={}", app.schema(), app.server.socket.display());
    app.set("HERATIO_DATABASE_URL", url);
}

async fn a_wrong_password(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    account(&mut app, "right", &["SELECT ON *.*"]);
    let wrong = app.env["HERATIO_DATABASE_URL"].replace("right", "hunter2");
    app.set("HERATIO_DATABASE_URL", wrong);
    let user = format!("{}_u", app.name);
    let (job, text) = fails(&mut app, &[Component::Database], State::Failed).await;
    says(&text, &["application database", "password", &user, "Next:"]);
    assert_eq!(job.attempt, 1, "a wrong password is not tried again: {text}");
    nothing_kept(&app).await;
}

async fn a_server_that_is_down_at_first(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut app = TestApp::new(flavour).await;
    let (user, password) = ("dumper", "hunter2");
    own.0.client(&format!(
        "CREATE DATABASE heratio; CREATE TABLE heratio.t (id INT PRIMARY KEY); CREATE USER {user} IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO {user}"
    ));
    app.set("HERATIO_DATABASE_URL", format!("mysql://{user}:{password}@127.0.0.1:{}/heratio", own.0.port));
    jobs::migrate::migrate(&app.config()).await.unwrap();
    own.kill();
    app.worker();
    let id = app.enqueue(&backup(&[Component::Database])).await;
    let job = app.wait_until(id, "be tried again", |j| j.attempt >= 1 && j.error.is_some()).await;
    says(&job.error.unwrap(), &["application database", "127.0.0.1", &own.0.port.to_string(), "Next:"]);
    own.restart();
    app.completed(id).await;
}

async fn a_server_that_dies_in_mid_dump(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut app = TestApp::new(flavour).await;
    let on_own = TestApp::on(own.0.clone()).await;
    app.set("HERATIO_DATABASE_URL", on_own.env["HERATIO_DATABASE_URL"].clone());
    app.set("BACKUP_SCHEMA_PREFIX", on_own.env["BACKUP_SCHEMA_PREFIX"].clone());
    let held = hold_dump(&on_own).await;
    app.worker();
    let id = app.enqueue(&backup(&[Component::Database])).await;
    dump_waits(&on_own);
    own.kill();
    drop(held);
    let job = app.wait_until(id, "be tried again", |j| j.error.is_some()).await;
    says(&job.error.unwrap(), &["database"]);
    nothing_kept(&app).await;
    own.restart();
    app.completed(id).await;
}

async fn a_missing_dump_tool(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let empty = app.dir.join("no tools");
    std::fs::create_dir(&empty).unwrap();
    app.set("BACKUP_DUMPER", "mysqldump");
    app.set("BACKUP_TOOLS_DIR", empty.to_str().unwrap());
    app.set("PATH", "/nonexistent");
    let (job, text) = fails(&mut app, &[Component::Database], State::Failed).await;
    let tool = if flavour == Flavour::MySql { "mysqldump" } else { "mariadb-dump" };
    says(&text, &[tool, "Next:"]);
    assert_eq!(job.attempt, 1, "{text}");
    nothing_kept(&app).await;
}

async fn a_dump_tool_of_the_other_flavour(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let other = app.dir.join("tools");
    std::fs::create_dir(&other).unwrap();
    let (wanted, found) = match flavour {
        Flavour::MySql => ("mysqldump", "mariadb"),
        Flavour::MariaDb => ("mariadb-dump", "9.7"),
    };
    // As on Debian, where the package of MariaDB's client brings a `mysqldump` of its own.
    let theirs = match flavour {
        Flavour::MySql => PathBuf::from("/usr/bin/mariadb-dump"),
        Flavour::MariaDb => TestServer::shared(Flavour::MySql).bin.join("mysqldump"),
    };
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", theirs.display());
    std::fs::write(other.join(wanted), script).unwrap();
    std::fs::set_permissions(other.join(wanted), PermissionsExt::from_mode(0o755)).unwrap();
    app.set("BACKUP_DUMPER", "mysqldump");
    app.set("BACKUP_TOOLS_DIR", other.to_str().unwrap());
    // What the scripts need, and no dump tool of the right flavour.
    let path = app.dir.join("path");
    std::fs::create_dir(&path).unwrap();
    for program in ["sh", "bash", "dirname", "readlink", "realpath"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(program), path.join(program)).unwrap();
    }
    app.set("PATH", path.to_str().unwrap());
    let (_, text) = fails(&mut app, &[Component::Database], State::Failed).await;
    says(&text.to_lowercase(), &[wanted, found, "next:"]);
    nothing_kept(&app).await;
}

async fn a_dump_tool_that_is_killed(flavour: Flavour) {
    let mut app = TestApp::apart(flavour).await;
    app.set("BACKUP_DUMPER", "mysqldump");
    let held = hold_dump(&app).await;
    let worker = app.worker();
    let id = app.enqueue(&backup(&[Component::Database])).await;
    kill(dump_process(app.worker_mut(worker).pid()), 9);
    let job = app.wait_until(id, "be tried again", |j| j.error.is_some()).await;
    says(&job.error.unwrap(), &["dump", "killed by signal 9"]);
    nothing_kept(&app).await;
    held.let_go().await;
    assert_eq!(app.completed(id).await.attempt, 2);
}

async fn a_missing_privilege(flavour: Flavour) {
    for (missing, word) in [("TRIGGER, ", "TRIGGER"), ("EVENT, ", "EVENT"), ("SHOW VIEW, ", "SHOW VIEW")] {
        let mut app = TestApp::new(flavour).await;
        let on_schema = "SELECT, TRIGGER, EVENT, SHOW VIEW, LOCK TABLES ".replace(missing, "");
        let schema = app.schema();
        let server_wide = match flavour {
            Flavour::MariaDb => "RELOAD, BINLOG MONITOR, REPLICATION SLAVE ON *.*",
            Flavour::MySql => "RELOAD, REPLICATION CLIENT, SHOW_ROUTINE ON *.*",
        };
        account(&mut app, "hunter2", &[&format!("{on_schema} ON `{schema}`.*"), server_wide]);
        let (job, text) = fails(&mut app, &[Component::Database], State::Failed).await;
        says(&text, &["GRANT", word, &schema]);
        assert_eq!(job.attempt, 1, "{text}");
        nothing_kept(&app).await;
    }
}

async fn a_view_that_cannot_be_read(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.sql("CREATE TABLE gone (id INT); CREATE VIEW broken_view AS SELECT id FROM gone; DROP TABLE gone").await;
    let (_, text) = fails(&mut app, &[Component::Database], State::Failed).await;
    says(&text, &["broken_view", "Next:"]);
    nothing_kept(&app).await;
}

/// A file system of a few megabytes on the backup directory, while it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn on(dir: &Path) -> Self {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs"]).arg(dir).output().unwrap();
        assert!(mounted.status.success(), "mounting a small tmpfs needs root: {}", String::from_utf8_lossy(&mounted.stderr));
        Self(dir.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap().success());
    }
}

async fn a_full_disk(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let dir = app.backups_dir();
    let disk = SmallDisk::on(&dir);
    // Noise does not compress.
    let noise: Vec<u8> = Command::new("head").args(["-c", "8000000", "/dev/urandom"]).output().unwrap().stdout;
    std::fs::write(app.dir.join("uploads/noise.bin"), noise).unwrap();
    app.set("BACKUP_RETRY_DELAY", "0");
    let (_, text) = fails(&mut app, &[Component::Uploads], State::Failed).await;
    says(&text, &["uploads", "No space left", dir.to_str().unwrap(), "Next:", "free space"]);
    nothing_kept(&app).await;
    // The database still fits, so it is kept, and the failure is told.
    let id = app.enqueue(&backup(&[Component::Database, Component::Uploads])).await;
    let job = app.wait(id).await;
    assert_eq!(job.state, State::CompletedWithWarnings, "{job:#?}");
    says(&job.error.unwrap(), &["uploads", "No space left"]);
    wait_for("leftovers to be swept", Duration::from_secs(10), || app.files().len() == 1);
    // A full disk in the middle of the dump.
    std::fs::write(dir.join("filler"), vec![0u8; 3 << 20]).unwrap_err();
    let id = app.enqueue(&backup(&[Component::Database])).await;
    let job = app.wait(id).await;
    assert_eq!(job.state, State::Failed, "{job:#?}");
    says(&job.error.unwrap(), &["database", "No space left", "Next:"]);
    drop(disk);
    drop(app);
}

async fn a_file_that_cannot_be_read(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let secret = app.dir.join("uploads/r/one/secret.tif");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o000)).unwrap();
    // Root reads everything, so the worker is another user here.
    let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    for dir in [app.dir.parent().unwrap(), &app.dir] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o711)).unwrap();
    }
    std::os::unix::fs::chown(app.backups_dir(), Some(65534), Some(65534)).unwrap();
    let id = app.enqueue(&backup(&[Component::Uploads])).await;
    app.worker_as(&["setpriv"].iter().chain(&ids).copied().collect::<Vec<_>>());
    let job = app.wait(id).await;
    assert_eq!(job.state, State::CompletedWithWarnings, "{job:#?}");
    says(&job.result.unwrap()["warnings"].to_string(), &["secret.tif", "ermission denied"]);
    assert_eq!(app.files().len(), 1);
}

async fn a_missing_component_directory(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    std::fs::remove_dir_all(app.dir.join("uploads")).unwrap();
    let (job, text) = fails(&mut app, &[Component::Database, Component::Uploads], State::CompletedWithWarnings).await;
    says(&text, &["uploads directory not found", app.dir.join("uploads").to_str().unwrap(), "HERATIO_UPLOADS_PATH"]);
    assert_eq!(job.result.unwrap()["files"].as_array().unwrap().len(), 1);
    let waited = app.run_enqueue(&["show", &job.id.to_string(), "--wait"]);
    assert_eq!(waited.code, Some(3), "{waited:?}");
}

async fn a_backup_directory_inside_uploads(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let inside = app.dir.join("uploads/backups");
    std::fs::create_dir(&inside).unwrap();
    let link = app.dir.join("link");
    std::os::unix::fs::symlink(&inside, &link).unwrap();
    let link_text = link.to_str().unwrap().to_owned();
    for path in [inside.to_str().unwrap().to_owned(), link_text.clone(), format!("{}/root/../uploads", app.dir.display())] {
        app.set("HERATIO_BACKUPS_PATH", path);
        let id = app.enqueue(&backup(&[Component::Uploads])).await;
        let worker = app.worker();
        let job = app.wait(id).await;
        assert_eq!((job.state, job.attempt), (State::Failed, 1), "{job:#?}");
        says(&job.error.unwrap(), &[app.dir.join("uploads").to_str().unwrap(), "Next:"]);
        app.worker_mut(worker).kill();
    }
    // The setting counts before the environment.
    app.set("HERATIO_BACKUPS_PATH", app.backups_dir().to_str().unwrap());
    app.control_sql(&format!(
        "INSERT INTO ahg_settings (setting_key, setting_value, setting_group) VALUES ('backup_path', '{link_text}', 'backup')"
    ))
    .await;
    let (_, text) = fails(&mut app, &[Component::Uploads], State::Failed).await;
    says(&text, &[app.dir.join("uploads").to_str().unwrap()]);
    assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
}

async fn a_control_server_restarted_in_mid_job(flavour: Flavour) {
    let control = OwnServer::start(flavour);
    let mut app = TestApp::apart(flavour).await;
    let url = format!("mysql://root@localhost/heratio_backup?socket={}", control.0.socket.display());
    app.set("BACKUP_DATABASE_URL", url);
    app.set("BACKUP_LEASE", "20");
    jobs::migrate::migrate(&app.config()).await.unwrap();
    let ran = app.run_enqueue(&["backup", "--components", "database"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let held = hold_dump(&app).await;
    let worker = app.worker();
    dump_waits(&app);
    control.kill();
    std::thread::sleep(Duration::from_secs(1));
    control.restart();
    held.let_go().await;
    let followed = app.run_enqueue(&["show", ran.out.trim(), "--wait"]);
    assert_eq!(followed.code, Some(0), "{followed:?}\n{}", app.worker_mut(worker).log());
    let attempts = control.0.client(&format!("SELECT COUNT(*) FROM heratio_backup.job_attempts WHERE job_id = {}", ran.out.trim()));
    assert_eq!(attempts.trim(), "1", "the job went on while MySQL was away");
    drop(app);
}

on_both_flavours!(
    a_wrong_password,
    a_server_that_is_down_at_first,
    a_server_that_dies_in_mid_dump,
    a_missing_dump_tool,
    a_dump_tool_of_the_other_flavour,
    a_dump_tool_that_is_killed,
    a_missing_privilege,
    a_view_that_cannot_be_read,
    a_full_disk,
    a_file_that_cannot_be_read,
    a_missing_component_directory,
    a_backup_directory_inside_uploads,
    a_control_server_restarted_in_mid_job,
);
