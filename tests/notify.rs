//! The kind `notify`: channels, switches, retries; what a mail server's trouble must not do.

use crate::{
    smtp_sink::{Sink, certificate},
    test_app::{TestApp, on_both_flavours, wait_for},
};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, notify::mail::probe, queue::history::JobRow, state::State};
use serde_json::{Value, json};
use std::{net::TcpListener, time::Duration};

/// Heratio's own tables, as far as notifications use them: administrators 1 and 2, the inactive 3, the editor 4.
const HERATIO: &str = "
    CREATE TABLE `user` (id INT PRIMARY KEY, username VARCHAR(255), email VARCHAR(255), active TINYINT(1));
    CREATE TABLE acl_user_group (id INT AUTO_INCREMENT PRIMARY KEY, user_id INT NOT NULL, group_id INT NOT NULL);
    CREATE TABLE ahg_notification (
      id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, user_id INT UNSIGNED NOT NULL, type VARCHAR(64) NOT NULL, title VARCHAR(255) NOT NULL,
      message TEXT, link VARCHAR(500), related_type VARCHAR(64), related_id BIGINT UNSIGNED, actor_user_id INT UNSIGNED, actor_name VARCHAR(255),
      is_read TINYINT NOT NULL DEFAULT 0, is_dismissed TINYINT NOT NULL DEFAULT 0, created_at DATETIME, read_at DATETIME);
    CREATE TABLE ahg_settings (id INT AUTO_INCREMENT PRIMARY KEY, setting_key VARCHAR(100) UNIQUE, setting_value TEXT, setting_group VARCHAR(50) NOT NULL);
    INSERT INTO `user` VALUES (1, 'admin', 'a@example.org', 1), (2, 'keeper', 'k@example.org', 1), (3, 'gone', 'g@example.org', 0), (4, 'editor', 'e@example.org', 1);
    INSERT INTO acl_user_group (user_id, group_id) VALUES (1, 100), (1, 99), (2, 100), (3, 100), (4, 101);";

/// An application with all three channels, whose mails go to this port.
pub(crate) async fn app(flavour: Flavour, port: u16) -> TestApp {
    let mut app = TestApp::new(flavour).await;
    app.sql(HERATIO).await;
    std::fs::create_dir(app.dir.join("spool")).unwrap();
    app.set("MAIL_HOST", "127.0.0.1");
    app.set("MAIL_PORT", port.to_string());
    app.set("MAIL_FROM_ADDRESS", "heratio@example.org");
    app.set("MAIL_FROM_NAME", "Heratio at Example");
    app
}

/// A mail server for the app of this name; its directory outlives the app's.
pub(crate) fn sink(args: &[&str]) -> (tempfile::TempDir, Sink) {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start(dir.path(), args);
    (dir, sink)
}

/// A port that nobody listens on.
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn setting(app: &TestApp, key: &str, value: &str) {
    app.sql(&format!("REPLACE INTO ahg_settings (setting_key, setting_value, setting_group) VALUES ('{key}', '{value}', 'backup')")).await;
}

pub(crate) fn backup(components: &[Component]) -> Backup {
    Backup { components: components.to_vec(), label: None }
}

/// The job that tells of `job`, once it exists and `is` so.
async fn told(app: &TestApp, job: u64, what: &str, is: impl FnMut(&JobRow) -> bool) -> JobRow {
    let id = app.control_value(&format!("SELECT MAX(id) FROM jobs WHERE unique_key = 'notify:{job}'")).await;
    app.wait_until(id.parse().expect("a notification"), what, is).await
}

pub(crate) async fn told_to_the_end(app: &TestApp, job: u64) -> JobRow {
    told(app, job, "be over", |j| j.state.is_final()).await
}

fn rows(app: &TestApp, columns: &str) -> Vec<Vec<String>> {
    let text = app.server.client(&format!("SELECT {columns} FROM {}.ahg_notification ORDER BY id", app.schema()));
    text.lines().map(|l| l.split('\t').map(str::to_owned).collect()).collect()
}

fn spooled(app: &TestApp) -> Vec<Value> {
    let mut paths: Vec<_> = std::fs::read_dir(app.dir.join("spool")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|p| serde_json::from_slice(&std::fs::read(p).unwrap()).unwrap()).collect()
}

