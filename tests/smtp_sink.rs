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
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse();
        let port = port
            .unwrap_or_else(|_| panic!("the mail server did not start: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default()));
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

/// An authority and a certificate of it for 127.0.0.1, in this directory.
pub(crate) fn certificate(dir: &Path) {
    let openssl = |args: &str| {
        let ran = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(ran.status.success(), "{args}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=sink -keyout key.pem -out request.pem");
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem");
}
