//! The history: the queries that README.md gives to operators, as written, and what becomes of old history.

use crate::test_app::{TestApp, on_both_flavours, wait_for};
use engine::server::Flavour;
use jobs::{
    backup::Backup,
    component::Component,
    job::Job,
    queue::{
        self, NewJob, enqueue,
        prune::{Pruned, REFERRING, prune},
    },
    schedule::scheduler::tick,
    state::State,
    test_kinds::{TestDestructive, TestNothing, TestRepeatable},
};
use sqlx::MySqlPool;
use std::{collections::BTreeMap, time::Duration};

type Rows = Vec<BTreeMap<String, String>>;

/// README's queries by the question in their first line.
fn readme() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let section = text.split("\n## History by SQL\n").nth(1).expect("the section").split("\n## ").next().unwrap();
    let blocks = section.split("```sql\n").skip(1).map(|b| b.split("```").next().unwrap().to_owned());
    blocks.map(|b| (b.strip_prefix("-- ").expect("a question").split_once('?').expect("a question").0.to_owned(), b)).collect()
}

/// What the server's own client prints for a query, typed in as it stands.
fn ask(app: &TestApp, query: &str) -> Rows {
    let output =
        app.server.tool("mysql").args(["--batch", "--default-character-set=utf8mb4", "-e", query, &app.control()]).output().unwrap();
    assert!(output.status.success(), "{query}\n{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().map(|l| l.split('\t').map(str::to_owned));
    let Some(names) = lines.next() else { return Vec::new() };
    let names: Vec<String> = names.collect();
    lines.map(|values| names.iter().cloned().zip(values).collect()).collect()
}

fn column<'r>(rows: &'r Rows, name: &str) -> Vec<&'r str> {
    rows.iter().map(|r| r[name].as_str()).collect()
}

async fn enqueue_as<J: Job>(app: &TestApp, who: &str, job: &J, change: impl FnOnce(NewJob) -> NewJob) -> u64 {
    let job = change(NewJob::new(job, who, "the test").unwrap());
    enqueue(&mut app.server.connect(Some(&app.control())).await, &job).await.unwrap().id
}

fn backup(components: &[Component]) -> Backup {
    Backup { components: components.to_vec(), label: None }
}

