//! What a restore of a file archive would do, from evidence, changing nothing.

use crate::{
    archive_source::{Source, backup_directory},
    backup::{directories, source},
    component::Component,
    job::{Context, explain, give_up},
    restore_plan::RestorePlan,
    trees::How,
    units::size,
};
use anyhow::{Context as _, anyhow};
use engine::{
    archive::read_manifest,
    files::{
        Exclude, WORK_PREFIX,
        extract::{self, Contents, ExtractError},
        swap::{self, Below, Staying},
    },
    manifest::Manifest,
    paths, verify,
};
use rustix::fs::{Access, access};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What a file takes on disk besides its content, at most.
const PER_FILE: u64 = 4096;

/// A plan for one component.
pub struct FilePlan {
    /// Which.
    pub component: Component,
    /// The archive's name.
    pub archive: String,
    /// Where it is read.
    pub path: PathBuf,
    /// The live directory, resolved; it may be missing.
    pub root: PathBuf,
    /// How it is replaced.
    pub how: How,
    /// Where our working directory will be.
    pub beside: PathBuf,
    /// One file of it and nothing else.
    pub one: Option<String>,
    /// Whether `.env` is taken too.
    pub with_env: bool,
    /// What stays as it is.
    pub excludes: Vec<Exclude>,
    /// What the archive holds.
    pub contents: Contents,
    /// Bytes needed on the file system of `beside`.
    pub needed: u64,
    /// Why it must not be applied.
    pub refusals: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What must not change until it is applied.
    pub evidence: Value,
    /// For people.
    pub facts: Value,
}

/// Verifies the archive, looks at every member's name, and at the live directory. An error: no plan can be made.
///
/// `again`: it was all done for the plan that was confirmed; that the file is the same is enough then.
pub async fn draw(context: &Context, request: &RestorePlan, from: &Source, again: bool) -> anyhow::Result<FilePlan> {
    let component = from.component;
    let (_, configured) = directories(&context.config)
        .into_iter()
        .find(|(c, _)| *c == component)
        .ok_or_else(|| give_up(anyhow!("{component} is not a directory")))?;
    let configured = configured.map_err(give_up)?;
    let root = resolve(&configured).map_err(give_up)?;
    let read = {
        let (path, expected, control) = (from.path.clone(), from.expected.clone(), context.control.clone());
        let (one, live, effort) = (request.path.clone(), root.clone(), context.config.effort);
        let word = component.as_str();
        let work = move || Read::of(&path, word, one.as_deref(), &live, expected.as_ref(), again, &effort, &control);
        context.config.effort.run(work).await?.map_err(|e| if context.control.cancel.is_cancelled() { e } else { give_up(e) })?
    };
    let (mut refusals, mut warnings) = (Vec::new(), Vec::new());
    if let Some(manifest) = &read.manifest {
        warnings.extend(manifest.warnings.iter().map(|w| format!("the backup of {component} has this warning: {w}")));
    }
    let top = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if read.manifest.is_none() && read.contents.top != top && !read.contents.top.is_empty() {
        warnings.push(format!("the archive's directory is called `{}`, and the one that it goes to `{top}`", read.contents.top));
    }
    let place = Place::find(&root, component, request.path.is_some()).unwrap_or_else(|why| {
        refusals.push(why);
        Place { how: How::Whole, beside: root.parent().unwrap_or(&root).to_owned() }
    });
    let mut excludes = Vec::new();
    if place.how == How::Inside {
        // Without the application database, the setting that may say otherwise cannot be read.
        let backups = backup_directory(context).await.ok().or_else(|| context.config.backups.clone()).unwrap_or_default();
        excludes = source(&context.config, component, &backups)?.excludes;
        if from.expected.is_some() {
            excludes.extend(from.path.parent().map(|p| Exclude::Directory(p.to_owned())));
        }
        if component == Component::Framework && !request.with_env {
            excludes.push(Exclude::Anchored(".env".into()));
        }
    }
    let mut stays = Vec::new();
    if root.is_dir() {
        let staying = Staying::new(&root, &excludes, []).map_err(give_up)?;
        refusals.extend(mounts_in_the_way(&root, &staying, &place, read.one.as_deref()));
        stays = excludes.iter().filter_map(|e| shown(e, &root)).collect();
    }
    if let Some(one) = &read.one
        && let Some(why) = file_in_the_way(&root, one)
    {
        refusals.push(why);
    }
    if component == Component::Framework && read.one.as_deref() == Some(b".env") && !request.with_env {
        refusals.push("the live .env is not replaced. Next: --with-env, if that is meant".into());
    }
    let contents = read.contents;
    let needed = contents.bytes + PER_FILE * (contents.files + contents.directories + contents.links);
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        warnings.push(format!("the worker is not root: what it restores of {component} belongs to its own user"));
    }
    let directory = fs::metadata(&root).ok().map(|m| [m.dev(), m.ino()]);
    let facts = json!({
        "component": component,
        "archive": from.name,
        "path": from.path,
        "foreign": read.manifest.is_none(),
        "size": read.size,
        "sha256": read.sha256,
        "taken_at": read.manifest.as_ref().and_then(|m| m.taken_at),
        "directory": root,
        "exists": directory.is_some(),
        "how": place.how,
        "works_in": place.beside,
        "file": request.path,
        "files": contents.files,
        "directories": contents.directories,
        "links": contents.links,
        "bytes": contents.bytes,
        "needed": needed,
        "free": paths::free_bytes(&place.beside).ok(),
        "stays": stays,
        "with_env": request.with_env,
        "undo_hours": context.config.restore.undo_hours,
    });
    let evidence = json!({
        "component": component, "size": read.size, "sha256": read.sha256, "directory": root, "inode": directory.map(|d| d[1]),
        "how": place.how, "file": request.path,
    });
    Ok(FilePlan {
        component,
        archive: from.name.clone(),
        path: from.path.clone(),
        root,
        how: place.how,
        beside: place.beside,
        one: request.path.clone(),
        with_env: request.with_env,
        excludes,
        contents,
        needed,
        refusals,
        warnings,
        evidence,
        facts,
    })
}

