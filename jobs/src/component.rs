//! What a backup contains, and what a job may need for itself.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A part of a backup, and the resource that a job on it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The application database.
    Database,
    /// The uploads directory.
    Uploads,
    /// `{HERATIO_ROOT}/packages`. Heratio's older word, `plugins`, is accepted.
    #[serde(alias = "plugins")]
    Packages,
    /// The application root, without what can be rebuilt and without the other components.
    Framework,
}

impl Component {
    /// All of them, in the order in which they are made: the database first, since it matters most.
    pub const ALL: [Self; 4] = [Self::Database, Self::Uploads, Self::Packages, Self::Framework];

    /// The word in SQL, file names and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Uploads => "uploads",
            Self::Packages => "packages",
            Self::Framework => "framework",
        }
    }

    /// Name of the archive made at `stamp` (`YYYY-MM-DD_HHMMSS`, UTC).
    pub fn file_name(self, schema: &str, stamp: &str) -> String {
        match self {
            // A schema may be called anything; a file name may not hold a slash, and a leading dot hides it.
            Self::Database => {
                let safe: String = schema.chars().map(|c| if c == '/' || c == '\0' || c.is_control() { '_' } else { c }).collect();
                format!("database_{safe}_{stamp}.sql.gz")
            }
            other => format!("{other}_{stamp}.tar.gz"),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Component {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word.trim() {
            "plugins" => Ok(Self::Packages),
            word => Self::ALL
                .into_iter()
                .find(|c| c.as_str() == word)
                .ok_or_else(|| format!("`{word}` is not a component; there are database, uploads, packages (or plugins) and framework")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for component in Component::ALL {
            assert_eq!(component.as_str().parse(), Ok(component));
            assert_eq!(serde_json::to_value(component).unwrap(), component.as_str());
        }
        assert_eq!("plugins".parse(), Ok(Component::Packages));
        assert!("everything".parse::<Component>().is_err());
        assert_eq!(Component::Database.file_name("a/b", "2026-11-24_020000"), "database_a_b_2026-11-24_020000.sql.gz");
        assert_eq!(Component::Packages.file_name("x", "2026-11-24_020000"), "packages_2026-11-24_020000.tar.gz");
    }
}