async fn the_queries_of_the_readme(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.control_sql("CREATE TABLE test_effects (job_id BIGINT UNSIGNED PRIMARY KEY, fence BIGINT UNSIGNED NOT NULL)").await;
    app.sql("CREATE TABLE destroyed (job_id BIGINT, fence BIGINT, step INT, PRIMARY KEY (job_id, fence, step))").await;
    let same = |job| job;

    // Jobs of several ends.
    let worker = app.worker_with(&[], &["--concurrency", "1"]);
    let long_ago = enqueue_as(&app, "alice", &backup(&[Component::Uploads]), same).await;
    let whole = enqueue_as(&app, "alice", &backup(&[Component::Database, Component::Uploads]), same).await;
    app.completed(whole).await;
    let aside = app.dir.join("aside");
    std::fs::rename(app.dir.join("root/packages"), &aside).unwrap();
    let partial = enqueue_as(&app, "bob", &backup(&[Component::Uploads, Component::Packages]), same).await;
    assert_eq!(app.wait(partial).await.state, State::CompletedWithWarnings);
    let dir = app.dir.join("effects");
    let destructive = TestDestructive { dir: dir.clone(), steps: 2, ..Default::default() };
    let failed = enqueue_as(&app, "carol", &destructive, same).await;
    assert_eq!(app.wait(failed).await.state, State::Failed);
    std::fs::create_dir(&dir).unwrap();
    let restored = enqueue_as(&app, "dave", &destructive, same).await;
    app.completed(restored).await;
    assert!(app.worker_mut(worker).terminate().success());
    let cancelled = enqueue_as(&app, "erin", &backup(&[Component::Uploads]), same).await;
    assert_eq!(app.run_enqueue(&["cancel", &cancelled.to_string()]).code, Some(0));
    app.control_sql(&format!(
        "UPDATE jobs SET started_at = started_at - INTERVAL 40 DAY, finished_at = finished_at - INTERVAL 40 DAY WHERE id = {long_ago};
         UPDATE archives SET taken_at = taken_at - INTERVAL 40 DAY WHERE job_id = {long_ago}"
    ))
    .await;

    // One runs, and four wait, each for something else.
    let uploads = || vec![Component::Uploads];
    let running = enqueue_as(&app, "frank", &TestRepeatable { millis: 120_000, resources: uploads(), ..Default::default() }, same).await;
    app.worker_with(&[("BACKUP_NODE", "node1")], &["--concurrency", "1"]);
    app.wait_until(running, "run", |j| j.state == State::Running).await;
    let later = |job| NewJob { run_at: Some("2100-01-02T03:04:05Z".parse().unwrap()), ..job };
    let timed = enqueue_as(&app, "grace", &TestNothing::default(), later).await;
    let behind = enqueue_as(&app, "grace", &TestNothing { resources: uploads(), ..Default::default() }, same).await;
    let elsewhere = |job| NewJob { node: Some("elsewhere".into()), ..job };
    let stranded = enqueue_as(&app, "grace", &TestNothing::default(), elsewhere).await;
    let free = enqueue_as(&app, "grace", &TestNothing::default(), same).await;
    app.control_sql("DELETE FROM jobs WHERE kind IN ('notify', 'prune') AND state = 'available'").await;

    let mut queries = readme();
    let mut answer = |question: &str| ask(&app, &queries.remove(question).unwrap_or_else(|| panic!("README.md does not ask: {question}")));
    let id = |id: u64| id.to_string();

    let mut ran = answer("What ran last night");
    // Each good backup has its own.
    ran.retain(|r| r["kind"] != "prune");
    assert_eq!(column(&ran, "id"), [id(whole), id(partial), id(failed), id(restored), id(running)], "{ran:#?}");
    assert_eq!(column(&ran, "state"), ["completed", "completed_with_warnings", "failed", "completed", "running"]);
    assert_eq!((ran[0]["requested_by"].as_str(), ran[0]["kind"].as_str(), ran[0]["node"].as_str()), ("alice", "backup", "node1"));
    assert!(ran.iter().all(|r| r["seconds"].parse::<f64>().unwrap() < 120.0), "{ran:#?}");

    let wrong = answer("What failed, and why");
    assert_eq!(column(&wrong, "id"), [id(failed), id(partial)], "{wrong:#?}");
    assert_eq!(column(&wrong, "requested_by"), ["carol", "bob"]);
    assert!(wrong[0]["error"].contains("No such file") && wrong[1]["error"].contains("packages"), "{wrong:#?}");

    let long = answer("How long do backups take");
    let of = |component: &str| long.iter().find(|r| r["component"] == component).unwrap_or_else(|| panic!("{component}: {long:#?}"));
    assert_eq!((of("uploads")["backups"].as_str(), of("database")["backups"].as_str(), long.len()), ("2", "1", 2), "{long:#?}");
    let longest =
        app.control_value(&format!("SELECT MAX(seconds) FROM archives WHERE component = 'uploads' AND job_id <> {long_ago}")).await;
    assert_eq!(of("uploads")["longest_seconds"], longest);
    let average = |r: &BTreeMap<String, String>| r["average_seconds"].parse::<f64>().unwrap();
    assert!(long.iter().all(|r| average(r) <= r["longest_seconds"].parse::<f64>().unwrap() + 0.05), "{long:#?}");

    let waits = answer("What waits, and for what");
    assert_eq!(column(&waits, "id"), [id(timed), id(behind), id(stranded), id(free)], "{waits:#?}");
    assert_eq!(
        column(&waits, "waits_for"),
        [
            "its time, 2100-01-02 03:04:05",
            &format!("job {running} (test_repeatable, running)"),
            "a worker for queue node:elsewhere",
            "a free worker"
        ]
    );

    let who = answer("Who restored what");
    assert_eq!(column(&who, "id"), [id(restored), id(failed)], "{who:#?}");
    assert_eq!((column(&who, "requested_by"), column(&who, "state")), (vec!["dave", "carol"], vec!["completed", "failed"]));
    assert!(who.iter().all(|r| r["kind"] == "test_destructive" && r["payload"].contains("effects") && r["requested_from"] == "the test"));

    let archives = answer("Which archives are there, and where");
    assert_eq!(archives.len(), 4, "{archives:#?}");
    for archive in &archives {
        assert!(std::path::Path::new(&archive["directory"]).join(&archive["file_name"]).exists(), "{archive:#?}");
    }
    let starts = answer("Where could recovery start");
    assert!(starts.len() == 1 && starts[0]["binlog_file"].starts_with("mysql-bin.") && starts[0]["binlog_pos"] != "NULL", "{starts:#?}");
    assert!(queries.is_empty(), "not tested: {queries:#?}");
}

