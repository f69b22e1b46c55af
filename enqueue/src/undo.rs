//! `enqueue undo`.

use crate::{
    App,
    confirm::confirm,
    follow,
    output::{Refused, requester},
    submit,
};
use jobs::{
    queue::NewJob,
    undo::{Undo, point, undoable},
};
use std::process::ExitCode;

/// Which restore to undo.
#[derive(clap::Args)]
pub(crate) struct UndoArgs {
    /// The number of a restore, or of an undo.
    job: u64,
    /// Do not ask for the schema's name to be typed; for scripts.
    #[arg(long)]
    yes: bool,
    /// Cancel running backups that hold the database, instead of waiting for them.
    #[arg(long)]
    preempt: bool,
    /// Follow the job to its end.
    #[arg(long, short)]
    wait: bool,
}

impl UndoArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let mut connection = app.connect().await?;
        let point = undoable(self.job, point(&mut connection, self.job).await?).map_err(Refused)?;
        drop(connection);
        if !self.yes {
            follow::say(format_args!(
                "puts back what job {} replaced in schema `{}`; what is there now is kept as long (the other was kept until {})",
                self.job,
                point.schema,
                app.output.time(point.until)
            ));
        }
        confirm(app, &point.schema, self.yes)?;
        let (by, from) = requester()?;
        let mut job = NewJob::new(&Undo { job: self.job }, by, from).map_err(Refused)?;
        job.preempt = self.preempt;
        submit::made(app, &job, self.wait).await
    }
}
