//! A Heratio-like application, a control schema, directories and worker processes for one test.

use engine::server::Flavour;
use jobs::{
    config::{Config, Env},
    job::Job,
    queue::{NewJob, enqueue, history},
    state::State,
};
use sqlx::{AssertSqlSafe, Executor, MySqlConnection, Row};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Makes `mod mariadb` and `mod mysql` with the tests of this file, each an `async fn(Flavour)`.
macro_rules! on_both_flavours {
    ($($name:ident),+ $(,)?) => {
        mod mariadb { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(engine::server::Flavour::MariaDb).await })+ }
        mod mysql { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(engine::server::Flavour::MySql).await })+ }
    };
}
pub(crate) use on_both_flavours;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// Directory of this run, made and checked for leaks by `./test`.
fn run_dir() -> PathBuf {
    std::env::var_os("HERATIO_TEST_DIR").expect("HERATIO_TEST_DIR is unset: run these tests with ./test").into()
}

/// A server as `scripts/server` describes it in its directory's `env` file.
#[derive(Clone)]
pub(crate) struct TestServer {
    pub(crate) flavour: Flavour,
    pub(crate) dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) port: u16,
    pub(crate) bin: PathBuf,
}

impl TestServer {
    /// The run's shared server of this flavour.
    pub(crate) fn shared(flavour: Flavour) -> Self {
        let variable = match flavour {
            Flavour::MariaDb => "HERATIO_TEST_MARIADB",
            Flavour::MySql => "HERATIO_TEST_MYSQL",
        };
        let dir = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is unset: run these tests with ./test"));
        Self::at(PathBuf::from(dir))
    }

    fn at(dir: PathBuf) -> Self {
        let text = std::fs::read_to_string(dir.join("env")).expect("server env file");
        let vars: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
        Self {
            flavour: if vars["FLAVOUR"] == "mysql" { Flavour::MySql } else { Flavour::MariaDb },
            socket: vars["SOCKET"].into(),
            port: vars["PORT"].parse().expect("port"),
            bin: vars["BIN"].into(),
            dir,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.dir.join("env")).expect("server env file");
        text.lines().find_map(|l| l.strip_prefix("PID=")).and_then(|p| p.parse().ok()).expect("server pid")
    }

    /// A client tool of this flavour, `mysql`, `mysqldump` or `mysqlbinlog`, by its own name there.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let name = match (self.flavour, name) {
            (Flavour::MariaDb, "mysql") => "mariadb",
            (Flavour::MariaDb, "mysqldump") => "mariadb-dump",
            (Flavour::MariaDb, "mysqlbinlog") => "mariadb-binlog",
            (_, name) => name,
        };
        let mut command = Command::new(self.bin.join(name));
        command.arg("--no-defaults").arg(format!("--socket={}", self.socket.display())).arg("--user=root");
        command
    }

    /// Runs SQL text with the client, as root; panics with its error.
    pub(crate) fn client(&self, sql: &str) -> String {
        let output = self.tool("mysql").args(["--batch", "--skip-column-names", "-e", sql]).output().expect("client");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("utf-8")
    }

    /// Loads a gzipped dump with nothing but gunzip and the client.
    pub(crate) fn load(&self, archive: &Path, schema: &str) {
        self.client(&format!("DROP DATABASE IF EXISTS `{schema}`; CREATE DATABASE `{schema}`"));
        let mut gunzip = Command::new("gunzip").arg("-c").arg(archive).stdout(Stdio::piped()).spawn().expect("gunzip");
        let sql = gunzip.stdout.take().expect("stdout");
        let load = self.tool("mysql").arg("--default-character-set=utf8mb4").arg(schema).stdin(sql).output().expect("client");
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        assert!(gunzip.wait().expect("gunzip").success());
    }

    pub(crate) async fn connect(&self, schema: Option<&str>) -> MySqlConnection {
        use sqlx::Connection;
        let mut options = sqlx::mysql::MySqlConnectOptions::new().socket(&self.socket).username("root");
        if let Some(schema) = schema {
            options = options.database(schema);
        }
        MySqlConnection::connect_with(&options).await.expect("connect")
    }
}

