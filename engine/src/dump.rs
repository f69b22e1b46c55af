//! Dumps a schema into an archive: one snapshot, complete, with its place in the binary log.
//!
//! The rows come from our own dumper (`dump/native.rs`), or from mysqldump or mariadb-dump (`dump/tool.rs`), whatever the
//! server's flavour asks for; everything that makes a dump trustworthy is around either, here.

mod error;
mod locks;
mod native;
pub(crate) mod pump;
mod tool;

use crate::{
    control::Control,
    effort::Effort,
    fingerprint::{Change, Depth, Fingerprint},
    identity,
    manifest::{Coordinates, DatabaseFacts, Section},
    privileges::{self, Privileges},
    section_writer::SectionWriter,
    server::{Flavour, Server, ServerConfig},
    sql_scan::ObjectKind,
    tools::Tool,
};
use chrono::{DateTime, Utc};
pub use error::DumpError;
use locks::DdlLock;
use pump::Content;
use std::{path::PathBuf, str::FromStr, time::Duration};
use tool::Outcome;

/// Who reads the rows and writes the SQL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dumper {
    /// We do, on several sessions.
    #[default]
    Native,
    /// mysqldump, or mariadb-dump. Checksums of tables are unknown then.
    Tool,
}

impl FromStr for Dumper {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "native" => Ok(Self::Native),
            "mysqldump" => Ok(Self::Tool),
            _ => Err(format!("{text:?} is no dumper: use native or mysqldump")),
        }
    }
}

/// What to dump, and how.
#[derive(Debug, Clone)]
pub struct DumpConfig {
    /// Who dumps.
    pub dumper: Dumper,
    /// Sessions that read at once; at least one. The dump tools have one.
    pub connections: usize,
    /// The server, and the schema to dump.
    pub server: ServerConfig,
    /// Where to look for the client tools before PATH.
    pub tools_dir: Option<PathBuf>,
    /// What the names of our own schemas begin with; the server's identity is in the one that ends with "meta".
    pub schema_prefix: String,
    /// How long to wait for a lock before giving up with the session in the way named.
    pub lock_wait: Duration,
    /// Size of the last dump in bytes, to show progress by; else the server's statistics serve.
    pub expected_bytes: Option<u64>,
    /// How hard to work.
    pub effort: Effort,
    /// Keep others from changing definitions while dumping. For the last attempt: their DDL waits for the whole dump.
    pub block_ddl: bool,
}

/// What is known of a dump.
#[derive(Debug, Clone)]
pub struct Dump {
    /// When the snapshot had been taken, by the server's clock, UTC; never before it.
    pub taken_at: DateTime<Utc>,
    /// Facts for the manifest.
    pub facts: DatabaseFacts,
    /// The dump's parts, each beginning where the archive was cut.
    pub sections: Vec<Section>,
    /// What a person should know although the dump is good.
    pub warnings: Vec<String>,
}

/// Dumps the schema into `writer`, which comes back for its manifest; after a failure it has been dropped.
///
/// Fails before any work when the account would not see everything, and afterwards when anything is missing from the dump,
/// the tool did not end well, or a definition changed meanwhile. Cancelled within about a second.
pub async fn dump<W>(config: &DumpConfig, writer: W, control: &Control) -> Result<(W, Dump), DumpError>
where
    W: SectionWriter + Send + 'static,
{
    tokio::select! {
        // Where a cancel must also stop a tool or a waiting session, it is seen to further down, and comes first there.
        biased;
        result = steps(config, writer, control) => result,
        () = cancelled_for_long(control) => Err(DumpError::Cancelled),
    }
}

