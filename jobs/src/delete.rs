//! The kind `delete`: removes one archive, or a whole backup, because a person says so.

use crate::{
    catalog::{
        Attempt, nearest,
        removal::{self, Kept, Listed, Removed},
    },
    component::Component,
    job::{Context, Done, Field, Job, Policy, Shape},
    prune::{OFFSITE, warnings},
    retention::protections,
};
use anyhow::{anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Connection;
use std::time::Duration;

/// Removes an archive, or a backup with all its archives. Done only when the files are gone.
#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Delete {
    /// An archive's file name, or a backup's number; `enqueue backups` lists both.
    #[arg(value_name = "ARCHIVE|BACKUP")]
    pub archive: String,
    /// Also what retention would keep whatever its rules: the newest of its component, the newest verified one, what
    /// recovery to a point in time needs, what has no copy off-site.
    #[arg(long)]
    pub force: bool,
}

impl Job for Delete {
    const KIND: &'static str = "delete";
    const DESCRIPTION: &'static str = "Removes an archive, or a backup with all its archives";
    const POLICY: Policy = Policy::at_most_once();
    const FIELDS: &'static [Field] = &[Field::required("archive", Shape::Archive), Field::optional("force", Shape::Boolean)];

    fn validate(&self) -> Result<(), String> {
        if self.archive.is_empty() || self.archive.contains('/') {
            return Err("archive: an archive's file name, without directory, or a backup's number; `enqueue backups` lists both".into());
        }
        Ok(())
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let attempt = Attempt { job_id: context.job_id, fence: context.fence };
        let node = &context.config.node;
        let chosen = {
            let mut connection = context.pool.acquire().await?;
            let mut tx = connection.begin().await?;
            removal::hold(&mut tx, attempt).await?;
            let kept = Kept::lock(&mut tx).await?;
            let chosen = choose(&kept, &self.archive)?;
            if let Some(elsewhere) = chosen.iter().find(|a| a.node != *node) {
                bail!(
                    "{} lies on node {}, and this is {node}. Next: `enqueue delete {} --node {}`",
                    elsewhere.file_name,
                    elsewhere.node,
                    self.archive,
                    elsewhere.node
                );
            }
            for archive in &chosen {
                if let Some(job) = removal::reader(&mut tx, archive, context.job_id).await? {
                    bail!(
                        "job {job} reads {}, or will. Next: wait for its end (`enqueue show {job} --wait`), or cancel it",
                        archive.file_name
                    );
                }
            }
            if !self.force {
                refuse_protected(&kept, &chosen)?;
            }
            let why = format!("deleted by {}", context.requested_by);
            let why: String = why.chars().take(255).collect();
            let marks: Vec<(u64, String)> = chosen.iter().map(|a| (a.id, why.clone())).collect();
            removal::mark(&mut tx, attempt, &marks).await?;
            tx.commit().await?;
            chosen
        };
        // A job may have come to read it after we looked: its payload is seen now, and it has what it needs for as long as it runs.
        let mut removed: Vec<(Listed, Removed)> = Vec::new();
        loop {
            removed.extend(removal::remove_files(&context.pool, node, context.job_id).await?);
            let readers: Vec<u64> = removed
                .extract_if(.., |(_, outcome)| matches!(outcome, Removed::Read { .. }))
                .filter_map(|(archive, outcome)| match outcome {
                    Removed::Read { job } if chosen.iter().any(|c| c.id == archive.id) => Some(job),
                    _ => None,
                })
                .collect();
            let Some(job) = readers.first() else { break };
            context.control.progress.phase(format!("waiting for job {job}, which reads it"), 0);
            tokio::select! {
                () = context.control.cancel.cancelled() => bail!("stopped while job {job} reads it; the next prune removes it once that is over"),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        removed.retain(|(archive, _)| chosen.iter().any(|c| c.id == archive.id));
        let warnings = warnings(&removed);
        let deleted: Vec<_> =
            chosen.iter().map(|a| json!({ "file_name": a.file_name, "component": a.component, "size": a.size })).collect();
        Ok(Done::with_warnings(json!({ "deleted": deleted, "node": node, "warnings": warnings }), &warnings))
    }
}

/// The archives that a name or a backup's number means. The error suggests the nearest names.
pub fn choose(kept: &Kept, name: &str) -> anyhow::Result<Vec<Listed>> {
    if let Ok(backup) = name.parse::<u64>() {
        let archives: Vec<Listed> = kept.of(backup).cloned().collect();
        ensure!(!archives.is_empty(), "there is no backup {backup} with archives; `enqueue backups` lists what there is");
        return Ok(archives);
    }
    match kept.archives.iter().find(|a| a.file_name == name) {
        Some(archive) => Ok(vec![archive.clone()]),
        None => Err(unknown(kept, name)),
    }
}

fn unknown(kept: &Kept, name: &str) -> anyhow::Error {
    let nearest = nearest(name, kept.archives.iter().map(|a| a.file_name.as_str()));
    match nearest.is_empty() {
        true => anyhow!("there is no archive `{name}`, nor any other; `enqueue backup` makes one"),
        false => anyhow!("there is no archive `{name}`. Nearest: {}", nearest.join(", ")),
    }
}

/// Refuses what may not go, whatever the retention rules.
pub fn refuse_protected(kept: &Kept, chosen: &[Listed]) -> anyhow::Result<()> {
    for decision in protections(OFFSITE, &kept.candidates) {
        let Some(component) = decision.why.protects() else { continue };
        let hit = |a: &&Listed| a.backup_id == decision.id && component.is_none_or(|c: Component| c.as_str() == a.component);
        if let Some(archive) = chosen.iter().find(hit) {
            bail!(
                "{} is protected: {}. Next: make a newer one first (`enqueue backup --wait`), or delete it all the same with --force",
                archive.file_name,
                decision.why
            );
        }
    }
    Ok(())
}
