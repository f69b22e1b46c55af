//! `enqueue`: submits, follows and inspects jobs.

mod backups;
mod cancel;
mod confirm;
mod delete;
mod follow;
mod jobs_list;
mod move_job;
mod output;
mod restore;
mod retry;
mod schedule;
mod show;
mod submit;
mod undo;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use jobs::{backup::Backup, config::Config, config::Env, prune::Prune, verify::Verify};
use output::Output;
use sqlx::MySqlConnection;
use std::{path::PathBuf, process::ExitCode};

const EXIT: &str = "\
EXIT STATUS
  0  done (without --wait: the job is enqueued)
  1  the job failed or was cancelled, or the control schema cannot be reached
  2  wrong usage, or refused before anything was enqueued
  3  done with warnings

ENVIRONMENT
  BACKUP_DATABASE_URL  the control schema, mysql://user:password@host/heratio_backup
  BACKUP_TIMEZONE      zone in which times are shown and read (default UTC)
  BACKUP_ENV_FILE      a dotenv file with these, as --env-file";

/// Submits, follows and inspects the jobs of Heratio Backup.
///
/// A submitting command inserts one job into the control schema; any worker process runs it. Nothing is
/// done here: closing the terminal stops no job.
#[derive(Parser)]
#[command(name = "enqueue", version, after_help = EXIT, propagate_version = true)]
struct Cli {
    /// Read environment variables from this dotenv file (Heratio's own .env serves); real ones win.
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Print one JSON document on standard output, for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Back up the database and files.
    #[command(after_help = "EXAMPLES
  enqueue backup --wait                              everything, with progress
  enqueue backup --components database --label \"before the upgrade\"
  enqueue backup --at '2026-11-25 02:00'             later; prints the job's number at once")]
    Backup(submit::Submit<Backup>),
    /// Restore database and directories, with an undo point: a whole backup, one archive, or one file.
    #[command(after_help = "EXAMPLES
  enqueue restore database_heratio_2026-11-24_020000.sql.gz --dry-run      what it would do
  enqueue restore 41 --wait                                                all of backup 41; asks for the name to be typed
  enqueue restore 41 --components uploads,packages --wait                  some of it
  enqueue restore 41 --path uploads/r/x/y.tif --wait                       one file
  enqueue restore database_heratio_2026-11-24_020000.sql.gz --into look    beside the live database
  enqueue undo 57                                                          puts back what job 57 replaced

Archives are verified, loaded or unpacked beside what is live and checked before anything is replaced. What was replaced
is kept for BACKUP_UNDO_HOURS (24).")]
    Restore(restore::RestoreArgs),
    /// Put back what a restore replaced.
    Undo(undo::UndoArgs),
    /// Remove backups that are too many or too old, by the settings; every good backup does it too.
    #[command(after_help = "EXAMPLES
  enqueue prune --dry-run --wait       what would go, and the rule behind each line

The settings backup_max_backups and backup_retention_days say how many and how long; BACKUP_KEEP_DAILY, _WEEKLY,
_MONTHLY and _YEARLY keep more. Never removed: the newest verified backup of the database, the newest good archive of
each component, what has no copy off-site yet, files that we did not write, and what a job reads.")]
    Prune(submit::Submit<Prune>),
    /// Read an archive to its end, or restore it into a scratch schema to prove it good.
    #[command(after_help = "EXAMPLES
  enqueue verify --drill --wait                      the newest database archive, restored, compared and dropped
  enqueue verify uploads_2026-11-24_020000.tar.gz    size, SHA-256, every byte of its content
  enqueue verify old-dump.sql --drill                a dump of another program, in the backup directory
  enqueue schedule enable weekly-drill               each Sunday

`enqueue backups --json` and archives.verification say what is proven.")]
    Verify(submit::Submit<Verify>),
    /// Delete one archive, or a backup with all its archives.
    #[command(after_help = "EXAMPLES
  enqueue delete uploads_2026-11-24_020000.tar.gz --wait
  enqueue delete 41 --wait             backup 41 as a whole")]
    Delete(delete::DeleteArgs),
    /// List jobs, the newest first.
    Jobs(jobs_list::JobsArgs),
    /// Show one job: state, progress, attempts, log, result.
    Show(show::ShowArgs),
    /// Cancel a waiting or running job.
    Cancel(cancel::CancelArgs),
    /// Do again what failed or was cancelled: a new job with the same payload.
    Retry(retry::RetryArgs),
    /// Send a waiting job to another node.
    Move(move_job::MoveArgs),
    /// List backups and their archives, the newest first.
    Backups(backups::BackupsArgs),
    /// List, make and switch schedules: jobs that enqueue themselves.
    #[command(after_help = "EXAMPLES
  enqueue schedule enable nightly-backup             ready-made, off until enabled
  enqueue schedule add weekly --cron '0 3 * * 0' --timezone Africa/Johannesburg backup --components uploads
  enqueue schedule list                              next and last run, last job and its state
  enqueue schedule run weekly --wait                 once, now

Slots become jobs while at least one worker runs with --scheduler. Slots that passed meanwhile become one late job;
slots that come while the schedule's last job still waits or runs are left out.")]
    Schedule(schedule::ScheduleArgs),
}

/// What every command has at hand.
struct App {
    env: Env,
    output: Output,
}

impl App {
    async fn connect(&self) -> anyhow::Result<MySqlConnection> {
        let control = Config::control_from_env(&self.env)?;
        control.connect().await.context("control schema")
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            output::report(&error, json);
            ExitCode::from(if error.is::<output::Refused>() || error.is::<jobs::config::ConfigError>() { 2 } else { 1 })
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let env = Env::load(cli.env_file.as_deref())?;
    let output = Output::new(cli.json, &env)?;
    let app = App { env, output };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Backup(submit) => submit.run(&app).await,
            Command::Restore(args) => args.run(&app).await,
            Command::Undo(args) => args.run(&app).await,
            Command::Prune(submit) => submit.run(&app).await,
            Command::Verify(submit) => submit.run(&app).await,
            Command::Delete(args) => args.run(&app).await,
            Command::Jobs(args) => args.run(&app).await,
            Command::Show(args) => args.run(&app).await,
            Command::Cancel(args) => args.run(&app).await,
            Command::Retry(args) => args.run(&app).await,
            Command::Move(args) => args.run(&app).await,
            Command::Backups(args) => args.run(&app).await,
            Command::Schedule(args) => args.run(&app).await,
        }
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