/// A question to a server that has stopped answering must not outlive a cancel.
async fn cancelled_for_long(control: &Control) {
    control.cancel.cancelled().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

async fn steps<W>(config: &DumpConfig, writer: W, control: &Control) -> Result<(W, Dump), DumpError>
where
    W: SectionWriter + Send + 'static,
{
    let schema = &config.server.schema;
    control.progress.phase(format!("preparing to dump database `{schema}`"), 0);
    let mut conn = locks::session(&config.server, config.lock_wait).await?;
    let server = Server::detect(&mut conn).await?;
    let privileges = Privileges::read(&mut conn, &server).await?;
    let mut lacking = privileges::missing_for_dump(&privileges, &server, schema, server.log_bin);
    if config.dumper == Dumper::Native && (server.gtid || privileges.has("LOCK TABLES", schema)) {
        // There are other ways to tie snapshot and position together.
        lacking.iter_mut().filter(|m| m.privilege == "FLUSH_TABLES").for_each(|m| m.required = false);
    }
    let (missing, useful): (Vec<_>, Vec<_>) = lacking.into_iter().partition(|m| m.required);
    if !missing.is_empty() {
        return Err(DumpError::MissingPrivileges { account: server.account.clone(), schema: schema.clone(), missing });
    }
    let tool = match config.dumper {
        Dumper::Native => None,
        Dumper::Tool => Some(Tool::Dump.find(server.flavour, config.tools_dir.as_deref()).await?),
    };
    let depth = match tool {
        Some(_) => Depth::Whole,
        None => Depth::Listed,
    };
    let server_uuid = match server.log_bin {
        true => identity::identity(&mut conn, &server, &format!("{}meta", config.schema_prefix)).await?,
        false => String::new(),
    };

    let mut warnings = vec![];
    let (mut ddl_lock, mut lock_after_snapshot) = (None, false);
    if config.block_ddl {
        let lacks = |name: &str| useful.iter().find(|m| m.privilege == name);
        match lacks("BACKUP_ADMIN").or_else(|| lacks("RELOAD")) {
            // MySQL's would meet the tool's FLUSH TABLES WITH READ LOCK: a CREATE or ALTER that waits for it is what the
            // FLUSH then waits for, and everybody's writes behind that. So there it is taken after the snapshot.
            None if server.flavour == Flavour::MySql => lock_after_snapshot = true,
            None => ddl_lock = Some(DdlLock::take(&config.server, &server, &mut conn, config.lock_wait, control).await?),
            Some(lacking) => warnings.push(format!("others could change definitions during the dump: the account lacks {lacking}")),
        }
    }
    let before = match Fingerprint::settled_to(&mut conn, schema, depth).await {
        Ok(before) => before,
        Err(error) => return Err(locks::explain(error, &mut conn, &server, config.lock_wait).await),
    };
    warnings.extend(warnings_of(&server, &before));
    if server.flavour == Flavour::MySql && server.log_bin {
        locks::wait_for_quiet(&mut conn, config.lock_wait, control).await?;
    }
    drop(conn);
    if control.cancel.is_cancelled() {
        return Err(DumpError::Cancelled);
    }

    control.progress.phase(format!("dumping database `{schema}`"), config.expected_bytes.unwrap_or(before.data_length));
    let version = tool.as_ref().map_or_else(native::version, |tool| tool.version.clone());
    let (writer, outcome, _ddl_lock) = if let Some(tool) = &tool {
        match tool::run(config, &server, tool, &before, (ddl_lock, lock_after_snapshot), writer, control).await {
            Ok(ran) => ran,
            Err(tool::Failure::Dump(error)) => return Err(error),
            Err(tool::Failure::Tool(exit)) => {
                let changes = changes_since(config, &server, &before, depth).await.unwrap_or_default();
                return Err(DumpError::from_failure(&exit, &version, &changes));
            }
        }
    } else {
        let job = native::Job { config, server: &server, privileges: &privileges, fingerprint: &before, lock_after_snapshot };
        match native::run(&job, ddl_lock, writer, control).await {
            Ok(ran) => ran,
            Err(native::Failure::Dump(error)) => return Err(error),
            Err(native::Failure::Native(error, blockers)) => {
                let changes = changes_since(config, &server, &before, depth).await.unwrap_or_default();
                return Err(native::explain(error, &changes, config.lock_wait, blockers));
            }
        }
    };
    // The lock is held until the definitions have been read again.
    let changes = changes_since(config, &server, &before, depth).await?;
    if !changes.is_empty() {
        return Err(DumpError::DdlChanged { changes: changes.iter().map(Change::to_string).collect() });
    }
    complete(&outcome.content, &before, &version)?;
    let (taken_at, facts, sections) = facts(config, &server, server_uuid, version, outcome)?;
    Ok((writer, Dump { taken_at, facts, sections, warnings }))
}

/// What a person should know although the dump is good.
fn warnings_of(server: &Server, fingerprint: &Fingerprint) -> Vec<String> {
    let mut warnings = vec![];
    if !server.log_bin {
        warnings.push("the server writes no binary log: point-in-time recovery from this backup is impossible".to_owned());
    } else if server.binlog_format != "ROW" {
        let format = &server.binlog_format;
        warnings.push(format!("binlog_format is {format}, not ROW: point-in-time recovery refuses statements that change rows"));
    }
    for (table, engine) in &fingerprint.not_transactional {
        let engine = if engine.is_empty() { "no engine" } else { engine };
        warnings.push(format!("table `{table}` ({engine}) has no transactions: its rows are not part of the snapshot"));
    }
    warnings
}

/// Definitions that differ from those before, read by a session of its own: hours may have passed.
async fn changes_since(config: &DumpConfig, server: &Server, before: &Fingerprint, depth: Depth) -> Result<Vec<Change>, DumpError> {
    let mut conn = locks::session(&config.server, config.lock_wait).await?;
    match Fingerprint::take_to(&mut conn, &config.server.schema, depth).await {
        Ok(after) => Ok(before.diff(&after)),
        Err(error) => Err(locks::explain(error, &mut conn, server, config.lock_wait).await),
    }
}

/// Every object that the schema has must be in the dump, whatever the tool's exit status says.
fn complete(content: &Content, fingerprint: &Fingerprint, tool: &str) -> Result<(), DumpError> {
    let missing: Vec<_> = fingerprint
        .objects()
        .filter(|object| !content.created.contains(object))
        .map(|(kind, name)| format!("{} `{name}`", kind.word()))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(DumpError::Incomplete { tool: tool.to_owned(), missing }),
    }
}

