//! The one vocabulary of states: in SQL, in Rust, on pages and in docs. Drawn in ARCHITECTURE.md.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub enum State {
    /// Waiting: for its time, for a worker, for a resource, or between two attempts. A worker's claim or a cancel moves it on.
    Available,
    /// A worker holds its lease. The worker's last word moves it on, or the reaper's when the lease ran out.
    Running,
    /// Final: done.
    Completed,
    /// Final: done, with something that a person should read.
    CompletedWithWarnings,
    /// Final: not done; `error` says why and what to do next.
    Failed,
    /// Final: a person asked to stop it.
    Cancelled,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [State; 6] =
        [Self::Available, Self::Running, Self::Completed, Self::CompletedWithWarnings, Self::Failed, Self::Cancelled];

    /// The word in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::CompletedWithWarnings => "completed_with_warnings",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing moves a job out of this state but a person.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Available | Self::Running)
    }

    /// Reads the word; the table's CHECK admits no other.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
