//! `enqueue retry`.

use crate::{
    App,
    output::{Refused, requester},
    submit,
};
use jobs::queue::history::{self, Retry};
use std::process::ExitCode;

/// Which job to do again.
#[derive(clap::Args)]
pub(crate) struct RetryArgs {
    /// The number of a job that failed, was cancelled, or was done with warnings. A new job does the same; its number
    /// is printed.
    job: u64,
    /// Follow the new job to its end.
    #[arg(long, short)]
    wait: bool,
}

impl RetryArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let (by, from) = requester()?;
        let id = self.job;
        let why = match history::retry(&mut app.connect().await?, id, &by, &from).await? {
            Retry::New(job) => return submit::made(app, &job, self.wait).await,
            Retry::NotNow(state) => format!("job {id} is {state}: only a job that failed or was cancelled is done again"),
            Retry::Destructive(kind) => {
                format!(
                    "job {id} ({kind}) changes or deletes data: see what it left with `enqueue show {id}`, then submit a new one, which plans anew"
                )
            }
            Retry::Invalid(why) => format!("job {id} cannot be done again: {why}"),
            Retry::Unknown => format!("job {id} does not exist; `enqueue jobs` lists them"),
        };
        Err(Refused(why).into())
    }
}