fn deliveries(job: &JobRow) -> Vec<(String, String)> {
    let lines = job.result.as_ref().unwrap()["deliveries"].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    lines.iter().map(|l| (text(&l["channel"]), text(&l["outcome"]))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

async fn a_good_backup_is_told_through_every_channel(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    app.set("APP_URL", "https://heratio.example/");
    app.set("BACKUP_TIMEZONE", "Africa/Johannesburg");
    setting(&app, "backup_notification_email", "ops@example.org").await;
    setting(&app, "backup_notify_workbench_username", "keeper").await;
    app.worker();
    let job = app.enqueue(&Backup { components: vec![Component::Uploads], label: Some("before <the> upgrade".into()) }).await;
    let done = app.completed(job).await;
    let notify = told_to_the_end(&app, job).await;
    assert_eq!((notify.state, &notify.payload), (State::Completed, &json!({ "job": job })), "{notify:#?}");
    assert_eq!(deliveries(&notify), pairs(&[("spool", "delivered"), ("in_app", "delivered"), ("mail", "delivered")]));

    let mails = sink.mails();
    assert_eq!(mails.len(), 1);
    let (mail, headers) = (&mails[0], &mails[0]["headers"]);
    let subject = headers["subject"].as_str().unwrap();
    assert!(subject.starts_with("Heratio backup completed: 2") && subject.ends_with("+02:00"), "{subject}");
    assert_eq!((&mail["to"], &mail["from"]), (&json!(["ops@example.org"]), &json!("heratio@example.org")));
    assert_eq!(
        (headers["from"].as_str(), headers["auto-submitted"].as_str()),
        (Some("Heratio at Example <heratio@example.org>"), Some("auto-generated"))
    );
    let (text, html) = (mail["text"].as_str().unwrap(), mail["html"].as_str().unwrap());
    let file = done.result.as_ref().unwrap()["files"][0]["file_name"].as_str().unwrap();
    for fact in [
        &*format!("Job: {job}"),
        "Components: uploads",
        "Node: node1",
        "Label: before <the> upgrade",
        file,
        &format!("enqueue show {job}"),
        "(Africa/Johannesburg)",
        "https://heratio.example/admin/backup",
    ] {
        assert!(text.contains(fact), "{fact}: {text}");
    }
    assert!(html.contains("before &lt;the&gt; upgrade") && html.contains(file) && !html.contains("<the>"), "{html}");

    let row = &rows(
        &app,
        "user_id, type, title, message, link, related_type, related_id, is_read, is_dismissed, TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP()) < 60",
    )[0];
    assert_eq!(
        [&*row[0], &row[1], &row[2], &row[4], &row[5], &row[6]],
        ["2", "backup_completed", "Heratio backup completed", "/admin/backup", "backup_job", &job.to_string()]
    );
    assert!(row[3].starts_with("uploads components backed up ("), "{row:?}");
    assert_eq!(row[7..], ["0", "0", "1"]);
    let name = std::fs::read_dir(app.dir.join("spool")).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    assert!(name.starts_with("heratio-backup-") && name.ends_with(".json") && name.len() == "heratio-backup-.json".len() + 13, "{name}");
    assert_eq!(
        spooled(&app),
        [
            json!({ "username": "keeper", "title": "Heratio backup completed", "message": row[3], "eventType": "success", "webLink": "https://heratio.example/admin/backup" })
        ]
    );
    assert!(app.run_enqueue(&["jobs", "--kind", "notify"]).out.contains("completed"));
}

/// A good, a partly failed and a failed backup, in this order; their numbers.
async fn three_ends(app: &TestApp) -> [u64; 3] {
    let (packages, aside) = (app.dir.join("root/packages"), app.dir.join("aside"));
    let good = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(good).await;
    std::fs::rename(&packages, &aside).unwrap();
    let partial = app.enqueue(&backup(&[Component::Uploads, Component::Packages])).await;
    assert_eq!(app.wait(partial).await.state, State::CompletedWithWarnings);
    let failed = app.enqueue(&backup(&[Component::Packages])).await;
    app.control_sql(&format!("UPDATE jobs SET max_attempts = 1 WHERE id = {failed}")).await;
    assert_eq!(app.wait(failed).await.state, State::Failed);
    std::fs::rename(&aside, &packages).unwrap();
    for id in [good, partial, failed] {
        assert_eq!(told_to_the_end(app, id).await.state, State::Completed);
    }
    [good, partial, failed]
}

async fn the_switches_count_warnings_as_failures(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    app.worker();
    setting(&app, "backup_notify_on_success", "0").await;
    let [good, ..] = three_ends(&app).await;
    let skipped = told_to_the_end(&app, good).await.result.unwrap();
    assert_eq!(skipped["skipped"], "the setting backup_notify_on_success is off");
    let subjects = sink.subjects();
    assert_eq!(subjects.len(), 2, "{subjects:?}");
    assert!(subjects[0].starts_with("Heratio backup completed: ") && subjects[0].ends_with(" (with warnings)"), "{subjects:?}");
    assert!(subjects[1].starts_with("Heratio backup FAILED: "), "{subjects:?}");
    let failed = sink.mails()[1]["text"].as_str().unwrap().to_owned();
    assert!(
        failed.contains("No complete artefact set was produced")
            && failed.contains("Requested components: packages")
            && failed.contains("Errors:\n- "),
        "{failed}"
    );
    assert!(sink.mails()[0]["text"].as_str().unwrap().contains("Errors:\n- packages: "));
    assert_eq!(rows(&app, "user_id, type"), [["1", "backup_completed_with_warnings"], ["1", "backup_failed"]]);
    let spooled: Vec<_> = spooled(&app).iter().map(|s| (s["eventType"].clone(), s["title"].clone())).collect();
    assert_eq!(
        spooled,
        [(json!("warning"), json!("Heratio backup completed with warnings")), (json!("error"), json!("Heratio backup FAILED"))]
    );

    setting(&app, "backup_notify_on_success", "true").await;
    setting(&app, "backup_notify_on_failure", "false").await;
    three_ends(&app).await;
    assert_eq!((sink.mails().len(), rows(&app, "id").len()), (3, 3));
    let last = sink.subjects().remove(2);
    assert!(last.starts_with("Heratio backup completed: ") && !last.contains("warnings"), "{last}");
}

async fn a_mail_server_that_is_down_costs_nothing_but_the_mail(flavour: Flavour) {
    let port = dead_port();
    let mut app = app(flavour, port).await;
    app.worker();
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    let done = app.completed(job).await;
    assert_eq!((done.attempt, done.error), (1, None));
    let waiting = told(&app, job, "be tried again", |j| j.attempt >= 2 && j.state == State::Available).await;
    let why = waiting.error.unwrap();
    assert!(
        why.starts_with(&format!("mail: cannot reach the mail server 127.0.0.1:{port}: ")) && why.contains("Next: check MAIL_HOST"),
        "{why}"
    );
    let listed = app.run_enqueue(&["jobs", "--kind", "notify"]);
    assert!(listed.out.contains("mail: cannot reach the mail server"), "{listed:?}");
    let checked = app.run_worker(&["check"]);
    assert!(checked.out.contains("cannot reach the mail server 127.0.0.1"), "{checked:?}");
    assert!(app.control_value(&format!("SELECT error FROM job_history WHERE id = {}", waiting.id)).await.contains("cannot reach"));

    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start(dir.path(), &["--port", &port.to_string()]);
    let sent = told_to_the_end(&app, job).await;
    assert_eq!(sent.state, State::Completed, "{sent:#?}");
    assert!(sent.attempt >= 3);
    assert_eq!((sink.mails().len(), rows(&app, "id").len(), spooled(&app).len()), (1, 1, 1));
}

async fn a_refused_recipient_is_not_tried_again_and_a_deferred_one_is(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    setting(&app, "backup_notification_email", "refused@example.org, ops@example.org").await;
    app.worker();
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(job).await;
    let failed = told_to_the_end(&app, job).await;
    assert_eq!((failed.state, failed.attempt), (State::Failed, 1), "{failed:#?}");
    let why = failed.error.as_ref().unwrap();
    assert!(
        why.contains("refused@example.org")
            && why.contains("550")
            && why.contains("no such person here")
            && why.contains("backup_notification_email"),
        "{why}"
    );
    assert_eq!(deliveries(&failed), pairs(&[("spool", "delivered"), ("in_app", "delivered"), ("mail", "refused"), ("mail", "delivered")]));
    assert_eq!(app.control_value(&format!("SELECT COUNT(*) FROM jobs WHERE unique_key = 'notify:{}'", failed.id)).await, "0");

    setting(&app, "backup_notification_email", "later@example.org, ops@example.org, not an address").await;
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(job).await;
    let waiting = told(&app, job, "be tried again", |j| j.attempt >= 2 && j.state == State::Available).await;
    assert!(waiting.error.as_ref().unwrap().contains("451") && waiting.error.unwrap().contains("come back later"));
    setting(&app, "backup_notification_email", "ops@example.org").await;
    let failed = told_to_the_end(&app, job).await;
    assert!(
        failed.state == State::Failed && failed.error.as_ref().unwrap().contains("`not an address` is not a mail address"),
        "{failed:#?}"
    );
    let to: Vec<Value> = sink.mails().iter().map(|m| m["to"].clone()).collect();
    assert_eq!(to, [json!(["ops@example.org"]), json!(["ops@example.org"])]);
}

async fn a_worker_killed_after_the_mail_was_taken(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    // It dies between the server's 250 and the row that would say so.
    app.worker_with(&[("HERATIO_FAILPOINT", "mid_work=kill")], &[]);
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(job).await;
    wait_for("the first mail", Duration::from_secs(30), || sink.mails().len() == 1);
    app.worker();
    let sent = told_to_the_end(&app, job).await;
    assert_eq!((sent.state, sent.attempt), (State::Completed, 2), "{sent:#?}");
    assert_eq!(app.control_value(&format!("SELECT COUNT(*) FROM notification_deliveries WHERE job_id = {}", sent.id)).await, "3");
    // The lost worker had a job that nobody is told of, so there is an alert about itself.
    let lost = |s: &String| s.starts_with("Heratio backup ALERT: a worker was lost");
    wait_for("the alert", Duration::from_secs(30), || sink.subjects().iter().any(lost));
    let mails = sink.mails();
    let backups: Vec<_> =
        mails.iter().filter(|m| m["headers"]["subject"].as_str().unwrap().starts_with("Heratio backup completed")).collect();
    assert_eq!(backups.len(), 2, "{mails:?}");
    assert!(
        backups.iter().all(|m| m["headers"]["message-id"] == backups[0]["headers"]["message-id"] && m["headers"]["message-id"].is_string())
    );
    let (first, second) = (rows(&app, "type"), rows(&app, "related_type"));
    assert_eq!(
        (first, second),
        (
            vec![vec!["backup_completed".to_owned()], vec!["alert_worker_lost".into()]],
            vec![vec!["backup_job".to_owned()], vec!["backup_alert".into()]]
        )
    );
    assert_eq!(spooled(&app).len(), 2);
    let alert = mails.iter().find(|m| lost(&m["headers"]["subject"].as_str().unwrap().to_owned())).unwrap();
    assert!(
        alert["text"].as_str().unwrap().contains(&format!("Job {} (notify) lost its worker, and it is tried again", sent.id)),
        "{alert}"
    );
}

async fn starttls_login_and_no_password_anywhere(flavour: Flavour) {
    const PASSWORD: &str = "correct-horse-9137";
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let sink =
        Sink::start(&dir.path().join("mails"), &["--tls", &path("cert.pem"), &path("key.pem"), "--login", &format!("heratio:{PASSWORD}")]);
    let mut app = app(flavour, sink.port).await;
    std::fs::write(path("password"), format!("{PASSWORD}\n")).unwrap();
    app.set("MAIL_ENCRYPTION", "tls");
    app.set("MAIL_USERNAME", "heratio");
    app.set("MAIL_PASSWORD_FILE", path("password"));

    // The certificate's authority is unknown here, then the password is wrong, then all is well.
    let mut logs = String::new();
    let mut job = 0;
    for (env, words) in [
        (&[] as &[(&str, &str)], &["cannot encrypt the connection to the mail server", "SSL_CERT_FILE"]),
        (
            &[("SSL_CERT_FILE", &path("ca.pem")), ("MAIL_PASSWORD", "wrong-horse-9137")],
            &["does not let the account `heratio` in", "MAIL_PASSWORD"],
        ),
    ] {
        let worker = app.worker_with(env, &[]);
        job = if job == 0 { app.enqueue(&backup(&[Component::Uploads])).await } else { job };
        app.completed(job).await;
        let waiting =
            told(&app, job, "be refused", |j| j.state == State::Available && j.error.as_ref().is_some_and(|e| e.contains(words[0]))).await;
        assert!(waiting.error.as_ref().unwrap().contains(words[1]), "{waiting:#?}");
        assert!(app.worker_mut(worker).terminate().success());
        logs += &app.worker_mut(worker).log();
    }
    assert_eq!(sink.mails(), Vec::<Value>::new());
    let worker = app.worker_with(&[("SSL_CERT_FILE", &path("ca.pem"))], &[]);
    let sent = told_to_the_end(&app, job).await;
    assert_eq!(sent.state, State::Completed, "{sent:#?}");
    assert_eq!((sink.mails().len(), &sink.mails()[0]["tls"]), (1, &json!(true)));

    logs += &app.worker_mut(worker).log();
    logs += &app.run_enqueue(&["show", &sent.id.to_string(), "--json"]).out;
    for table in ["jobs", "job_attempts", "job_log", "notification_deliveries"] {
        logs += &app.server.client(&format!("SELECT * FROM {}.{table}", app.control()));
    }
    logs += &sink.mails()[0].to_string();
    assert!(logs.contains("does not let the account"));
    assert!(!logs.contains("horse"), "a password is shown");
}

async fn fallbacks_of_address_and_user(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    setting(&app, "backup_notification_email", "").await;
    setting(&app, "backup_notify_workbench_username", "gone").await;
    let worker = app.worker();
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(job).await;
    let sent = told_to_the_end(&app, job).await;
    assert_eq!(sink.mails()[0]["to"], json!(["heratio@example.org"]));
    assert_eq!(rows(&app, "user_id"), [["1"], ["2"]]);
    assert!(
        sent.result.unwrap()["deliveries"][1]["detail"]
            .as_str()
            .unwrap()
            .contains("all 2 active administrators, since there is no active user `gone`")
    );
    assert!(app.worker_mut(worker).terminate().success());

    // Nothing and nobody to tell: said, and no failure.
    app.sql("DROP TABLE ahg_notification").await;
    app.env.remove("MAIL_FROM_ADDRESS");
    app.set("BACKUP_SPOOL_DIR", app.dir.join("nowhere").display().to_string());
    app.worker();
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(job).await;
    let off = told_to_the_end(&app, job).await;
    assert_eq!((off.state, deliveries(&off)), (State::Completed, pairs(&[("spool", "off"), ("in_app", "off"), ("mail", "off")])));
    let said = off.result.unwrap().to_string();
    for word in ["nowhere", "no table ahg_notification", "neither the setting backup_notification_email nor MAIL_FROM_ADDRESS"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(sink.mails().len(), 1);
}

async fn a_failure_because_the_application_database_is_down_is_mailed(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    setting(&app, "backup_notification_email", "ops@example.org").await;
    let down = format!("mysql://heratio:hidden-horse@127.0.0.1:{}/{}", dead_port(), app.schema());
    let worker = app.worker_with(&[("HERATIO_DATABASE_URL", &down)], &[]);
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.control_sql(&format!("UPDATE jobs SET max_attempts = 1 WHERE id = {job}")).await;
    assert_eq!(app.wait(job).await.state, State::Failed);
    let waiting = told(&app, job, "wait for the database", |j| j.attempt >= 2 && j.state == State::Available).await;
    assert!(waiting.error.unwrap().starts_with("in_app: application database: "));
    let mails = sink.mails();
    assert_eq!((mails.len(), &mails[0]["to"]), (1, &json!(["heratio@example.org"])));
    let text = mails[0]["text"].as_str().unwrap();
    assert!(text.contains("The application database cannot be used") && !text.contains("horse"), "{text}");
    assert!(app.worker_mut(worker).terminate().success());
    assert!(!app.worker_mut(worker).log().contains("hidden-horse"));

    // Back again: the rows follow, and those whom the settings name are told as well.
    app.worker();
    assert_eq!(told_to_the_end(&app, job).await.state, State::Completed);
    let mails = sink.mails();
    assert_eq!((mails.len(), &mails[1]["to"]), (2, &json!(["ops@example.org"])));
    assert!(!mails[1]["text"].as_str().unwrap().contains("cannot be used"));
    assert_eq!((rows(&app, "type"), spooled(&app).len()), (vec![vec!["backup_failed".to_owned()]], 1));
}

async fn what_is_and_is_not_told(flavour: Flavour) {
    let (_dir, sink) = sink(&[]);
    let mut app = app(flavour, sink.port).await;
    // Cancelled by a person: not told.
    let cancelled = app.enqueue(&backup(&[Component::Uploads])).await;
    assert_eq!(app.run_enqueue(&["cancel", &cancelled.to_string()]).code, Some(0));
    // Lost with its last attempt: told by the one who took it, which needs no alert besides.
    let lost = app.enqueue(&backup(&[Component::Uploads])).await;
    app.control_sql(&format!(
        "INSERT INTO workers (node, pid, pid_started, version, queues, concurrency, started_at, heartbeat_at) VALUES ('node9', 7, 7, '0', 'shared', 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6));
         UPDATE jobs SET state = 'running', attempt = 4, fence = 1, worker_id = LAST_INSERT_ID(), node = 'node9', started_at = UTC_TIMESTAMP(6), lease_until = '2020-01-01' WHERE id = {lost};
         INSERT INTO job_attempts (job_id, fence, attempt, worker_id, node, started_at) SELECT id, 1, 4, worker_id, node, started_at FROM jobs WHERE id = {lost}"
    ))
    .await;
    app.worker();
    assert_eq!(app.wait(lost).await.state, State::Failed);
    assert_eq!(told_to_the_end(&app, lost).await.state, State::Completed);
    let mails = sink.mails();
    assert_eq!(mails.len(), 1);
    let text = mails[0]["text"].as_str().unwrap();
    assert!(
        text.contains("its worker (process 7 on node node9) stopped renewing its lease") && text.contains("Attempts: 4 of 4"),
        "{text}"
    );
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs WHERE kind = 'notify'").await, "1");
    assert_eq!(app.control_value("SELECT COUNT(*) FROM alerts").await, "0");
}

async fn a_mail_server_that_hangs_is_left_after_a_while(flavour: Flavour) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut app = app(flavour, silent.local_addr().unwrap().port()).await;
    app.worker();
    let first = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(first).await;
    told(&app, first, "hang", |j| j.state == State::Running).await;
    let second = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(second).await;
    let left = told(&app, first, "be left", |j| j.state == State::Available).await;
    assert!(left.error.unwrap().contains("did not answer within 30 s"));
}

async fn a_schema_that_is_not_migrated_keeps_no_job_from_ending(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.control_sql("DELETE FROM kind_fields WHERE kind = 'prune'; DELETE FROM kinds WHERE kind IN ('notify', 'prune'); DROP TABLE alerts")
        .await;
    app.worker();
    let job = app.enqueue(&backup(&[Component::Uploads])).await;
    app.completed(job).await;
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs").await, "1");
}

#[tokio::test]
async fn whether_mail_could_leave_is_seen_without_sending_any() {
    let (_dir, sink) = sink(&[]);
    let env = |port: u16| {
        let port = port.to_string();
        let pairs = [
            ("BACKUP_DATABASE_URL", "mysql://a@h/c"),
            ("HERATIO_DATABASE_URL", "mysql://a@h/d"),
            ("MAIL_HOST", "127.0.0.1"),
            ("MAIL_PORT", &port),
        ];
        match jobs::config::Config::from_env(&jobs::config::Env::from_pairs(pairs)).unwrap().mail {
            jobs::config::mail::MailConfig::Smtp(smtp) => smtp,
            jobs::config::mail::MailConfig::Off(why) => panic!("{why}"),
        }
    };
    probe(&env(sink.port)).await.unwrap();
    assert!(probe(&env(dead_port())).await.unwrap_err().to_string().starts_with("cannot reach the mail server"));
    assert_eq!(sink.mails(), Vec::<Value>::new());
}

on_both_flavours!(
    a_good_backup_is_told_through_every_channel,
    the_switches_count_warnings_as_failures,
    a_mail_server_that_is_down_costs_nothing_but_the_mail,
    a_refused_recipient_is_not_tried_again_and_a_deferred_one_is,
    a_worker_killed_after_the_mail_was_taken,
    starttls_login_and_no_password_anywhere,
    fallbacks_of_address_and_user,
    a_failure_because_the_application_database_is_down_is_mailed,
    what_is_and_is_not_told,
    a_mail_server_that_hangs_is_left_after_a_while,
    a_schema_that_is_not_migrated_keeps_no_job_from_ending,
);
