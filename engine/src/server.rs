//! The application's database server: how to reach it, and what it is.

use crate::{
    socket_login,
    sql::{self, server_error},
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};
use std::{collections::BTreeMap, fmt, io, path::PathBuf, str::FromStr, time::Duration};

/// How long [`ServerConfig::connect`] waits.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach a server and one of its schemas.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Host name or address; unused when there is a socket. "localhost" is TCP too.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Unix socket, which goes before host and port.
    pub socket: Option<PathBuf>,
    /// Account name.
    pub user: String,
    /// Its password; `None` is an account without one.
    pub password: Option<SecretString>,
    /// The schema.
    pub schema: String,
    /// Encryption of TCP connections.
    pub tls: Tls,
}

/// Encryption of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// How much is demanded.
    pub mode: TlsMode,
    /// Certificates that the server's must descend from, a PEM file; `None` is the system's.
    pub ca: Option<PathBuf>,
}

/// What is demanded of a connection's encryption, in MySQL's words for `ssl-mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never encrypted.
    Disabled,
    /// Encrypted where the server can.
    #[default]
    Preferred,
    /// Encrypted, to whomever.
    Required,
    /// Encrypted, to a server whose certificate descends from the CA.
    VerifyCa,
    /// As `VerifyCa`, and the certificate names the host.
    VerifyIdentity,
}

/// Which of the two families a server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// MariaDB.
    MariaDb,
    /// MySQL, and what is built from it.
    MySql,
}

