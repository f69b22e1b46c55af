//! What the queue costs: latency, rates against the server's own floor, rows read per look, and queries of an idle worker.
//!
//! `benches/queue` builds it, starts the servers and sets the environment; the control schema is fresh and migrated.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use anyhow::{Context as _, ensure};
use clap::Parser;
use jobs::{
    config::{Config, Env},
    queue::{self, NewJob, claim::claim, enqueue, prune::prune, workers},
    register,
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, MySqlPool, Row};
use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const LEASE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Options {
    /// The worker program, built with the feature test-kinds.
    #[arg(long)]
    worker: PathBuf,
    /// Where workers' logs go.
    #[arg(long)]
    dir: PathBuf,
    /// Jobs per measurement of latency.
    #[arg(long, default_value_t = 200)]
    latency_jobs: usize,
    /// Jobs per measurement of a rate.
    #[arg(long, default_value_t = 2000)]
    jobs: u64,
    /// Rounds of every rate, alternating with its floor.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Rows of history.
    #[arg(long, default_value_t = 1_000_000)]
    history: u64,
    /// Seconds for which an idle worker is watched.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let config = Config::from_env(&Env::load(None)?)?;
    let bench = Bench { pool: queue::pool(&config.control, 2, LEASE), options, config };
    bench.fetches(0).await?;
    bench.idle().await?;
    for poll in [500, 50] {
        bench.latency(poll).await?;
    }
    bench.enqueue_rate().await?;
    for workers in [1, 2, 4] {
        bench.completion_rate(workers, 0).await?;
    }
    bench.fill_history().await?;
    bench.fetches(bench.options.history).await?;
    bench.completion_rate(1, bench.options.history).await?;
    bench.prune().await
}

struct Bench {
    options: Options,
    config: Config,
    pool: MySqlPool,
}

/// A worker process; told to stop when dropped.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            _ = kill_process(pid, Signal::TERM);
        }
        drop(self.0.wait());
    }
}

