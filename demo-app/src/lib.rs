//! A Heratio-like application to back up: its database as SQL text, and its directories.
//!
//! Names of tables, columns and ids are those that Heratio's programs rely on; the schema itself, the data and the
//! files are made up here, the same for the same seed on every machine. The data is there to be hard on a backup: see
//! `schema.sql`, `programs.sql` and `text.rs` for what it has in it.
//!
//! The first digital objects of the database have their files in the tree of the same seed, below `uploads`, with the
//! sizes and SHA-256 checksums that the database states.

mod files;
mod model;
mod rng;
mod rows;
pub mod sql;
mod text;
pub mod tree;

/// Password of the user `admin`, in group 100 (administrator).
pub const ADMIN_PASSWORD: &str = "demo-admin";

/// Password of the user `editor`, in group 101.
pub const EDITOR_PASSWORD: &str = "demo-editor";
