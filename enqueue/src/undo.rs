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
    undo::{Undo, points, undoable},
};
use std::process::ExitCode;

/// Which restore to undo.
#[derive(clap::Args)]
pub(crate) struct UndoArgs {
    /// The number of a restore, or of an undo.
    job: u64,
    /// Do not ask for the schema's or component's name to be typed; for scripts.
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
        let points = undoable(self.job, points(&mut connection, self.job).await?).map_err(Refused)?;
        drop(connection);
        let (word, places) = points.names();
        if !self.yes {
            let until = points.until().map_or_else(String::new, |t| app.output.time(t));
            follow::say(format_args!(
                "puts back what job {} replaced: {places}; what is there now is kept as long (the other was kept until {until})",
                self.job
            ));
        }
        confirm(app, &word, self.yes)?;
        let (by, from) = requester()?;
        let mut job = NewJob::new(&Undo { job: self.job, components: points.components() }, by, from).map_err(Refused)?;
        job.node = points.node();
        job.preempt = self.preempt;
        submit::made(app, &job, self.wait).await
    }
}