fn pool(app: &TestApp) -> MySqlPool {
    queue::pool(&app.config().control, 2, Duration::from_secs(60))
}

/// An ended job with an attempt, a line of log and a delivery, that ended so many days ago.
async fn ended(app: &TestApp, kind: &str, days: u32) -> u64 {
    app.control_sql(&format!(
        "INSERT INTO jobs (kind, state, payload, requested_by, requested_from, created_at, attempt, fence, worker_id, node, started_at, finished_at)
         VALUES ('{kind}', 'completed', '{{}}', 'test', 'test', UTC_TIMESTAMP(6) - INTERVAL {days} DAY, 1, 1, 1, 'node1',
                 UTC_TIMESTAMP(6) - INTERVAL {days} DAY, UTC_TIMESTAMP(6) - INTERVAL {days} DAY);
         SET @id = LAST_INSERT_ID();
         INSERT INTO job_attempts VALUES (@id, 1, 1, 1, 'node1', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 'completed', NULL);
         INSERT INTO job_log (job_id, attempt, level, message) VALUES (@id, 1, 'info', 'a line');
         INSERT INTO notification_deliveries (job_id, channel, recipient, outcome) VALUES (@id, 'mail', 'x', 'delivered')"
    ))
    .await;
    app.control_value("SELECT MAX(id) FROM jobs").await.parse().unwrap()
}

async fn ids(app: &TestApp) -> Vec<u64> {
    let text = app.server.client(&format!("SELECT id FROM {}.jobs ORDER BY id", app.control()));
    text.lines().map(|l| l.parse().unwrap()).collect()
}

