//! What stays out of a file archive.

use rustix::fs::Stat;
use std::path::{Path, PathBuf};

/// One thing that stays out of a file archive, with all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclude {
    /// A path below the component's root, and only there: `vendor` leaves `public/vendor` in.
    /// The last name may hold one `*`, which stands for any part of a name, never for a `/`.
    Anchored(String),
    /// A directory anywhere, recognised by device and inode, however it is reached. One that does not exist
    /// excludes nothing.
    Directory(PathBuf),
    /// What has a name that begins so, anywhere.
    Named(String),
}

/// What is not worth keeping of Heratio's own directory: what `composer install`, `npm run build` and the
/// running application make again, and the packages, which are a component of their own.
pub fn framework_excludes() -> Vec<Exclude> {
    [
        "vendor",
        "node_modules",
        "storage/logs",
        "storage/framework/cache",
        "storage/framework/views",
        "storage/framework/sessions",
        "bootstrap/cache/*.php",
        "public/build",
        "public/hot",
        ".git",
        "packages",
    ]
    .map(|path| Exclude::Anchored(path.to_owned()))
    .to_vec()
}

/// Excludes made ready for a walk: directories are looked up once, at its start.
pub(super) struct Excludes {
    anchored: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    directories: Vec<(FileId, PathBuf)>,
    named: Vec<Vec<u8>>,
}

/// Device and inode: the same for every path to one file.
pub(super) type FileId = (u64, u64);

pub(super) fn file_id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

impl Excludes {
    pub(super) fn new(excludes: &[Exclude]) -> Self {
        let (mut anchored, mut directories, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for exclude in excludes {
            match exclude {
                Exclude::Anchored(pattern) => {
                    let pattern = pattern.trim_matches('/').as_bytes();
                    anchored.push(match pattern.iter().position(|&b| b == b'*') {
                        Some(star) => (pattern[..star].to_vec(), Some(pattern[star + 1..].to_vec())),
                        None => (pattern.to_vec(), None),
                    });
                }
                Exclude::Directory(path) => {
                    if let Ok(stat) = rustix::fs::stat(path.as_path()) {
                        directories.push((file_id(&stat), path.clone()));
                    }
                }
                Exclude::Named(start) => named.push(start.as_bytes().to_vec()),
            }
        }
        Self { anchored, directories, named }
    }

    /// Whether the entry at `path`, relative to the root, is out. What is below it is never asked about.
    pub(super) fn has_path(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        self.named.iter().any(|start| name.starts_with(start)) || self.is_anchored(path)
    }

    fn is_anchored(&self, path: &[u8]) -> bool {
        self.anchored.iter().any(|(start, rest)| match rest {
            None => path == start,
            Some(rest) => path
                .strip_prefix(start.as_slice())
                .and_then(|path| path.strip_suffix(rest.as_slice()))
                .is_some_and(|star| !star.contains(&b'/')),
        })
    }

    /// Whether something below a directory may be out by its path.
    pub(super) fn may_hold(&self, path: &[u8]) -> bool {
        !self.named.is_empty()
            || self.anchored.iter().any(|(start, _)| start.strip_prefix(path).is_some_and(|rest| rest.first() == Some(&b'/')))
    }

    /// The excluded directory that this one is, if it is one.
    pub(super) fn directory(&self, stat: &Stat) -> Option<&Path> {
        let id = file_id(stat);
        self.directories.iter().find(|(excluded, _)| *excluded == id).map(|(_, path)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framework() -> Excludes {
        Excludes::new(&framework_excludes())
    }

    #[test]
    fn every_framework_exclude_is_anchored_at_the_root() {
        for (out, in_) in [
            ("vendor", "public/vendor"),
            ("node_modules", "app/node_modules"),
            ("storage/logs", "app/storage/logs"),
            ("storage/framework/cache", "x/storage/framework/cache"),
            ("storage/framework/views", "resources/views"),
            ("storage/framework/sessions", "storage/framework/testing"),
            ("bootstrap/cache/services.php", "app/bootstrap/cache/services.php"),
            ("public/build", "build"),
            ("public/hot", "hot"),
            (".git", "docs/.git"),
            ("packages", "uploads/packages"),
        ] {
            assert!(framework().has_path(out.as_bytes()), "{out} should be out");
            assert!(!framework().has_path(in_.as_bytes()), "{in_} should be in");
            let longer = format!("{out}x");
            assert!(!framework().has_path(longer.as_bytes()), "{longer} should be in");
        }
        assert_eq!(framework_excludes().len(), 11, "a new exclude needs its line above");
    }

    #[test]
    fn a_star_stands_for_part_of_one_name() {
        let excludes = framework();
        assert!(excludes.has_path(b"bootstrap/cache/.hidden.php"));
        assert!(excludes.has_path(b"bootstrap/cache/.php"));
        assert!(!excludes.has_path(b"bootstrap/cache/.gitignore"));
        assert!(!excludes.has_path(b"bootstrap/cache/deeper/a.php"));
        assert!(!excludes.has_path(b"bootstrap/cache"));
        assert!(!excludes.has_path(b"bootstrap/app.php"));
    }

    #[test]
    fn parents_and_siblings_of_an_exclude_stay_in() {
        for path in ["storage", "storage/framework", "storage/app", "public", "public/index.php", ".gitignore", ".env", "packages.json"] {
            assert!(!framework().has_path(path.as_bytes()), "{path} should be in");
        }
    }
}