/// A server of a test's own, to be killed and restarted; gone with the test.
pub(crate) struct OwnServer(pub(crate) TestServer);

impl OwnServer {
    pub(crate) fn start(flavour: Flavour) -> Self {
        Self::start_with(flavour, &[])
    }

    /// With options of the server program besides.
    pub(crate) fn start_with(flavour: Flavour, options: &[&str]) -> Self {
        Self::start_in(flavour, &Self::directory(), options)
    }

    /// A directory that no other one has; it is not made.
    pub(crate) fn directory() -> PathBuf {
        run_dir().join(format!("own{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// In a directory of [`Self::directory`], which may be there.
    pub(crate) fn start_in(flavour: Flavour, dir: &Path, options: &[&str]) -> Self {
        Self::run(flavour, dir, options);
        Self(TestServer::at(dir.to_owned()))
    }

    fn run(flavour: Flavour, dir: &Path, options: &[&str]) {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/server"))
            .args(["start", &flavour.to_string()])
            .arg(dir)
            .args(options)
            .output()
            .expect("scripts/server");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// `kill -9`, as a crash or the OOM killer would.
    pub(crate) fn kill(&self) {
        kill(self.0.pid(), 9);
        let gone = || !Path::new(&format!("/proc/{}", self.0.pid())).exists();
        wait_for("the server to die", Duration::from_secs(20), gone);
    }

    /// Starts it again after [`Self::kill`], with the same data, socket and port.
    pub(crate) fn restart(&self) {
        Self::run(self.0.flavour, &self.0.dir, &[]);
    }
}

/// A file system of a test's own, in memory; gone with it. Needs root, as ./test in CI has it.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// At this directory, which is made if need be, and of this size, such as `12m`.
    pub(crate) fn tmpfs(path: &Path, size: &str) -> Self {
        std::fs::create_dir_all(path).expect("directory");
        let options = format!("size={size},mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status().expect("mount");
        assert!(mounted.success(), "cannot mount a tmpfs");
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // What a failed test left may keep it busy; the leak check of ./test has the last word.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        kill(self.0.pid(), 9);
        wait_for("the server to die", Duration::from_secs(20), || !Path::new(&format!("/proc/{}", self.0.pid())).exists());
        std::fs::remove_dir_all(&self.0.dir).expect("remove the server's directory");
    }
}

pub(crate) fn kill(pid: i32, signal: i32) {
    #[allow(unsafe_code)]
    // SAFETY: kill(2) touches no memory of ours.
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Waits for something that another process does; panics when it does not happen in time.
#[track_caller]
pub(crate) fn wait_for(what: &str, limit: Duration, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Holds a dump in the middle until it is dropped: the dump waits for a table that this session has locked.
pub(crate) struct HeldDump(sqlx::MySqlConnection);

/// Starts to hold dumps of the application database.
pub(crate) async fn hold_dump(app: &TestApp) -> HeldDump {
    let mut connection = app.server.connect(Some(&app.schema())).await;
    sqlx::raw_sql("LOCK TABLES note WRITE").execute(&mut connection).await.unwrap();
    HeldDump(connection)
}

impl HeldDump {
    pub(crate) async fn let_go(mut self) {
        sqlx::raw_sql("UNLOCK TABLES").execute(&mut self.0).await.unwrap();
    }
}

/// Waits until a session of the application database's dump waits for a lock, as one of [`hold_dump`] makes it.
pub(crate) fn dump_waits(app: &TestApp) {
    let waiting =
        format!("SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{}' AND state LIKE 'Waiting for %'", app.schema());
    wait_for("the dump to wait", Duration::from_secs(20), || app.server.client(&waiting).trim() != "0");
}

/// Waits until the job's dump tool runs (`BACKUP_DUMPER` is mysqldump), and gives its process id.
pub(crate) fn dump_process(worker: i32) -> i32 {
    let mut found = 0;
    wait_for("the dump tool to run", Duration::from_secs(20), || {
        found = descendants(worker).into_iter().find(|pid| is_dump(&command(*pid))).unwrap_or(0);
        found != 0
    });
    found
}

/// The tool at work, not the same program asked for its version or help.
fn is_dump(command: &str) -> bool {
    command.contains("dump") && !command.contains("--version") && !command.contains("--help")
}

fn command(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

fn descendants(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
            all.push(child);
            all.extend(descendants(child));
        }
    }
    all
}

/// The application, its backup system, and what one test changes of them.
pub(crate) struct TestApp {
    pub(crate) server: TestServer,
    /// Unique to this test; every schema, account and directory starts with it.
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// Environment of the programs.
    pub(crate) env: BTreeMap<String, String>,
    workers: Vec<Worker>,
    /// The test's own server, gone after everything else.
    _own: Option<OwnServer>,
}

/// A worker process; killed with the test.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// SIGTERM, then its exit status.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        kill(self.pid(), libc::SIGTERM);
        self.wait()
    }

    /// Its exit status, once it has ended.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("wait")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone, or stopped by SIGSTOP; SIGKILL ends both.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.log());
        }
    }
}

impl TestApp {
    /// On the run's shared server.
    pub(crate) async fn new(flavour: Flavour) -> Self {
        Self::on(TestServer::shared(flavour)).await
    }

