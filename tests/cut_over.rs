//! The cut-over: whatever dies, the live database is wholly the old or wholly the new one after the next worker's start; and
//! whoever is in the way is named, with nothing changed.

use crate::{
    load::{everything, everything_on},
    restore::{back_up, damage, made, patient, restore},
    test_app::{OwnServer, TestApp, TestServer, on_both_flavours, wait_for},
};
use engine::server::Flavour;
use futures::{StreamExt, stream};
use jobs::{
    component::Component,
    failpoint,
    queue::history::JobRow,
    restore::Restore,
    restore_plan::RestorePlan,
    state::State,
    test_kinds::{TestNothing, TestRepeatable},
};
use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A damaged database, and the plan to restore it; no worker runs.
struct Case {
    app: TestApp,
    backed_up: Vec<String>,
    damaged: Vec<String>,
    apply: Restore,
}

impl Case {
    async fn on(server: TestServer, settings: &[(&str, &str)]) -> Self {
        let mut app = TestApp::on(server).await;
        for (name, value) in settings {
            app.set(name, *value);
        }
        let worker = app.worker();
        let backed_up = everything(&app, &app.schema()).await;
        let archive = back_up(&app).await;
        damage(&app).await;
        let damaged = everything(&app, &app.schema()).await;
        let apply = plan(&app, RestorePlan { archive, ..Default::default() }).await;
        app.worker_mut(worker).kill();
        Self { app, backed_up, damaged, apply }
    }

    /// Whether each table's rows are the old or the new ones, right now.
    fn rows_are_old_or_new(&self, case: &str) {
        let rows = |sql: &str| self.app.server.client(&sql.replace("APP", &self.app.schema())).trim().to_owned();
        let items = rows("SELECT GROUP_CONCAT(id ORDER BY id), MAX(title = 'overwritten') FROM APP.item");
        assert!(["1\t1", "1,2\t0"].contains(&&*items), "{case}: {items}");
        let notes = rows("SELECT COUNT(*) FROM APP.note");
        assert!(["0", "1"].contains(&&*notes), "{case}: {notes}");
    }

    /// Waits until the job is over, its cut-over ended and everything swept.
    async fn settled(&self, id: u64) -> JobRow {
        let job = self.app.wait(id).await;
        let open = format!("SELECT COUNT(*) FROM {}.cut_overs WHERE state = 'open'", self.app.control());
        self.app.until("the cut-over to be ended", || self.app.server.client(&open).trim() == "0").await;
        let undo = format!("{}_bk_undo_{id}", self.app.name);
        self.app.until("our schemas to be swept", || made(&self.app).iter().all(|s| *s == undo)).await;
        drop(job);
        self.app.show(id).await
    }

    /// The live database is wholly one or the other. Returns whether it is the new one.
    async fn is_new(&self, id: u64, case: &str) -> bool {
        let now = everything(&self.app, &self.app.schema()).await;
        let new = now == self.backed_up;
        assert!(new || now == self.damaged, "{case}: neither old nor new:\n{now:#?}\nold: {:#?}\nnew: {:#?}", self.damaged, self.backed_up);
        let kept = made(&self.app);
        if new {
            assert_eq!(kept, [format!("{}_bk_undo_{id}", self.app.name)], "{case}");
            let backups = self.app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'backup'").await;
            assert_eq!(backups, "2", "{case}: one backup before, one after");
        } else {
            assert!(kept.is_empty(), "{case}: {kept:?}");
        }
        assert_eq!(self.app.control_value("SELECT COUNT(*) FROM made_schemas").await, kept.len().to_string(), "{case}");
        let shown = self.app.run_enqueue(&["show", &id.to_string()]).out;
        let began = self.app.control_value("SELECT COUNT(*) FROM cut_overs").await == "1";
        let words = if new { "done; what it replaced is kept until" } else { "is as it was before" };
        let words = if began { words } else { "the live database was not touched" };
        assert!(shown.contains(words) || shown.contains("done ("), "{case}: {shown}");
        new
    }
}

/// Has the plan made and returns what applies it.
async fn plan(app: &TestApp, request: RestorePlan) -> Restore {
    let id = app.enqueue(&request).await;
    let job = app.wait(id).await;
    assert!(job.error.is_none(), "{job:#?}");
    Restore::of(id, job.result.unwrap()["evidence"].as_str().unwrap(), request)
}

