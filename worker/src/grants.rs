//! `worker grants`: the GRANT statements that an administrator runs once.

use engine::{
    privileges::{Privileges, missing_for_dump, missing_for_restore, on_schema, on_schemas_of},
    server::{Flavour, Server},
    sql::{quote_name, quote_text},
};
use jobs::config::Config;

/// Whose account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Runs jobs: reads the application database, owns the control schema and the schemas that it makes.
    Worker,
    /// Enqueues safe jobs and reads the history from inside Heratio.
    Application,
    /// Restores into scratch schemas on a server of its own, with no right on the application database.
    Drill,
}

/// The script for `role`, for accounts as the configuration names them. It holds no password.
pub(crate) fn script(config: &Config, server: &Server, role: Role, host: &str) -> String {
    let account = |user: &str| format!("{}@{}", quote_text(user), quote_text(host));
    let control = on_schema(&config.control.schema, server.partial_revokes);
    let ours = if server.partial_revokes { on_schema(&config.meta_schema(), true) } else { on_schemas_of(&config.schema_prefix) };
    let mut lines = vec![format!("-- {} grants for the role {}; run as an administrator of the server", server.flavour, name(role))];
    match role {
        Role::Worker => {
            let (user, owner) = (account(&config.application.user), account(&config.control.user));
            lines.push(format!("-- First, if the accounts do not exist: CREATE USER {user} IDENTIFIED BY 'a long random password';"));
            lines.push("-- What a complete dump of the application database needs:".into());
            let nobody = Server { account: format!("{}@{host}", config.application.user), ..server.clone() };
            let none = Privileges::parse([], server.partial_revokes, server.ignores_case);
            for grant in missing_for_dump(&none, &nobody, &config.application.schema, true) {
                lines.push(format!("GRANT {} ON {} TO {user};", grant.privilege, grant.on));
            }
            lines.push("-- What a restore needs to replace the application database (without these, backups work all the same):".into());
            let stage = format!("{}stage_1", config.schema_prefix);
            for grant in missing_for_restore(&none, &nobody, &config.application.schema, &stage, &config.schema_prefix, true) {
                match grant.privilege.as_str() {
                    // Comes below.
                    "ALL PRIVILEGES" => {}
                    // Much more than is needed; the server's setting does it as well.
                    "SUPER" => lines.push("SET GLOBAL log_bin_trust_function_creators = 1; -- and in the server's configuration".into()),
                    _ => lines.push(format!("GRANT {} ON {} TO {user};", grant.privilege, grant.on)),
                }
            }
            lines.push("-- Schemas that it makes beside the application's (staging, undo, scratch, the server's identity):".into());
            lines.push(format!("GRANT ALL PRIVILEGES ON {ours} TO {user};"));
            lines.push(format!(
                "-- Where Heratio has the table, for notifications inside it: GRANT INSERT ON {}.`ahg_notification` TO {user};",
                quote_name(&config.application.schema)
            ));
            lines.push("-- The control schema:".into());
            if owner != user {
                lines.push(format!("-- CREATE USER {owner} IDENTIFIED BY 'another long random password';"));
            }
            lines.push(format!("GRANT ALL PRIVILEGES ON {control} TO {owner};"));
        }
        Role::Application => {
            let user = quote_text("the application's account");
            let schema = quote_name(&config.control.schema);
            lines.push("-- Put Heratio's own account (DB_USERNAME in its .env) in the place of the name below.".into());
            lines.push(format!("GRANT SELECT ON {schema}.`job_history` TO {user}@{};", quote_text(host)));
            lines.push("-- Backups and all that changes nothing of the application's (after `worker migrate`):".into());
            lines.push(format!("GRANT EXECUTE ON PROCEDURE {schema}.`enqueue_backup_job` TO {user}@{};", quote_text(host)));
            lines.push("-- Only for an account that may also overwrite the application's data and lower safety:".into());
            lines.push(format!("-- GRANT EXECUTE ON PROCEDURE {schema}.`enqueue_restore_job` TO {user}@{};", quote_text(host)));
        }
        Role::Drill => {
            let user = account("heratio_drill");
            lines.push(format!("-- CREATE USER {user} IDENTIFIED BY 'a long random password';"));
            lines.push(format!("GRANT ALL PRIVILEGES ON {ours} TO {user};"));
            lines.push("-- What other accounts defined is made under their names; this gives no right on anybody's data:".into());
            let nobody = Server { account: format!("heratio_drill@{host}"), ..server.clone() };
            let none = Privileges::parse([], server.partial_revokes, server.ignores_case);
            for grant in
                missing_for_restore(&none, &nobody, &config.application.schema, &config.schema_prefix, &config.schema_prefix, false)
            {
                match grant.privilege.as_str() {
                    "SUPER" => lines.push("SET GLOBAL log_bin_trust_function_creators = 1; -- and in the server's configuration".into()),
                    privilege if grant.on == "*.*" => lines.push(format!("GRANT {privilege} ON *.* TO {user};")),
                    _ => {}
                }
            }
            let unlogged = if server.flavour == Flavour::MySql { "SYSTEM_VARIABLES_ADMIN" } else { "BINLOG ADMIN" };
            lines.push(format!(
                "-- To keep drills out of the server's binary log, should it have one that matters: GRANT {unlogged} ON *.* TO {user};"
            ));
        }
    }
    if server.flavour == Flavour::MySql && server.partial_revokes {
        lines.push(
            "-- This server has partial_revokes on, so `_` and `%` are no wildcards: grant each further schema of ours by name.".into(),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Application => "application",
        Role::Drill => "drill",
    }
}
