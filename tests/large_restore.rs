//! Restoring what is larger than the memory that it may take, or than the disk that there is.

use crate::{
    restore::{back_up, made, patient, restore},
    test_app::{Mount, OwnServer, TestApp, kill, on_both_flavours},
};
use engine::server::Flavour;
use jobs::{restore::Restore, restore_plan::RestorePlan, state::State};
use std::{fs, mem::ManuallyDrop, path::Path, time::Duration};

/// A table with rows of a megabyte each, twice as many per doubling.
async fn grow(app: &TestApp, doublings: usize) -> u64 {
    app.sql("CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, body LONGTEXT); INSERT INTO big (body) VALUES (REPEAT(SHA2(RAND(), 512), 8000))").await;
    for _ in 0..doublings {
        app.sql("INSERT INTO big (body) SELECT REPEAT(SHA2(RAND(), 512), 8000) FROM big").await;
    }
    1_024_000 << doublings
}

/// Peak memory of a process, in bytes.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// In `--long`, 1 GB in under 256 MB; else 131 MB in under 128 MB, which holding the dump would not be.
async fn memory_does_not_grow_with_the_dump(flavour: Flavour) {
    let (doublings, bound) = if std::env::var_os("HERATIO_TEST_LONG").is_some() { (10, 256_000_000) } else { (7, 128_000_000) };
    let mut app = patient(flavour).await;
    let bytes = grow(&app, doublings).await;
    let first = app.worker();
    let archive = back_up(&app).await;
    app.worker_mut(first).kill();
    app.sql("DELETE FROM big WHERE id > 1").await;
    let second = app.worker();
    let request = RestorePlan { archive, ..Default::default() };
    let plan = app.enqueue(&request).await;
    let evidence = app.completed(plan).await.result.unwrap()["evidence"].as_str().unwrap().to_owned();
    let id = app.enqueue(&Restore::of(plan, &evidence, request)).await;
    let mut told = (0, 0);
    let start = std::time::Instant::now();
    let job = loop {
        let job = app.show(id).await;
        if job.progress_total > told.1 {
            told = (job.progress_done, job.progress_total);
        }
        if job.state.is_final() {
            break job;
        }
        assert!(start.elapsed() < Duration::from_secs(900), "{job:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(job.state, State::Completed, "{job:#?}");
    // Progress is told in bytes, with their sum, from which the time left is estimated.
    assert!(told.1 > bytes / 2, "{told:?}");
    let worker = app.worker_mut(second).pid();
    let peak = peak(worker);
    println!("{flavour}: restored {bytes} bytes, the worker's peak memory was {peak} bytes");
    assert!(bytes > bound && peak < bound, "{peak} bytes of memory for {bytes} bytes");
    assert_eq!(app.server.client(&format!("SELECT COUNT(*) FROM {}.big", app.schema())).trim(), (1u64 << doublings).to_string());
}

/// Fills a file system until only so many bytes are free.
fn fill(directory: &Path, leave: u64) {
    let stat = std::process::Command::new("df").args(["--output=avail", "-B1"]).arg(directory).output().unwrap();
    let free: u64 = String::from_utf8(stat.stdout).unwrap().lines().nth(1).unwrap().trim().parse().unwrap();
    let size = free.saturating_sub(leave).to_string();
    assert!(std::process::Command::new("fallocate").args(["-l", &size]).arg(directory.join("filler")).status().unwrap().success());
}

async fn a_server_without_room_is_named_with_what_is_needed_and_free(flavour: Flavour) {
    let directory = OwnServer::directory();
    let mount = Mount::tmpfs(&directory, "900m");
    let housed = Housed { own: ManuallyDrop::new(OwnServer::start_in(flavour, &directory, &[])), mount: Some(mount) };
    let mut app = TestApp::on(housed.own.0.clone()).await;
    app.set("BACKUP_LEASE", "30");
    grow(&app, 6).await;
    app.worker();
    let archive = back_up(&app).await;
    fill(&directory, 60_000_000);
    let (ran, job) = restore(&app, &[&archive]).await;
    assert!(ran.code == Some(2) && job.kind == "restore_plan", "{ran:?}");
    for words in ["not enough space in", "are needed beside what is live", "are free", "free space there"] {
        assert!(ran.out.contains(words), "`{words}` is not in {ran:?}");
    }
    assert!(made(&app).is_empty());
    // In place there is no second copy, so it is not asked for.
    let ran = app.run_enqueue(&["restore", &archive, "--in-place", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    fs::remove_file(directory.join("filler")).unwrap();
    drop(app);
    drop(housed);
}

/// A server in a mount: it goes first, and its directory with the mount.
struct Housed {
    own: ManuallyDrop<OwnServer>,
    mount: Option<Mount>,
}

impl Drop for Housed {
    fn drop(&mut self) {
        let server = &self.own.0;
        kill(server.pid(), 9);
        let process = format!("/proc/{}", server.pid());
        for _ in 0..1000 {
            if !Path::new(&process).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let directory = server.dir.clone();
        self.mount = None;
        drop(fs::remove_dir_all(directory));
    }
}

on_both_flavours!(memory_does_not_grow_with_the_dump, a_server_without_room_is_named_with_what_is_needed_and_free);
