//! The kind `undo`: puts back what a restore replaced, and keeps what is undone for as long.

use crate::{
    component::Component,
    config::Config,
    cut_over::{self, Facts, Kind, NewCutOver, State as CutOverState},
    exclusive::{Exclusive, recorded},
    in_place,
    job::{Context, Done, Field, Job, Policy, Shape, give_up},
    made_schemas::{self, Purpose},
    restore::{DatabaseDone, in_order, replace, replace_trees, settling},
    state::State,
    trees::{self, TreePoint},
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
    /// What that replaced; none: the database. The job takes them for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
}

/// All that a job replaced.
#[derive(Debug, Clone)]
pub struct Points {
    /// Of the database.
    pub database: Option<UndoPoint>,
    /// Of directories.
    pub trees: Vec<TreePoint>,
    /// The safety backup's archive, of a restore in place.
    pub safety: Option<String>,
}

impl Points {
    /// What of it can be put back.
    pub fn components(&self) -> Vec<Component> {
        self.database.iter().map(|_| Component::Database).chain(self.trees.iter().map(|t| t.component)).collect()
    }

    /// Where its files are; none: it has none.
    pub fn node(&self) -> Option<String> {
        self.trees.first().map(|t| t.node.clone())
    }

    /// The earliest end of what is kept.
    pub fn until(&self) -> Option<DateTime<Utc>> {
        self.database.iter().map(|d| d.until).chain(self.trees.iter().map(|t| t.until)).min()
    }

    /// What is typed to confirm it, and what comes back, for people.
    pub fn names(&self) -> (String, String) {
        let places: Vec<String> = self
            .database
            .iter()
            .map(|d| format!("schema `{}`", d.schema))
            .chain(self.trees.iter().map(|t| format!("{} in {}", t.component, t.root.display())))
            .collect();
        let word = match (&self.database, self.trees.first()) {
            (Some(database), _) => database.schema.clone(),
            (None, Some(tree)) => tree.component.to_string(),
            (None, None) => String::new(),
        };
        (word, places.join(", "))
    }
}

