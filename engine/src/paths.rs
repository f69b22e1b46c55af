//! The backup directory: where it may lie, making it, and the room in it.
//!
//! Archives hold the whole database and `.env`. So they may not lie where the web server hands out files, nor inside
//! what is backed up, where each archive would contain all those before it.

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Component, Path, PathBuf},
};

/// Why a directory cannot be the backup directory.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// It lies where it must not.
    #[error("backup directory {} {rule} {}", both(given, resolved), other.display())]
    Refused {
        /// As configured.
        given: PathBuf,
        /// The same without symbolic links and `..`.
        resolved: PathBuf,
        /// What is wrong between the two.
        rule: Rule,
        /// The directory that it collides with, resolved.
        other: PathBuf,
    },
    /// A path leads through a symbolic link to nowhere.
    #[error("{} is a symbolic link to {}, which does not exist", path.display(), target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What it holds.
        target: PathBuf,
    },
    /// There is something else of that name.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The worker's user may not write there, or nobody may.
    #[error("cannot write in the backup directory {}: {source}", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// How a backup directory and another directory collide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The backup directory is, or is inside, a directory that the web server serves.
    InsideWebServed,
    /// The backup directory contains one.
    ContainsWebServed,
    /// The backup directory is, or is inside, the directory of the component named.
    InsideComponent(String),
    /// The backup directory contains it.
    ContainsComponent(String),
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::InsideWebServed => f.write_str("is inside the web-served directory"),
            Self::ContainsWebServed => f.write_str("contains the web-served directory"),
            Self::InsideComponent(component) => write!(f, "is inside the {component} directory"),
            Self::ContainsComponent(component) => write!(f, "contains the {component} directory"),
        }
    }
}

impl PathsError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { .. } => Some(
                "point the setting backup_path (or HERATIO_BACKUPS_PATH) at a directory of its own, for example /var/lib/heratio/backups",
            ),
            Self::Dangling { .. } => Some("see that the file system behind the link is mounted, or mend the link"),
            Self::NotADirectory(_) => Some("point the setting backup_path (or HERATIO_BACKUPS_PATH) at a directory"),
            Self::NotWritable { .. } => Some("the worker's user must own the backup directory, on a file system mounted read-write"),
            Self::Io { .. } => None,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Refuses a backup directory that is, is inside, or contains a web-served directory or a component's directory, and
/// returns its resolved path. None of the directories needs to exist.
///
/// `components` are names and directories (`uploads`, `packages`); one called `framework` is ignored, since the
/// backup directory may lie inside `framework_root`, though neither be nor contain it. Web-served are `web_dirs`,
/// the framework's `public`, and what symbolic links directly in those lead to: Laravel's `public/storage` makes
/// `storage/app/public` one. Paths are compared resolved, and where they exist also by device and inode, so that
/// neither a link nor a bind mount hides anything.
pub fn check_backup_dir(
    backup_dir: &Path,
    components: &[(&str, &Path)],
    framework_root: Option<&Path>,
    web_dirs: &[&Path],
) -> Result<PathBuf, PathsError> {
    let resolved = resolve(backup_dir)?;
    let refuse =
        |rule: Rule, other: PathBuf| Err(PathsError::Refused { given: backup_dir.to_owned(), resolved: resolved.clone(), rule, other });

    let public = framework_root.map(|root| root.join("public"));
    for web_dir in web_dirs.iter().copied().chain(public.as_deref()) {
        let web_dir = resolve(web_dir)?;
        if is_inside(&resolved, &web_dir) {
            return refuse(Rule::InsideWebServed, web_dir);
        }
        if is_inside(&web_dir, &resolved) {
            return refuse(Rule::ContainsWebServed, web_dir);
        }
        for linked in linked_directories(&web_dir) {
            if is_inside(&resolved, &linked) {
                return refuse(Rule::InsideWebServed, linked);
            }
        }
    }

    let packages = framework_root.map(|root| root.join("packages"));
    let packages = packages.iter().map(|path| ("packages", path.as_path()));
    for (component, directory) in components.iter().copied().filter(|(component, _)| *component != "framework").chain(packages) {
        let directory = resolve(directory)?;
        if is_inside(&resolved, &directory) {
            return refuse(Rule::InsideComponent(component.to_owned()), directory);
        }
        if is_inside(&directory, &resolved) {
            return refuse(Rule::ContainsComponent(component.to_owned()), directory);
        }
    }

    if let Some(root) = framework_root {
        let root = resolve(root)?;
        if is_inside(&root, &resolved) {
            return refuse(Rule::ContainsComponent("framework".to_owned()), root);
        }
    }
    Ok(resolved)
}

