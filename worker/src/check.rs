//! `worker check`: the effective configuration, and whether it works, before anybody depends on it.

use engine::{
    identity::identity,
    paths,
    privileges::{Privileges, missing_for_dump, missing_for_restore},
    server::{Flavour, Server, ServerConfig},
    tools::Tool,
};
use jobs::{
    backup::directories,
    config::{Config, mail::MailConfig},
    job::explain,
    migrate,
    notify::mail::probe,
    settings::Settings,
};
use serde::Serialize;
use sqlx::MySqlConnection;

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Backups work, and a person should look at it.
    Warning,
    /// Backups would fail, or be incomplete.
    Error,
}

/// One finding.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) subject: &'static str,
    /// What was found, and the next step.
    pub(crate) text: String,
}

/// The findings so far.
#[derive(Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, subject: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level, subject, text: text.into() });
    }

    fn error(&mut self, subject: &'static str, error: impl Into<anyhow::Error>) {
        self.add(Level::Error, subject, explain(&error.into()));
    }

    /// The worst of them.
    pub(crate) fn worst(&self) -> Level {
        self.0.iter().map(|f| f.level).max().unwrap_or(Level::Ok)
    }
}

/// The effective configuration, without secrets.
pub(crate) fn effective(config: &Config) -> Vec<(&'static str, String)> {
    let server = |s: &ServerConfig| {
        let password = if s.password.is_some() { "with a password" } else { "without a password" };
        format!("schema `{}` as {} ({password})", s.schema, s.target())
    };
    let path = |p: &Option<std::path::PathBuf>| p.as_ref().map_or_else(|| "not set".to_owned(), |p| p.display().to_string());
    vec![
        ("control schema", server(&config.control)),
        ("application database", server(&config.application)),
        ("drills", config.scratch.as_ref().map_or_else(|| "on the application's server".to_owned(), |s| format!("as {}", s.target()))),
        ("application root", path(&config.root)),
        ("uploads", path(&config.uploads)),
        ("backup directory", format!("{} (where the setting backup_path is empty)", path(&config.backups))),
        ("node", config.node.clone()),
        ("time zone", config.timezone.to_string()),
        ("client tools", config.tools_dir.as_ref().map_or_else(|| "from PATH".to_owned(), |p| p.display().to_string())),
        (
            "effort",
            format!(
                "{} compressing threads, nice {}, {}",
                config.effort.threads,
                config.effort.nice,
                config
                    .effort
                    .max_rate
                    .map_or_else(|| "no limit".to_owned(), |rate| format!("at most {} per second", jobs::units::size(rate.get())))
            ),
        ),
        (
            "mail",
            match &config.mail {
                MailConfig::Off(_) => "off".to_owned(),
                MailConfig::Smtp(smtp) => format!("by {}:{}", smtp.host, smtp.port),
            },
        ),
        ("lease", format!("{} s", config.timing.lease.as_secs())),
        ("history", if config.history_days == 0 { "kept for ever".to_owned() } else { format!("{} days", config.history_days) }),
    ]
}

/// Tests all of it. Changes nothing.
pub(crate) async fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let mut control = connect(&mut findings, "control schema", &config.control).await;
    if let Some(control) = &mut control {
        match migrate::pending(control).await {
            Ok(0) => findings.add(Level::Ok, "control schema", "connected, and up to date"),
            Ok(n) => findings.add(Level::Error, "control schema", format!("{n} migrations are missing. Next: run `worker migrate`")),
            Err(error) => findings.add(Level::Error, "control schema", format!("it is not readable: {error}. Next: run `worker migrate`")),
        }
    }
    let mut application = connect(&mut findings, "application database", &config.application).await;
    if let Some(connection) = &mut application {
        match Server::detect(connection).await {
            Ok(server) => database(config, connection, &server, &mut findings).await,
            Err(error) => findings.error("application database", error),
        }
    }
    if let Some(scratch) = &config.scratch {
        match scratch.connect_without_schema().await {
            Ok(_) => findings.add(Level::Ok, "drills", format!("connected to {}", scratch.target())),
            Err(error) => findings.error("drills", error),
        }
    }
    let settings = match (&mut application, &mut control) {
        (Some(application), Some(control)) => match Settings::read(application, control).await {
            Ok(settings) => settings,
            Err(error) => {
                findings.error("settings", error);
                Settings::default()
            }
        },
        _ => Settings::default(),
    };
    files(config, &settings, &mut findings);
    mail(config, &mut findings).await;
    findings
}

async fn connect(findings: &mut Findings, subject: &'static str, config: &ServerConfig) -> Option<MySqlConnection> {
    match config.connect().await {
        Ok(connection) => Some(connection),
        Err(error) => {
            findings.error(subject, error);
            None
        }
    }
}

