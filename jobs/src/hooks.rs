//! Programs of the administrator's that run around every replacement of the live database: maintenance mode, reindexing.
//!
//! No shell: the variable's words are program and arguments. What happens is in its environment: `BACKUP_RESTORE_JOB`,
//! `BACKUP_RESTORE_SCHEMA`, `BACKUP_RESTORE_WHEN` (`before`, `after`) and, after, `BACKUP_RESTORE_OUTCOME` (`done`, `reverted`).

use anyhow::{Context as _, bail};
use std::{process::Stdio, time::Duration};
use tokio::process::Command;

/// What a hook is told.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// The job.
    pub job_id: u64,
    /// What is replaced.
    pub schema: &'a str,
    /// `before` or `after`.
    pub when: &'a str,
    /// After: `done` or `reverted`.
    pub outcome: &'a str,
}

/// Runs a hook to its end, or for so long at most; none: nothing is done. The error names the program and what it said last.
pub async fn run(argv: &[String], limit: Duration, occasion: Occasion<'_>) -> anyhow::Result<()> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("BACKUP_RESTORE_JOB", occasion.job_id.to_string())
        .env("BACKUP_RESTORE_SCHEMA", occasion.schema)
        .env("BACKUP_RESTORE_WHEN", occasion.when)
        .env("BACKUP_RESTORE_OUTCOME", occasion.outcome)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    #[cfg(debug_assertions)]
    if let Some(run) = std::env::var_os("HERATIO_TEST_RUN") {
        command.env("HERATIO_TEST_RUN", run);
    }
    let child = command.spawn().with_context(|| format!("the hook {program} cannot be started"))?;
    let group = child.id();
    match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(output) => {
            let output = output.with_context(|| format!("the hook {program}"))?;
            if output.status.success() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
            let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
            bail!("the hook {program} failed ({}): {}", output.status, last.chars().take(300).collect::<String>())
        }
        Err(_) => {
            // Its own children too, which may hold its pipes.
            if let Some(group) = group.and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
                // It may have ended by itself just now.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            bail!("the hook {program} did not end within {} s (BACKUP_HOOK_SECONDS) and was killed", limit.as_secs())
        }
    }
}
