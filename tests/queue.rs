//! The queue's promises, as far as the kind `backup` can show them.

use crate::test_app::{TestApp, dump_process, dump_waits, hold_dump, on_both_flavours, wait_for};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, queue::history, state::State, test_kinds::TestRepeatable};
use std::{path::Path, time::Duration};

fn database() -> Backup {
    Backup { components: vec![Component::Database], label: None }
}

fn uploads() -> Backup {
    Backup { components: vec![Component::Uploads], label: None }
}

async fn a_worker_killed_in_mid_dump(flavour: Flavour) {
    let mut app = TestApp::apart(flavour).await;
    app.set("BACKUP_DUMPER", "mysqldump");
    let held = hold_dump(&app).await;
    let worker = app.worker();
    let job = app.enqueue(&database()).await;
    let dump = dump_process(app.worker_mut(worker).pid());
    assert!(app.files().iter().any(|f| f.ends_with(".partial")), "{:?}", app.files());
    app.worker_mut(worker).kill();
    wait_for("the dump tool to die with its worker", Duration::from_secs(5), || !Path::new(&format!("/proc/{dump}")).exists());
    held.let_go().await;

    app.worker();
    let done = app.completed(job).await;
    assert_eq!(done.attempt, 2);
    let listed = done.result.unwrap()["files"][0]["file_name"].as_str().unwrap().to_owned();
    wait_for("the partial file to be swept", Duration::from_secs(10), || app.files() == [listed.clone()]);
    assert_eq!(
        app.control_value(&format!("SELECT GROUP_CONCAT(outcome ORDER BY fence) FROM job_attempts WHERE job_id = {job}")).await,
        "lost,completed"
    );
    assert_eq!(app.control_value("SELECT COUNT(*) FROM archives WHERE state = 'complete'").await, "1");
    assert_eq!(app.control_value("SELECT COUNT(*) FROM resources WHERE job_id IS NOT NULL").await, "0");
}

/// Our own dump has no process to die with; its sessions on the server must not be in the next attempt's way.
async fn a_worker_killed_while_its_own_dump_waits(flavour: Flavour) {
    let mut app = TestApp::apart(flavour).await;
    let held = hold_dump(&app).await;
    let worker = app.worker();
    let job = app.enqueue(&database()).await;
    dump_waits(&app);
    app.worker_mut(worker).kill();
    held.let_go().await;
    app.worker();
    assert_eq!(app.completed(job).await.attempt, 2);
    wait_for("the partial file to be swept", Duration::from_secs(10), || app.files().len() == 1);
}

async fn a_waiting_dump_of_our_own_is_cancelled(flavour: Flavour) {
    let mut app = TestApp::apart(flavour).await;
    let held = hold_dump(&app).await;
    app.worker();
    let job = app.enqueue(&database()).await;
    dump_waits(&app);
    assert_eq!(app.run_enqueue(&["cancel", &job.to_string()]).code, Some(0));
    assert_eq!(app.wait(job).await.state, State::Cancelled);
    let sessions =
        format!("SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{}' AND state LIKE 'Waiting for %'", app.schema());
    wait_for("its sessions to end", Duration::from_secs(5), || app.server.client(&sessions).trim() == "0");
    assert_eq!(app.files(), Vec::<String>::new());
    held.let_go().await;
}

async fn the_second_of_two_backups_waits_and_says_so(flavour: Flavour) {
    let mut app = TestApp::apart(flavour).await;
    let held = hold_dump(&app).await;
    app.worker_with(&[], &["--concurrency", "4"]);
    let first = app.enqueue(&database()).await;
    app.wait_until(first, "run", |j| j.state == State::Running).await;
    let second = app.enqueue(&database()).await;
    let other = app.enqueue(&uploads()).await;
    // Another resource is free, so the third job overtakes the second.
    app.completed(other).await;
    let waiting = app.show(second).await;
    assert_eq!((waiting.state, waiting.waits_for), (State::Available, Some(first)));
    let shown = app.run_enqueue(&["show", &second.to_string()]);
    assert!(shown.out.contains(&format!("waiting for job {first}")), "{shown:?}");
    held.let_go().await;
    let (first, second) = (app.completed(first).await, app.completed(second).await);
    assert!(second.started_at >= first.finished_at, "{first:#?} {second:#?}");
}

async fn a_waiting_and_a_running_job_are_cancelled(flavour: Flavour) {
    let mut app = TestApp::apart(flavour).await;
    app.set("BACKUP_DUMPER", "mysqldump");
    let held = hold_dump(&app).await;
    let worker = app.worker();
    let running = app.enqueue(&database()).await;
    let dump = dump_process(app.worker_mut(worker).pid());
    let waiting = app.enqueue(&database()).await;
    let said = app.run_enqueue(&["cancel", &waiting.to_string()]);
    assert_eq!((said.code, said.out.trim()), (Some(0), &*format!("job {waiting} is cancelled")));
    assert_eq!(app.show(waiting).await.state, State::Cancelled);

    assert_eq!(app.run_enqueue(&["cancel", &running.to_string()]).code, Some(0));
    let job = app.wait(running).await;
    assert_eq!(job.state, State::Cancelled);
    wait_for("the dump tool to end", Duration::from_secs(5), || !Path::new(&format!("/proc/{dump}")).exists());
    assert_eq!(app.files(), Vec::<String>::new());
    assert_eq!(app.run_enqueue(&["cancel", &running.to_string()]).code, Some(2));
    assert_eq!(app.run_enqueue(&["cancel", "999999"]).code, Some(2));
    wait_for("the backup to be settled", Duration::from_secs(10), || {
        app.server.client(&format!("SELECT state FROM {}.backups", app.control())).trim() == "failed"
    });
    drop(held);
}