/// A backup directory that exists and can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupDir {
    /// Its resolved path: a link on the way there may change later, the archives stay where they are.
    pub path: PathBuf,
    /// What a person should know: that others may read or write it.
    pub warning: Option<String>,
}

/// Makes the backup directory, mode 0700, where it is missing, and its parents 0755.
///
/// A directory that is there already keeps its mode, because it may be shared for a reason, and the archives in it
/// are 0600 whatever its mode is; one that others may read or write is warned about. It may be a symbolic link.
/// Crash story: each directory made is synced into its parent, so that it outlives a power cut with what is in it.
pub fn ensure_backup_dir(dir: &Path) -> Result<BackupDir, PathsError> {
    let path = resolve(dir)?;
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for directory in missing.into_iter().rev() {
        let mode = if directory == path { 0o700 } else { 0o755 };
        match DirBuilder::new().mode(mode).create(directory) {
            // Another worker was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(PathsError::io("create", directory))?,
        }
        let parent = directory.parent().unwrap_or(directory);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(PathsError::io("sync", parent))?;
    }

    let metadata = fs::metadata(&path).map_err(PathsError::io("look at", &path))?;
    if !metadata.is_dir() {
        return Err(PathsError::NotADirectory(path));
    }
    if let Err(error) = accessat(CWD, &path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        return Err(PathsError::NotWritable { path, source: error.into() });
    }
    Ok(BackupDir { warning: mode_warning(&path, metadata.mode() & 0o7777), path })
}

/// Bytes that the worker's user can still write at `dir`, or where it will be made.
pub fn free_bytes(dir: &Path) -> Result<u64, PathsError> {
    let resolved = resolve(dir)?;
    let existing = resolved.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = statvfs(existing).map_err(|error| PathsError::io("ask for the free space of", existing)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The absolute path without `.`, `..` and symbolic links. What does not exist yet stays as it is written.
fn resolve(path: &Path) -> Result<PathBuf, PathsError> {
    let absolute = std::path::absolute(path).map_err(PathsError::io("resolve", path))?;
    let mut resolved = PathBuf::from("/");
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::Normal(name) => {
                resolved.push(name);
                match fs::canonicalize(&resolved) {
                    Ok(canonical) => resolved = canonical,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        if let Ok(target) = fs::read_link(&resolved) {
                            return Err(PathsError::Dangling { path: resolved, target });
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                        resolved.pop();
                        return Err(PathsError::NotADirectory(resolved));
                    }
                    Err(error) => return Err(PathsError::io("resolve", &resolved)(error)),
                }
            }
            _ => {}
        }
    }
    Ok(resolved)
}

/// Whether `inner` is `outer` or lies in it; both resolved.
fn is_inside(inner: &Path, outer: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    inner.starts_with(outer) || id(outer).is_some_and(|outer| inner.ancestors().any(|path| id(path) == Some(outer)))
}

/// Where symbolic links directly in `dir` lead to, if to directories. One that cannot be read has none that we know.
fn linked_directories(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
        .filter_map(|entry| fs::canonicalize(entry.path()).ok())
        .filter(|path| path.is_dir())
        .collect()
}

fn mode_warning(path: &Path, mode: u32) -> Option<String> {
    let may = match mode {
        mode if mode & 0o022 != 0 => "write",
        mode if mode & 0o055 != 0 => "look",
        _ => return None,
    };
    let path = path.display();
    Some(format!("other users may {may} in the backup directory {path} (mode {mode:04o}): chmod 700 {path}"))
}