/// Every place of a restore, and of the end of its job.
fn places() -> Vec<(&'static str, Option<bool>)> {
    let renamed = failpoint::RESTORE.iter().position(|p| *p == "cut_over_renamed").unwrap();
    let places = failpoint::RESTORE.into_iter().enumerate().map(|(at, p)| (p, Some(at >= renamed)));
    places
        .chain([failpoint::AFTER_WORK, failpoint::IN_FINAL_TRANSACTION, failpoint::AFTER_FINAL_TRANSACTION].map(|p| (p, Some(true))))
        .collect()
}

async fn a_worker_is_killed_at_each_step(flavour: Flavour) {
    let run = |(point, new): (&'static str, Option<bool>)| {
        Box::pin(async move {
            let case = format!("kill at {point}, {flavour}");
            let mut it = Case::on(TestServer::shared(flavour), &[("BACKUP_LEASE", "6")]).await;
            let id = it.app.enqueue(&it.apply).await;
            let hit = it.app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=kill"))], &[]);
            let pid = it.app.worker_mut(hit).pid();
            let dead = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z"));
            it.app.until(&format!("{case}: the worker to die"), dead).await;
            it.rows_are_old_or_new(&case);
            it.app.worker();
            let job = it.settled(id).await;
            let expected = if point == failpoint::AFTER_FINAL_TRANSACTION { State::Completed } else { State::Failed };
            assert_eq!(job.state, expected, "{case}: {job:#?}");
            let is_new = it.is_new(id, &case).await;
            assert_eq!(Some(is_new), new, "{case}");
            if job.state == State::Failed && point.starts_with("cut_over") {
                let words = if is_new { "a worker finished what was begun" } else { "a worker reverted what was begun" };
                assert!(job.error.as_ref().unwrap().contains(words), "{case}: {job:#?}");
            }
        })
    };
    stream::iter(places().into_iter().map(run)).for_each_concurrent(4, |case| case).await;
}

async fn the_server_is_killed_at_each_step(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    // All backups first: a held cut-over holds locks that a backup would wait for.
    let cases = failpoint::RESTORE.map(|point| {
        let server = own.0.clone();
        Box::pin(async move { (Case::on(server, &[("BACKUP_LEASE", "30")]).await, point) })
    });
    let cases: Vec<_> = stream::iter(cases).buffer_unordered(4).collect().await;
    let mut held = Vec::new();
    for (mut it, point) in cases {
        let go = it.app.dir.join("go");
        let id = it.app.enqueue(&it.apply).await;
        it.app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=hold:{}", go.display()))], &["--concurrency", "1"]);
        held.push((it, id, point, go));
    }
    for (it, _, point, go) in &held {
        let mark = PathBuf::from(format!("{}.held", go.display()));
        it.app.until(&format!("{point} to be reached"), || mark.exists()).await;
    }
    own.kill();
    own.restart();
    for (it, _, point, go) in &held {
        it.rows_are_old_or_new(point);
        std::fs::write(go, "").unwrap();
    }
    for (it, id, point, _) in &held {
        let case = format!("server killed at {point}, {flavour}");
        let job = it.settled(*id).await;
        let new = it.is_new(*id, &case).await;
        let done = [State::Completed, State::CompletedWithWarnings].contains(&job.state);
        assert!(!done || new, "{case}: {job:#?}");
        assert!(job.state == State::Failed || done, "{case}: {job:#?}");
    }
    drop(held);
}

async fn random_kills_leave_the_old_or_the_new(flavour: Flavour) {
    let kills = if std::env::var_os("HERATIO_TEST_LONG").is_some() { 100 } else { 2 };
    let mut random = std::process::id() as usize;
    println!("{kills} kills, seed {random}");
    let (mut old, mut new) = (0, 0);
    for kill in 0..kills {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut it = Case::on(TestServer::shared(flavour), &[("BACKUP_LEASE", "6")]).await;
        let id = it.app.enqueue(&it.apply).await;
        let worker = it.app.worker();
        it.app.wait_until(id, "run", |j| j.state != State::Available).await;
        tokio::time::sleep(Duration::from_millis((random >> 33) as u64 % 900)).await;
        it.app.worker_mut(worker).kill();
        let case = format!("random kill {kill}, {flavour}");
        it.rows_are_old_or_new(&case);
        it.app.worker();
        it.settled(id).await;
        if it.is_new(id, &case).await { new += 1 } else { old += 1 }
    }
    println!("{kills} kills: {old} left the old database, {new} the new one");
}

