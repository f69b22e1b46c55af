//! `enqueue backups`.

use crate::{App, output};
use jobs::catalog;
use std::process::ExitCode;

/// Which backups to list.
#[derive(clap::Args)]
pub(crate) struct BackupsArgs {
    /// How many at most.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl BackupsArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let mut connection = app.connect().await?;
        let backups = catalog::backups(&mut connection, self.limit).await?;
        if app.output.json {
            app.output.document(&backups)?;
        } else if backups.is_empty() {
            app.output.line("no backups yet; make one with `enqueue backup --wait`")?;
        } else {
            let mut rows = Vec::new();
            for b in &backups {
                let label = b.label.as_deref().unwrap_or_default();
                rows.push(vec![
                    b.id.to_string(),
                    b.state.clone(),
                    app.output.time(b.started_at),
                    output::size(b.size),
                    b.node.clone(),
                    label.to_owned(),
                ]);
                for a in &b.archives {
                    rows.push(vec![
                        String::new(),
                        format!("  {}", a.component),
                        String::new(),
                        output::size(a.size),
                        String::new(),
                        format!("{}/{}", a.directory, a.file_name),
                    ]);
                }
            }
            app.output.table(&["BACKUP", "STATE", "STARTED", "SIZE", "NODE", "LABEL / ARCHIVE"], &rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
