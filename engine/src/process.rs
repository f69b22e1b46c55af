//! Child processes that cannot outlive us, see no environment of ours and leave the end of their stderr behind.
//!
//! A child is its own process group, killed as a whole when [`Child`] is dropped. `PR_SET_PDEATHSIG` kills
//! it when we are killed ourselves. That signal fires when the *thread* that forked ends, and tokio ends
//! idle threads, so every child is forked by one thread that lives as long as the process.

use rustix::{
    fs::{MemfdFlags, Mode, fchmod, memfd_create},
    io::{FdFlags, fcntl_setfd},
    pipe::fcntl_setpipe_size,
    process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal, setpriority_process},
};
use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, PipeWriter, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    runtime::Handle,
    sync::oneshot,
    task::JoinHandle,
};

/// How much of a child's stderr is kept, from its end, in bytes.
const STDERR_KEPT: usize = 64 << 10;
/// Size asked for our pipes, in bytes: fewer wake-ups than with the system's 64 KiB.
const PIPE_SIZE: usize = 1 << 20;

/// Why a child could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The system could not start it.
    #[error("cannot start {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Its end could not be learned.
    #[error("cannot wait for {program}: {source}")]
    Wait {
        /// The program's name.
        program: String,
        /// The system's word.
        source: io::Error,
    },
}

impl ProcessError {
    /// What the operator can do next, if we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("install the program, or put its directory on PATH (database tools: BACKUP_TOOLS_DIR)")
            }
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the worker's user must be able to execute the program")
            }
            Self::Spawn { .. } => Some("check the worker's limits on processes, memory and open files"),
            Self::Wait { .. } => None,
        }
    }
}

/// A program about to be run: argv only, no shell.
///
/// The child's environment is PATH (ours), LANG=C.UTF-8, HOME=/nonexistent, our HERATIO_TEST_*
/// variables and what [`Command::env`] adds. stdin and stdout are /dev/null unless piped.
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    inherited: Vec<OwnedFd>,
    stdin: Option<PipeReader>,
    stdout: Option<PipeWriter>,
    nice: u8,
}

impl Command {
    /// A command without arguments.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: vec![], env: vec![], inherited: vec![], stdin: None, stdout: None, nice: 0 }
    }

    /// Adds one argument. Never a secret: any user can read it.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments; see [`Command::arg`].
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Runs it at this niceness, 0 to 19.
    pub fn nice(mut self, nice: u8) -> Self {
        self.nice = nice;
        self
    }

    /// Sets one variable of the child's environment. Never a secret.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Lets the child inherit a descriptor under its number here, and returns the path by which the child opens it.
    pub fn inherit(&mut self, fd: OwnedFd) -> String {
        let path = format!("/dev/fd/{}", fd.as_raw_fd());
        self.inherited.push(fd);
        path
    }

    /// Opens the child's stdin to us, as a blocking pipe.
    pub fn pipe_stdin(&mut self) -> io::Result<PipeWriter> {
        let (reader, writer) = io::pipe()?;
        let _ = fcntl_setpipe_size(&writer, PIPE_SIZE);
        self.stdin = Some(reader);
        Ok(writer)
    }

    /// Opens the child's stdout to us, as a blocking pipe; its end comes when the last holder, dead or alive, lets go.
    pub fn pipe_stdout(&mut self) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        let _ = fcntl_setpipe_size(&writer, PIPE_SIZE);
        self.stdout = Some(writer);
        Ok(reader)
    }

    /// Starts the child.
    pub async fn spawn(self) -> Result<Child, ProcessError> {
        let program = self.program.clone();
        let name = file_name(&program);
        let (reply, answer) = oneshot::channel();
        let request = Request { command: self, runtime: Handle::current(), reply };
        let spawn_error = |source| ProcessError::Spawn { program: program.clone(), source };
        let gone = || io::Error::other("the thread that starts processes has ended");
        spawner().map_err(spawn_error)?.send(request).map_err(|_| spawn_error(gone()))?;
        let mut child = answer.await.unwrap_or_else(|_| Err(gone())).map_err(spawn_error)?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let stderr = child.stderr.take().map(|pipe| tokio::spawn(read_end(pipe, STDERR_KEPT)));
        Ok(Child { child, name, group, stderr })
    }

    /// The real command. `inherited` must stay open until it has been spawned, so it is returned with it.
    fn build(self) -> (tokio::process::Command, Vec<OwnedFd>) {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).env_clear().env("LANG", "C.UTF-8").env("HOME", "/nonexistent");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
        command.envs(std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HERATIO_TEST_")));
        command.envs(self.env);
        command.stdin(self.stdin.map_or_else(Stdio::null, Stdio::from));
        command.stdout(self.stdout.map_or_else(Stdio::null, Stdio::from));
        command.stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let parent = getpid();
        let fds: Vec<_> = self.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        let nice = i32::from(self.nice);
        let before_exec = move || {
            if nice > 0 {
                setpriority_process(None, nice)?;
            }
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have died between fork and prctl; then nobody would kill this child.
            if getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
            for &fd in &fds {
                // SAFETY: `fd` is open in this child: it was forked while the parent held the OwnedFd.
                #[allow(unsafe_code)]
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls only (setpriority, prctl, getppid, fcntl) and does not allocate.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(before_exec);
        }
        (command, self.inherited)
    }
}

