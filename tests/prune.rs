//! The kind `prune`: what goes is what the rules say, and nothing of others.

use crate::test_app::{TestApp, on_both_flavours};
use engine::server::Flavour;
use jobs::{
    backup::Backup,
    component::Component,
    failpoint,
    prune::Prune,
    queue::{NewJob, enqueue},
    state::State,
    test_kinds::TestUnique,
};

/// Makes a backup of the uploads; its archive's name.
pub(crate) async fn backup(app: &TestApp) -> String {
    let id = app.enqueue(&Backup { components: vec![Component::Uploads], label: None }).await;
    let job = app.completed(id).await;
    // Its prune has had its turn too.
    app.until("the prune after it", || {
        app.server
            .client(&format!(
                "SELECT COUNT(*) FROM {}.jobs WHERE kind = 'prune' AND queue = 'shared' AND state IN ('available', 'running')",
                app.control()
            ))
            .trim()
            == "0"
    })
    .await;
    job.result.unwrap()["files"][0]["file_name"].as_str().unwrap().to_owned()
}

pub(crate) async fn states(app: &TestApp) -> String {
    app.control_value("SELECT GROUP_CONCAT(state ORDER BY id SEPARATOR ' ') FROM archives").await
}

async fn every_good_backup_prunes(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.setting("backup_max_backups", "2").await;
    app.worker();
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(backup(&app).await);
    }
    assert_eq!(app.files(), names[2..]);
    assert_eq!(states(&app).await, "deleted deleted complete complete");
    assert_eq!(
        app.control_value("SELECT GROUP_CONCAT(DISTINCT deleted_why) FROM archives").await,
        "2 good backups are newer (backup_max_backups)"
    );
    assert_eq!(app.control_value("SELECT COUNT(*) FROM archives WHERE deleted_at > created_at AND deleted_job_id > job_id").await, "2");
    let listed = app.run_enqueue(&["backups"]);
    assert!(names[2..].iter().all(|n| listed.out.contains(n)) && names[..2].iter().all(|n| !listed.out.contains(n)), "{listed:?}");
    // One that fails enqueues none.
    std::fs::rename(app.dir.join("uploads"), app.dir.join("elsewhere")).unwrap();
    let prunes = app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'prune'").await;
    let failed = app.enqueue(&Backup { components: vec![Component::Uploads], label: None }).await;
    assert_eq!(app.wait(failed).await.state, State::Failed);
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'prune'").await, prunes);
    assert_eq!(app.files(), names[2..]);
}

