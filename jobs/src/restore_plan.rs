//! The kind `restore_plan`: what a restore would do, from evidence, changing nothing.
//!
//! [`draw`] is all of it; `restore` draws the plan again and goes on only if the evidence is the same. The part on files is in
//! [`crate::file_plan`].

use crate::{
    archive_source::{Source, backup_directory, sources},
    catalog::Attempt,
    component::Component,
    config::Config,
    file_plan::{self, FilePlan},
    job::{Context, Done, Field, Job, Policy, Shape, Tell, give_up},
    state::State,
    units::size,
};
use anyhow::{Context as _, anyhow};
use engine::{
    cut_over::{self, ForeignKey},
    effort::Effort,
    foreign::{self, Imported},
    load::statements_of,
    manifest::{DatabaseFacts, Manifest},
    paths,
    privileges::{Privileges, missing_for_restore},
    server::{Flavour, Server},
    sql_scan::{ObjectKind, SectionKind, created},
    stored_code,
    verify::{self, Expected, Verified, VerifyError},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::MySqlConnection;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Tables whose rows would act again, were they restored: mails sent twice, people signed in.
pub const TRANSIENT: [&str; 5] = ["cache", "cache_locks", "job_batches", "jobs", "sessions"];

/// Shows what a restore would do. Changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestorePlan {
    /// The archive's file name, its path on the job's node, or a backup's number.
    pub archive: String,
    /// Which components of a backup; with commas between. None: all that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "with_commas")]
    pub components: Vec<Component>,
    /// One file of a file archive, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Restores beside the live database, into this schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Loads into the live database itself, for servers without room for two.
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
}

/// A list of components as one text: unlike those of other kinds, a plan does not take them for itself.
mod with_commas {
    use crate::component::Component;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(list: &[Component], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Component>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.split(',').filter(|w| !w.trim().is_empty()).map(|word| word.parse().map_err(D::Error::custom)).collect()
    }
}

impl Job for RestorePlan {
    const KIND: &'static str = "restore_plan";
    const DESCRIPTION: &'static str = "Shows what a restore would do, and changes nothing";
    const POLICY: Policy = Policy { max_attempts: 2, priority: 10, notify: Tell::Never, ..Policy::repeatable() };
    const FIELDS: &'static [Field] = &[
        Field::required("archive", Shape::Archive),
        Field::optional("components", Shape::Text),
        Field::optional("path", Shape::Text),
        Field::optional("into", Shape::Text),
        Field::optional("in_place", Shape::Boolean),
        Field::optional("with_env", Shape::Boolean),
        Field::optional("clear_transient", Shape::Boolean),
        Field::optional("relink", Shape::Boolean),
    ];

    fn validate(&self) -> Result<(), String> {
        if self.archive.trim().is_empty() {
            return Err("archive: name one; `enqueue backups` lists them".into());
        }
        if let Some(path) = &self.path {
            if path.trim_matches('/').is_empty() || path.contains('\0') {
                return Err("path: name one file, such as uploads/r/x/y.tif".into());
            }
            if self.into.is_some() || self.in_place || self.clear_transient || self.relink {
                return Err("path: one file is restored, so into, in_place, clear_transient and relink make no sense with it".into());
            }
        }
        if self.in_place && (self.into.is_some() || self.relink) {
            return Err("in_place: not together with into or relink".into());
        }
        match &self.into {
            Some(into) if into.is_empty() || into.chars().count() > 64 || into.chars().any(char::is_control) || into.ends_with(' ') => {
                Err(format!("into: `{into}` is not a schema's name"))
            }
            Some(_) if self.relink => Err("relink: nothing refers to a schema that is not there yet; leave it out with `into`".into()),
            _ => Ok(()),
        }
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let plan = draw(context, self, false).await?;
        let result = plan.result();
        if plan.refusals.is_empty() {
            return Ok(Done::completed(result));
        }
        Ok(Done { state: State::Failed, error: Some(plan.refusals.join("; ")), ..Done::completed(result) })
    }
}

