//! `enqueue delete`.

use crate::{
    App,
    confirm::confirm,
    output::{Refused, requester, size},
    submit,
};
use jobs::{
    catalog::removal::Kept,
    delete::{Delete, choose, refuse_protected},
    queue::NewJob,
};
use std::process::ExitCode;

/// What to delete.
#[derive(clap::Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    delete: Delete,
    /// Do not ask for the name to be typed.
    #[arg(long)]
    yes: bool,
    /// Follow the job to its end.
    #[arg(long, short)]
    wait: bool,
    /// Run on this node; default: the one on whose disk it lies.
    #[arg(long, value_name = "NAME", value_parser = jobs::config::node_name)]
    node: Option<String>,
}

impl DeleteArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let mut connection = app.connect().await?;
        let kept = Kept::read(&mut connection).await?;
        let chosen = choose(&kept, &self.delete.archive).map_err(|e| Refused(e.to_string()))?;
        if !self.delete.force {
            refuse_protected(&kept, &chosen).map_err(|e| Refused(e.to_string()))?;
        }
        let (by, from) = requester()?;
        let mut job = NewJob::new(&self.delete, by, from).map_err(Refused)?;
        job.node = self.node;
        if !self.yes && !app.output.json {
            for archive in &chosen {
                app.output.line(format_args!(
                    "  {:>9}  {}/{} on {}",
                    size(archive.size),
                    archive.directory,
                    archive.file_name,
                    archive.node
                ))?;
            }
        }
        confirm(app, &self.delete.archive, self.yes)?;
        submit::made(app, &job, self.wait).await
    }
}