async fn readers_see_old_or_new_rows_at_every_instant(flavour: Flavour) {
    let mut it = Case::on(TestServer::shared(flavour), &[("BACKUP_LEASE", "30")]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (stop, server, schema) = (stop.clone(), it.app.server.clone(), it.app.schema());
        tokio::spawn(async move {
            let mut connection = server.connect(Some(&schema)).await;
            let (mut seen, mut looks) = (Vec::new(), 0u64);
            while !stop.load(Ordering::Relaxed) {
                let sql = "SELECT COALESCE(GROUP_CONCAT(title ORDER BY id), '') FROM item";
                let titles: String = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("the table is there at every instant");
                if seen.last() != Some(&titles) {
                    seen.push(titles);
                }
                looks += 1;
            }
            (seen, looks)
        })
    };
    it.app.worker();
    let id = it.app.enqueue(&it.apply).await;
    it.app.completed(id).await;
    stop.store(true, Ordering::Relaxed);
    let (seen, looks) = reader.await.unwrap();
    assert_eq!(seen, ["overwritten", "first,второй \u{1f600}"], "{looks} looks");
}

async fn a_blocker_is_named_and_nothing_is_changed(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut it = Case::on(own.0.clone(), &[("BACKUP_CUT_OVER_WAIT", "1")]).await;
    let mut blocker = it.app.server.connect(Some(&it.app.schema())).await;
    let session: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut blocker).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM item").execute(&mut blocker).await.unwrap();
    it.app.worker();
    let id = it.app.enqueue(&it.apply).await;
    let job = it.settled(id).await;
    assert_eq!(job.state, State::Failed, "{job:#?}");
    let error = job.error.clone().unwrap();
    for words in ["within 1 s", &format!("blocked by session {session}"), "3 times", "is as it was before"] {
        assert!(error.contains(words), "`{words}` is not in {error}");
    }
    assert!(!it.is_new(id, "a blocker").await);
    drop(blocker);
    // Once it is gone, the same can be done.
    let again = plan(&it.app, RestorePlan { archive: it.apply.archive.clone(), ..Default::default() }).await;
    let id = it.app.enqueue(&again).await;
    it.app.completed(id).await;
    assert_eq!(everything(&it.app, &it.app.schema()).await, it.backed_up);
}

