//! Schedules: `enqueue schedule`, and `worker run --scheduler`.
//!
//! The scheduler's only clock is `UTC_TIMESTAMP` of its session, so a session with `SET timestamp` is at any time we like.

use crate::test_app::{TestApp, on_both_flavours};
use chrono::{DateTime, TimeDelta, Utc};
use engine::server::Flavour;
use jobs::{
    migrate::migrate,
    schedule::{
        self,
        scheduler::{Served, tick},
    },
};
use sqlx::{AssertSqlSafe, Executor, MySqlPool, mysql::MySqlPoolOptions};

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// Sessions on the control schema at which it is `time`; it stands still.
async fn at(app: &TestApp, time: &str) -> MySqlPool {
    let sql = format!("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET timestamp = {}", utc(time).timestamp());
    let options = app.config().control.connect_options().database(&app.control());
    MySqlPoolOptions::new()
        .max_connections(2)
        .after_connect(move |connection, _| {
            let sql = sql.clone();
            Box::pin(async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop) })
        })
        .connect_with(options)
        .await
        .unwrap()
}

async fn tick_at(app: &TestApp, time: &str) -> Vec<Served> {
    tick(&at(app, time).await, "node1").await.unwrap()
}

/// A schedule of uploads, made by hand as an operator may do it.
async fn insert(app: &TestApp, name: &str, cron: &str, zone: &str, next_run: &str) {
    app.control_sql(&format!(
        "INSERT INTO schedules (name, cron, timezone, kind, payload, enabled, created_by, next_run)
         VALUES ('{name}', '{cron}', '{zone}', 'backup', '{{\"components\": [\"uploads\"]}}', TRUE, 'test', {next_run})"
    ))
    .await;
}

async fn finish_all_jobs(app: &TestApp) {
    app.control_sql("UPDATE jobs SET state = 'completed', finished_at = UTC_TIMESTAMP(6)").await;
}

