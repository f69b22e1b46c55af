//! The kind `undo`: what a restore replaced comes back as it was, and can be replaced again.

use crate::{
    load::everything,
    restore::{back_up, damage, made, patient, restore},
    test_app::{on_both_flavours, wait_for},
};
use engine::server::Flavour;
use jobs::state::State;
use std::time::Duration;

async fn what_was_replaced_comes_back(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let backed_up = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    damage(&app).await;
    let damaged = everything(&app, &app.schema()).await;
    let (_, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{job:#?}");
    assert_eq!(everything(&app, &app.schema()).await, backed_up);

    let undo = app.run_enqueue(&["undo", &job.id.to_string(), "--yes", "--wait"]);
    assert_eq!(undo.code, Some(0), "{undo:?}");
    assert_eq!(everything(&app, &app.schema()).await, damaged);
    let undo_job: u64 = app.control_value("SELECT MAX(id) FROM jobs WHERE kind = 'undo'").await.parse().unwrap();
    // The undone ones are kept as long.
    assert_eq!(made(&app), [format!("{}_bk_undo_{undo_job}", app.name)]);
    let again = app.run_enqueue(&["undo", &job.id.to_string(), "--yes"]);
    assert!(again.code == Some(2) && again.err.contains("undone already"), "{again:?}");
    let redo = app.run_enqueue(&["undo", &undo_job.to_string(), "--yes", "--wait"]);
    assert_eq!(redo.code, Some(0), "{redo:?}");
    assert_eq!(everything(&app, &app.schema()).await, backed_up);
    let nothing = app.run_enqueue(&["undo", "1", "--yes"]);
    assert!(nothing.code == Some(2) && nothing.err.contains("replaced nothing"), "{nothing:?}");
}

async fn expired_undo_points_go(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    let (_, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{job:#?}");
    assert_eq!(made(&app).len(), 1);
    app.control_sql("UPDATE undo_points SET until = UTC_TIMESTAMP(6)").await;
    wait_for("the undo schema to be dropped", Duration::from_secs(20), || made(&app).is_empty());
    let late = app.run_enqueue(&["undo", &job.id.to_string(), "--yes"]);
    assert!(late.code == Some(2) && late.err.contains("has been dropped"), "{late:?}");
    assert_eq!(app.control_value("SELECT state FROM undo_points").await, "expired");
}

on_both_flavours!(what_was_replaced_comes_back, expired_undo_points_go);
