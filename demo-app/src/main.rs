//! `demo-app`: prints or writes the demo application.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use demo_app::{sql, tree};
use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

/// A Heratio-like application to back up: its database and its directories.
#[derive(Parser)]
#[command(version, after_help = "Users of the application: admin / demo-admin (administrator), editor / demo-editor (editor).")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print schema and data as SQL, for the mysql or mariadb client: demo-app sql | mariadb heratio
    Sql(Sql),
    /// Write an application's directories: uploads, packages and the framework around them.
    Tree(Tree),
}

#[derive(Args)]
struct Sql {
    /// Archival descriptions; 20,000 make about 68 MB of SQL, 88,000 about 300 MB
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    descriptions: usize,
    /// Same seed, same text
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Further tables, nearly all of them empty; Heratio has 1,117 in all
    #[arg(long, default_value_t = 0, value_name = "N")]
    many_tables: usize,
}

#[derive(Args)]
struct Tree {
    /// Directory to write, which must not exist or be empty
    dir: PathBuf,
    /// Size of all files together, roughly
    #[arg(long, default_value_t = 60, value_name = "N")]
    mb: u64,
    /// Same seed, same files; the seed of the SQL, for digital objects to find their files
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Sql(Sql { descriptions, seed, many_tables }) => {
            let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            let written = sql::write(&mut out, &sql::Options { descriptions, seed, many_tables }).and_then(|()| out.flush());
            match written {
                // Whoever read it has had enough: `demo-app sql | head`.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other.context("writing SQL to standard output"),
            }
        }
        Command::Tree(Tree { dir, mb, seed }) => {
            let files = tree::write(&dir, &tree::Options { mb, seed }).with_context(|| format!("writing {}", dir.display()))?;
            writeln!(io::stdout(), "{files} files in {}", dir.display())?;
            Ok(())
        }
    }
}
