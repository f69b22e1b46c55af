//! Replacing live directories, journaled: every step may be done again by whoever comes after a crash.
//!
//! 1. A row of `tree_swaps` announces our working directory, which is made beside the live one, on the same file system. A lock
//!    on a file in it says that somebody works with it; the lock goes with its process.
//! 2. The archive is unpacked into it, synced, and counted. Dies so far: nothing live was touched, the directory is swept.
//! 3. What changes places is written into the row, by inode, and then `swap`: from here on, the way is forward.
//! 4. Renames, one after the other ([`engine::files::swap`]). Dies there: the node's next worker does the rest. When the system
//!    refuses one, the way is back, which the row says too.
//! 5. The job's final transaction ends the journal and says until when it can be undone. What was replaced is in our directory.
//!
//! An open row whose job is over is ended by the next worker of its node ([`recover`]); until then that worker starts no job on
//! the component (see `queue::claim`).

use crate::{
    component::Component,
    config::Config,
    cut_over, failpoint,
    file_plan::{FilePlan, work_name},
    job::{Context, explain, give_up},
    queue::text,
};
use anyhow::{Context as _, anyhow, bail, ensure};
use chrono::{DateTime, Utc};
use engine::files::{
    Exclude, WORK_PREFIX,
    extract::{self, Contents},
    swap::{Below, Staying, Swap, SwapError, mounts_below, remove_tree},
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, MySqlConnection, MySqlPool, Row, mysql::MySqlRow};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// How a live directory is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By one exchange.
    Whole,
    /// Entry by entry: it holds what stays, or is a mount point.
    Inside,
    /// One file of it.
    File,
}

/// What the journal keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// How it is replaced.
    pub how: How,
    /// The archive's name; of an undo, the job undone.
    pub from: String,
    /// Whether `.env` changes place too.
    #[serde(default)]
    pub with_env: bool,
    /// For how many hours what was replaced is kept.
    pub undo_hours: u32,
    /// What changes places; none before it is unpacked.
    #[serde(default)]
    pub swap: Option<Swap>,
    /// The row that an undo takes back.
    #[serde(default)]
    pub undoes: Option<u64>,
    /// What the file `lock` in our directory says, so that no other of the same name is taken for it.
    pub token: String,
}

/// A component that is being replaced.
#[derive(Debug)]
pub struct Tree {
    /// Row of `tree_swaps`.
    pub id: u64,
    /// The restore or undo.
    pub job_id: u64,
    /// What it is.
    pub component: Component,
    /// The live directory.
    pub root: PathBuf,
    /// Ours.
    pub work: PathBuf,
    /// What else there is to know.
    pub facts: Facts,
    /// What was unpacked.
    pub contents: Contents,
    /// What of the archive was not taken, since it stays as it is.
    pub left_out: Vec<Below>,
    step: String,
    /// Held as long as somebody works with the directory.
    lock: Option<File>,
}

/// How a swap ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Whether the new tree is live.
    pub done: bool,
    /// From the first rename to the last.
    pub seconds: f64,
    /// Why not.
    pub error: Option<String>,
}

/// Who writes the journal: an attempt by its fence, or whoever recovers.
struct Hand<'a> {
    pool: &'a MySqlPool,
    fence: Option<u64>,
    cancel: Option<&'a CancellationToken>,
}

impl<'a> Hand<'a> {
    fn of(context: &'a Context) -> Self {
        Self { pool: &context.pool, fence: Some(context.fence), cancel: Some(&context.control.cancel) }
    }

