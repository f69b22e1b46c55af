//! The kind `restore`: what was changed since the backup is undone, all of it, and what was replaced is kept.

use crate::{
    load::everything,
    test_app::{Ran, TestApp, on_both_flavours},
};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, queue::history::JobRow, state::State};

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
    let mut app = TestApp::new(flavour).await;
    crate::load::fill(&app).await;
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
    let damaged = everything(&app, &app.schema()).await;
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
    let without_settings = |all: Vec<String>| all.into_iter().filter(|d| !d.starts_with("ahg_settings ")).collect::<Vec<_>>();
    let strip = |all: Vec<String>| {
        let all: Vec<String> = without_settings(all);
        all.into_iter().map(|d| if d.contains("TABLE `ahg_settings`") { "settings".into() } else { d }).collect::<Vec<_>>()
    };
    assert_eq!(strip(everything(&app, &app.schema()).await), strip(before));

    // What was replaced is kept, with its rows; the staging schema is gone; a backup follows.
    let undo = format!("{}_bk_undo_{}", app.name, job.id);
    assert_eq!(made(&app), [undo.clone()]);
    let kept = app.server.client(&format!("SELECT COUNT(*) FROM {undo}.newer"));
    assert_eq!(kept.trim(), "2");
    assert!(damaged.len() > 3);
    let follow_up: u64 =
        app.control_value(&format!("SELECT MIN(id) FROM jobs WHERE kind = 'backup' AND id > {}", job.id)).await.parse().unwrap();
    app.completed(follow_up).await;
    assert_eq!(app.control_value("SELECT state FROM cut_overs").await, "done");
    // Triggers, views and routines work.
    app.sql("INSERT INTO item (title) VALUES ('  trimmed  ')").await;
    assert_eq!(
        app.server.client(&format!("SELECT title FROM {0}.titled WHERE title LIKE 'trimmed%'; SELECT {0}.twice(4)", app.schema())),
        "trimmed\n8\n"
    );
    let shown = app.run_enqueue(&["show", &job.id.to_string()]);
    assert!(shown.out.contains("cut-over of") && shown.out.contains("done; what it replaced is kept until"), "{shown:?}");
}

async fn a_dropped_database_comes_back(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let before = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    app.server.client(&format!("DROP DATABASE {}", app.schema()));
    let (_, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{job:#?}");
    assert_eq!(everything(&app, &app.schema()).await, before);
    assert!(made(&app).is_empty(), "{:?}", made(&app));
}

async fn the_demo_applications_database_comes_back(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
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
    let mut app = TestApp::new(flavour).await;
    app.worker();
    back_up(&app).await;
    app.sql("DELETE FROM note").await;
    let (ran, job) = restore(&app, &["1", "--components", "database"]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?}");
    assert_eq!(app.server.client(&format!("SELECT COUNT(*) FROM {}.note", app.schema())).trim(), "1");
}

on_both_flavours!(
    everything_comes_back,
    a_dropped_database_comes_back,
    the_demo_applications_database_comes_back,
    a_backups_number_serves_as_well,
);
