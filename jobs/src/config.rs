//! Configuration, read once at start from the environment and an optional dotenv file, into types.
//!
//! | variable | meaning |
//! |---|---|
//! | `BACKUP_DATABASE_URL` | control schema, `mysql://user:password@host/heratio_backup` |
//! | `HERATIO_DATABASE_URL`, else `DB_URL`, `DATABASE_URL`, else `DB_HOST`, `DB_PORT`, `DB_SOCKET`, `DB_DATABASE`, `DB_USERNAME`, `DB_PASSWORD` | application database |
//! | `BACKUP_SCRATCH_DATABASE_URL` | server for drills, `mysql://heratio_drill:password@host` (default: the application's); its account needs no right on the application database |
//! | `HERATIO_ROOT` | application root; its `packages` directory is the packages component |
//! | `HERATIO_UPLOADS_PATH` | uploads component (default `{HERATIO_ROOT}/uploads`) |
//! | `HERATIO_BACKUPS_PATH` | backup directory, where the setting `backup_path` is empty |
//! | `BACKUP_NODE` | this host's name as a node (default: its host name) |
//! | `BACKUP_TIMEZONE` | zone in which times are shown and read (default `UTC`) |
//! | `BACKUP_TOOLS_DIR` | directory of the client tools, looked in before `PATH` |
//! | `BACKUP_DUMPER` | who dumps the database: `native` (the default) or `mysqldump`, the server's own tool |
//! | `BACKUP_THREADS` | compressing threads, and up to 4 sessions that read the database (default: the host's cores, at most 8) |
//! | `BACKUP_NICE` | niceness of backup's own threads and of the dump tool, 0 to 19 (default 10) |
//! | `BACKUP_MAX_RATE` | bytes of input that a backup reads per second, also as `20M` (default: no limit) |
//! | `BACKUP_LOCK_WAIT` | seconds to wait for the dump's first lock (default 20): the application's writes wait meanwhile |
//! | `BACKUP_LEASE` | seconds of a job's lease (default 120, at least 2) |
//! | `BACKUP_POLL_MS` | milliseconds between looks for work (default 500) |
//! | `BACKUP_SHUTDOWN_GRACE` | seconds that running jobs may go on after SIGTERM (default 20) |
//! | `BACKUP_RETRY_DELAY` | seconds before the second attempt (default: the kind's own) |
//! | `BACKUP_SCHEMA_PREFIX` | prefix of schemas that we make on the application server (default `heratio_bk_`) |
//! | `APP_URL` | Heratio's own address, for links in notifications |
//! | `BACKUP_SPOOL_DIR` | where notifications are spooled, if it exists (default `/var/spool/workbench/notifications`) |
//! | `BACKUP_DISK_ALERT_PERCENT` | how full the backup directory's disk may be before people are told (default 90; 0: never) |
//! | `BACKUP_MAX_AGE_HOURS` | how old the newest database backup may be before people are told (default 26; 0: never) |
//! | `BACKUP_HISTORY_DAYS` | days for which ended jobs stay in the history (default 400; 0: for ever) |
//! | `BACKUP_UNDO_HOURS` | hours for which what a restore replaced is kept (default 24) |
//! | `BACKUP_CUT_OVER_WAIT` | seconds that a restore waits for others' locks at a time (default 5); it tries three times |
//! | `BACKUP_PRE_RESTORE_HOOK`, `BACKUP_POST_RESTORE_HOOK` | program and arguments, without a shell, run before and after the live database is replaced |
//! | `BACKUP_HOOK_SECONDS` | longest run of such a program (default 60) |
//! | `BACKUP_KEEP_DAILY`, `BACKUP_KEEP_WEEKLY`, `BACKUP_KEEP_MONTHLY`, `BACKUP_KEEP_YEARLY` | of how many days, weeks, months, years the newest good backup is kept, whatever the settings say (default 0) |
//! | `MAIL_*` | see [`mail`] |
//!
//! Every secret, and every URL that holds one, has a `_FILE` variant that names a file with the value.

pub mod mail;

