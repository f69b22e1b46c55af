//! The kind `restore`: what was changed since the backup is undone, all of it, and what was replaced is kept.

use crate::{
    load::everything,
    test_app::{Ran, TestApp, on_both_flavours},
};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, queue::history::JobRow, state::State};

/// An application whose jobs keep their leases while other tests' backups hold MySQL's global read lock.
pub(crate) async fn patient(flavour: Flavour) -> TestApp {
    let mut app = TestApp::new(flavour).await;
    app.set("BACKUP_LEASE", "30");
    app
}

/// Backs up the database and returns the archive's name.
pub(crate) async fn back_up(app: &TestApp) -> String {
    let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    app.completed(id).await.result.unwrap()["files"][0]["file_name"].as_str().unwrap().to_owned()
}

/// Changes everything that a restore must bring back.
pub(crate) async fn damage(app: &TestApp) {
    app.sql(
        "DELETE FROM note; DELETE FROM item WHERE id = 2; UPDATE item SET title = 'overwritten';
         ALTER TABLE item ADD COLUMN later INT NULL;
         CREATE TABLE newer (id INT PRIMARY KEY); INSERT INTO newer VALUES (1), (2);
         CREATE TRIGGER newer_before BEFORE INSERT ON newer FOR EACH ROW SET NEW.id = NEW.id + 1;
         DROP VIEW titled; CREATE VIEW titled AS SELECT id FROM item; CREATE VIEW newer_view AS SELECT * FROM newer;
         DROP TRIGGER item_before; CREATE TRIGGER item_after AFTER INSERT ON item FOR EACH ROW DELETE FROM newer WHERE id < 0;
         DROP FUNCTION twice; CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 3;
         DROP EVENT nightly; CREATE EVENT newer_event ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' DO DELETE FROM newer",
    )
    .await;
}

/// Restores by the command line and waits; returns what it said and the job.
pub(crate) async fn restore(app: &TestApp, args: &[&str]) -> (Ran, JobRow) {
    let ran = app.run_enqueue(&[&["restore"], args, &["--yes", "--wait"]].concat());
    let job: u64 = app.control_value("SELECT MAX(id) FROM jobs WHERE kind IN ('restore', 'restore_plan')").await.parse().unwrap();
    let job = app.show(job).await;
    (ran, job)
}

/// The schemas of ours on the server, but the server's identity.
pub(crate) fn made(app: &TestApp) -> Vec<String> {
    let prefix = format!("{}_bk_", app.name);
    let sql = format!(
        "SELECT schema_name FROM information_schema.schemata WHERE LEFT(schema_name, {}) = '{prefix}' AND schema_name <> '{prefix}meta' ORDER BY 1",
        prefix.len()
    );
    app.server.client(&sql).lines().map(str::to_owned).collect()
}

