//! Restoring into the live schema itself, for servers without room for two.
//!
//! Not atomic: what is live is dropped, and is incomplete until the archive is loaded. So a safety backup is taken first, by the
//! same job, and verified; it is in the catalog before the first object is dropped. Dies before that: nothing was changed. Dies
//! after it: the job is `failed`, and says which archive to restore.

use crate::{
    backup::{self, Safety},
    exclusive::{Exclusive, recorded},
    failpoint, hooks,
    job::{Context, explain, give_up},
    made_schemas::{self, Purpose},
    restore::{DatabaseDone, KEPT_SETTINGS, NEXT, check, clear_transient, ensure_live_exists, load_events, round},
    restore_plan::DatabasePlan,
};
use anyhow::{Context as _, ensure};
use engine::{
    cut_over::{self, KEPT, Moves, Places, SETTINGS},
    load::{Code, load, load_sessions},
    server::ServerConfig,
    sql::quote_name,
    sql_scan::ObjectKind,
    stored_code,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, MySqlConnection};
use std::{collections::BTreeSet, time::Instant};

/// The archive of a job's safety backup; none: it took none, or it is not there any more.
pub async fn safety_of(connection: &mut MySqlConnection, job_id: u64) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "SELECT a.file_name FROM archives a JOIN backups b ON b.id = a.backup_id JOIN jobs j ON j.id = b.job_id
          WHERE b.job_id = ? AND j.kind = 'restore' AND a.component = 'database' AND a.state = 'complete' LIMIT 1",
    )
    .bind(job_id)
    .fetch_optional(connection)
    .await
}

/// Replaces what is in the live schema by the archive's content.
pub(crate) async fn run(context: &Context, plan: &DatabasePlan, clear: bool) -> anyhow::Result<DatabaseDone> {
    ensure_live_exists(context, plan).await?;
    let label = format!("before the restore in place (job {})", context.job_id);
    context.control.progress.phase("taking a safety backup", 0);
    let safety = backup::safety(context, &label).await.context("the safety backup; nothing was changed")?;
    context.log.info(format!("safety backup {}: {}, verified", safety.backup, safety.file_name));
    failpoint::hit("in_place_safe").await;
    let stage = Purpose::Stage.schema(&context.config, context.job_id);
    let mut exclusive = Exclusive::acquire(context).await?;
    made_schemas::announce(&context.pool, context.job_id, context.fence, &stage, Purpose::Stage).await?;
    let restore = &context.config.restore;
    let hooked = !(restore.pre_hook.is_empty() && restore.post_hook.is_empty());
    let occasion = |when, outcome| hooks::Occasion { job_id: context.job_id, schema: &plan.target, when, outcome };
    let done = async {
        let settings = save_settings(exclusive.connection(), &plan.target, &stage).await?;
        if hooked {
            hooks::run(&restore.pre_hook, restore.hook_time, occasion("before", ""))
                .await
                .map_err(|e| give_up(e.context("nothing was changed")))?;
        }
        ensure!(!context.control.cancel.is_cancelled(), "told to stop; nothing was changed");
        replace(context, plan, &mut exclusive, clear, &safety, settings.then_some(&stage)).await
    }
    .await;
    let mut warnings = Vec::new();
    if hooked {
        let outcome = if done.is_ok() { "done" } else { "failed" };
        if let Err(error) = hooks::run(&restore.post_hook, restore.hook_time, occasion("after", outcome)).await {
            warnings.push(format!("{error:#}. Look whether the application is still in maintenance mode"));
        }
    }
    if !context.control.cancel.is_cancelled()
        && let Err(error) = made_schemas::remove(&context.pool, exclusive.connection(), &stage).await
    {
        context.log.warn(format!("`{stage}` is left to be swept: {}", explain(&error)));
    }
    let mut done = done?;
    done.warnings.extend(warnings);
    Ok(done)
}

/// Copies our rows of Heratio's settings, which the restore keeps. Whether there are any.
async fn save_settings(connection: &mut MySqlConnection, live: &str, stage: &str) -> anyhow::Result<bool> {
    let collation = cut_over::collation(connection, live).await?;
    cut_over::make_schema(connection, stage, &collation).await?;
    if !cut_over::tables(connection, live).await?.contains(SETTINGS) {
        return Ok(false);
    }
    let (from, to) = (format!("{}.{SETTINGS}", quote_name(live)), format!("{}.{SETTINGS}", quote_name(stage)));
    connection.execute(AssertSqlSafe(format!("CREATE TABLE {to} LIKE {from}"))).await?;
    let saved = connection.execute(AssertSqlSafe(format!("INSERT INTO {to} SELECT * FROM {from} WHERE {KEPT}"))).await?;
    Ok(saved.rows_affected() > 0)
}