use crate::queue::backend::Timing;
use engine::{
    dump::Dumper,
    effort::Effort,
    server::{ServerConfig, Tls},
};
use mail::MailConfig;
use percent_encoding::percent_decode_str;
use std::{
    collections::HashMap,
    num::NonZeroU64,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// What is wrong with the configuration; nothing has been done yet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A variable that is needed.
    #[error("missing environment variable {variable}: {why}")]
    Missing {
        /// Its name.
        variable: String,
        /// What it is for.
        why: &'static str,
    },
    /// A variable whose value does not fit. The value of a secret is not shown.
    #[error("environment variable {variable}: {reason}")]
    Invalid {
        /// Its name.
        variable: String,
        /// What was expected.
        reason: String,
    },
    /// The dotenv file.
    #[error("cannot read the environment file {path}: {reason}")]
    EnvFile {
        /// The file.
        path: String,
        /// The system's or the parser's word.
        reason: String,
    },
}

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Control schema.
    pub control: ServerConfig,
    /// Application database.
    pub application: ServerConfig,
    /// Server for drills; none: the application's. Its schema is not used.
    pub scratch: Option<ServerConfig>,
    /// Application root.
    pub root: Option<PathBuf>,
    /// Uploads component.
    pub uploads: Option<PathBuf>,
    /// Backup directory where the setting is empty.
    pub backups: Option<PathBuf>,
    /// This host as a node.
    pub node: String,
    /// Zone of times at the edges.
    pub timezone: chrono_tz::Tz,
    /// Where client tools are looked for first.
    pub tools_dir: Option<PathBuf>,
    /// Who dumps the database.
    pub dumper: Dumper,
    /// How hard a backup works.
    pub effort: Effort,
    /// Longest wait for the dump's first lock.
    pub lock_wait: Duration,
    /// The queue's timing.
    pub timing: Timing,
    /// Prefix of schemas that we make on the application server.
    pub schema_prefix: String,
    /// Heratio's own address, without a slash at its end.
    pub app_url: Option<String>,
    /// How mail leaves.
    pub mail: MailConfig,
    /// Where notifications are spooled, if it exists.
    pub spool_dir: PathBuf,
    /// How full the backup directory's disk may be, in percent; 0: not looked at.
    pub disk_alert_percent: u8,
    /// How old the newest database backup may be, in hours; 0: not looked at.
    pub max_age_hours: u32,
    /// For how many days ended jobs stay in the history; 0: for ever.
    pub history_days: u32,
    /// How restores replace the live database.
    pub restore: RestoreConfig,
    /// What retention keeps besides.
    pub keep: Keep,
}

/// How restores replace the live database.
#[derive(Debug, Clone)]
pub struct RestoreConfig {
    /// For how many hours what was replaced is kept.
    pub undo_hours: u32,
    /// How long others' locks are waited for at a time.
    pub wait: Duration,
    /// Program and arguments to run before; empty: none.
    pub pre_hook: Vec<String>,
    /// The same for afterwards.
    pub post_hook: Vec<String>,
    /// Longest run of each.
    pub hook_time: Duration,
}

impl RestoreConfig {
    fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let hook = |name: &str| -> Result<Vec<String>, ConfigError> {
            let words: Vec<String> = env.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
            match words.first() {
                Some(program) if !Path::new(program).is_absolute() => Err(invalid(name, format!("`{program}` is not an absolute path"))),
                _ => Ok(words),
            }
        };
        let undo_hours = env.number("BACKUP_UNDO_HOURS", 24u32, 0)?;
        if undo_hours > 24 * 3650 {
            return Err(invalid("BACKUP_UNDO_HOURS", format!("`{undo_hours}` is more than ten years")));
        }
        Ok(Self {
            undo_hours,
            wait: Duration::from_secs(env.number("BACKUP_CUT_OVER_WAIT", 5, 1)?),
            pre_hook: hook("BACKUP_PRE_RESTORE_HOOK")?,
            post_hook: hook("BACKUP_POST_RESTORE_HOOK")?,
            hook_time: Duration::from_secs(env.number("BACKUP_HOOK_SECONDS", 60, 1)?),
        })
    }
}

/// Of how many periods the newest good backup is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Keep {
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

/// The environment as the programs see it: the process's variables, then the dotenv file's.
pub struct Env(HashMap<String, String>);

