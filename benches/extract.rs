//! Unpacks an archive of files into an empty directory, as a restore does after it has checked every name. For `benches/files`.

use anyhow::Context as _;
use engine::{control::Control, effort::Effort, files::extract::extract};
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (archive, into) = (args.next().context("ARCHIVE DIR")?, args.next().context("ARCHIVE DIR")?);
    let threads = std::thread::available_parallelism()?.get();
    extract(&archive, &into, &into, &Effort::full(threads), &Control::default())?;
    Ok(())
}
