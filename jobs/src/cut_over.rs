//! Replacing the live schema, journaled: every step may be done again by whoever comes after a crash.
//!
//! The journal (`cut_overs`, `cut_over_code`) holds all that it takes: which tables change places, and the text of every view,
//! trigger, routine and event of both sides. It is written before the first statement on the live schema, and each step is
//! noted before it is done.
//!
//! - Before the RENAME TABLE, whatever happened, the way is back: dropped triggers and events are made again ([`State::Reverted`]).
//! - From the RENAME TABLE on, the way is forward: the new code is made ([`State::Done`]).
//!
//! Which of the two it is shows by where the tables are, not by what was noted. An open journal whose job is over is ended by
//! the next worker ([`recover`]); until then no job that takes `database` is started (see `queue::claim`).

use crate::{
    backup::Backup,
    component::Component,
    config::Config,
    exclusive::Exclusive,
    failpoint, hooks,
    job::{CatalogWrites, Context, explain, give_up},
    made_schemas,
    queue::{NewJob, enqueue, text},
};
use anyhow::{Context as _, anyhow, bail, ensure};
use chrono::{DateTime, Utc};
use engine::{
    cut_over::{self, ForeignKey, Moves, Patient, Places, Remaining},
    server::Server,
    sql::server_error,
    sql_scan::ObjectKind,
    stored_code::{self, StoredCode},
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, MySqlConnection, MySqlPool, Row};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Tries of a statement that meets others' locks, before the RENAME.
const TRIES: u32 = 3;

/// The steps, in order; each is noted before it is done.
const STEPS: [&str; 12] = [
    "begin",
    "drop_events",
    "lock",
    "drop_triggers",
    "settings",
    "rename",
    "renamed",
    "triggers",
    "drop_code",
    "make_code",
    "make_events",
    "clean",
];

/// A replacement, as its journal has it.
#[derive(Debug, Clone)]
pub struct CutOver {
    /// Row of `cut_overs`.
    pub id: u64,
    /// The restore or undo.
    pub job_id: u64,
    /// Which of the two.
    pub kind: Kind,
    /// What is where.
    pub places: Places,
    /// What else is needed.
    pub facts: Facts,
    /// Live before.
    pub old: Vec<StoredCode>,
    /// Live afterwards.
    pub new: Vec<StoredCode>,
}

/// Why it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its staging schema was made for it.
    Restore,
    /// Its staging schema is the undo schema of an earlier one.
    Undo,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Undo => "undo",
        }
    }
}

/// What the journal keeps besides code.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Tables that change places.
    pub moves: Moves,
    /// Default collation of the live schema.
    pub collation: String,
    /// Foreign keys of other schemas, to be made again on the new tables.
    #[serde(default)]
    pub relink: Vec<ForeignKey>,
    /// It is a restore beside the live database.
    #[serde(default)]
    pub beside: bool,
    /// The schema did not exist before, so it goes when nothing comes of it.
    #[serde(default)]
    pub made: bool,
    /// For how many hours the replaced tables are kept.
    #[serde(default)]
    pub undo_hours: u32,
    /// The hook before it has run, so the one after it is due.
    #[serde(default)]
    pub hooked: bool,
}

/// How a cut-over ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Done, or reverted.
    pub state: State,
    /// From the first statement on the live schema to the last.
    pub seconds: f64,
    /// What a person should know.
    pub problems: Vec<String>,
}

/// See [`Ended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The new tables are live.
    Done,
    /// The live schema is as it was before.
    Reverted,
}

/// The journal of a cut-over, and who writes it: an attempt by its fence, or whoever recovers under the server's lock.
struct Pen<'a> {
    pool: &'a MySqlPool,
    id: u64,
    fence: Option<u64>,
    cancel: Option<&'a CancellationToken>,
    /// Nothing is written: under LOCK TABLES. While another session's FLUSH TABLES WITH READ LOCK waits for our locks, a write
    /// to the control schema on that server would wait for it, and the two for each other.
    quiet: AtomicBool,
}

impl<'a> Pen<'a> {
    /// That of a job's own attempt.
    fn of(context: &'a Context, id: u64) -> Self {
        let cancel = Some(&context.control.cancel);
        Self { pool: &context.pool, id, fence: Some(context.fence), cancel, quiet: AtomicBool::new(false) }
    }

