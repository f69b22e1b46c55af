//! The crash matrix: a worker or its server is hit at every named place of a job's life. A repeatable job completes
//! with one visible effect; a destructive one never runs twice, and ends `failed` with an explanation, or completed.

use crate::test_app::{OwnServer, TestApp, TestServer, kill, on_both_flavours, wait_for};
use engine::server::Flavour;
use futures::{StreamExt, stream};
use jobs::{
    failpoint,
    queue::history::JobRow,
    state::State,
    test_kinds::{TestDestructive, TestRepeatable},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Repeatable,
    Destructive,
}

/// An application with what the test kinds write to.
async fn app(server: TestServer) -> TestApp {
    let mut app = TestApp::on(server).await;
    app.set("BACKUP_LEASE", "3");
    app.control_sql("CREATE TABLE test_effects (job_id BIGINT UNSIGNED PRIMARY KEY, fence BIGINT UNSIGNED NOT NULL)").await;
    app.sql("CREATE TABLE destroyed (job_id BIGINT, fence BIGINT, step INT, PRIMARY KEY (job_id, fence, step))").await;
    std::fs::create_dir(app.dir.join("effects")).unwrap();
    app
}

async fn enqueue(app: &TestApp, kind: Kind) -> u64 {
    let dir = app.dir.join("effects");
    match kind {
        Kind::Repeatable => app.enqueue(&TestRepeatable { dir: Some(dir), millis: 100, ..Default::default() }).await,
        Kind::Destructive => app.enqueue(&TestDestructive { dir, steps: 4, millis: 20, ..Default::default() }).await,
    }
}

/// What must be true whatever happened.
async fn check(app: &TestApp, kind: Kind, point: &str, job: &JobRow, case: &str) {
    match kind {
        Kind::Repeatable => {
            assert_eq!(job.state, State::Completed, "{case}: {job:#?}");
            assert_eq!(app.control_value("SELECT COUNT(*) FROM test_effects").await, "1", "{case}");
            let fence = job.result.as_ref().unwrap()["fence"].to_string();
            assert_eq!(app.control_value("SELECT fence FROM test_effects").await, fence, "{case}");
        }
        Kind::Destructive => {
            let runs = app.server.client(&format!("SELECT COUNT(DISTINCT fence) FROM {}.destroyed", app.schema()));
            assert!(["0", "1"].contains(&runs.trim()), "{case}: ran {runs} times");
            let attempts = app.control_value(&format!("SELECT COUNT(*) FROM job_attempts WHERE job_id = {}", job.id)).await;
            assert_eq!(attempts, "1", "{case}: {job:#?}");
            let untouched = point == failpoint::BEFORE_CLAIM || point == failpoint::AFTER_FINAL_TRANSACTION;
            match job.state {
                State::Completed => {}
                State::Failed if !untouched => {
                    let error = job.error.as_ref().unwrap();
                    assert!(error.contains("not started again by itself"), "{case}: {error}");
                }
                _ => panic!("{case}: {job:#?}"),
            }
        }
    }
    assert_eq!(app.control_value("SELECT COUNT(*) FROM resources WHERE job_id IS NOT NULL").await, "0", "{case}");
    // An alert that a worker was lost may be told just now.
    let open = format!("SELECT COUNT(*) FROM job_attempts WHERE ended_at IS NULL AND job_id = {}", job.id);
    assert_eq!(app.control_value(&open).await, "0", "{case}");
}