fn facts(
    config: &DumpConfig,
    server: &Server,
    server_uuid: String,
    tool: String,
    outcome: Outcome,
) -> Result<(DateTime<Utc>, DatabaseFacts, Vec<Section>), DumpError> {
    use ObjectKind::{Event, Function, Package, PackageBody, Procedure, Sequence, Table, Trigger, View};
    let Outcome { content, taken_at, gtids } = outcome;
    let counts = [&[Table, Sequence][..], &[View], &[Trigger], &[Procedure, Function, Package, PackageBody], &[Event]];
    let [tables, views, triggers, routines, events] = counts.map(|kinds| content.count(kinds));
    let no_position = || DumpError::NoPosition { tool: tool.clone() };
    let coordinates = match (server.log_bin, content.position) {
        (false, _) => None,
        (true, None) => return Err(no_position()),
        (true, Some((binlog_file, binlog_pos))) => Some(Coordinates {
            binlog_file,
            binlog_pos,
            gtid_set: match content.gtids.or(gtids) {
                Some(set) => set,
                None if server.flavour == Flavour::MySql && server.gtid => return Err(no_position()),
                None => String::new(),
            },
            binlog_format: server.binlog_format.clone(),
            server_uuid,
            server_id: server.server_id,
        }),
    };
    let facts = DatabaseFacts {
        schema: config.server.schema.clone(),
        flavour: server.flavour.to_string(),
        server_version: server.version.clone(),
        tool: tool.clone(),
        coordinates,
        tables,
        views,
        triggers,
        routines,
        events,
    };
    Ok((taken_at, facts, content.sections))
}
