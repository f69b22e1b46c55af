//! The line for a resource: who waits, who goes first, who gives way; and doing again what failed.

use crate::test_app::{TestApp, on_both_flavours};
use chrono::TimeDelta;
use engine::server::Flavour;
use jobs::{
    component::Component,
    queue::{NewJob, enqueue, history::JobRow},
    state::State,
    test_kinds::{TestDestructive, TestRepeatable, TestUnique},
};

async fn app(flavour: Flavour) -> TestApp {
    let app = TestApp::new(flavour).await;
    app.control_sql("CREATE TABLE test_effects (job_id BIGINT UNSIGNED PRIMARY KEY, fence BIGINT UNSIGNED NOT NULL)").await;
    app.sql("CREATE TABLE destroyed (job_id BIGINT, fence BIGINT, step INT, PRIMARY KEY (job_id, fence, step))").await;
    std::fs::create_dir(app.dir.join("effects")).unwrap();
    app
}

fn repeatable(millis: u64, resources: &[Component]) -> TestRepeatable {
    TestRepeatable { millis, resources: resources.to_vec(), ..Default::default() }
}

fn destructive(app: &TestApp) -> TestDestructive {
    TestDestructive { dir: app.dir.join("effects"), steps: 2, millis: 10, ..Default::default() }
}

async fn preempting(app: &TestApp) -> u64 {
    let job = NewJob { preempt: true, ..NewJob::new(&destructive(app), "test", "test").unwrap() };
    enqueue(&mut app.server.connect(Some(&app.control())).await, &job).await.unwrap().id
}

async fn running(app: &TestApp, id: u64) -> JobRow {
    app.wait_until(id, "run", |j| j.state == State::Running).await
}

async fn it_moves_on_within_a_second_and_in_order(flavour: Flavour) {
    let mut app = app(flavour).await;
    // The interval that a worker has by itself.
    app.env.remove("BACKUP_POLL_MS");
    app.worker_with(&[], &["--concurrency", "2"]);
    let all = [Component::Database, Component::Uploads, Component::Packages, Component::Framework];
    let first = app.enqueue(&repeatable(1500, &all)).await;
    running(&app, first).await;
    // Waiting takes no slot: the other one serves who needs nothing, again and again.
    let mut line = vec![];
    for _ in 0..3 {
        line.push(app.enqueue(&repeatable(100, &[Component::Uploads, Component::Database])).await);
    }
    let restore = app.enqueue(&destructive(&app)).await;
    line.insert(0, restore);
    for _ in 0..2 {
        let free = app.enqueue(&repeatable(0, &[])).await;
        app.completed(free).await;
    }
    for waiting in &line {
        let job = app.show(*waiting).await;
        assert_eq!((job.state, job.attempt), (State::Available, 0));
        assert!(job.waits_for.is_some(), "{job:#?}");
    }
    let shown = app.run_enqueue(&["show", &restore.to_string()]);
    assert!(shown.out.contains(&format!("waiting for job {first}")), "{shown:?}");
    let mut before = app.completed(first).await;
    for id in line {
        let job = app.completed(id).await;
        let idle = job.started_at.unwrap() - before.finished_at.unwrap();
        assert!(idle >= TimeDelta::zero() && idle < TimeDelta::seconds(1), "job {id} started {idle} after job {}", before.id);
        before = job;
    }
}

