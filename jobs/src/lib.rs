//! The kinds of jobs, one file each; the queue that runs them; the catalog they fill; the configuration they read.
//!
//! `engine` does the work and knows no queue; `worker`, `enqueue` and the tests use this crate.

pub mod archive_source;
pub mod backup;
pub mod catalog;
pub mod component;
pub mod config;
pub mod cut_over;
pub mod delete;
pub mod exclusive;
pub mod failpoint;
pub mod file_plan;
pub mod health;
pub mod hooks;
pub mod in_place;
pub mod job;
pub mod made_schemas;
pub mod migrate;
pub mod notify;
pub mod prune;
pub mod queue;
pub mod register;
pub mod restore;
pub mod restore_plan;
pub mod retention;
pub mod schedule;
pub mod settings;
pub mod state;
#[cfg(any(debug_assertions, feature = "test-kinds"))]
pub mod test_kinds;
pub mod trees;
pub mod undo;
pub mod units;
pub mod verify;