impl Env {
    /// Reads the process's variables and `file` (or the file that `BACKUP_ENV_FILE` names). Variables of the process win, as in Laravel.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut values = HashMap::new();
        let named = std::env::var_os("BACKUP_ENV_FILE").map(PathBuf::from);
        if let Some(path) = file.or(named.as_deref()) {
            let failed = |reason: String| ConfigError::EnvFile { path: path.display().to_string(), reason };
            for item in dotenvy::from_path_iter(path).map_err(|e| failed(e.to_string()))? {
                // The parser's error quotes the line, which may hold a password.
                let (name, value) = item.map_err(|e| match e {
                    dotenvy::Error::LineParse(_, at) => {
                        failed(format!("a line cannot be parsed (at its character {at}); quote values with spaces or #"))
                    }
                    other => failed(other.to_string()),
                })?;
                values.insert(name, value);
            }
        }
        values.extend(std::env::vars());
        Ok(Self(values))
    }

    /// For tests: exactly these.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// A variable; empty is unset, as in Laravel's `.env` files.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A variable, or the content of the file that `{name}_FILE` names, without its last line break.
    pub fn secret(&self, name: &str) -> Result<Option<String>, ConfigError> {
        if let Some(value) = self.get(name) {
            return Ok(Some(value.to_owned()));
        }
        let variable = format!("{name}_FILE");
        let Some(path) = self.get(&variable) else { return Ok(None) };
        let text =
            std::fs::read_to_string(path).map_err(|e| ConfigError::Invalid { variable, reason: format!("cannot read {path}: {e}") })?;
        Ok(Some(text.strip_suffix('\n').map_or(&*text, |t| t.strip_suffix('\r').unwrap_or(t)).to_owned()))
    }

    fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        match self.get(name).map(PathBuf::from) {
            Some(path) if !path.is_absolute() => Err(invalid(name, format!("`{}` is not an absolute path", path.display()))),
            path => Ok(path),
        }
    }

    fn number<T: FromStr + PartialOrd + std::fmt::Display>(&self, name: &str, default: T, least: T) -> Result<T, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        match text.parse() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(invalid(name, format!("`{text}` is not a whole number of at least {least}"))),
        }
    }
}

fn invalid(variable: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { variable: variable.into(), reason: reason.into() }
}

