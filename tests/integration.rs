//! Integration tests: one file per kind or promise, on real servers that `./test` starts.
//!
//! Every test has its own schemas and directories; `test_app` makes and removes them. Run them with `./test FILTER`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test that panics or prints does what it is for")]

mod test_app;

mod backup;
mod crash;
mod cut_over;
mod delete;
mod dumper;
mod failures;
mod health;
mod history;
mod in_place;
mod large_restore;
mod line;
mod load;
mod migrate;
mod nodes;
mod notify;
mod own_server;
mod prune;
mod queue;
mod restore;
mod restore_files;
mod restore_plan;
mod schedule;
mod smtp_sink;
mod snapshot;
mod sql_procedures;
mod stopping;
mod undo;
mod verify;
