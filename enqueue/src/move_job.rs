//! `enqueue move`.

use crate::{
    App,
    follow::{say, why_text},
    output::Refused,
};
use jobs::queue::{
    history::{self, Moved},
    waiting::{self, Waiting},
};
use serde_json::json;
use std::process::ExitCode;

/// Which job to send where.
#[derive(clap::Args)]
pub(crate) struct MoveArgs {
    /// The number of a waiting job.
    job: u64,
    /// The node that is to run it; its worker must see the files that the job needs.
    #[arg(long, value_name = "NAME", value_parser = jobs::config::node_name)]
    node: String,
}

impl MoveArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let (id, node) = (self.job, self.node);
        let mut connection = app.connect().await?;
        match history::move_to(&mut connection, id, &node).await? {
            Moved::Yes => {}
            Moved::NotWaiting(state) => return Err(Refused(format!("job {id} is {state}: only a waiting job can be moved")).into()),
            Moved::Unknown => return Err(Refused(format!("job {id} does not exist; `enqueue jobs` lists them")).into()),
        }
        if app.output.json {
            app.output.document(&json!({ "job": id, "node": node }))?;
        } else {
            app.output.line(format_args!("job {id} goes to node {node}"))?;
        }
        if let Some(job) = history::show(&mut connection, id).await?
            && let why @ Waiting::NoWorker { .. } = waiting::why(&mut connection, &job).await?
        {
            say(format_args!("job {id}: {}", why_text(app, &job, &why)));
        }
        Ok(ExitCode::SUCCESS)
    }
}