/// Every failpoint with both kinds, a few at a time.
async fn each_case<F: Future<Output = ()>>(run: impl Fn(&'static str, Kind) -> F) {
    let cases = failpoint::ALL.into_iter().flat_map(|point| [(point, Kind::Repeatable), (point, Kind::Destructive)]);
    stream::iter(cases.map(|(point, kind)| run(point, kind))).for_each_concurrent(5, |case| case).await;
}

async fn a_worker_is_killed(flavour: Flavour) {
    each_case(|point, kind| async move {
        let case = format!("kill at {point}, {kind:?}, {flavour}");
        let mut app = app(TestServer::shared(flavour)).await;
        let id = enqueue(&app, kind).await;
        let hit = app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=kill"))], &[]);
        let pid = app.worker_mut(hit).pid();
        app.until(&format!("{case}: the worker to die"), || process_state(pid).is_none_or(|s| s == 'Z')).await;
        app.worker();
        let job = app.wait(id).await;
        check(&app, kind, point, &job, &case).await;
    })
    .await;
}

async fn a_worker_is_stopped_beyond_its_lease_and_continued(flavour: Flavour) {
    each_case(|point, kind| async move {
        let case = format!("stop at {point}, {kind:?}, {flavour}");
        let mut app = app(TestServer::shared(flavour)).await;
        let id = enqueue(&app, kind).await;
        let hit = app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=stop"))], &[]);
        let pid = app.worker_mut(hit).pid();
        app.until(&format!("{case}: the worker to stop"), || process_state(pid) == Some('T')).await;
        // On the same node it would be killed.
        app.worker_with(&[("BACKUP_NODE", "node2")], &[]);
        let job = app.wait(id).await;
        check(&app, kind, point, &job, &case).await;
        let before = everything(&app).await;
        kill(pid, libc::SIGCONT);
        // The late worker notices its lost fence at its next beat, and goes on to serve other jobs.
        let next = enqueue(&app, Kind::Repeatable).await;
        app.completed(next).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(everything(&app).await, before, "{case}: a late worker changed something");
        let job = app.show(id).await;
        assert!(job.state.is_final(), "{case}");
    })
    .await;
}

/// What the first job left in the application database and the catalog.
async fn everything(app: &TestApp) -> String {
    let rows = app.server.client(&format!("SELECT * FROM {}.destroyed ORDER BY 1, 2, 3", app.schema()));
    let effects = app.control_value("SELECT GROUP_CONCAT(fence) FROM test_effects WHERE job_id = 1").await;
    let job = app.control_value("SELECT CONCAT_WS(' ', state, fence, finished_at, result, error) FROM jobs WHERE id = 1").await;
    format!("{rows}\n{effects}\n{job}")
}

async fn the_server_is_killed_and_restarted(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let mut held = Vec::new();
    for point in failpoint::ALL {
        for kind in [Kind::Repeatable, Kind::Destructive] {
            let mut app = app(own.0.clone()).await;
            let go = app.dir.join("go");
            let id = enqueue(&app, kind).await;
            app.worker_with(&[("HERATIO_FAILPOINT", &format!("{point}=hold:{}", go.display()))], &["--concurrency", "1"]);
            held.push((app, id, kind, point, go));
        }
    }
    for (app, .., point, go) in &held {
        let mark = PathBuf::from(format!("{}.held", go.display()));
        app.until(&format!("{point} to be reached"), || mark.exists()).await;
    }
    own.kill();
    own.restart();
    for (.., go) in &held {
        std::fs::write(go, "").unwrap();
    }
    for (app, id, kind, point, _) in &held {
        let job = app.wait(*id).await;
        check(app, *kind, point, &job, &format!("server killed at {point}, {kind:?}, {flavour}")).await;
    }
    drop(held);
}

/// A TCP way to the server that can be made to swallow all packets without closing anything.
struct Proxy {
    port: u16,
    swallow: Arc<AtomicBool>,
}

impl Proxy {
    async fn to(server: &TestServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let (socket, deaf) = (server.socket.clone(), swallow.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, socket.clone(), deaf.clone()));
            }
        });
        Self { port, swallow }
    }
}