async fn a_terminated_worker_puts_its_job_back(flavour: Flavour) {
    let mut app = TestApp::apart(flavour).await;
    let held = hold_dump(&app).await;
    let worker = app.worker_with(&[("BACKUP_SHUTDOWN_GRACE", "1")], &[]);
    let job = app.enqueue(&database()).await;
    dump_waits(&app);
    assert!(app.worker_mut(worker).terminate().success());
    let back = app.show(job).await;
    assert_eq!((back.state, back.attempt), (State::Available, 0), "{back:#?}");
    assert_eq!(app.control_value("SELECT COUNT(*) FROM workers WHERE stopped_at IS NOT NULL").await, "1");
    assert_eq!(app.files(), Vec::<String>::new());
    held.let_go().await;
    app.worker();
    assert_eq!(app.completed(job).await.attempt, 1);
}

async fn many_workers_run_each_job_once(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    for _ in 0..3 {
        app.worker_with(&[], &["--concurrency", "3"]);
    }
    let mut ids = Vec::new();
    for i in 0..24 {
        let component = [Component::Uploads, Component::Packages, Component::Framework][i % 3];
        ids.push(app.enqueue(&Backup { components: vec![component], label: None }).await);
    }
    for id in ids {
        let job = app.completed(id).await;
        assert_eq!(job.attempt, 1);
    }
    // No two jobs held one resource at the same time.
    let overlapping = "SELECT COUNT(*) FROM jobs a JOIN jobs b ON b.id > a.id AND a.payload = b.payload
                         AND b.started_at < a.finished_at AND a.started_at < b.finished_at AND a.kind = 'backup'";
    assert_eq!(app.control_value(overlapping).await, "0");
    assert_eq!(app.control_value("SELECT COUNT(*) FROM job_attempts JOIN jobs ON jobs.id = job_id WHERE kind = 'backup'").await, "24");
    assert_eq!(app.files().len(), 24);
}

async fn rows_that_no_worker_could_run_are_refused(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let mut connection = app.server.connect(Some(&app.control())).await;
    for row in [
        "INSERT INTO jobs (kind, payload, requested_by, requested_from) VALUES ('backup', 'not json', 'x', 'x')",
        "INSERT INTO jobs (kind, payload, requested_by, requested_from) VALUES ('no_such_kind', '{}', 'x', 'x')",
        "INSERT INTO jobs (kind, payload, requested_by, requested_from, state) VALUES ('backup', '{}', 'x', 'x', 'done')",
        "INSERT INTO jobs (kind, payload, requested_by, requested_from, state) VALUES ('backup', '{}', 'x', 'x', 'running')",
        "INSERT INTO jobs (kind, payload, requested_by, requested_from, queue) VALUES ('backup', '{}', 'x', 'x', 'elsewhere')",
        "INSERT INTO jobs (kind, payload, requested_by, requested_from, max_attempts) VALUES ('backup', '{}', 'x', 'x', 0)",
    ] {
        assert!(sqlx::raw_sql(row).execute(&mut connection).await.is_err(), "{row}");
    }
}

async fn a_payload_that_does_not_decode_fails_its_job_alone(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.control_sql("INSERT INTO jobs (kind, payload, requested_by, requested_from) VALUES ('backup', '[]', 'x', 'x'), ('backup', '{\"components\": [\"nothing\"]}', 'x', 'x')").await;
    app.worker();
    for id in [1, 2] {
        let job = app.wait(id).await;
        assert_eq!((job.state, job.attempt), (State::Failed, 1), "{job:#?}");
        assert!(job.error.as_ref().unwrap().contains("payload"), "{job:#?}");
    }
    let good = app.enqueue(&uploads()).await;
    app.completed(good).await;
}

async fn history_is_readable_by_plain_sql(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let id = app.enqueue(&uploads()).await;
    app.completed(id).await;
    let row = app.server.client(&format!(
        "SELECT id, kind, state, requested_by, attempt, node, waits_for FROM {}.job_history WHERE kind = 'backup'",
        app.control()
    ));
    assert_eq!(row.trim(), format!("{id}\tbackup\tcompleted\ttest\t1\tnode1\tNULL"));
    let mut connection = app.server.connect(Some(&app.control())).await;
    let listed = history::list(&mut connection, Some(State::Completed), Some("backup"), 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    // Every column says what it means.
    let bare = format!(
        "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = '{}' AND table_name = 'jobs' AND column_comment = ''",
        app.control()
    );
    assert_eq!(app.server.client(&bare).trim(), "0");
}

async fn no_transaction_is_open_while_work_is_done(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.control_sql("CREATE TABLE test_effects (job_id BIGINT, fence BIGINT)").await;
    app.worker();
    let id = app.enqueue(&TestRepeatable { millis: 4_000, resources: vec![Component::Database], ..Default::default() }).await;
    app.wait_until(id, "run", |j| j.state == State::Running).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let open = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
          WHERE p.db = '{}' AND t.trx_started < NOW() - INTERVAL 1 SECOND",
        app.control()
    );
    assert_eq!(app.server.client(&open).trim(), "0");
    app.completed(id).await;
}

on_both_flavours!(
    a_worker_killed_in_mid_dump,
    a_worker_killed_while_its_own_dump_waits,
    a_waiting_dump_of_our_own_is_cancelled,
    the_second_of_two_backups_waits_and_says_so,
    a_waiting_and_a_running_job_are_cancelled,
    a_terminated_worker_puts_its_job_back,
    many_workers_run_each_job_once,
    rows_that_no_worker_could_run_are_refused,
    a_payload_that_does_not_decode_fails_its_job_alone,
    history_is_readable_by_plain_sql,
    no_transaction_is_open_while_work_is_done,
);
