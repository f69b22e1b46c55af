//! The kind `restore`: loads and unpacks archives beside what is live, checks them, and only then replaces it.
//!
//! 1. The plan is drawn again: the archives are verified, and the evidence must be what the confirmed plan was made of.
//!    Archives of files are unpacked beside the live directories ([`crate::trees`]), before anything of the database is replaced.
//! 2. The database archive is loaded into a staging schema over several connections. Dies here: the live database is as it was, and the
//!    staging schema, announced before it was made, is swept.
//! 3. Tables, row counts and checksums are compared with the manifest.
//! 4. [`crate::cut_over`] replaces the live schema, journaled. Dies there: the next worker finishes or reverts it.
//! 5. The directories change places ([`crate::trees`]).
//! 6. The final transaction ends the journals, notes until when it can be undone, and enqueues a backup of the database.
//!
//! In place there is no staging: see [`crate::in_place`].

use crate::{
    component::Component,
    cut_over::{self, Facts, Kind, NewCutOver, State as CutOverState},
    exclusive::{Exclusive, recorded},
    failpoint, hooks, in_place,
    job::{CatalogWrites, Context, Done, Field, Job, Policy, Shape, explain, give_up},
    made_schemas::{self, Purpose},
    restore_plan::{self, DatabasePlan, Plan, RestorePlan, TRANSIENT},
    state::State,
    trees::{self, Tree},
};
use anyhow::{Context as _, anyhow, ensure};
use chrono::{DateTime, Utc};
use engine::{
    checksum::{self, TableSum},
    control::Control,
    cut_over::{KEPT, Moves, Places, SETTINGS},
    load::{Code, load, load_sessions, statements_of},
    manifest::{Manifest, Section},
    server::{Server, ServerConfig},
    sql::quote_name,
    sql_scan::{ObjectKind, SectionKind, created},
    stored_code,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, MySqlConnection};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Restores one archive, or several of one backup, as a confirmed plan says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The archive's file name, its path on the job's node, or a backup's number.
    pub archive: String,
    /// What is restored, as the plan says; none: the database. The job takes them for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// One file of a file archive, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Restores beside the live database, into this schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Loads into the live database itself.
    #[serde(default)]
    pub in_place: bool,
    /// Of the framework, `.env` too.
    #[serde(default)]
    pub with_env: bool,
    /// Empties Laravel's jobs, sessions and cache.
    #[serde(default)]
    pub clear_transient: bool,
    /// Foreign keys of other schemas are made again on the new tables.
    #[serde(default)]
    pub relink: bool,
    /// The job whose plan was confirmed.
    pub plan: u64,
    /// That plan's evidence; nothing is done when it is another by now.
    pub evidence: String,
}

impl Restore {
    fn request(&self) -> RestorePlan {
        RestorePlan {
            archive: self.archive.clone(),
            components: self.components.clone(),
            path: self.path.clone(),
            into: self.into.clone(),
            in_place: self.in_place,
            with_env: self.with_env,
            clear_transient: self.clear_transient,
            relink: self.relink,
        }
    }

    /// What applies a plan; the request's components are the plan's.
    pub fn of(plan: u64, evidence: &str, request: RestorePlan) -> Self {
        let RestorePlan { archive, components, path, into, in_place, with_env, clear_transient, relink } = request;
        Self { archive, components, path, into, in_place, with_env, clear_transient, relink, plan, evidence: evidence.to_owned() }
    }
}

