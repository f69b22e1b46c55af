//! `worker migrate`.

use crate::test_app::{TestApp, TestServer, on_both_flavours};
use engine::server::Flavour;
use jobs::migrate::{MIGRATIONS, migrate};

async fn it_is_idempotent_and_repeatable_after_a_crash(flavour: Flavour) {
    let app = TestApp::bare(TestServer::shared(flavour)).await;
    let first = migrate(&app.config()).await.unwrap();
    assert_eq!(first.applied.len(), MIGRATIONS.len());
    assert!(migrate(&app.config()).await.unwrap().applied.is_empty());
    // As after a death between a migration's last statement and its row.
    app.control_sql("DELETE FROM schema_migrations").await;
    assert_eq!(migrate(&app.config()).await.unwrap().applied.len(), MIGRATIONS.len());
}

async fn many_at_once(flavour: Flavour) {
    let app = TestApp::bare(TestServer::shared(flavour)).await;
    let config = app.config();
    let all = (0..4).map(|_| {
        let config = config.clone();
        tokio::spawn(async move { migrate(&config).await.unwrap().applied.len() })
    });
    let mut applied = 0;
    for one in all.collect::<Vec<_>>() {
        applied += one.await.unwrap();
    }
    assert_eq!(applied, MIGRATIONS.len());
}

async fn it_refuses_the_application_database(flavour: Flavour) {
    let mut app = TestApp::bare(TestServer::shared(flavour)).await;
    let same = app.env["HERATIO_DATABASE_URL"].clone();
    app.set("BACKUP_DATABASE_URL", same);
    let ran = app.run_worker(&["migrate"]);
    assert_ne!(ran.code, Some(0));
    assert!(ran.err.contains("are the same schema") && ran.err.contains(&app.schema()), "{ran:?}");
    let tables = app
        .server
        .client(&format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{}' AND table_name = 'jobs'", app.schema()));
    assert_eq!(tables.trim(), "0");
}

async fn it_refuses_a_schema_of_a_newer_version(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    app.control_sql("INSERT INTO schema_migrations VALUES (999, 'future', REPEAT('0', 64), UTC_TIMESTAMP(6))").await;
    let error = migrate(&app.config()).await.unwrap_err().to_string();
    assert!(error.contains("newer version"), "{error}");
}

async fn a_worker_without_a_schema_says_what_to_do(flavour: Flavour) {
    let app = TestApp::bare(TestServer::shared(flavour)).await;
    let ran = app.run_worker(&["run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("worker migrate"), "{ran:?}");
}

on_both_flavours!(
    it_is_idempotent_and_repeatable_after_a_crash,
    many_at_once,
    it_refuses_the_application_database,
    it_refuses_a_schema_of_a_newer_version,
    a_worker_without_a_schema_says_what_to_do,
);