async fn carry(client: TcpStream, socket: PathBuf, swallow: Arc<AtomicBool>) {
    let Ok(server) = UnixStream::connect(socket).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let deaf = swallow.clone();
    let up = async move {
        let mut buffer = vec![0; 65536];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            if !deaf.load(Ordering::Relaxed) && to_server.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    let down = async move {
        let mut buffer = vec![0; 65536];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            if swallow.load(Ordering::Relaxed) {
                // Neither data nor the end is passed on.
                std::future::pending::<()>().await;
            }
            if to_client.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(up, down);
}

async fn packets_vanish(flavour: Flavour) {
    each_case(|point, kind| async move {
        let case = format!("packets vanish at {point}, {kind:?}, {flavour}");
        let mut app = app(TestServer::shared(flavour)).await;
        let proxy = Proxy::to(&app.server).await;
        let user = format!("{}_p", app.name);
        app.server.client(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'; GRANT ALL ON *.* TO '{user}'@'%'"));
        let id = enqueue(&app, kind).await;
        let go = app.dir.join("go");
        let way = format!("mysql://{user}:x@127.0.0.1:{}/{}?ssl-mode=preferred", proxy.port, app.control());
        app.worker_with(
            &[("HERATIO_FAILPOINT", &format!("{point}=hold:{}", go.display())), ("BACKUP_DATABASE_URL", &way)],
            &["--concurrency", "1"],
        );
        let mark = PathBuf::from(format!("{}.held", go.display()));
        app.until(&format!("{case}: the place to be reached"), || mark.exists()).await;
        proxy.swallow.store(true, Ordering::Relaxed);
        std::fs::write(&go, "").unwrap();
        app.worker();
        let job = app.wait(id).await;
        check(&app, kind, point, &job, &case).await;
    })
    .await;
}

/// The letter of a process's state, as in ps(1).
fn process_state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn a_stubborn_worker_without_a_lease_cannot_write(flavour: Flavour) {
    let mut app = app(TestServer::shared(flavour)).await;
    let dir = app.dir.join("effects");
    let id = app.enqueue(&TestDestructive { dir, steps: 60, millis: 200, stubborn: true }).await;
    let worker = app.worker();
    wait_for("some steps", Duration::from_secs(20), || rows(&app) > 3);
    let pid = app.worker_mut(worker).pid();
    kill(pid, libc::SIGSTOP);
    // On the same node it would be killed.
    app.worker_with(&[("BACKUP_NODE", "node2")], &[]);
    let job = app.wait(id).await;
    assert_eq!(job.state, State::Failed, "{job:#?}");
    let before = rows(&app);
    kill(pid, libc::SIGCONT);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rows(&app), before, "its session had been ended");
    assert_eq!(app.show(id).await.state, State::Failed);
}

/// Work stops before the lease can be given away, without anybody's help: no other worker is there.
async fn a_worker_that_cannot_renew_stops_in_time(flavour: Flavour) {
    let mut app = app(TestServer::shared(flavour)).await;
    app.sql("ALTER TABLE destroyed ADD COLUMN at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)").await;
    let proxy = Proxy::to(&app.server).await;
    let user = format!("{}_p", app.name);
    app.server.client(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'; GRANT ALL ON *.* TO '{user}'@'%'"));
    let dir = app.dir.join("effects");
    let id = app.enqueue(&TestDestructive { dir, steps: 200, millis: 50, ..Default::default() }).await;
    let way = format!("mysql://{user}:x@127.0.0.1:{}/{}?ssl-mode=preferred", proxy.port, app.control());
    app.worker_with(&[("BACKUP_DATABASE_URL", &way)], &["--concurrency", "1"]);
    app.until("some steps", || rows(&app) > 3).await;
    proxy.swallow.store(true, Ordering::Relaxed);
    let late = |margin: &str| {
        let sql = format!(
            "SELECT COUNT(*) FROM {}.destroyed d, {}.jobs j WHERE j.id = {id} AND d.at > j.lease_until {margin}",
            app.schema(),
            app.control()
        );
        app.server.client(&format!("SET time_zone = '+00:00'; {sql}")).trim().to_owned()
    };
    app.until("the lease to run out", || {
        let sql = format!("SELECT lease_until < UTC_TIMESTAMP(6) - INTERVAL 2 SECOND FROM {}.jobs WHERE id = {id}", app.control());
        app.server.client(&sql).trim() == "1"
    })
    .await;
    assert_eq!(late(""), "0", "it went on after its lease");
    // It did work up to about then, or this would show nothing.
    assert_ne!(late("- INTERVAL 3 SECOND"), "0");
}

async fn a_lost_destructive_worker_is_killed_on_its_own_node(flavour: Flavour) {
    let mut app = app(TestServer::shared(flavour)).await;
    let dir = app.dir.join("effects");
    for kind in [Kind::Destructive, Kind::Repeatable] {
        let id = match kind {
            Kind::Destructive => app.enqueue(&TestDestructive { dir: dir.clone(), steps: 40, millis: 200, ..Default::default() }).await,
            Kind::Repeatable => app.enqueue(&TestRepeatable { millis: 2_000, ..Default::default() }).await,
        };
        let worker = app.worker();
        app.wait_until(id, "run", |j| j.state == State::Running).await;
        let pid = app.worker_mut(worker).pid();
        kill(pid, libc::SIGSTOP);
        let next = app.worker();
        app.wait(id).await;
        // Nobody has waited for it yet, so a killed one is a zombie.
        let expected = if kind == Kind::Destructive { 'Z' } else { 'T' };
        assert_eq!(process_state(pid), Some(expected), "{kind:?}");
        app.worker_mut(worker).kill();
        app.worker_mut(next).kill();
    }
}

fn rows(app: &TestApp) -> u64 {
    app.server.client(&format!("SELECT COUNT(*) FROM {}.destroyed", app.schema())).trim().parse().unwrap()
}

async fn random_kills_lose_and_double_nothing(flavour: Flavour) {
    let kills = if std::env::var_os("HERATIO_TEST_LONG").is_some() { 300 } else { 3 };
    let mut app = app(TestServer::shared(flavour)).await;
    app.control_sql("DROP TABLE test_effects; CREATE TABLE test_effects (job_id BIGINT UNSIGNED NOT NULL, fence BIGINT UNSIGNED NOT NULL)")
        .await;
    let mut workers = [app.worker(), app.worker(), app.worker()];
    let seed = std::process::id() as usize;
    println!("{kills} kills, seed {seed}");
    let mut random = seed;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let mut jobs = Vec::new();
    for kill_no in 0..kills {
        for _ in 0..4 {
            let kind = if next(4) == 0 { Kind::Destructive } else { Kind::Repeatable };
            jobs.push((enqueue(&app, kind).await, kind));
        }
        tokio::time::sleep(Duration::from_millis(50 + next(400) as u64)).await;
        let victim = next(workers.len());
        app.worker_mut(workers[victim]).kill();
        workers[victim] = app.worker();
        if kill_no % 50 == 49 {
            println!("{} kills, {} jobs", kill_no + 1, jobs.len());
        }
    }
    let (mut completed, mut failed) = (0, 0);
    for (id, kind) in &jobs {
        let job = app.wait(*id).await;
        match (kind, job.state) {
            (_, State::Completed) => completed += 1,
            (Kind::Destructive, State::Failed) => failed += 1,
            _ => panic!("{job:#?}"),
        }
    }
    let value = |sql: String| app.server.client(&sql).trim().to_owned();
    let control = app.control();
    // Lost: none unfinished, every repeatable has its effect. Doubled: no job has two.
    let repeatable = jobs.iter().filter(|(_, kind)| *kind == Kind::Repeatable).count().to_string();
    assert_eq!(value(format!("SELECT COUNT(*) FROM {control}.test_effects")), repeatable);
    assert_eq!(value(format!("SELECT COUNT(DISTINCT job_id) FROM {control}.test_effects")), repeatable);
    let twice =
        format!("SELECT COUNT(*) FROM (SELECT job_id FROM {}.destroyed GROUP BY job_id HAVING COUNT(DISTINCT fence) > 1) x", app.schema());
    assert_eq!(value(twice), "0");
    let overlapping = format!(
        "SELECT COUNT(*) FROM {control}.job_attempts a JOIN {control}.job_attempts b
           ON a.job_id < b.job_id AND a.started_at < b.ended_at AND b.started_at < a.ended_at
           JOIN {control}.jobs ja ON ja.id = a.job_id AND ja.kind = 'test_destructive'
           JOIN {control}.jobs jb ON jb.id = b.job_id AND jb.kind = 'test_destructive'"
    );
    assert_eq!(value(overlapping), "0", "two destructive jobs held `database` at once");
    println!("{} jobs: {completed} completed, {failed} destructive ones failed, 0 lost, 0 doubled, 0 overlapping", jobs.len());
}

on_both_flavours!(
    a_worker_is_killed,
    a_worker_is_stopped_beyond_its_lease_and_continued,
    the_server_is_killed_and_restarted,
    packets_vanish,
    a_stubborn_worker_without_a_lease_cannot_write,
    a_worker_that_cannot_renew_stops_in_time,
    a_lost_destructive_worker_is_killed_on_its_own_node,
    random_kills_lose_and_double_nothing,
);