async fn database(config: &Config, connection: &mut MySqlConnection, server: &Server, findings: &mut Findings) {
    let subject = "application database";
    findings.add(Level::Ok, subject, format!("connected to {} {}", server.flavour, server.version));
    if server.read_only {
        findings.add(Level::Error, subject, "the server is read_only, so nothing can be restored to it. Next: point HERATIO_DATABASE_URL at the one server that takes writes");
    }
    // MariaDB 10.5 and MySQL 8.0.22 know this spelling; without the privilege to ask, nothing is said.
    if let Ok(sources) = sqlx::raw_sql("SHOW REPLICA STATUS").fetch_all(&mut *connection).await
        && !sources.is_empty()
    {
        findings.add(
            Level::Error,
            subject,
            "the server is a replica: its binary logs are not those of the writer. Next: point HERATIO_DATABASE_URL at the writer",
        );
    }
    for variable in ["wsrep_on", "group_replication_group_name"] {
        if server.variable(variable).is_some_and(|v| !v.is_empty() && !v.eq_ignore_ascii_case("off") && v != "0") {
            findings.add(Level::Error, subject, format!("the server is a member of a cluster ({variable}): its binary logs and locks are not those of one writer. Next: back up a cluster's one writer, or an asynchronous replica of it"));
        }
    }
    match Privileges::read(connection, server).await {
        Ok(privileges) => {
            let missing = missing_for_dump(&privileges, server, &config.application.schema, server.log_bin);
            for m in &missing {
                let level = if m.required { Level::Error } else { Level::Warning };
                findings.add(level, "privileges", format!("{m}. Next: {}", m.grant_statement));
            }
            if missing.is_empty() {
                findings.add(Level::Ok, "privileges", format!("{} may dump all of `{}`", server.account, config.application.schema));
            }
            // Without them backups are made all the same.
            let stage = format!("{}stage_1", config.schema_prefix);
            let schema = &config.application.schema;
            let missing = missing_for_restore(&privileges, server, schema, &stage, &config.schema_prefix, true);
            for m in &missing {
                findings.add(Level::Warning, "restoring", format!("{m}. Next: {}", m.grant_statement));
            }
            if missing.is_empty() {
                findings.add(Level::Ok, "restoring", format!("{} may replace `{schema}`", server.account));
            }
        }
        Err(error) => findings.error("privileges", error),
    }
    match identity(connection, server, &config.meta_schema()).await {
        Ok(uuid) => findings.add(Level::Ok, "server identity", uuid),
        Err(error) => findings.error("server identity", error),
    }
    binlog(server, findings);
    for tool in [Tool::Dump, Tool::Client] {
        match tool.find(server.flavour, config.tools_dir.as_deref()).await {
            Ok(found) => findings.add(Level::Ok, "client tools", format!("{}: {}", found.path.display(), found.version)),
            // The client is for people: our own restore will not need it.
            Err(error) if matches!(tool, Tool::Dump) => findings.error("client tools", error),
            Err(error) => findings.add(Level::Warning, "client tools", error.to_string()),
        }
    }
}

fn binlog(server: &Server, findings: &mut Findings) {
    let subject = "binary log";
    if !server.log_bin {
        return findings.add(
            Level::Warning,
            subject,
            "off: backups work, recovery to a point in time does not. Next: set log_bin and server_id, and restart the server",
        );
    }
    if !server.binlog_format.eq_ignore_ascii_case("ROW") {
        findings.add(Level::Warning, subject, format!("binlog_format is {}, and only ROW can be replayed exactly. Next: SET GLOBAL binlog_format = 'ROW', and in the server's configuration", server.binlog_format));
    } else {
        findings.add(Level::Ok, subject, "on, in ROW format");
    }
    let days = match server.flavour {
        Flavour::MySql => server.variable("binlog_expire_logs_seconds").and_then(|s| s.parse::<f64>().ok()).map(|s| s / 86_400.0),
        Flavour::MariaDb => server.variable("expire_logs_days").and_then(|d| d.parse().ok()),
    };
    if days.is_some_and(|d| d > 0.0 && d < 3.0) {
        findings.add(
            Level::Warning,
            subject,
            format!("the server deletes its logs after {} days: a weekend without archiving leaves a hole", days.unwrap_or_default()),
        );
    }
}

/// Without mail, backups are made and nobody is told of their end but in Heratio: nothing that fails.
async fn mail(config: &Config, findings: &mut Findings) {
    let (level, text) = match &config.mail {
        MailConfig::Off(why) => (Level::Warning, format!("off: {why}. Next: set it, or look at the notices in Heratio alone")),
        MailConfig::Smtp(smtp) => match probe(smtp).await {
            Ok(()) => (Level::Ok, format!("{}:{} lets us in", smtp.host, smtp.port)),
            Err(error) => (Level::Warning, format!("{}. Next: correct the MAIL_* variables", explain(&error.into()))),
        },
    };
    findings.add(level, "mail", text);
}

fn files(config: &Config, settings: &Settings, findings: &mut Findings) {
    for (component, directory) in directories(config) {
        match directory.map(|d| (std::fs::read_dir(&d), d)) {
            Ok((Ok(_), directory)) => findings.add(Level::Ok, component.as_str(), directory.display().to_string()),
            Ok((Err(error), directory)) => findings.add(
                Level::Error,
                component.as_str(),
                format!(
                    "cannot read {}: {error}. Next: correct HERATIO_ROOT or HERATIO_UPLOADS_PATH, or see that its file system is mounted",
                    directory.display()
                ),
            ),
            Err(error) => findings.error(component.as_str(), error),
        }
    }
    let subject = "backup directory";
    let directory = match jobs::backup::checked_directory(config, settings) {
        Ok(directory) => directory,
        Err(error) => return findings.error(subject, error),
    };
    if !directory.exists() {
        findings.add(Level::Ok, subject, format!("{} will be made by the first backup", directory.display()));
    } else {
        match paths::ensure_backup_dir(&directory) {
            Ok(dir) => {
                findings.add(Level::Ok, subject, format!("{} can be written", dir.path.display()));
                if let Some(warning) = dir.warning {
                    findings.add(Level::Warning, subject, warning);
                }
            }
            Err(error) => findings.error(subject, error),
        }
    }
    match paths::free_bytes(&directory) {
        Ok(bytes) => findings.add(Level::Ok, subject, format!("{:.1} GB are free", bytes as f64 / 1e9)),
        Err(error) => findings.error(subject, error),
    }
}
