//! Why a dump failed, told apart by what has to be done about it.

use crate::{
    fingerprint::Change,
    privileges::MissingPrivilege,
    process::{Exit, ProcessError},
    server::ServerError,
    sessions::Blockers,
    tools::ToolError,
};
use std::{fmt, io, time::Duration};

/// Why a dump failed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The server could not be reached or asked.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The dump tool is missing, broken or the other family's.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The dump tool could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The dump would lack something. Found before any work.
    #[error("{account} may not dump all of `{schema}`: it lacks {}", list(missing, "; "))]
    MissingPrivileges {
        /// The account, `user@host`.
        account: String,
        /// The schema.
        schema: String,
        /// What it lacks, with the GRANTs to run.
        missing: Vec<MissingPrivilege>,
    },
    /// The snapshot, or a table, could not be had in time.
    #[error("could not {what} within {} s: {blockers}", waited.as_secs())]
    LockWait {
        /// What was tried, completing "could not".
        what: String,
        /// How long.
        waited: Duration,
        /// Who is in the way.
        blockers: Blockers,
    },
    /// An object cannot be read by anybody: a view on what is gone, a definer who does not exist.
    #[error("{object} cannot be dumped: {message}")]
    Unreadable {
        /// The object, as the tool names it.
        object: String,
        /// The tool's word.
        message: String,
    },
    /// An object that the dumper would not write right, so it does not write it at all.
    #[error("{object} cannot be dumped: {why}")]
    Unsupported {
        /// The object.
        object: String,
        /// What is the matter.
        why: String,
    },
    /// The dump tool was refused something, although the privileges looked right.
    #[error("{tool} was refused: {stderr}")]
    ToolDenied {
        /// The tool.
        tool: String,
        /// Its stderr.
        stderr: String,
    },
    /// The tool's session ended: restart, KILL, network.
    #[error("{tool} lost the server: {stderr}")]
    ConnectionLost {
        /// The tool.
        tool: String,
        /// Its stderr.
        stderr: String,
    },
    /// Somebody killed the dump tool, or the system did for want of memory.
    #[error("{tool} was killed by signal {signal} after {bytes} bytes")]
    Killed {
        /// The tool.
        tool: String,
        /// The signal's number.
        signal: i32,
        /// What it had written by then, in bytes.
        bytes: u64,
    },
    /// The dump tool failed otherwise.
    #[error("{tool} {outcome}: {stderr}")]
    ToolFailed {
        /// The tool.
        tool: String,
        /// "ended with status 2".
        outcome: String,
        /// Its stderr.
        stderr: String,
    },
    /// The tool ended well, but the dump's last line is not there.
    #[error("the dump is cut off after {bytes} bytes: {tool} ended well, but \"-- Dump completed\" is not its last line")]
    Truncated {
        /// The tool.
        tool: String,
        /// What came, in bytes.
        bytes: u64,
    },
    /// The tool ended well, but the dump lacks objects that the schema has.
    #[error("the dump by {tool} lacks {}", missing.join(", "))]
    Incomplete {
        /// The tool.
        tool: String,
        /// The objects.
        missing: Vec<String>,
    },
    /// The server writes a binary log, but the tool did not say where the snapshot stands in it.
    #[error("the dump by {tool} does not say where in the binary log its snapshot stands")]
    NoPosition {
        /// The tool.
        tool: String,
    },
    /// Definitions changed while the dump was made, so it may mix old and new.
    #[error("definitions changed during the dump: {}", changes.join(", "))]
    DdlChanged {
        /// What changed.
        changes: Vec<String>,
    },
    /// The archive could not be written; the message names the file.
    #[error("cannot write the dump: {0}")]
    Write(io::Error),
    /// The tool's output could not be read.
    #[error("cannot read the dump from {tool}: {source}")]
    Read {
        /// The tool.
        tool: String,
        /// The system's word.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl DumpError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Server(error) => error.hint()?.to_owned(),
            Self::Tool(error) => error.hint()?.to_owned(),
            Self::Process(error) => error.hint()?.to_owned(),
            Self::MissingPrivileges { missing, .. } => {
                let grants: Vec<_> = missing.iter().map(|m| m.grant_statement.as_str()).collect();
                format!("run on the server, as an administrator: {}", grants.join(" "))
            }
            Self::LockWait { blockers, .. } => match blockers.sessions.first() {
                Some(session) => format!("let session {0} finish, or end it with KILL {0}, then back up again", session.id),
                None => "grant PROCESS (and on MySQL SELECT ON performance_schema.*) to the backup account, so that the session in the way can be named".to_owned(),
            },
            Self::Unsupported { .. } => "set BACKUP_DUMPER=mysqldump, and look whether its dump restores the object".to_owned(),
            Self::Unreadable { .. } => "repair or drop the object; a backup without it would not be complete".to_owned(),
            Self::ToolDenied { .. } => "run `worker grants` and apply what it prints for this account".to_owned(),
            Self::ConnectionLost { .. } => "see the server's error log; it restarted, or somebody ended the session".to_owned(),
            Self::Killed { .. } => "see the system's log (dmesg) for the out-of-memory killer".to_owned(),
            Self::Truncated { .. } | Self::Incomplete { .. } | Self::NoPosition { .. } => {
                "run the tool by hand, and install one of the server's own version".to_owned()
            }
            Self::DdlChanged { .. } => {
                "back up while no migration or package provider runs; on MySQL, BACKUP_ADMIN (on MariaDB, RELOAD) lets the last attempt keep them out".to_owned()
            }
            Self::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                "free space in the backup directory, or point the setting backup_path (or HERATIO_BACKUPS_PATH) at a larger file system".to_owned()
            }
            Self::Write(_) | Self::Read { .. } | Self::ToolFailed { .. } | Self::Cancelled => return None,
        })
    }

    /// Whether another attempt may succeed without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Server(error) => error.is_transient(),
            Self::Tool(error) => error.is_transient(),
            Self::LockWait { .. }
            | Self::ConnectionLost { .. }
            | Self::Killed { .. }
            | Self::Truncated { .. }
            | Self::DdlChanged { .. }
            | Self::Write(_)
            | Self::Read { .. }
            | Self::Process(_)
            | Self::ToolFailed { .. } => true,
            Self::MissingPrivileges { .. }
            | Self::Unreadable { .. }
            | Self::Unsupported { .. }
            | Self::ToolDenied { .. }
            | Self::Incomplete { .. }
            | Self::NoPosition { .. }
            | Self::Cancelled => false,
        }
    }

    /// What the tool's end means. `None`: a changed definition may explain it, which the fingerprints must tell.
    pub(super) fn from_exit(exit: &Exit, tool: &str, bytes: u64) -> Option<Self> {
        let (tool, stderr) = (tool.to_owned(), said(&exit.stderr));
        if let Some(signal) = exit.signal() {
            return Some(Self::Killed { tool, signal, bytes });
        }
        match error_number(&stderr) {
            Some(1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698) => Some(Self::ToolDenied { tool, stderr }),
            Some(1040 | 1053 | 1152 | 1159 | 1161 | 1203 | 1317 | 1927 | 2002 | 2003 | 2005 | 2006 | 2013 | 2055) => {
                Some(Self::ConnectionLost { tool, stderr })
            }
            _ if stderr.contains("insufficient privileges") => Some(Self::ToolDenied { tool, stderr }),
            _ => None,
        }
    }

    /// What [`Self::from_exit`] left to the fingerprints means; `changes` are their differences.
    ///
    /// A tool stumbles over what changed under it in many ways: no such table (1146), "Error in field count", a view whose
    /// table is gone (1356).
    pub(super) fn from_failure(exit: &Exit, tool: &str, changes: &[Change]) -> Self {
        let stderr = said(&exit.stderr);
        if !changes.is_empty() {
            return Self::DdlChanged { changes: changes.iter().map(Change::to_string).collect() };
        }
        match error_number(&stderr) {
            // Table definition has changed: MariaDB's TRUNCATE shows in no definition.
            Some(1412) => Self::DdlChanged { changes: vec![stderr] },
            // A view refers to what is gone; no such definer.
            Some(1356 | 1449) => Self::Unreadable { object: object_in(&stderr), message: stderr },
            _ => Self::ToolFailed { tool: tool.to_owned(), outcome: exit.describe(), stderr },
        }
    }
}