/// Waits until some schedule has enqueued a job.
async fn job_of(app: &TestApp) -> u64 {
    for _ in 0..600 {
        if let Ok(id) = app.control_value("SELECT MAX(last_job_id) FROM schedules").await.parse() {
            return id;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no schedule enqueued a job within 30 s");
}

const SLOTS: &str = "SELECT GROUP_CONCAT(DATE_FORMAT(slot_at, '%m-%d %H:%i') ORDER BY slot_at) FROM jobs";

async fn what_is_ready_made_is_off(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let row = "SELECT CONCAT_WS('|', cron, timezone, kind, payload, enabled) FROM schedules WHERE name = 'nightly-backup'";
    assert_eq!(app.control_value(row).await, "0 2 * * *|UTC|backup|{}|0");
    app.control_sql("UPDATE schedules SET cron = '30 4 * * *', enabled = TRUE WHERE name = 'nightly-backup'").await;
    migrate(&app.config()).await.unwrap();
    assert_eq!(app.control_value(row).await, "30 4 * * *|UTC|backup|{}|1");
    let drill = "SELECT CONCAT_WS('|', cron, kind, payload, enabled) FROM schedules WHERE name = 'weekly-drill'";
    assert_eq!(app.control_value(drill).await, r#"0 5 * * 0|verify|{"drill": true}|0"#);
    assert_eq!(app.control_value("SELECT COUNT(*) FROM schedules").await, "2");
}

async fn twenty_schedulers_make_one_job_per_slot(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    for name in ["a", "b", "c"] {
        insert(&app, name, "0 2 * * *", "UTC", "'2026-11-24 02:00:00'").await;
    }
    for day in 24..27 {
        let mut pools = Vec::new();
        for second in 0..20 {
            pools.push(at(&app, &format!("2026-11-{day}T02:00:{second:02}Z")).await);
        }
        let ticks: Vec<_> = pools.into_iter().map(|pool| tokio::spawn(async move { tick(&pool, "node1").await.unwrap() })).collect();
        let mut jobs = 0;
        for one in ticks {
            jobs += one.await.unwrap().iter().filter(|s| s.job.is_some()).count();
        }
        // A schedule that was busy is served at the next look.
        jobs += tick_at(&app, &format!("2026-11-{day}T02:00:30Z")).await.len();
        assert_eq!(jobs, 3, "day {day}");
        finish_all_jobs(&app).await;
    }
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs").await, "9");
    assert_eq!(app.control_value("SELECT COUNT(DISTINCT slot_key) FROM jobs").await, "9");
    assert_eq!(app.control_value("SELECT COUNT(*) FROM job_resources").await, "9");
}

async fn schedulers_in_workers(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    insert(&app, "minutely", "* * * * *", "UTC", "UTC_TIMESTAMP(6) - INTERVAL 5 MINUTE").await;
    for _ in 0..3 {
        app.worker_with(&[], &["--scheduler"]);
    }
    let job = job_of(&app).await;
    let job = app.completed(job).await;
    assert!(job.requested_by.starts_with("schedule minutely (slot 20"), "{job:#?}");
    // The minute may have changed since the row was made.
    assert!(job.requested_by.ends_with("4 more missed)") || job.requested_by.ends_with("5 more missed)"), "{job:#?}");
    assert_eq!(job.requested_from, "scheduler on node1");
    // The minute may have changed meanwhile; then there is a second one, for another slot.
    let slots = app.control_value("SELECT COUNT(DISTINCT slot_at) FROM jobs").await;
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs WHERE kind NOT IN ('notify', 'prune')").await, slots);
}

async fn missed_slots_run_once_late_and_marked(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let pool = at(&app, "2026-11-21T12:00:00Z").await;
    let next = schedule::enable(&mut pool.acquire().await.unwrap(), "nightly-backup").await.unwrap();
    assert_eq!(next, utc("2026-11-22T02:00:00Z"));
    assert_eq!(tick_at(&app, "2026-11-22T01:59:59Z").await, []);
    // Down until the 24th, 05:00.
    let served = tick_at(&app, "2026-11-24T05:00:00Z").await;
    assert_eq!(served.len(), 1, "{served:?}");
    let job = app.show(served[0].job.unwrap()).await;
    assert_eq!(job.requested_by, "schedule nightly-backup (slot 2026-11-24T02:00:00Z, 3 h late, 2 more missed)");
    assert_eq!(job.payload, serde_json::json!({}));
    assert_eq!(
        app.control_value("SELECT CONCAT_WS('|', slot_key, slot_at, slots_missed) FROM jobs").await,
        "nightly-backup 2026-11-24T02:00:00Z|2026-11-24 02:00:00.000000|2"
    );
    assert_eq!(
        app.control_value("SELECT GROUP_CONCAT(resource ORDER BY resource) FROM job_resources").await,
        "database,framework,packages,uploads"
    );
    let row =
        "SELECT CONCAT_WS('|', next_run, last_slot, last_missed, last_job_id, last_run, note) FROM schedules WHERE name = 'nightly-backup'";
    assert_eq!(
        app.control_value(row).await,
        format!(
            "2026-11-25 02:00:00.000000|2026-11-24 02:00:00.000000|2|{}|2026-11-24 05:00:00.000000|slot 2026-11-24T02:00:00Z, 3 h late, 2 more missed",
            job.id
        )
    );
    finish_all_jobs(&app).await;
    assert_eq!(tick_at(&app, "2026-11-24T05:00:01Z").await, []);
    // On time again: nothing is marked.
    let served = tick_at(&app, "2026-11-25T02:00:02Z").await;
    assert_eq!(app.show(served[0].job.unwrap()).await.requested_by, "schedule nightly-backup (slot 2026-11-25T02:00:00Z)");
    assert_eq!(app.control_value("SELECT note FROM schedules WHERE name = 'nightly-backup'").await, "NULL");
}

async fn jobs_do_not_pile_up(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    insert(&app, "hourly", "0 * * * *", "UTC", "'2026-11-24 02:00:00'").await;
    let first = tick_at(&app, "2026-11-24T02:00:05Z").await[0].job.unwrap();
    let served = tick_at(&app, "2026-11-24T03:00:05Z").await;
    let note = format!("slot 2026-11-24T03:00:00Z left out: job {first} was still available");
    assert_eq!(served, [Served { schedule: "hourly".into(), job: None, note: Some(note.clone()) }]);
    assert_eq!(app.control_value("SELECT note FROM schedules WHERE name = 'hourly'").await, note);
    let ran = app.run_enqueue(&["schedule", "run", "hourly"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains(&format!("job {first} is still available")), "{ran:?}");
    app.control_sql("INSERT INTO workers VALUES (1, 'node1', 1, 1, '', '', 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), NULL)").await;
    app.control_sql(
        "UPDATE jobs SET state = 'running', worker_id = 1, node = 'node1', lease_until = '2031-01-01', started_at = UTC_TIMESTAMP(6)",
    )
    .await;
    let served = tick_at(&app, "2026-11-24T04:00:05Z").await;
    assert!(served[0].note.as_ref().unwrap().ends_with("was still running"), "{served:?}");
    // What was left out stays so once the job is over; the next slot is served.
    finish_all_jobs(&app).await;
    assert_eq!(tick_at(&app, "2026-11-24T04:30:00Z").await, []);
    assert!(tick_at(&app, "2026-11-24T05:00:00Z").await[0].job.is_some());
    assert_eq!(app.control_value(SLOTS).await, "11-24 02:00,11-24 05:00");
    assert_eq!(app.control_value("SELECT GROUP_CONCAT(slots_missed) FROM jobs").await, "0,0");
}

async fn clocks_that_change_in_spring_and_autumn(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    for (name, cron) in [("night", "30 2 * * *"), ("half-hourly", "*/30 2,3 * * *")] {
        insert(&app, name, cron, "Europe/Paris", "NULL").await;
    }
    for (from, to) in [("2026-03-28T12:00:00Z", "2026-03-29T03:00:00Z"), ("2026-10-24T12:00:00Z", "2026-10-25T03:00:00Z")] {
        // As after an edit: nothing of the months between is made up for.
        app.control_sql("UPDATE schedules SET next_run = NULL").await;
        let mut time = utc(from);
        while time < utc(to) {
            tick_at(&app, &time.to_rfc3339()).await;
            finish_all_jobs(&app).await;
            time += TimeDelta::minutes(30);
        }
    }
    let of = |name: &str| format!("{SLOTS} WHERE slot_key LIKE '{name} %'");
    // Spring: 02:30 does not exist, so 03:00+02:00. Autumn: the first 02:30.
    assert_eq!(app.control_value(&of("night")).await, "03-29 01:00,10-25 00:30");
    // Spring: 03:00 and 03:30 are left. Autumn: 02:00 and 02:30 twice.
    assert_eq!(
        app.control_value(&of("half-hourly")).await,
        "03-29 01:00,03-29 01:30,10-25 00:00,10-25 00:30,10-25 01:00,10-25 01:30,10-25 02:00,10-25 02:30"
    );
}

async fn a_clock_that_jumps(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    insert(&app, "minutely", "* * * * *", "UTC", "'2026-11-24 02:00:00'").await;
    assert_eq!(tick_at(&app, "2026-11-24T02:00:01Z").await.len(), 1);
    finish_all_jobs(&app).await;
    // Five years ahead: one job, not two and a half million.
    assert_eq!(tick_at(&app, "2031-11-24T02:00:01Z").await.len(), 1);
    finish_all_jobs(&app).await;
    assert_eq!(tick_at(&app, "2031-11-24T02:00:02Z").await, []);
    assert_eq!(app.control_value("SELECT MAX(slots_missed) FROM jobs").await, "1000");
    // Back, a second before a slot that had its job: it does not come again, and the schedule goes on.
    assert_eq!(tick_at(&app, "2026-11-24T01:59:59Z").await, []);
    assert_eq!(tick_at(&app, "2026-11-24T02:00:00Z").await, []);
    assert_eq!(tick_at(&app, "2026-11-24T02:01:00Z").await.len(), 1);
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs").await, "3");
}

async fn rows_that_cannot_run_say_so(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    insert(&app, "broken", "99 * * * *", "UTC", "'2026-11-24 02:00:00'").await;
    insert(&app, "payload", "0 2 * * *", "UTC", "'2026-11-24 02:00:00'").await;
    insert(&app, "newer", "0 2 * * *", "UTC", "'2026-11-24 02:00:00'").await;
    insert(&app, "destructive", "0 2 * * *", "UTC", "'2026-11-24 02:00:00'").await;
    insert(&app, "good", "0 2 * * *", "UTC", "'2026-11-24 02:00:00'").await;
    app.control_sql(
        "INSERT INTO kinds (kind, description, at_most_once, max_attempts, priority) VALUES ('of_a_newer_version', '', 0, 1, 50)",
    )
    .await;
    app.control_sql("UPDATE schedules SET payload = '{\"components\": []}' WHERE name = 'payload'").await;
    app.control_sql("UPDATE schedules SET kind = 'of_a_newer_version' WHERE name = 'newer'").await;
    app.control_sql("UPDATE schedules SET kind = 'test_destructive', payload = '{}' WHERE name = 'destructive'").await;
    let served = tick_at(&app, "2026-11-24T02:00:01Z").await;
    let notes: Vec<&str> = served.iter().map(|s| s.note.as_deref().unwrap_or("-")).collect();
    assert!(notes[0].contains("`99 * * * *` is not a cron expression"), "{served:?}");
    assert!(notes[1].contains("refused: a job of kind `test_destructive` is never started without a person"), "{served:?}");
    assert_eq!(notes[2], "-");
    assert!(notes[3].contains("knows no kind `of_a_newer_version`"), "{served:?}");
    assert!(notes[4].contains("refused: components: choose at least one"), "{served:?}");
    // Said once.
    assert_eq!(tick_at(&app, "2026-11-24T02:00:02Z").await, []);
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs").await, "1");
    // Mended by hand: the slot that waited for a newer worker runs, the others go on with their next.
    app.control_sql("UPDATE schedules SET cron = '0 2 * * *' WHERE name = 'broken'").await;
    app.control_sql("UPDATE schedules SET kind = 'backup' WHERE name = 'newer'").await;
    let served = tick_at(&app, "2026-11-24T02:30:00Z").await;
    assert!(served.len() == 1 && served[0].schedule == "newer" && served[0].job.is_some(), "{served:?}");
    assert_eq!(
        app.control_value("SELECT CONCAT_WS('|', next_run, COALESCE(note, '-')) FROM schedules WHERE name = 'broken'").await,
        "2026-11-25 02:00:00.000000|-"
    );
    for command in ["run", "enable"] {
        let ran = app.run_enqueue(&["schedule", command, "destructive"]);
        assert!(ran.code == Some(2) && ran.err.contains("never started without a person"), "{ran:?}");
    }
    // And no row can hold what is no JSON, or a kind that nobody knows.
    for set in ["payload = 'x'", "kind = 'nothing'", "queue = 'elsewhere'"] {
        let mut connection = app.server.connect(Some(&app.control())).await;
        assert!(sqlx::raw_sql(AssertSqlSafe(format!("UPDATE schedules SET {set}"))).execute(&mut connection).await.is_err(), "{set}");
    }
}

async fn the_command_line(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let json = |ran: &crate::test_app::Ran| serde_json::from_str::<serde_json::Value>(&ran.out).unwrap();
    let add = [
        "schedule",
        "add",
        "weekly",
        "--cron",
        "0 3 * * 0",
        "--timezone",
        "Africa/Johannesburg",
        "--node",
        "node1",
        "backup",
        "--components",
        "uploads",
    ];
    let ran = app.run_enqueue(&add);
    assert!(ran.code == Some(0) && ran.out.contains("schedule weekly is on; next run 20"), "{ran:?}");
    let ran = app.run_enqueue(&["schedule", "list", "--json"]);
    let all = json(&ran);
    let listed = all.as_array().unwrap().iter().find(|s| s["name"] == "weekly").unwrap();
    assert_eq!(
        (listed["name"].as_str(), listed["enabled"].as_bool(), listed["queue"].as_str()),
        (Some("weekly"), Some(true), Some("node:node1"))
    );
    assert_eq!(listed["payload"], serde_json::json!({ "components": ["uploads"] }));
    assert!(listed["next_run"].as_str().unwrap().ends_with("T01:00:00Z"), "{listed}");

    app.worker();
    let ran = app.run_enqueue(&["schedule", "run", "weekly", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let id: u64 = app.control_value("SELECT last_job_id FROM schedules WHERE name = 'weekly'").await.parse().unwrap();
    let job = app.show(id).await;
    assert!(job.requested_by.ends_with("(schedule weekly)") && job.queue == "node:node1", "{job:#?}");
    let ran = app.run_enqueue(&["schedule", "list"]);
    assert!(ran.out.contains("completed") && ran.out.contains("off"), "{ran:?}");
    app.control_sql("UPDATE schedules SET next_run = UTC_TIMESTAMP(6) - INTERVAL 1 HOUR WHERE name = 'weekly'").await;
    let ran = app.run_enqueue(&["schedule", "list"]);
    assert!(ran.out.contains("overdue by 1 h 0 min") && ran.out.contains("--scheduler"), "{ran:?}");

    let ran = app.run_enqueue(&["schedule", "disable", "weekly", "--json"]);
    assert_eq!(json(&ran), serde_json::json!({ "schedule": "weekly", "state": "off" }));
    assert_eq!(app.control_value("SELECT next_run FROM schedules WHERE name = 'weekly'").await, "NULL");
    let ran = app.run_enqueue(&["schedule", "enable", "weekly", "--json"]);
    assert!(ran.code == Some(0) && json(&ran)["next_run"].is_string(), "{ran:?}");

    for (args, word) in [
        (&add[..], "exists already"),
        (&["schedule", "add", "x", "--cron", "0 3 * *", "backup"][..], "`0 3 * *` is not a cron expression"),
        (&["schedule", "add", "x", "--cron", "0 0 31 2 *", "backup"][..], "never happens"),
        (&["schedule", "add", "x", "--cron", "0 3 * * *", "--timezone", "Mars", "backup"][..], "`Mars` is not a time zone"),
        (&["schedule", "add", "x y", "--cron", "0 3 * * *", "backup"][..], "`x y` is not a schedule's name"),
        (&["schedule", "add", "x", "--cron", "0 3 * * *", "backup", "--components", "all"][..], "`all` is not a component"),
        (&["schedule", "add", "x", "--cron", "0 3 * * *", "backup", "--label", "a\nb"][..], "label"),
        (&["schedule", "add", "x", "--cron", "0 3 * * *"][..], "subcommand"),
        (&["schedule", "enable", "nothing"][..], "`nothing` does not exist"),
        (&["schedule", "disable", "nothing"][..], "`nothing` does not exist"),
        (&["schedule", "remove", "nothing"][..], "`nothing` does not exist"),
        (&["schedule", "run", "nothing"][..], "`nothing` does not exist"),
    ] {
        let ran = app.run_enqueue(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.contains(word), "{args:?}: {ran:?}");
    }
    assert_eq!(app.run_enqueue(&["schedule", "remove", "weekly"]).code, Some(0));
    assert_eq!(app.control_value("SELECT COUNT(*) FROM schedules").await, "2", "the ready-made ones");
}

on_both_flavours!(
    what_is_ready_made_is_off,
    twenty_schedulers_make_one_job_per_slot,
    schedulers_in_workers,
    missed_slots_run_once_late_and_marked,
    jobs_do_not_pile_up,
    clocks_that_change_in_spring_and_autumn,
    a_clock_that_jumps,
    rows_that_cannot_run_say_so,
    the_command_line,
);
