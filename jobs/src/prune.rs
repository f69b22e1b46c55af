//! The kind `prune`: removes backups that the rules of [`crate::retention`] do not keep.

use crate::{
    catalog::{
        Attempt,
        removal::{self, Kept, Listed, Removed},
    },
    config::Config,
    job::{Context, Done, Field, Job, Policy, Shape, give_up},
    queue::NewJob,
    retention::{Decision, Rules, decide},
    settings::Settings,
    trees, undo,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection, MySqlConnection};

/// Whether archives are copied off-site: nothing does that yet.
pub(crate) const OFFSITE: bool = false;

/// Removes backups that are too many or too old; every backup that succeeds enqueues one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Prune {
    /// Change nothing: print what would go, and the rule behind each line.
    #[arg(long)]
    pub dry_run: bool,
}

impl Job for Prune {
    const KIND: &'static str = "prune";
    const DESCRIPTION: &'static str = "Removes backups that are too many or too old";
    const POLICY: Policy = Policy { unique: true, ..Policy::repeatable() };
    const FIELDS: &'static [Field] = &[Field::optional("dry_run", Shape::Boolean)];

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let rules = read_rules(context).await?;
        let attempt = Attempt { job_id: context.job_id, fence: context.fence };
        let (now, kept, decisions) = if self.dry_run {
            let mut connection = context.pool.acquire().await?;
            let kept = Kept::read(&mut connection).await?;
            let now = server_time(&mut connection).await?;
            let decisions = decide(now, &rules, &kept.candidates);
            (now, kept, decisions)
        } else {
            mark(context, attempt, &rules).await?
        };
        let plan = json!({
            "at": now,
            "backups": decisions.iter().map(|d| line(d, &kept)).collect::<Vec<_>>(),
        });
        if self.dry_run {
            return Ok(Done::completed(json!({ "dry_run": true, "plan": plan, "removed": [] })));
        }
        let node = &context.config.node;
        let removed = removal::remove_files(&context.pool, node, context.job_id).await?;
        // What restores replaced, and its time is over.
        let undo_schemas = undo::drop_expired(&context.pool, &context.config).await?;
        let undo_directories = trees::drop_expired(&context.pool, node).await?;
        let warnings = warnings(&removed);
        warnings.iter().for_each(|w| context.log.warn(w.clone()));
        // Of equal jobs that wait one is made, so a node that is gone for long does not get one per backup.
        let mut follow_ups = Vec::new();
        for other in removal::nodes_with_work(&context.pool, node).await? {
            let mut job =
                NewJob::new(&Self::default(), &context.requested_by, format!("job {}", context.job_id)).map_err(anyhow::Error::msg)?;
            job.node = Some(other);
            follow_ups.push(job);
        }
        let result = json!({
            "dry_run": false,
            "plan": plan,
            "removed": removed.iter().map(|(archive, outcome)| json!({ "archive": archive.file_name, "size": archive.size, "result": outcome })).collect::<Vec<_>>(),
            "undo_schemas": undo_schemas,
            "undo_directories": undo_directories,
            "warnings": warnings,
        });
        Ok(Done { follow_ups, ..Done::with_warnings(result, &warnings) })
    }
}

/// Decides and marks in one transaction. Dies before its end: nothing is decided. After: the next prune goes on.
async fn mark(context: &Context, attempt: Attempt, rules: &Rules) -> anyhow::Result<(DateTime<Utc>, Kept, Vec<Decision>)> {
    let mut connection = context.pool.acquire().await?;
    let mut tx = connection.begin().await?;
    removal::hold(&mut tx, attempt).await?;
    let now = server_time(&mut tx).await?;
    let kept = Kept::lock(&mut tx).await?;
    let decisions = decide(now, rules, &kept.candidates);
    for decision in decisions.iter().filter(|d| !d.why.keeps()) {
        let archives: Vec<(u64, String)> = kept.of(decision.id).map(|a| (a.id, decision.why.to_string())).collect();
        removal::mark(&mut tx, attempt, &archives).await?;
    }
    tx.commit().await?;
    Ok((now, kept, decisions))
}

async fn server_time(connection: &mut MySqlConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)").fetch_one(connection).await
}

fn line(decision: &Decision, kept: &Kept) -> serde_json::Value {
    let archives: Vec<&Listed> = kept.of(decision.id).collect();
    let taken = kept.candidates.iter().find(|c| c.id == decision.id).map(|c| c.at);
    json!({
        "backup": decision.id,
        "taken_at": taken,
        "keep": decision.why.keeps(),
        "why": decision.why.to_string(),
        "archives": archives.iter().map(|a| &a.file_name).collect::<Vec<_>>(),
        "size": archives.iter().map(|a| a.size).sum::<u64>(),
    })
}

/// What a person should know of what was removed.
pub(crate) fn warnings(removed: &[(Listed, Removed)]) -> Vec<String> {
    removed
        .iter()
        .filter_map(|(archive, outcome)| match outcome {
            Removed::Foreign { why } => Some(why.clone()),
            Removed::Missing => Some(format!("{}/{} had been removed by somebody else", archive.directory, archive.file_name)),
            Removed::Gone | Removed::Read { .. } => None,
        })
        .collect()
}

/// The rules as settings and environment have them. A value that makes no sense removes nothing.
async fn read_rules(context: &Context) -> anyhow::Result<Rules> {
    let mut application = context.config.application.connect().await?;
    let mut control = context.pool.acquire().await?;
    let settings = Settings::read(&mut application, &mut control).await?;
    rules(&context.config, &settings).map_err(|e| give_up(anyhow::anyhow!(e)))
}

fn rules(config: &Config, settings: &Settings) -> Result<Rules, String> {
    Ok(Rules {
        max_backups: settings.number("backup_max_backups", 10, 1, 999)?,
        days: settings.number("backup_retention_days", 30, 1, 3650)?,
        daily: config.keep.daily,
        weekly: config.keep.weekly,
        monthly: config.keep.monthly,
        yearly: config.keep.yearly,
        timezone: config.timezone,
        offsite: OFFSITE,
    })
}