    /// Where dumps can be held without holding those of other tests: MySQL's FLUSH TABLES waits for every locked table
    /// of the server, and everybody's writes wait behind it.
    pub(crate) async fn apart(flavour: Flavour) -> Self {
        if flavour == Flavour::MariaDb {
            return Self::new(flavour).await;
        }
        let own = OwnServer::start(flavour);
        let mut app = Self::on(own.0.clone()).await;
        app._own = Some(own);
        app
    }

    /// On this server; with a migrated control schema, an application database with a few tables, and directories.
    pub(crate) async fn on(server: TestServer) -> Self {
        let app = Self::bare(server).await;
        jobs::migrate::migrate(&app.config()).await.expect("migrate");
        // Every good backup enqueues a prune; most tests want to find what they made.
        app.setting("backup_max_backups", "999").await;
        app
    }

    /// The same without a control schema.
    pub(crate) async fn bare(server: TestServer) -> Self {
        let name = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = run_dir().join(&name);
        for sub in ["root/packages/one", "root/app", "uploads/r/one", "backups"] {
            std::fs::create_dir_all(dir.join(sub)).expect("directory");
        }
        std::fs::write(dir.join("root/packages/one/composer.json"), "{}").expect("file");
        std::fs::write(dir.join("root/app/a.php"), "<?php").expect("file");
        std::fs::write(dir.join("uploads/r/one/a.txt"), "a file").expect("file");
        let socket = server.socket.display();
        let url = |schema: &str| format!("mysql://root@localhost/{name}_{schema}?socket={socket}");
        let env = [
            ("BACKUP_DATABASE_URL", url("ctl")),
            ("HERATIO_DATABASE_URL", url("app")),
            ("HERATIO_ROOT", dir.join("root").display().to_string()),
            ("HERATIO_UPLOADS_PATH", dir.join("uploads").display().to_string()),
            ("HERATIO_BACKUPS_PATH", dir.join("backups").display().to_string()),
            ("BACKUP_TOOLS_DIR", server.bin.display().to_string()),
            ("BACKUP_NODE", "node1".into()),
            ("BACKUP_POLL_MS", "50".into()),
            ("BACKUP_LEASE", "4".into()),
            ("BACKUP_RETRY_DELAY", "1".into()),
            ("BACKUP_SCHEMA_PREFIX", format!("{name}_bk_")),
            ("BACKUP_THREADS", "2".into()),
            // Not there unless a test makes it; this host's own disks and spool are no matter of the tests.
            ("BACKUP_SPOOL_DIR", dir.join("spool").display().to_string()),
            ("BACKUP_DISK_ALERT_PERCENT", "0".into()),
        ];
        let env = env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let app = Self { server, name, dir, env, workers: Vec::new(), _own: None };
        app.server.client(&format!("CREATE DATABASE `{}` CHARACTER SET utf8mb4", app.schema()));
        app.sql(
            "CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, title VARCHAR(255) NOT NULL, data BLOB NULL);
             CREATE TABLE note (id INT PRIMARY KEY, item_id INT NOT NULL, body TEXT, FOREIGN KEY (item_id) REFERENCES item (id));
             INSERT INTO item VALUES (1, 'first', NULL), (2, 'второй \u{1f600}', x'00ff0a0d1a27225c');
             INSERT INTO note VALUES (1, 1, 'a line\nanother; with ''quotes'' \\\\ and more');
             CREATE VIEW titled AS SELECT id, title FROM item;
             CREATE TRIGGER item_before BEFORE INSERT ON item FOR EACH ROW SET NEW.title = TRIM(NEW.title);
             CREATE PROCEDURE touch_all() UPDATE item SET title = title;
             CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
             CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' DO DELETE FROM note WHERE id < 0;",
        )
        .await;
        app
    }