impl Job for Restore {
    const KIND: &'static str = "restore";
    const DESCRIPTION: &'static str = "Replaces the live database or directories by archives, or restores beside them";
    const POLICY: Policy = Policy::at_most_once();
    const FIELDS: &'static [Field] = &[
        Field::required("archive", Shape::Archive),
        Field::optional("components", Shape::Components),
        Field::optional("path", Shape::Text),
        Field::optional("into", Shape::Text),
        Field::optional("in_place", Shape::Boolean),
        Field::optional("with_env", Shape::Boolean),
        Field::optional("clear_transient", Shape::Boolean),
        Field::optional("relink", Shape::Boolean),
        Field::required("plan", Shape::Integer),
        Field::required("evidence", Shape::Text),
    ];
    const RESOURCES: &'static [Component] = &[Component::Database];

    fn resources(&self) -> Vec<Component> {
        if self.components.is_empty() { vec![Component::Database] } else { in_order(&self.components) }
    }

    fn validate(&self) -> Result<(), String> {
        if self.evidence.is_empty() {
            return Err("evidence: give that of the plan: `enqueue restore` does it all".into());
        }
        self.request().validate()
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let plan = restore_plan::draw(context, &self.request(), true).await?;
        failpoint::hit("restore_verify").await;
        if !plan.refusals.is_empty() {
            return Err(give_up(anyhow!("{}", plan.refusals.join("; "))));
        }
        if plan.evidence != self.evidence {
            return Err(give_up(anyhow!(
                "the archive, the server or what is live is not what plan {} saw; nothing was changed. Next: make a new plan",
                self.plan
            )));
        }
        if plan.components != self.resources() {
            let needs = plan.components.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(give_up(anyhow!(
                "the job is about {needs}, and has not taken that for itself. Next: name them in its `components`"
            )));
        }
        let mut trees = Vec::new();
        for part in &plan.files {
            match trees::stage(context, part).await {
                Ok(tree) => trees.push(tree),
                Err(error) => {
                    give_back(context, trees).await;
                    return Err(error.context(part.component.to_string()));
                }
            }
        }
        let database = match &plan.database {
            None => None,
            Some(database) => {
                let done = if self.in_place {
                    in_place::run(context, database, self.clear_transient).await
                } else {
                    self.beside(context, database).await
                };
                match done {
                    Ok(done) => Some(done),
                    Err(error) => {
                        give_back(context, trees).await;
                        return Err(error);
                    }
                }
            }
        };
        let replaced = replace_trees(context, trees).await?;
        self.done(context, &plan, database, replaced).await
    }
}

/// Each once, the database first.
pub(crate) fn in_order(components: &[Component]) -> Vec<Component> {
    Component::ALL.into_iter().filter(|c| components.contains(c)).collect()
}

/// What was unpacked goes, unless the job was told to stop: then whoever takes over sweeps it.
async fn give_back(context: &Context, trees: Vec<Tree>) {
    if !context.control.cancel.is_cancelled() {
        trees::give_back(context, trees).await;
    }
}

/// A directory that has changed places, or not.
pub(crate) struct ReplacedTree {
    pub(crate) id: u64,
    pub(crate) undoes: Option<u64>,
    pub(crate) outcome: Value,
    pub(crate) problem: Option<String>,
}

/// All staged trees change places with what is live. One that does not is put back, and does not keep the others from it.
pub(crate) async fn replace_trees(context: &Context, staged: Vec<Tree>) -> anyhow::Result<Vec<ReplacedTree>> {
    let mut replaced = Vec::new();
    for mut tree in staged {
        let ended = trees::swap(context, &mut tree).await?;
        let left_out: Vec<String> = tree.left_out.iter().map(ToString::to_string).collect();
        replaced.push(ReplacedTree {
            id: tree.id,
            undoes: tree.facts.undoes,
            outcome: json!({
                "component": tree.component,
                "outcome": if ended.done { "restored" } else { "as it was" },
                "from": tree.facts.from,
                "directory": tree.root,
                "files": tree.contents.files,
                "bytes": tree.contents.bytes,
                "not_owned": tree.contents.not_owned,
                "left_out": left_out,
                "swap_seconds": ended.seconds,
                "kept_in": ended.done.then_some(&tree.work),
                "error": ended.error,
            }),
            problem: ended.error.map(|e| format!("{}: {e}", tree.component)),
        });
        if !ended.done {
            trees::give_back(context, vec![tree]).await;
        }
    }
    Ok(replaced)
}

/// What came of the database's part.
pub(crate) struct DatabaseDone {
    pub(crate) result: Value,
    pub(crate) warnings: Vec<String>,
    pub(crate) writes: Option<CatalogWrites>,
    /// Whether the chain of binary logs ends here.
    pub(crate) live: bool,
}

