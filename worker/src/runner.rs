//! One worker process: claims and runs jobs until it is told to stop.

use anyhow::Context as _;
use apalis::prelude::{Data, Monitor, WorkerBuilder, WorkerBuilderExt};
use apalis_core::error::BoxDynError;
use engine::server::ServerError;
use jobs::{
    catalog,
    config::Config,
    cut_over, health,
    job::{Context, explain},
    made_schemas,
    queue::{
        self, Claim,
        backend::{Core, MakeContext, MySqlBackend, Outcome, Queue, Running, run},
        prune::{Pruned, prune},
        reap::reap,
        workers,
    },
    schedule, trees, undo,
};
use sqlx::MySqlPool;
use std::{sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How one process works.
pub(crate) struct RunOptions {
    /// Queues to serve.
    pub(crate) queues: Vec<String>,
    /// Jobs at a time.
    pub(crate) concurrency: usize,
    /// Whether it enqueues the slots of schedules.
    pub(crate) scheduler: bool,
}

/// Runs until SIGTERM or SIGINT, and returns once no job of this process is running.
///
/// At the first signal no job is taken any more, and running ones get the grace time; at its end, or at the second
/// signal, they are told to stop, and repeatable ones are put back.
pub(crate) async fn work(config: Config, options: RunOptions) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let core = Core::start(&config.control, options.concurrency as u32 * 2 + 4, config.timing.lease)?;
    let pool = queue::pool(&config.control, options.concurrency as u32 * 2 + 2, config.timing.lease);
    let worker = wait_for_schema(&core, &config, &options).await?;
    tracing::info!(worker.id = worker.id, node = worker.node, queues = ?worker.queues, "worker started");

    let (stopping, expired) = (CancellationToken::new(), CancellationToken::new());
    let signals = watch_signals(stopping.clone(), expired.clone(), config.timing.grace)?;
    let upkeep = core.handle.spawn(upkeep(core.clone(), config.clone(), worker.id, expired.child_token()));
    let scheduler = options.scheduler.then(|| core.handle.spawn(scheduler(core.clone(), config.node.clone(), stopping.clone())));

    let queue = Queue { core: core.clone(), worker: worker.clone(), timing: config.timing, expired: expired.clone() };
    let make: MakeContext = Arc::new(move |claim, control, log| Context {
        config: config.clone(),
        pool: pool.clone(),
        job_id: claim.id,
        attempt: claim.attempt,
        is_last_attempt: claim.attempt >= claim.max_attempts,
        fence: claim.fence,
        requested_by: claim.requested_by.clone(),
        control,
        log,
    });
    let concurrency = options.concurrency;
    Monitor::new()
        .register(move |_| {
            WorkerBuilder::new(format!("worker-{}", queue.worker.id))
                .backend(MySqlBackend::new(queue.clone()))
                .concurrency(concurrency)
                .data(make.clone())
                .build(handle)
        })
        // A worker ends well only when it is told to; anything else is started again.
        .should_restart(|_, _| true)
        .run_with_signal(async move {
            stopping.cancelled().await;
            Ok(())
        })
        .await
        .context("worker")?;

    upkeep.abort();
    if let Some(scheduler) = scheduler {
        scheduler.abort();
    }
    signals.abort();
    // The row only tells people; the process ends in any case.
    let core_pool = core.pool.clone();
    if let Err(error) = core.handle.spawn(async move { workers::stopped(&core_pool, worker.id).await }).await? {
        tracing::warn!(%error, "cannot note that this worker stopped");
    }
    tracing::info!("worker stopped");
    Ok(())
}

async fn handle(claim: Claim, running: Data<Running>, make: Data<MakeContext>) -> Result<Outcome, BoxDynError> {
    Ok(run(&claim, (*running).clone(), &make).await)
}

/// Registers the worker, waiting for MySQL if it is not up yet; a missing or older schema is an error.
async fn wait_for_schema(core: &Core, config: &Config, options: &RunOptions) -> anyhow::Result<queue::WorkerRow> {
    let mut told = false;
    loop {
        // Says best what is wrong with address or account; and see `engine::socket_login`.
        if let Err(error) = config.control.connect().await
            && !error.is_transient()
            && !matches!(error, ServerError::UnknownSchema { .. })
        {
            return Err(error).context("control schema");
        }
        let (pool, node, queues, concurrency) =
            (core.pool.clone(), config.node.clone(), options.queues.clone(), options.concurrency as u32);
        let registered = core.handle.spawn(async move { workers::register(&pool, &node, &queues, concurrency).await }).await?;
        match registered {
            Ok(row) => return Ok(row),
            Err(sqlx_error) if sqlx_error.as_database_error().is_some() => {
                return Err(sqlx_error).with_context(|| {
                    format!("control schema `{}` at {} is not ready: run `worker migrate`", config.control.schema, config.control.target())
                });
            }
            Err(error) => {
                if !told {
                    tracing::warn!(%error, server = config.control.target(), "waiting for the control schema's server");
                    told = true;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn watch_signals(stopping: CancellationToken, expired: CancellationToken, grace: Duration) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::info!(grace_seconds = grace.as_secs(), "stopping: no more jobs are taken; a second signal stops the running ones at once");
        stopping.cancel();
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, () = tokio::time::sleep(grace) => {} }
        tracing::info!("stopping the running jobs; repeatable ones are put back");
        expired.cancel();
    }))
}