async fn old_history_goes_and_what_is_needed_stays(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let worker = app.worker();
    let backup = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(backup).await;
    app.until("the notification", || {
        app.server.client(&format!("SELECT COUNT(*) FROM {}.jobs WHERE state IN ('available', 'running')", app.control())).trim() == "0"
    })
    .await;
    assert!(app.worker_mut(worker).terminate().success());
    app.control_sql("DELETE FROM jobs WHERE kind = 'prune'").await;
    let told: u64 = app.control_value("SELECT id FROM jobs WHERE kind = 'notify'").await.parse().unwrap();
    app.control_sql("UPDATE jobs SET finished_at = '2001-01-01'").await;

    let old = ended(&app, "test_repeatable", 401).await;
    let young = ended(&app, "test_repeatable", 399).await;
    let waits = ended(&app, "test_repeatable", 500).await;
    let runs = ended(&app, "test_repeatable", 500).await;
    app.control_sql(&format!(
        "UPDATE jobs SET state = 'available', finished_at = NULL, run_at = '2100-01-01' WHERE id = {waits};
         UPDATE jobs SET state = 'running', finished_at = NULL, lease_until = '2100-01-01' WHERE id = {runs}"
    ))
    .await;
    let (alert, holder) = (ended(&app, "test_repeatable", 500).await, ended(&app, "test_repeatable", 500).await);
    let by_hand = ended(&app, "backup", 500).await;
    let (slot, older_slot) = (ended(&app, "backup", 501).await, ended(&app, "backup", 502).await);
    let newest_backup = ended(&app, "backup", 503).await;
    app.control_sql(&format!(
        "INSERT INTO alerts VALUES ('test', UTC_TIMESTAMP(6), {alert});
         UPDATE resources SET job_id = {holder}, fence = 1 WHERE resource = 'database';
         UPDATE jobs SET slot_key = 'leap_day 2024-02-29T00:00:00Z', slot_at = '2024-02-29' WHERE id = {slot};
         UPDATE jobs SET slot_key = 'leap_day 2020-02-29T00:00:00Z', slot_at = '2020-02-29' WHERE id = {older_slot};
         INSERT INTO schedules (name, cron, kind, payload, enabled, created_by, last_slot, last_job_id)
         VALUES ('leap_day', '0 0 29 2 *', 'backup', '{{}}', TRUE, 'test', '2024-02-29', {by_hand})"
    ))
    .await;
    let (of_archive, of_backup) = (ended(&app, "test_repeatable", 500).await, ended(&app, "test_repeatable", 500).await);
    app.control_sql(&format!(
        "INSERT INTO archives (backup_id, job_id, fence, component, state, node, directory, file_name) VALUES (1, {of_archive}, 1, 'uploads', 'failed', 'node1', '/', 'x');
         INSERT INTO backups (job_id, state, node, stamp, started_at) VALUES ({of_backup}, 'failed', 'node1', '2001-01-01_000000', '2001-01-01')"
    ))
    .await;
    let untold = ended(&app, "test_repeatable", 500).await;
    app.control_sql(&format!(
        "INSERT INTO jobs (kind, payload, requested_by, requested_from, unique_key, run_at)
         VALUES ('notify', '{{\"job\": {untold}}}', 'test', 'test', 'notify:{untold}', '2100-01-01')"
    ))
    .await;
    let telling: u64 = app.control_value("SELECT MAX(id) FROM jobs").await.parse().unwrap();
    let (unique, newest_unique) = (ended(&app, "test_unique", 900).await, ended(&app, "test_unique", 950).await);
    // More lines than one statement deletes.
    app.control_sql(&format!(
        "INSERT INTO job_log (job_id, attempt, level, message) SELECT {old}, 1, 'info', 'x' FROM information_schema.collations a, information_schema.collations b LIMIT 2500"
    ))
    .await;
    let newest_repeatable = ended(&app, "test_repeatable", 600).await;
    // Workers: the first ran all of these; the second is of no use any more; the third is its node's last; the fourth lives.
    app.control_sql(
        "INSERT INTO workers (id, node, pid, pid_started, version, queues, concurrency, started_at, heartbeat_at)
         VALUES (102, 'node2', 1, 1, '0', 'shared', 1, '2020-01-01', UTC_TIMESTAMP(6) - INTERVAL 401 DAY),
                (103, 'node2', 1, 1, '0', 'shared', 1, '2020-01-01', UTC_TIMESTAMP(6) - INTERVAL 401 DAY),
                (104, 'node1', 1, 1, '0', 'shared', 1, '2020-01-01', UTC_TIMESTAMP(6) - INTERVAL 399 DAY);
         UPDATE workers SET heartbeat_at = '2020-01-01' WHERE id = 1",
    )
    .await;

    let before = ids(&app).await;
    let pool = pool(&app);
    assert_eq!(prune(&pool, 0).await.unwrap(), Pruned::default());
    assert_eq!(ids(&app).await, before);
    let pruned = prune(&pool, 400).await.unwrap();

    let gone = [told, old, older_slot, unique];
    let kept = [
        backup,
        young,
        waits,
        runs,
        alert,
        holder,
        by_hand,
        slot,
        newest_backup,
        of_archive,
        of_backup,
        untold,
        telling,
        newest_unique,
        newest_repeatable,
    ];
    let mut left = kept.to_vec();
    left.sort_unstable();
    assert_eq!(ids(&app).await, left, "{pruned:?}");
    assert_eq!(pruned, Pruned { jobs: gone.len() as u64, workers: 1 });
    assert_eq!(app.control_value("SELECT GROUP_CONCAT(id ORDER BY id) FROM workers").await, "1,103,104");
    for table in ["job_attempts", "job_log", "notification_deliveries"] {
        let left = format!("SELECT COUNT(*) FROM {table} WHERE job_id IN ({})", gone.map(|id| id.to_string()).join(", "));
        assert_eq!(app.control_value(&left).await, "0", "{table}");
        assert_eq!(app.control_value(&format!("SELECT COUNT(*) FROM {table} WHERE job_id = {young}")).await, "1", "{table}");
    }
    // A slot has one job ever, whatever somebody writes into `next_run`.
    app.control_sql("UPDATE schedules SET next_run = '2024-02-29' WHERE name = 'leap_day'").await;
    assert_eq!(tick(&pool, "node1").await.unwrap(), []);
    assert_eq!(ids(&app).await, left);
    assert_eq!(prune(&pool, 400).await.unwrap(), Pruned::default());
}