async fn a_preempting_job_cancels_repeatable_ones_alone(flavour: Flavour) {
    let mut app = app(flavour).await;
    app.worker_with(&[], &["--concurrency", "4"]);
    // Runs, and is in the way; runs, and is not; waits behind the first.
    let victim = app.enqueue(&repeatable(60_000, &[Component::Database, Component::Uploads])).await;
    let bystander = app.enqueue(&repeatable(2_000, &[Component::Packages])).await;
    running(&app, victim).await;
    running(&app, bystander).await;
    let behind = app.enqueue(&repeatable(0, &[Component::Database])).await;
    let restore = preempting(&app).await;
    let restore = app.completed(restore).await;
    let stopped = app.wait(victim).await;
    assert_eq!(stopped.state, State::Cancelled);
    let error = stopped.error.unwrap();
    assert!(error.contains(&format!("cancelled for job {}, which goes first", restore.id)), "{error}");
    assert!(app.completed(behind).await.started_at >= restore.finished_at);
    assert_eq!(app.completed(bystander).await.attempt, 1);

    // By SQL too; and a destructive one gives way to nobody.
    let first = app.enqueue(&TestDestructive { steps: 4, millis: 500, ..destructive(&app) }).await;
    running(&app, first).await;
    let call = |procedure: &str, kind: &str, payload: &str| {
        format!("CALL {}.{procedure}('{kind}', '{payload}', '{{\"preempt\": true}}')", app.control())
    };
    let payload = format!("{{\"dir\": \"{}\", \"steps\": 1}}", app.dir.join("effects").display());
    let called = app.server.client(&call("enqueue_restore_job", "test_destructive", &payload));
    let second: u64 = called.split('\t').next().unwrap().parse().unwrap();
    let (first, second) = (app.completed(first).await, app.completed(second).await);
    assert!(second.started_at >= first.finished_at);
    let mut tool = app.server.tool("mysql");
    let refused = tool.args(["-e", &call("enqueue_backup_job", "backup", "{}")]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not preempt"), "{refused:?}");
}

async fn a_failed_job_is_done_again(flavour: Flavour) {
    let mut app = app(flavour).await;
    app.worker();
    let failed = app.enqueue(&TestRepeatable { dir: Some(app.dir.join("missing")), ..Default::default() }).await;
    app.control_sql(&format!("UPDATE jobs SET max_attempts = 1 WHERE id = {failed}")).await;
    assert_eq!(app.wait(failed).await.state, State::Failed);
    std::fs::create_dir(app.dir.join("missing")).unwrap();
    let ran = app.run_enqueue(&["retry", &failed.to_string(), "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (old, new) = (app.show(failed).await, app.show(failed + 1).await);
    assert_eq!((old.state, new.state), (State::Failed, State::Completed), "{old:#?} {new:#?}");
    assert_eq!(old.payload, new.payload);
    assert!(new.requested_from.ends_with(&format!("again after job {failed}")), "{new:#?}");

    // Two retries while the first one waits are one; a cancelled job may be done again, and goes to the same node.
    let ran = app.run_enqueue(&["backup", "--node", "elsewhere"]);
    let cancelled = ran.out.trim().to_owned();
    assert_eq!(app.run_enqueue(&["cancel", &cancelled]).code, Some(0));
    let (one, two) = (app.run_enqueue(&["retry", &cancelled]), app.run_enqueue(&["retry", &cancelled]));
    assert_eq!((one.code, &one.out), (Some(0), &two.out));
    assert_eq!(app.show(one.out.trim().parse().unwrap()).await.queue, "node:elsewhere");

    let once = app.enqueue(&TestDestructive { dir: app.dir.join("nowhere"), steps: 1, ..Default::default() }).await;
    assert_eq!(app.wait(once).await.state, State::Failed);
    for (id, word) in [
        (once.to_string(), "changes or deletes data"),
        (new.id.to_string(), "is completed: only a job that failed"),
        (one.out.trim().to_owned(), "is available: only a job that failed"),
        ("999999".into(), "does not exist"),
    ] {
        let ran = app.run_enqueue(&["retry", &id]);
        assert!(ran.code == Some(2) && ran.err.contains(word), "{ran:?}");
    }
}

async fn equal_jobs_are_one_while_it_waits(flavour: Flavour) {
    let mut app = app(flavour).await;
    let mut callers = Vec::new();
    for i in 0..20 {
        let mut connection = app.server.connect(Some(&app.control())).await;
        callers.push(tokio::spawn(async move {
            let word = TestUnique { word: "same".into(), ..Default::default() };
            let job = NewJob::new(&word, format!("caller {i}"), "test").unwrap();
            enqueue(&mut connection, &job).await.unwrap()
        }));
    }
    let mut made = Vec::new();
    for caller in callers {
        made.push(caller.await.unwrap());
    }
    assert!(made.iter().all(|m| m.id == made[0].id), "{made:?}");
    assert_eq!(made.iter().filter(|m| !m.existing).count(), 1, "{made:?}");
    // The procedure finds the same job; another payload, another node or a later time is another job.
    let call = |payload: &str, options: &str| {
        let sql = format!("CALL {}.enqueue_backup_job('test_unique', '{payload}', '{options}')", app.control());
        app.server.client(&sql).trim().to_owned()
    };
    assert_eq!(call(r#"{"word": "same", "archive": null}"#, "{}"), format!("{}\t1", made[0].id));
    assert!(call(r#"{"word": "other"}"#, "{}").ends_with("\t0"));
    assert!(call(r#"{"word": "same"}"#, r#"{"node": "b"}"#).ends_with("\t0"));
    assert!(call(r#"{"word": "same"}"#, r#"{"at": "2031-01-01T00:00:00Z"}"#).ends_with("\t0"));
    // Once it has been started, the next one is a job of its own.
    app.worker();
    app.completed(made[0].id).await;
    let next = app.enqueue(&TestUnique { word: "same".into(), ..Default::default() }).await;
    assert!(next > made[0].id);
    app.completed(next).await;
}

async fn a_job_that_runs_too_long_is_stopped(flavour: Flavour) {
    let mut app = app(flavour).await;
    app.worker();
    let id = app.enqueue(&TestDestructive { steps: 1, millis: 60_000, ..destructive(&app) }).await;
    let job = app.wait(id).await;
    assert_eq!(job.state, State::Failed);
    assert!(job.error.as_ref().unwrap().contains("time limit of 15 s"), "{job:#?}");
}

on_both_flavours!(
    it_moves_on_within_a_second_and_in_order,
    a_preempting_job_cancels_repeatable_ones_alone,
    a_failed_job_is_done_again,
    equal_jobs_are_one_while_it_waits,
    a_job_that_runs_too_long_is_stopped,
);
