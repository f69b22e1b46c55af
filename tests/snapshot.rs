//! The promise of one snapshot: a dump holds exactly what lies before the coordinates that are recorded with it.

use crate::test_app::{OwnServer, TestApp, TestServer, on_both_flavours};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, state::State};
use sqlx::{AssertSqlSafe, Executor};
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What the binary log says of the schema up to a position.
#[derive(Debug, Default, PartialEq, Eq)]
struct Truth {
    /// Rows per table.
    rows: BTreeMap<String, u64>,
    /// Columns of `changing` besides the first two.
    columns: u64,
}

/// Reads the server's binary logs from the first to `position` of `file`, by the server's own tool.
fn read_binlog(server: &TestServer, schema: &str, file: &str, position: &str) -> Truth {
    let logs = server.client("SHOW BINARY LOGS");
    let mut names: Vec<&str> = logs.lines().filter_map(|l| l.split('\t').next()).collect();
    names.retain(|name| *name <= file);
    assert_eq!(names.last(), Some(&file), "{logs}");
    let mut truth = Truth::default();
    for name in names {
        let mut tool = server.tool("mysqlbinlog");
        tool.args(["--read-from-remote-server", "--verbose", "--base64-output=DECODE-ROWS"]);
        if name == file {
            tool.arg(format!("--stop-position={position}"));
        }
        let output = tool.arg(name).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(rest) = line.strip_prefix("### INSERT INTO `").and_then(|l| l.strip_prefix(schema)) {
                let table = rest.trim_start_matches("`.`").trim_end_matches('`');
                *truth.rows.entry(table.to_owned()).or_default() += 1;
            } else if line.starts_with("TRUNCATE TABLE changing") {
                truth.rows.insert("changing".into(), 0);
            } else if line.starts_with("ALTER TABLE changing ADD") {
                truth.columns += 1;
            }
        }
    }
    truth
}

