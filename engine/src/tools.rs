//! The database's client tools: found by the server's flavour, and refused when they are the other family's.

use crate::{
    process::{Command, ProcessError, file_name},
    server::Flavour,
};
use std::{
    ffi::OsStr,
    fmt, io,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What a tool is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Writes a schema as SQL: mysqldump, mariadb-dump.
    Dump,
    /// Reads SQL: mysql, mariadb.
    Client,
    /// Reads binary logs: mysqlbinlog, mariadb-binlog.
    Binlog,
}

/// A tool that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTool {
    /// The program.
    pub path: PathBuf,
    /// Its name and version in one line: "mariadb-dump Ver 10.19 Distrib 10.11.19-MariaDB, ...".
    pub version: String,
}

/// Why a tool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is nowhere.
    #[error("{} is not installed: looked for {} in {}", names[0], names.join(" and "), looked_in(dir.as_deref()))]
    Missing {
        /// The names looked for.
        names: &'static [&'static str],
        /// The configured directory.
        dir: Option<PathBuf>,
        /// The family needed.
        flavour: Flavour,
    },
    /// It is the other family's; neither reads the other's server well, nor its binary logs at all.
    #[error("{} is {}'s and the server {flavour}'s: it says \"{version}\"; looked in {}", path.display(), flavour.other(), looked_in(dir.as_deref()))]
    WrongFlavour {
        /// The program found.
        path: PathBuf,
        /// What it says of itself.
        version: String,
        /// The configured directory.
        dir: Option<PathBuf>,
        /// The family needed.
        flavour: Flavour,
    },
    /// It does not even tell its version.
    #[error("{} {option} {outcome}", path.display())]
    Broken {
        /// The program.
        path: PathBuf,
        /// What it was asked.
        option: &'static str,
        /// How it ended, and its stderr.
        outcome: String,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// It could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl ToolError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { flavour, .. } | Self::WrongFlavour { flavour, .. } => Some(match flavour {
                Flavour::MariaDb => {
                    "install the package mariadb-client, or set BACKUP_TOOLS_DIR to the directory of MariaDB's client tools"
                }
                Flavour::MySql => {
                    "install MySQL's client tools (package mysql-client or mysql-client-core; default-mysql-client is MariaDB's on Debian), \
                     or set BACKUP_TOOLS_DIR to their directory"
                }
            }),
            Self::Broken { signal: Some(_), .. } => Some("see the system's log (dmesg) for the out-of-memory killer"),
            Self::Broken { .. } => Some("run it by hand; a library may be missing"),
            Self::Process(error) => error.hint(),
        }
    }

    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Broken { signal: Some(_), .. })
    }
}

impl Tool {
    /// The names under which it goes, best first.
    pub fn names(self, flavour: Flavour) -> &'static [&'static str] {
        match (flavour, self) {
            // Before 10.5 MariaDB's tools had MySQL's names only.
            (Flavour::MariaDb, Self::Dump) => &["mariadb-dump", "mysqldump"],
            (Flavour::MariaDb, Self::Client) => &["mariadb", "mysql"],
            (Flavour::MariaDb, Self::Binlog) => &["mariadb-binlog", "mysqlbinlog"],
            (Flavour::MySql, Self::Dump) => &["mysqldump"],
            (Flavour::MySql, Self::Client) => &["mysql"],
            (Flavour::MySql, Self::Binlog) => &["mysqlbinlog"],
        }
    }

    /// Finds it in `dir`, then on PATH, and asks its version.
    ///
    /// A program of the other family is passed over, and named if no right one follows.
    pub async fn find(self, flavour: Flavour, dir: Option<&Path>) -> Result<FoundTool, ToolError> {
        self.find_in(flavour, dir, &std::env::var_os("PATH").unwrap_or_default()).await
    }

    async fn find_in(self, flavour: Flavour, dir: Option<&Path>, path: &OsStr) -> Result<FoundTool, ToolError> {
        let names = self.names(flavour);
        let mut wrong = None;
        for place in dir.map(Path::to_owned).into_iter().chain(std::env::split_paths(path)) {
            for program in names.iter().map(|name| place.join(name)).filter(|program| is_executable(program)) {
                let version = version(&program).await?;
                if flavour_of(&version) == flavour {
                    return Ok(FoundTool { path: program, version });
                }
                wrong.get_or_insert((program, version));
            }
        }
        let dir = dir.map(Path::to_owned);
        Err(match wrong {
            Some((path, version)) => ToolError::WrongFlavour { path, version, dir, flavour },
            None => ToolError::Missing { names, dir, flavour },
        })
    }
}

