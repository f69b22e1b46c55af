//! Integration tests: one file per kind or promise, on real servers that `./test` starts.
//!
//! Every test has its own schemas and directories; `test_app` makes and removes them. Run them with `./test FILTER`.

mod test_app;

mod backup;
mod crash;
mod failures;
mod health;
mod migrate;
mod notify;
mod queue;
mod smtp_sink;
mod snapshot;
