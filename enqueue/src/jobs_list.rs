//! `enqueue jobs`.

use crate::{App, follow::why_text, output};
use jobs::{
    queue::{history, waiting},
    state::State,
};
use std::process::ExitCode;

/// Which jobs to list.
#[derive(clap::Args)]
pub(crate) struct JobsArgs {
    /// Only jobs in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Only jobs of this kind, such as `backup`.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// How many at most.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl JobsArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        if let Some(kind) = &self.kind
            && jobs::register::find(kind).is_none()
        {
            let kinds: Vec<&str> = jobs::register::KINDS.iter().map(|k| k.name).collect();
            return Err(output::Refused(format!("`{kind}` is not a kind; there are {}", kinds.join(", "))).into());
        }
        let mut connection = app.connect().await?;
        let jobs = history::list(&mut connection, self.state, self.kind.as_deref(), self.limit).await?;
        if app.output.json {
            app.output.document(&jobs)?;
        } else if jobs.is_empty() {
            app.output.line("no such jobs; submit one with `enqueue backup`")?;
        } else {
            let mut rows = Vec::new();
            for j in &jobs {
                let note = match j.state {
                    // Between two attempts, what went wrong says more than when the next one is.
                    State::Available if j.attempt > 0 => j.error.clone().unwrap_or_default(),
                    State::Available => why_text(app, j, &waiting::why(&mut connection, j).await?),
                    State::Running => j.phase.clone().unwrap_or_default(),
                    _ => j.error.clone().unwrap_or_default(),
                };
                rows.push(vec![
                    j.id.to_string(),
                    j.kind.clone(),
                    j.state.to_string(),
                    app.output.time(j.created_at),
                    match (j.started_at, j.finished_at) {
                        (Some(start), Some(end)) => output::span((end - start).num_milliseconds() as f64 / 1000.0),
                        _ => String::new(),
                    },
                    j.node.clone().unwrap_or_default(),
                    j.requested_by.clone(),
                    note.chars().take(80).collect(),
                ]);
            }
            app.output.table(&["JOB", "KIND", "STATE", "ENQUEUED", "TOOK", "NODE", "BY", ""], &rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
