//! `worker`: runs jobs; migrates, checks and grants.

mod check;
mod grants;
mod runner;

use anyhow::Context as _;
use check::Level;
use clap::{Parser, Subcommand};
use engine::server::Server;
use jobs::{
    config::{Config, ConfigError, Env},
    job::explain,
};
use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

const AFTER: &str = "\
FIRST TIME
  worker grants | mysql -u root -p     accounts' rights (create the accounts first)
  worker migrate                       the control schema
  worker check                         is everything as it should be?
  worker run                           as many of these, on as many hosts, as you like

EXIT STATUS
  0  done    1  failed    2  wrong usage or configuration    3  check: warnings only

ENVIRONMENT
  BACKUP_DATABASE_URL    the control schema, mysql://user:password@host/heratio_backup
  HERATIO_DATABASE_URL   the application database (Laravel's DB_* serve as well)
  HERATIO_ROOT           Heratio's own directory
  HERATIO_UPLOADS_PATH   its uploads
  HERATIO_BACKUPS_PATH   where archives go
  BACKUP_LOG             log filter, such as `debug` (default `info`)
  README.md lists them all.";

/// Runs the jobs of Heratio Backup, and prepares and checks what they need.
#[derive(Parser)]
#[command(name = "worker", version, propagate_version = true, after_help = AFTER)]
struct Cli {
    /// Read environment variables from this dotenv file (Heratio's own .env serves); real ones win.
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Claim and run jobs until SIGTERM or SIGINT.
    ///
    /// At the first signal no job is taken any more and running ones get BACKUP_SHUTDOWN_GRACE seconds; then, or at a
    /// second signal, they are stopped, and repeatable ones are put back for the next worker.
    Run {
        /// Queues to serve besides this node's own; `none` for this node's alone.
        #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "shared")]
        queues: Vec<String>,
        /// This host's name as a node; overrides BACKUP_NODE.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Jobs to run at a time.
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
        concurrency: u16,
        /// Also enqueue the slots of schedules. Any number of workers may: each slot is enqueued once.
        #[arg(long)]
        scheduler: bool,
    },
    /// Create or upgrade the control schema. May be run at any time, as often as you like.
    Migrate,
    /// Show the effective configuration, secrets masked, and test it. Changes nothing.
    Check {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Print the GRANT statements for this server, to be run by an administrator. Holds no password.
    Grants {
        /// Whose account.
        #[arg(long, value_enum, default_value = "worker")]
        role: grants::Role,
        /// The host part of the accounts.
        #[arg(long, value_name = "HOST", default_value = "localhost")]
        host: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("BACKUP_LOG").unwrap_or_else(|_| EnvFilter::new("info,apalis=warn,apalis_core=warn")))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{}", explain(&error));
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let env = Env::load(cli.env_file.as_deref())?;
    let mut config = Config::from_env(&env)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run { queues, node, concurrency, scheduler } => {
                if let Some(node) = node {
                    config.set_node(node)?;
                }
                let mut queues: Vec<String> = queues.into_iter().filter(|q| q != "none").collect();
                queues.push(format!("node:{}", config.node));
                runner::work(config, runner::RunOptions { queues, concurrency: concurrency.into(), scheduler }).await?;
            }
            Command::Migrate => {
                let migrated = jobs::migrate::migrate(&config).await?;
                let mut out = io::stdout().lock();
                for name in &migrated.applied {
                    writeln!(out, "applied {name}")?;
                }
                writeln!(out, "control schema `{}` is up to date ({} migrations)", config.control.schema, migrated.total)?;
            }
            Command::Check { json } => return run_check(&config, json).await,
            Command::Grants { role, host } => {
                let mut connection = config.application.connect_without_schema().await.context(
                    "the server's flavour decides what the grants are, so it must be reachable with the configured account (which needs no rights yet)",
                )?;
                let server = Server::detect(&mut connection).await?;
                write!(io::stdout().lock(), "{}", grants::script(&config, &server, role, &host))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn run_check(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let findings = check::check(config).await;
    let effective = check::effective(config);
    let mut out = io::stdout().lock();
    if json {
        let configuration: serde_json::Map<String, serde_json::Value> =
            effective.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        writeln!(out, "{}", serde_json::json!({ "configuration": configuration, "findings": findings.0 }))?;
    } else {
        for (name, value) in effective {
            writeln!(out, "{name:<22} {value}")?;
        }
        writeln!(out)?;
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for finding in &findings.0 {
            let (word, code) = match finding.level {
                Level::Ok => ("ok", 32),
                Level::Warning => ("WARN", 33),
                Level::Error => ("ERROR", 31),
            };
            let word = if colour { format!("\x1b[{code}m{word:<5}\x1b[0m") } else { format!("{word:<5}") };
            writeln!(out, "{word} {}: {}", finding.subject, finding.text)?;
        }
    }
    Ok(match findings.worst() {
        Level::Ok => ExitCode::SUCCESS,
        Level::Warning => ExitCode::from(3),
        Level::Error => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