/// A file in memory that a child inherits: nothing touches the disk, and no other process of ours inherits it.
///
/// Its mode is 0600, since MySQL's and MariaDB's tools ignore an option file that others may write.
pub fn memory_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC)?;
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    Ok(file.into())
}

/// A running child; dropping it kills its process group.
pub struct Child {
    child: tokio::process::Child,
    name: String,
    /// None once the child has been reaped, when its id may already be another process's.
    group: Option<Pid>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Child {
    /// Its process id, while it has not been waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the whole group, without waiting; does nothing to a child that has ended.
    pub fn kill(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Waits for its end. May be cancelled and called again.
    pub async fn wait(&mut self) -> Result<Exit, ProcessError> {
        let status = self.child.wait().await.map_err(|source| ProcessError::Wait { program: self.name.clone(), source })?;
        // What the child left running in its group holds our pipes open.
        self.kill();
        self.group = None;
        let stderr = match self.stderr.take() {
            Some(task) => task.await.unwrap_or_default(),
            None => vec![],
        };
        Ok(Exit { program: self.name.clone(), status, stderr: String::from_utf8_lossy(&stderr).trim().to_owned() })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a child ended.
#[derive(Debug, Clone)]
pub struct Exit {
    /// The program's name.
    pub program: String,
    /// Its status.
    pub status: ExitStatus,
    /// The last 64 KiB of its stderr, trimmed.
    pub stderr: String,
}

impl Exit {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The signal that killed it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Its end in words: "ended with status 2", "was killed by signal 9".
    pub fn describe(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => self.status.to_string(),
        }
    }
}

/// The last component of a path, for messages.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned()
}

struct Request {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<tokio::process::Child>>,
}

/// The thread that forks all children; see the module's text.
fn spawner() -> io::Result<&'static mpsc::Sender<Request>> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, requests) = mpsc::channel::<Request>();
    std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        for Request { command, runtime, reply } in requests {
            let _runtime = runtime.enter();
            let (mut command, inherited) = command.build();
            let child = command.spawn();
            // Our ends of the child's pipes must be closed, or their readers never see the end.
            drop((command, inherited));
            // A caller that has gone away drops the child, which kills it.
            let _ = reply.send(child);
        }
    })?;
    // A second thread made by a race ends with its unused sender, before it has forked anything.
    Ok(SPAWNER.get_or_init(|| sender))
}