impl Config {
    /// Reads everything, and names the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let root = env.path("HERATIO_ROOT")?;
        let uploads = env.path("HERATIO_UPLOADS_PATH")?.or_else(|| root.as_ref().map(|r| r.join("uploads")));
        let node = match env.get("BACKUP_NODE") {
            Some(node) => node.to_owned(),
            None => hostname::get()
                .ok()
                .and_then(|h| h.into_string().ok())
                .ok_or_else(|| invalid("BACKUP_NODE", "this host's name cannot be read: set the variable"))?,
        };
        check_node(&node)?;
        let timezone = env.get("BACKUP_TIMEZONE").unwrap_or("UTC");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let prefix = env.get("BACKUP_SCHEMA_PREFIX").unwrap_or("heratio_bk_").to_owned();
        if prefix.len() < 4 || prefix.len() > 32 || !prefix.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(invalid("BACKUP_SCHEMA_PREFIX", format!("`{prefix}` is not 4 to 32 lower-case letters, digits or underscores")));
        }
        let disk_alert_percent = env.number("BACKUP_DISK_ALERT_PERCENT", 90u8, 0)?;
        if disk_alert_percent > 100 {
            return Err(invalid("BACKUP_DISK_ALERT_PERCENT", format!("`{disk_alert_percent}` is more than 100 percent")));
        }
        let history_days = env.number("BACKUP_HISTORY_DAYS", 400u32, 0)?;
        if history_days > 36_500 {
            return Err(invalid("BACKUP_HISTORY_DAYS", format!("`{history_days}` is more than 36500 days; 0 keeps the history for ever")));
        }
        let config = Self {
            control: control(env)?,
            application: application(env)?,
            scratch: scratch(env)?,
            root,
            uploads,
            backups: env.path("HERATIO_BACKUPS_PATH")?,
            mail: MailConfig::from_env(env, &node)?,
            node,
            timezone: timezone
                .parse()
                .map_err(|_| invalid("BACKUP_TIMEZONE", format!("`{timezone}` is not a time zone such as UTC or Africa/Johannesburg")))?,
            tools_dir: env.path("BACKUP_TOOLS_DIR")?,
            dumper: env.get("BACKUP_DUMPER").map_or(Ok(Dumper::default()), str::parse).map_err(|e| invalid("BACKUP_DUMPER", e))?,
            effort: Effort { threads: env.number("BACKUP_THREADS", cores.min(8), 1)?, nice: nice(env)?, max_rate: max_rate(env)? },
            lock_wait: Duration::from_secs(env.number("BACKUP_LOCK_WAIT", 20, 1)?),
            timing: Timing {
                lease: Duration::from_secs(env.number("BACKUP_LEASE", 120, 2)?),
                poll: Duration::from_millis(env.number("BACKUP_POLL_MS", 500, 10)?),
                grace: Duration::from_secs(env.number("BACKUP_SHUTDOWN_GRACE", 20, 0)?),
                retry_delay: env
                    .get("BACKUP_RETRY_DELAY")
                    .map(|_| env.number("BACKUP_RETRY_DELAY", 0, 0))
                    .transpose()?
                    .map(Duration::from_secs),
            },
            schema_prefix: prefix,
            app_url: env.get("APP_URL").map(|u| u.trim_end_matches('/').to_owned()),
            spool_dir: env.path("BACKUP_SPOOL_DIR")?.unwrap_or_else(|| "/var/spool/workbench/notifications".into()),
            disk_alert_percent,
            max_age_hours: env.number("BACKUP_MAX_AGE_HOURS", 26, 0)?,
            history_days,
            restore: RestoreConfig::from_env(env)?,
            keep: Keep {
                daily: env.number("BACKUP_KEEP_DAILY", 0, 0)?,
                weekly: env.number("BACKUP_KEEP_WEEKLY", 0, 0)?,
                monthly: env.number("BACKUP_KEEP_MONTHLY", 0, 0)?,
                yearly: env.number("BACKUP_KEEP_YEARLY", 0, 0)?,
            },
        };
        if config.control.schema.starts_with(&config.schema_prefix) {
            return Err(invalid(
                "BACKUP_DATABASE_URL",
                format!(
                    "the control schema `{}` must not start with `{}`, the prefix of schemas that restores make and drop",
                    config.control.schema, config.schema_prefix
                ),
            ));
        }
        Ok(config)
    }

    /// Another name for this host as a node.
    pub fn set_node(&mut self, node: String) -> Result<(), ConfigError> {
        check_node(&node)?;
        self.node = node;
        Ok(())
    }

    /// The schema on the application server that holds its identity.
    pub fn meta_schema(&self) -> String {
        format!("{}meta", self.schema_prefix)
    }

    /// The control schema alone: all that `enqueue` needs to submit and inspect.
    pub fn control_from_env(env: &Env) -> Result<ServerConfig, ConfigError> {
        control(env)
    }
}

fn nice(env: &Env) -> Result<u8, ConfigError> {
    match env.number("BACKUP_NICE", 10u8, 0)? {
        nice @ 0..=19 => Ok(nice),
        nice => Err(invalid("BACKUP_NICE", format!("`{nice}` is more than 19"))),
    }
}

fn max_rate(env: &Env) -> Result<Option<NonZeroU64>, ConfigError> {
    let Some(text) = env.get("BACKUP_MAX_RATE") else { return Ok(None) };
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let rate = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).and_then(NonZeroU64::new);
    match rate {
        Some(rate) => Ok(Some(rate)),
        None => Err(invalid("BACKUP_MAX_RATE", format!("`{text}` is not a number of bytes per second, such as 20000000 or 20M"))),
    }
}

/// Checks a node's name; the error says what it may hold.
pub fn node_name(node: &str) -> Result<String, String> {
    if node.is_empty() || node.len() > 64 || !node.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Err(format!("`{node}` is not a node's name: use up to 64 letters, digits, dots, dashes or underscores"));
    }
    Ok(node.to_owned())
}

fn check_node(node: &str) -> Result<(), ConfigError> {
    node_name(node).map(drop).map_err(|why| invalid("BACKUP_NODE", why))
}