    /// Notes what is about to be done. An error: it must not be done.
    async fn note(&self, tree: &mut Tree, step: &'static str) -> anyhow::Result<()> {
        self.may_go_on(step)?;
        let mut query = sqlx::QueryBuilder::new("UPDATE tree_swaps s");
        if let Some(fence) = self.fence {
            query.push(" JOIN jobs j ON j.id = s.job_id AND j.state = 'running' AND j.fence = ").push_bind(fence);
        }
        query.push(" SET s.step = ").push_bind(step).push(", s.facts = ").push_bind(serde_json::to_string(&tree.facts)?);
        match step {
            "swap" => query.push(", s.swap_at = COALESCE(s.swap_at, UTC_TIMESTAMP(6))"),
            "swapped" => query.push(", s.swapped_at = COALESCE(s.swapped_at, UTC_TIMESTAMP(6))"),
            _ => &mut query,
        };
        query.push(" WHERE s.state = 'open' AND s.id = ").push_bind(tree.id);
        let noted = query.build().execute(self.pool).await.context("control schema")?;
        ensure!(noted.rows_affected() > 0, "the job's lease was lost before step `{step}` of {}", tree.component);
        tree.step = step.to_owned();
        Ok(())
    }

    fn may_go_on(&self, step: &str) -> anyhow::Result<()> {
        ensure!(self.cancel.is_none_or(|c| !c.is_cancelled()), "told to stop before step `{step}`");
        Ok(())
    }
}

/// Unpacks a planned archive beside the live directory. After an error our directory is gone, or is swept.
pub async fn stage(context: &Context, plan: &FilePlan) -> anyhow::Result<Tree> {
    let facts = Facts {
        how: plan.how,
        from: plan.archive.clone(),
        with_env: plan.with_env,
        undo_hours: context.config.restore.undo_hours,
        swap: None,
        undoes: None,
        token: token(context),
    };
    let mut tree = announce(context, plan.component, "restore", &plan.root, &plan.beside, facts).await?;
    match unpack(context, plan, &mut tree).await {
        Ok(()) => Ok(tree),
        Err(error) => {
            if !context.control.cancel.is_cancelled() {
                give_back(context, vec![tree]).await;
            }
            Err(error)
        }
    }
}

/// A text that no other attempt has, nor one of another control schema.
fn token(context: &Context) -> String {
    let control = &context.config.control;
    format!("{} job {} fence {} of {} {}\n", WORK_PREFIX, context.job_id, context.fence, control.target(), Utc::now().timestamp_micros())
}

/// Announces our directory, and makes and locks it.
async fn announce(context: &Context, component: Component, kind: &str, root: &Path, beside: &Path, facts: Facts) -> anyhow::Result<Tree> {
    let work = beside.join(work_name(context.job_id, component));
    let made = sqlx::query(
        "INSERT INTO tree_swaps (job_id, component, kind, node, live_directory, work_directory, facts)
         SELECT id, ?, ?, ?, ?, ?, ? FROM jobs WHERE id = ? AND fence = ? AND state = 'running'",
    )
    .bind(component.as_str())
    .bind(kind)
    .bind(&context.config.node)
    .bind(root.to_string_lossy().into_owned())
    .bind(work.to_string_lossy().into_owned())
    .bind(serde_json::to_string(&facts)?)
    .bind(context.job_id)
    .bind(context.fence)
    .execute(&context.pool)
    .await?;
    if made.rows_affected() == 0 {
        return Err(give_up(anyhow!("the job's lease was lost; nothing was changed")));
    }
    failpoint::hit("files_announced").await;
    let mut tree = Tree {
        id: made.last_insert_id(),
        job_id: context.job_id,
        component,
        root: root.to_owned(),
        work,
        facts,
        contents: Contents::default(),
        left_out: Vec::new(),
        step: "stage".into(),
        lock: None,
    };
    let made = {
        let (work, token) = (tree.work.clone(), tree.facts.token.clone());
        tokio::task::spawn_blocking(move || make_work(&work, &token)).await?
    };
    match made {
        Ok(lock) => tree.lock = Some(lock),
        Err(error) => {
            let error = anyhow::Error::from(error).context(format!("cannot make {}", tree.work.display()));
            give_back(context, vec![tree]).await;
            return Err(give_up(error));
        }
    }
    failpoint::hit("files_stage").await;
    // Whoever swept it meanwhile did not see the directory.
    if let Err(error) = Hand::of(context).note(&mut tree, "stage").await {
        remove_work(&tree.work, &tree.facts.token, true).await?;
        return Err(error);
    }
    Ok(tree)
}