/// Reads to the end and keeps the last `keep` bytes.
async fn read_end(mut pipe: impl AsyncRead + Unpin, keep: usize) -> Vec<u8> {
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 8 << 10]);
    while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..n]);
        if kept.len() > 2 * keep {
            kept.drain(..kept.len() - keep);
        }
    }
    kept.drain(..kept.len().saturating_sub(keep));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        time::{Duration, Instant},
    };

    fn sh(script: &str) -> Command {
        Command::new("/bin/sh").arg("-c").arg(script)
    }

    fn alive(pid: i32) -> bool {
        // A zombie is dead: it waits for its (new) parent to read its status.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
    }

    async fn dies(pid: i32) {
        let start = Instant::now();
        while alive(pid) {
            assert!(start.elapsed() < Duration::from_secs(10), "process {pid} lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn exit_is_described() {
        let exit = sh("echo oops >&2; exit 3").spawn().await.unwrap().wait().await.unwrap();
        assert_eq!((exit.describe().as_str(), exit.stderr.as_str(), exit.success()), ("ended with status 3", "oops", false));
        let exit = sh("kill -9 $$").spawn().await.unwrap().wait().await.unwrap();
        assert_eq!((exit.describe().as_str(), exit.signal()), ("was killed by signal 9", Some(9)));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Command::new("/nowhere/mysqldump").spawn().await.err().unwrap();
        assert!(error.to_string().contains("/nowhere/mysqldump"), "{error}");
        assert!(error.hint().is_some());
    }

    #[tokio::test]
    async fn environment_is_cleared() {
        let mut command = sh("env").env("GNUPGHOME", "/x");
        let mut stdout = command.pipe_stdout().unwrap();
        let mut child = command.spawn().await.unwrap();
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        child.wait().await.unwrap();
        let known = ["PATH=", "LANG=C.UTF-8", "HOME=/nonexistent", "GNUPGHOME=/x", "PWD=", "_=", "SHLVL=", "OLDPWD=", "HERATIO_TEST_"];
        for line in text.lines() {
            assert!(known.iter().any(|k| line.starts_with(k)), "unexpected variable {line}");
        }
    }

    #[tokio::test]
    async fn stdin_and_stdout_are_pipes_that_end() {
        let mut command = Command::new("cat");
        let (mut stdin, mut stdout) = (command.pipe_stdin().unwrap(), command.pipe_stdout().unwrap());
        let mut child = command.spawn().await.unwrap();
        stdin.write_all(b"abc").unwrap();
        drop(stdin);
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(child.wait().await.unwrap().success());
    }

    #[tokio::test]
    async fn memory_file_is_private_and_inherited_by_one_child_only() {
        let mut command = Command::new("cat");
        let path = command.inherit(memory_file("secret", b"s3cret").unwrap());
        command = command.arg(&path);
        let mut stdout = command.pipe_stdout().unwrap();
        let mut child = command.spawn().await.unwrap();
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "s3cret");
        child.wait().await.unwrap();

        let held = memory_file("secret", b"s3cret").unwrap();
        let other = sh(&format!("stat -Lc %a /proc/{}/fd/{n} >&2; test ! -e /dev/fd/{n}", std::process::id(), n = held.as_raw_fd()));
        let exit = other.spawn().await.unwrap().wait().await.unwrap();
        assert_eq!((exit.success(), exit.stderr.as_str()), (true, "600"));
    }

    #[tokio::test]
    async fn only_the_end_of_stderr_is_kept() {
        let exit = sh("i=0; while [ $i -lt 30000 ]; do echo line $i >&2; i=$((i+1)); done").spawn().await.unwrap().wait().await.unwrap();
        assert!(exit.stderr.len() <= STDERR_KEPT && exit.stderr.ends_with("line 29999"));
    }

    #[tokio::test]
    async fn dropping_kills_the_group() {
        let mut command = sh("sleep 100 & echo $!; wait");
        let mut stdout = command.pipe_stdout().unwrap();
        let child = command.spawn().await.unwrap();
        let mut line = [0; 32];
        let n = stdout.read(&mut line).unwrap();
        let grandchild: i32 = std::str::from_utf8(&line[..n]).unwrap().trim().parse().unwrap();
        let pid = child.id().unwrap() as i32;
        assert!(alive(pid) && alive(grandchild));
        drop(child);
        dies(grandchild).await;
        dies(pid).await;
    }

    #[test]
    fn a_child_outlives_the_runtime_thread_that_asked_for_it() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let main = runtime();
        let handle = main.handle().clone();
        // Asked for by a thread that ends at once: PDEATHSIG set from there would kill the child.
        let mut child = std::thread::spawn(move || handle.block_on(sh("sleep 0.3; exit 7").spawn()).unwrap()).join().unwrap();
        let exit = main.block_on(child.wait()).unwrap();
        assert_eq!(exit.describe(), "ended with status 7");
    }
}