impl Bench {
    /// Starts workers and waits until all of them have announced themselves.
    async fn workers(&self, count: usize, poll_ms: u64, args: &[&str]) -> anyhow::Result<Vec<Worker>> {
        let before = self.value("SELECT COUNT(*) FROM workers").await?;
        let mut started = Vec::new();
        for i in 0..count {
            let log = File::create(self.options.dir.join(format!("worker{i}.log")))?;
            let mut command = Command::new(&self.options.worker);
            command.arg("run").args(args).env("BACKUP_POLL_MS", poll_ms.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            started.push(Worker(command.spawn().context("cannot start the worker")?));
        }
        let start = Instant::now();
        while self.value("SELECT COUNT(*) FROM workers").await? < before + count as i64 {
            ensure!(
                start.elapsed() < Duration::from_secs(20),
                "the workers did not start: see their logs in {}",
                self.options.dir.display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(started)
    }

    async fn value(&self, sql: &str) -> sqlx::Result<i64> {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT CAST(({sql}) AS SIGNED)"))).fetch_one(&self.pool).await
    }

    async fn sql(&self, sql: &str) -> sqlx::Result<u64> {
        Ok(self.pool.execute(AssertSqlSafe(sql.to_owned())).await?.rows_affected())
    }

    async fn connection(&self) -> sqlx::Result<MySqlConnection> {
        Ok(self.pool.acquire().await?.detach())
    }

    /// Enqueues `count` jobs, one by one, on one connection.
    async fn enqueue(&self, count: u64, job: &NewJob) -> anyhow::Result<()> {
        let mut connection = self.connection().await?;
        for _ in 0..count {
            enqueue(&mut connection, job).await?;
        }
        Ok(())
    }

    /// Enqueue to start, by MySQL's clock, of one job at a time, each at a random moment between two looks.
    async fn latency(&self, poll: u64) -> anyhow::Result<()> {
        let _worker = self.workers(1, poll, &[]).await?;
        let mut connection = self.connection().await?;
        let mut latencies = Vec::new();
        let mut random = 1u64;
        for _ in 0..self.options.latency_jobs {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            tokio::time::sleep(Duration::from_millis((random >> 33) % poll + 20)).await;
            let id = enqueue(&mut connection, &nothing()?).await?.id;
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let micros: Option<i64> = sqlx::query_scalar(
                    "SELECT TIMESTAMPDIFF(MICROSECOND, created_at, started_at) FROM jobs WHERE id = ? AND state = 'completed'",
                )
                .bind(id)
                .fetch_optional(&mut connection)
                .await?;
                if let Some(micros) = micros {
                    latencies.push(micros as f64 / 1e3);
                    break;
                }
            }
        }
        latencies.sort_by(f64::total_cmp);
        let at = |share| percentile(&latencies, share);
        row(
            &format!("enqueue to start, idle, BACKUP_POLL_MS={poll}, {} jobs", latencies.len()),
            &format!("p50 {:.0} ms, p99 {:.0} ms, worst {:.0} ms", at(0.5), at(0.99), at(1.0)),
        );
        Ok(())
    }

    /// Jobs enqueued per second on one connection; the floor is the bare INSERT.
    async fn enqueue_rate(&self) -> anyhow::Result<()> {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..self.options.rounds {
            let start = Instant::now();
            self.enqueue(self.options.jobs, &nothing()?).await?;
            ours.push(self.options.jobs as f64 / start.elapsed().as_secs_f64());
            let mut connection = self.connection().await?;
            let start = Instant::now();
            for _ in 0..self.options.jobs {
                connection
                    .execute(sqlx::query(
                        "INSERT INTO jobs (kind, payload, requested_by, requested_from) VALUES ('test_nothing', '{}', 'bench', 'bench')",
                    ))
                    .await?;
            }
            floor.push(self.options.jobs as f64 / start.elapsed().as_secs_f64());
            self.empty_queue().await?;
        }
        report("enqueue, 1 connection", ours, floor);
        Ok(())
    }

    /// Jobs completed per second by worker processes; the floor is claim and finish on as many connections.
    async fn completion_rate(&self, count: usize, history: u64) -> anyhow::Result<()> {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..self.options.rounds {
            let workers = self.workers(count, 50, &[]).await?;
            self.hold_jobs().await?;
            let newest = self.value("SELECT MAX(id) FROM jobs").await?;
            self.let_go().await?;
            while self.value("SELECT COUNT(*) FROM jobs WHERE state IN ('available', 'running')").await? > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            drop(workers);
            ours.push(self.rate(newest).await?);

            self.hold_jobs().await?;
            let newest = self.value("SELECT MAX(id) FROM jobs").await?;
            let mut bare = Vec::new();
            for worker in 0..count {
                bare.push((worker as u64, self.connection().await?));
            }
            self.let_go().await?;
            let bare: Vec<_> = bare.into_iter().map(|(worker, connection)| tokio::spawn(claim_and_finish(connection, worker))).collect();
            for one in bare {
                one.await??;
            }
            floor.push(self.rate(newest).await?);
        }
        let history = if history == 0 { String::new() } else { format!(", after {history} jobs of history") };
        report(&format!("claim, run and finish, {count} worker{}{history}", if count == 1 { "" } else { "s" }), ours, floor);
        Ok(())
    }

    /// Enqueues jobs that nobody may start yet.
    async fn hold_jobs(&self) -> anyhow::Result<()> {
        let job = nothing()?;
        self.enqueue(self.options.jobs, &NewJob { run_at: Some("2100-01-01T00:00:00Z".parse().context("time")?), ..job }).await
    }

    async fn let_go(&self) -> sqlx::Result<u64> {
        self.sql("UPDATE jobs SET run_at = UTC_TIMESTAMP(6) WHERE state = 'available'").await
    }

    /// Jobs per second between the first start and the last end of the newest jobs, of which `newest` is the last.
    async fn rate(&self, newest: i64) -> sqlx::Result<f64> {
        let first = newest - self.options.jobs as i64;
        let micros = self
            .value(&format!(
                "SELECT TIMESTAMPDIFF(MICROSECOND, MIN(started_at), MAX(finished_at)) FROM jobs WHERE id > {first} AND id <= {newest}"
            ))
            .await?;
        Ok(self.options.jobs as f64 / micros as f64 * 1e6)
    }

    /// Rows that the storage engine reads for one look for work, and how long that takes.
    async fn fetches(&self, history: u64) -> anyhow::Result<()> {
        let pool = queue::pool(&self.config.control, 1, LEASE);
        let worker = workers::register(&pool, "bench", &["shared".into(), "node:bench".into()], 1).await?;
        for (what, waiting, job) in [
            ("nothing waits", 0, None),
            ("1 job waits", 1, Some(nothing()?)),
            ("1,000 jobs wait", 1000, Some(nothing()?)),
            ("100 jobs wait for one resource", 100, Some(job(r#"{"resources": ["database"]}"#)?)),
        ] {
            if let Some(job) = &job {
                self.enqueue(waiting, job).await?;
            }
            let (mut rows, mut millis) = (Vec::new(), Vec::new());
            // The first look prepares its statements.
            for look in 0..12 {
                let (before, start) = (handler_reads(&pool).await?, Instant::now());
                let claimed = claim(&pool, &worker, LEASE).await?;
                millis.push(start.elapsed().as_secs_f64() * 1e3);
                let after = handler_reads(&pool).await?;
                if look > 0 {
                    rows.push((after - before) as f64);
                }
                ensure!(claimed.is_some() == job.is_some(), "a look found {claimed:?} where {what}");
                if let Some(claimed) = claimed {
                    self.put_back(claimed.id).await?;
                }
            }
            row(
                &format!("rows read by one look, {what}, {history} jobs of history"),
                &format!("{:.0} in {:.2} ms", median(rows), median(millis)),
            );
            self.empty_queue().await?;
        }
        Ok(())
    }

    /// How fast old history goes; it spans a week.
    async fn prune(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let jobs = prune(&self.pool, 6).await?.jobs;
        let seconds = start.elapsed().as_secs_f64();
        row(
            &format!("prune {jobs} jobs of {}, each with a line of log", self.options.history),
            &format!("{:.0} jobs per second", jobs as f64 / seconds),
        );
        Ok(())
    }

    async fn put_back(&self, id: u64) -> sqlx::Result<()> {
        self.sql(&format!("UPDATE resources SET job_id = NULL, fence = NULL WHERE job_id = {id}")).await?;
        self.sql(&format!("UPDATE jobs SET state = 'available', lease_until = NULL WHERE id = {id}")).await?;
        Ok(())
    }

    async fn empty_queue(&self) -> sqlx::Result<u64> {
        self.sql("DELETE FROM jobs WHERE state IN ('available', 'running')").await
    }

    /// Statements that one worker with the default settings sends while there is nothing to do.
    async fn idle(&self) -> anyhow::Result<()> {
        for args in [&[][..], &["--scheduler"]] {
            let _worker = self.workers(1, 500, args).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let (before, start) = (self.questions().await?, Instant::now());
            tokio::time::sleep(Duration::from_secs(self.options.idle_seconds)).await;
            // Less the question itself.
            let asked = self.questions().await? - before - 1;
            let with: String = args.iter().map(|a| format!(" with {a}")).collect();
            row(&format!("queries of an idle worker{with}"), &format!("{:.1} per second", asked as f64 / start.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    async fn questions(&self) -> anyhow::Result<i64> {
        let row = self.pool.fetch_one("SHOW GLOBAL STATUS LIKE 'Questions'").await?;
        Ok(row.try_get::<String, _>(1)?.parse()?)
    }

    /// Ended jobs with an attempt and a line of log each.
    async fn fill_history(&self) -> anyhow::Result<()> {
        const DIGITS: &str = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
        let start = Instant::now();
        let (mut made, newest) = (0, self.value("SELECT MAX(id) FROM jobs").await?);
        while made < self.options.history {
            let chunk = (self.options.history - made).min(10_000);
            self.sql(&format!(
                "INSERT INTO jobs (kind, state, payload, priority, max_attempts, requested_by, requested_from, created_at, run_at, attempt, fence, worker_id, node, started_at, finished_at, result)
                 SELECT 'test_nothing', ELT(1 + MOD(n, 20), 'failed', 'cancelled', 'completed_with_warnings', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed'),
                        '{{\"label\": \"history\"}}', 50, 4, 'bench', 'bench', t, t, 1, 1, 1, 'bench', t, t + INTERVAL 5 SECOND, '{{}}'
                   FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS n, UTC_TIMESTAMP(6) - INTERVAL (a.d + 10 * b.d + 100 * c.d + 1000 * e.d) MINUTE AS t
                           FROM {DIGITS} a, {DIGITS} b, {DIGITS} c, {DIGITS} e) numbers WHERE n < {chunk}"
            ))
            .await?;
            made += chunk;
        }
        self.sql(&format!("INSERT INTO job_attempts (job_id, fence, attempt, worker_id, node, started_at, ended_at, outcome) SELECT id, 1, 1, 1, node, started_at, finished_at, state FROM jobs WHERE id > {newest}")).await?;
        self.sql(&format!(
            "INSERT INTO job_log (job_id, attempt, level, message) SELECT id, 1, 'info', 'a line of history' FROM jobs WHERE id > {newest}"
        ))
        .await?;
        self.pool.execute("ANALYZE TABLE jobs, job_attempts, job_resources").await?;
        row(&format!("(making {made} jobs of history)"), &format!("{:.0} s", start.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// What any queue in a table must send for each job: one transaction that takes it, one that ends it.
async fn claim_and_finish(mut connection: MySqlConnection, worker: u64) -> sqlx::Result<()> {
    loop {
        let mut tx = connection.begin().await?;
        let job: Option<(u64, String)> = sqlx::query_as(
            "SELECT id, payload FROM jobs WHERE state = 'available' AND queue = 'shared' AND run_at <= UTC_TIMESTAMP(6)
              ORDER BY priority, id LIMIT 1 FOR UPDATE SKIP LOCKED",
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some((id, _)) = job else { return tx.rollback().await };
        sqlx::query(
            "UPDATE jobs SET state = 'running', attempt = attempt + 1, fence = fence + 1, worker_id = ?, node = 'bench', started_at = UTC_TIMESTAMP(6),
                    lease_until = UTC_TIMESTAMP(6) + INTERVAL 120 SECOND WHERE id = ?",
        )
        .bind(worker)
        .bind(id)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO job_attempts (job_id, fence, attempt, worker_id, node, started_at) VALUES (?, 1, 1, ?, 'bench', UTC_TIMESTAMP(6))",
        )
        .bind(id)
        .bind(worker)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;

        let mut tx = connection.begin().await?;
        sqlx::query(
            "UPDATE jobs SET state = 'completed', result = '{}', finished_at = UTC_TIMESTAMP(6), lease_until = NULL
              WHERE id = ? AND fence = 1 AND state = 'running'",
        )
        .bind(id)
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE job_attempts SET ended_at = UTC_TIMESTAMP(6), outcome = 'completed' WHERE job_id = ? AND fence = 1")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
    }
}

/// Rows that the session has read so far, by whatever way.
async fn handler_reads(pool: &MySqlPool) -> anyhow::Result<i64> {
    let mut sum = 0;
    for row in pool.fetch_all("SHOW SESSION STATUS LIKE 'Handler\\_read\\_%'").await? {
        sum += row.try_get::<String, _>(1)?.parse::<i64>()?;
    }
    Ok(sum)
}

fn job(payload: &str) -> anyhow::Result<NewJob> {
    let kind = register::find("test_nothing").context("built without the feature test-kinds: run benches/queue")?;
    NewJob::of_kind(kind, payload.parse()?, "bench", "bench").map_err(anyhow::Error::msg)
}

fn nothing() -> anyhow::Result<NewJob> {
    job("{}")
}

fn row(what: &str, value: &str) {
    println!("{what:<78} {value}");
}

fn report(what: &str, ours: Vec<f64>, floor: Vec<f64>) {
    let (ours, floor) = (median(ours), median(floor));
    row(what, &format!("{ours:.0} jobs per second, floor {floor:.0}, ratio {:.2}", floor / ours));
}

/// Of sorted values.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}
