//! Enqueueing by SQL: `enqueue_backup_job` and `enqueue_restore_job`, called by accounts that may do nothing else.

use crate::test_app::{Ran, TestApp, TestServer, on_both_flavours};
use engine::server::Flavour;
use jobs::{migrate::migrate, state::State};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, mysql::MySqlConnectOptions};
use std::{collections::BTreeSet, process::Command};

const PASSWORD: &str = "pass'word";

/// Makes an account of this test that may call these procedures and nothing else; returns its name.
fn account(app: &TestApp, procedures: &[&str]) -> String {
    let user = format!("{}_{}", app.name, procedures.len());
    let mut sql = format!("CREATE USER '{user}'@'localhost' IDENTIFIED BY 'pass''word';");
    for procedure in procedures {
        sql.push_str(&format!("GRANT EXECUTE ON PROCEDURE `{}`.`{procedure}` TO '{user}'@'localhost';", app.control()));
    }
    app.server.client(&sql);
    user
}

/// Runs SQL with the flavour's client as that account, in the control schema.
fn client(app: &TestApp, user: &str, sql: &str) -> Ran {
    let mut tool = app.server.tool("mysql");
    tool.arg(format!("--user={user}")).arg(format!("--password={PASSWORD}")).args(["--batch", "--skip-column-names", "-e", sql]);
    Ran::from(tool.arg(app.control()).output().unwrap())
}

async fn session(app: &TestApp, user: &str) -> MySqlConnection {
    let options = MySqlConnectOptions::new().socket(&app.server.socket).username(user).database(&app.control());
    MySqlConnection::connect_with(&if user == "root" { options } else { options.password(PASSWORD) }).await.unwrap()
}

/// Calls a procedure with these arguments, and gives the id and whether the job was there already, or the refusal.
async fn call(connection: &mut MySqlConnection, sql: &str) -> Result<(u64, bool), String> {
    let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.map_err(|e| match e.as_database_error() {
        Some(e) => format!("{} {}", e.code().unwrap_or_default(), e.message()),
        None => e.to_string(),
    })?;
    Ok((row.try_get(0).unwrap(), row.try_get(1).unwrap()))
}

