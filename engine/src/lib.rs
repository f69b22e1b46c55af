//! What it takes to back up, verify, ship and restore; knows no queue.
//!
//! Plain values in, plain values out: no row, no job id. Every module has its own error enum
//! (`thiserror`), because callers choose by it; jobs add what only they know with `anyhow`.

pub mod archive;
pub mod checksum;
pub mod control;
pub mod cut_over;
pub mod dump;
pub mod effort;
pub mod files;
pub mod fingerprint;
pub mod foreign;
pub mod gzip;
pub mod identity;
pub mod load;
pub mod manifest;
pub mod option_file;
pub mod paths;
pub mod privileges;
pub mod process;
pub mod section_writer;
pub mod server;
pub mod sessions;
mod socket_login;
pub mod sql;
pub mod sql_scan;
pub mod stored_code;
pub mod table;
pub mod tools;
pub mod tuple;
pub mod verify;
mod wire;
