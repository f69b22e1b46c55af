//! The kind `verify`: what is called proven has been restored, and nothing of a drill is left.

use crate::test_app::{OwnServer, TestApp, on_both_flavours};
use engine::server::Flavour;
use jobs::{backup::Backup, component::Component, state::State, verify::Verify};

async fn database(app: &TestApp) -> String {
    let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    app.completed(id).await.result.unwrap()["files"][0]["file_name"].as_str().unwrap().to_owned()
}

fn schemas(app: &TestApp) -> String {
    app.server.client(&format!(
        "SELECT GROUP_CONCAT(schema_name) FROM information_schema.schemata WHERE schema_name LIKE '{}\\_bk\\_scratch%'",
        app.name
    ))
}

async fn a_drill_proves_an_archive(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let older = database(&app).await;
    app.sql("INSERT INTO item (title) VALUES ('third')").await;
    let newest = database(&app).await;
    let ran = app.run_enqueue(&["verify", "--drill", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let job = app.control_value("SELECT MAX(id) FROM jobs WHERE kind = 'verify'").await;
    let result = app.show(job.parse().unwrap()).await.result.unwrap();
    assert_eq!(
        (result["archive"].as_str(), result["rows"].as_u64(), result["tables"].as_u64()),
        (Some(&*newest), Some(4), Some(2)),
        "{result}"
    );
    let proof = app
        .control_value(&format!(
            "SELECT CONCAT_WS(' ', verification, verified_job_id, drill_seconds > 0, drill_bytes_per_second > 0) FROM archives WHERE file_name = '{newest}'"
        ))
        .await;
    assert_eq!(proof, format!("restore_proven {job} 1 1"));
    assert_eq!(schemas(&app).trim(), "NULL");
    assert_eq!(app.control_value("SELECT COUNT(*) FROM made_schemas").await, "0");

    // Reading alone proves less, and takes no proof away.
    for (archive, verification) in [(&older, "hash_verified"), (&newest, "restore_proven")] {
        let ran = app.run_enqueue(&["verify", archive, "--wait"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(app.control_value(&format!("SELECT verification FROM archives WHERE file_name = '{archive}'")).await, verification);
    }
    // The live database was not touched.
    assert_eq!(app.server.client(&format!("SELECT COUNT(*) FROM {}.item", app.schema())).trim(), "3");
}

async fn damage_is_found_and_noted(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let names = [database(&app).await, database(&app).await];
    let path = app.backups_dir().join(&names[1]);
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[60] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for args in [vec!["verify", "--wait"], vec!["verify", "--drill", "--wait"]] {
        let ran = app.run_enqueue(&args);
        assert!(ran.code == Some(1) && ran.out.contains(&names[1]) && ran.out.contains("use another backup"), "{ran:?}");
        assert_eq!(app.control_value("SELECT GROUP_CONCAT(COALESCE(verification, '-') ORDER BY id) FROM archives").await, "-,failed");
    }
    // So retention takes the older one for the newest good backup.
    let ran = app.run_enqueue(&["delete", &names[0], "--yes"]);
    assert!(ran.code == Some(2) && ran.err.contains("is protected"), "{ran:?}");
    // Mended, it is good again.
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(app.run_enqueue(&["verify", "--drill", "--wait"]).code, Some(0));
    std::fs::remove_file(&path).unwrap();
    let ran = app.run_enqueue(&["verify", &names[1], "--wait"]);
    assert!(ran.code == Some(1) && ran.out.contains("No such file"), "{ran:?}");
    for (args, word) in [
        (vec!["verify", "nothing.sql.gz", "--wait"], "there is no archive `nothing.sql.gz`"),
        (vec!["verify", "--node", "elsewhere", "a/b", "--wait"], "without directory"),
    ] {
        let ran = app.run_enqueue(&args);
        assert!(ran.code != Some(0) && (ran.out.contains(word) || ran.err.contains(word)), "{ran:?}");
    }
    assert_eq!(schemas(&app).trim(), "NULL");
}

async fn a_drill_that_does_not_restore_condemns_the_archive(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let name = database(&app).await;
    // As if a row had been lost on the way into the dump: the catalog knows no better, its manifest does.
    let path = app.backups_dir().join(&name);
    let mut manifest = engine::archive::read_manifest(&path).unwrap().unwrap();
    for section in manifest.sections.iter_mut().filter(|s| s.kind == "table" && s.name == "item") {
        section.rows = Some(7);
    }
    let mut sql = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(std::fs::File::open(&path).unwrap()), &mut sql).unwrap();
    std::fs::remove_file(&path).unwrap();
    let control = engine::control::Control::default();
    let mut writer =
        engine::archive::ArchiveWriter::create(&app.backups_dir(), &name, "9.9", &engine::effort::Effort::full(1), &control).unwrap();
    let mut at = 0;
    for section in manifest.sections.clone() {
        engine::section_writer::SectionWriter::cut(&mut writer).unwrap();
        std::io::Write::write_all(&mut writer, &sql[at..section.end as usize]).unwrap();
        at = section.end as usize;
    }
    std::io::Write::write_all(&mut writer, &sql[at..]).unwrap();
    let archive = writer.finish(manifest).unwrap().publish().unwrap();
    app.control_sql(&format!("UPDATE archives SET size = {}, sha256 = '{}' WHERE file_name = '{name}'", archive.size, archive.sha256))
        .await;
    let ran = app.run_enqueue(&["verify", "--drill", "--wait"]);
    assert!(ran.code == Some(1) && ran.out.contains("table `item` has 2 rows, and the backup has 7"), "{ran:?}");
    assert_eq!(app.control_value("SELECT verification FROM archives").await, "failed");
    assert_eq!(schemas(&app).trim(), "NULL");
}

async fn a_killed_drill_leaves_nothing(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let first = app.worker();
    database(&app).await;
    assert!(app.worker_mut(first).terminate().success());
    let doomed = app.worker_with(&[("HERATIO_FAILPOINT", "drill_loaded=kill")], &[]);
    let job = app.enqueue(&Verify { archive: None, drill: true }).await;
    app.worker_mut(doomed).wait();
    assert_ne!(schemas(&app).trim(), "NULL");
    app.worker();
    assert_eq!(app.wait(job).await.state, State::Completed);
    app.worker();
    app.until("the scratch schema of the lost attempt to go", || schemas(&app).trim() == "NULL").await;
    assert_eq!(app.control_value("SELECT COUNT(*) FROM made_schemas").await, "0");
}

/// On another server, with an account that has no right on the application database, by the lines of `worker grants`.
async fn a_drill_elsewhere(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut app = TestApp::new(flavour).await;
    let password = "a-Long-one-3";
    let mut there = TestApp::bare(own.0.clone()).await;
    there.set("BACKUP_SCHEMA_PREFIX", app.env["BACKUP_SCHEMA_PREFIX"].clone());
    let grants = there.run_worker(&["grants", "--role", "drill"]);
    assert_eq!(grants.code, Some(0), "{grants:?}");
    own.0.client(&format!("CREATE USER heratio_drill@localhost IDENTIFIED BY '{password}'; {}", grants.out));
    app.set("BACKUP_SCRATCH_DATABASE_URL", format!("mysql://heratio_drill:{password}@localhost?socket={}", own.0.socket.display()));
    app.sql("CREATE DEFINER = nobody@nowhere SQL SECURITY INVOKER VIEW theirs AS SELECT COUNT(*) AS n FROM item").await;
    app.worker();
    database(&app).await;
    let ran = app.run_enqueue(&["verify", "--drill", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(app.control_value("SELECT verification FROM archives").await, "restore_proven");
    let left = own.0.client("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE '%scratch%'");
    assert_eq!(left.trim(), "0");
    let seen = own.0.client(
        "SELECT COUNT(*) FROM information_schema.schema_privileges WHERE grantee LIKE '%heratio_drill%' AND table_schema NOT LIKE '%bk%'",
    );
    assert_eq!(seen.trim(), "0");
}

/// Dumps and tars of other programs, in the backup directory.
async fn foreign_files(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let dump = app.server.tool("mysqldump").args(["--routines", "--events"]).arg(app.schema()).output().unwrap();
    let path = app.backups_dir().join("heratio-app-20260101.sql");
    std::fs::write(&path, &dump.stdout).unwrap();
    for (args, word) in [
        (vec!["verify", "heratio-app-20260101.sql", "--wait"], "hash_verified"),
        (vec!["verify", "heratio-app-20260101.sql", "--drill", "--wait"], "restore_proven"),
    ] {
        let ran = app.run_enqueue(&args);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let result =
            app.show(app.control_value("SELECT MAX(id) FROM jobs WHERE kind = 'verify'").await.parse().unwrap()).await.result.unwrap();
        assert_eq!((result["verification"].as_str(), result["foreign"].as_bool()), (Some(word), Some(true)), "{result}");
        if word == "restore_proven" {
            assert_eq!((result["tables"].as_u64(), result["rows"].as_u64()), (Some(2), Some(3)), "{result}");
        }
    }
    assert_eq!(schemas(&app).trim(), "NULL");
    // It is in nobody's catalog, so nothing is noted of it.
    assert_eq!(app.control_value("SELECT COUNT(*) FROM archives").await, "0");
    let tar = app.backups_dir().join("uploads_2025-01-31_020000.tar.gz");
    let noise: Vec<u8> = (0..300_000u64).map(|i| (i.wrapping_mul(6364136223846793005) >> 33) as u8).collect();
    std::fs::write(app.dir.join("uploads/r/one/z.bin"), noise).unwrap();
    assert!(std::process::Command::new("tar").arg("-czf").arg(&tar).arg("-C").arg(&app.dir).arg("uploads").status().unwrap().success());
    let whole = std::fs::read(&tar).unwrap();
    let ran = app.run_enqueue(&["verify", "uploads_2025-01-31_020000.tar.gz", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    std::fs::write(&tar, &whole[..whole.len() / 2]).unwrap();
    std::fs::write(&path, &dump.stdout[..dump.stdout.len() - 60]).unwrap();
    for (args, word) in [
        (vec!["verify", "uploads_2025-01-31_020000.tar.gz", "--wait"], "cannot be read to its end"),
        (vec!["verify", "heratio-app-20260101.sql", "--drill", "--wait"], "incomplete"),
        (vec!["verify", "uploads_2025-01-31_020000.tar.gz", "--drill", "--wait"], "a drill restores a database"),
    ] {
        let ran = app.run_enqueue(&args);
        assert!(ran.code == Some(1) && ran.out.contains(word), "`{word}`: {ran:?}");
    }
    assert!(app.files().iter().all(|f| !f.contains("imported")), "{:?}", app.files());
}

on_both_flavours!(
    foreign_files,
    a_drill_proves_an_archive,
    damage_is_found_and_noted,
    a_drill_that_does_not_restore_condemns_the_archive,
    a_killed_drill_leaves_nothing,
    a_drill_elsewhere,
);