/// The server's word for a lock that was not had in time.
pub(super) const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// What the tool said that matters: warnings come with dumps that are good.
fn said(stderr: &str) -> String {
    let is_warning = |line: &&str| line.starts_with("Warning:") || line.contains("[Warning]") || line.contains("masking policies");
    let lines: Vec<_> = stderr.lines().filter(|line| !is_warning(line)).collect();
    lines.join(" / ").trim().to_owned()
}

/// The server's error number in what a tool said: "... (1356)", "Error 1412: ...", "Got error: 1045: ...".
pub(super) fn error_number(stderr: &str) -> Option<u16> {
    let digits = |text: &str| -> Option<u16> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok().filter(|n| *n >= 1000)
    };
    stderr.lines().rev().find_map(|line| {
        let marks = ["Error ", "error: ", "("];
        marks.iter().find_map(|mark| line.match_indices(mark).find_map(|(at, _)| digits(&line[at + mark.len()..])))
    })
}

/// The first quoted thing that the message is about: "View 'app.bv' references ..." gives "view `app.bv`".
fn object_in(message: &str) -> String {
    let quoted = |mark: &str, quote: char| message.split_once(mark).and_then(|(_, rest)| Some(rest.split_once(quote)?.0.to_owned()));
    if let Some(view) = quoted("View '", '\'') {
        return format!("view `{view}`");
    }
    match quoted("`", '`') {
        Some(name) => format!("`{name}`"),
        None => "an object".to_owned(),
    }
}