async fn rows_are_exactly_those_at_the_recorded_coordinates(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut app = TestApp::on(own.0.clone()).await;
    let tables = ["one", "two", "three"];
    for table in tables {
        app.sql(&format!("CREATE TABLE {table} (n BIGINT PRIMARY KEY, padding VARCHAR(200))")).await;
    }
    app.sql("CREATE TABLE changing (n BIGINT PRIMARY KEY AUTO_INCREMENT, x INT)").await;
    app.set("BACKUP_RETRY_DELAY", "0");
    // An ALTER that waits for the dump's lock holds the queue's writes up as well; see the limits in README.md.
    app.set("BACKUP_LEASE", "20");
    app.worker();

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for (i, table) in tables.into_iter().enumerate() {
        let (server, schema, stop) = (own.0.clone(), app.schema(), stop.clone());
        writers.push(tokio::spawn(async move {
            let mut connection = server.connect(Some(&schema)).await;
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                // Transactions of one to three rows.
                connection.execute("BEGIN").await.unwrap();
                for _ in 0..=i {
                    n += 1;
                    connection.execute(AssertSqlSafe(format!("INSERT INTO {table} VALUES ({n}, REPEAT('x', 200))"))).await.unwrap();
                }
                connection.execute("COMMIT").await.unwrap();
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }));
    }
    let changer = {
        let (server, schema, stop) = (own.0.clone(), app.schema(), stop.clone());
        tokio::spawn(async move {
            let mut connection = server.connect(Some(&schema)).await;
            let mut column = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    connection.execute("INSERT INTO changing (x) VALUES (1)").await.unwrap();
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
                if column % 3 == 2 {
                    connection.execute("TRUNCATE TABLE changing").await.unwrap();
                }
                column += 1;
                connection.execute(AssertSqlSafe(format!("ALTER TABLE changing ADD COLUMN c{column} INT"))).await.unwrap();
            }
            column
        })
    };

    let backups = if std::env::var_os("HERATIO_TEST_LONG").is_some() { 50 } else { 10 };
    let mut good = Vec::new();
    let mut attempts = 0;
    for _ in 0..backups {
        let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
        let job = app.wait(id).await;
        attempts += job.attempt;
        if job.state == State::Completed {
            good.push(job.result.unwrap()["files"][0]["file_name"].as_str().unwrap().to_owned());
        } else {
            // Only DDL may spoil a backup here.
            assert!(job.error.as_ref().unwrap().contains("changing"), "{job:#?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let alters = changer.await.unwrap();
    println!("{} of {backups} backups good, {attempts} attempts, {alters} ALTERs", good.len());
    assert!(good.len() * 2 >= backups, "only {} of {backups} backups are good", good.len());

    for (i, file) in good.iter().enumerate() {
        let at = |column: &str| format!("SELECT {column} FROM ahg_backup_run WHERE backup_filename = '{file}'");
        let (log, position) = (app.control_value(&at("binlog_file")).await, app.control_value(&at("binlog_pos")).await);
        let mut truth = read_binlog(&own.0, &app.schema(), &log, &position);
        let restored = format!("{}_restored{i}", app.name);
        own.0.load(&app.backups_dir().join(file), &restored);
        for table in tables.into_iter().chain(["changing"]) {
            let rows = own.0.client(&format!("SELECT COUNT(*) FROM {restored}.{table}"));
            let expected = truth.rows.remove(table).unwrap_or(0);
            assert_eq!(rows.trim(), expected.to_string(), "table {table} of {file} at {log}:{position}");
            if table != "changing" {
                let last = own.0.client(&format!("SELECT COALESCE(MAX(n), 0) FROM {restored}.{table}"));
                assert_eq!(last.trim(), expected.to_string(), "table {table} of {file} at {log}:{position}");
            }
        }
        let columns = own.0.client(&format!(
            "SELECT COUNT(*) - 2 FROM information_schema.columns WHERE table_schema = '{restored}' AND table_name = 'changing'"
        ));
        assert_eq!(columns.trim(), truth.columns.to_string(), "columns of {file} at {log}:{position}");
        // The GTID set is that of the same position: MariaDB can say so itself.
        if flavour == Flavour::MariaDb {
            let gtids = own.0.client(&format!("SELECT BINLOG_GTID_POS('{log}', {position})"));
            assert_eq!(app.control_value(&at("gtid_executed")).await, gtids.trim());
        } else {
            assert_eq!(app.control_value(&at("gtid_executed")).await, gtid_set_before(&own.0, &log, &position));
        }
        let uuid = app.control_value(&at("server_uuid")).await;
        assert_eq!(uuid.len(), 36, "{uuid}");
    }
    drop(app);
}

/// MySQL: the GTIDs of all transactions before the position, from the log itself.
fn gtid_set_before(server: &TestServer, file: &str, position: &str) -> String {
    let mut tool = server.tool("mysqlbinlog");
    tool.args(["--read-from-remote-server", "--base64-output=DECODE-ROWS"]).arg(format!("--stop-position={position}")).arg(file);
    let output = tool.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut last = 0;
    let mut uuid = String::new();
    for line in text.lines() {
        // `# uuid:1-41` after the Previous-GTIDs event, `SET @@SESSION.GTID_NEXT= 'uuid:42'` for each transaction.
        let set = line.strip_prefix("# ").or_else(|| line.strip_prefix("SET @@SESSION.GTID_NEXT= '"));
        if let Some((id, numbers)) = set.and_then(|s| s.split_once(':'))
            && id.len() == 36
            && id.matches('-').count() == 4
        {
            uuid = id.to_owned();
            let digits: String = numbers.rsplit('-').next().unwrap_or(numbers).chars().take_while(char::is_ascii_digit).collect();
            last = digits.parse().unwrap_or(last);
        }
    }
    format!("{uuid}:1-{last}")
}

async fn a_server_without_a_binary_log_is_backed_up_with_a_warning(flavour: Flavour) {
    let own = OwnServer::start_with(flavour, &["--skip-log-bin"]);
    let mut app = TestApp::on(own.0.clone()).await;
    app.worker();
    let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    let job = app.wait(id).await;
    assert_eq!(job.state, State::CompletedWithWarnings, "{job:#?}");
    assert!(job.result.unwrap()["warnings"].to_string().contains("binary log"));
    assert_eq!(app.control_value("SELECT log_bin_enabled FROM ahg_backup_run").await, "0");
    drop(app);
}

async fn a_lock_that_never_comes_names_the_session_in_the_way(flavour: Flavour) {
    if flavour == Flavour::MariaDb {
        // Its dump tool takes the position from the snapshot itself and needs no lock; see a_lock_on_a_table below.
        return a_lock_on_a_table(flavour).await;
    }
    let own = OwnServer::start(flavour);
    let mut app = TestApp::on(own.0.clone()).await;
    app.set("BACKUP_LOCK_WAIT", "2");
    app.set("BACKUP_LEASE", "12");
    app.set("BACKUP_RETRY_DELAY", "0");
    let mut blocker = own.0.connect(Some(&app.schema())).await;
    let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut blocker).await.unwrap();
    blocker.execute("LOCK TABLES item WRITE").await.unwrap();
    app.worker();
    let job = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    let job = app.wait(job).await;
    assert_eq!(job.state, State::Failed, "{job:#?}");
    let error = job.error.unwrap();
    assert!(error.contains(&format!("session {id}")) || error.contains(&id.to_string()), "{id}: {error}");
    assert!(error.contains("2 s"), "{error}");
    drop(blocker);
    drop(app);
}

/// On MariaDB the dump waits for a locked table, not for a global lock; a cancel ends the wait.
async fn a_lock_on_a_table(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let held = crate::test_app::hold_dump(&app).await;
    app.worker();
    let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    crate::test_app::dump_waits(&app);
    let cancelled = app.run_enqueue(&["cancel", &id.to_string()]);
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    assert_eq!(app.wait(id).await.state, State::Cancelled);
    held.let_go().await;
}

async fn the_dump_needs_nothing_of_ours_to_be_restored(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    let job = app.completed(id).await;
    let file = job.result.unwrap()["files"][0]["file_name"].as_str().unwrap().to_owned();
    let path = app.backups_dir().join(&file);
    let tested = Command::new("gunzip").arg("-t").arg(&path).output().unwrap();
    assert!(tested.status.success() && tested.stderr.is_empty(), "{tested:?}");
    let restored = format!("{}_restored", app.name);
    app.server.load(&path, &restored);
    // MySQL keeps a body's last semicolon when it came with other statements; the dump leaves it out.
    let ask = |schema: &str, sql: &str| app.server.client(&format!("USE `{schema}`; {sql}")).replace(schema, "SCHEMA").replace(";\n", "\n");
    for sql in [
        "SELECT id, title, HEX(title), HEX(data) FROM item ORDER BY id",
        "SELECT id, item_id, HEX(body) FROM note ORDER BY id",
        "SHOW CREATE TABLE item",
        "SHOW CREATE TABLE note",
        "SELECT * FROM titled",
        "SELECT twice(21)",
        "SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
        "SELECT routine_name, routine_type, routine_definition FROM information_schema.routines WHERE routine_schema = DATABASE() ORDER BY 1",
        "SELECT event_name, event_definition, interval_value, interval_field FROM information_schema.events WHERE event_schema = DATABASE()",
    ] {
        let (was, is) = (ask(&app.schema(), sql), ask(&restored, sql));
        assert!(!was.trim().is_empty(), "{sql}");
        assert_eq!(was, is, "{sql}");
    }
    assert_eq!(
        app.server.client(&format!("SELECT table_name, row_count FROM {}.archive_tables ORDER BY 1", app.control())).trim(),
        "item\t2\nnote\t1"
    );
}

on_both_flavours!(
    rows_are_exactly_those_at_the_recorded_coordinates,
    a_server_without_a_binary_log_is_backed_up_with_a_warning,
    a_lock_that_never_comes_names_the_session_in_the_way,
    the_dump_needs_nothing_of_ours_to_be_restored,
);
