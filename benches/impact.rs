//! The latency of a running web-like workload, while a command runs beside it or not.
//!
//! Open loop: requests start when they are due, whatever became of the ones before, so a stall counts for every request
//! that it delays (G. Tene, "How NOT to Measure Latency": no coordinated omission). `benches/impact` starts the servers.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use anyhow::{Context as _, ensure};
use clap::Parser;
use jobs::config::{Config, Env};
use sqlx::{Executor, MySqlPool, mysql::MySqlPoolOptions};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[derive(Parser)]
struct Options {
    /// What is measured, for the line that it prints.
    #[arg(long)]
    label: String,
    /// Requests per second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long to measure when no command is given, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Measure while this runs, again and again for at least `seconds`; through the shell.
    #[arg(long)]
    during: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let config = Config::from_env(&Env::load(None)?)?;
    let connect = config.application.connect_options().database(&config.application.schema);
    let pool = MySqlPoolOptions::new().max_connections(16).acquire_timeout(Duration::from_secs(120)).connect_with(connect).await?;
    pool.execute(
        "CREATE TABLE IF NOT EXISTS bench_visits (id INT AUTO_INCREMENT PRIMARY KEY, object_id INT NOT NULL, at DATETIME NOT NULL)",
    )
    .await?;
    let most: i32 = sqlx::query_scalar("SELECT MAX(id) FROM information_object").fetch_one(&pool).await?;
    // Once around, so that the buffer pool is as warm for the first measurement as for the last.
    for i in 0..200 {
        request(&pool, i, most).await?;
    }
    let mut command = options.during.as_ref().map(|text| {
        let text = text.clone();
        let least = Duration::from_secs(options.seconds);
        tokio::task::spawn_blocking(move || -> anyhow::Result<(u32, Duration)> {
            let (start, mut runs) = (Instant::now(), 0);
            while runs == 0 || start.elapsed() < least {
                let status = Command::new("bash").args(["-c", &text]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
                ensure!(status.success(), "`{text}` ended with {status}");
                runs += 1;
            }
            Ok((runs, start.elapsed() / runs))
        })
    });
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / options.rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut requests = Vec::new();
    let mut ran = None;
    loop {
        match &mut command {
            Some(running) if running.is_finished() => {
                ran = Some(running.await??);
                break;
            }
            None if start.elapsed() > Duration::from_secs(options.seconds) => break,
            _ => {}
        }
        let due = ticks.tick().await;
        let (pool, i) = (pool.clone(), requests.len() as u64);
        requests.push(tokio::spawn(async move {
            request(&pool, i, most).await?;
            anyhow::Ok(due.elapsed())
        }));
    }
    let mut took = Vec::with_capacity(requests.len());
    for one in requests {
        took.push(one.await??);
    }
    took.sort_unstable();
    let at = |percent: f64| -> anyhow::Result<f64> {
        let rank = ((took.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, took.len().max(1));
        Ok(took.get(rank - 1).context("no request was made")?.as_secs_f64() * 1000.0)
    };
    let ran = ran.map_or_else(String::new, |(runs, each)| format!("  ({runs} runs of {:.2} s)", each.as_secs_f64()));
    println!(
        "{:<34} {:>6} requests  p50 {:>7.2} ms  p95 {:>7.2} ms  p99 {:>7.2} ms  longest {:>8.1} ms{ran}",
        options.label,
        took.len(),
        at(50.0)?,
        at(95.0)?,
        at(99.0)?,
        at(100.0)?
    );
    Ok(())
}

/// What showing a description costs: a row and its text by key, its children, and a write.
async fn request(pool: &MySqlPool, i: u64, most: i32) -> sqlx::Result<()> {
    let id = (i.wrapping_mul(2_654_435_761) % u64::from(most.unsigned_abs().max(1))) as i32 + 1;
    let mut session = pool.acquire().await?;
    sqlx::query("SELECT io.id, io.parent_id, t.title, t.scope_and_content FROM information_object io JOIN information_object_i18n t ON t.id = io.id WHERE io.id = ?")
        .bind(id)
        .fetch_optional(&mut *session)
        .await?;
    sqlx::query("SELECT id FROM information_object WHERE parent_id = ? ORDER BY lft LIMIT 20").bind(id).fetch_all(&mut *session).await?;
    sqlx::query("INSERT INTO bench_visits (object_id, at) VALUES (?, UTC_TIMESTAMP())").bind(id).execute(&mut *session).await?;
    Ok(())
}
