//! Nodes: a job goes where its files are, and one whose node is gone waits, says so, and can be moved.

use crate::test_app::{TestApp, on_both_flavours};
use engine::server::Flavour;
use jobs::{
    backup::Backup,
    component::Component,
    queue::{NewJob, enqueue},
    state::State,
    test_kinds::TestUnique,
};
use std::path::PathBuf;

/// Gives a node directories of its own, with a file that tells them apart; returns the environment of its workers.
fn node(app: &TestApp, name: &str) -> Vec<(&'static str, String)> {
    let dir = app.dir.join(name);
    for sub in ["uploads", "backups"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    std::fs::write(dir.join("uploads").join(format!("of_{name}")), name).unwrap();
    let path = |sub: &str| dir.join(sub).display().to_string();
    vec![("BACKUP_NODE", name.to_owned()), ("HERATIO_UPLOADS_PATH", path("uploads")), ("HERATIO_BACKUPS_PATH", path("backups"))]
}

fn worker(app: &mut TestApp, node: &[(&'static str, String)]) -> usize {
    let env: Vec<(&str, &str)> = node.iter().map(|(k, v)| (*k, v.as_str())).collect();
    app.worker_with(&env, &[])
}

fn uploads() -> Backup {
    Backup { components: vec![Component::Uploads], label: None }
}

async fn enqueue_on(app: &TestApp, node: &str) -> u64 {
    let job = NewJob { node: Some(node.into()), ..NewJob::new(&uploads(), "test", "test").unwrap() };
    enqueue(&mut app.server.connect(Some(&app.control())).await, &job).await.unwrap().id
}

async fn jobs_go_where_their_files_are(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let (a, b) = (node(&app, "a"), node(&app, "b"));
    for env in [&a, &a, &b] {
        worker(&mut app, env);
    }
    let mut archives = Vec::new();
    for _ in 0..3 {
        for name in ["a", "b"] {
            let id = enqueue_on(&app, name).await;
            archives.push((id, name));
        }
    }
    for (id, name) in &archives {
        let job = app.completed(*id).await;
        assert_eq!(job.node.as_deref(), Some(*name), "{job:#?}");
        let file = &job.result.unwrap()["files"][0];
        let path = PathBuf::from(file["directory"].as_str().unwrap()).join(file["file_name"].as_str().unwrap());
        assert!(path.starts_with(app.dir.join(name).join("backups")) && path.exists(), "{}", path.display());
        let listed = std::process::Command::new("tar").arg("-tzf").arg(&path).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains(&format!("of_{name}")), "{listed:?}");
        let catalog = format!("SELECT node FROM archives WHERE job_id = {id}");
        assert_eq!(app.control_value(&catalog).await, *name);
        // What reads that archive goes to the same node, by our own enqueue and by SQL.
        let archive = file["file_name"].as_str().unwrap().to_owned();
        let reader = app.enqueue(&TestUnique { archive: Some(archive.clone()), word: id.to_string() }).await;
        assert_eq!(app.completed(reader).await.node.as_deref(), Some(*name));
        let call = format!(r#"CALL {}.enqueue_backup_job('test_unique', '{{"archive": "{archive}"}}', NULL)"#, app.control());
        let reader = app.server.client(&call).split('\t').next().unwrap().parse().unwrap();
        assert_eq!(app.completed(reader).await.node.as_deref(), Some(*name));
    }
    // An archive that nobody knows is no reason to wait for ever.
    let unknown = app.enqueue(&TestUnique { archive: Some("no such file".into()), ..Default::default() }).await;
    app.completed(unknown).await;
}

async fn a_node_that_is_gone(flavour: Flavour) {
    let mut app = TestApp::new(flavour).await;
    let (a, b) = (node(&app, "a"), node(&app, "b"));
    worker(&mut app, &a);
    let second = worker(&mut app, &b);
    let first = enqueue_on(&app, "b").await;
    app.completed(first).await;
    assert!(app.worker_mut(second).terminate().success());

    let ran = app.run_enqueue(&["backup", "--components", "uploads", "--node", "b"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let waiting: u64 = ran.out.trim().parse().unwrap();
    let why = "waiting: no worker runs on node `b` (last heard of at ";
    assert!(ran.err.contains(why) && ran.err.contains(&format!("`enqueue move {waiting} --node NAME` (running: a)")), "{ran:?}");
    let shown = app.run_enqueue(&["show", &waiting.to_string()]);
    assert!(shown.code == Some(0) && shown.out.contains(why), "{shown:?}");
    let shown = app.run_enqueue(&["show", &waiting.to_string(), "--json"]);
    assert!(shown.out.contains(why), "{shown:?}");
    let listed = app.run_enqueue(&["jobs", "--state", "available"]);
    assert!(listed.out.contains("waiting: no worker runs on node `b`"), "{listed:?}");
    let never = app.run_enqueue(&["backup", "--components", "packages", "--node", "never"]);
    assert!(never.code == Some(0) && never.err.contains("none was ever seen"), "{never:?}");

    // It keeps nobody waiting who needs the same component.
    let other = app.enqueue(&uploads()).await;
    app.completed(other).await;
    assert_eq!(app.show(waiting).await.state, State::Available);

    for (args, word) in [
        (vec!["move", "999999", "--node", "a"], "does not exist"),
        (vec!["move", &first.to_string(), "--node", "a"], "only a waiting job can be moved"),
        (vec!["move", &waiting.to_string(), "--node", "a,b"], "is not a node's name"),
    ] {
        let ran = app.run_enqueue(&args);
        assert!(ran.code == Some(2) && ran.err.contains(word), "{args:?}: {ran:?}");
    }
    let moved = app.run_enqueue(&["move", &waiting.to_string(), "--node", "a"]);
    assert_eq!((moved.code, moved.out.trim()), (Some(0), &*format!("job {waiting} goes to node a")), "{moved:?}");
    assert_eq!(app.completed(waiting).await.node.as_deref(), Some("a"));
}

on_both_flavours!(jobs_go_where_their_files_are, a_node_that_is_gone);