/// A plan, and what it was made of.
pub struct Plan {
    /// What it is about, the database first.
    pub components: Vec<Component>,
    /// Of everything that must not change until it is applied, hex.
    pub evidence: String,
    /// The database's part.
    pub database: Option<DatabasePlan>,
    /// The others', in the order of [`Component::ALL`].
    pub files: Vec<FilePlan>,
    /// Why it must not be applied.
    pub refusals: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What is typed to confirm it.
    pub confirm: String,
}

impl Plan {
    /// As the job's result.
    pub fn result(&self) -> Value {
        let mut result = self.database.as_ref().map_or_else(|| json!({}), |d| d.facts.clone());
        result["components"] = json!(self.components);
        result["trees"] = self.files.iter().map(|f| f.facts.clone()).collect();
        result["confirm"] = json!(self.confirm);
        result["evidence"] = json!(self.evidence);
        result["refusals"] = json!(self.refusals);
        result["warnings"] = json!(self.warnings);
        result["refused"] = json!(!self.refusals.is_empty());
        result
    }
}

/// The database's part of a plan.
pub struct DatabasePlan {
    /// Where the archive is read.
    pub path: PathBuf,
    /// Keeps it there, if another program wrote the dump.
    pub imported: Option<Imported>,
    /// What it is.
    pub verified: Verified,
    /// The archive's name.
    pub archive: String,
    /// The schema that will hold it.
    pub target: String,
    /// Whether that is the live database.
    pub live: bool,
    /// Foreign keys of other schemas to be made again.
    pub relink: Vec<ForeignKey>,
    /// Definers that the server does not know.
    pub definers: Vec<String>,
    refusals: Vec<String>,
    warnings: Vec<String>,
    evidence: Value,
    facts: Value,
}

/// Verifies the archives and looks at what they would replace. An error: no plan can be made; what must not be done is in
/// `refusals`.
///
/// `again`: for a plan that was confirmed, which has read every member of file archives.
pub async fn draw(context: &Context, request: &RestorePlan, again: bool) -> anyhow::Result<Plan> {
    let sources = sources(context, request).await?;
    let components: Vec<Component> = sources.iter().map(|s| s.component).collect();
    let mut refusals = misfits(request, &components);
    let (mut database, mut files) = (None, Vec::new());
    let fits = refusals.is_empty();
    for source in sources.iter().filter(|_| fits) {
        if source.component == Component::Database {
            database = Some(draw_database(context, request, source).await?);
            continue;
        }
        match file_plan::draw(context, request, source, again).await {
            Ok(plan) => files.push(plan),
            // A good plan knows what must not be done.
            Err(error) => refusals.push(file_plan::refusal(&error).ok_or(error)?),
        }
    }
    let mut warnings = Vec::new();
    let mut parts = Vec::new();
    if let Some(plan) = &mut database {
        refusals.append(&mut plan.refusals);
        warnings.append(&mut plan.warnings);
        parts.push(plan.evidence.clone());
    }
    for plan in &mut files {
        refusals.append(&mut plan.refusals);
        warnings.append(&mut plan.warnings);
        parts.push(plan.evidence.clone());
    }
    refusals.extend(file_plan::short_of_space(&files));
    let confirm = match &database {
        Some(plan) => plan.target.clone(),
        None if request.archive.parse::<u64>().is_ok() => request.archive.clone(),
        None => sources.first().map(|s| s.name.clone()).unwrap_or_default(),
    };
    let request = RestorePlan { components: components.clone(), ..request.clone() };
    let evidence = json!({ "request": request, "parts": parts });
    let evidence = hex::encode(Sha256::digest(evidence.to_string()));
    Ok(Plan { components, evidence, database, files, refusals, warnings, confirm })
}

