//! `enqueue show`.

use crate::{
    App,
    follow::{self, why_text},
    output,
};
use jobs::{
    queue::{history, waiting},
    state::State,
};
use serde_json::json;
use std::process::ExitCode;

/// Which job to show.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// The job's number.
    job: u64,
    /// Follow it to its end; the exit status tells how it ended.
    #[arg(long, short)]
    wait: bool,
}

impl ShowArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let mut connection = app.connect().await?;
        let id = self.job;
        let Some(job) = history::show(&mut connection, id).await? else {
            return Err(output::Refused(format!("job {id} does not exist; `enqueue jobs` lists them")).into());
        };
        if self.wait {
            return follow::follow(app, connection, id).await;
        }
        let attempts = history::attempts(&mut connection, id).await?;
        let log = history::log(&mut connection, id, 0).await?;
        let waiting = match job.state {
            State::Available => Some(why_text(app, &job, &waiting::why(&mut connection, &job).await?)),
            _ => None,
        };
        let trees = jobs::trees::describe(&mut connection, id).await?;
        let mut cut_over = jobs::cut_over::describe(&mut connection, id).await?;
        if let Some(safety) = jobs::in_place::safety_of(&mut connection, id).await? {
            let text = match job.state {
                State::Running => "in place, under way; its safety backup is",
                State::Completed | State::CompletedWithWarnings => "in place; its safety backup, which brings back what was there, is",
                _ => "in place: the live database may be incomplete. Next: `enqueue restore` its safety backup with --in-place:",
            };
            cut_over = Some(format!("{text} {safety}"));
        } else if !trees.is_empty() && !jobs::cut_over::exists(&mut connection, id).await? {
            cut_over = None;
        }
        if app.output.json {
            app.output.document(
                &json!({ "job": job, "waiting": waiting, "attempts": attempts, "log": log, "cut_over": cut_over, "trees": trees }),
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        follow::result(app, &job)?;
        if let Some(cut_over) = cut_over {
            app.output.line(format_args!("  {cut_over}"))?;
        }
        for tree in trees {
            app.output.line(format_args!("  {tree}"))?;
        }
        app.output.line(format_args!("  asked by {} ({}) at {}", job.requested_by, job.requested_from, app.output.time(job.created_at)))?;
        app.output.line(format_args!("  payload {}", job.payload))?;
        match (job.state, waiting) {
            (_, Some(why)) => app.output.line(format_args!("  {why}"))?,
            (State::Running, _) => app.output.line(format_args!(
                "  {}: {}",
                job.phase.as_deref().unwrap_or("starting"),
                match job.progress_total {
                    0 => output::size(job.progress_done),
                    total => format!("{} of about {}", output::size(job.progress_done), output::size(total)),
                }
            ))?,
            _ => {}
        }
        for a in &attempts {
            let outcome = a.outcome.as_deref().unwrap_or("running");
            let pid = a.pid.map_or_else(String::new, |p| format!(" (process {p})"));
            app.output.line(format_args!("attempt {}: {} on {}{pid}: {outcome}", a.attempt, app.output.time(a.started_at), a.node))?;
            if let Some(error) = a.error.as_ref().filter(|e| Some(*e) != job.error.as_ref()) {
                app.output.line(format_args!("  {error}"))?;
            }
        }
        for line in &log {
            app.output.line(format_args!("{} {:<5} {}", app.output.time(line.at), line.level, line.message))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
