//! `worker`: runs jobs; migrates, checks and grants.
mod runner;

use clap::{Parser, Subcommand};
use jobs::config::{Config, Env};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// Runs the jobs of Heratio Backup, and prepares and checks what they need.
#[derive(Parser)]
#[command(name = "worker", version, propagate_version = true)]
struct Cli {
    /// Read environment variables from this dotenv file (Heratio's own .env serves); real ones win.
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Claim and run jobs until SIGTERM.
    Run {
        /// Queues to serve besides this node's own.
        #[arg(long, value_delimiter = ',', default_value = "shared")]
        queues: Vec<String>,
        /// This host's name as a node; overrides BACKUP_NODE.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Jobs to run at a time.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
        concurrency: u16,
    },
    /// Create or upgrade the control schema. May be run at any time, as often as you like.
    Migrate,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("BACKUP_LOG").unwrap_or_else(|_| EnvFilter::new("info,apalis=warn,apalis_core=warn")))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{}", jobs::job::explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let env = Env::load(cli.env_file.as_deref())?;
    let mut config = Config::from_env(&env)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run { mut queues, node, concurrency } => {
                if let Some(node) = node {
                    config.node = node;
                }
                queues.push(format!("node:{}", config.node));
                runner::work(config, runner::RunOptions { queues, concurrency: concurrency.into() }).await?;
            }
            Command::Migrate => {
                let m = jobs::migrate::migrate(&config).await?;
                tracing::info!("{m:?}");
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
