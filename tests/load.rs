//! Loading an archive over several connections gives what one `gunzip | mysql` gives.

use crate::test_app::{TestApp, TestServer, on_both_flavours};
use engine::{
    archive::read_manifest,
    control::Control,
    load::{Code, Loaded, load, statements_of},
    server::Flavour,
    sql_scan::SectionKind,
};
use jobs::{backup::Backup, component::Component};
use sqlx::Row;
use std::path::{Path, PathBuf};

/// A schema with a large table, foreign keys in a circle, code of every sort, and values that are easily broken.
async fn fill(app: &TestApp) {
    app.sql(
        "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(200), b BLOB, KEY (a));
         INSERT INTO big (a, b) VALUES ('it''s \\\\ \"x\" ;', x'00270a5c3b22'), (NULL, NULL), ('😀\n;', '');
         CREATE TABLE egg (id INT PRIMARY KEY, hen INT);
         CREATE TABLE hen (id INT PRIMARY KEY, egg INT, FOREIGN KEY (egg) REFERENCES egg (id));
         INSERT INTO egg VALUES (1, 1); INSERT INTO hen VALUES (1, 1);
         ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen (id);
         CREATE VIEW on_view AS SELECT twice(id) AS two, title FROM titled;
         CREATE TRIGGER big_after AFTER INSERT ON big FOR EACH ROW INSERT INTO egg (id) SELECT -NEW.id FROM hen WHERE 1 = 0",
    )
    .await;
    for _ in 0..16 {
        app.sql("INSERT INTO big (a, b) SELECT CONCAT(id, a), b FROM big LIMIT 40000").await;
    }
    app.sql("INSERT INTO big (a, b) SELECT REPEAT('y', 190), REPEAT('z', 60) FROM big LIMIT 60000").await;
}

async fn archive(app: &mut TestApp) -> PathBuf {
    app.worker();
    let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    let result = app.completed(id).await.result.unwrap();
    app.backups_dir().join(result["files"][0]["file_name"].as_str().unwrap())
}

async fn load_with(app: &TestApp, archive: &Path, schema: &str, connections: usize, code: Code) -> Loaded {
    app.server.client(&format!("DROP DATABASE IF EXISTS `{schema}`; CREATE DATABASE `{schema}`"));
    let config = engine::server::ServerConfig { schema: schema.to_owned(), ..app.config().application };
    let mut sessions = Vec::new();
    for _ in 0..connections {
        sessions.push(config.connect().await.unwrap());
    }
    let manifest = read_manifest(archive).unwrap().unwrap();
    load(archive, &manifest, schema, code, sessions, &Control::default()).await.unwrap()
}

/// Every definition and every row's checksum.
pub(crate) async fn everything(app: &TestApp, schema: &str) -> Vec<String> {
    everything_on(&app.server, schema).await
}

/// The same on this server.
pub(crate) async fn everything_on(server: &TestServer, schema: &str) -> Vec<String> {
    let mut connection = server.connect(Some(schema)).await;
    let mut found = Vec::new();
    let list = [
        ("TABLE", "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1"),
        ("TRIGGER", "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() ORDER BY 1"),
        (
            "PROCEDURE",
            "SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE() AND routine_type = 'PROCEDURE' ORDER BY 1",
        ),
        (
            "FUNCTION",
            "SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE() AND routine_type = 'FUNCTION' ORDER BY 1",
        ),
        ("EVENT", "SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE() ORDER BY 1"),
    ];
    for (kind, names) in list {
        let names: Vec<String> = sqlx::raw_sql(names).fetch_all(&mut connection).await.unwrap().iter().map(|r| r.get(0)).collect();
        for name in names {
            let shown =
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SHOW CREATE {kind} `{name}`"))).fetch_one(&mut connection).await.unwrap();
            let column = if matches!(kind, "TABLE") {
                1
            } else if kind == "EVENT" {
                3
            } else {
                2
            };
            found.push(
                String::from_utf8_lossy(shown.try_get_unchecked::<&[u8], _>(column).unwrap())
                    .replace(schema, "SCHEMA")
                    .trim_end_matches(';')
                    .to_owned(),
            );
            if kind == "TABLE" && !found.last().unwrap().contains(" VIEW ") {
                let sum = server.client(&format!("CHECKSUM TABLE `{schema}`.`{name}`"));
                found.push(format!("{name} {}", sum.trim().rsplit('\t').next().unwrap()));
            }
        }
    }
    found
}