/// Options that do not go with what is restored.
fn misfits(request: &RestorePlan, components: &[Component]) -> Vec<String> {
    let list = components.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut refusals = Vec::new();
    let has_database = components.contains(&Component::Database);
    for (option, given) in [
        ("--into", request.into.is_some()),
        ("--in-place", request.in_place),
        ("--clear-transient", request.clear_transient),
        ("--relink", request.relink),
    ] {
        if given && !has_database {
            refusals.push(format!("{option} is about the database, and this is {list}. Next: leave it out"));
        }
    }
    if request.with_env && !components.contains(&Component::Framework) {
        refusals.push(format!("--with-env is about the framework, and this is {list}. Next: leave it out"));
    }
    if request.into.is_some() && components.len() > 1 {
        refusals.push(format!("--into restores the database beside the live one, and this is {list}. Next: add --components database"));
    }
    if request.path.is_some() && (has_database || components.len() != 1) {
        refusals.push(format!(
            "--path takes one file of one component, and this is {list}. Next: name the archive that has it, or --components"
        ));
    }
    refusals
}

/// A verified archive, and where it is read.
struct Read {
    verified: Verified,
    path: PathBuf,
    imported: Option<Imported>,
}

/// Verifies an archive of ours, or makes one of a dump that another program wrote.
async fn read(context: &Context, path: &Path, expected: Option<Expected>) -> anyhow::Result<Read> {
    let checked = {
        // Somebody waits for a restore: it need not be nice.
        let effort = Effort::full(context.config.effort.threads);
        let (path, control) = (path.to_owned(), context.control.clone());
        tokio::task::spawn_blocking(move || verify::database(&path, expected.as_ref(), &effort, &control)).await?
    };
    match checked {
        Ok(verified) => return Ok(Read { verified, path: path.to_owned(), imported: None }),
        Err(VerifyError::Foreign { .. }) => {}
        Err(error) => return Err(give_up(error)),
    }
    let imported = import(context, path).await?;
    Ok(Read { verified: imported.verified.clone(), path: imported.path(), imported: Some(imported) })
}

/// An archive of ours of a dump that another program wrote; it has no name, and goes with its value.
pub(crate) async fn import(context: &Context, path: &Path) -> anyhow::Result<Imported> {
    let scratch = paths::ensure_backup_dir(&backup_directory(context).await?)?.path;
    let (path, control, threads) = (path.to_owned(), context.control.clone(), context.config.effort.threads);
    let tag = Attempt { job_id: context.job_id, fence: context.fence }.tag();
    tokio::task::spawn_blocking(move || foreign::import(&path, &scratch, &tag, threads, &control)).await?.map_err(give_up)
}