/// Drops and loads. From its first statement on an error says what the live schema is now.
async fn replace(
    context: &Context,
    plan: &DatabasePlan,
    exclusive: &mut Exclusive,
    clear: bool,
    safety: &Safety,
    settings: Option<&String>,
) -> anyhow::Result<DatabaseDone> {
    let loaded = drop_and_load(context, plan, exclusive, clear, settings).await;
    let (tables, rows, seconds, cleared) = loaded.map_err(|error| {
        give_up(error.context(format!(
            "`{}` is incomplete now. Next: `enqueue restore {} --in-place` brings back what was there (safety backup {})",
            plan.target, safety.file_name, safety.backup
        )))
    })?;
    let result = json!({
        "archive": plan.archive,
        "schema": plan.target,
        "in_place": true,
        "tables": tables,
        "rows": rows,
        "load_seconds": round(seconds),
        "cleared": cleared,
        "kept": settings.map(|_| KEPT_SETTINGS),
        "unknown_definers": plan.definers,
        "safety": { "backup": safety.backup, "archive": safety.file_name },
        "undo": null,
        "next": NEXT,
    });
    Ok(DatabaseDone { result, warnings: Vec::new(), writes: None, live: true })
}

async fn drop_and_load(
    context: &Context,
    plan: &DatabasePlan,
    exclusive: &mut Exclusive,
    clear: bool,
    settings: Option<&String>,
) -> anyhow::Result<(u64, u64, f64, Vec<String>)> {
    let config = &context.config;
    let start = Instant::now();
    let live = &plan.target;
    let server = ServerConfig { schema: live.clone(), ..config.application.clone() };
    context.control.progress.phase(format!("emptying `{live}`"), 0);
    let mut dropping = recorded(context, &server).await?;
    dropping.execute("SET SESSION foreign_key_checks = 0").await?;
    for (kind, name) in stored_code::list(&mut dropping, live).await? {
        // Triggers go with their tables.
        if kind != ObjectKind::Trigger {
            stored_code::drop(&mut dropping, live, kind, &name).await?;
        }
    }
    let mut first = true;
    for table in cut_over::tables(&mut dropping, live).await? {
        ensure!(!context.control.cancel.is_cancelled(), "told to stop");
        dropping.execute(AssertSqlSafe(format!("DROP TABLE {}.{}", quote_name(live), quote_name(&table)))).await?;
        if std::mem::take(&mut first) {
            failpoint::hit("in_place_emptying").await;
        }
    }
    drop(dropping);
    let mut sessions = Vec::new();
    for _ in 0..load_sessions(config.effort.threads) {
        sessions.push(recorded(context, &server).await?);
    }
    let manifest = &plan.verified.manifest;
    let loaded = load(&plan.path, manifest, live, Code::WithoutEvents, sessions, &context.control).await?;
    let firing = load_events(&mut recorded(context, &server).await?, &plan.path, manifest).await?;
    failpoint::hit("in_place_loaded").await;
    let mut sessions = Vec::new();
    for _ in 0..config.effort.threads.clamp(1, 4) {
        sessions.push(recorded(context, &server).await?);
    }
    let rows = check(&context.control, sessions, live, manifest).await?;
    let seconds = start.elapsed().as_secs_f64();
    let connection = exclusive.connection();
    connection.execute(AssertSqlSafe(format!("USE {}", quote_name(live)))).await?;
    let cleared = if clear { clear_transient(connection, live).await? } else { Vec::new() };
    if let Some(stage) = settings {
        if cut_over::tables(connection, live).await?.contains(SETTINGS) {
            let both = BTreeSet::from([SETTINGS.to_owned()]);
            let places = Places { live: stage.clone(), stage: live.clone(), undo: String::new() };
            cut_over::keep_settings(connection, &places, &Moves { old: both.clone(), new: both }).await?;
        } else {
            let (from, to) = (format!("{}.{SETTINGS}", quote_name(stage)), format!("{}.{SETTINGS}", quote_name(live)));
            connection.execute(AssertSqlSafe(format!("CREATE TABLE {to} LIKE {from}"))).await?;
            connection.execute(AssertSqlSafe(format!("INSERT INTO {to} SELECT * FROM {from}"))).await?;
        }
    }
    // ALTER EVENT would make this account the definer.
    let collation = cut_over::collation(connection, live).await?;
    for mut event in stored_code::read(connection, live).await? {
        if event.kind == ObjectKind::Event && firing.contains(&event.name) {
            stored_code::drop(connection, live, event.kind, &event.name).await?;
            event.enabled = true;
            stored_code::make(connection, live, &collation, &event).await?;
        }
    }
    Ok((loaded.tables, rows, seconds, cleared))
}