    /// Notes what is about to be done. An error: it must not be done.
    async fn note(&self, step: &'static str, position: usize) -> anyhow::Result<()> {
        if let Some(cancel) = self.cancel {
            ensure!(!cancel.is_cancelled(), "told to stop before step `{step}`");
        }
        if position == 0 {
            failpoint::hit(failpoint::RESTORE.into_iter().find(|f| f.strip_prefix("cut_over_") == Some(step)).unwrap_or_default()).await;
        }
        if self.quiet.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut query = sqlx::QueryBuilder::new("UPDATE cut_overs c");
        if let Some(fence) = self.fence {
            query.push(" JOIN jobs j ON j.id = c.job_id AND j.state = 'running' AND j.fence = ").push_bind(fence);
        }
        query.push(" SET c.step = ").push_bind(step).push(", c.position = ").push_bind(position as u32);
        if step == "drop_events" && self.fence.is_some() {
            // The hook before is over.
            query.push(", c.started_at = UTC_TIMESTAMP(6)");
        }
        if step == "renamed" {
            query.push(", c.renamed_at = COALESCE(c.renamed_at, UTC_TIMESTAMP(6))");
        }
        query.push(" WHERE c.state = 'open' AND c.id = ").push_bind(self.id);
        let noted = query.build().execute(self.pool).await.context("control schema")?;
        // The server counts rows found, changed or not.
        ensure!(noted.rows_affected() > 0, "the job's lease was lost before step `{step}`");
        Ok(())
    }
}

/// What a new cut-over is to do.
pub struct NewCutOver {
    /// Why.
    pub kind: Kind,
    /// What is where.
    pub places: Places,
    /// What else is needed.
    pub facts: Facts,
    /// Live before.
    pub old: Vec<StoredCode>,
    /// Live afterwards.
    pub new: Vec<StoredCode>,
}

/// Writes the journal. From here on the cut-over is ended by somebody, whatever happens.
pub async fn begin(context: &Context, new: NewCutOver) -> anyhow::Result<CutOver> {
    let mut connection = context.pool.acquire().await?;
    let mut tx = connection.begin().await?;
    let made = sqlx::query(
        "INSERT INTO cut_overs (job_id, kind, schema_name, stage_schema, undo_schema, step, facts)
         SELECT id, ?, ?, ?, ?, 'begin', ? FROM jobs WHERE id = ? AND fence = ? AND state = 'running'",
    )
    .bind(new.kind.as_str())
    .bind(&new.places.live)
    .bind(&new.places.stage)
    .bind(&new.places.undo)
    .bind(serde_json::to_string(&new.facts)?)
    .bind(context.job_id)
    .bind(context.fence)
    .execute(&mut *tx)
    .await?;
    if made.rows_affected() == 0 {
        return Err(give_up(anyhow!("the job's lease was lost before the cut-over began; nothing was changed")));
    }
    let id = made.last_insert_id();
    for (side, code) in [("old", &new.old), ("new", &new.new)] {
        for (position, c) in code.iter().enumerate() {
            save_code(&mut tx, id, side, position, c).await?;
        }
    }
    tx.commit().await?;
    failpoint::hit("cut_over_begin").await;
    Ok(CutOver { id, job_id: context.job_id, kind: new.kind, places: new.places, facts: new.facts, old: new.old, new: new.new })
}

async fn save_code(connection: &mut MySqlConnection, id: u64, side: &str, position: usize, code: &StoredCode) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO cut_over_code (cut_over_id, side, position, kind, name, definition, sql_mode, character_set, collation,
                                    database_collation, time_zone, definer, enabled)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(side)
    .bind(position as u32)
    .bind(code.kind.word())
    .bind(&code.name)
    .bind(&code.definition)
    .bind(&code.sql_mode)
    .bind(&code.character_set)
    .bind(&code.collation)
    .bind(&code.database_collation)
    .bind(&code.time_zone)
    .bind(&code.definer)
    .bind(code.enabled)
    .execute(connection)
    .await?;
    Ok(())
}

/// The saved code of one side.
pub async fn code(connection: &mut MySqlConnection, id: u64, side: &str) -> anyhow::Result<Vec<StoredCode>> {
    let rows = sqlx::query("SELECT * FROM cut_over_code WHERE cut_over_id = ? AND side = ? ORDER BY position")
        .bind(id)
        .bind(side)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.try_get("kind")?;
            Ok(StoredCode {
                kind: stored_code::kind_from_word(&kind).ok_or_else(|| anyhow!("the journal names an unknown kind of object, `{kind}`"))?,
                name: row.try_get("name")?,
                definition: row.try_get("definition")?,
                sql_mode: row.try_get("sql_mode")?,
                character_set: row.try_get("character_set")?,
                collation: row.try_get("collation")?,
                database_collation: row.try_get("database_collation")?,
                time_zone: row.try_get("time_zone")?,
                definer: row.try_get("definer")?,
                enabled: row.try_get("enabled")?,
            })
        })
        .collect()
}