fn make_work(work: &Path, token: &str) -> io::Result<File> {
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    private.create(work)?;
    let mut lock = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(work.join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    lock.write_all(token.as_bytes())?;
    lock.sync_all()?;
    private.create(work.join("new"))?;
    private.create(work.join("old"))?;
    File::open(work)?.sync_all()?;
    if let Some(parent) = work.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(lock)
}

async fn unpack(context: &Context, plan: &FilePlan, tree: &mut Tree) -> anyhow::Result<()> {
    let (new, old) = (tree.work.join("new"), tree.work.join("old"));
    let (path, root, how, one) = (plan.path.clone(), plan.root.clone(), plan.how, plan.one.clone());
    let (component, excludes, expected) = (plan.component, plan.excludes.clone(), plan.contents.clone());
    let (effort, control) = (context.config.effort, context.control.clone());
    let work = move || {
        let unpacked = match (how, one) {
            (_, Some(wanted)) => Unpacked::one(&path, component, &wanted, &root, &new, &old, &effort, &control)?,
            (How::Whole | How::File, None) => {
                let name = root.file_name().context("the file system's root cannot be restored")?;
                fs::create_dir(new.join(name))?;
                control.progress.phase(format!("unpacking {component}"), expected.bytes);
                let contents = extract::extract(&path, &root, &new.join(name), &effort, &control)?;
                let base = root.parent().context("no parent directory")?;
                let name = Below::new(std::os::unix::ffi::OsStrExt::as_bytes(name)).map_err(|e| anyhow!("the directory's name {e}"))?;
                Unpacked { contents, left_out: Vec::new(), swap: Swap::of_one(base, &new, &old, name)? }
            }
            (How::Inside, None) => {
                control.progress.phase(format!("unpacking {component}"), expected.bytes);
                let contents = extract::extract(&path, &root, &new, &effort, &control)?;
                let staying = Staying::new(&root, &excludes, [])?;
                let left_out = Swap::leave_out(&new, &staying)?;
                Unpacked { contents, left_out, swap: Swap::of_trees(&root, &new, &old, &staying)? }
            }
        };
        let counts = |c: &Contents| (c.files, c.directories, c.links, c.bytes);
        ensure!(
            how == How::File || counts(&unpacked.contents) == counts(&expected),
            "what was unpacked is not the archive: {:?} files, directories, links and bytes, and the archive has {:?}",
            counts(&unpacked.contents),
            counts(&expected)
        );
        anyhow::Ok(unpacked)
    };
    let unpacked = context.config.effort.run(work).await?.map_err(give_up)?;
    tree.facts.swap = Some(unpacked.swap);
    tree.contents = unpacked.contents;
    tree.left_out = unpacked.left_out;
    failpoint::hit("files_unpacked").await;
    Hand::of(context).note(tree, "ready").await?;
    context.log.info(format!("{} files of {} unpacked into {}", tree.contents.files, tree.component, tree.work.display()));
    failpoint::hit("files_ready").await;
    Ok(())
}

struct Unpacked {
    contents: Contents,
    left_out: Vec<Below>,
    swap: Swap,
}

impl Unpacked {
    /// One file: it changes place, or if a directory above it is missing, that with all that is in it.
    #[expect(clippy::too_many_arguments, reason = "all of it is needed on another thread")]
    fn one(
        path: &Path,
        component: Component,
        wanted: &str,
        root: &Path,
        new: &Path,
        old: &Path,
        effort: &engine::effort::Effort,
        control: &engine::control::Control,
    ) -> anyhow::Result<Self> {
        let (below, contents) = extract::extract_one(path, component.as_str(), wanted, new, effort, control)?;
        let below = Below::new(&below).map_err(|why| anyhow!("`{wanted}` {why}"))?;
        let missing = below.above().find(|above| root.join(above.as_path()).symlink_metadata().is_err());
        if let Some(missing) = &missing {
            // What it is made of is not in the index: as the directory that it will be in.
            let like = root.join(missing.as_path()).parent().map(Path::to_owned).unwrap_or_default();
            for made in below.above().filter(|above| above.as_path().starts_with(missing.as_path())) {
                copy_rights(&like, &new.join(made.as_path()))?;
            }
        }
        Ok(Self { contents, left_out: Vec::new(), swap: Swap::of_one(root, new, old, missing.unwrap_or(below))? })
    }
}

/// Gives a directory mode and, where we may, owner of another.
fn copy_rights(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(from)?;
    match std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    fs::set_permissions(to, meta.permissions())
}

/// What is to be taken back, ready to change places.
pub async fn stage_undo(context: &Context, point: &TreePoint) -> anyhow::Result<Tree> {
    let Some(done) = point.facts.swap.clone() else { bail!("the journal of job {} does not say what changed places", point.job_id) };
    let facts = Facts {
        how: point.facts.how,
        from: format!("job {}", point.job_id),
        with_env: point.facts.with_env,
        undo_hours: context.config.restore.undo_hours,
        swap: None,
        undoes: Some(point.id),
        token: token(context),
    };
    let beside = point.work.parent().context("no parent directory")?.to_owned();
    let mut tree = announce(context, point.component, "undo", &point.root, &beside, facts).await?;
    let (kept, old, how, root) = (point.work.join("old"), tree.work.join("old"), point.facts.how, point.root.clone());
    let mut excludes = Vec::new();
    if how == How::Inside {
        let backups =
            crate::archive_source::backup_directory(context).await.ok().or_else(|| context.config.backups.clone()).unwrap_or_default();
        excludes = crate::backup::source(&context.config, point.component, &backups)?.excludes;
        if point.component == Component::Framework && !point.facts.with_env {
            excludes.push(Exclude::Anchored(".env".into()));
        }
    }
    let swap = tokio::task::spawn_blocking(move || {
        if how == How::Inside {
            let staying = Staying::new(&root, &excludes, done.merges.iter().map(|m| m.path.clone()))?;
            let mut swap = Swap::of_trees(&root, &kept, &old, &staying)?;
            swap.with_metas_of(&done);
            return anyhow::Ok(swap);
        }
        let mut swap = Swap { source: kept.clone(), kept: old.clone(), entries: Vec::new(), merges: Vec::new(), base: done.base.clone() };
        for entry in &done.entries {
            swap.entries.extend(Swap::of_one(&done.base, &kept, &old, entry.path.clone())?.entries);
        }
        Ok(swap)
    })
    .await?;
    match swap {
        Ok(swap) => tree.facts.swap = Some(swap),
        Err(error) => {
            give_back(context, vec![tree]).await;
            return Err(give_up(error));
        }
    }
    Hand::of(context).note(&mut tree, "ready").await?;
    failpoint::hit("files_ready").await;
    Ok(tree)
}

/// Lets a staged tree change places with the live one. When the system refuses, all of it is put back.
///
/// An error leaves the journal open: the node's next worker ends it.
pub async fn swap(context: &Context, tree: &mut Tree) -> anyhow::Result<Ended> {
    context.control.progress.phase(format!("replacing {}", tree.component), 0);
    let hand = Hand::of(context);
    let error = match forward(&hand, tree).await {
        Ok(()) => return Ok(Ended { done: true, seconds: seconds(&context.pool, tree.id).await?, error: None }),
        Err(error) => error,
    };
    if hand.may_go_on("back").is_err() {
        return Err(error.context("interrupted; a worker of this node finishes it at once, see `enqueue show`"));
    }
    let why = explain(&error);
    back(&hand, tree).await.with_context(|| format!("{why}; and it could not be put back"))?;
    Ok(Ended { done: false, seconds: seconds(&context.pool, tree.id).await?, error: Some(why) })
}

/// From `swap` to `swapped`; done again, it goes on where it stopped.
async fn forward(hand: &Hand<'_>, tree: &mut Tree) -> anyhow::Result<()> {
    hand.note(tree, "swap").await?;
    failpoint::hit("files_swap").await;
    let swap = Arc::new(tree.facts.swap.clone().ok_or_else(|| anyhow!("the journal does not say what changes places"))?);
    for at in 0..swap.entries.len() {
        loop {
            hand.may_go_on("swap")?;
            let swap = swap.clone();
            if !tokio::task::spawn_blocking(move || swap.step(&swap.entries[at])).await?? {
                break;
            }
            failpoint::hit("files_swapping").await;
        }
    }
    blocking(swap, |swap| swap.set_merged(false)).await?;
    failpoint::hit("files_swapped").await;
    hand.note(tree, "swapped").await?;
    Ok(())
}

/// All renames undone, the last first.
async fn back(hand: &Hand<'_>, tree: &mut Tree) -> anyhow::Result<()> {
    hand.note(tree, "back").await?;
    let swap = Arc::new(tree.facts.swap.clone().ok_or_else(|| anyhow!("the journal does not say what changes places"))?);
    blocking(swap, |swap| {
        for entry in swap.entries.iter().rev() {
            while swap.step_back(entry)? {}
        }
        swap.set_merged(true)
    })
    .await
}

async fn blocking(swap: Arc<Swap>, work: impl FnOnce(&Swap) -> Result<(), SwapError> + Send + 'static) -> anyhow::Result<()> {
    Ok(tokio::task::spawn_blocking(move || work(&swap)).await??)
}

/// Removes the directories of trees that did not change places; what is not removed here is swept.
pub async fn give_back(context: &Context, trees: Vec<Tree>) {
    for tree in trees {
        let (id, component) = (tree.id, tree.component);
        if let Err(error) = discard(&context.pool, tree, "").await {
            context.log.warn(format!("what was unpacked of {component} (row {id}) is left to be swept: {}", explain(&error)));
        }
    }
}

/// Dies between removing and writing: the next one finds nothing to remove.
async fn discard(pool: &MySqlPool, tree: Tree, note: &str) -> anyhow::Result<()> {
    remove_work(&tree.work, &tree.facts.token, true).await?;
    sqlx::query(
        "UPDATE tree_swaps SET state = 'reverted', ended_at = UTC_TIMESTAMP(6), work_gone = TRUE, note = ? WHERE id = ? AND state = 'open'",
    )
    .bind(text(note))
    .bind(tree.id)
    .execute(pool)
    .await?;
    Ok(())
}

/// `reverted`: all that was live is back, so what was put aside is somebody else's, made meanwhile, and stays.
async fn remove_work(work: &Path, token: &str, reverted: bool) -> anyhow::Result<()> {
    let (work, token) = (work.to_owned(), token.to_owned());
    let shown = work.display().to_string();
    let ours = work.file_name().is_some_and(|n| n.to_string_lossy().starts_with(WORK_PREFIX));
    ensure!(ours, "{shown} does not begin with `{WORK_PREFIX}`: not removed");
    tokio::task::spawn_blocking(move || remove_ours(&work, &token, reverted)).await?.with_context(|| format!("cannot remove {shown}"))
}

/// Removes our directory, and none of the same name that somebody else made.
fn remove_ours(work: &Path, token: &str, reverted: bool) -> io::Result<()> {
    match fs::read_to_string(work.join("lock")) {
        Ok(text) if text == token => {
            if let Some(mount) = mounts_below(work)?.first() {
                return Err(io::Error::other(format!("{} is mounted there", mount.display())));
            }
            if reverted && holds_files(&work.join("old"))? {
                tracing::error!(path = %work.display(), "files that somebody made during a restore that was reverted are in `old` there: look at them");
                return Ok(());
            }
            // The lock last: without it, what a crash left would be nobody's.
            for name in ["new", "old"] {
                remove_tree(&work.join(name))?;
            }
            fs::remove_file(work.join("lock"))?;
            fs::remove_dir(work)
        }
        // Whoever made it died before anything else was in it.
        Ok(text) if text.is_empty() => fs::remove_file(work.join("lock")).and_then(|()| fs::remove_dir(work)),
        Ok(_) => {
            tracing::warn!(path = %work.display(), "another installation made this directory, as its file `lock` says: it is left alone");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_dir(work) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        Err(error) => Err(error),
    }
}

fn holds_files(directory: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || holds_files(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn seconds(pool: &MySqlPool, id: u64) -> sqlx::Result<f64> {
    let micros: Option<i64> = sqlx::query_scalar(
        "SELECT TIMESTAMPDIFF(MICROSECOND, swap_at, COALESCE(swapped_at, UTC_TIMESTAMP(6))) FROM tree_swaps WHERE id = ?",
    )
    .bind(id)
    .fetch_one(pool)
    .await?;
    Ok((micros.unwrap_or(0) as f64 / 1000.0).round() / 1000.0)
}

/// Ends the journal of a swap that was done: part of a final transaction. What was replaced can be undone until `until`.
pub async fn settle(connection: &mut MySqlConnection, id: u64, undoes: Option<u64>, until: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE tree_swaps SET state = 'done', ended_at = UTC_TIMESTAMP(6), undo_state = 'kept', undo_until = ? WHERE id = ? AND state = 'open'",
    )
    .bind(until)
    .bind(id)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE tree_swaps SET undo_state = 'used' WHERE id = ? AND undo_state = 'kept'").bind(undoes).execute(connection).await?;
    Ok(())
}

/// What can be undone.
#[derive(Debug, Clone)]
pub struct TreePoint {
    /// Row of `tree_swaps`.
    pub id: u64,
    /// The restore or undo.
    pub job_id: u64,
    /// What it replaced.
    pub component: Component,
    /// On whose disk.
    pub node: String,
    /// The live directory.
    pub root: PathBuf,
    /// Ours, with what was replaced.
    pub work: PathBuf,
    /// The journal's.
    pub facts: Facts,
    /// UTC; kept at least so long.
    pub until: DateTime<Utc>,
    /// `kept`, `used` or `expired`.
    pub state: String,
}

/// The undo points of a job.
pub async fn points(connection: &mut MySqlConnection, job_id: u64) -> anyhow::Result<Vec<TreePoint>> {
    let rows = sqlx::query("SELECT * FROM tree_swaps WHERE job_id = ? AND undo_state IS NOT NULL ORDER BY id")
        .bind(job_id)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(TreePoint {
                id: row.try_get("id")?,
                job_id,
                component: component(row)?,
                node: row.try_get("node")?,
                root: row.try_get::<String, _>("live_directory")?.into(),
                work: row.try_get::<String, _>("work_directory")?.into(),
                facts: facts(row)?,
                until: row.try_get("undo_until")?,
                state: row.try_get("undo_state")?,
            })
        })
        .collect()
}

fn component(row: &MySqlRow) -> anyhow::Result<Component> {
    row.try_get::<String, _>("component")?.parse().map_err(|e: String| anyhow!(e))
}

fn facts(row: &MySqlRow) -> anyhow::Result<Facts> {
    serde_json::from_str(&row.try_get::<String, _>("facts")?).context("the journal's facts")
}

/// What [`recover`] did with one component.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The restore or undo.
    pub job_id: u64,
    /// What it was about.
    pub component: Component,
    /// Whether the new tree is live.
    pub done: bool,
}