async fn everything_comes_back(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.sql(
        "CREATE TABLE egg (id INT PRIMARY KEY, hen INT); CREATE TABLE hen (id INT PRIMARY KEY, egg INT, FOREIGN KEY (egg) REFERENCES egg (id));
         INSERT INTO egg VALUES (1, 1); INSERT INTO hen VALUES (1, 1); ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen (id);
         CREATE VIEW a_view_on_views AS SELECT twice(id) AS two, title FROM titled;
         CREATE TRIGGER item_second BEFORE INSERT ON item FOR EACH ROW SET NEW.title = CONCAT(NEW.title, '.');
         CREATE TRIGGER hen_after AFTER DELETE ON hen FOR EACH ROW DELETE FROM note WHERE id < 0;
         CREATE TRIGGER egg_after AFTER DELETE ON egg FOR EACH ROW DELETE FROM note WHERE id < 0;
         CREATE EVENT asleep ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE DO DELETE FROM note WHERE id < 0;
         SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'; CREATE FUNCTION quoting(\"a b\" INT) RETURNS VARCHAR(20) DETERMINISTIC RETURN \"a b\" || 'x'",
    )
    .await;
    app.sql(
        "CREATE TABLE ahg_settings (id INT AUTO_INCREMENT PRIMARY KEY, setting_key VARCHAR(100) NOT NULL UNIQUE, setting_value TEXT, setting_group VARCHAR(50) NOT NULL);
         INSERT INTO ahg_settings VALUES (1, 'site_title', 'Archive', 'general'), (2, 'backup_retention_days', '30', 'backup')",
    )
    .await;
    app.worker();
    let before = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    damage(&app).await;
    app.sql(
        "UPDATE ahg_settings SET setting_value = CONCAT(setting_value, ' new');
         INSERT INTO ahg_settings VALUES (3, 'backup_max_backups', '7', 'backup'), (4, 'theme', 'dark', 'general')",
    )
    .await;
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{job:#?}");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let result = job.result.as_ref().unwrap();
    assert!(result["cut_over_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(result["moved_aside"], serde_json::json!(["newer"]));
    for word in ["cut-over took", "enqueue undo", "moved aside", "a backup of the restored database is enqueued"] {
        assert!(ran.out.contains(word), "`{word}` is not in {}", ran.out);
    }

    // All but the backup group of settings.
    let settings = app.server.client(&format!("SELECT setting_key, setting_value FROM {}.ahg_settings ORDER BY 1", app.schema()));
    assert_eq!(settings, "backup_max_backups\t7\nbackup_retention_days\t30 new\nsite_title\tArchive\n");
    // Its rows, and with them its next number, are others.
    let strip = |all: Vec<String>| all.into_iter().filter(|d| !d.contains("ahg_settings")).collect::<Vec<_>>();
    assert_eq!(strip(everything(&app, &app.schema()).await), strip(before));

    // What was replaced is kept, with its rows; the staging schema is gone; a backup follows.
    let undo = format!("{}_bk_undo_{}", app.name, job.id);
    assert_eq!(made(&app), std::slice::from_ref(&undo));
    let kept = app.server.client(&format!("SELECT COUNT(*) FROM {undo}.newer"));
    assert_eq!(kept.trim(), "2");
    let follow_up: u64 =
        app.control_value(&format!("SELECT MIN(id) FROM jobs WHERE kind = 'backup' AND id > {}", job.id)).await.parse().unwrap();
    app.completed(follow_up).await;
    assert_eq!(app.control_value("SELECT state FROM cut_overs").await, "done");
    // Triggers, views and routines work.
    app.sql("INSERT INTO item (title) VALUES ('  trimmed  ')").await;
    assert_eq!(
        app.server.client(&format!("SELECT title FROM {0}.titled WHERE title LIKE 'trimmed%'; SELECT {0}.twice(4)", app.schema())),
        "trimmed.\n8\n"
    );
    let shown = app.run_enqueue(&["show", &job.id.to_string()]);
    assert!(shown.out.contains("cut-over of") && shown.out.contains("done; what it replaced is kept until"), "{shown:?}");
}

async fn a_dropped_database_comes_back(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let before = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    app.server.client(&format!("DROP DATABASE {}", app.schema()));
    let (_, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{job:#?}");
    assert_eq!(everything(&app, &app.schema()).await, before);
    assert!(made(&app).is_empty(), "{:?}", made(&app));
}

async fn an_archive_by_its_path(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    // By its path, as well as by its name.
    let path = app.backups_dir().join(&archive);
    app.sql("DELETE FROM note").await;
    let (_, job) = restore(&app, &[path.to_str().unwrap()]).await;
    assert_eq!(job.state, State::Completed, "{job:#?}");
    assert_eq!(app.server.client(&format!("SELECT COUNT(*) FROM {}.note", app.schema())).trim(), "1");
}

async fn a_backups_number_serves_as_well(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    back_up(&app).await;
    app.sql("DELETE FROM note").await;
    let (ran, job) = restore(&app, &["1", "--components", "database"]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?}");
    assert_eq!(app.server.client(&format!("SELECT COUNT(*) FROM {}.note", app.schema())).trim(), "1");
}

async fn beside_the_live_database(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let backed_up = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    damage(&app).await;
    let damaged = everything(&app, &app.schema()).await;
    let beside = format!("{}_beside", app.name);
    for prepared in [false, true] {
        if prepared {
            app.server.client(&format!("DROP DATABASE {beside}; CREATE DATABASE {beside}"));
        }
        let (ran, job) = restore(&app, &[&archive, "--into", &beside]).await;
        assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
        assert_eq!(everything(&app, &beside).await, backed_up);
        assert_eq!(everything(&app, &app.schema()).await, damaged);
        assert!(made(&app).is_empty(), "{:?}", made(&app));
        assert!(job.result.unwrap()["undo"].is_null());
    }
    let (ran, _) = restore(&app, &[&archive, "--into", &beside]).await;
    assert!(ran.code == Some(2) && ran.out.contains("exists and holds"), "{ran:?}");
    // No chain has ended, so no backup is due.
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'backup'").await, "1");
}

async fn transient_rows_are_counted_and_cleared(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    app.sql(
        "CREATE TABLE jobs (id INT PRIMARY KEY); CREATE TABLE sessions (id INT PRIMARY KEY); CREATE TABLE cache (id INT PRIMARY KEY);
         INSERT INTO jobs VALUES (1), (2); INSERT INTO sessions VALUES (1)",
    )
    .await;
    let archive = back_up(&app).await;
    app.sql("DELETE FROM jobs; DELETE FROM sessions; INSERT INTO cache VALUES (7)").await;
    let plan = app.run_enqueue(&["restore", &archive, "--dry-run"]);
    assert!(
        plan.code == Some(0) && plan.out.contains("jobs (2 rows), sessions (1 rows)") && plan.out.contains("--clear-transient"),
        "{plan:?}"
    );
    let (_, job) = restore(&app, &[&archive, "--clear-transient"]).await;
    assert_eq!(job.state, State::Completed, "{job:#?}");
    let count = |table: &str| app.server.client(&format!("SELECT COUNT(*) FROM {}.{table}", app.schema())).trim().to_owned();
    assert_eq!(["jobs", "sessions", "cache", "item"].map(count), ["0", "0", "0", "2"]);
    assert_eq!(job.result.unwrap()["cleared"], serde_json::json!(["cache", "jobs", "sessions"]));
}

async fn unknown_definers_are_kept_and_named(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let user = format!("{}_d", app.name);
    app.server.client(&format!("CREATE USER {user}@localhost; GRANT ALL ON {}.* TO {user}@localhost", app.schema()));
    app.sql(&format!("CREATE DEFINER = {user}@localhost VIEW theirs AS SELECT id FROM item")).await;
    let archive = back_up(&app).await;
    let before = everything(&app, &app.schema()).await;
    app.server.client(&format!("DROP USER {user}@localhost"));
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!((ran.code, job.state), (Some(3), State::CompletedWithWarnings), "{ran:?}");
    assert!(ran.out.contains(&format!("{user}@localhost")) && ran.out.contains("CREATE USER"), "{ran:?}");
    app.server.client(&format!("CREATE USER {user}@localhost; GRANT ALL ON {}.* TO {user}@localhost", app.schema()));
    assert_eq!(everything(&app, &app.schema()).await, before, "{ran:?}");
}

/// The block of README.md after the comment that names this file, as it stands but for the archive's name.
async fn the_readmes_runbook_works_as_it_stands(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let backed_up = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    damage(&app).await;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let block = readme.split("<!-- tests/restore.rs").nth(1).expect("the comment in README.md");
    let block = block.split("```sh\n").nth(1).and_then(|b| b.split("```").next()).expect("a block after it");
    let lines: Vec<String> =
        block.lines().map(|line| if line.starts_with("ARCHIVE=") { format!("ARCHIVE={archive}") } else { line.to_owned() }).collect();
    let programs = app.program("enqueue").get_program().to_owned();
    let programs = std::path::Path::new(&programs).parent().unwrap().display().to_string();
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &format!("set -euo pipefail\n{}", lines.join("\n"))])
        .env_clear()
        .envs(&app.env)
        .env("PATH", format!("{programs}:/usr/bin:/bin"));
    if let Some(run) = std::env::var_os("HERATIO_TEST_RUN") {
        bash.env("HERATIO_TEST_RUN", run);
    }
    let ran = Ran::from(bash.output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for word in [archive.as_str(), "replaces schema", "the cut-over took", "restore"] {
        assert!(ran.out.contains(word), "`{word}` is not in {ran:?}");
    }
    assert_eq!(everything(&app, &app.schema()).await, backed_up);
}

/// What `mysqldump` writes, in the ways in which people call it.
async fn dumps_of_other_programs(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let backed_up = everything(&app, &app.schema()).await;
    let ways: [(&str, &[&str]); 4] = [
        ("plain.sql", &[]),
        ("heratio-x-20261124.sql.gz", &["--single-transaction", "--hex-blob"]),
        ("line-by-line.sql", &["--skip-extended-insert", "--complete-insert"]),
        ("named.sql.gz", &["--databases"]),
    ];
    for (name, options) in ways {
        let mut dump = app.server.tool("mysqldump");
        let dump = dump.args(["--routines", "--events", "--triggers"]).args(options).arg(app.schema()).output().unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let path = app.backups_dir().join(name);
        std::fs::write(&path, &dump.stdout).unwrap();
        if name.ends_with(".gz") {
            let plain = path.with_extension("");
            std::fs::rename(&path, &plain).unwrap();
            assert!(std::process::Command::new("gzip").arg(&plain).status().unwrap().success());
        }
    }
    let listed = app.run_enqueue(&["backups"]).out;
    for (name, _) in ways {
        assert!(listed.contains("foreign files") && listed.contains(name), "{listed}");
        damage(&app).await;
        let (ran, job) = restore(&app, &[name]).await;
        assert_eq!(job.state, State::Completed, "{name}: {ran:?} {job:#?}");
        assert!(ran.out.contains("foreign  "), "{ran:?}");
        assert_eq!(everything(&app, &app.schema()).await, backed_up, "{name}");
    }
    let files = app.files();
    assert!(files.iter().all(|f| !f.contains("imported")), "{files:?}");

    // What is not one is refused before anything is changed.
    let whole = std::fs::read(app.backups_dir().join("plain.sql")).unwrap();
    let warned = [b"mysqldump: [Warning] Using a password on the command line interface can be insecure.\n", &whole[..]].concat();
    for (bytes, words) in [(&whole[..whole.len() - 40], "incomplete"), (&warned, "tail -n +2"), (&b"hello"[..], "no dump of a database")] {
        std::fs::write(app.backups_dir().join("bad.sql"), bytes).unwrap();
        let (ran, job) = restore(&app, &["bad.sql"]).await;
        assert!(ran.code == Some(1) && job.kind == "restore_plan" && ran.out.contains(words), "`{words}`: {ran:?}");
    }
    assert_eq!(everything(&app, &app.schema()).await, backed_up);
}

/// The server keeps a trigger as it was written; loading it must not reach the schema that it names.
async fn triggers_that_name_their_schema(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    app.sql(&format!(
        "CREATE TRIGGER {0}.named AFTER DELETE ON {0}.item FOR EACH ROW DELETE FROM note WHERE item_id = OLD.id",
        app.schema()
    ))
    .await;
    let archive = back_up(&app).await;
    let triggers = || {
        let sql = format!(
            "SELECT trigger_name, event_object_table FROM information_schema.triggers WHERE trigger_schema = '{}' ORDER BY 1",
            app.schema()
        );
        app.server.client(&sql)
    };
    let before = triggers();
    app.server.client(&format!("DROP TRIGGER {}.named", app.schema()));
    let beside = format!("{}_beside", app.name);
    let (ran, job) = restore(&app, &[&archive, "--into", &beside]).await;
    assert!([State::Completed, State::CompletedWithWarnings].contains(&job.state), "{ran:?}");
    assert!(!triggers().contains("named"), "the live schema was touched: {}", triggers());
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{ran:?}");
    assert_eq!(triggers(), before);
}

/// A dump without routines and events says that the live ones will go.
async fn what_a_dump_lacks_is_said(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let dump = app.server.tool("mysqldump").arg(app.schema()).output().unwrap();
    std::fs::write(app.backups_dir().join("bare.sql"), &dump.stdout).unwrap();
    let plan = app.run_enqueue(&["restore", "bare.sql", "--dry-run"]);
    assert!(plan.code == Some(0) && plan.out.contains("--routines") && plan.out.contains("--events"), "{plan:?}");
}

on_both_flavours!(
    dumps_of_other_programs,
    triggers_that_name_their_schema,
    what_a_dump_lacks_is_said,
    the_readmes_runbook_works_as_it_stands,
    beside_the_live_database,
    transient_rows_are_counted_and_cleared,
    unknown_definers_are_kept_and_named,
    everything_comes_back,
    a_dropped_database_comes_back,
    an_archive_by_its_path,
    a_backups_number_serves_as_well,
);