fn control(env: &Env) -> Result<ServerConfig, ConfigError> {
    let url = env.secret("BACKUP_DATABASE_URL")?.ok_or(ConfigError::Missing {
        variable: "BACKUP_DATABASE_URL".into(),
        why: "it names the control schema, for example mysql://backup:PASSWORD@127.0.0.1/heratio_backup",
    })?;
    server("BACKUP_DATABASE_URL", &url)
}

fn scratch(env: &Env) -> Result<Option<ServerConfig>, ConfigError> {
    let name = "BACKUP_SCRATCH_DATABASE_URL";
    let Some(mut text) = env.secret(name)? else { return Ok(None) };
    // It needs no schema, and one that is there for all serves as well.
    if let Ok(mut url) = url::Url::parse(&text)
        && url.path().trim_start_matches('/').is_empty()
    {
        url.set_path("information_schema");
        text = url.into();
    }
    server(name, &text).map(Some)
}

fn application(env: &Env) -> Result<ServerConfig, ConfigError> {
    for name in ["HERATIO_DATABASE_URL", "DB_URL", "DATABASE_URL"] {
        if let Some(url) = env.secret(name)? {
            return server(name, &url);
        }
    }
    let schema = env.get("DB_DATABASE").ok_or(ConfigError::Missing {
        variable: "HERATIO_DATABASE_URL".into(),
        why: "it names the application database, for example mysql://heratio_backup:PASSWORD@127.0.0.1/heratio; Laravel's DB_HOST, DB_DATABASE, DB_USERNAME and DB_PASSWORD serve as well",
    })?;
    Ok(ServerConfig {
        host: env.get("DB_HOST").unwrap_or("127.0.0.1").into(),
        port: env.number("DB_PORT", 3306, 1)?,
        socket: env.path("DB_SOCKET")?,
        user: env.get("DB_USERNAME").unwrap_or("root").into(),
        password: env.secret("DB_PASSWORD")?.map(Into::into),
        schema: schema.into(),
        tls: Tls::default(),
    })
}

