//! Health alerts that no job's end tells; that of a lost worker is in `notify.rs`.

use crate::{
    notify::{app, backup, sink, told_to_the_end},
    test_app::{on_both_flavours, wait_for},
};
use engine::server::Flavour;
use jobs::component::Component;
use serde_json::Value;
use std::time::Duration;

async fn an_old_backup_and_a_full_disk_are_told_once(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    // Fresh: no backup, no trouble.
    let worker = app.worker();
    wait_for("the worker to have looked", Duration::from_secs(20), || {
        app.server.client(&format!("SELECT COUNT(*) FROM {}.workers", app.control())).trim() == "1"
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs").await, "0");
    assert!(app.worker_mut(worker).terminate().success());

    app.control_sql("INSERT INTO backups (job_id, state, node, stamp, started_at) VALUES (9000, 'failed', 'node1', '2020-01-01_000000', UTC_TIMESTAMP(6) - INTERVAL 30 HOUR)").await;
    let full = [("BACKUP_DISK_ALERT_PERCENT", "1")];
    for _ in 0..3 {
        app.worker_with(&full, &[]);
    }
    wait_for("both alerts", Duration::from_secs(30), || sink.mails().len() >= 2);
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(job).await;
    told_to_the_end(&app, job).await;
    app.worker_with(&full, &[]);
    std::thread::sleep(Duration::from_secs(1));
    let mut subjects = sink.subjects();
    subjects.retain(|s| s.contains("ALERT"));
    subjects.sort();
    assert_eq!(subjects.len(), 2, "{subjects:?}");
    assert!(
        subjects[0].starts_with("Heratio backup ALERT: no recent database backup: ")
            && subjects[1].starts_with("Heratio backup ALERT: the disk is nearly full: "),
        "{subjects:?}"
    );
    let texts: String = sink.mails().iter().map(|m| m["text"].as_str().unwrap().to_owned()).collect();
    assert!(
        texts.contains("There is no good database backup, although backups have been made or scheduled since ")
            && texts.contains("on node node1 is "),
        "{texts}"
    );
    let payload = app.control_value("SELECT payload FROM jobs WHERE unique_key = 'alert:no_good_backup'").await;
    assert_eq!(serde_json::from_str::<Value>(&payload).unwrap()["alert"], "no_good_backup");
    // A day later, and still so.
    app.control_sql("UPDATE alerts SET raised_at = raised_at - INTERVAL 25 HOUR").await;
    app.worker_with(&full, &[]);
    wait_for("both again", Duration::from_secs(30), || sink.subjects().iter().filter(|s| s.contains("ALERT")).count() == 4);
}

on_both_flavours!(an_old_backup_and_a_full_disk_are_told_once);