/// Ends what jobs that are over have left open on this node. What somebody still holds is left to the next call.
pub async fn recover(pool: &MySqlPool, config: &Config) -> anyhow::Result<Vec<Recovered>> {
    let mut recovered = Vec::new();
    let rows = sqlx::query(
        "SELECT s.*,
                EXISTS (SELECT 1 FROM tree_swaps t WHERE t.job_id = s.job_id AND (t.step IN ('swap', 'swapped') OR t.state = 'done'))
                OR EXISTS (SELECT 1 FROM cut_overs c WHERE c.job_id = s.job_id AND c.state = 'done') AS begun
           FROM tree_swaps s LEFT JOIN jobs j ON j.id = s.job_id
          WHERE s.node = ? AND s.state = 'open' AND (j.id IS NULL OR j.state <> 'running')
            AND NOT EXISTS (SELECT 1 FROM cut_overs c WHERE c.job_id = s.job_id AND c.state = 'open')
          ORDER BY s.id",
    )
    .bind(&config.node)
    .fetch_all(pool)
    .await?;
    for row in &rows {
        let mut tree = Tree {
            id: row.try_get("id")?,
            job_id: row.try_get("job_id")?,
            component: component(row)?,
            root: row.try_get::<String, _>("live_directory")?.into(),
            work: row.try_get::<String, _>("work_directory")?.into(),
            facts: facts(row)?,
            contents: Contents::default(),
            left_out: Vec::new(),
            step: row.try_get("step")?,
            lock: None,
        };
        let begun: bool = row.try_get::<i64, _>("begun")? != 0;
        match lock(&tree.work) {
            Ok(Locked::Got(lock)) => tree.lock = Some(lock),
            Ok(Locked::Gone) => {}
            Ok(Locked::Held) => continue,
            Err(error) => bail!("cannot look at {}: {error}", tree.work.display()),
        }
        // Another worker may have ended it before we had the lock.
        let still: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM tree_swaps WHERE id = ? AND state = 'open'").bind(tree.id).fetch_optional(pool).await?;
        if still.is_none() {
            continue;
        }
        let (id, job_id, component) = (tree.id, tree.job_id, tree.component);
        match end(pool, tree, begun).await {
            Ok(done) => recovered.push(Recovered { job_id, component, done }),
            Err(error) => {
                let why = explain(&error);
                sqlx::query("UPDATE tree_swaps SET note = ? WHERE id = ? AND state = 'open'")
                    .bind(text(&why))
                    .bind(id)
                    .execute(pool)
                    .await?;
                bail!("{component} of job {job_id}: {why}");
            }
        }
    }
    Ok(recovered)
}