async fn foreign_keys_from_elsewhere_are_refused_or_made_again(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    damage(&app).await;
    let (shop, schema) = (format!("{}_shop", app.name), app.schema());
    app.server.client(&format!(
        "CREATE DATABASE {shop}; CREATE TABLE {shop}.sold (item_id INT, CONSTRAINT of_item FOREIGN KEY (item_id) REFERENCES {schema}.item (id) ON DELETE CASCADE);
         INSERT INTO {shop}.sold VALUES (1); CREATE VIEW {shop}.titles AS SELECT title FROM {schema}.item"
    ));
    let (ran, _) = restore(&app, &[&archive]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for words in ["of_item", &shop, "--relink", &format!("view `{shop}`.`titles`")] {
        assert!(ran.out.contains(words), "`{words}` is not in {ran:?}");
    }
    let (ran, job) = restore(&app, &[&archive, "--relink"]).await;
    assert_eq!(job.state, State::CompletedWithWarnings, "{ran:?}");
    let refers = "SELECT CONCAT(unique_constraint_schema, ' ', delete_rule) FROM information_schema.referential_constraints WHERE constraint_name = 'of_item'";
    assert_eq!(app.server.client(refers).trim(), format!("{schema} CASCADE"));
    assert_eq!(app.server.client(&format!("SELECT COUNT(*) FROM {shop}.titles")).trim(), "2");
    app.server.client(&format!("DROP DATABASE {shop}"));
}

/// A hook that says when it was called, and then does this.
fn hook(app: &TestApp, then: &str) -> String {
    let path = app.dir.join("hook");
    let script =
        format!("#!/bin/sh\necho \"$BACKUP_RESTORE_WHEN $BACKUP_RESTORE_OUTCOME $1\" >>{}\n{then}\n", app.dir.join("hooked").display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn hooked(app: &TestApp) -> String {
    std::fs::read_to_string(app.dir.join("hooked")).unwrap_or_default()
}

async fn hooks_run_fail_and_hang(flavour: Flavour) {
    let mut it = Case::on(TestServer::shared(flavour), &[("BACKUP_HOOK_SECONDS", "1"), ("BACKUP_LEASE", "30")]).await;
    let before = "test $BACKUP_RESTORE_WHEN = after ||";
    for (then, words) in [
        (format!("{before} {{ echo no maintenance >&2; exit 7; }}"), "no maintenance"),
        (format!("{before} sleep 60"), "did not end within 1 s"),
    ] {
        let program = hook(&it.app, &then);
        it.app.set("BACKUP_PRE_RESTORE_HOOK", format!("{program} one"));
        it.app.set("BACKUP_POST_RESTORE_HOOK", format!("{program} two"));
        let worker = it.app.worker();
        let apply = plan(&it.app, RestorePlan { archive: it.apply.archive.clone(), ..Default::default() }).await;
        let id = it.app.enqueue(&apply).await;
        let job = it.settled(id).await;
        let error = job.error.clone().unwrap_or_default();
        assert!(job.state == State::Failed && error.contains(words) && error.contains("as it was before"), "{job:#?}");
        assert_eq!(hooked(&it.app), "before  one\nafter reverted two\n");
        assert_eq!(everything(&it.app, &it.app.schema()).await, it.damaged);
        assert!(made(&it.app).is_empty());
        it.app.worker_mut(worker).kill();
        std::fs::remove_file(it.app.dir.join("hooked")).unwrap();
    }
    // One that hangs afterwards undoes nothing.
    hook(&it.app, "test $BACKUP_RESTORE_WHEN = before || sleep 60");
    it.app.worker();
    let apply = plan(&it.app, RestorePlan { archive: it.apply.archive.clone(), ..Default::default() }).await;
    let id = it.app.enqueue(&apply).await;
    let job = it.app.wait(id).await;
    assert_eq!(job.state, State::CompletedWithWarnings, "{job:#?}");
    assert_eq!(hooked(&it.app), "before  one\nafter done two\n");
    assert_eq!(everything(&it.app, &it.app.schema()).await, it.backed_up);
}

async fn a_read_only_server_is_refused(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut app = TestApp::on(own.0.clone()).await;
    app.worker();
    let archive = back_up(&app).await;
    own.0.client("SET GLOBAL read_only = ON");
    let (ran, _) = restore(&app, &[&archive]).await;
    assert!(ran.code == Some(2) && ran.out.contains("read_only"), "{ran:?}");
    own.0.client("SET GLOBAL read_only = OFF");
}

/// Waits until the replica has done all that the source has written.
async fn catch_up(source: &TestServer, replica: &TestServer) {
    let mark = format!("m{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros());
    source.client(&format!("CREATE DATABASE IF NOT EXISTS marks; CREATE TABLE marks.{mark} (id INT PRIMARY KEY)"));
    wait_for("the replica to catch up", Duration::from_secs(30), || {
        replica
            .client(&format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'marks' AND table_name = '{mark}'"))
            .trim()
            == "1"
    });
    source.client(&format!("DROP TABLE marks.{mark}"));
}

async fn a_replica_follows_and_is_itself_refused(flavour: Flavour) {
    let (source, replica) = (OwnServer::start(flavour), OwnServer::start(flavour));
    source.0.client("CREATE USER follower@'127.0.0.1' IDENTIFIED BY 'x'; GRANT REPLICATION SLAVE ON *.* TO follower@'127.0.0.1'");
    let port = source.0.port;
    replica.0.client(&match flavour {
        Flavour::MySql => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'follower', SOURCE_PASSWORD = 'x', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA"
        ),
        Flavour::MariaDb => format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'follower', MASTER_PASSWORD = 'x', MASTER_USE_GTID = slave_pos; START SLAVE"
        ),
    });
    let mut app = TestApp::on(source.0.clone()).await;
    app.worker();
    let archive = back_up(&app).await;
    let backed_up = everything(&app, &app.schema()).await;
    damage(&app).await;
    let (ran, job) = restore(&app, &[&archive]).await;
    assert_eq!(job.state, State::Completed, "{ran:?}");
    catch_up(&source.0, &replica.0).await;
    let undone = app.run_enqueue(&["undo", &job.id.to_string(), "--yes", "--wait"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    let undo: u64 = app.control_value("SELECT MAX(id) FROM jobs WHERE kind = 'undo'").await.parse().unwrap();
    let redone = app.run_enqueue(&["undo", &undo.to_string(), "--yes", "--wait"]);
    assert_eq!(redone.code, Some(0), "{redone:?}");
    catch_up(&source.0, &replica.0).await;

    // A replica may have an event switched off, so that it does not fire twice.
    let alike = |all: Vec<String>| -> Vec<String> {
        all.into_iter().map(|d| ["DISABLE ON SLAVE", "DISABLE ON REPLICA"].iter().fold(d, |d, off| d.replace(off, "ENABLE"))).collect()
    };
    assert_eq!(alike(everything_on(&replica.0, &app.schema()).await), alike(backed_up));
    let undo = &made(&app)[0];
    assert_eq!(everything_on(&replica.0, undo).await, everything(&app, undo).await);

    let path = app.backups_dir().join(&archive);
    let url = |server: &TestServer, schema: String| format!("mysql://root@localhost/{schema}?socket={}", server.socket.display());
    app.set("HERATIO_DATABASE_URL", url(&replica.0, app.schema()));
    app.worker_with(&[("BACKUP_NODE", "node2")], &[]);
    let ran = app.run_enqueue(&["restore", path.to_str().unwrap(), "--node", "node2", "--dry-run"]);
    assert!(ran.code == Some(2) && ran.out.contains("is a replica"), "{ran:?}");
}

async fn a_restore_may_preempt(flavour: Flavour) {
    let mut app = patient(flavour).await;
    app.worker();
    let archive = back_up(&app).await;
    damage(&app).await;
    let slow = app.enqueue(&TestRepeatable { millis: 60_000, resources: vec![Component::Database], ..Default::default() }).await;
    app.wait_until(slow, "run", |j| j.state == State::Running).await;
    let (ran, job) = restore(&app, &[&archive, "--preempt"]).await;
    assert_eq!((ran.code, job.state), (Some(0), State::Completed), "{ran:?}");
    let slow = app.show(slow).await;
    assert!(slow.state == State::Cancelled && slow.error.as_ref().unwrap().contains(&format!("job {}", job.id)), "{slow:#?}");
}

/// While a cut-over is open and its job over, nothing is done to the database.
async fn jobs_on_the_database_wait_for_an_open_cut_over(flavour: Flavour) {
    let mut it = Case::on(TestServer::shared(flavour), &[("BACKUP_LEASE", "30")]).await;
    let id = it.app.enqueue(&TestNothing { resources: vec![Component::Database], ..Default::default() }).await;
    let other = it.app.enqueue(&TestNothing { resources: vec![Component::Uploads], ..Default::default() }).await;
    // One that nobody can end: its schema does not exist.
    it.app
        .control_sql(&format!(
            "INSERT INTO cut_overs (job_id, kind, schema_name, stage_schema, undo_schema, step, facts)
             VALUES ({}, 'restore', '{1}_gone', '{1}_bk_stage_9', '{1}_bk_undo_9', 'rename', '{{\"moves\": {{\"old\": [\"a\"], \"new\": []}}, \"collation\": \"utf8mb4_bin\"}}')",
            it.apply.plan, it.app.name
        ))
        .await;
    it.app.worker();
    it.app.completed(other).await;
    it.app
        .until("a worker to have tried", || {
            it.app.server.client(&format!("SELECT COALESCE(note, '') FROM {}.cut_overs", it.app.control())).contains("does not exist")
        })
        .await;
    assert_eq!(it.app.show(id).await.state, State::Available);
    let shown = it.app.run_enqueue(&["show", &id.to_string()]).out;
    assert!(shown.contains(&format!("interrupted cut-over of job {}", it.apply.plan)), "{shown}");
    let shown = it.app.run_enqueue(&["show", &it.apply.plan.to_string()]).out;
    assert!(shown.contains("interrupted at step `rename`") && shown.contains("Next:"), "{shown}");
    it.app.control_sql("UPDATE cut_overs SET state = 'reverted'").await;
    it.app.completed(id).await;
}

on_both_flavours!(
    a_worker_is_killed_at_each_step,
    the_server_is_killed_at_each_step,
    random_kills_leave_the_old_or_the_new,
    readers_see_old_or_new_rows_at_every_instant,
    a_blocker_is_named_and_nothing_is_changed,
    foreign_keys_from_elsewhere_are_refused_or_made_again,
    hooks_run_fail_and_hang,
    a_read_only_server_is_refused,
    a_replica_follows_and_is_itself_refused,
    a_restore_may_preempt,
    jobs_on_the_database_wait_for_an_open_cut_over,
);
