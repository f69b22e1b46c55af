//! `enqueue cancel`.

use crate::{
    App,
    output::{Refused, requester},
};
use jobs::queue::history::{self, Cancelled};
use serde_json::json;
use std::process::ExitCode;

/// Which job to cancel.
#[derive(clap::Args)]
pub(crate) struct CancelArgs {
    /// The job's number. A running job stops within seconds and cleans up.
    job: u64,
}

impl CancelArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let mut connection = app.connect().await?;
        let id = self.job;
        let text = match history::cancel(&mut connection, id, &requester()?.0).await? {
            Cancelled::Now => format!("job {id} is cancelled"),
            Cancelled::Requested => format!("job {id} is being stopped; `enqueue show {id} --wait` follows it"),
            Cancelled::Over(state) => return Err(Refused(format!("job {id} is over already: {state}")).into()),
            Cancelled::Unknown => return Err(Refused(format!("job {id} does not exist; `enqueue jobs` lists them")).into()),
        };
        if app.output.json {
            app.output.document(&json!({ "job": id, "message": text }))?;
        } else {
            app.output.line(text)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
