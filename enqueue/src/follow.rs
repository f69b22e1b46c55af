//! Following a job to its end.

use crate::{
    App,
    output::{size, span},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jobs::{
    queue::{
        history::{self, JobRow},
        waiting::{self, Waiting},
    },
    state::State,
};
use sqlx::MySqlConnection;
use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Shows progress until the job is over, then what came of it. Ctrl-C stops the following, not the job.
pub(crate) async fn follow(app: &App, connection: MySqlConnection, id: u64) -> anyhow::Result<ExitCode> {
    tokio::select! {
        job = wait(app, connection, id) => finish(app, &job?),
        _ = tokio::signal::ctrl_c() => {
            say(format_args!("no longer following; job {id} goes on. See it with `enqueue show {id}`, stop it with `enqueue cancel {id}`"));
            Ok(ExitCode::from(130))
        }
    }
}

#[expect(clippy::print_stderr, reason = "progress goes to standard error, results to standard output")]
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Shows progress until the job is over.
pub(crate) async fn wait(app: &App, connection: MySqlConnection, id: u64) -> anyhow::Result<JobRow> {
    let mut connection = Some(connection);
    let mut view = View::new(app.output.json, id);
    let mut pause = Duration::from_millis(100);
    loop {
        match look(app, &mut connection, id, view.last_line).await {
            Ok(Look { job, log, why }) => {
                for line in log {
                    view.last_line = line.id;
                    view.say(&format!("{}: {}", line.level, line.message));
                }
                view.show(&job, why.map(|why| why_text(app, &job, &why)));
                if job.state.is_final() {
                    view.end();
                    return Ok(job);
                }
            }
            // The job goes on without us; so we wait for MySQL as the workers do.
            Err(error) => {
                connection = None;
                view.trouble(&error);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

struct Look {
    job: JobRow,
    log: Vec<history::LogRow>,
    why: Option<Waiting>,
}

async fn look(app: &App, slot: &mut Option<MySqlConnection>, id: u64, after: u64) -> anyhow::Result<Look> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(app.connect().await?),
    };
    let job = history::show(connection, id).await?.ok_or_else(|| anyhow::anyhow!("job {id} does not exist"))?;
    let log = history::log(connection, id, after).await?;
    let why = if job.state == State::Available { Some(waiting::why(connection, &job).await?) } else { None };
    Ok(Look { job, log, why })
}

/// Why a waiting job waits, and what to do about it.
pub(crate) fn why_text(app: &App, job: &JobRow, why: &Waiting) -> String {
    match why {
        Waiting::Until(time) if job.attempt > 0 => {
            format!("waiting to try again at {} after: {}", app.output.time(*time), job.error.as_deref().unwrap_or("no reason given"))
        }
        Waiting::Until(time) => format!("waiting for {}", app.output.time(*time)),
        Waiting::Job(other) => format!("waiting for job {other}"),
        Waiting::CutOver(other) => {
            format!("waiting until a worker has ended the interrupted cut-over of job {other} (`enqueue show {other}`)")
        }
        Waiting::Busy(slots) => format!("waiting for a free worker slot ({slots} in use)"),
        Waiting::Nothing => "waiting for a worker".into(),
        Waiting::NoWorker { last_seen, nodes } => {
            let seen = match last_seen {
                Some(time) => format!("last heard of at {}", app.output.time(*time)),
                None => "none was ever seen".into(),
            };
            match job.queue.strip_prefix("node:") {
                Some(node) => {
                    let others = match &nodes[..] {
                        [] => String::new(),
                        nodes => {
                            format!(", or send the job elsewhere: `enqueue move {} --node NAME` (running: {})", job.id, nodes.join(", "))
                        }
                    };
                    format!("waiting: no worker runs on node `{node}` ({seen}); start one there with `worker run`{others}")
                }
                None => format!("waiting: no worker runs that serves the queue `{}` ({seen}); start one with `worker run`", job.queue),
            }
        }
    }
}

/// A bar on a terminal, plain lines in a pipe, nothing for scripts that asked for JSON.
struct View {
    bar: ProgressBar,
    plain: bool,
    last_line: u64,
    said: String,
    said_at: Instant,
}

impl View {
    fn new(json: bool, id: u64) -> Self {
        let terminal = io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            None,
            if terminal && !json { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        let view = Self { bar, plain: !terminal && !json, last_line: 0, said: String::new(), said_at: Instant::now() };
        view.say(&format!("job {id}"));
        view
    }

    /// A line above the bar.
    fn say(&self, text: &str) {
        if self.plain {
            say(text);
        } else {
            self.bar.println(text);
        }
    }

    fn show(&mut self, job: &JobRow, why: Option<String>) {
        let phase = match (job.state, why) {
            (State::Running, _) => job.phase.clone().unwrap_or_else(|| "starting".into()),
            (_, Some(why)) => why,
            _ => return,
        };
        let news = phase != self.said;
        if self.plain {
            if news || (job.state == State::Running && self.said_at.elapsed() > Duration::from_secs(10)) {
                self.say(&if job.progress_done > 0 && job.state == State::Running {
                    format!("{phase}: {}", amount(job))
                } else {
                    phase.clone()
                });
                self.said_at = Instant::now();
            }
        } else {
            if news {
                self.bar.reset();
                self.bar.set_style(style(job));
                self.bar.enable_steady_tick(Duration::from_millis(200));
            }
            self.bar.set_message(phase.clone());
            self.bar.set_length(job.progress_total.max(job.progress_done));
            self.bar.set_position(job.progress_done);
        }
        self.said = phase;
    }

    fn trouble(&mut self, error: &anyhow::Error) {
        let text = format!("cannot see the job at the moment ({}); it goes on, trying again", jobs::job::explain(error));
        if self.said != text {
            self.say(&text);
            self.said = text;
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
        // Anything later goes to standard output; nothing of the bar must come after it.
        _ = io::stderr().flush();
    }
}

fn amount(job: &JobRow) -> String {
    match job.progress_total {
        0 => size(job.progress_done),
        total => format!("{} of about {} ({} %)", size(job.progress_done), size(total), (job.progress_done * 100 / total).min(100)),
    }
}

fn style(job: &JobRow) -> ProgressStyle {
    let template = match (job.state, job.progress_total) {
        (State::Running, 1..) => "{msg}  [{bar:30}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left",
        (State::Running, 0) => "{msg}  {spinner} {decimal_bytes}  {elapsed}",
        _ => "{spinner} {msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// What came of the job, and the exit status that says so.
fn finish(app: &App, job: &JobRow) -> anyhow::Result<ExitCode> {
    if app.output.json {
        app.output.document(job)?;
    } else {
        result(app, job)?;
    }
    Ok(match job.state {
        State::Completed => ExitCode::SUCCESS,
        State::CompletedWithWarnings => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    })
}

/// The result as text: state and time, files with sizes, errors.
pub(crate) fn result(app: &App, job: &JobRow) -> anyhow::Result<()> {
    let seconds = match (job.started_at, job.finished_at) {
        (Some(start), Some(end)) => format!(" in {}", span((end - start).num_milliseconds() as f64 / 1000.0)),
        _ => String::new(),
    };
    app.output.line(format_args!("job {} ({}) {}{seconds}", job.id, job.kind, crate::output::state(job.state)))?;
    let result = job.result.as_ref();
    if let Some(result) = result.filter(|_| ["restore", "undo", "restore_plan"].contains(&&*job.kind)) {
        crate::restore::describe(app, job, result)?;
    }
    if let Some(backup) = result.and_then(|r| r["backup"].as_u64()) {
        app.output.line(format_args!("backup {backup}"))?;
    }
    for file in result.and_then(|r| r["files"].as_array()).into_iter().flatten() {
        let text = |key: &str| file[key].as_str().unwrap_or_default();
        app.output.line(format_args!(
            "  {:<10} {:>9}  {}/{}",
            text("component"),
            size(file["size"].as_u64().unwrap_or(0)),
            text("directory"),
            text("file_name")
        ))?;
    }
    let dry_run = result.is_some_and(|r| r["dry_run"] == true);
    for backup in result.and_then(|r| r["plan"]["backups"].as_array()).into_iter().flatten() {
        let word = match (backup["keep"] == true, dry_run) {
            (true, _) => "keep",
            (false, true) => "would remove",
            (false, false) => "remove",
        };
        app.output.line(format_args!(
            "  {word:<12}  backup {:<5} {}  {:>9}  {}",
            backup["backup"].to_string(),
            backup["taken_at"].as_str().and_then(|t| t.parse().ok()).map_or_else(String::new, |t| app.output.time(t)),
            size(backup["size"].as_u64().unwrap_or(0)),
            backup["why"].as_str().unwrap_or_default()
        ))?;
    }
    for file in result.and_then(|r| r["deleted"].as_array()).into_iter().flatten() {
        app.output.line(format_args!("  deleted {}", file["file_name"].as_str().unwrap_or_default()))?;
    }
    for key in ["errors", "warnings"] {
        for problem in result.and_then(|r| r[key].as_array()).into_iter().flatten() {
            app.output.line(format_args!("  {}: {}", key.trim_end_matches('s'), problem.as_str().unwrap_or_default()))?;
        }
    }
    if let Some(error) = &job.error {
        app.output.line(format_args!("  {error}"))?;
    }
    Ok(())
}