/// What a server is, as its variables and functions say; never guessed from its version.
#[derive(Debug, Clone)]
pub struct Server {
    /// MariaDB or MySQL.
    pub flavour: Flavour,
    /// `@@version`.
    pub version: String,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@server_uuid`; MariaDB has none, see [`crate::identity`].
    pub server_uuid: Option<String>,
    /// Whether it writes a binary log.
    pub log_bin: bool,
    /// `ROW`, `MIXED` or `STATEMENT`; `ROW` where the variable is gone because nothing else is left.
    pub binlog_format: String,
    /// Whether transactions have GTIDs: MySQL's `gtid_mode` is ON; MariaDB's always have when logged.
    pub gtid: bool,
    /// Whether it refuses ordinary accounts' writes.
    pub read_only: bool,
    /// MySQL's `partial_revokes`: no wildcards in schema-level grants.
    pub partial_revokes: bool,
    /// `lower_case_table_names` is not 0: schema and table names are compared without case.
    pub ignores_case: bool,
    /// The account that the session was matched to, `user@host`.
    pub account: String,
    /// All global variables, names in lower case.
    pub variables: BTreeMap<String, String>,
}

impl ServerConfig {
    /// Options for sqlx: utf8mb4, time zone +00:00, no default schema, sql_mode untouched, no statement in the log.
    pub fn connect_options(&self) -> MySqlConnectOptions {
        let mut options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .charset("utf8mb4")
            .timezone(Some("+00:00".to_owned()))
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .disable_statement_logging();
        if let Some(password) = &self.password {
            options = options.password(password.expose_secret());
        }
        if let Some(socket) = &self.socket {
            // A socket does not leave the host.
            return options.socket(socket).ssl_mode(MySqlSslMode::Disabled);
        }
        if let Some(ca) = &self.tls.ca {
            options = options.ssl_ca(ca);
        }
        options.ssl_mode(match self.tls.mode {
            TlsMode::Disabled => MySqlSslMode::Disabled,
            TlsMode::Preferred => MySqlSslMode::Preferred,
            TlsMode::Required => MySqlSslMode::Required,
            TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
            TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
        })
    }

    /// Opens a session of its own (no pool) whose default schema is the configured one.
    pub async fn connect(&self) -> Result<MySqlConnection, ServerError> {
        self.open_warm(self.connect_options().database(&self.schema)).await
    }

    /// Opens a session of its own without a default schema.
    pub async fn connect_without_schema(&self) -> Result<MySqlConnection, ServerError> {
        self.open_warm(self.connect_options()).await
    }

    async fn open_warm(&self, options: MySqlConnectOptions) -> Result<MySqlConnection, ServerError> {
        match self.open(options.clone()).await {
            Err(ServerError::Denied { .. }) if self.warm_up().await => self.open(options).await,
            result => result,
        }
    }

    async fn open(&self, options: MySqlConnectOptions) -> Result<MySqlConnection, ServerError> {
        let session = async {
            let mut conn = options.connect().await?;
            // The server's own sql_mode may quote otherwise (ANSI_QUOTES, NO_BACKSLASH_ESCAPES).
            sql::run(&mut conn, "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'").await?;
            Ok(conn)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, session).await {
            Ok(result) => result.map_err(|error| ServerError::from_connect(self, error)),
            Err(_) => Err(ServerError::TimedOut { target: self.target() }),
        }
    }

    /// Lets the server cache the account's password, where sqlx alone could not log in (see [`crate::socket_login`]).
    async fn warm_up(&self) -> bool {
        let (Some(socket), Some(password)) = (&self.socket, &self.password) else { return false };
        let login = socket_login::log_in(socket, &self.user, password.expose_secret());
        matches!(tokio::time::timeout(CONNECT_TIMEOUT, login).await, Ok(Ok(true)))
    }

    /// Account and address for messages: `heratio@db1:3306`, `heratio on /run/mysqld/mysqld.sock`.
    pub fn target(&self) -> String {
        match &self.socket {
            Some(socket) => format!("{} on {}", self.user, socket.display()),
            None => format!("{}@{}:{}", self.user, self.host, self.port),
        }
    }
}

impl Server {
    /// Asks a session what its server is.
    pub async fn detect(conn: &mut MySqlConnection) -> Result<Self, ServerError> {
        let variables: BTreeMap<String, String> = sql::rows(conn, "SHOW GLOBAL VARIABLES")
            .await
            .map_err(ServerError::query("read the server's variables"))?
            .iter()
            .map(|row| (row.text_at(0).to_lowercase(), row.text_at(1)))
            .collect();
        let account =
            sql::value(conn, "SELECT CURRENT_USER()").await.map_err(ServerError::query("read the name of the current account"))?;
        Ok(Self::from_variables(variables, account))
    }

    /// As [`Server::detect`], from what has been read.
    fn from_variables(variables: BTreeMap<String, String>, account: String) -> Self {
        let get = |name: &str| variables.get(name).cloned().unwrap_or_default();
        let is_on = |name: &str| !matches!(get(name).to_uppercase().as_str(), "" | "0" | "OFF" | "NO");
        // Each family has variables that the other has never had.
        let flavour = match variables.contains_key("gtid_binlog_pos") || variables.contains_key("aria_block_size") {
            true => Flavour::MariaDb,
            false => Flavour::MySql,
        };
        let log_bin = is_on("log_bin");
        Self {
            flavour,
            version: get("version"),
            server_id: get("server_id").parse().unwrap_or(0),
            server_uuid: variables.get("server_uuid").filter(|uuid| !uuid.is_empty()).cloned(),
            log_bin,
            binlog_format: Some(get("binlog_format")).filter(|f| !f.is_empty()).unwrap_or_else(|| "ROW".to_owned()),
            gtid: match flavour {
                Flavour::MariaDb => log_bin,
                Flavour::MySql => get("gtid_mode").eq_ignore_ascii_case("ON"),
            },
            read_only: is_on("read_only") || is_on("super_read_only"),
            partial_revokes: is_on("partial_revokes"),
            ignores_case: get("lower_case_table_names") != "0",
            account,
            variables,
        }
    }

    /// A global variable, by its name in lower case.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The account as GRANT wants it: `'user'@'host'`.
    pub fn quoted_account(&self) -> String {
        let (user, host) = self.account.rsplit_once('@').unwrap_or((&self.account, "%"));
        format!("{}@{}", sql::quote_text(user), sql::quote_text(host))
    }
}

impl Flavour {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::MariaDb => Self::MySql,
            Self::MySql => Self::MariaDb,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        })
    }
}

impl FromStr for TlsMode {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        match text.to_lowercase().replace('-', "_").as_str() {
            "disabled" => Ok(Self::Disabled),
            "preferred" => Ok(Self::Preferred),
            "required" => Ok(Self::Required),
            "verify_ca" => Ok(Self::VerifyCa),
            "verify_identity" => Ok(Self::VerifyIdentity),
            _ => Err(ServerError::TlsMode(text.to_owned())),
        }
    }
}

/// Why a server could not be reached or asked. `target` names account and address.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The host name means nothing to the resolver.
    #[error("cannot connect to {target}: unknown host: {source}")]
    UnknownHost {
        /// Account and address.
        target: String,
        /// The resolver's word.
        source: io::Error,
    },
    /// Nothing listens there.
    #[error("cannot connect to {target}: {source}")]
    Refused {
        /// Account and address.
        target: String,
        /// The system's word.
        source: io::Error,
    },
    /// No answer in time.
    #[error("cannot connect to {target}: no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut {
        /// Account and address.
        target: String,
    },
    /// Wrong user, password or client host.
    #[error("{target} was turned away: {message}")]
    Denied {
        /// Account and address.
        target: String,
        /// The server's word; it names no password.
        message: String,
    },
    /// The account may not use the schema.
    #[error("{target} may not use schema `{schema}`: {message}")]
    SchemaDenied {
        /// Account and address.
        target: String,
        /// The schema.
        schema: String,
        /// The server's word.
        message: String,
    },
    /// There is no such schema.
    #[error("there is no schema `{schema}` at {target}")]
    UnknownSchema {
        /// Account and address.
        target: String,
        /// The schema.
        schema: String,
    },
    /// No connection is free.
    #[error("{target} was turned away: {message}")]
    Full {
        /// Account and address.
        target: String,
        /// The server's word.
        message: String,
    },
    /// The encrypted connection could not be made.
    #[error("cannot connect to {target}: TLS: {message}")]
    Tls {
        /// Account and address.
        target: String,
        /// What went wrong.
        message: String,
    },
    /// Another failure to connect.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// Account and address.
        target: String,
        /// The client library's word.
        source: sqlx::Error,
    },
    /// A question to the server failed.
    #[error("cannot {what}: {source}")]
    Query {
        /// What was asked for.
        what: String,
        /// The client library's word.
        source: sqlx::Error,
    },
    /// The server has not been given an identity.
    #[error("the server has no identity: cannot read it from `{schema}`.`identity`: {reason}")]
    NoIdentity {
        /// The schema in which it would be.
        schema: String,
        /// Why it was not found.
        reason: String,
    },
    /// Not one of MySQL's words.
    #[error("unknown TLS mode {0:?}")]
    TlsMode(String),
}

impl ServerError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnknownHost { .. } => "check the host name in HERATIO_DATABASE_URL (or DB_HOST) and this host's resolver",
            Self::Refused { .. } => {
                "check that the server runs, and host, port and socket in HERATIO_DATABASE_URL (or DB_HOST, DB_PORT, DB_SOCKET)"
            }
            Self::TimedOut { .. } => "check that the server runs and that no firewall drops packets to it",
            Self::Denied { .. } => {
                "check user and password in HERATIO_DATABASE_URL (or DB_USERNAME, DB_PASSWORD), and that the account may come from this host"
            }
            Self::SchemaDenied { .. } => "run `worker grants` and apply what it prints for this account",
            Self::UnknownSchema { .. } => "check the schema in HERATIO_DATABASE_URL (or DB_DATABASE)",
            Self::Full { .. } => "raise max_connections (or the account's limit), or run fewer workers",
            Self::Tls { .. } => "check ssl-mode and ssl-ca in HERATIO_DATABASE_URL against the server's certificate",
            Self::NoIdentity { .. } => "run `worker migrate`, which writes it; the account needs SELECT there (see `worker grants`)",
            Self::TlsMode(_) => "use disabled, preferred, required, verify_ca or verify_identity",
            Self::Connect { .. } | Self::Query { .. } => return None,
        })
    }

    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::UnknownHost { .. } | Self::Refused { .. } | Self::TimedOut { .. } | Self::Full { .. } => true,
            Self::Connect { source, .. } | Self::Query { source, .. } => {
                matches!(source, sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) || matches!(server_error(source), Some(1053 | 1205 | 1213))
            }
            _ => false,
        }
    }

    /// Makes an error of a failed query; `what` completes "cannot ...".
    pub(crate) fn query(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { what: what.into(), source }
    }

    fn from_connect(config: &ServerConfig, error: sqlx::Error) -> Self {
        let target = config.target();
        let message = error.as_database_error().map(|e| e.message().to_owned()).unwrap_or_default();
        match server_error(&error) {
            // Denied: password, no such account from this host, plugin, expired, must use TLS; 1129 is a host blocked after many failures.
            Some(1045 | 1129 | 1130 | 1251 | 1524 | 1698 | 1862 | 3118 | 3159 | 4151) => return Self::Denied { target, message },
            Some(1044) => return Self::SchemaDenied { target, schema: config.schema.clone(), message },
            Some(1049) => return Self::UnknownSchema { target, schema: config.schema.clone() },
            Some(1040 | 1203 | 1226) => return Self::Full { target, message },
            _ => {}
        }
        match error {
            sqlx::Error::Io(source) => match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    Self::Refused { target, source }
                }
                // The resolver's failures have no kind of their own.
                _ if source.to_string().contains("lookup address") => Self::UnknownHost { target, source },
                // Certificates that do not verify.
                io::ErrorKind::InvalidData => Self::Tls { target, message: source.to_string() },
                _ => Self::Connect { target, source: sqlx::Error::Io(source) },
            },
            sqlx::Error::Tls(source) => Self::Tls { target, message: source.to_string() },
            source => Self::Connect { target, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ServerConfig {
        ServerConfig {
            host: "db1".to_owned(),
            port: 3306,
            socket: None,
            user: "heratio".to_owned(),
            password: Some("s3cret".into()),
            schema: "heratio".to_owned(),
            tls: Tls::default(),
        }
    }

    fn server(variables: &[(&str, &str)]) -> Server {
        let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Server::from_variables(variables, "back@up@10.0.%".to_owned())
    }

    #[test]
    fn no_password_in_debug_output() {
        assert!(!format!("{:?}", config()).contains("s3cret"));
    }

    #[test]
    fn target_names_socket_or_address() {
        assert_eq!(config().target(), "heratio@db1:3306");
        assert_eq!(ServerConfig { socket: Some("/run/x.sock".into()), ..config() }.target(), "heratio on /run/x.sock");
    }

    #[test]
    fn mariadb_is_known_by_its_variables() {
        let server = server(&[
            ("version", "10.11.19-MariaDB-0+deb12u1-log"),
            ("gtid_binlog_pos", "0-11-379"),
            ("log_bin", "ON"),
            ("binlog_format", "MIXED"),
            ("server_id", "11"),
            ("lower_case_table_names", "0"),
        ]);
        assert_eq!((server.flavour, server.gtid, server.log_bin, server.read_only), (Flavour::MariaDb, true, true, false));
        assert_eq!((server.server_id, server.server_uuid.as_deref(), server.binlog_format.as_str()), (11, None, "MIXED"));
        assert_eq!(server.quoted_account(), "'back@up'@'10.0.%'");
        assert!(!server.ignores_case);
    }

    #[test]
    fn mysql_is_known_by_its_variables() {
        let server = server(&[
            ("version", "9.7.4"),
            ("gtid_mode", "ON_PERMISSIVE"),
            ("log_bin", "0"),
            ("server_uuid", "526fa9b8-e863-11f1-8dac-02fc00000001"),
            ("super_read_only", "ON"),
            ("lower_case_table_names", "1"),
        ]);
        assert_eq!((server.flavour, server.gtid, server.log_bin, server.read_only), (Flavour::MySql, false, false, true));
        assert_eq!((server.binlog_format.as_str(), server.ignores_case), ("ROW", true));
        assert!(server.server_uuid.is_some());
    }

    #[test]
    fn tls_modes_are_mysqls_words() {
        assert_eq!("VERIFY_IDENTITY".parse::<TlsMode>().unwrap(), TlsMode::VerifyIdentity);
        assert_eq!("verify-ca".parse::<TlsMode>().unwrap(), TlsMode::VerifyCa);
        assert!("yes".parse::<TlsMode>().unwrap_err().hint().is_some());
    }

    #[tokio::test]
    async fn failures_to_connect_are_told_apart() {
        let local = ServerConfig { host: "127.0.0.1".to_owned(), port: 1, ..config() };
        let error = local.connect().await.unwrap_err();
        assert!(matches!(error, ServerError::Refused { .. }) && error.to_string().contains("heratio@127.0.0.1:1"), "{error}");
        let error = ServerConfig { host: "no-such-host.invalid".to_owned(), ..config() }.connect().await.unwrap_err();
        assert!(matches!(error, ServerError::UnknownHost { .. }), "{error:?}");
        let error = ServerConfig { socket: Some("/nowhere/x.sock".into()), ..config() }.connect().await.unwrap_err();
        assert!(matches!(error, ServerError::Refused { .. }) && error.to_string().contains("/nowhere/x.sock"), "{error:?}");
        assert!(error.hint().is_some() && error.is_transient());
    }
}