impl Restore {
    /// One result of all components.
    async fn done(
        &self,
        context: &Context,
        plan: &Plan,
        database: Option<DatabaseDone>,
        replaced: Vec<ReplacedTree>,
    ) -> anyhow::Result<Done> {
        let until = cut_over::until(&context.pool, context.config.restore.undo_hours).await?;
        let mut outcomes = serde_json::Map::new();
        let (mut result, mut warnings, mut writes, mut live) = (json!({ "archive": self.archive }), plan.warnings.clone(), None, false);
        if let Some(database) = database {
            outcomes.insert("database".into(), json!("restored"));
            (result, writes, live) = (database.result, database.writes, database.live);
            warnings.extend(database.warnings);
        }
        for tree in &replaced {
            outcomes.insert(tree.outcome["component"].as_str().unwrap_or_default().into(), tree.outcome["outcome"].clone());
            let not_owned = tree.outcome["not_owned"].as_u64().unwrap_or(0);
            if not_owned > 0 {
                warnings.push(format!("{}: the owner of {not_owned} files and directories could not be set", tree.outcome["component"]));
            }
        }
        let problems: Vec<String> = replaced.iter().filter_map(|t| t.problem.clone()).collect();
        let any = replaced.iter().any(|t| t.problem.is_none());
        result["plan"] = json!(self.plan);
        result["components"] = json!(outcomes);
        result["trees"] = replaced.iter().map(|t| t.outcome.clone()).collect();
        if any && result["undo"].is_null() {
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

    /// The database, loaded into a schema of its own first.
    async fn beside(&self, context: &Context, plan: &DatabasePlan) -> anyhow::Result<DatabaseDone> {
        ensure_live_exists(context, plan).await?;
        let stage = Purpose::Stage.schema(&context.config, context.job_id);
        let undo = Purpose::Undo.schema(&context.config, context.job_id);
        let places = Places { live: plan.target.clone(), stage, undo };
        let done = self.restore(context, plan, &places).await;
        let open: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM cut_overs WHERE job_id = ?").bind(context.job_id).fetch_optional(&context.pool).await?;
        // From the journal on, whoever ends it cleans up. What is not removed here is swept.
        if done.is_err() && open.is_none() && !context.control.cancel.is_cancelled() {
            let mut connection = context.config.application.connect_without_schema().await.context("application database")?;
            for schema in [&places.stage, &places.undo] {
                if let Err(error) = made_schemas::remove(&context.pool, &mut connection, schema).await {
                    context.log.warn(format!("`{schema}` is left to be swept: {}", explain(&error)));
                }
            }
        }
        done
    }
}

/// What ends all journals, for a job's final transaction.
pub(crate) fn settling(database: Option<CatalogWrites>, replaced: &[ReplacedTree], until: DateTime<Utc>) -> CatalogWrites {
    let database = database.map(Arc::new);
    let trees: Arc<Vec<(u64, Option<u64>)>> = Arc::new(replaced.iter().filter(|t| t.problem.is_none()).map(|t| (t.id, t.undoes)).collect());
    Box::new(move |connection| {
        let (database, trees) = (database.clone(), trees.clone());
        Box::pin(async move {
            if let Some(writes) = &database {
                writes(connection).await?;
            }
            for (id, undoes) in trees.iter() {
                trees::settle(connection, *id, *undoes, until).await?;
            }
            Ok(())
        })
    })
}

/// A live database that was dropped is made again, empty: the job's lock and sessions are in it.
pub(crate) async fn ensure_live_exists(context: &Context, plan: &DatabasePlan) -> anyhow::Result<()> {
    let application = &context.config.application;
    let mut connection = application.connect_without_schema().await.context("application database")?;
    if plan.live && !engine::cut_over::schema_exists(&mut connection, &application.schema).await? {
        context.log.warn(format!("schema `{}` did not exist", application.schema));
        engine::cut_over::make_schema(&mut connection, &application.schema, "utf8mb4_unicode_ci").await?;
    }
    Ok(())
}

impl Restore {
    async fn restore(&self, context: &Context, plan: &DatabasePlan, places: &Places) -> anyhow::Result<DatabaseDone> {
        let start = Instant::now();
        let config = &context.config;
        let manifest = &plan.verified.manifest;
        let mut exclusive = Exclusive::acquire(context).await?;
        let connection = exclusive.connection();
        let server = Server::detect(connection).await?;
        made_schemas::announce(&context.pool, context.job_id, context.fence, &places.stage, Purpose::Stage).await?;
        failpoint::hit("restore_announced").await;
        let live_exists = engine::cut_over::schema_exists(connection, &places.live).await?;
        let collation =
            engine::cut_over::collation(connection, if live_exists { &places.live } else { &config.application.schema }).await?;
        engine::cut_over::make_schema(connection, &places.stage, &collation).await?;
        failpoint::hit("restore_stage").await;

        let stage = ServerConfig { schema: places.stage.clone(), ..config.application.clone() };
        let mut sessions = Vec::new();
        for _ in 0..load_sessions(config.effort.threads) {
            sessions.push(recorded(context, &stage).await?);
        }
        let loading = load(&plan.path, manifest, &places.stage, Code::WithoutEvents, sessions, &context.control);
        let (loaded, ()) = tokio::join!(loading, hit_while_loading(&context.control));
        let loaded = loaded.map_err(give_up)?;
        let firing = load_events(&mut recorded(context, &stage).await?, &plan.path, manifest).await.map_err(give_up)?;
        context.log.info(format!("{} tables loaded into `{}`", loaded.tables, places.stage));
        failpoint::hit("restore_check").await;
        let mut sessions = Vec::new();
        for _ in 0..config.effort.threads.clamp(1, 4) {
            sessions.push(recorded(context, &stage).await?);
        }
        let rows = check(&context.control, sessions, &places.stage, manifest).await.map_err(give_up)?;
        let loading_seconds = start.elapsed().as_secs_f64();
        // One that no statement of the archive has changed.
        let mut staging = recorded(context, &stage).await?;
        let cleared = if self.clear_transient { clear_transient(&mut staging, &places.stage).await? } else { Vec::new() };
        let kept = if plan.live { keep_settings_table(&mut staging, places).await? } else { false };
        let mut new_code = stored_code::read(&mut staging, &places.stage).await?;
        for event in new_code.iter_mut().filter(|c| c.kind == ObjectKind::Event) {
            event.enabled = firing.contains(&event.name);
        }
        // Nothing of the staging schema is in the way of its tables, then.
        for c in new_code.iter().filter(|c| c.kind == ObjectKind::Trigger) {
            stored_code::drop(&mut staging, &places.stage, c.kind, &c.name).await?;
        }
        let new_tables = engine::cut_over::tables(&mut staging, &places.stage).await?;
        drop(staging);
        ensure!(!context.control.cancel.is_cancelled(), "told to stop before the cut-over; nothing was changed");

        made_schemas::announce(&context.pool, context.job_id, context.fence, &places.undo, Purpose::Undo).await?;
        engine::cut_over::make_schema(exclusive.connection(), &places.undo, &collation).await?;
        let (mut old_code, mut old_tables) = (Vec::new(), BTreeSet::new());
        if live_exists {
            let live = ServerConfig { schema: places.live.clone(), ..config.application.clone() };
            let mut reading = recorded(context, &live).await?;
            old_code = stored_code::read(&mut reading, &places.live).await?;
            old_tables = engine::cut_over::tables(&mut reading, &places.live).await?;
        }
        let hooked = plan.live && !(config.restore.pre_hook.is_empty() && config.restore.post_hook.is_empty());
        let facts = Facts {
            moves: Moves { old: old_tables, new: new_tables },
            collation,
            relink: plan.relink.clone(),
            beside: !plan.live,
            made: !live_exists,
            undo_hours: config.restore.undo_hours,
            hooked,
        };
        let replaced = Replaced { moved: facts.moves.old.len(), aside: facts.moves.old.difference(&facts.moves.new).cloned().collect() };
        let new = NewCutOver { kind: Kind::Restore, places: places.clone(), facts, old: old_code, new: new_code };
        let (cut_over, ended) = replace(context, exclusive, &server, new).await?;
        if ended.state == CutOverState::Reverted {
            return Err(give_up(anyhow!("{}. `{}` is as it was before", ended.problems.join("; "), places.live)));
        }
        let until = cut_over::until(&context.pool, config.restore.undo_hours).await?;
        let warnings = ended.problems.clone();
        let result = json!({
            "archive": plan.archive,
            "schema": places.live,
            "tables": loaded.tables,
            "rows": rows,
            "load_seconds": round(loading_seconds),
            "cut_over_seconds": ended.seconds,
            "replaced_tables": replaced.moved,
            "moved_aside": replaced.aside,
            "cleared": cleared,
            "kept": kept.then_some(KEPT_SETTINGS),
            "unknown_definers": plan.definers,
            "undo": (replaced.moved > 0).then(|| json!({ "job": context.job_id, "schema": places.undo, "until": until })),
            "next": plan.live.then_some(NEXT),
        });
        Ok(DatabaseDone { result, warnings, writes: Some(cut_over::settling(cut_over, ended, until)), live: plan.live })
    }
}

/// What a person may wonder at.
pub(crate) const KEPT_SETTINGS: &str = "the settings of the group `backup` are as they were";
/// What comes after a live database was replaced.
pub(crate) const NEXT: &str =
    "a backup of the restored database is enqueued; until it has completed, there is none that can be followed by binary logs";

struct Replaced {
    moved: usize,
    aside: Vec<String>,
}

/// Begins the journal, runs the hook before, and cuts over.
pub(crate) async fn replace(
    context: &Context,
    exclusive: Exclusive,
    server: &Server,
    new: NewCutOver,
) -> anyhow::Result<(cut_over::CutOver, cut_over::Ended)> {
    let restore = &context.config.restore;
    let hooked = new.facts.hooked;
    // The journal says that the hook has run before it does: then the one after it is never left out.
    let cut_over = cut_over::begin(context, new).await?;
    if hooked {
        context.control.progress.phase("running the hook before the cut-over", 0);
        let occasion = hooks::Occasion { job_id: context.job_id, schema: &cut_over.places.live, when: "before", outcome: "" };
        if let Err(error) = hooks::run(&restore.pre_hook, restore.hook_time, occasion).await {
            let ended = cut_over::give_back(context, exclusive, server, &cut_over, &error).await?;
            return Ok((cut_over, ended));
        }
    }
    let ended = cut_over::run(context, exclusive, server, &cut_over).await?;
    Ok((cut_over, ended))
}

pub(crate) fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// For tests: the middle of loading.
async fn hit_while_loading(control: &Control) {
    if !cfg!(debug_assertions) {
        return;
    }
    for _ in 0..100 {
        if control.progress.read().done > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    failpoint::hit("restore_loading").await;
}

/// Makes the archive's events in the staging schema, switched off, so that none fires there. Returns which are to fire afterwards.
pub(crate) async fn load_events(connection: &mut MySqlConnection, path: &Path, manifest: &Manifest) -> anyhow::Result<BTreeSet<String>> {
    let mut firing = BTreeSet::new();
    for statement in statements_of(path, manifest, &[SectionKind::Events])? {
        let mut text = statement;
        if let Some((ObjectKind::Event, name)) = created(&text)
            && stored_code::is_enabled(&text)
        {
            text = stored_code::set_enabled(&text, false).unwrap_or(text);
            firing.insert(name);
        }
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(text.clone())))
            .await
            .with_context(|| format!("the server refuses an event: {}", text.chars().take(120).collect::<String>()))?;
    }
    Ok(firing)
}

/// Compares what was loaded with the manifest: tables, rows, and checksums where there are any. Returns how many rows.
///
/// All sessions, at least one, are in the schema, and are closed.
pub(crate) async fn check(control: &Control, mut sessions: Vec<MySqlConnection>, schema: &str, manifest: &Manifest) -> anyhow::Result<u64> {
    let connection = sessions.first_mut().context("no session to check with")?;
    let tables = manifest.sections.iter().filter(|s| s.kind == "table");
    let mut wanted: BTreeSet<String> = tables.clone().map(|s| s.name.clone()).collect();
    wanted.extend(manifest.sections.iter().filter(|s| s.kind == "sequence").map(|s| s.name.clone()));
    let there = engine::cut_over::tables(connection, schema).await?;
    ensure!(
        there == wanted,
        "what was loaded is not the backup: these tables are missing or too many: {}",
        there.symmetric_difference(&wanted).cloned().collect::<Vec<_>>().join(", ")
    );
    let facts = manifest.database.clone().unwrap_or_default();
    let code = stored_code::list(connection, schema).await?;
    use ObjectKind::{Function, Package, PackageBody, Procedure, Trigger, View};
    let routines = [Procedure, Function, Package, PackageBody];
    for (what, expected, kinds) in
        [("views", facts.views, &[View][..]), ("triggers", facts.triggers, &[Trigger]), ("routines", facts.routines, &routines)]
    {
        let found = code.iter().filter(|(kind, _)| kinds.contains(kind)).count() as u64;
        ensure!(found == expected, "what was loaded is not the backup: it has {found} {what}, and the backup has {expected}");
    }
    let waiting: Vec<Section> = tables.cloned().collect();
    control.progress.phase("checking rows", waiting.iter().map(|s| s.end - s.start).sum());
    let rows = waiting.iter().filter_map(|s| s.rows).sum();
    // The largest last: they are taken from the end.
    let waiting = Arc::new(Mutex::new(waiting));
    waiting.lock().unwrap_or_else(PoisonError::into_inner).sort_by_key(|s| s.end - s.start);
    let mut tasks = tokio::task::JoinSet::new();
    for mut session in sessions {
        let (waiting, control, schema) = (waiting.clone(), control.clone(), schema.to_owned());
        tasks.spawn(async move {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(table) = next else { return Ok(()) };
                tokio::select! {
                    biased;
                    () = control.cancel.cancelled() => anyhow::bail!("told to stop while checking"),
                    checked = check_table(&mut session, &schema, &table) => checked?,
                }
                control.progress.add(table.end - table.start);
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        // The other tasks end with the set.
        task??;
    }
    Ok(rows)
}

/// Compares one table with what the manifest says of it.
async fn check_table(connection: &mut MySqlConnection, schema: &str, table: &Section) -> anyhow::Result<()> {
    let name = &table.name;
    let found = if table.checksum.is_some() {
        checksum::of_table(connection, schema, name).await?
    } else {
        let sql = format!("SELECT COUNT(*) FROM {}", quote_name(name));
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await?;
        TableSum { rows: rows as u64, checksum: 0 }
    };
    let wrong = "what was loaded is not the backup";
    if let Some(rows) = table.rows {
        ensure!(found.rows == rows, "{wrong}: table `{name}` has {} rows, and the backup has {rows}", found.rows);
    }
    if let Some(checksum) = &table.checksum {
        ensure!(
            *checksum == found.hex(),
            "{wrong}: the rows of table `{name}` sum up to {}, and those of the backup to {checksum}",
            found.hex()
        );
    }
    Ok(())
}

/// Empties the tables whose rows would act again. Returns those that there are.
pub(crate) async fn clear_transient(connection: &mut MySqlConnection, stage: &str) -> anyhow::Result<Vec<String>> {
    let there = engine::cut_over::tables(connection, stage).await?;
    let mut cleared = Vec::new();
    for table in TRANSIENT.iter().filter(|t| there.contains(**t)) {
        connection.execute(AssertSqlSafe(format!("DELETE FROM {}", quote_name(table)))).await?;
        cleared.push((*table).to_owned());
    }
    Ok(cleared)
}

/// Whether the live database has settings of ours, which the cut-over keeps. A backup without their table gets it, with them alone.
async fn keep_settings_table(connection: &mut MySqlConnection, places: &Places) -> anyhow::Result<bool> {
    if !engine::cut_over::tables(connection, &places.live).await?.contains(SETTINGS) {
        return Ok(false);
    }
    let live = format!("{}.{SETTINGS}", quote_name(&places.live));
    let ours: i64 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {live} WHERE {KEPT}"))).fetch_one(&mut *connection).await?;
    if ours > 0 && !engine::cut_over::tables(connection, &places.stage).await?.contains(SETTINGS) {
        connection.execute(AssertSqlSafe(format!("CREATE TABLE {SETTINGS} LIKE {live}"))).await?;
    }
    Ok(ours > 0)
}
