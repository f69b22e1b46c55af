//! The kind `restore_plan`: what it shows and what it refuses, before anything is changed.

use crate::{
    load::everything,
    restore::{back_up, damage, made, patient, restore},
    test_app::{OwnServer, TestApp, on_both_flavours},
};
use engine::server::Flavour;
use jobs::{restore::Restore, restore_plan::RestorePlan, state::State};

async fn a_dry_run_shows_all_and_changes_nothing(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    damage(&app).await;
    let before = everything(&app, &app.schema()).await;
    let ran = app.run_enqueue(&["restore", &archive, "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for word in ["holds", "2 tables with 3 rows", "replaces schema", "moves aside: newer", "SHA-256"] {
        let word = word.replace("moves aside: ", "move aside: ");
        assert!(ran.out.contains(&word), "`{word}` is not in {}", ran.out);
    }
    assert_eq!(ran.out.contains("BACKUP_PRE_RESTORE_HOOK"), flavour == Flavour::MariaDb, "{}", ran.out);
    assert_eq!(everything(&app, &app.schema()).await, before);
    assert!(made(&app).is_empty());
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'restore'").await, "0");
}

async fn bad_input_is_refused(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    let typo = archive.replace("database", "databse");
    for (args, words) in [
        (vec!["restore", typo.as_str()], vec!["nearest", archive.as_str()]),
        (vec!["restore", "99"], vec!["no backup 99"]),
        (vec!["restore", "1", "--components", "uploads"], vec!["has no uploads"]),
        (vec!["restore", "relative/a.sql.gz"], vec!["absolute"]),
        // Nobody types anything.
        (vec!["restore", archive.as_str()], vec!["needs a person to type", "--yes"]),
        (vec!["restore", archive.as_str(), "--into", &app.control()], vec!["not for restores"]),
        (vec!["restore", archive.as_str(), "--into", &app.schema()], vec!["exists and holds"]),
    ] {
        let ran = app.run_enqueue(&args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        for word in words {
            assert!(ran.err.contains(word) || ran.out.contains(word), "{args:?}: `{word}` is not in {ran:?}");
        }
    }
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'restore'").await, "0");
}

async fn a_damaged_archive_is_refused(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    let path = app.backups_dir().join(&archive);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    for (bytes, word) in [(&whole[..whole.len() - 100], "bytes"), (&flipped[..], "damaged"), (&[][..], "bytes")] {
        std::fs::write(&path, bytes).unwrap();
        let ran = app.run_enqueue(&["restore", &archive, "--dry-run"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.out.contains(word) && ran.out.contains("another backup"), "`{word}`: {ran:?}");
    }
    std::fs::remove_file(&path).unwrap();
    let ran = app.run_enqueue(&["restore", &archive, "--dry-run"]);
    assert!(ran.code == Some(1) && ran.out.contains("cannot open"), "{ran:?}");
}

async fn another_schemas_archive_goes_beside_alone(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    let other = patient(flavour).await;
    let path = app.backups_dir().join(&archive);
    let mut other = other;
    other.worker();
    let ran = other.run_enqueue(&["restore", path.to_str().unwrap(), "--dry-run"]);
    assert!(ran.code == Some(2) && ran.out.contains(&app.schema()) && ran.out.contains("--into"), "{ran:?}");
}

async fn changed_evidence_stops_the_apply(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    let request = RestorePlan { archive, ..Default::default() };
    let plan = app.enqueue(&request).await;
    let result = app.completed(plan).await.result.unwrap();
    app.sql("CREATE TABLE meanwhile (id INT)").await;
    let id = app.enqueue(&Restore::of(plan, result["evidence"].as_str().unwrap(), request)).await;
    let job = app.wait(id).await;
    assert_eq!(job.state, State::Failed);
    assert!(job.error.as_ref().unwrap().contains("nothing was changed. Next: make a new plan"), "{job:#?}");
    assert!(made(&app).is_empty());
}

/// What `worker grants` prints is enough to restore and to undo; each privilege that is missing is named with its GRANT.
async fn the_grants_are_enough_and_each_missing_one_is_named(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut app = TestApp::on(own.0.clone()).await;
    let (user, owner) = (format!("{}_w", app.name), format!("{}_o", app.name));
    own.0.client(&format!(
        "CREATE USER {user}@localhost IDENTIFIED BY 'x'; CREATE USER {owner}@localhost; GRANT ALL ON {}.* TO {owner}@localhost",
        app.schema()
    ));
    // An account like root needs more to be made a definer (SYSTEM_USER).
    app.sql(&format!(
        "DROP VIEW titled; CREATE DEFINER = {owner}@localhost VIEW titled AS SELECT id, title FROM item;
         DROP TRIGGER item_before; CREATE DEFINER = {owner}@localhost TRIGGER item_before BEFORE INSERT ON item FOR EACH ROW SET NEW.title = TRIM(NEW.title);
         DROP PROCEDURE touch_all; CREATE DEFINER = {owner}@localhost PROCEDURE touch_all() UPDATE item SET title = title;
         DROP FUNCTION twice; CREATE DEFINER = {owner}@localhost FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
         DROP EVENT nightly; CREATE DEFINER = {owner}@localhost EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' DO DELETE FROM note WHERE id < 0"
    ))
    .await;
    app.set("HERATIO_DATABASE_URL", format!("mysql://{user}:x@localhost/{}?socket={}", app.schema(), own.0.socket.display()));
    let grants = app.run_worker(&["grants"]);
    assert_eq!(grants.code, Some(0), "{grants:?}");
    // The control schema is root's here.
    let script: String = grants.out.lines().filter(|l| !l.starts_with("--") && !l.contains("root")).map(|l| format!("{l}\n")).collect();
    own.0.client(&script);
    app.worker();
    let before = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    app.sql("DELETE FROM note; DROP VIEW titled").await;
    let damaged = everything(&app, &app.schema()).await;
    let (ran, job) = restore(&app, &[&archive]).await;
    assert!([Some(0), Some(3)].contains(&ran.code), "{ran:?} {job:#?}");
    assert_eq!(everything(&app, &app.schema()).await, before, "{ran:?} {job:#?}");
    let undone = app.run_enqueue(&["undo", &job.id.to_string(), "--yes", "--wait"]);
    assert!([Some(0), Some(3)].contains(&undone.code), "{undone:?}");
    assert_eq!(everything(&app, &app.schema()).await, damaged);

    let schema = app.schema().replace('_', "\\_");
    for privilege in ["ALTER", "DROP", "CREATE", "INSERT", "CREATE VIEW", "CREATE ROUTINE", "ALTER ROUTINE"] {
        own.0.client(&format!("REVOKE {privilege} ON `{schema}`.* FROM {user}@localhost"));
        let ran = app.run_enqueue(&["restore", &archive, "--dry-run"]);
        let grant = format!("GRANT {privilege} ON `{schema}`.* TO");
        assert!(ran.code == Some(2) && ran.out.contains(&grant), "{privilege}: {ran:?}");
        own.0.client(&format!("GRANT {privilege} ON `{schema}`.* TO {user}@localhost"));
    }
}

on_both_flavours!(
    the_grants_are_enough_and_each_missing_one_is_named,
    a_dry_run_shows_all_and_changes_nothing,
    bad_input_is_refused,
    a_damaged_archive_is_refused,
    another_schemas_archive_goes_beside_alone,
    changed_evidence_stops_the_apply,
);