    /// The application database.
    pub(crate) fn schema(&self) -> String {
        format!("{}_app", self.name)
    }

    /// The control schema.
    pub(crate) fn control(&self) -> String {
        format!("{}_ctl", self.name)
    }

    pub(crate) fn set(&mut self, variable: &str, value: impl Into<String>) {
        self.env.insert(variable.into(), value.into());
    }

    pub(crate) fn config(&self) -> Config {
        let env = Env::from_pairs(self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        Config::from_env(&env).expect("config")
    }

    pub(crate) fn backups_dir(&self) -> PathBuf {
        self.dir.join("backups")
    }

    /// Files in the backup directory, hidden ones too, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.backups_dir())
            .expect("backups")
            .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        names.sort();
        names
    }

    /// Runs statements in the application database, as root.
    pub(crate) async fn sql(&self, sql: &str) {
        let mut connection = self.server.connect(Some(&self.schema())).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect(sql);
    }

    /// One value from the control schema, as text.
    pub(crate) async fn control_value(&self, sql: &str) -> String {
        let mut connection = self.server.connect(Some(&self.control())).await;
        let row = connection.fetch_one(AssertSqlSafe(format!("SELECT CAST(({sql}) AS CHAR)"))).await.expect(sql);
        row.try_get::<Option<String>, _>(0).expect("text").unwrap_or_else(|| "NULL".into())
    }

    pub(crate) async fn control_sql(&self, sql: &str) {
        let mut connection = self.server.connect(Some(&self.control())).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect(sql);
    }

    /// Sets a setting of the group `backup`, for an application without a table of settings.
    pub(crate) async fn setting(&self, key: &str, value: &str) {
        self.control_sql(&format!(
            "DELETE FROM ahg_settings WHERE setting_key = '{key}';
             INSERT INTO ahg_settings (setting_key, setting_value, setting_group) VALUES ('{key}', '{value}', 'backup')"
        ))
        .await;
    }

    /// Enqueues a job as the library does it.
    pub(crate) async fn enqueue<J: Job>(&self, job: &J) -> u64 {
        let job = NewJob::new(job, "test", "test").expect("valid");
        enqueue(&mut self.server.connect(Some(&self.control())).await, &job).await.expect("enqueue").id
    }

    pub(crate) async fn show(&self, id: u64) -> history::JobRow {
        history::show(&mut self.server.connect(Some(&self.control())).await, id).await.expect("show").expect("job")
    }

    /// Waits until the job is over; panics with all that is known of it when that takes too long.
    pub(crate) async fn wait(&self, id: u64) -> history::JobRow {
        self.wait_until(id, "be over", |job| job.state.is_final()).await
    }