async fn the_same_as_one_client_gives(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    fill(&app).await;
    let archive = archive(&mut app).await;
    let (plain, staged) = (format!("{}_plain", app.name), format!("{}_staged", app.name));
    app.server.load(&archive, &plain);
    let expected = everything(&app, &plain).await;
    assert_eq!(expected, everything(&app, &app.schema()).await);
    for connections in [1, 4] {
        let loaded = load_with(&app, &archive, &staged, connections, Code::All).await;
        assert_eq!(loaded.tables, 5, "{loaded:?}");
        assert_eq!(everything(&app, &staged).await, expected, "{connections} connections");
    }
    // Events wait for the cut-over, or everything that is not a table does.
    load_with(&app, &archive, &staged, 2, Code::WithoutEvents).await;
    let without: Vec<String> = expected.iter().filter(|d| !d.contains(" EVENT ")).cloned().collect();
    assert_eq!(everything(&app, &staged).await, without);
    load_with(&app, &archive, &staged, 2, Code::None).await;
    let objects = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = ";
    assert_eq!(app.server.client(&format!("{objects}'{staged}'")).trim(), "5");

    let manifest = read_manifest(&archive).unwrap().unwrap();
    let events = statements_of(&archive, &manifest, &[SectionKind::Events]).unwrap();
    assert_eq!(events.iter().filter(|s| s.contains("EVENT `nightly` ON SCHEDULE")).count(), 1, "{events:#?}");
}

async fn what_cannot_be_loaded_says_why(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let archive = archive(&mut app).await;
    let staged = format!("{}_staged", app.name);
    app.server.client(&format!("CREATE DATABASE `{staged}`"));
    let config = engine::server::ServerConfig { schema: staged.clone(), ..app.config().application };
    let manifest = read_manifest(&archive).unwrap().unwrap();

    let section = manifest.sections.iter().find(|s| s.name == "item").unwrap();
    let members = manifest.members.iter().scan((0, 0), |at, m| Some((std::mem::replace(at, (at.0 + m.0, at.1 + m.1)), m.0)));
    let (member, raw) = members.into_iter().find(|(at, raw)| (at.0..at.0 + raw).contains(&section.start)).unwrap();
    let in_it = manifest.sections.iter().filter(|s| s.start < member.0 + raw && s.end > member.0);
    let mut names = in_it.map(|s| if s.name.is_empty() { s.kind.clone() } else { format!("`{}`", s.name) });
    let mut bytes = std::fs::read(&archive).unwrap();
    bytes[member.1 as usize + 60] ^= 0x10;
    let damaged = app.backups_dir().join("damaged.sql.gz");
    std::fs::write(&damaged, &bytes).unwrap();
    let error =
        load(&damaged, &manifest, &staged, Code::All, vec![config.connect().await.unwrap()], &Control::default()).await.unwrap_err();
    assert!(names.any(|name| error.to_string().contains(&name)) && error.hint().is_some(), "{error}");

    let cancelled = Control::default();
    cancelled.cancel.cancel();
    let error = load(&archive, &manifest, &staged, Code::All, vec![config.connect().await.unwrap()], &cancelled).await.unwrap_err();
    assert_eq!(error.to_string(), "loading was cancelled");
}

on_both_flavours!(the_same_as_one_client_gives, what_cannot_be_loaded_says_why);