/// Verifies the archive and looks at the server.
async fn draw_database(context: &Context, request: &RestorePlan, from: &Source) -> anyhow::Result<DatabasePlan> {
    let config = &context.config;
    let path = from.path.clone();
    let Read { verified, path: readable, imported } = read(context, &path, from.expected.clone()).await?;
    context.control.progress.phase("looking at the server", 0);
    let manifest = &verified.manifest;
    let database = manifest.database.clone().ok_or_else(|| give_up(anyhow!("the archive's manifest has no facts about a database")))?;
    let mut connection = config.application.connect_without_schema().await.context("application database")?;
    let server = Server::detect(&mut connection).await?;
    let live = request.into.is_none();
    let target = request.into.clone().unwrap_or_else(|| config.application.schema.clone());
    let mut look =
        Look { config, server: &server, connection: &mut connection, target: &target, refusals: Vec::new(), warnings: Vec::new() };

    look.fitness(request, &database).await?;
    look.privileges(live).await?;
    if !request.in_place {
        look.space(manifest).await;
    }
    let there = look.tables().await?;
    let code = if there.exists { stored_code::list(look.connection, &target).await? } else { Vec::new() };
    let mut relink = Vec::new();
    let mut elsewhere = Vec::new();
    if live {
        relink = look.foreign_keys(request).await?;
        elsewhere = cut_over::code_elsewhere(look.connection, &target).await?;
        if !elsewhere.is_empty() {
            look.warnings.push(format!("these name `{target}` and will see the restored tables: {}", elsewhere.join(", ")));
        }
    } else if !there.names.is_empty() || !code.is_empty() {
        let how_many = there.names.len() + code.len();
        look.refusals.push(format!("schema `{target}` exists and holds {how_many} objects. Next: choose a name that is free"));
    }
    let statements = {
        let (path, manifest) = (readable.clone(), manifest.clone());
        let kinds = [SectionKind::Triggers, SectionKind::View, SectionKind::Routines, SectionKind::Events];
        tokio::task::spawn_blocking(move || statements_of(&path, &manifest, &kinds)).await?.map_err(give_up)?
    };
    let definers = look.definers(&statements).await?;
    if live && imported.is_some() {
        look.left_out(&code, &database);
    }
    if !live {
        look.names_of_the_old(&statements, &database.schema);
    }
    let tables: Vec<(&str, u64)> =
        manifest.sections.iter().filter(|s| s.kind == "table").map(|s| (s.name.as_str(), s.rows.unwrap_or(0))).collect();
    let in_backup: BTreeSet<&str> = tables.iter().map(|(name, _)| *name).collect();
    let aside: Vec<&String> = there.names.iter().filter(|name| !in_backup.contains(name.as_str())).collect();
    let rows_of = |wanted: &str| tables.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, rows)| *rows);
    let transient: Vec<Value> = TRANSIENT.iter().filter(|t| rows_of(t) > 0).map(|t| json!({ "table": t, "rows": rows_of(t) })).collect();
    if live && !transient.is_empty() && !request.clear_transient {
        let names: Vec<String> =
            transient.iter().map(|t| format!("{} ({} rows)", t["table"].as_str().unwrap_or_default(), t["rows"])).collect();
        look.warnings.push(format!(
            "rows that act again once they are back (mails sent twice, old sign-ins): {}. --clear-transient empties these tables",
            names.join(", ")
        ));
    }
    let window = look.window(live, &code, &database);

    let warnings = std::mem::take(&mut look.warnings);
    let refusals = std::mem::take(&mut look.refusals);
    let evidence = json!({
        "archive": { "size": verified.size, "sha256": verified.sha256 },
        "server": [server.flavour.to_string(), server.server_uuid.clone().unwrap_or_default(), server.server_id.to_string()],
        "target": target,
        "tables": there.names,
        "code": code.iter().map(|(kind, name)| format!("{} {name}", kind.word())).collect::<Vec<_>>(),
        "foreign_keys": relink,
    });
    let facts = json!({
        "archive": from.name,
        "path": path,
        "foreign": imported.is_some(),
        "size": verified.size,
        "sha256": verified.sha256,
        "taken_at": manifest.taken_at,
        "from": { "schema": database.schema, "flavour": database.flavour, "version": database.server_version },
        "target": target,
        "into": request.into,
        "server": { "flavour": server.flavour.to_string(), "version": server.version },
        "backup": {
            "tables": database.tables, "views": database.views, "triggers": database.triggers, "routines": database.routines,
            "events": database.events, "rows": tables.iter().map(|(_, rows)| rows).sum::<u64>(), "sql_bytes": manifest.raw_size,
        },
        "replaces": { "tables": there.names.len(), "bytes": there.bytes, "code": code.len() },
        "moves_aside": aside,
        "foreign_keys": relink.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "names_the_schema": elsewhere,
        "unknown_definers": definers,
        "definers": "kept as the backup has them: what an unknown account defined works once that account exists",
        "transient": transient,
        "clear_transient": request.clear_transient,
        "window": window,
        "in_place": request.in_place,
        "atomic": (request.in_place).then_some(
            "in place: what is live is dropped and loaded anew, so it is incomplete until that is over, and stays so if it fails; a verified safety backup is taken first, and restoring that is the way back",
        ),
        "undo_hours": (live && !request.in_place).then_some(config.restore.undo_hours),
        "keeps": live.then_some("the settings of the group `backup` stay as they are"),
    });
    Ok(DatabasePlan {
        path: readable,
        imported,
        archive: from.name.clone(),
        target,
        live,
        relink,
        refusals,
        warnings,
        definers,
        evidence,
        facts,
        verified,
    })
}

/// What there is to see on the server, and what is wrong with it.
struct Look<'a> {
    config: &'a Config,
    server: &'a Server,
    connection: &'a mut MySqlConnection,
    target: &'a str,
    refusals: Vec<String>,
    warnings: Vec<String>,
}

/// What is in the target schema.
struct There {
    exists: bool,
    names: BTreeSet<String>,
    bytes: u64,
}

