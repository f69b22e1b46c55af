//! Asking before what destroys: the name has to be typed.

use crate::{App, output::Refused};
use std::io::{self, BufRead, IsTerminal, Write};

/// Has `word` typed, unless `yes`. Anything else, or nobody to ask, is a refusal: exit status 2, nothing enqueued.
#[expect(clippy::print_stderr, reason = "a question is no result")]
pub(crate) fn confirm(app: &App, word: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if app.output.json || !io::stdin().is_terminal() {
        return Err(Refused(format!("this needs a person to type `{word}`, or --yes")).into());
    }
    eprint!("Type `{word}` to go on: ");
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == word {
        return Ok(());
    }
    Err(Refused(format!("that is not `{word}`: nothing was done")).into())
}
