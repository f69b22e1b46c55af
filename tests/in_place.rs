//! Restoring in place: the safety backup is there before anything is dropped, and brings back what was there.

use crate::{
    load::everything,
    restore::{back_up, damage, made, patient, restore},
    test_app::on_both_flavours,
};
use engine::server::Flavour;
use jobs::{restore::Restore, restore_plan::RestorePlan, state::State};

const SETTINGS: &str = "CREATE TABLE ahg_settings (id INT AUTO_INCREMENT PRIMARY KEY, setting_key VARCHAR(100) NOT NULL UNIQUE, setting_value TEXT, setting_group VARCHAR(50) NOT NULL);
     INSERT INTO ahg_settings VALUES (1, 'site_title', 'Archive', 'general'), (2, 'backup_retention_days', '30', 'backup')";

fn without_settings(all: Vec<String>) -> Vec<String> {
    all.into_iter().filter(|d| !d.contains("ahg_settings")).collect()
}

async fn everything_comes_back_and_the_safety_backup_undoes_it(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.sql(SETTINGS).await;
    app.worker();
    let before = everything(&app, &app.schema()).await;
    let archive = back_up(&app).await;
    damage(&app).await;
    app.sql("UPDATE ahg_settings SET setting_value = CONCAT(setting_value, ' new')").await;
    let damaged = everything(&app, &app.schema()).await;
    let plan = app.run_enqueue(&["restore", &archive, "--in-place", "--dry-run"]);
    for words in ["nothing is kept but the safety backup", "incomplete until that is over", "verified safety backup"] {
        assert!(plan.code == Some(0) && plan.out.contains(words), "`{words}` is not in {plan:?}");
    }
    assert_eq!(everything(&app, &app.schema()).await, damaged);
    let (ran, job) = restore(&app, &[&archive, "--in-place"]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?} {job:#?}");
    assert_eq!(without_settings(everything(&app, &app.schema()).await), without_settings(before));
    let settings = app.server.client(&format!("SELECT setting_key, setting_value FROM {}.ahg_settings ORDER BY 1", app.schema()));
    assert_eq!(settings, "backup_retention_days\t30 new\nsite_title\tArchive\n");
    assert!(made(&app).is_empty(), "{:?}", made(&app));

    let result = job.result.unwrap();
    let safety = result["safety"]["archive"].as_str().unwrap();
    assert_eq!(result["safety"]["backup"], 2);
    assert!(ran.out.contains(&format!("enqueue restore {safety}")), "{ran:?}");
    let listed = app
        .control_value(&format!("SELECT CONCAT_WS(' ', state, verification, verified_job_id) FROM archives WHERE file_name = '{safety}'"))
        .await;
    assert_eq!(listed, format!("complete hash_verified {}", job.id));
    let shown = app.run_enqueue(&["show", &job.id.to_string()]).out;
    assert!(shown.contains("in place") && shown.contains(safety), "{shown}");
    let undo = app.run_enqueue(&["undo", &job.id.to_string(), "--yes"]);
    assert!(undo.code == Some(2) && undo.err.contains(&format!("enqueue restore {safety}")), "{undo:?}");
    let follow_up: u64 =
        app.control_value(&format!("SELECT MIN(id) FROM jobs WHERE kind = 'backup' AND id > {}", job.id)).await.parse().unwrap();
    app.completed(follow_up).await;
    let (ran, job) = restore(&app, &[safety, "--in-place"]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert_eq!(without_settings(everything(&app, &app.schema()).await), without_settings(damaged));
    for args in [["--in-place", "--relink"], ["--in-place", "--into=x"]] {
        let ran = app.run_enqueue(&[&["restore", archive.as_str()], &args[..]].concat());
        assert!(ran.code == Some(2) && ran.err.contains("in_place: not together"), "{ran:?}");
    }
}

async fn a_killed_worker_names_the_way_back(flavour: Flavour) {
    for (point, touched) in [("in_place_safe", false), ("in_place_emptying", true), ("in_place_loaded", true)] {
        let mut app = patient(flavour).await;
        app.set("BACKUP_LEASE", "6");
        let first = app.worker();
        let archive = back_up(&app).await;
        damage(&app).await;
        let damaged = everything(&app, &app.schema()).await;
        let request = RestorePlan { archive, in_place: true, ..Default::default() };
        let plan = app.enqueue(&request).await;
        let result = app.completed(plan).await.result.unwrap();
        app.worker_mut(first).kill();
        let id = app.enqueue(&Restore::of(plan, result["evidence"].as_str().unwrap(), request)).await;
        let doomed = app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=kill"))], &[]);
        app.worker_mut(doomed).wait();
        app.worker();
        let job = app.wait(id).await;
        assert_eq!(job.state, State::Failed, "{point}: {job:#?}");
        app.until("our schemas to be swept", || made(&app).is_empty()).await;
        assert_eq!(everything(&app, &app.schema()).await == damaged, !touched, "{point}");
        let shown = app.run_enqueue(&["show", &id.to_string()]).out;
        assert!(shown.contains("may be incomplete") && shown.contains("safety backup"), "{point}: {shown}");
        let safety = app.control_value("SELECT MAX(file_name) FROM archives WHERE state = 'complete'").await;
        assert!(shown.contains(&safety), "{point}: {shown}");
        let (ran, job) = restore(&app, &[&safety, "--in-place"]).await;
        assert_eq!(job.state, State::Completed, "{point}: {ran:?} {job:#?}");
        assert_eq!(everything(&app, &app.schema()).await, damaged, "{point}");
    }
}

async fn an_archive_that_does_not_load_says_what_is_left(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    // What the server refuses in the middle: a dump edited by hand.
    let dump = app.server.tool("mysqldump").arg(app.schema()).output().unwrap();
    // Not UTF-8: it has a BLOB.
    let (from, to) = (&b"INSERT INTO `note`"[..], &b"INSERT INTO `nowhere`"[..]);
    let at = dump.stdout.windows(from.len()).position(|w| w == from).expect("the table's rows");
    let broken = [&dump.stdout[..at], to, &dump.stdout[at + from.len()..]].concat();
    std::fs::write(app.backups_dir().join("broken.sql"), broken).unwrap();
    let before = everything(&app, &app.schema()).await;
    let (ran, job) = restore(&app, &["broken.sql", "--in-place"]).await;
    assert_eq!((ran.code, job.state), (Some(1), State::Failed), "{ran:?}");
    let error = job.error.unwrap();
    assert!(error.contains("is incomplete now") && error.contains("--in-place` brings back"), "{error}");
    let safety = app.control_value("SELECT MAX(file_name) FROM archives WHERE state = 'complete'").await;
    assert!(error.contains(&safety), "{error}");
    let (ran, job) = restore(&app, &[&safety, "--in-place"]).await;
    assert_eq!(job.state, State::Completed, "{ran:?} {job:#?}");
    assert_eq!(everything(&app, &app.schema()).await, before);
}

async fn foreign_keys_from_elsewhere_are_refused(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    let (shop, schema) = (format!("{}_shop", app.name), app.schema());
    app.server.client(&format!(
        "CREATE DATABASE {shop}; CREATE TABLE {shop}.sold (item_id INT, CONSTRAINT of_item FOREIGN KEY (item_id) REFERENCES {schema}.item (id))"
    ));
    let (ran, _) = restore(&app, &[&archive, "--in-place"]).await;
    assert!(ran.code == Some(2) && ran.out.contains("of_item") && ran.out.contains("drop those keys first"), "{ran:?}");
    app.server.client(&format!("DROP DATABASE {shop}"));
}

on_both_flavours!(
    everything_comes_back_and_the_safety_backup_undoes_it,
    a_killed_worker_names_the_way_back,
    an_archive_that_does_not_load_says_what_is_left,
    foreign_keys_from_elsewhere_are_refused,
);