impl FoundTool {
    /// Whether its help knows `--option`: a feature asked for, not guessed from the version.
    pub async fn has_option(&self, option: &str) -> Result<bool, ToolError> {
        let help = output(&self.path, "--help").await?;
        let is_it = |word: &str| word.strip_prefix("--").is_some_and(|w| w.split(['=', '[']).next() == Some(option));
        Ok(help.split_whitespace().any(is_it))
    }
}

impl fmt::Display for FoundTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)
    }
}

/// MariaDB's tools say so in their version; MySQL's say "MySQL", their distributor's name or nothing.
fn flavour_of(version: &str) -> Flavour {
    // The first word is the file's name, which may be anything.
    let said = version.split_once(' ').map_or("", |(_, said)| said);
    match said.to_lowercase().contains("mariadb") {
        true => Flavour::MariaDb,
        false => Flavour::MySql,
    }
}

/// The one line that `--version` prints, spaces collapsed, without the directory that some print.
async fn version(program: &Path) -> Result<String, ToolError> {
    let text = output(program, "--version").await?;
    let line = text.lines().next().unwrap_or_default().split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    Ok(format!("{} {line}", file_name(program)))
}

/// What a tool says when it is run with one option.
async fn output(program: &Path, option: &'static str) -> Result<String, ToolError> {
    let broken = |outcome, signal| ToolError::Broken { path: program.to_owned(), option, outcome, signal };
    let mut command = Command::new(program).arg("--no-defaults").arg(option);
    let mut stdout = command.pipe_stdout().map_err(|e| broken(e.to_string(), None))?;
    let mut child = command.spawn().await?;
    let read = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        stdout.by_ref().take(1 << 20).read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let text = read.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| broken(e.to_string(), None))?;
    let exit = child.wait().await?;
    match exit.success() {
        true => Ok(text),
        false => Err(broken(format!("{}: {}", exit.describe(), exit.stderr), exit.signal())),
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn looked_in(dir: Option<&Path>) -> String {
    match dir {
        Some(dir) => format!("{} and on PATH", dir.display()),
        None => "the directories of PATH".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARIADB: &str = "mysqldump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)";
    const MYSQL: &str = "/opt/mysql/bin/mysqldump  Ver 9.7.4-2 for Linux on x86_64 ((Debian))";

    fn script(dir: &Path, name: &str, body: &str) {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn the_flavour_decides() {
        let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        script(dirs.0.path(), "mysqldump", &format!("echo '{MARIADB}'"));
        script(dirs.1.path(), "mysqldump", &format!("echo '{MYSQL}'"));
        let path = std::env::join_paths([dirs.0.path(), dirs.1.path()]).unwrap();

        let found = Tool::Dump.find_in(Flavour::MySql, None, &path).await.unwrap();
        assert_eq!(found.path, dirs.1.path().join("mysqldump"));
        assert_eq!(found.version, "mysqldump Ver 9.7.4-2 for Linux on x86_64 ((Debian))");
        let found = Tool::Dump.find_in(Flavour::MariaDb, Some(dirs.0.path()), &path).await.unwrap();
        assert_eq!(found.version, "mysqldump Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)");

        let error = Tool::Dump.find_in(Flavour::MySql, Some(dirs.0.path()), OsStr::new("")).await.unwrap_err();
        assert!(matches!(&error, ToolError::WrongFlavour { .. }) && error.to_string().contains("10.11.19-MariaDB"), "{error}");
        assert!(error.hint().unwrap().contains("mysql-client"));
    }

    #[tokio::test]
    async fn a_missing_tool_is_named_with_the_places_looked_in() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tool::Binlog.find_in(Flavour::MariaDb, Some(dir.path()), OsStr::new("/nowhere")).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("mariadb-binlog") && text.contains(&*dir.path().to_string_lossy()), "{text}");
        assert!(error.hint().unwrap().contains("mariadb-client"));
    }

    #[tokio::test]
    async fn a_tool_that_cannot_start_says_why() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "mysql", "echo 'libfoo.so.1: cannot open shared object file' >&2; exit 127");
        let error = Tool::Client.find_in(Flavour::MySql, Some(dir.path()), OsStr::new("")).await.unwrap_err();
        assert!(error.to_string().contains("libfoo") && error.to_string().contains("status 127"), "{error}");
        assert!(!error.is_transient());
        script(dir.path(), "mysql", "kill -9 $$");
        let error = Tool::Client.find_in(Flavour::MySql, Some(dir.path()), OsStr::new("")).await.unwrap_err();
        assert!(error.to_string().contains("killed by signal 9") && error.is_transient(), "{error}");
    }
}