async fn an_account_with_execute_on_one_procedure(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let user = account(&app, &["enqueue_backup_job"]);
    let ran = client(&app, &user, r#"CALL enqueue_backup_job('backup', '{"components": ["uploads", "plugins"]}', NULL)"#);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), "1\t0"), "{ran:?}");
    for (sql, word) in [
        ("CALL enqueue_restore_job('test_destructive', '{}', '{}')", "execute command denied"),
        ("CALL enqueue_checked_job(1, 'backup', '{}', '{}')", "execute command denied"),
        ("SELECT * FROM jobs", "denied"),
        ("INSERT INTO jobs (kind, payload, requested_by, requested_from) VALUES ('backup', '{}', 'x', 'x')", "denied"),
    ] {
        let ran = client(&app, &user, sql);
        assert!(ran.code == Some(1) && ran.err.contains(word), "{sql}: {ran:?}");
    }
    assert_eq!(app.control_value("SELECT GROUP_CONCAT(resource ORDER BY resource) FROM job_resources").await, "packages,uploads");
    app.worker();
    let job = app.completed(1).await;
    assert_eq!((job.requested_by, job.requested_from), (format!("{user}@localhost"), format!("sql, account {user}@localhost")));
    assert_eq!(job.result.unwrap()["files"].as_array().unwrap().len(), 2);
    // Another `worker migrate` does not take the right away, nor does it all over again after a crash.
    migrate(&app.config()).await.unwrap();
    app.control_sql("DELETE FROM schema_migrations").await;
    migrate(&app.config()).await.unwrap();
    let next = app.control_value("SELECT MAX(id) + 1 FROM jobs").await;
    assert_eq!(client(&app, &user, "CALL enqueue_backup_job('backup', NULL, NULL)").out.trim(), format!("{next}\t0"));
}

async fn made_by_an_account_with_rights_on_the_control_schema_alone(flavour: Flavour) {
    let mut app = TestApp::bare(TestServer::shared(flavour)).await;
    let (owner, control) = (format!("{}_owner", app.name), app.control());
    app.server.client(&format!(
        "CREATE DATABASE `{control}` CHARACTER SET latin1; CREATE USER '{owner}'@'localhost' IDENTIFIED BY 'x'; GRANT ALL ON `{control}`.* TO '{owner}'@'localhost'"
    ));
    app.set("BACKUP_DATABASE_URL", format!("mysql://{owner}:x@localhost/{control}?socket={}", app.server.socket.display()));
    migrate(&app.config()).await.unwrap();
    let user = account(&app, &["enqueue_backup_job"]);
    let ran =
        client(&app, &user, r#"CALL enqueue_backup_job('backup', '{"components": ["uploads"], "label": "Zoë"}', '{"unique_key": "k"}')"#);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), "1\t0"), "{ran:?}");
    app.worker_with(&[], &["--scheduler"]);
    let job = app.completed(1).await;
    assert_eq!((job.payload["label"].as_str(), job.requested_by), (Some("Zoë"), format!("{user}@localhost")));
}

async fn from_php(flavour: Flavour) {
    if Command::new("php").arg("-v").output().is_err() {
        panic!("php is missing: apt-get install php-cli php-mysql");
    }
    let app = TestApp::new(flavour).await;
    let user = account(&app, &["enqueue_backup_job"]);
    // As Heratio calls it: a prepared statement over PDO, in a transaction of its own.
    let script = r#"
        $pdo = new PDO("mysql:unix_socket=$argv[1];dbname=$argv[2];charset=utf8mb4", $argv[3], $argv[4], [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
        function enqueue(PDO $pdo, string $kind, array $payload, array $options): int {
            $call = $pdo->prepare('CALL enqueue_backup_job(?, ?, ?)');
            $call->execute([$kind, json_encode((object) $payload), json_encode((object) $options)]);
            $id = (int) $call->fetchColumn();
            $call->closeCursor();
            return $id;
        }
        echo enqueue($pdo, 'backup', ['components' => ['uploads'], 'label' => "Zoë's"], ['requested_by' => 'zoë']), "\n";
        $pdo->beginTransaction();
        enqueue($pdo, 'backup', [], []);
        $pdo->rollBack();
        $pdo->beginTransaction();
        echo enqueue($pdo, 'backup', [], []), "\n";
        $pdo->commit();
        try { enqueue($pdo, 'backup', ['components' => ['everything']], []); } catch (PDOException $e) { echo $e->getCode(), ' ', $e->errorInfo[2], "\n"; }
    "#;
    let output =
        Command::new("php").args(["-r", script, "--"]).arg(&app.server.socket).args([&app.control(), &user, PASSWORD]).output().unwrap();
    let ran = Ran::from(output);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(lines[2].starts_with("45000 payload: `everything` is no component"), "{ran:?}");
    let job = app.show(lines[0].parse().unwrap()).await;
    assert_eq!((job.payload, job.requested_by.as_str()), (json!({ "components": ["uploads"], "label": "Zoë's" }), "zoë"));
    assert_eq!(app.control_value("SELECT GROUP_CONCAT(id) FROM jobs").await, format!("{},{}", lines[0], lines[1]));
    assert_eq!(app.control_value(&format!("SELECT COUNT(*) FROM job_resources WHERE job_id = {}", lines[1])).await, "4");
}

async fn wrong_input_is_refused_with_a_text(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let mut connection = session(&app, "root").await;
    for (arguments, word) in [
        ("NULL, '{}', '{}'", "there is no kind `NULL`"),
        ("'nothing', '{}', '{}'", "there is no kind `nothing`"),
        ("'Backup', '{}', '{}'", "there is no kind `Backup`"),
        ("'backup ', '{}', '{}'", "there is no kind `backup `"),
        ("'backup', '', '{}'", "payload: not JSON"),
        ("'backup', '{', '{}'", "payload: not JSON"),
        ("'backup', '[]', '{}'", "payload: not a JSON object"),
        (r#"'backup', '"x"', '{}'"#, "payload: not a JSON object"),
        (r#"'backup', '{"component": []}', '{}'"#, "payload: unknown key `component`; kind `backup` takes components, label"),
        (r#"'backup', '{"Label": "x"}', '{}'"#, "payload: unknown key `Label`"),
        (r#"'backup', '{"components": []}', '{}'"#, "payload: choose at least one of"),
        (r#"'backup', '{"components": "uploads"}', '{}'"#, "payload: `components` is not of type list"),
        (r#"'backup', '{"components": ["Uploads"]}', '{}'"#, "payload: `Uploads` is no component"),
        (r#"'backup', '{"components": ["uploads "]}', '{}'"#, "payload: `uploads ` is no component"),
        (r#"'backup', '{"components": ["uploads", null]}', '{}'"#, "payload: `null` is no component"),
        (r#"'backup', '{"components": [["uploads"]]}', '{}'"#, "is no component"),
        (r#"'backup', '{"components": [{"a": "uploads"}]}', '{}'"#, "is no component"),
        (r#"'backup', '{"label": 1}', '{}'"#, "payload: `label` is not of type text"),
        (r#"'test_repeatable', '{"millis": "1"}', '{}'"#, "payload: `millis` is not of type integer"),
        (r#"'test_repeatable', '{"millis": 1.5}', '{}'"#, "payload: `millis` is not of type integer"),
        ("'backup', '{}', 'x'", "options: not JSON"),
        ("'backup', '{}', '[]'", "options: not a JSON object"),
        (
            r#"'backup', '{}', '{"priority": "1"}'"#,
            "options: unknown key `priority`; there are at, node, requested_by, unique_key, preempt",
        ),
        (r#"'backup', '{}', '{"at": 5}'"#, "options: every value but preempt is a string"),
        (r#"'backup', '{}', '{"at": "tomorrow"}'"#, "options: at: write RFC 3339"),
        (r#"'backup', '{}', '{"at": "2026-11-25 02:00:00"}'"#, "options: at: write RFC 3339"),
        (r#"'backup', '{}', '{"at": "2026-02-30T02:00:00Z"}'"#, "is no time of the calendar"),
        (r#"'backup', '{}', '{"at": "2026-02-28T25:00:00Z"}'"#, "is no time of the calendar"),
        (r#"'backup', '{}', '{"node": "a b"}'"#, "options: node:"),
        (r#"'backup', '{}', '{"requested_by": ""}'"#, "options: requested_by:"),
        (r#"'backup', '{}', '{"requested_by": "a\\nb"}'"#, "options: requested_by:"),
        (r#"'backup', '{}', '{"unique_key": ""}'"#, "options: unique_key:"),
        (r#"'backup', '{}', '{"preempt": "yes"}'"#, "options: preempt is true or false"),
        (r#"'backup', '{}', '{"preempt": true}'"#, "does not preempt"),
    ] {
        let error = call(&mut connection, &format!("CALL enqueue_backup_job({arguments})")).await.unwrap_err();
        assert!(error.starts_with("45000 ") && error.contains(word), "{arguments}: {error}");
    }
    assert_eq!(app.control_value("SELECT COUNT(*) FROM jobs").await, "0");
}

async fn a_key_that_comes_twice(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let mut connection = session(&app, "root").await;
    // MariaDB's JSON functions take the first, MySQL's and the worker's the last: never resources of one and work of the other.
    for payload in
        [r#"{"components": ["uploads"], "components": ["database"]}"#, r#"{"components": ["uploads"], "\\u0063omponents": ["database"]}"#]
    {
        match call(&mut connection, &format!("CALL enqueue_backup_job('backup', '{payload}', '{{}}')")).await {
            Ok((id, _)) => {
                assert_eq!(app.show(id).await.payload, json!({ "components": ["database"] }));
                assert_eq!(app.control_value(&format!("SELECT resource FROM job_resources WHERE job_id = {id}")).await, "database");
            }
            Err(error) => assert!(error.contains("payload: "), "{error}"),
        }
    }
}

async fn safe_and_destructive_kinds_are_kept_apart(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let user = account(&app, &["enqueue_restore_job", "enqueue_backup_job"]);
    let mut connection = session(&app, &user).await;
    for (sql, word) in [
        (
            "CALL enqueue_backup_job('test_destructive', '{}', '{}')".to_owned(),
            "kind `test_destructive` changes or deletes data: call enqueue_restore_job",
        ),
        (
            r#"CALL enqueue_backup_job('test_repeatable', '{"failures": 1}', '{}')"#.into(),
            "payload: `failures` lowers safety: call enqueue_restore_job",
        ),
        ("CALL enqueue_restore_job('backup', '{}', '{}')".into(), "kind `backup` with this payload is safe: call enqueue_backup_job"),
        ("CALL enqueue_restore_job('test_destructive', '{}', '{}')".into(), "payload: `dir` is missing"),
        (r#"CALL enqueue_restore_job('test_destructive', '{"dir": null}', '{}')"#.into(), "payload: `dir` is missing"),
    ] {
        let error = call(&mut connection, &sql).await.unwrap_err();
        assert!(error.starts_with("45000 ") && error.contains(word), "{sql}: {error}");
    }
    app.sql("CREATE TABLE destroyed (job_id BIGINT, fence BIGINT, step INT)").await;
    let dir = app.backups_dir();
    let sql =
        format!(r#"CALL enqueue_restore_job('test_destructive', '{{"dir": "{}", "steps": 2, "stubborn": false}}', '{{}}')"#, dir.display());
    let (id, _) = call(&mut connection, &sql).await.unwrap();
    assert_eq!(
        app.control_value("SELECT CONCAT(resource, max_attempts, priority) FROM job_resources JOIN jobs ON id = job_id").await,
        "database110"
    );
    let lowering = call(&mut connection, r#"CALL enqueue_restore_job('test_repeatable', '{"failures": 1}', '{}')"#).await.unwrap().0;
    app.worker();
    app.completed(id).await;
    assert_eq!(app.files().len(), 2);
    app.control_sql("CREATE TABLE test_effects (job_id BIGINT, fence BIGINT)").await;
    assert_eq!(app.completed(lowering).await.attempt, 2);
}

async fn options_do_what_they_say(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let mut connection = session(&app, "root").await;
    for (at, run_at) in [
        ("2031-11-25T02:00:00Z", "2031-11-25 02:00:00.000000"),
        ("2031-11-25T02:00:00.25+02:00", "2031-11-25 00:00:00.250000"),
        ("2045-01-01T00:30:00+05:30", "2044-12-31 19:00:00.000000"),
        ("2031-11-24T22:00:00-04:00", "2031-11-25 02:00:00.000000"),
    ] {
        let (id, _) = call(&mut connection, &format!(r#"CALL enqueue_backup_job('backup', '{{}}', '{{"at": "{at}"}}')"#)).await.unwrap();
        assert_eq!(app.control_value(&format!("SELECT run_at FROM jobs WHERE id = {id}")).await, run_at, "{at}");
    }
    let options = r#"{"node": "web-1.example", "requested_by": "Heratio: Zoë", "unique_key": "k", "at": null}"#;
    let (id, _) = call(&mut connection, &format!("CALL enqueue_backup_job('backup', '{{}}', '{options}')")).await.unwrap();
    let job = app.show(id).await;
    assert_eq!((job.queue.as_str(), job.requested_by.as_str(), job.state), ("node:web-1.example", "Heratio: Zoë", State::Available));
    // The same job while it waits, also for a session whose snapshot is older than the job.
    sqlx::raw_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT").execute(&mut connection).await.unwrap();
    let mut other = session(&app, "root").await;
    let unique = r#"CALL enqueue_backup_job('backup', '{"components": ["uploads"]}', '{"unique_key": "later"}')"#;
    let made = call(&mut other, unique).await.unwrap();
    assert_eq!(call(&mut connection, unique).await.unwrap(), (made.0, true));
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    // No longer once it was claimed.
    app.control_sql(&format!("UPDATE jobs SET state = 'cancelled', finished_at = UTC_TIMESTAMP(6) WHERE id = {}", made.0)).await;
    assert!(!call(&mut connection, unique).await.unwrap().1);
}

async fn all_or_nothing_inside_and_outside_a_transaction(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let mut connection = session(&app, "root").await;
    let run = async |connection: &mut MySqlConnection, sql: &str| {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
    };
    let good = r#"CALL enqueue_backup_job('backup', '{"components": ["uploads"]}', '{}')"#;
    let count = "SELECT COUNT(*) FROM jobs";
    for (begin, end, jobs) in
        [("BEGIN", "ROLLBACK", "0"), ("SET autocommit = 0", "ROLLBACK; SET autocommit = 1", "0"), ("BEGIN", "COMMIT", "1")]
    {
        run(&mut connection, begin).await.unwrap();
        call(&mut connection, good).await.unwrap();
        assert_eq!(app.control_value(count).await, "0", "{begin}: seen before the caller commits");
        run(&mut connection, end).await.unwrap();
        assert_eq!(app.control_value(count).await, jobs, "{begin} {end}");
    }
    // An error after the job's row was written: here, a resource that is none.
    app.control_sql(
        "SET foreign_key_checks = 0; UPDATE kind_resources SET resource = 'nothing' WHERE kind = 'backup' AND resource = 'uploads'",
    )
    .await;
    let bad = "CALL enqueue_backup_job('backup', '{}', '{}')";
    let error = call(&mut connection, bad).await.unwrap_err();
    assert!(error.contains("foreign key"), "{error}");
    assert_eq!(app.control_value(count).await, "1");
    // What the caller did before in its transaction stays its own to commit.
    run(&mut connection, "BEGIN; INSERT INTO resources (resource) VALUES ('mine')").await.unwrap();
    assert!(call(&mut connection, bad).await.unwrap_err().contains("foreign key"));
    run(&mut connection, "COMMIT").await.unwrap();
    assert_eq!(app.control_value(count).await, "1");
    assert_eq!(app.control_value("SELECT COUNT(*) FROM resources WHERE resource = 'mine'").await, "1");
}

async fn many_callers_beside_busy_workers(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.control_sql("CREATE TABLE test_effects (job_id BIGINT, fence BIGINT)").await;
    for _ in 0..2 {
        app.worker_with(&[("BACKUP_POLL_MS", "10")], &["--concurrency", "4"]);
    }
    let mut callers = Vec::new();
    for i in 0..8 {
        let mut connection = session(&app, "root").await;
        callers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for j in 0..6 {
                let component = ["uploads", "packages", "framework"][(i + j) % 3];
                let sql = format!(r#"CALL enqueue_backup_job('backup', '{{"components": ["{component}"]}}', '{{}}')"#);
                ids.push(call(&mut connection, &sql).await.unwrap().0);
                // One that is made, found waiting and claimed, all at once.
                call(&mut connection, r#"CALL enqueue_backup_job('test_repeatable', '{"millis": 1}', '{"unique_key": "often"}')"#)
                    .await
                    .unwrap();
            }
            let far = r#"CALL enqueue_backup_job('backup', '{}', '{"unique_key": "one", "at": "2031-01-01T00:00:00Z"}')"#;
            (ids, call(&mut connection, far).await.unwrap().0)
        }));
    }
    let (mut ids, mut unique) = (Vec::new(), BTreeSet::new());
    for caller in callers {
        let (mine, one) = caller.await.unwrap();
        ids.extend(mine);
        unique.insert(one);
    }
    assert_eq!((ids.len(), unique.len()), (48, 1));
    for id in ids {
        app.completed(id).await;
    }
    let unfinished = app.control_value("SELECT COUNT(*) FROM jobs WHERE unique_key = 'often' AND state = 'failed'").await;
    assert_eq!(unfinished, "0");
    // No job was claimed before its resources were there: no two held one at the same time.
    let overlapping = "SELECT COUNT(*) FROM jobs a JOIN jobs b ON b.id > a.id AND a.payload = b.payload
                         AND b.started_at < a.finished_at AND a.started_at < b.finished_at AND a.kind = 'backup'";
    assert_eq!(app.control_value(overlapping).await, "0");
}

on_both_flavours!(
    an_account_with_execute_on_one_procedure,
    made_by_an_account_with_rights_on_the_control_schema_alone,
    from_php,
    wrong_input_is_refused_with_a_text,
    a_key_that_comes_twice,
    safe_and_destructive_kinds_are_kept_apart,
    options_do_what_they_say,
    all_or_nothing_inside_and_outside_a_transaction,
    many_callers_beside_busy_workers,
);