    pub(crate) async fn wait_until(&self, id: u64, what: &str, mut is: impl FnMut(&history::JobRow) -> bool) -> history::JobRow {
        let start = Instant::now();
        loop {
            let job = self.show(id).await;
            if is(&job) {
                return job;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "waited 60 s for job {id} to {what}: {job:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits, without blocking other cases of the same test, for something that a process does.
    pub(crate) async fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let start = Instant::now();
        while !happened() {
            assert!(start.elapsed() < Duration::from_secs(30), "waited 30 s for {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a job to complete without warnings.
    pub(crate) async fn completed(&self, id: u64) -> history::JobRow {
        let job = self.wait(id).await;
        assert_eq!(job.state, State::Completed, "{job:#?}");
        job
    }

    /// Starts a worker process; its index is for [`Self::worker_mut`].
    pub(crate) fn worker(&mut self) -> usize {
        self.worker_with(&[], &[])
    }

    pub(crate) fn worker_with(&mut self, env: &[(&str, &str)], args: &[&str]) -> usize {
        let mut command = self.program("worker");
        command.arg("run").args(args).envs(env.iter().copied());
        self.start(command)
    }

    /// Starts a worker through another program, such as `setpriv` with options.
    pub(crate) fn worker_as(&mut self, through: &[&str]) -> usize {
        let worker = self.program("worker");
        let mut command = Command::new(through[0]);
        command.env_clear().args(&through[1..]).arg(worker.get_program()).arg("run");
        command.envs(worker.get_envs().filter_map(|(k, v)| Some((k, v?))));
        self.start(command)
    }

    fn start(&mut self, mut command: Command) -> usize {
        let log = self.dir.join(format!("worker{}.log", self.workers.len() + 1));
        let file = std::fs::File::create(&log).expect("log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        self.workers.push(Worker { child: command.spawn().expect("worker"), log });
        self.workers.len() - 1
    }

    pub(crate) fn worker_mut(&mut self, index: usize) -> &mut Worker {
        &mut self.workers[index]
    }

    /// One of our programs with the test's environment and nothing else.
    pub(crate) fn program(&self, name: &str) -> Command {
        let exe = std::env::current_exe().expect("exe");
        let path = exe.parent().and_then(Path::parent).expect("target directory").join(name);
        assert!(path.exists(), "{} is missing: run `cargo build --workspace`, or ./test", path.display());
        let mut command = Command::new(path);
        command.env_clear();
        for keep in ["PATH", "HERATIO_TEST_RUN", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(keep) {
                command.env(keep, value);
            }
        }
        command.envs(&self.env);
        command
    }

    /// Runs `enqueue` to its end.
    pub(crate) fn run_enqueue(&self, args: &[&str]) -> Ran {
        Ran::from(self.program("enqueue").args(args).stdin(Stdio::null()).output().expect("enqueue"))
    }

    /// Runs `worker` with a subcommand that ends by itself.
    pub(crate) fn run_worker(&self, args: &[&str]) -> Ran {
        Ran::from(self.program("worker").args(args).stdin(Stdio::null()).output().expect("worker"))
    }
}

/// What a program said, and how it ended.
#[derive(Debug)]
#[must_use = "assert the exit status"]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("utf-8"),
            err: String::from_utf8(output.stderr).expect("utf-8"),
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.workers.clear();
        // Everything that this test made on the server bears its name.
        let list = format!(
            "SELECT schema_name FROM information_schema.schemata WHERE LEFT(schema_name, {0}) = '{1}_'",
            self.name.len() + 1,
            self.name
        );
        let accounts = format!(
            "SELECT CONCAT('`', user, '`@`', host, '`') FROM mysql.user WHERE LEFT(user, {0}) = '{1}_'",
            self.name.len() + 1,
            self.name
        );
        let run = |sql: &str| {
            self.server
                .tool("mysql")
                .args(["--batch", "--skip-column-names", "-e", sql])
                .output()
                .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        };
        // A test that panics may have lost its server; the leak check of ./test has the last word.
        for schema in run(&list).unwrap_or_default().lines() {
            // One may refer to another.
            drop(run(&format!("SET FOREIGN_KEY_CHECKS = 0; DROP DATABASE `{schema}`")));
        }
        for account in run(&accounts).unwrap_or_default().lines() {
            drop(run(&format!("DROP USER {account}")));
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