fn list(items: &[impl fmt::Display], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Session;
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    fn exit(stderr: &str) -> Exit {
        Exit { program: "mysqldump".to_owned(), status: ExitStatus::from_raw(2 << 8), stderr: stderr.to_owned() }
    }

    const PARTIAL: &str = "Warning: A partial dump from a server that has GTIDs will by default include the GTIDs of all transactions\n";

    #[test]
    fn a_broken_view_is_named() {
        let text = "mysqldump: Couldn't execute 'SHOW FIELDS FROM `bv`': View 'app.bv' references invalid table(s) or column(s) or function(s) \
                    or definer/invoker of view lack rights to use them (1356)";
        let exit = exit(&format!("{PARTIAL}{text}"));
        assert!(DumpError::from_exit(&exit, "mysqldump", 10).is_none(), "its table may have been dropped meanwhile");
        let error = DumpError::from_failure(&exit, "mysqldump", &[]);
        assert!(matches!(&error, DumpError::Unreadable { object, .. } if object == "view `app.bv`"), "{error:?}");
        assert!(!error.to_string().contains("Warning") && !error.is_retryable() && error.hint().is_some());
    }

    #[test]
    fn errors_are_told_apart_by_number() {
        let kind = |stderr: &str| DumpError::from_exit(&exit(stderr), "mysqldump", 10);
        assert!(
            kind("mysqldump: Error 1412: Table definition has changed, please retry transaction when dumping table `t1` at row: 0")
                .is_none()
        );
        assert!(matches!(
            kind("mysqldump: Error 2013: Lost connection to MySQL server during query when dumping table `t1` at row: 3"),
            Some(DumpError::ConnectionLost { .. })
        ));
        assert!(matches!(
            kind("mariadb-dump: Got error: 1045: \"Access denied for user 'x'@'localhost' (using password: YES)\" when trying to connect"),
            Some(DumpError::ToolDenied { .. })
        ));
        assert!(matches!(
            kind("mysqldump: lim has insufficient privileges to SHOW CREATE FUNCTION `f1`!"),
            Some(DumpError::ToolDenied { .. })
        ));
        let killed = Exit { status: ExitStatus::from_raw(9), ..exit("") };
        assert_eq!(DumpError::from_exit(&killed, "mysqldump", 10).unwrap().to_string(), "mysqldump was killed by signal 9 after 10 bytes");
    }

    #[test]
    fn numbers_in_what_tools_say() {
        assert_eq!(
            error_number("mysqldump: Couldn't execute 'FLUSH /*!40101 LOCAL */ TABLES': Lock wait timeout exceeded (1205)"),
            Some(1205)
        );
        assert_eq!(error_number("Error 1412: x (1)"), Some(1412));
        assert_eq!(error_number("nothing (here)"), None);
    }

    #[test]
    fn what_changed_explains_a_failure() {
        let stderr = "mariadb-dump: Error 1412: Table definition has changed, please retry transaction when dumping table `t1` at row: 0";
        let error = DumpError::from_failure(&exit(stderr), "mariadb-dump", &[]);
        assert!(error.is_retryable() && error.to_string().contains("`t1`"), "{error}");
        let gone = exit("mariadb-dump: Couldn't execute 'show create table `m`': Table 'app.m' doesn't exist (1146)");
        assert!(matches!(DumpError::from_failure(&gone, "mariadb-dump", &[]), DumpError::ToolFailed { .. }));
        let change = Change { kind: crate::sql_scan::ObjectKind::Table, name: "z".to_owned(), what: "changed" };
        let error = DumpError::from_failure(&exit("mysqldump: Error in field count for table: `z` !  Aborting."), "mysqldump", &[change]);
        assert_eq!(error.to_string(), "definitions changed during the dump: table `z` was changed");
    }

    #[test]
    fn the_blocking_session_is_named() {
        let session = Session {
            id: 41,
            user: "root".to_owned(),
            host: "h".to_owned(),
            command: "Query".to_owned(),
            seconds: 95,
            ..Session::default()
        };
        let error = DumpError::LockWait {
            what: "take a snapshot".to_owned(),
            waited: Duration::from_secs(60),
            blockers: Blockers { sessions: vec![session], sure: true },
        };
        assert_eq!(error.to_string(), "could not take a snapshot within 60 s: blocked by session 41 (root@h, Query for 95 s)");
        assert!(error.hint().unwrap().contains("KILL 41"));
    }
}
