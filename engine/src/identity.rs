//! Who a server is, so that binary logs of another one are never taken for its own.
//!
//! MySQL has `@@server_uuid`. MariaDB has nothing of the kind (`server_uid` repeats on hosts that are
//! copies of each other), so a UUID is kept in the table `identity` of a schema of ours on that server.

use crate::{
    server::{Flavour, Server, ServerError},
    sql::{self, quote_name, server_error},
};
use sqlx::MySqlConnection;

/// The schema of the identity table where nothing else is configured.
pub const META_SCHEMA: &str = "heratio_bk_meta";

/// Reads the server's identity, a UUID; it is an error that `worker migrate` has not written it yet.
pub async fn identity(conn: &mut MySqlConnection, server: &Server, meta_schema: &str) -> Result<String, ServerError> {
    if let (Flavour::MySql, Some(uuid)) = (server.flavour, &server.server_uuid) {
        return Ok(uuid.clone());
    }
    let missing = |reason: &str| ServerError::NoIdentity { schema: meta_schema.to_owned(), reason: reason.to_owned() };
    match sql::value(conn, format!("SELECT uuid FROM {}.identity WHERE id = 1", quote_name(meta_schema))).await {
        Ok(uuid) if uuid.is_empty() => Err(missing("the table is empty")),
        Ok(uuid) => Ok(uuid),
        // No schema, no table, or no right to see either: the server does not tell these apart to an account without rights.
        Err(error) if matches!(server_error(&error), Some(1044 | 1049 | 1142 | 1146)) => {
            Err(missing(error.as_database_error().map(|e| e.message()).unwrap_or_default()))
        }
        Err(error) => Err(ServerError::query("read the server's identity")(error)),
    }
}

/// Writes the server's identity unless it has one, and returns it. May be called by many at once.
///
/// Kept out of the binary log where the account may do that: a replica that takes over is another
/// server, with other logs, and must not inherit the identity.
pub async fn ensure_identity(conn: &mut MySqlConnection, server: &Server, meta_schema: &str) -> Result<String, ServerError> {
    match identity(conn, server, meta_schema).await {
        Err(ServerError::NoIdentity { .. }) => {}
        known => return known,
    }
    let schema = quote_name(meta_schema);
    let unlogged = sql::run(conn, "SET SESSION sql_log_bin = 0").await.is_ok();
    let statements = [
        format!("CREATE DATABASE IF NOT EXISTS {schema} CHARACTER SET utf8mb4"),
        format!(
            "CREATE TABLE IF NOT EXISTS {schema}.identity (id TINYINT NOT NULL PRIMARY KEY CHECK (id = 1), uuid CHAR(36) NOT NULL, \
             created_at DATETIME NOT NULL) ENGINE = InnoDB COMMENT = 'Who this server is, to Heratio Backup; times are UTC'"
        ),
        // The primary key decides between two who write at once.
        format!("INSERT IGNORE INTO {schema}.identity VALUES (1, UUID(), UTC_TIMESTAMP())"),
    ];
    let mut written = Ok(());
    for statement in statements {
        if written.is_ok() {
            written = sql::run(conn, statement).await.map_err(ServerError::query(format!("write the server's identity to {schema}")));
        }
    }
    if unlogged {
        sql::run(conn, "SET SESSION sql_log_bin = 1").await.map_err(ServerError::query("turn the session's binary log on again"))?;
    }
    written?;
    identity(conn, server, meta_schema).await
}