/// Reads `mysql://user:password@host:port/schema?socket=/path&ssl-mode=...&ssl-ca=/path`.
fn server(variable: &str, text: &str) -> Result<ServerConfig, ConfigError> {
    let wrong = |reason: &str| {
        invalid(variable, format!("{reason} (expected mysql://user:password@host:port/schema, with %-escapes for special characters)"))
    };
    let url = url::Url::parse(text).map_err(|e| wrong(&format!("it is not a URL: {e}")))?;
    if !matches!(url.scheme(), "mysql" | "mariadb") {
        return Err(wrong("its scheme is not mysql"));
    }
    let decode = |s: &str| percent_decode_str(s).decode_utf8().map(|s| s.into_owned()).map_err(|_| wrong("it is not UTF-8"));
    let mut server = ServerConfig {
        host: decode(url.host_str().unwrap_or("127.0.0.1"))?.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(3306),
        user: decode(url.username())?,
        password: url.password().map(decode).transpose()?.map(Into::into),
        schema: decode(url.path().trim_start_matches('/'))?,
        socket: None,
        tls: Tls::default(),
    };
    if server.schema.is_empty() {
        return Err(wrong("it names no schema"));
    }
    if server.user.is_empty() {
        return Err(wrong("it names no user"));
    }
    for (key, value) in url.query_pairs() {
        match &*key {
            "socket" => server.socket = Some(PathBuf::from(&*value)),
            "ssl-mode" | "sslmode" | "ssl_mode" => {
                server.tls.mode = value.parse().map_err(|_| {
                    wrong(&format!("ssl-mode `{value}` is none of disabled, preferred, required, verify_ca, verify_identity"))
                })?;
            }
            "ssl-ca" | "sslca" | "ssl_ca" => server.tls.ca = Some(PathBuf::from(&*value)),
            // Laravel's own URLs carry these; the connection is utf8mb4 in any case.
            "charset" | "collation" => {}
            other => return Err(wrong(&format!("parameter `{other}` is not known; there are socket, ssl-mode and ssl-ca"))),
        }
    }
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const CONTROL: (&str, &str) = ("BACKUP_DATABASE_URL", "mysql://backup:p%40ss%2Fw%23rd@db.example:3307/heratio_backup");

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_env(&Env::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn urls_and_laravel_variables() {
        let config = read(&[
            CONTROL,
            ("DB_DATABASE", "heratio"),
            ("DB_PASSWORD", "0"),
            ("DB_SOCKET", "/run/my.sock"),
            ("HERATIO_ROOT", "/srv/heratio"),
        ])
        .unwrap();
        assert_eq!(
            (config.control.host.as_str(), config.control.port, config.control.schema.as_str()),
            ("db.example", 3307, "heratio_backup")
        );
        assert_eq!(config.control.password.unwrap().expose_secret(), "p@ss/w#rd");
        assert_eq!(config.application.password.unwrap().expose_secret(), "0");
        assert_eq!(config.application.socket.as_deref(), Some(Path::new("/run/my.sock")));
        assert_eq!(config.uploads.as_deref(), Some(Path::new("/srv/heratio/uploads")));
        let config =
            read(&[CONTROL, ("HERATIO_DATABASE_URL", "mysql://h@localhost/heratio?socket=/run/my.sock"), ("DB_DATABASE", "other")])
                .unwrap();
        assert_eq!(config.application.schema, "heratio");
        assert!(config.application.password.is_none());
    }

    #[test]
    fn rates_take_units() {
        let app = ("DB_DATABASE", "heratio");
        let rate = |text: &str| read(&[CONTROL, app, ("BACKUP_MAX_RATE", text)]).unwrap().effort.max_rate.map(NonZeroU64::get);
        assert_eq!(
            [rate(""), rate("20"), rate("20k"), rate("20M"), rate("2G")],
            [None, Some(20), Some(20_000), Some(20_000_000), Some(2_000_000_000)]
        );
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        let error = |pairs: &[(&str, &str)]| read(pairs).unwrap_err().to_string();
        assert!(error(&[]).starts_with("missing environment variable BACKUP_DATABASE_URL"));
        assert!(error(&[CONTROL]).starts_with("missing environment variable HERATIO_DATABASE_URL"));
        let app = ("DB_DATABASE", "heratio");
        for (name, value) in [
            ("BACKUP_DATABASE_URL", "mysql://backup:hunter2@host"),
            ("BACKUP_DATABASE_URL", "postgres://backup:hunter2@host/x"),
            ("BACKUP_DATABASE_URL", "backup:hunter2@host/x"),
            ("BACKUP_DATABASE_URL", "mysql://backup:hunter2@host/heratio_bk_meta"),
            ("HERATIO_ROOT", "relative/path"),
            ("DB_PORT", "http"),
            ("BACKUP_NODE", "a b"),
            ("BACKUP_TIMEZONE", "Mars/Base"),
            ("BACKUP_LEASE", "1"),
            ("BACKUP_SCHEMA_PREFIX", "Bad-"),
            ("BACKUP_NICE", "20"),
            ("BACKUP_NICE", "-1"),
            ("BACKUP_MAX_RATE", "0"),
            ("BACKUP_MAX_RATE", "fast"),
            ("BACKUP_MAX_RATE", "99999999999999999999G"),
            ("BACKUP_DISK_ALERT_PERCENT", "101"),
            ("BACKUP_MAX_AGE_HOURS", "a day"),
            ("BACKUP_HISTORY_DAYS", "-1"),
            ("BACKUP_HISTORY_DAYS", "36501"),
        ] {
            let text = error(&[CONTROL, app, (name, value)]);
            assert!(text.contains(name), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_secret_may_lie_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "mysql://b:x@h/c\n").unwrap();
        let env = Env::from_pairs([("BACKUP_DATABASE_URL_FILE", file.path().to_str().unwrap()), ("DB_DATABASE", "heratio")]);
        assert_eq!(Config::from_env(&env).unwrap().control.schema, "c");
    }

    #[test]
    fn a_dotenv_file_that_cannot_be_parsed_does_not_leak() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "DB_PASSWORD=hunter2 with spaces\n").unwrap();
        let text = Env::load(Some(file.path())).err().map(|e| e.to_string()).unwrap();
        assert!(text.contains("environment file") && !text.contains("hunter2"), "{text}");
    }
}