enum Locked {
    Got(File),
    Held,
    Gone,
}

fn lock(work: &Path) -> io::Result<Locked> {
    let file = match fs::OpenOptions::new().write(true).open(work.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Locked::Gone),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Locked::Got(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Locked::Held),
        Err(error) => Err(error.into()),
    }
}

/// Forward where the job had begun to replace anything, else back. Tells which.
async fn end(pool: &MySqlPool, mut tree: Tree, begun: bool) -> anyhow::Result<bool> {
    let hand = Hand { pool, fence: None, cancel: None };
    let live = tree.root.display().to_string();
    let (component, job) = (tree.component, tree.job_id);
    let done = begun && tree.step != "back" && tree.step != "stage";
    let message = if done {
        forward(&hand, &mut tree).await?;
        format!("a worker finished what was begun: {live} is wholly the new {component}. `enqueue undo {job}` puts back what it replaced")
    } else {
        if tree.step == "back" {
            back(&hand, &mut tree).await?;
        }
        format!("a worker cleaned up: {live} is as it was before. Next: make a new plan")
    };
    let until = cut_over::until(pool, tree.facts.undo_hours).await?;
    let (id, undoes) = (tree.id, tree.facts.undoes);
    if !done {
        remove_work(&tree.work, &tree.facts.token, true).await?;
    }
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    if done {
        settle(&mut tx, id, undoes, until).await?;
    } else {
        sqlx::query(
            "UPDATE tree_swaps SET state = 'reverted', ended_at = UTC_TIMESTAMP(6), work_gone = TRUE WHERE id = ? AND state = 'open'",
        )
        .bind(id)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query("INSERT INTO job_log (job_id, attempt, level, message) SELECT id, attempt, 'warn', ? FROM jobs WHERE id = ?")
        .bind(text(&message))
        .bind(job)
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE jobs SET error = CONCAT(COALESCE(error, ''), '. ', ?) WHERE id = ?")
        .bind(text(&message))
        .bind(job)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done)
}

