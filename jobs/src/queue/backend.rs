//! apalis runs the workers: concurrency, layers, monitor, graceful stop. This is what it needs of us, a
//! [`Backend`] that yields claimed jobs and a layer around every handler that keeps the lease and writes the
//! outcome. All durable state is ours; apalis's own storage for MySQL never recovers a killed worker's job.
//!
//! Queue work runs on a thread, a runtime and a pool of its own ([`Core`]): a handler that blocks a runtime
//! thread must not keep a lease from being renewed, or a claim's transaction open.

use crate::{
    failpoint,
    job::{Context, Done, GiveUp, JobLog, Policy, Snooze, explain},
    queue::{
        Claim, WorkerRow,
        claim::claim,
        finish::{Verdict, Written, finish},
        lease::{Stop, keep},
        pool,
    },
    register,
    state::State,
};
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::BoxDynError,
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use engine::{control::Control, server::ServerConfig};
use sqlx::MySqlPool;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};
use tokio::{
    runtime::{self, Handle},
    sync::mpsc,
    task::{JoinError, JoinHandle},
};
use tokio_util::sync::CancellationToken;

/// How the queue is timed.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Life of a lease; renewed every third of it.
    pub lease: Duration,
    /// Pause between two looks for work when there was none.
    pub poll: Duration,
    /// How long running jobs may go on after SIGTERM.
    pub grace: Duration,
    /// Delay before a second attempt, instead of the kind's own.
    pub retry_delay: Option<Duration>,
}

/// The thread, runtime and pool on which all queue work runs.
#[derive(Clone)]
pub struct Core {
    /// Where queue work is spawned.
    pub handle: Handle,
    /// Connections of the queue alone.
    pub pool: MySqlPool,
}

impl Core {
    /// Starts the thread; it lives as long as the process.
    pub fn start(control: &ServerConfig, connections: u32, lease: Duration) -> std::io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().thread_name("queue").build()?;
        let handle = runtime.handle().clone();
        let pool = {
            let _entered = handle.enter();
            pool(control, connections, lease)
        };
        std::thread::Builder::new().name("queue".into()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self { handle, pool })
    }
}

/// Makes a job's [`Context`] out of what the queue knows of it.
pub type MakeContext = Arc<dyn Fn(&Claim, Control, JobLog) -> Context + Send + Sync>;

/// What the backend and its layer share.
#[derive(Clone)]
pub struct Queue {
    /// Where the work on jobs happens.
    pub core: Core,
    /// This process.
    pub worker: WorkerRow,
    /// How it is timed.
    pub timing: Timing,
    /// Cancelled when the grace time after SIGTERM is over: repeatable jobs are put back.
    pub expired: CancellationToken,
}

/// The stream of claimed jobs.
pub struct MySqlBackend {
    queue: Queue,
    pending: Option<JoinHandle<Option<Claim>>>,
}

impl MySqlBackend {
    /// A backend that claims for `queue.worker`.
    pub fn new(queue: Queue) -> Self {
        Self { queue, pending: None }
    }
}

impl Drop for MySqlBackend {
    fn drop(&mut self) {
        if let Some(pending) = &self.pending {
            pending.abort();
        }
    }
}