fn both(given: &Path, resolved: &Path) -> String {
    if given.as_os_str() == resolved.as_os_str() {
        given.display().to_string()
    } else {
        format!("{} ({})", given.display(), resolved.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    /// A host as Heratio's installer leaves it, below a temporary directory.
    fn host() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        for path in ["srv/uploads/deep", "srv/up", "heratio/public", "heratio/packages/ahg", "heratio/storage/app/public", "var", "data"] {
            fs::create_dir_all(base.join(path)).unwrap();
        }
        symlink("../storage/app/public", base.join("heratio/public/storage")).unwrap();
        symlink("../srv/uploads", base.join("var/link")).unwrap();
        symlink("../var", base.join("srv/out")).unwrap();
        symlink(base.join("heratio"), base.join("current")).unwrap();
        symlink("nowhere", base.join("dangling")).unwrap();
        (dir, base)
    }

    fn check(base: &Path, backup_dir: &str) -> Result<PathBuf, PathsError> {
        let (uploads, framework) = (base.join("srv/uploads"), base.join("heratio"));
        check_backup_dir(
            // Not `join`, which would tidy up.
            Path::new(&format!("{}/{backup_dir}", base.display())),
            &[("uploads", &uploads), ("framework", &framework)],
            Some(&framework),
            &[&base.join("data/web")],
        )
    }

    #[test]
    fn allowed_directories() {
        let (_dir, base) = host();
        for (given, resolved) in [
            ("srv/up", "srv/up"),
            ("srv/uploads2", "srv/uploads2"),
            ("srv/upload", "srv/upload"),
            ("var/backups/", "var/backups"),
            ("var/./new//deep", "var/new/deep"),
            ("heratio/storage/backups", "heratio/storage/backups"),
            ("heratio/storage/app", "heratio/storage/app"),
            ("heratio/packages2", "heratio/packages2"),
            ("current/storage/backups", "heratio/storage/backups"),
            ("srv/uploads/../backups", "srv/backups"),
            ("srv/out/backups", "var/backups"),
            // `..` after a link is the parent of where it leads.
            ("srv/out/../backups", "backups"),
            ("data/webs", "data/webs"),
        ] {
            match check(&base, given) {
                Ok(path) => assert_eq!(path, base.join(resolved), "{given}"),
                Err(error) => panic!("{given}: {error}"),
            }
        }
    }

    #[test]
    fn refused_directories() {
        use Rule::{ContainsComponent, ContainsWebServed, InsideComponent, InsideWebServed};
        let (_dir, base) = host();
        let uploads = || "uploads".to_owned();
        for (given, rule, other) in [
            ("srv/uploads", InsideComponent(uploads()), "srv/uploads"),
            ("srv/uploads/", InsideComponent(uploads()), "srv/uploads"),
            ("srv/uploads/backups", InsideComponent(uploads()), "srv/uploads"),
            ("srv/uploads/deep/../not/there", InsideComponent(uploads()), "srv/uploads"),
            ("srv/not-there/../uploads/x", InsideComponent(uploads()), "srv/uploads"),
            ("var/link", InsideComponent(uploads()), "srv/uploads"),
            ("var/link/backups", InsideComponent(uploads()), "srv/uploads"),
            ("srv/out/link/backups", InsideComponent(uploads()), "srv/uploads"),
            ("srv", ContainsComponent(uploads()), "srv/uploads"),
            ("srv/up/..", ContainsComponent(uploads()), "srv/uploads"),
            ("heratio/packages", InsideComponent("packages".to_owned()), "heratio/packages"),
            ("heratio/packages/ahg", InsideComponent("packages".to_owned()), "heratio/packages"),
            ("current/packages/x", InsideComponent("packages".to_owned()), "heratio/packages"),
            ("heratio/public/backups", InsideWebServed, "heratio/public"),
            ("heratio/public/storage", InsideWebServed, "heratio/storage/app/public"),
            ("heratio/storage/app/public/backups", InsideWebServed, "heratio/storage/app/public"),
            ("heratio", ContainsWebServed, "heratio/public"),
            ("current", ContainsWebServed, "heratio/public"),
            ("data", ContainsWebServed, "data/web"),
            ("data/web/backups", InsideWebServed, "data/web"),
        ] {
            let error = check(&base, given).expect_err(given);
            let PathsError::Refused { rule: found, other: with, .. } = &error else { panic!("{given}: {error}") };
            assert_eq!((found, with), (&rule, &base.join(other)), "{given}");
            let message = error.to_string();
            assert!(
                message.contains(&format!("{}/{given}", base.display())) && message.ends_with(&with.display().to_string()),
                "{message}"
            );
            assert!(error.hint().unwrap().contains("HERATIO_BACKUPS_PATH"));
        }
        let base = base.display();
        assert_eq!(
            check(Path::new(&base.to_string()), "var/link/backups").unwrap_err().to_string(),
            format!(
                "backup directory {base}/var/link/backups ({base}/srv/uploads/backups) is inside the uploads directory {base}/srv/uploads"
            )
        );
    }

    #[test]
    fn a_framework_without_public_is_still_not_the_backup_directory() {
        let (_dir, base) = host();
        let error = check_backup_dir(&base.join("var"), &[], Some(&base.join("var/app")), &[]).unwrap_err();
        assert!(error.to_string().contains("contains the web-served directory"), "{error}");
        assert!(check_backup_dir(&base.join("var/app/x"), &[], Some(&base.join("var/app")), &[]).is_ok());
        assert!(check_backup_dir(&base.join("var"), &[], None, &[]).is_ok());
    }

    #[test]
    fn paths_that_cannot_be_resolved() {
        let (_dir, base) = host();
        fs::write(base.join("file"), "").unwrap();
        let error = check(&base, "dangling/backups").unwrap_err();
        assert_eq!(error.to_string(), format!("{}/dangling is a symbolic link to nowhere, which does not exist", base.display()));
        let error = check(&base, "file/backups").unwrap_err();
        assert_eq!(error.to_string(), format!("{}/file is not a directory", base.display()));
    }

    #[test]
    fn a_missing_directory_is_made_private() {
        let (_dir, base) = host();
        let made = ensure_backup_dir(&base.join("var/lib/heratio/backups/")).unwrap();
        assert_eq!(made, BackupDir { path: base.join("var/lib/heratio/backups"), warning: None });
        assert_eq!(fs::metadata(&made.path).unwrap().mode() & 0o7777, 0o700);
        assert_ne!(fs::metadata(base.join("var/lib")).unwrap().mode() & 0o7777, 0o700, "parents are not ours");
        assert_eq!(ensure_backup_dir(&made.path).unwrap(), made);
    }

    #[test]
    fn an_existing_directory_keeps_its_mode() {
        let (_dir, base) = host();
        let path = base.join("data");
        symlink(&path, base.join("to data")).unwrap();
        for (mode, warning) in [(0o700, None), (0o755, Some("may look in")), (0o750, Some("may look in")), (0o770, Some("may write in"))] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let found = ensure_backup_dir(&base.join("to data")).unwrap();
            assert_eq!(found.path, path);
            assert_eq!(found.warning.is_some(), warning.is_some(), "{mode:o}");
            if let (Some(text), Some(warning)) = (&found.warning, warning) {
                assert!(text.contains(warning) && text.contains(&format!("{mode:04o}")), "{text}");
            }
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
        fs::write(base.join("file"), "").unwrap();
        assert!(matches!(ensure_backup_dir(&base.join("file")), Err(PathsError::NotADirectory(_))));
        assert!(matches!(ensure_backup_dir(&base.join("dangling")), Err(PathsError::Dangling { .. })));
        assert!(matches!(ensure_backup_dir(Path::new("/proc/backups")), Err(PathsError::Io { action: "create", .. })));
        let error = ensure_backup_dir(Path::new("/proc/self")).unwrap_err();
        assert!(matches!(error, PathsError::NotWritable { .. }), "{error}");
    }

    #[test]
    fn free_space_is_that_of_the_file_system() {
        let (_dir, base) = host();
        let here = free_bytes(&base).unwrap();
        assert!(here > 0);
        assert!(free_bytes(&base.join("not/there")).unwrap().abs_diff(here) < 1 << 30);
        assert_eq!(free_bytes(Path::new("/proc")).unwrap(), 0);
    }
}