/// Removes what nobody needs on this node: what was replaced and can no longer be undone, and what swept jobs left. Returns
/// the directories.
///
/// The row says `expired` first. Dies between: the next call removes the directory.
pub async fn drop_expired(pool: &MySqlPool, node: &str) -> anyhow::Result<Vec<PathBuf>> {
    // An undo that waits or runs keeps what it is about.
    sqlx::query(
        "UPDATE tree_swaps s SET s.undo_state = 'expired'
          WHERE s.undo_state = 'kept' AND s.undo_until <= UTC_TIMESTAMP(6) AND s.node = ?
            AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.kind = 'undo' AND j.state IN ('available', 'running')
                               AND JSON_EXTRACT(j.payload, '$.job') = s.job_id)",
    )
    .bind(node)
    .execute(pool)
    .await?;
    // A late worker may make its directory after its row says `reverted`: those of the last two days are looked at again. What an
    // undo has not taken back yet is needed by it.
    let rows = sqlx::query(
        "SELECT id, work_directory, work_gone, facts, state FROM tree_swaps
          WHERE node = ? AND ((work_gone = FALSE AND (state = 'reverted' OR undo_state IN ('used', 'expired')))
                              OR (state = 'reverted' AND ended_at > UTC_TIMESTAMP() - INTERVAL 2 DAY))",
    )
    .bind(node)
    .fetch_all(pool)
    .await?;
    let mut removed = Vec::new();
    for row in &rows {
        let (id, gone): (u64, bool) = (row.try_get("id")?, row.try_get("work_gone")?);
        let work = PathBuf::from(row.try_get::<String, _>("work_directory")?);
        if work.symlink_metadata().is_ok() {
            if matches!(lock(&work), Ok(Locked::Held)) {
                continue;
            }
            let reverted = row.try_get::<String, _>("state")? == "reverted";
            remove_work(&work, &facts(row)?.token, reverted).await?;
            removed.push(work);
        }
        if !gone {
            sqlx::query("UPDATE tree_swaps SET work_gone = TRUE WHERE id = ?").bind(id).execute(pool).await?;
        }
    }
    Ok(removed)
}