/// The undo points of a job.
pub async fn points(connection: &mut MySqlConnection, job_id: u64) -> anyhow::Result<Points> {
    let safety = in_place::safety_of(connection, job_id).await?;
    Ok(Points { database: point(connection, job_id).await?, trees: trees::points(connection, job_id).await?, safety })
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

/// What one job replaced, and still can be put back, as `enqueue backups` lists it.
#[derive(Debug, Clone, Serialize)]
pub struct KeptPoint {
    /// The restore or undo.
    pub job_id: u64,
    /// Schema, or component and directory.
    pub what: String,
    /// UTC; kept at least so long.
    pub until: DateTime<Utc>,
}

/// All that can still be undone, the newest first.
pub async fn kept(connection: &mut MySqlConnection) -> sqlx::Result<Vec<KeptPoint>> {
    let rows = sqlx::query(
        "SELECT job_id, CONCAT('schema `', schema_name, '`') COLLATE utf8mb4_bin AS what, until FROM undo_points WHERE state = 'kept'
          UNION ALL
         SELECT job_id, CONCAT(component, ' in ', live_directory) COLLATE utf8mb4_bin, undo_until FROM tree_swaps WHERE undo_state = 'kept'
          ORDER BY job_id DESC, what",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|r| Ok(KeptPoint { job_id: r.try_get("job_id")?, what: r.try_get("what")?, until: r.try_get("until")? })).collect()
}

/// What of a job can still be undone; the error says why nothing can.
pub fn undoable(job: u64, mut points: Points) -> Result<Points, String> {
    let states: Vec<(String, DateTime<Utc>)> =
        points.database.iter().map(|d| (d.state.clone(), d.until)).chain(points.trees.iter().map(|t| (t.state.clone(), t.until))).collect();
    points.database = points.database.filter(|d| d.state == "kept");
    points.trees.retain(|t| t.state == "kept");
    if !points.components().is_empty() {
        return Ok(points);
    }
    Err(match (states.first(), &points.safety) {
        (None, Some(safety)) => format!(
            "job {job} restored in place, so nothing was kept but its safety backup. Next: `enqueue restore {safety}` puts back what was there"
        ),
        (None, None) => format!("job {job} replaced nothing that could be put back"),
        (Some((state, _)), _) if state == "used" => format!("job {job} has been undone already"),
        (Some((_, until)), _) => format!(
            "what job {job} replaced was kept until {} UTC and has been dropped. Next: restore a backup",
            until.format("%Y-%m-%d %H:%M:%S")
        ),
    })
}

impl Job for Undo {
    const KIND: &'static str = "undo";
    const DESCRIPTION: &'static str = "Puts back what a restore replaced";
    const POLICY: Policy = Policy::at_most_once();
    const FIELDS: &'static [Field] = &[Field::required("job", Shape::Integer), Field::optional("components", Shape::Components)];
    const RESOURCES: &'static [Component] = &[Component::Database];

    fn resources(&self) -> Vec<Component> {
        if self.components.is_empty() { vec![Component::Database] } else { in_order(&self.components) }
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let mut control = context.pool.acquire().await?;
        let points = undoable(self.job, points(&mut control, self.job).await?).map_err(|e| give_up(anyhow!(e)))?;
        drop(control);
        if points.components() != self.resources() {
            let needs = points.components().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(give_up(anyhow!(
                "job {} replaced {needs}, and this job has not taken that for itself. Next: name them in its `components`",
                self.job
            )));
        }
        if let Some(tree) = points.trees.iter().find(|t| t.node != context.config.node) {
            return Err(give_up(anyhow!(
                "{} is on node {}, and this is {}. Next: name that node",
                tree.root.display(),
                tree.node,
                context.config.node
            )));
        }
        let mut staged = Vec::new();
        for tree in &points.trees {
            match trees::stage_undo(context, tree).await {
                Ok(tree) => staged.push(tree),
                Err(error) => {
                    trees::give_back(context, staged).await;
                    return Err(error.context(tree.component.to_string()));
                }
            }
        }
        let database = match &points.database {
            None => None,
            Some(point) => match self.database(context, point).await {
                Ok(done) => Some(done),
                Err(error) => {
                    if !context.control.cancel.is_cancelled() {
                        trees::give_back(context, staged).await;
                    }
                    return Err(error);
                }
            },
        };
        let replaced = replace_trees(context, staged).await?;
        let until = cut_over::until(&context.pool, context.config.restore.undo_hours).await?;
        let (mut result, mut warnings, mut writes, live) = (json!({}), Vec::new(), None, database.is_some());
        if let Some(database) = database {
            (result, warnings, writes) = (database.result, database.warnings, database.writes);
        }
        let problems: Vec<String> = replaced.iter().filter_map(|t| t.problem.clone()).collect();
        result["undone"] = json!(self.job);
        result["trees"] = replaced.iter().map(|t| t.outcome.clone()).collect();
        if replaced.len() > problems.len() && result["undo"].is_null() {
            result["undo"] = json!({ "job": context.job_id, "until": until });
        }
        result["warnings"] = json!(warnings);
        result["errors"] = json!(problems);
        let mut done = Done::with_warnings(result, &warnings);
        if !problems.is_empty() {
            done.state = State::Failed;
            done.error = Some(problems.join("; "));
        }
        if live {
            done.follow_ups.push(cut_over::follow_up(context.job_id, Self::KIND).map_err(|e| anyhow!(e))?);
        }
        done.writes = Some(settling(writes, &replaced, until));
        Ok(done)
    }
}

impl Undo {
    async fn database(&self, context: &Context, point: &UndoPoint) -> anyhow::Result<DatabaseDone> {
        let config = &context.config;
        let mut control = context.pool.acquire().await?;
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
            "schema": places.live,
            "tables": back,
            "cut_over_seconds": ended.seconds,
            "replaced_tables": moved,
            "undo": (moved > 0).then(|| json!({ "job": context.job_id, "schema": places.undo, "until": until })),
            "next": "a backup of the database is enqueued; until it has completed, there is none that can be followed by binary logs",
        });
        Ok(DatabaseDone { result, warnings, writes: Some(cut_over::settling(cut_over, ended, until)), live: true })
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