/// Reads the journal of this number.
async fn load(connection: &mut MySqlConnection, id: u64) -> anyhow::Result<CutOver> {
    let row = sqlx::query("SELECT job_id, kind, schema_name, stage_schema, undo_schema, facts FROM cut_overs WHERE id = ?")
        .bind(id)
        .fetch_one(&mut *connection)
        .await?;
    let facts: String = row.try_get("facts")?;
    Ok(CutOver {
        id,
        job_id: row.try_get("job_id")?,
        kind: if row.try_get::<String, _>("kind")? == "undo" { Kind::Undo } else { Kind::Restore },
        places: Places { live: row.try_get("schema_name")?, stage: row.try_get("stage_schema")?, undo: row.try_get("undo_schema")? },
        facts: serde_json::from_str(&facts).context("the journal's facts")?,
        old: code(connection, id, "old").await?,
        new: code(connection, id, "new").await?,
    })
}

/// Replaces the live schema, for the first time. When it fails before the RENAME, everything is put back; after it, it is
/// finished, on a new session if the first was lost.
///
/// An error leaves the journal open: the next worker ends it.
pub async fn run(context: &Context, exclusive: Exclusive, server: &Server, cut_over: &CutOver) -> anyhow::Result<Ended> {
    context.control.progress.phase(format!("cutting over `{}`", cut_over.places.live), 0);
    let pen = Pen::of(context, cut_over.id);
    let config = &context.config;
    let patient = Patient { config: &config.application, server, patience: config.restore.wait };
    let work = Work { config, cut_over, pen: &pen, patient: &patient };
    let mut exclusive = exclusive;
    let error = match work.first_half(exclusive.connection()).await {
        Ok(()) => match work.forward(exclusive.connection()).await {
            Ok(ended) => return Ok(ended),
            Err(error) => error,
        },
        Err(error) => error,
    };
    if context.control.cancel.is_cancelled() {
        return Err(error.context("the cut-over was interrupted; a worker finishes or reverts it at once, see `enqueue show`"));
    }
    context.log.warn(format!("the cut-over met an error: {}", explain(&error)));
    // The session may be lost, or hold locks.
    drop(exclusive);
    let mut last = anyhow!("no try");
    for _ in 0..20 {
        ensure!(!context.control.cancel.is_cancelled(), "told to stop while the cut-over was being ended; the next worker does it");
        let ended = async {
            let mut exclusive = Exclusive::acquire(context).await?;
            work.end(exclusive.connection()).await
        };
        match ended.await {
            Ok(mut ended) => {
                ended.problems.insert(0, explain(&error));
                return Ok(ended);
            }
            Err(error) => last = error,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(last.context(format!("{}; and it could not be ended", explain(&error))))
}

/// Ends a cut-over of which nothing was done yet, since the hook before it failed.
pub async fn give_back(
    context: &Context,
    mut exclusive: Exclusive,
    server: &Server,
    cut_over: &CutOver,
    why: &anyhow::Error,
) -> anyhow::Result<Ended> {
    let pen = Pen::of(context, cut_over.id);
    let patient = Patient { config: &context.config.application, server, patience: context.config.restore.wait };
    let work = Work { config: &context.config, cut_over, pen: &pen, patient: &patient };
    let mut ended = work.end(exclusive.connection()).await?;
    ended.problems.insert(0, explain(why));
    Ok(ended)
}

struct Work<'a> {
    config: &'a Config,
    cut_over: &'a CutOver,
    pen: &'a Pen<'a>,
    patient: &'a Patient<'a>,
}

impl Work<'_> {
    /// Up to the RENAME TABLE, and on MySQL, under the same locks, the new triggers.
    async fn first_half(&self, connection: &mut MySqlConnection) -> anyhow::Result<()> {
        let CutOver { places, facts, old, .. } = self.cut_over;
        if facts.made {
            cut_over::make_schema(connection, &places.live, &facts.collation).await?;
        }
        use_schema(connection, &places.live).await?;
        self.patient.prepare(connection).await?;
        self.pen.note("drop_events", 0).await?;
        for event in old.iter().filter(|c| c.kind == ObjectKind::Event) {
            stored_code::drop(connection, &places.live, event.kind, &event.name).await?;
        }
        for key in &facts.relink {
            self.retried(connection, &key.drop_statement(), &format!("drop foreign key {key}")).await?;
        }
        let everything = Remaining { old: facts.moves.old.clone(), new: facts.moves.new.clone() };
        let under_lock = cut_over::renames_under_lock(self.patient.server) && !everything.is_none();
        self.pen.note("lock", 0).await?;
        if under_lock {
            self.retried(connection, &everything.lock_statement(places), &format!("lock the tables of `{}`", places.live)).await?;
            self.pen.quiet.store(true, Ordering::Relaxed);
        }
        let renamed = self.rename(connection, under_lock).await;
        self.pen.quiet.store(false, Ordering::Relaxed);
        renamed?;
        self.pen.note("renamed", 0).await
    }

    /// From the locks, where there are any, to their end.
    async fn rename(&self, connection: &mut MySqlConnection, under_lock: bool) -> anyhow::Result<()> {
        let CutOver { places, facts, old, .. } = self.cut_over;
        let everything = Remaining { old: facts.moves.old.clone(), new: facts.moves.new.clone() };
        let now = cut_over::tables(connection, &places.live).await?;
        ensure!(
            now == facts.moves.old,
            "tables of `{}` were made or dropped meanwhile ({}); nothing was changed. Next: make a new plan",
            places.live,
            now.symmetric_difference(&facts.moves.old).cloned().collect::<Vec<_>>().join(", ")
        );
        // Triggers are in the way of the RENAME, and events were dropped just now.
        let stays = |(kind, name): (ObjectKind, String)| (!matches!(kind, ObjectKind::Trigger | ObjectKind::Event)).then_some((kind, name));
        let code: BTreeSet<_> = stored_code::list(connection, &places.live).await?.into_iter().filter_map(stays).collect();
        let saved: BTreeSet<_> = old.iter().filter_map(|c| stays((c.kind, c.name.clone()))).collect();
        ensure!(
            code == saved,
            "views or routines of `{}` were made or dropped meanwhile ({}); nothing was changed. Next: make a new plan",
            places.live,
            code.symmetric_difference(&saved).map(|(kind, name)| format!("{} {name}", kind.word())).collect::<Vec<_>>().join(", ")
        );
        self.pen.note("drop_triggers", 0).await?;
        // Backwards: what is made again after an error goes to the end of its table's list, where it was.
        for (position, trigger) in old.iter().filter(|c| c.kind == ObjectKind::Trigger).rev().enumerate() {
            if position > 0 {
                self.pen.note("drop_triggers", position).await?;
            }
            let statement = format!("DROP TRIGGER IF EXISTS {}.{}", quote(&places.live), quote(&trigger.name));
            self.retried(connection, &statement, &format!("drop trigger `{}` for the cut-over", trigger.name)).await?;
        }
        self.pen.note("settings", 0).await?;
        cut_over::keep_settings(connection, places, &facts.moves).await?;
        self.pen.note("rename", 0).await?;
        if !everything.is_none() {
            self.retried(connection, &everything.statement(places), &format!("rename the tables of `{}`", places.live)).await?;
        }
        if under_lock {
            // Where that is refused, forward() makes them.
            let collation = &facts.collation;
            for trigger in self.cut_over.new.iter().filter(|c| c.kind == ObjectKind::Trigger && &c.database_collation == collation) {
                if let Err(error) = stored_code::make(connection, &places.live, collation, trigger).await {
                    if server_error(&error).is_none() {
                        return Err(error.into());
                    }
                    break;
                }
            }
            sqlx::raw_sql("UNLOCK TABLES").execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Runs a statement, and again when others hold locks.
    async fn retried(&self, connection: &mut MySqlConnection, statement: &str, what: &str) -> anyhow::Result<()> {
        for tries in 1.. {
            match self.patient.run(connection, statement, what).await {
                Err(error) if error.is_lock_wait() && tries < TRIES => {
                    if let Some(cancel) = self.pen.cancel {
                        ensure!(!cancel.is_cancelled(), "told to stop while waiting for others' locks");
                    }
                    tracing::warn!(%error, "trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) if error.is_lock_wait() => return Err(anyhow!("{error}, {TRIES} times")),
                result => return Ok(result?),
            }
        }
        Ok(())
    }

    /// Finishes or reverts, by where the tables are.
    async fn end(&self, connection: &mut MySqlConnection) -> anyhow::Result<Ended> {
        let CutOver { id, places, facts, .. } = self.cut_over;
        if facts.made {
            cut_over::make_schema(connection, &places.live, &facts.collation).await?;
        }
        ensure!(
            cut_over::schema_exists(connection, &places.live).await?,
            "schema `{}` does not exist any more, and its cut-over is open. Next: CREATE DATABASE `{0}`",
            places.live
        );
        let remaining = facts.moves.remaining(connection, places).await?;
        let renamed: bool =
            sqlx::query_scalar("SELECT renamed_at IS NOT NULL FROM cut_overs WHERE id = ?").bind(id).fetch_one(self.pen.pool).await?;
        use_schema(connection, &places.live).await?;
        self.patient.prepare(connection).await?;
        if renamed || !facts.moves.is_untouched(&remaining) { self.forward(connection).await } else { self.revert(connection).await }
    }

    /// From the RENAME TABLE to the end.
    async fn forward(&self, connection: &mut MySqlConnection) -> anyhow::Result<Ended> {
        let CutOver { places, facts, old, .. } = self.cut_over;
        let mut problems = Vec::new();
        // All at once, unless the server died in the middle of the one statement and does not undo it.
        let remaining = facts.moves.remaining(connection, places).await?;
        if !remaining.is_none() {
            self.pen.note("rename", 0).await?;
            self.retried(connection, &remaining.statement(places), &format!("rename the tables of `{}`", places.live)).await?;
        }
        let step: String =
            sqlx::query_scalar("SELECT step FROM cut_overs WHERE id = ?").bind(self.cut_over.id).fetch_one(self.pen.pool).await?;
        let reached = |wanted: &str| STEPS.iter().position(|s| *s == step) >= STEPS.iter().position(|s| *s == wanted);
        if !reached("renamed") {
            self.pen.note("renamed", 0).await?;
        }
        // A crash may have come while it was another.
        if cut_over::collation(connection, &places.live).await? != facts.collation {
            stored_code::set_collation(connection, &places.live, &facts.collation).await?;
        }
        if !reached("make_code") {
            self.pen.note("triggers", 0).await?;
            self.make(connection, &|kind| kind == ObjectKind::Trigger, &mut problems).await?;
            self.pen.note("drop_code", 0).await?;
            for (position, c) in old.iter().filter(|c| c.kind != ObjectKind::Trigger).enumerate() {
                if position > 0 {
                    self.pen.note("drop_code", position).await?;
                }
                stored_code::drop(connection, &places.live, c.kind, &c.name).await?;
            }
        }
        self.pen.note("make_code", 0).await?;
        self.make(connection, &|kind| kind != ObjectKind::Event, &mut problems).await?;
        for key in &facts.relink {
            if self.is_missing(connection, key).await? {
                let made = self.patient.run(connection, &key.make_statement(&places.live), &format!("make foreign key {key} again")).await;
                if let Err(error) = made {
                    self.still_there(connection).await?;
                    problems.push(format!("{error}. By hand: {}", key.make_statement(&places.live)));
                }
            }
        }
        self.pen.note("make_events", 0).await?;
        self.make(connection, &|kind| kind == ObjectKind::Event, &mut problems).await?;
        let seconds = self.seconds().await?;
        self.after(&mut problems, "done").await;
        self.pen.note("clean", 0).await?;
        self.drop_if_empty(connection, &places.stage).await?;
        if facts.moves.old.is_empty() {
            self.drop_if_empty(connection, &places.undo).await?;
        }
        Ok(Ended { state: State::Done, seconds, problems })
    }

    /// Makes what is missing of the new code. What the server refuses is a problem to be told, not a reason to stop.
    async fn make(
        &self,
        connection: &mut MySqlConnection,
        wanted: &(dyn Fn(ObjectKind) -> bool + Sync),
        problems: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let CutOver { places, facts, new, .. } = self.cut_over;
        let there: BTreeSet<(ObjectKind, String)> = stored_code::list(connection, &places.live).await?.into_iter().collect();
        let mut missing: Vec<&StoredCode> = new.iter().filter(|c| wanted(c.kind) && !there.contains(&(c.kind, c.name.clone()))).collect();
        // A view may use another one that comes later in the list.
        loop {
            let (mut refused, mut made) = (Vec::new(), 0);
            for c in missing {
                match stored_code::make(connection, &places.live, &facts.collation, c).await {
                    Ok(()) => made += 1,
                    Err(error) if server_error(&error).is_some() => refused.push((c, error)),
                    Err(error) => return Err(error.into()),
                }
            }
            if refused.is_empty() || made == 0 {
                problems.extend(refused.iter().map(|(c, error)| {
                    format!("{} `{}` could not be made: {error}. Its text is in cut_over_code of the control schema", c.kind.word(), c.name)
                }));
                return Ok(());
            }
            missing = refused.into_iter().map(|(c, _)| c).collect();
        }
    }

    /// Back to what was live before. The tables have not been moved.
    async fn revert(&self, connection: &mut MySqlConnection) -> anyhow::Result<Ended> {
        let CutOver { places, facts, old, kind, .. } = self.cut_over;
        let mut problems = Vec::new();
        if cut_over::collation(connection, &places.live).await? != facts.collation {
            stored_code::set_collation(connection, &places.live, &facts.collation).await?;
        }
        let there: BTreeSet<(ObjectKind, String)> = stored_code::list(connection, &places.live).await?.into_iter().collect();
        for c in old.iter().filter(|c| matches!(c.kind, ObjectKind::Trigger | ObjectKind::Event)) {
            if !there.contains(&(c.kind, c.name.clone())) {
                stored_code::make(connection, &places.live, &facts.collation, c)
                    .await
                    .with_context(|| format!("{} `{}` cannot be made again; its text is in cut_over_code", c.kind.word(), c.name))?;
            }
        }
        for key in &facts.relink {
            if self.is_missing(connection, key).await? {
                self.patient.run(connection, &key.make_statement(&places.live), &format!("make foreign key {key} again")).await?;
            }
        }
        let seconds = self.seconds().await?;
        self.after(&mut problems, "reverted").await;
        if *kind == Kind::Restore {
            made_schemas::remove(self.pen.pool, connection, &places.stage).await?;
        }
        self.drop_if_empty(connection, &places.undo).await?;
        if facts.made && cut_over::tables(connection, &places.live).await?.is_empty() {
            cut_over::drop_schema(connection, &places.live).await?;
        }
        let reverted = sqlx::query(
            "UPDATE cut_overs SET state = 'reverted', ended_at = UTC_TIMESTAMP(6), seconds = ?, note = ? WHERE id = ? AND state = 'open'",
        )
        .bind(seconds)
        .bind(text(&problems.join("; ")))
        .bind(self.cut_over.id)
        .execute(self.pen.pool)
        .await?;
        ensure!(reverted.rows_affected() == 1, "the cut-over was ended by somebody else");
        Ok(Ended { state: State::Reverted, seconds, problems })
    }

    async fn is_missing(&self, connection: &mut MySqlConnection, key: &ForeignKey) -> anyhow::Result<bool> {
        let found: Option<i32> = sqlx::query_scalar(
            "SELECT 1 FROM information_schema.table_constraints
              WHERE constraint_schema = ? AND table_name = ? AND constraint_name = ? AND constraint_type = 'FOREIGN KEY'",
        )
        .bind(&key.schema)
        .bind(&key.table)
        .bind(&key.name)
        .fetch_optional(connection)
        .await?;
        Ok(found.is_none())
    }

    async fn still_there(&self, connection: &mut MySqlConnection) -> anyhow::Result<()> {
        connection.ping().await.context("the application server")
    }

    /// The hook after, if the one before has run.
    async fn after(&self, problems: &mut Vec<String>, outcome: &str) {
        if !self.cut_over.facts.hooked {
            return;
        }
        let restore = &self.config.restore;
        let occasion = hooks::Occasion { job_id: self.cut_over.job_id, schema: &self.cut_over.places.live, when: "after", outcome };
        if let Err(error) = hooks::run(&restore.post_hook, restore.hook_time, occasion).await {
            problems.push(format!("{error:#}. Look whether the application is still in maintenance mode"));
        }
    }

    async fn seconds(&self) -> anyhow::Result<f64> {
        let micros: i64 = sqlx::query_scalar("SELECT TIMESTAMPDIFF(MICROSECOND, started_at, UTC_TIMESTAMP(6)) FROM cut_overs WHERE id = ?")
            .bind(self.cut_over.id)
            .fetch_one(self.pen.pool)
            .await?;
        Ok((micros as f64 / 1000.0).round() / 1000.0)
    }

    /// Drops one of our schemas that has no table left, and forgets it.
    async fn drop_if_empty(&self, connection: &mut MySqlConnection, schema: &str) -> anyhow::Result<()> {
        ensure!(schema.starts_with(&self.config.schema_prefix), "`{schema}` is not a schema of ours");
        let left = cut_over::tables(connection, schema).await?;
        ensure!(
            left.is_empty(),
            "schema `{schema}` still holds tables, so it is not dropped: {}",
            left.into_iter().collect::<Vec<_>>().join(", ")
        );
        made_schemas::remove(self.pen.pool, connection, schema).await
    }
}

fn quote(name: &str) -> String {
    engine::sql::quote_name(name)
}

async fn use_schema(connection: &mut MySqlConnection, schema: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("USE {}", quote(schema)))).execute(connection).await?;
    Ok(())
}

/// Ends the journal of a cut-over that was done: part of a final transaction. What was replaced can be undone until `until`.
async fn settle(connection: &mut MySqlConnection, cut_over: &CutOver, ended: &Ended, until: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query("UPDATE cut_overs SET state = 'done', ended_at = UTC_TIMESTAMP(6), seconds = ?, note = ? WHERE id = ? AND state = 'open'")
        .bind(ended.seconds)
        .bind(text(&ended.problems.join("; ")))
        .bind(cut_over.id)
        .execute(&mut *connection)
        .await?;
    if !cut_over.facts.moves.old.is_empty() {
        sqlx::query("INSERT IGNORE INTO undo_points (job_id, cut_over_id, schema_name, undo_schema, until) VALUES (?, ?, ?, ?, ?)")
            .bind(cut_over.job_id)
            .bind(cut_over.id)
            .bind(&cut_over.places.live)
            .bind(&cut_over.places.undo)
            .bind(until)
            .execute(&mut *connection)
            .await?;
    }
    if cut_over.kind == Kind::Undo {
        sqlx::query("UPDATE undo_points SET state = 'used' WHERE undo_schema = ? AND state = 'kept'")
            .bind(&cut_over.places.stage)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// What ends the journal of a cut-over that was done, for a job's final transaction.
pub fn settling(cut_over: CutOver, ended: Ended, until: DateTime<Utc>) -> CatalogWrites {
    let ending = Arc::new((cut_over, ended));
    Box::new(move |connection| {
        let ending = ending.clone();
        Box::pin(async move { settle(connection, &ending.0, &ending.1, until).await })
    })
}

/// The backup that is due after the live database was replaced: the old chain ends there.
pub fn follow_up(job_id: u64, kind: &str) -> Result<NewJob, String> {
    let backup = Backup { components: vec![Component::Database], label: Some(format!("after {kind} (job {job_id})")) };
    NewJob::new(&backup, format!("job {job_id}"), format!("{kind}, job {job_id}"))
}

/// When what is replaced now may be dropped, by the control schema's clock.
pub async fn until(pool: &MySqlPool, hours: u32) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("SELECT UTC_TIMESTAMP(6) + INTERVAL ? HOUR").bind(hours).fetch_one(pool).await
}

/// What [`recover`] did.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The restore or undo.
    pub job_id: u64,
    /// How it ended.
    pub ended: Ended,
}

/// Ends every open cut-over whose job is over. Whoever has the application server's lock does it; anybody else does nothing.
pub async fn recover(pool: &MySqlPool, config: &Config) -> anyhow::Result<Vec<Recovered>> {
    let open: Vec<u64> = sqlx::query_scalar(
        "SELECT c.id FROM cut_overs c LEFT JOIN jobs j ON j.id = c.job_id WHERE c.state = 'open' AND (j.id IS NULL OR j.state <> 'running') ORDER BY c.id",
    )
    .fetch_all(pool)
    .await?;
    let mut recovered = Vec::new();
    if open.is_empty() {
        return Ok(recovered);
    }
    let Some(mut exclusive) = Exclusive::for_recovery(config).await? else { return Ok(recovered) };
    for id in open {
        let mut control = pool.acquire().await?;
        // Another worker may have ended it before we had the lock.
        let still: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM cut_overs WHERE id = ? AND state = 'open'").bind(id).fetch_optional(&mut *control).await?;
        if still.is_none() {
            continue;
        }
        let cut_over = load(&mut control, id).await?;
        drop(control);
        let server = Server::detect(exclusive.connection()).await?;
        let pen = Pen { pool, id, fence: None, cancel: None, quiet: AtomicBool::new(false) };
        let patient = Patient { config: &config.application, server: &server, patience: config.restore.wait };
        let work = Work { config, cut_over: &cut_over, pen: &pen, patient: &patient };
        let ended = match work.end(exclusive.connection()).await {
            Ok(ended) => ended,
            Err(error) => {
                let why = explain(&error);
                sqlx::query("UPDATE cut_overs SET note = ? WHERE id = ? AND state = 'open'")
                    .bind(text(&why))
                    .bind(id)
                    .execute(pool)
                    .await?;
                bail!("cut-over of job {}: {why}", cut_over.job_id);
            }
        };
        say(pool, &cut_over, &ended).await?;
        recovered.push(Recovered { job_id: cut_over.job_id, ended });
    }
    Ok(recovered)
}

/// Writes what became of a lost job's cut-over, and enqueues the backup that is due, in one transaction.
async fn say(pool: &MySqlPool, cut_over: &CutOver, ended: &Ended) -> anyhow::Result<()> {
    let until = until(pool, cut_over.facts.undo_hours).await?;
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    let live = &cut_over.places.live;
    let mut message = match ended.state {
        State::Done if cut_over.facts.beside => format!("a worker finished what was begun: `{live}` is wholly the backup"),
        State::Done => {
            settle(&mut tx, cut_over, ended, until).await?;
            let follow_up = follow_up(cut_over.job_id, cut_over.kind.as_str()).map_err(|e| anyhow!(e))?;
            enqueue(&mut tx, &follow_up).await?;
            format!(
                "a worker finished what was begun: `{live}` is wholly the new one; a backup of it is enqueued. `enqueue undo {}` puts back what it replaced",
                cut_over.job_id
            )
        }
        State::Reverted => format!("a worker reverted what was begun: `{live}` is as it was before. Next: make a new plan"),
    };
    if ended.state == State::Done && cut_over.facts.beside {
        settle(&mut tx, cut_over, ended, until).await?;
    }
    if !ended.problems.is_empty() {
        message.push_str(&format!(". Besides: {}", ended.problems.join("; ")));
    }
    sqlx::query("INSERT INTO job_log (job_id, attempt, level, message) SELECT id, attempt, 'warn', ? FROM jobs WHERE id = ?")
        .bind(text(&message))
        .bind(cut_over.job_id)
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE jobs SET error = CONCAT(COALESCE(error, ''), '. ', ?) WHERE id = ?")
        .bind(text(&message))
        .bind(cut_over.job_id)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Whether a job has begun one.
pub async fn exists(connection: &mut MySqlConnection, job_id: u64) -> sqlx::Result<bool> {
    let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM cut_overs WHERE job_id = ?").bind(job_id).fetch_optional(connection).await?;
    Ok(found.is_some())
}

/// How a job's cut-over stands, for people; `None` when it has not got so far.
pub async fn describe(connection: &mut MySqlConnection, job_id: u64) -> sqlx::Result<Option<String>> {
    let row = sqlx::query(
        "SELECT c.state, c.step, c.schema_name, c.renamed_at IS NOT NULL AS renamed, c.note, j.state = 'running' AS running,
                u.state AS undo_state, u.until, u.undo_schema
           FROM cut_overs c LEFT JOIN jobs j ON j.id = c.job_id LEFT JOIN undo_points u ON u.job_id = c.job_id WHERE c.job_id = ?",
    )
    .bind(job_id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        let untouched: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM jobs WHERE id = ? AND kind IN ('restore', 'undo') AND state IN ('failed', 'cancelled')")
                .bind(job_id)
                .fetch_optional(connection)
                .await?;
        return Ok(untouched.map(|_| "no cut-over was begun: the live database was not touched. Next: make a new plan".into()));
    };
    let (state, schema, step): (String, String, String) = (row.try_get("state")?, row.try_get("schema_name")?, row.try_get("step")?);
    let note: Option<String> = row.try_get("note")?;
    let note = note.filter(|n| !n.is_empty()).map_or_else(String::new, |n| format!(" ({n})"));
    let undo: Option<String> = row.try_get("undo_state")?;
    Ok(Some(match (state.as_str(), row.try_get::<Option<bool>, _>("running")?.unwrap_or(false)) {
        ("open", true) => format!("cut-over of `{schema}`: under way, at step `{step}`"),
        ("open", false) => {
            let way = if row.try_get("renamed")? { "finished" } else { "reverted, or finished if the tables have changed places" };
            format!(
                "cut-over of `{schema}`: interrupted at step `{step}`{note}. Next: see that a worker runs and reaches the application's server; it will be {way}, and no other job on the database starts before"
            )
        }
        ("reverted", _) => format!("cut-over of `{schema}`: reverted{note}; `{schema}` is as it was before. Next: make a new plan"),
        _ => match undo.as_deref() {
            Some("kept") => {
                let until: DateTime<Utc> = row.try_get("until")?;
                format!(
                    "cut-over of `{schema}`: done{note}; what it replaced is kept until {} UTC, `enqueue undo {job_id}` puts it back",
                    until.format("%Y-%m-%d %H:%M:%S")
                )
            }
            Some("used") => format!("cut-over of `{schema}`: done{note}, and undone since"),
            Some(_) => format!("cut-over of `{schema}`: done{note}; what it replaced has been dropped since"),
            None => format!("cut-over of `{schema}`: done{note}"),
        },
    }))
}