async fn a_dry_run_says_why_and_changes_nothing(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let names = [backup(&app).await, backup(&app).await, backup(&app).await];
    app.setting("backup_max_backups", "1").await;
    app.control_sql("UPDATE backups SET started_at = started_at - INTERVAL 31 DAY WHERE id = 1").await;
    let ran = app.run_enqueue(&["prune", "--dry-run", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for (word, backup, why) in [
        ("keep", 3, "the newest good backup of uploads"),
        ("would remove", 2, "1 good backups are newer (backup_max_backups)"),
        ("would remove", 1, "older than 30 days (backup_retention_days)"),
    ] {
        let found =
            ran.out.lines().any(|l| l.trim_start().starts_with(word) && l.contains(&format!("backup {backup} ")) && l.ends_with(why));
        assert!(found, "{word} {backup} {why}: {ran:?}");
    }
    assert_eq!(app.files(), names);
    assert_eq!(states(&app).await, "complete complete complete");
    // Kept by another rule: of each of the last two days that have one, the newest.
    let keep = app.worker_with(&[("BACKUP_KEEP_DAILY", "2"), ("BACKUP_NODE", "keeper")], &[]);
    let ran = app.run_enqueue(&["prune", "--dry-run", "--wait", "--node", "keeper"]);
    assert!(ran.code == Some(0) && ran.out.contains("the newest of its day"), "{ran:?}");
    assert!(app.worker_mut(keep).terminate().success());
    // And a value that makes no sense removes nothing.
    for (key, value) in [("backup_max_backups", "0"), ("backup_max_backups", "many"), ("backup_retention_days", "-1")] {
        app.setting("backup_max_backups", "1").await;
        app.setting(key, value).await;
        let ran = app.run_enqueue(&["prune", "--wait"]);
        assert!(ran.code == Some(1) && ran.out.contains(&format!("the setting {key}, `{value}`, is not a whole number")), "{ran:?}");
    }
    assert_eq!(app.files(), names);
}

async fn what_is_not_ours_stays(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let names = [backup(&app).await, backup(&app).await, backup(&app).await, backup(&app).await, backup(&app).await];
    let path = |i: usize| app.backups_dir().join(&names[i]);
    // Another archive of ours under the name, of the same size or not; a link; and one that is gone.
    std::fs::write(path(0), "somebody's own").unwrap();
    let elsewhere = app.dir.join("elsewhere");
    std::fs::rename(path(1), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, path(1)).unwrap();
    std::fs::remove_file(path(2)).unwrap();
    std::fs::write(app.backups_dir().join("uploads_2020-01-01_000000.tar.gz"), "unknown to the catalog").unwrap();
    app.setting("backup_max_backups", "1").await;
    let ran = app.run_enqueue(&["prune", "--wait"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    for word in ["was left alone: it has 14 bytes", "was left alone: it is not a file", "had been removed by somebody else"] {
        assert!(ran.out.contains(word), "{word}: {ran:?}");
    }
    assert_eq!(app.files(), ["uploads_2020-01-01_000000.tar.gz", &names[0], &names[1], &names[4]]);
    assert!(elsewhere.exists());
    assert_eq!(states(&app).await, "deleted deleted deleted deleted complete");
    // A directory that is not there says nothing of its files.
    app.control_sql("UPDATE archives SET state = 'complete', directory = '/not/mounted' WHERE id = 4").await;
    let ran = app.run_enqueue(&["prune", "--wait"]);
    assert!(ran.code == Some(1) && ran.out.contains("/not/mounted is not there: is its file system mounted?"), "{ran:?}");
    assert_eq!(app.control_value("SELECT state FROM archives WHERE id = 4").await, "deleting");
}

async fn what_a_job_reads_stays_until_it_is_over(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let names = [backup(&app).await, backup(&app).await];
    let later = NewJob {
        run_at: Some(chrono::Utc::now() + chrono::Duration::hours(1)),
        ..NewJob::new(&TestUnique { archive: Some(names[0].clone()), ..Default::default() }, "test", "test").unwrap()
    };
    let reader = enqueue(&mut app.server.connect(Some(&app.control())).await, &later).await.unwrap().id;
    app.setting("backup_max_backups", "1").await;
    let pruned = app.enqueue(&Prune::default()).await;
    let result = app.completed(pruned).await.result.unwrap();
    assert_eq!(result["removed"][0]["result"]["job"], reader, "{result}");
    assert_eq!(app.files(), names);
    assert_eq!(states(&app).await, "deleting complete");
    assert_eq!(app.run_enqueue(&["cancel", &reader.to_string()]).code, Some(0));
    let pruned = app.enqueue(&Prune::default()).await;
    app.completed(pruned).await;
    assert_eq!(app.files(), names[1..]);
    assert_eq!(states(&app).await, "deleted complete");
}

async fn a_killed_prune_is_finished(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let first = app.worker();
    let names = [backup(&app).await, backup(&app).await];
    assert!(app.worker_mut(first).terminate().success());
    app.setting("backup_max_backups", "1").await;
    for (point, files, state) in
        [(failpoint::REMOVAL_MARKED, &names[..], "deleting complete"), (failpoint::REMOVAL_UNLINKED, &names[1..], "deleting complete")]
    {
        let doomed = app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=kill"))], &[]);
        let id = app.enqueue(&Prune::default()).await;
        app.worker_mut(doomed).wait();
        assert_eq!(app.files(), files, "{point}");
        assert_eq!(states(&app).await, state, "{point}");
        // Not listed from then on.
        let listed = app.run_enqueue(&["backups"]);
        assert!(!listed.out.contains(&names[0]), "{listed:?}");
        app.run_enqueue(&["cancel", &id.to_string()]).code.unwrap();
    }
    app.worker();
    let id = app.enqueue(&Prune::default()).await;
    // The file was gone, and we cannot tell that it was we who removed it.
    assert!(app.wait(id).await.state.is_final());
    assert_eq!(states(&app).await, "deleted complete");
    assert_eq!(app.files(), names[1..]);
}

async fn files_of_another_node_go_there(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let b = app.dir.join("b");
    std::fs::create_dir(&b).unwrap();
    let env = [("BACKUP_NODE", "b"), ("HERATIO_BACKUPS_PATH", b.to_str().unwrap())];
    let on_b = app.worker_with(&env, &[]);
    let elsewhere = backup(&app).await;
    assert!(app.worker_mut(on_b).terminate().success());
    app.worker();
    app.setting("backup_max_backups", "1").await;
    let here = backup(&app).await;
    // Marked, but only b's worker gets at the file.
    app.until("a prune for node b", || {
        app.server.client(&format!("SELECT queue FROM {}.jobs WHERE kind = 'prune' AND state = 'available'", app.control())).trim()
            == "node:b"
    })
    .await;
    assert!(b.join(&elsewhere).exists());
    app.worker_with(&env, &[]);
    app.until("the file on node b to go", || !b.join(&elsewhere).exists()).await;
    assert_eq!(app.files(), [here]);
}

on_both_flavours!(
    every_good_backup_prunes,
    a_dry_run_says_why_and_changes_nothing,
    what_is_not_ours_stays,
    what_a_job_reads_stays_until_it_is_over,
    a_killed_prune_is_finished,
    files_of_another_node_go_there,
);
