//! The kind `backup`.

use crate::test_app::{TestApp, on_both_flavours};
use engine::{archive::read_manifest, server::Flavour};
use jobs::{backup::Backup, component::Component};
use std::process::Command;

/// Runs a program to its end and returns its output; panics with its error.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn file_components_come_back_with_gnu_tar(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    app.worker();
    let files = vec![Component::Uploads, Component::Packages, Component::Framework];
    let id = app.enqueue(&Backup { components: files, label: Some("files".into()) }).await;
    let job = app.completed(id).await;
    let result = job.result.unwrap();
    assert_eq!(result["files"].as_array().unwrap().len(), 3);
    for file in result["files"].as_array().unwrap() {
        let path = app.backups_dir().join(file["file_name"].as_str().unwrap());
        assert!(read_manifest(&path).unwrap().is_some());
        run(Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(app.dir.join("backups")));
    }
    run(Command::new("diff").arg("-r").arg(app.dir.join("uploads")).arg(app.backups_dir().join("uploads")));
    run(Command::new("diff").arg("-r").arg(app.dir.join("root/packages")).arg(app.backups_dir().join("packages")));
    assert!(app.backups_dir().join("root/app/a.php").exists());
    assert!(!app.backups_dir().join("root/packages").exists());
}

on_both_flavours!(file_components_come_back_with_gnu_tar);