/// What there is not enough room for, all components together.
pub fn short_of_space(plans: &[FilePlan]) -> Vec<String> {
    let mut needed: Vec<(u64, &Path, u64)> = Vec::new();
    for plan in plans {
        let device = fs::metadata(&plan.beside).map_or(0, |m| m.dev());
        match needed.iter_mut().find(|(d, _, _)| *d == device) {
            Some((_, _, sum)) => *sum += plan.needed,
            None => needed.push((device, &plan.beside, plan.needed)),
        }
    }
    let short = |(_, beside, needed): (u64, &Path, u64)| {
        let free = paths::free_bytes(beside).ok()?;
        (free < needed).then(|| {
            format!(
                "not enough space in {}: about {} are needed beside what is live, and {} are free. Next: free space there",
                beside.display(),
                size(needed),
                size(free)
            )
        })
    };
    needed.into_iter().filter_map(short).collect()
}

/// The live directory without links; of one that is missing, where it will be.
fn resolve(configured: &Path) -> anyhow::Result<PathBuf> {
    match fs::canonicalize(configured) {
        Ok(root) if root.is_dir() => Ok(root),
        Ok(root) => Err(anyhow!("{} is not a directory", root.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if fs::symlink_metadata(configured).is_ok() {
                return Err(anyhow!(
                    "{} is a link to a directory that does not exist. Next: make it, or remove the link",
                    configured.display()
                ));
            }
            let (parent, name) = configured.parent().zip(configured.file_name()).context("the file system's root cannot be restored")?;
            let parent = fs::canonicalize(parent)
                .with_context(|| format!("{}, in which {} is to be, does not exist", parent.display(), configured.display()))?;
            Ok(parent.join(name))
        }
        Err(error) => Err(anyhow!("cannot look at {}: {error}", configured.display())),
    }
}

/// Where our working directory is, and whether the live one can change places as a whole.
struct Place {
    how: How,
    beside: PathBuf,
}

impl Place {
    /// Beside the live directory, where we may write there and both are one mount; else in it.
    fn find(root: &Path, component: Component, one: bool) -> Result<Self, String> {
        let parent = root.parent().ok_or_else(|| format!("{} cannot be restored: it is the file system's root", root.display()))?;
        let may_write = |directory: &Path| access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        let exists = root.is_dir();
        let is_mount = exists
            && (swap::is_mount(root).unwrap_or(true)
                || fs::metadata(root).ok().map(|m| m.dev()) != fs::metadata(parent).ok().map(|m| m.dev()));
        let beside = !is_mount && may_write(parent);
        if one && !exists {
            return Err(format!("{} does not exist, so no file of it can be put back. Next: restore the whole archive", root.display()));
        }
        if !beside && !exists {
            return Err(format!(
                "{} does not exist, and the worker's user may not make it. Next: make it, and give it to that user",
                root.display()
            ));
        }
        if !beside && !may_write(root) {
            return Err(format!(
                "the worker's user may write neither in {} nor in {}. Next: give it one of them, or run the restore on a worker that may",
                parent.display(),
                root.display()
            ));
        }
        let how = match (one, beside, component) {
            (true, _, _) => How::File,
            (_, true, Component::Uploads | Component::Packages) => How::Whole,
            _ if !exists => How::Whole,
            _ => How::Inside,
        };
        if how != How::Whole && !may_write(root) {
            return Err(format!("the worker's user may not write in {}. Next: give it to that user", root.display()));
        }
        Ok(Self { how, beside: if beside { parent.to_owned() } else { root.to_owned() } })
    }
}

/// What is mounted below the live directory cannot change places with anything.
fn mounts_in_the_way(root: &Path, staying: &Staying, place: &Place, one: Option<&[u8]>) -> Vec<String> {
    let mounts = swap::mounts_below(root).unwrap_or_default();
    let below = |mount: &Path| {
        let rest = mount.strip_prefix(root).ok()?;
        Below::new(std::os::unix::ffi::OsStrExt::as_bytes(rest.as_os_str())).ok()
    };
    let in_the_way = |mount: &&PathBuf| match (place.how, below(mount)) {
        (How::Inside, Some(path)) => !staying.covers(&path),
        // A file may lie beside what is mounted, not in it.
        (How::File, Some(path)) => one.is_none_or(|one| one.strip_prefix(path.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))),
        _ => true,
    };
    mounts
        .iter()
        .filter(in_the_way)
        .map(|mount| {
            format!(
                "something is mounted at {}, inside {}: it cannot change places. Next: unmount it, or unpack the archive by hand (tar -xzf) into an empty directory",
                mount.display(),
                root.display()
            )
        })
        .collect()
}