impl Backend for MySqlBackend {
    type Task = Task<Claim>;
    /// An error would end the worker and drop its running handlers; trouble with MySQL is waited out instead.
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut task::Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Called only when a slot is free, so nothing is claimed that cannot start at once.
    fn poll_next(&mut self, cx: &mut task::Context<'_>, worker: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        let pending = self.pending.get_or_insert_with(|| self.queue.core.handle.spawn(claim_loop(self.queue.clone(), worker.clone())));
        let Poll::Ready(claimed) = Pin::new(pending).poll(cx) else { return Poll::Pending };
        self.pending = None;
        match claimed {
            Ok(Some(claim)) => Poll::Ready(Some(Ok(task(claim)))),
            // Shutting down. `None` would be taken for the end of all jobs.
            _ => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Gives back a job that was claimed for a slot which will not run it.
    fn poll_close(&mut self, cx: &mut task::Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        while let Some(pending) = &mut self.pending {
            let Poll::Ready(claimed) = Pin::new(pending).poll(cx) else { return Poll::Pending };
            self.pending = match claimed {
                Ok(Some(claim)) => {
                    let pool = self.queue.core.pool.clone();
                    Some(self.queue.core.handle.spawn(async move {
                        give_back(&pool, &claim).await;
                        None
                    }))
                }
                _ => None,
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for MySqlBackend {
    type Args = Claim;
    type Id = u64;
    type Kind = Ephemeral;
    type Config = Queue;
    type Layer = RunLayer;

    fn config(&self) -> &Queue {
        &self.queue
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> RunLayer {
        RunLayer(self.queue.clone())
    }
}

/// apalis counts an attempt at the first poll.
fn task(claim: Claim) -> Task<Claim> {
    let (id, attempt, max) = (claim.id, claim.attempt as usize, claim.max_attempts as usize);
    TaskBuilder::new(claim).task_id(TaskId::from_int(id)).attempt(attempt.saturating_sub(1)).max_attempts(max).build()
}

/// Looks for work until there is some, the worker stops, or for ever. A task of its own: apalis no longer polls
/// the backend while it shuts down or is paused.
async fn claim_loop(queue: Queue, worker: WorkerContext) -> Option<Claim> {
    let mut trouble = Duration::ZERO;
    loop {
        if worker.is_shutting_down() {
            return None;
        }
        if worker.is_running() {
            failpoint::hit(failpoint::BEFORE_CLAIM).await;
            match claim(&queue.core.pool, &queue.worker, queue.timing.lease).await {
                Ok(Some(claim)) if worker.is_shutting_down() || !worker.is_running() => give_back(&queue.core.pool, &claim).await,
                Ok(Some(claim)) => {
                    failpoint::hit(failpoint::AFTER_CLAIM).await;
                    return Some(claim);
                }
                Ok(None) => trouble = Duration::ZERO,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for jobs; is the control schema's server up?");
                    trouble = (trouble * 2).clamp(queue.timing.poll, Duration::from_secs(5));
                }
            }
        }
        // A little apart from the other workers, which would otherwise all look in the same millisecond.
        let jitter = Duration::from_millis(u64::from(std::process::id()) % 20);
        tokio::time::sleep(queue.timing.poll.max(trouble) + jitter).await;
    }
}

async fn give_back(pool: &MySqlPool, claim: &Claim) {
    let verdict = Verdict::Release { why: "its worker was stopping; not started".into(), delay: Duration::ZERO };
    finish(pool, claim, &verdict, &JobLog::default()).await;
}

/// The outermost layer: keeps the lease while the handler runs, and writes what came of it.
#[derive(Clone)]
pub struct RunLayer(Queue);

impl<S> tower::Layer<S> for RunLayer {
    type Service = RunService<S>;

    fn layer(&self, inner: S) -> RunService<S> {
        RunService { inner, queue: self.0.clone() }
    }
}

/// See [`RunLayer`].
#[derive(Clone)]
pub struct RunService<S> {
    inner: S,
    queue: Queue,
}

/// What a handler gets besides the claim.
#[derive(Clone)]
pub struct Running {
    /// Stops and shows the work.
    pub control: Control,
    /// Takes its lines.
    pub log: JobLog,
}

/// What a handler returns: the job's own result, errors included, so that apalis's layers see only their own.
pub struct Outcome(pub anyhow::Result<Done>);

impl<S> tower::Service<Task<Claim>> for RunService<S>
where
    S: tower::Service<Task<Claim>, Response = Outcome>,
    S::Future: Send + 'static,
    S::Error: Into<BoxDynError> + Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxDynError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut task: Task<Claim>) -> Self::Future {
        let claim = task.args.clone();
        let running = Running { control: Control::default(), log: JobLog::default() };
        task.inject_data(running.clone());
        let handler = self.inner.call(task);
        // A task of its own: a dead stream does not drop it, and a panic becomes an error.
        let run = tokio::spawn(async move {
            match handler.await {
                Ok(Outcome(result)) => result,
                Err(error) => Err(anyhow::anyhow!(error.into())),
            }
        });
        let supervised = self.queue.core.handle.spawn(supervise(self.queue.clone(), claim, running, run));
        Box::pin(async move { supervised.await.unwrap_or_else(|e| Err(e.into())) })
    }
}

async fn supervise(queue: Queue, claim: Claim, running: Running, mut run: JoinHandle<anyhow::Result<Done>>) -> Result<(), BoxDynError> {
    let policy = register::find(&claim.kind).map_or(Policy::at_most_once(), |k| k.policy);
    let ended = CancellationToken::new();
    let (say, mut said) = mpsc::channel(4);
    let keeper = {
        let (pool, claim, lease) = (queue.core.pool.clone(), claim.clone(), queue.timing.lease);
        let (progress, log, ended) = (running.control.progress.clone(), running.log.clone(), ended.clone());
        tokio::spawn(keep(pool, claim, lease, progress, log, say, ended))
    };
    tracing::info!(job.id = claim.id, kind = claim.kind, attempt = claim.attempt, "started");
    let (stop, result) = tokio::select! {
        biased;
        result = &mut run => (None, result),
        stop = async {
            tokio::select! {
                // A keeper that died renews nothing.
                said = said.recv() => said.unwrap_or(Stop::LeaseLost),
                () = queue.expired.cancelled() => Stop::Shutdown,
                () = tokio::time::sleep(policy.time_limit) => Stop::TimeLimit,
            }
        } => {
            running.control.cancel.cancel();
            // Whoever ignores the token is cut; what blocks a thread can't be, and meets its lost fence instead.
            let patience = if stop == Stop::LeaseLost { queue.timing.lease / 6 } else { Duration::from_secs(30) };
            let result = match tokio::time::timeout(patience, &mut run).await {
                Ok(result) => result,
                Err(_) => {
                    run.abort();
                    run.await
                }
            };
            (Some(stop), result)
        }
    };
    for warning in running.control.progress.take_warnings() {
        running.log.warn(warning);
    }
    failpoint::hit(failpoint::AFTER_WORK).await;
    let verdict = verdict(&claim, policy, queue.timing.retry_delay, stop, result);
    let told = describe(&verdict);
    // The lease is kept until the outcome is written, or the fence says that it is another's.
    let written = finish(&queue.core.pool, &claim, &verdict, &running.log).await;
    ended.cancel();
    if keeper.await.is_err() {
        tracing::error!(job.id = claim.id, "the lease keeper panicked");
    }
    match written {
        Written::Yes => tracing::info!(job.id = claim.id, kind = claim.kind, attempt = claim.attempt, "{told}"),
        Written::Fenced => {
            tracing::error!(job.id = claim.id, kind = claim.kind, "its lease was lost, so its outcome is not written: {told}")
        }
    }
    Ok(())
}

fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Final { state, error: None, .. } => state.to_string(),
        Verdict::Final { state, error: Some(error), .. } => format!("{state}: {error}"),
        Verdict::Retry { error, delay } => format!("failed, again in {} s: {error}", delay.as_secs()),
        Verdict::Release { why, .. } => format!("put back: {why}"),
    }
}

/// What becomes of an attempt: a pure function of what happened and the kind's policy.
fn verdict(
    claim: &Claim,
    policy: Policy,
    retry_delay: Option<Duration>,
    stop: Option<Stop>,
    result: Result<anyhow::Result<Done>, JoinError>,
) -> Verdict {
    let failed = |state, error| Verdict::Final { state, result: None, error: Some(error), writes: None, follow_ups: Vec::new() };
    let again = |error: String| {
        if policy.at_most_once || claim.attempt >= claim.max_attempts {
            failed(State::Failed, error)
        } else {
            let first = retry_delay.unwrap_or(policy.retry_delay);
            let delay = first.saturating_mul(1 << (claim.attempt - 1).min(16)).min(Duration::from_secs(3600));
            Verdict::Retry { error, delay }
        }
    };
    let error = match result {
        // Work that was done before the stop reached it counts.
        Ok(Ok(Done { state, result, error, writes, follow_ups })) => {
            return Verdict::Final { state, result: Some(result), error, writes, follow_ups };
        }
        Ok(Err(error)) => error,
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            return again(format!("the job panicked: {}. This is a defect: please report it", text.unwrap_or("no message")));
        }
        Err(_) => anyhow::anyhow!("did not stop within its time and was cut"),
    };
    let text = explain(&error);
    // Whatever stopped a destructive job half way, only a person may start it again.
    let once = if policy.at_most_once {
        format!(". It is not started again by itself: see how far it got with `enqueue show {}`", claim.id)
    } else {
        String::new()
    };
    match stop {
        Some(Stop::Cancelled) => failed(State::Cancelled, format!("cancelled on request{once}")),
        Some(Stop::Preempted(by)) => failed(
            State::Cancelled,
            format!("cancelled for job {by}, which goes first; once that is over, `enqueue retry {}` makes this one anew", claim.id),
        ),
        Some(Stop::Shutdown) if policy.at_most_once => failed(State::Failed, format!("its worker was told to stop: {text}{once}")),
        Some(Stop::Shutdown) => {
            Verdict::Release { why: "its worker was told to stop; it starts again on the next free one".into(), delay: Duration::ZERO }
        }
        Some(Stop::TimeLimit) => again(format!("stopped after its time limit of {} s{once}", policy.time_limit.as_secs())),
        Some(Stop::LeaseLost) => again(format!("could not renew its lease in time (was the control schema's server away?){once}")),
        None => match error.downcast_ref::<Snooze>() {
            Some(Snooze(delay)) => Verdict::Release { why: text, delay: *delay },
            None if error.is::<GiveUp>() => failed(State::Failed, text),
            None => again(format!("{text}{once}")),
        },
    }
}

/// The handler that apalis calls: decodes the payload and runs the kind.
pub async fn run(claim: &Claim, running: Running, make: &MakeContext) -> Outcome {
    let context = make(claim, running.control, running.log);
    Outcome(
        async {
            let kind = register::find(&claim.kind)
                .ok_or_else(|| crate::job::give_up(anyhow::anyhow!("this worker knows no kind `{}`; upgrade it", claim.kind)))?;
            let payload = serde_json::from_str(&claim.payload).map_err(|e| crate::job::give_up(anyhow::anyhow!("payload: {e}")))?;
            failpoint::hit(failpoint::AT_START).await;
            (kind.run)(payload, &context).await
        }
        .await,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{give_up, snooze};

    fn claim(attempt: u32) -> Claim {
        Claim { id: 1, kind: "k".into(), payload: "{}".into(), attempt, max_attempts: 3, fence: 1, requested_by: String::new() }
    }

    fn shown(attempt: u32, policy: Policy, stop: Option<Stop>, error: anyhow::Error) -> String {
        match verdict(&claim(attempt), policy, None, stop, Ok(Err(error))) {
            Verdict::Final { state, error, .. } => format!("{state}: {}", error.unwrap_or_default()),
            Verdict::Retry { error, delay } => format!("retry {}: {error}", delay.as_secs()),
            Verdict::Release { why, delay } => format!("release {}: {why}", delay.as_secs()),
        }
    }

    #[test]
    fn verdicts() {
        let (repeatable, once) = (Policy::repeatable(), Policy::at_most_once());
        let oops = || anyhow::anyhow!("oops").context("dump `x`");
        assert_eq!(shown(1, repeatable, None, oops()), "retry 30: dump `x`: oops");
        assert_eq!(shown(2, repeatable, None, oops()), "retry 60: dump `x`: oops");
        assert_eq!(shown(3, repeatable, None, oops()), "failed: dump `x`: oops");
        assert!(shown(1, once, None, oops()).starts_with("failed: dump `x`: oops. It is not started again by itself"));
        assert_eq!(shown(1, repeatable, None, give_up(oops())), "failed: dump `x`: oops");
        assert_eq!(
            shown(1, repeatable, None, snooze(Duration::from_secs(300), anyhow::anyhow!("busy"))),
            "release 300: not now; again in 300 s: busy"
        );
        assert!(shown(3, repeatable, Some(Stop::Shutdown), oops()).starts_with("release 0"));
        assert!(shown(1, once, Some(Stop::Shutdown), oops()).starts_with("failed"));
        assert!(shown(1, repeatable, Some(Stop::Cancelled), oops()).starts_with("cancelled"));
        assert!(shown(1, repeatable, Some(Stop::Preempted(7)), oops()).starts_with("cancelled: cancelled for job 7"));
        assert!(shown(1, repeatable, Some(Stop::LeaseLost), oops()).starts_with("retry 30"));
        assert!(shown(1, once, Some(Stop::LeaseLost), oops()).starts_with("failed"));
    }
}