/// What every worker does beside its jobs: heartbeat, reaping, sweeping its own node, and hourly looking for trouble and pruning old history.
async fn upkeep(core: Core, config: Arc<Config>, worker: u64, stop: CancellationToken) {
    let lease = config.timing.lease;
    // A lost job is found at most a quarter of a lease late.
    let beat = (lease / 4).clamp(Duration::from_millis(250), Duration::from_secs(10));
    let mut sweep_at = tokio::time::Instant::now();
    let mut look_at = sweep_at;
    let mut recovery: Option<tokio::task::JoinHandle<()>> = None;
    while !stop.is_cancelled() {
        if let Err(error) = workers::heartbeat(&core.pool, worker).await {
            tracing::warn!(%error, "cannot write this worker's heartbeat");
            // After a restart of MySQL, a login of this kind lets the pools log in through a socket again.
            if let Ok(connection) = config.control.connect().await {
                drop(connection);
            }
        }
        let reaped = match reap(&core.pool, &config).await {
            Ok(reaped) => !reaped.is_empty(),
            Err(error) => {
                tracing::warn!(%error, "cannot look for lost jobs");
                false
            }
        };
        // Beside the heartbeat: it waits for the application's server.
        if recovery.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            recovery = Some(tokio::spawn(recover(core.pool.clone(), config.clone())));
        }
        if reaped || tokio::time::Instant::now() >= sweep_at {
            tidy(&core, &config.node).await;
            sweep_at = tokio::time::Instant::now() + beat * 6;
        }
        if tokio::time::Instant::now() >= look_at {
            // Beside the heartbeat: they wait for the application database, for disks, and for many rows.
            drop(tokio::spawn(health::look(core.pool.clone(), config.clone())));
            drop(tokio::spawn(prune_history(core.pool.clone(), config.history_days)));
            look_at = tokio::time::Instant::now() + Duration::from_secs(3600);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(beat) => {}
        }
    }
}

/// Looks each second for slots of schedules that have come. A worker that stops makes no more jobs.
async fn scheduler(core: Core, node: String, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let pause = match schedule::scheduler::tick(&core.pool, &node).await {
            Ok(served) => {
                for schedule::scheduler::Served { schedule, job, note } in served {
                    let note = note.unwrap_or_default();
                    match job {
                        Some(job) => tracing::info!(schedule, job.id = job, "enqueued {note}"),
                        None => tracing::warn!(schedule, "not enqueued: {note}"),
                    }
                }
                Duration::from_secs(1)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for slots of schedules");
                Duration::from_secs(5)
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn tidy(core: &Core, node: &str) {
    if let Err(error) = catalog::settle(&core.pool).await {
        tracing::warn!(%error, "cannot settle backups of ended jobs");
    }
    match catalog::sweep(&core.pool, node).await {
        Ok(removed) => {
            for path in removed {
                tracing::info!(path = %path.display(), "removed what an ended attempt left");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot sweep what ended attempts left"),
    }
}

/// Ends interrupted cut-overs, then drops schemas of ours that nobody needs.
async fn recover(pool: MySqlPool, config: Arc<Config>) {
    match cut_over::recover(&pool, &config).await {
        Ok(recovered) => {
            for cut_over::Recovered { job_id, ended } in recovered {
                tracing::warn!(job.id = job_id, state = ?ended.state, problems = ?ended.problems, "ended an interrupted cut-over");
            }
        }
        Err(error) => tracing::error!("an interrupted cut-over cannot be ended yet: {}", explain(&error)),
    }
    match trees::recover(&pool, &config).await {
        Ok(recovered) => {
            for trees::Recovered { job_id, component, done } in recovered {
                tracing::warn!(job.id = job_id, %component, finished = done, "ended an interrupted restore of files");
            }
        }
        Err(error) => tracing::error!("an interrupted restore of files cannot be ended yet: {}", explain(&error)),
    }
    match trees::drop_expired(&pool, &config.node).await {
        Ok(removed) => {
            for path in removed {
                tracing::info!(path = %path.display(), "removed what a restore had kept or left");
            }
        }
        Err(error) => tracing::warn!("directories that nobody needs cannot be removed yet: {}", explain(&error)),
    }
    for dropped in [undo::drop_expired(&pool, &config).await, made_schemas::sweep(&pool, &config).await] {
        match dropped {
            Ok(schemas) => {
                for schema in schemas {
                    tracing::info!(schema, "dropped");
                }
            }
            Err(error) => tracing::warn!("schemas that nobody needs cannot be dropped yet: {}", explain(&error)),
        }
    }
}

async fn prune_history(pool: MySqlPool, days: u32) {
    match prune(&pool, days).await {
        Ok(Pruned { jobs: 0, workers: 0 }) => {}
        Ok(Pruned { jobs, workers }) => tracing::info!(jobs, workers, "pruned history of more than {days} days"),
        Err(error) => tracing::warn!(%error, "cannot prune old history; it is tried again in an hour"),
    }
}