impl Look<'_> {
    async fn fitness(&mut self, request: &RestorePlan, database: &DatabaseFacts) -> anyhow::Result<()> {
        self.refusals.extend(cut_over::unfit(self.connection, self.server).await);
        let live = &self.config.application.schema;
        match &request.into {
            None if database.schema.is_empty() => self.refusals.push(format!(
                "the dump does not say which schema it holds, so it cannot be told that it is `{live}`. Next: restore it beside, with --into SCHEMA"
            )),
            None if &database.schema != live => self.refusals.push(format!(
                "the archive holds schema `{}`, and the application database is `{live}`. Next: restore it beside, with --into SCHEMA",
                database.schema
            )),
            Some(into) => {
                let ours = [self.config.control.schema.as_str(), "mysql", "sys", "information_schema", "performance_schema"];
                if ours.iter().any(|s| s.eq_ignore_ascii_case(into)) || into.starts_with(&self.config.schema_prefix) {
                    self.refusals.push(format!("schema `{into}` is not for restores. Next: choose another name"));
                }
            }
            None => {}
        }
        let flavour = self.server.flavour.to_string();
        if !database.flavour.is_empty() && database.flavour != flavour {
            self.warnings.push(format!(
                "the backup comes from {} {} and goes to {flavour} {}: what one of them does not know fails while it is loaded, before anything is changed",
                database.flavour, database.server_version, self.server.version
            ));
        }
        Ok(())
    }

    async fn privileges(&mut self, live: bool) -> anyhow::Result<()> {
        let privileges = Privileges::read(self.connection, self.server).await?;
        let stage = format!("{}stage_1", self.config.schema_prefix);
        for missing in missing_for_restore(&privileges, self.server, self.target, &stage, &self.config.schema_prefix, live) {
            let text = format!("the account lacks {missing}. Next: {}", missing.grant_statement);
            if missing.required { self.refusals.push(text) } else { self.warnings.push(text) }
        }
        Ok(())
    }

    /// The server's disk, where it is this host's.
    async fn space(&mut self, manifest: &Manifest) {
        let Some(directory) = self.server.variable("datadir").map(PathBuf::from).filter(|d| d.is_dir()) else { return };
        let local = self.config.application.socket.is_some() || ["localhost", "127.0.0.1", "::1"].contains(&&*self.config.application.host);
        let (true, Ok(free)) = (local, paths::free_bytes(&directory)) else { return };
        // Rows take about as much as their SQL, with indexes half as much again.
        let needed = manifest.raw_size + manifest.raw_size / 2;
        if free < needed {
            self.refusals.push(format!(
                "not enough space in {}: about {} are needed beside what is live, and {} are free. Next: free space there",
                directory.display(),
                size(needed),
                size(free)
            ));
        }
    }

    async fn tables(&mut self) -> anyhow::Result<There> {
        let exists = cut_over::schema_exists(self.connection, self.target).await?;
        let names = if exists { cut_over::tables(self.connection, self.target).await? } else { BTreeSet::new() };
        let bytes: Option<u64> = sqlx::query_scalar(
            "SELECT CAST(SUM(data_length + index_length) AS UNSIGNED) FROM information_schema.tables WHERE table_schema = ?",
        )
        .bind(self.target)
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(There { exists, names, bytes: bytes.unwrap_or(0) })
    }

    async fn foreign_keys(&mut self, request: &RestorePlan) -> anyhow::Result<Vec<ForeignKey>> {
        let found = cut_over::foreign_keys_from_elsewhere(self.connection, self.target).await?;
        let list = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match (found.is_empty(), request.relink) {
            (true, _) => {}
            _ if request.in_place => self.refusals.push(format!(
                "foreign keys of other schemas refer to `{}`, whose tables --in-place drops: {list}. Next: drop those keys first, or restore without --in-place, with --relink",
                self.target
            )),
            (_, true) => self.warnings.push(format!("these foreign keys are dropped and made again on the restored tables: {list}")),
            (_, false) => self.refusals.push(format!(
                "foreign keys of other schemas refer to `{}` and would stay with the replaced tables: {list}. Next: --relink makes them again on the restored ones",
                self.target
            )),
        }
        Ok(found)
    }

    /// Definers that the server does not know.
    async fn definers(&mut self, statements: &[String]) -> anyhow::Result<Vec<String>> {
        let accounts: BTreeSet<String> = statements.iter().filter_map(|s| stored_code::definer(s)).collect();
        let unknown = stored_code::unknown_accounts(self.connection, &accounts).await?;
        let Some(unknown) = unknown else {
            self.warnings.push(format!(
                "whether these definers exist cannot be seen (SELECT on mysql.user is missing): {}",
                accounts.into_iter().collect::<Vec<_>>().join(", ")
            ));
            return Ok(Vec::new());
        };
        if !unknown.is_empty() {
            self.warnings.push(format!(
                "these definers do not exist on the server: {}. What they defined is restored as it was, and works once they exist: CREATE USER",
                unknown.join(", ")
            ));
        }
        Ok(unknown)
    }

    /// Beside the live database, a text that names the old schema still means that one.
    fn names_of_the_old(&mut self, statements: &[String], old: &str) {
        let (quoted, plain) = (format!("`{old}`."), format!("{old}."));
        // ALTER DATABASE around code of another collation is the dump tool's, and is rewritten.
        // Views lose it while they are loaded.
        let naming = |s: &&String| {
            !s.contains("ALTER DATABASE")
                && (s.contains(&quoted) || s.contains(&plain))
                && !matches!(created(s), Some((ObjectKind::View, _)))
        };
        let found: Vec<String> = statements
            .iter()
            .filter(naming)
            .map(|s| s.split_whitespace().filter(|w| !w.starts_with("/*!")).take(6).collect::<Vec<_>>().join(" "))
            .collect();
        if !found.is_empty() {
            self.warnings.push(format!("these name `{old}` in their texts, and will still mean it: {}", found.join("; ")));
        }
    }

    /// mysqldump leaves routines and events out unless it is told otherwise.
    fn left_out(&mut self, code: &[(ObjectKind, String)], database: &DatabaseFacts) {
        use ObjectKind::{Event, Function, Package, PackageBody, Procedure};
        let routines = [Procedure, Function, Package, PackageBody];
        for (what, there, option, kinds) in
            [("routines", database.routines, "--routines", &routines[..]), ("events", database.events, "--events", &[Event])]
        {
            let live = code.iter().filter(|(kind, _)| kinds.contains(kind)).count();
            if there == 0 && live > 0 {
                self.warnings.push(format!(
                    "the dump has no {what}, and `{}` has {live}: they will be gone (was it made without {option}?); `enqueue undo` brings them back",
                    self.target
                ));
            }
        }
    }

    /// What MariaDB cannot close.
    fn window(&self, live: bool, code: &[(ObjectKind, String)], database: &DatabaseFacts) -> Option<String> {
        let triggers = code.iter().filter(|(kind, _)| *kind == ObjectKind::Trigger).count() as u64 + database.triggers;
        if !live || self.server.flavour != Flavour::MariaDb || triggers == 0 {
            return None;
        }
        Some(match self.config.restore.pre_hook.first() {
            None => "MariaDB cannot rename tables that have triggers, nor under LOCK TABLES: for a moment rows can be written without their triggers. Put the application into maintenance mode, or let BACKUP_PRE_RESTORE_HOOK and BACKUP_POST_RESTORE_HOOK do it".into(),
            Some(program) => format!("MariaDB cannot rename tables that have triggers: the window is closed by the hook {program}, if it stops all writers"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_checked() {
        let plan =
            |archive: &str, into: Option<&str>| RestorePlan { archive: archive.into(), into: into.map(Into::into), ..Default::default() };
        assert!(plan("a.sql.gz", None).validate().is_ok());
        assert!(plan(" ", None).validate().unwrap_err().contains("archive"));
        assert!(plan("a", Some("")).validate().unwrap_err().contains("into"));
        assert!(RestorePlan { relink: true, ..plan("a", Some("b")) }.validate().is_err());
    }
}