/// Why one file cannot be put where it was.
fn file_in_the_way(root: &Path, one: &[u8]) -> Option<String> {
    use std::os::unix::ffi::OsStrExt;
    let mut path = root.to_owned();
    let relative = Path::new(std::ffi::OsStr::from_bytes(one));
    for part in relative.components() {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Err(_) => return None,
            Ok(meta) if path == root.join(relative) => {
                return meta.is_dir().then(|| format!("{} is a directory now. Next: move it away", path.display()));
            }
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Some(format!("{} is no directory now. Next: move it away", path.display())),
        }
    }
    None
}

/// What stays, for people, if it is there.
fn shown(exclude: &Exclude, root: &Path) -> Option<String> {
    match exclude {
        Exclude::Anchored(path) if path.contains('*') => Some(path.clone()),
        Exclude::Anchored(path) => root.join(path).symlink_metadata().is_ok().then(|| path.clone()),
        Exclude::Directory(path) => {
            let path = fs::canonicalize(path).ok()?;
            let below = path.strip_prefix(root).ok()?;
            (!below.as_os_str().is_empty()).then(|| below.display().to_string())
        }
        Exclude::Named(_) => None,
    }
}

/// What reading the archive showed.
struct Read {
    size: u64,
    sha256: String,
    manifest: Option<Manifest>,
    contents: Contents,
    /// Below the top directory.
    one: Option<Vec<u8>>,
}

impl Read {
    #[expect(clippy::too_many_arguments, reason = "all of it is needed on another thread")]
    fn of(
        path: &Path,
        component: &str,
        one: Option<&str>,
        live: &Path,
        expected: Option<&verify::Expected>,
        again: bool,
        effort: &engine::effort::Effort,
        control: &engine::control::Control,
    ) -> anyhow::Result<Self> {
        if let Some(wanted) = one {
            return Self::of_one(path, component, wanted, expected);
        }
        let manifest = read_manifest(path)?;
        let (size, sha256) = match &manifest {
            Some(manifest) if manifest.component != component => {
                anyhow::bail!("{} is an archive of {}, not of {component}", path.display(), manifest.component)
            }
            Some(_) if !again => {
                let verified = verify::archive(path, expected, effort, control)?;
                (verified.size, verified.sha256)
            }
            _ => verify::hash(path, expected, control)?,
        };
        let contents = match manifest.as_ref().and_then(|m| m.files.clone()).filter(|_| again) {
            Some(facts) => Contents {
                top: facts.top,
                files: facts.files,
                directories: facts.directories,
                links: facts.links,
                bytes: facts.bytes,
                not_owned: 0,
            },
            None => {
                control.progress.phase("looking at every member", 0);
                extract::inspect(path, live, effort, control)?
            }
        };
        Ok(Self { size, sha256, manifest, contents, one: None })
    }

    /// The index alone: the rest of the archive does not matter.
    fn of_one(path: &Path, component: &str, wanted: &str, expected: Option<&verify::Expected>) -> anyhow::Result<Self> {
        let size = fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?.len();
        if let Some(expected) = expected.filter(|e| e.size != size) {
            return Err(verify::VerifyError::Size { path: path.to_owned(), actual: size, expected: expected.size }.into());
        }
        let one = extract::find(path, component, wanted)?;
        let manifest = read_manifest(path)?;
        let bytes = manifest.as_ref().map_or(0, |m| {
            let end = one.as_deref().map(engine::files::section_name).unwrap_or_default();
            m.sections.iter().filter(|s| s.name.ends_with(&end)).map(|s| s.end - s.start).max().unwrap_or(0)
        });
        let sha256 = manifest.as_ref().map(|m| m.raw_sha256.clone()).unwrap_or_default();
        Ok(Self { size, sha256, manifest, contents: Contents { files: 1, bytes, ..Contents::default() }, one })
    }
}

/// Why nothing can be planned, as the plan's own refusal: an archive that must not be unpacked.
pub fn refusal(error: &anyhow::Error) -> Option<String> {
    let refused = error.chain().find_map(|e| e.downcast_ref::<ExtractError>())?;
    matches!(refused, ExtractError::Refused { .. } | ExtractError::NotThere { .. }).then(|| explain(error))
}

/// The name of our working directory for a job's component.
pub fn work_name(job_id: u64, component: Component) -> String {
    format!("{WORK_PREFIX}{job_id}-{component}")
}