/// Whoever adds a reference to a job says here what pruning does about it.
async fn every_reference_to_a_job_is_known(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let columns = format!(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
          WHERE c.table_schema = '{0}' AND c.column_name LIKE '%job\\_id' AND t.table_type = 'BASE TABLE'
            AND NOT EXISTS (SELECT 1 FROM information_schema.key_column_usage k
                              JOIN information_schema.referential_constraints r USING (constraint_schema, constraint_name)
                             WHERE k.table_schema = '{0}' AND k.table_name = c.table_name AND k.column_name = c.column_name AND r.delete_rule = 'CASCADE')
          ORDER BY 1, 2",
        app.control()
    );
    let found = app.server.client(&columns);
    let known: String = REFERRING.iter().map(|(table, column)| format!("{table}\t{column}\n")).collect();
    assert_eq!(found, known);
}

async fn workers_prune_at_once_without_tripping(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    ended(&app, "test_nothing", 501).await;
    // Doubled twelve times: 4,096.
    for _ in 0..12 {
        app.control_sql(
            "INSERT INTO jobs (kind, state, payload, requested_by, requested_from, started_at, finished_at)
             SELECT kind, state, payload, requested_by, requested_from, started_at, finished_at FROM jobs",
        )
        .await;
    }
    app.control_sql("INSERT INTO job_log (job_id, attempt, level, message) SELECT id, 1, 'info', 'a line' FROM jobs").await;
    let newest: u64 = app.control_value("SELECT MAX(id) FROM jobs").await.parse().unwrap();
    let young = app.enqueue(&TestNothing::default()).await;
    for _ in 0..4 {
        app.worker_with(&[("BACKUP_HISTORY_DAYS", "500"), ("BACKUP_MAX_AGE_HOURS", "0")], &[]);
    }
    app.until("the history to be pruned", || {
        app.server.client(&format!("SELECT COUNT(*) FROM {}.jobs WHERE id <= {newest}", app.control())).trim() == "0"
    })
    .await;
    app.completed(young).await;
    assert_eq!(ids(&app).await, [young]);
    assert_eq!(app.control_value("SELECT COUNT(*) FROM job_log").await, "0");
    wait_for("a worker to say what it pruned", Duration::from_secs(5), || {
        (0..4).any(|w| app.worker_mut(w).log().contains("pruned history"))
    });
    for worker in 0..4 {
        let log = app.worker_mut(worker).log();
        assert!(!log.contains("cannot prune"), "{log}");
    }
}

async fn by_default_history_stays_for_400_days(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let gone = ended(&app, "test_nothing", 401).await;
    let stays = ended(&app, "test_nothing", 399).await;
    let newest = ended(&app, "test_nothing", 1).await;
    app.worker();
    app.until("the worker to prune", || {
        !app.server.client(&format!("SELECT id FROM {}.jobs", app.control())).lines().any(|l| l == gone.to_string())
    })
    .await;
    assert_eq!(ids(&app).await, [stays, newest]);
}

on_both_flavours!(
    the_queries_of_the_readme,
    old_history_goes_and_what_is_needed_stays,
    every_reference_to_a_job_is_known,
    workers_prune_at_once_without_tripping,
    by_default_history_stays_for_400_days,
);
