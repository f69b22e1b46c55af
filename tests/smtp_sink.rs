//! A mail server for one test: `smtp_sink.py`, whose Python packages `./test` installs.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Ends with the test.
pub(crate) struct Sink {
    child: Child,
    dir: PathBuf,
    pub(crate) port: u16,
}

impl Sink {
    /// Starts one that keeps its mails in `dir`; `args` as its help says.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let packages = std::env::var_os("HERATIO_TEST_PYTHON").expect("HERATIO_TEST_PYTHON is unset: run these tests with ./test");
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/smtp_sink.py"))
            .arg(dir)
            .args(args)
            .env("PYTHONPATH", packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the mail server did not start; its error is above");
        Self { child, dir: dir.to_owned(), port }
    }

    /// The mails that it took, oldest first.
    pub(crate) fn mails(&self) -> Vec<Value> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&self.dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
        paths.sort();
        paths.iter().map(|p| serde_json::from_slice(&std::fs::read(p).unwrap()).unwrap()).collect()
    }

    pub(crate) fn subjects(&self) -> Vec<String> {
        self.mails().iter().map(|m| m["headers"]["subject"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
