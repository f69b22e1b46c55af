//! The kind `undo`: puts back what a restore replaced, and keeps what is undone for as long.

use crate::{
    component::Component,
    config::Config,
    cut_over::{self, Facts, Kind, NewCutOver, State as CutOverState},
    exclusive::{Exclusive, recorded},
    job::{Context, Done, Field, Job, Policy, Shape, give_up},
    made_schemas::{self, Purpose},
    restore::replace,
};
use anyhow::{Context as _, anyhow};
use chrono::{DateTime, Utc};
use engine::{
    cut_over::{Moves, Places},
    server::{Server, ServerConfig},
    stored_code,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{MySqlConnection, MySqlPool, Row};

/// Puts back what a restore or an undo replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The restore, or undo, to be undone.
    pub job: u64,
}

/// What can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndoPoint {
    /// The restore or undo.
    pub job_id: u64,
    /// Its cut-over.
    pub cut_over_id: u64,
    /// What it replaced.
    pub schema: String,
    /// Where the replaced tables are.
    pub undo_schema: String,
    /// UTC; kept at least so long.
    pub until: DateTime<Utc>,
    /// `kept`, `used` or `expired`.
    pub state: String,
}

/// The undo point of a job.
pub async fn point(connection: &mut MySqlConnection, job_id: u64) -> sqlx::Result<Option<UndoPoint>> {
    let row = sqlx::query("SELECT cut_over_id, schema_name, undo_schema, until, state FROM undo_points WHERE job_id = ?")
        .bind(job_id)
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        Ok(UndoPoint {
            job_id,
            cut_over_id: row.try_get("cut_over_id")?,
            schema: row.try_get("schema_name")?,
            undo_schema: row.try_get("undo_schema")?,
            until: row.try_get("until")?,
            state: row.try_get("state")?,
        })
    })
    .transpose()
}

/// Why a job cannot be undone; `Ok`: it can.
pub fn undoable(job: u64, point: Option<UndoPoint>) -> Result<UndoPoint, String> {
    match point {
        None => Err(format!("job {job} replaced nothing that could be put back")),
        Some(point) if point.state == "kept" => Ok(point),
        Some(point) if point.state == "used" => Err(format!("job {job} has been undone already")),
        Some(point) => Err(format!(
            "what job {job} replaced was kept until {} UTC and has been dropped. Next: restore a backup",
            point.until.format("%Y-%m-%d %H:%M:%S")
        )),
    }
}

impl Job for Undo {
    const KIND: &'static str = "undo";
    const DESCRIPTION: &'static str = "Puts back what a restore replaced";
    const POLICY: Policy = Policy::at_most_once();
    const FIELDS: &'static [Field] = &[Field::required("job", Shape::Integer)];
    const RESOURCES: &'static [Component] = &[Component::Database];

    fn resources(&self) -> Vec<Component> {
        vec![Component::Database]
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let config = &context.config;
        let mut control = context.pool.acquire().await?;
        let point = undoable(self.job, point(&mut control, self.job).await?).map_err(|e| give_up(anyhow!(e)))?;
        let old_code_then = cut_over::code(&mut control, point.cut_over_id, "old").await?;
        drop(control);
        let mut exclusive = Exclusive::acquire(context).await?;
        let connection = exclusive.connection();
        let server = Server::detect(connection).await?;
        if let Some(why) = engine::cut_over::unfit(connection, &server).await {
            return Err(give_up(anyhow!(why)));
        }
        let elsewhere = engine::cut_over::foreign_keys_from_elsewhere(connection, &point.schema).await?;
        let undo = Purpose::Undo.schema(config, context.job_id);
        let places = Places { live: point.schema.clone(), stage: point.undo_schema.clone(), undo };
        let moves = Moves {
            old: engine::cut_over::tables(connection, &places.live).await?,
            new: engine::cut_over::tables(connection, &places.stage).await?,
        };
        let collation = engine::cut_over::collation(connection, &places.live).await?;
        let live = ServerConfig { schema: places.live.clone(), ..config.application.clone() };
        let mut reading = recorded(context, &live).await?;
        let old = stored_code::read(&mut reading, &places.live).await?;
        drop(reading);
        made_schemas::announce(&context.pool, context.job_id, context.fence, &places.undo, Purpose::Undo).await?;
        engine::cut_over::make_schema(connection, &places.undo, &collation).await?;
        let facts = Facts {
            moves,
            collation,
            relink: elsewhere,
            undo_hours: config.restore.undo_hours,
            hooked: !(config.restore.pre_hook.is_empty() && config.restore.post_hook.is_empty()),
            ..Facts::default()
        };
        let (moved, back) = (facts.moves.old.len(), facts.moves.new.len());
        let new = NewCutOver { kind: Kind::Undo, places: places.clone(), facts, old, new: old_code_then };
        let (cut_over, ended) = replace(context, exclusive, &server, new).await?;
        if ended.state == CutOverState::Reverted {
            return Err(give_up(anyhow!("{}. `{}` is as it was before", ended.problems.join("; "), places.live)));
        }
        let until = cut_over::until(&context.pool, config.restore.undo_hours).await?;
        let warnings = ended.problems.clone();
        let result = json!({
            "undone": self.job,
            "schema": places.live,
            "tables": back,
            "cut_over_seconds": ended.seconds,
            "replaced_tables": moved,
            "undo": (moved > 0).then(|| json!({ "job": context.job_id, "schema": places.undo, "until": until })),
            "next": "a backup of the database is enqueued; until it has completed, there is none that can be followed by binary logs",
            "warnings": warnings,
        });
        let mut done = Done::with_warnings(result, &warnings);
        done.follow_ups.push(cut_over::follow_up(context.job_id, Self::KIND).map_err(|e| anyhow!(e))?);
        done.writes = Some(cut_over::settling(cut_over, ended, until));
        Ok(done)
    }
}

/// Drops what can no longer be undone: its time is over, and no job works with it. Returns the schemas dropped.
///
/// The row says `expired` before the schema is dropped. Dies between: `made_schemas` still names it, with tables and without an
/// undo point; the next call drops it.
pub async fn drop_expired(pool: &MySqlPool, config: &Config) -> anyhow::Result<Vec<String>> {
    // An undo that waits or runs keeps what it is about.
    sqlx::query(
        "UPDATE undo_points u SET u.state = 'expired'
          WHERE u.state = 'kept' AND u.until <= UTC_TIMESTAMP(6)
            AND NOT EXISTS (SELECT 1 FROM cut_overs c WHERE c.state = 'open' AND u.undo_schema IN (c.stage_schema, c.undo_schema))
            AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.kind = 'undo' AND j.state IN ('available', 'running')
                               AND JSON_EXTRACT(j.payload, '$.job') = u.job_id)",
    )
    .execute(pool)
    .await?;
    let expired: Vec<String> = sqlx::query_scalar(
        "SELECT u.undo_schema FROM undo_points u JOIN made_schemas m ON m.schema_name = u.undo_schema WHERE u.state = 'expired'",
    )
    .fetch_all(pool)
    .await?;
    if expired.is_empty() {
        return Ok(expired);
    }
    let mut connection = config.application.connect_without_schema().await.context("application database")?;
    for schema in &expired {
        anyhow::ensure!(
            schema.starts_with(&config.schema_prefix),
            "`{schema}` does not begin with `{}`: not dropped",
            config.schema_prefix
        );
        made_schemas::remove(pool, &mut connection, schema).await?;
    }
    Ok(expired)
}
