//! The kind `delete`: done when the files are gone, and not without being asked twice for what matters.

use crate::{
    prune::{backup, states},
    test_app::{TestApp, on_both_flavours},
};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, delete::Delete, failpoint, prune::Prune, state::State};

async fn archives_and_backups(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let both = Backup { components: vec![Component::Uploads, Component::Packages], label: None };
    let mut names = Vec::new();
    for _ in 0..3 {
        let id = app.enqueue(&both).await;
        let result = app.completed(id).await.result.unwrap();
        let name = |i: usize| result["files"][i]["file_name"].as_str().unwrap().to_owned();
        names.push([name(0), name(1)]);
    }
    // Nobody to ask.
    let ran = app.run_enqueue(&["delete", &names[0][0], "--wait"]);
    assert!(ran.code == Some(2) && ran.err.contains("--yes") && ran.out.contains(&names[0][0]), "{ran:?}");
    let typo = names[0][0].replace("uploads", "uplaods");
    let ran = app.run_enqueue(&["delete", &typo, "--yes"]);
    assert!(ran.code == Some(2) && ran.err.contains(&format!("Nearest: {}", names[0][0])), "{ran:?}");
    for wrong in ["99", "../../etc/passwd", "/etc/passwd"] {
        let ran = app.run_enqueue(&["delete", wrong, "--yes"]);
        assert!(ran.code == Some(2) && ran.err.contains("there is no"), "{ran:?}");
    }
    assert_eq!(app.files().len(), 6);

    let ran = app.run_enqueue(&["delete", &names[0][0], "--yes", "--wait"]);
    assert!(ran.code == Some(0) && ran.out.contains(&format!("deleted {}", names[0][0])), "{ran:?}");
    assert_eq!(app.files().len(), 5);
    assert!(!app.files().contains(&names[0][0]));
    let why = app.control_value("SELECT CONCAT(state, ': ', deleted_why) FROM archives WHERE id = 1").await;
    assert!(why.starts_with("deleted: deleted by "), "{why}");
    // The rest of it, by the backup's number.
    let ran = app.run_enqueue(&["delete", "1", "--yes", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(app.files().len(), 4);
    let ran = app.run_enqueue(&["delete", "1", "--yes"]);
    assert!(ran.code == Some(2) && ran.err.contains("there is no backup 1 with archives"), "{ran:?}");
    // A retry deletes nothing.
    let deleted = app.control_value("SELECT MAX(id) FROM jobs WHERE kind = 'delete'").await;
    let ran = app.run_enqueue(&["retry", &deleted]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

async fn what_retention_protects_needs_force(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let names = [backup(&app).await, backup(&app).await];
    for name in [&names[1], "2"] {
        let ran = app.run_enqueue(&["delete", name, "--yes", "--wait"]);
        let why = format!("{} is protected: the newest good backup of uploads", names[1]);
        assert!(ran.code == Some(2) && ran.err.contains(&why) && ran.err.contains("--force"), "{ran:?}");
    }
    // Nor by SQL: the worker looks again.
    let job = app.enqueue(&Delete { archive: names[1].clone(), force: false }).await;
    let job = app.wait(job).await;
    assert!(job.state == State::Failed && job.error.unwrap().contains("is protected"));
    assert_eq!(app.files(), names);
    let ran = app.run_enqueue(&["delete", &names[1], "--yes", "--wait", "--force"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(app.files(), names[..1]);
}

async fn what_a_job_reads_is_refused(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let names = [backup(&app).await, backup(&app).await];
    let ran = app.run_enqueue(&["delete", "1", "--yes", "--at", "2099-01-01 00:00"]);
    assert_eq!(ran.code, Some(2), "delete has no --at: {ran:?}");
    // Another one that waits for it: by file name, while this one says the backup's number.
    app.control_sql(&format!(
        "INSERT INTO jobs (kind, payload, requested_by, requested_from, run_at)
         VALUES ('test_unique', '{{\"archive\": \"{}\"}}', 'test', 'test', '2099-01-01')",
        names[0]
    ))
    .await;
    let reader = app.control_value("SELECT MAX(id) FROM jobs").await;
    let ran = app.run_enqueue(&["delete", "1", "--yes", "--wait"]);
    assert!(ran.code == Some(1) && ran.out.contains(&format!("job {reader} reads {}", names[0])), "{ran:?}");
    assert_eq!(states(&app).await, "complete complete");
    assert_eq!(app.files(), names);
}

async fn a_killed_delete_is_not_started_again_and_the_next_prune_ends_it(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let first = app.worker();
    let names = [backup(&app).await, backup(&app).await];
    assert!(app.worker_mut(first).terminate().success());
    let doomed = app.worker_with(&[("HERATIO_FAILPOINT", &format!("{}=kill", failpoint::REMOVAL_MARKED))], &[]);
    let job = app.enqueue(&Delete { archive: names[0].clone(), force: false }).await;
    app.worker_mut(doomed).wait();
    assert_eq!(app.files(), names);
    app.worker();
    assert_eq!(app.wait(job).await.state, State::Failed);
    assert_eq!(states(&app).await, "deleting complete");
    let prune = app.enqueue(&Prune::default()).await;
    app.completed(prune).await;
    assert_eq!(states(&app).await, "deleted complete");
    assert_eq!(app.files(), names[1..]);
}

on_both_flavours!(
    archives_and_backups,
    what_retention_protects_needs_force,
    what_a_job_reads_is_refused,
    a_killed_delete_is_not_started_again_and_the_next_prune_ends_it,
);