/// How a job's components stand, for people, a line each.
pub async fn describe(connection: &mut MySqlConnection, job_id: u64) -> sqlx::Result<Vec<String>> {
    let rows = sqlx::query(
        "SELECT s.component, s.node, s.live_directory, s.work_directory, s.state, s.step, s.note, s.undo_state, s.undo_until, j.state = 'running' AS running
           FROM tree_swaps s LEFT JOIN jobs j ON j.id = s.job_id WHERE s.job_id = ? ORDER BY s.id",
    )
    .bind(job_id)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let text = |key: &str| row.try_get::<String, _>(key);
            let (component, live, step) = (text("component")?, text("live_directory")?, text("step")?);
            let note: Option<String> = row.try_get("note")?;
            let note = note.filter(|n| !n.is_empty()).map_or_else(String::new, |n| format!(" ({n})"));
            let what = format!("{component} in {live}");
            Ok(match (text("state")?.as_str(), row.try_get::<Option<bool>, _>("running")?.unwrap_or(false)) {
                ("open", true) => format!("{what}: under way, at step `{step}`"),
                ("open", false) => format!(
                    "{what}: interrupted at step `{step}`{note}. Next: see that a worker runs on node {}; it finishes or cleans up, and starts no other job on {component} before",
                    text("node")?
                ),
                ("reverted", _) => format!("{what}: as it was before{note}. Next: make a new plan"),
                _ => match row.try_get::<Option<String>, _>("undo_state")?.as_deref() {
                    Some("kept") => {
                        let until: DateTime<Utc> = row.try_get("undo_until")?;
                        format!(
                            "{what}: replaced; what was there is kept in {} until {} UTC, `enqueue undo {job_id}` puts it back",
                            text("work_directory")?,
                            until.format("%Y-%m-%d %H:%M:%S")
                        )
                    }
                    Some("used") => format!("{what}: replaced, and undone since"),
                    _ => format!("{what}: replaced; what was there has been removed since"),
                },
            })
        })
        .collect()
}
