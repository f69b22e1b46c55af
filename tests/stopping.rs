//! SIGTERM: whatever a worker is at, it ends in good order. What it had begun is done, put back uncounted, or, if it
//! changes data, failed with the next step; what it had not begun waits for another worker.

use crate::test_app::{TestApp, kill, on_both_flavours};
use engine::server::Flavour;
use futures::{StreamExt, stream};
use jobs::{
    failpoint,
    state::State,
    test_kinds::{TestDestructive, TestRepeatable},
};
use std::{path::PathBuf, time::Duration};

async fn app(flavour: Flavour) -> TestApp {
    let app = TestApp::new(flavour).await;
    app.control_sql("CREATE TABLE test_effects (job_id BIGINT UNSIGNED PRIMARY KEY, fence BIGINT UNSIGNED NOT NULL)").await;
    app.sql("CREATE TABLE destroyed (job_id BIGINT, fence BIGINT, step INT, PRIMARY KEY (job_id, fence, step))").await;
    std::fs::create_dir(app.dir.join("effects")).unwrap();
    app
}

async fn enqueue(app: &TestApp, destructive: bool, millis: u64) -> u64 {
    let dir = app.dir.join("effects");
    match destructive {
        true => app.enqueue(&TestDestructive { dir, steps: 2, millis, ..Default::default() }).await,
        false => app.enqueue(&TestRepeatable { dir: Some(dir), millis, ..Default::default() }).await,
    }
}

async fn in_each_phase(flavour: Flavour) {
    let cases = failpoint::ALL.into_iter().flat_map(|point| [(point, false), (point, true)]);
    stream::iter(cases)
        .for_each_concurrent(4, |(point, destructive)| async move {
            let case = format!("SIGTERM at {point}, destructive: {destructive}, {flavour}");
            let mut app = app(flavour).await;
            let id = enqueue(&app, destructive, 50).await;
            let go = app.dir.join("go");
            let worker = app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=hold:{}", go.display()))], &["--concurrency", "1"]);
            let mark = PathBuf::from(format!("{}.held", go.display()));
            app.until(&format!("{case}: the place to be reached"), || mark.exists()).await;
            kill(app.worker_mut(worker).pid(), libc::SIGTERM);
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::write(&go, "").unwrap();
            assert!(app.worker_mut(worker).wait().success(), "{case}");

            let job = app.show(id).await;
            let begun = ![failpoint::BEFORE_CLAIM, failpoint::AFTER_CLAIM].contains(&point);
            // It was short, and had its grace time.
            let expected = if begun { (State::Completed, 1) } else { (State::Available, 0) };
            assert_eq!((job.state, job.attempt), expected, "{case}: {job:#?}");
            assert_eq!(app.control_value("SELECT COUNT(*) FROM resources WHERE job_id IS NOT NULL").await, "0", "{case}");
            app.worker();
            assert_eq!(app.completed(id).await.attempt, 1, "{case}");
        })
        .await;
}

async fn beyond_its_grace_time(flavour: Flavour) {
    for destructive in [false, true] {
        let mut app = app(flavour).await;
        let id = enqueue(&app, destructive, 20_000).await;
        let worker = app.worker_with(&[("BACKUP_SHUTDOWN_GRACE", "1")], &["--concurrency", "1"]);
        app.wait_until(id, "run", |j| j.state == State::Running).await;
        assert!(app.worker_mut(worker).terminate().success());
        told_to_stop(&app, id, destructive).await;
    }
}

/// A second signal does not wait for the grace time.
async fn twice(flavour: Flavour) {
    for destructive in [false, true] {
        let mut app = app(flavour).await;
        let id = enqueue(&app, destructive, 10_000).await;
        let worker = app.worker_with(&[("BACKUP_SHUTDOWN_GRACE", "600")], &["--concurrency", "2"]);
        app.wait_until(id, "run", |j| j.state == State::Running).await;
        kill(app.worker_mut(worker).pid(), libc::SIGTERM);
        tokio::time::sleep(Duration::from_millis(500)).await;
        // It takes no more jobs, and goes on with the one it has.
        let other = app.enqueue(&TestRepeatable::default()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(app.show(other).await.state, State::Available);
        assert_eq!(app.show(id).await.state, State::Running);
        let start = std::time::Instant::now();
        assert!(app.worker_mut(worker).terminate().success());
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        told_to_stop(&app, id, destructive).await;
    }
}

async fn told_to_stop(app: &TestApp, id: u64, destructive: bool) {
    let job = app.show(id).await;
    let error = job.error.clone().unwrap();
    if destructive {
        assert_eq!(job.state, State::Failed, "{job:#?}");
        assert!(error.contains("told to stop") && error.contains(&format!("`enqueue show {id}`")), "{error}");
    } else {
        assert_eq!((job.state, job.attempt), (State::Available, 0), "{job:#?}");
    }
    assert_eq!(app.control_value(&format!("SELECT COUNT(*) FROM job_attempts WHERE ended_at IS NULL AND job_id = {id}")).await, "0");
}

on_both_flavours!(in_each_phase, beyond_its_grace_time, twice);
