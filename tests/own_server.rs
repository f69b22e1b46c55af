//! The lines of README.md for one's own server, as they stand, on a server that nobody prepared.

use crate::test_app::{OwnServer, on_both_flavours};
use engine::server::Flavour;
use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

/// The block after the comment that names this file.
fn lines() -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let block = readme.split("<!-- tests/own_server.rs").nth(1).expect("the comment in README.md");
    block.split("```sh\n").nth(1).and_then(|b| b.split("```").next()).expect("a block after it").to_owned()
}

async fn the_readmes_lines_work_as_they_stand(flavour: Flavour) {
    let own = OwnServer::start(flavour);
    let dir = own.0.dir.join("readme");
    for sub in ["bin", "app/packages/x", "app/uploads/y"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
        std::fs::write(dir.join(sub).join("file"), sub).unwrap();
    }
    std::fs::write(dir.join("app/artisan"), "<?php").unwrap();
    own.0.client("CREATE DATABASE heratio; CREATE TABLE heratio.item (id INT PRIMARY KEY); INSERT INTO heratio.item VALUES (1), (2)");
    // `mysql` is the server's own client, whatever this machine calls it.
    let client = if flavour == Flavour::MySql { "mysql" } else { "mariadb" };
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", own.0.bin.join(client).display());
    std::fs::write(dir.join("bin/mysql"), script).unwrap();
    std::fs::set_permissions(dir.join("bin/mysql"), PermissionsExt::from_mode(0o755)).unwrap();

    // A user changes the first five lines, and nothing else.
    let values = [
        ("SOCKET=", own.0.socket.display().to_string()),
        ("SCHEMA=", "heratio".into()),
        ("APPLICATION=", dir.join("app").display().to_string()),
        ("BACKUPS=", dir.join("backups").display().to_string()),
        ("PASSWORD=", "a-Long-one-2".into()),
    ];
    let text: Vec<String> = lines()
        .lines()
        .map(|line| match values.iter().find(|(name, _)| line.starts_with(name)) {
            Some((name, value)) => format!("{name}{value}"),
            // Done with warnings: no mail server is named.
            None if line == "worker check" => "worker check || test $? -eq 3".to_owned(),
            None => line.to_owned(),
        })
        .collect();
    let script = format!("set -euo pipefail\ntrap 'kill $!; wait $!' EXIT\n{}\n", text.join("\n"));
    let exe = std::env::current_exe().unwrap();
    let programs = exe.parent().and_then(Path::parent).unwrap();
    let path = format!("{}:{}:{}:/usr/bin:/bin", dir.join("bin").display(), programs.display(), own.0.bin.display());
    let run = std::env::var("HERATIO_TEST_RUN").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&dir)
        .env_clear()
        .env("PATH", path)
        .env("HERATIO_TEST_RUN", run)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for word in ["is up to date", "ok    privileges", "completed", "database_heratio_", "uploads_", "packages_", "framework_"] {
        assert!(out.contains(word), "`{word}` is not in:\n{out}\n{err}");
    }
    let archives = std::fs::read_dir(dir.join("backups")).unwrap().count();
    assert_eq!(archives, 4, "{out}");
    assert!(!out.contains("a-Long-one-2") && !err.contains("a-Long-one-2"), "a password was shown:\n{out}\n{err}");
}

on_both_flavours!(the_readmes_lines_work_as_they_stand);
