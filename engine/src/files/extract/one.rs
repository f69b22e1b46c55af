//! One file out of an archive: through the index where there is one, so that the rest is not unpacked.

use super::{
    Archive, Checker, Contents, Control, Copy, Effort, Entry, EntryType, ExtractError, MemberKind, Mode, OFlags, copy, create, open, parts,
    read_error, set_meta,
};
use crate::{
    archive::{read_manifest, read_part},
    files::section_name,
    manifest::Manifest,
};
use rustix::fs::{CWD, openat, syncfs};
use std::{
    io::{self, Read},
    path::Path,
};

/// How many names the error about one that is not there suggests.
const NEAREST: usize = 3;

/// The file's name as the archive has it: `wanted` begins with the archive's top directory, or with `component`.
fn full_name(top: &[u8], component: &str, wanted: &[u8]) -> Result<Vec<u8>, &'static str> {
    let wanted = parts(wanted)?;
    match wanted.split_first() {
        Some((first, rest)) if !rest.is_empty() && (*first == top || *first == component.as_bytes()) => {
            Ok([&[top], rest].concat().join(&b'/'))
        }
        Some(_) => Ok([&[top], wanted.as_slice()].concat().join(&b'/')),
        None => Err("has no name"),
    }
}

/// Where the file is, of an archive with an index: its path below the top directory.
///
/// Reads the manifest alone. The error for one that is not there suggests names.
pub fn find(path: &Path, component: &str, wanted: &str) -> Result<Option<Vec<u8>>, ExtractError> {
    let Some(manifest) = read_manifest(path)? else { return Ok(None) };
    let refuse = |why: &str| ExtractError::Refused { path: path.to_owned(), member: wanted.to_owned(), why: why.into() };
    let top = manifest.files.as_ref().map(|f| f.top.clone()).unwrap_or_default();
    let name = full_name(top.as_bytes(), component, wanted.as_bytes()).map_err(refuse)?;
    section(path, &manifest, &name)?;
    Ok(Some(name[top.len() + 1..].to_vec()))
}

fn section<'m>(path: &Path, manifest: &'m Manifest, name: &[u8]) -> Result<&'m crate::manifest::Section, ExtractError> {
    let name = section_name(name);
    let files = || manifest.sections.iter().filter(|s| s.kind == "file");
    files().find(|s| s.name == name).ok_or_else(|| {
        let below = format!("{name}/");
        let last = name.rsplit('/').next().unwrap_or(&name);
        // What lies in it, if it is a directory; then what is called the same; then what lies beside it.
        let beside = name.rfind('/').map_or("", |at| &name[..=at]);
        let mut near: Vec<String> = Vec::new();
        let suggestions: [&dyn Fn(&str) -> bool; 3] =
            [&|n| n.starts_with(&below), &|n| n.rsplit('/').next() == Some(last), &|n| n.starts_with(beside)];
        for suggests in suggestions {
            for section in files().filter(|s| suggests(&s.name)) {
                if near.len() < NEAREST && !near.contains(&section.name) {
                    near.push(section.name.clone());
                }
            }
        }
        ExtractError::NotThere { path: path.to_owned(), wanted: name.clone(), near }
    })
}

/// Unpacks one file into `into`, an empty directory, at its path below the top directory, which is returned.
///
/// Through the index; an archive without one is read up to the file. Directories above it are made.
pub fn extract_one(
    path: &Path,
    component: &str,
    wanted: &str,
    into: &Path,
    effort: &Effort,
    control: &Control,
) -> Result<(Vec<u8>, Contents), ExtractError> {
    let Some(manifest) = read_manifest(path)? else { return scan(path, component, wanted, into, effort, control) };
    let refuse = |why: &str| ExtractError::Refused { path: path.to_owned(), member: wanted.to_owned(), why: why.into() };
    let read = |source| read_error(path, control, source);
    let top = manifest.files.as_ref().map(|f| f.top.clone()).unwrap_or_default();
    let name = full_name(top.as_bytes(), component, wanted.as_bytes()).map_err(refuse)?;
    let mut found = section(path, &manifest, &name)?;
    // A further name of a file has its content under the first.
    for _ in 0..2 {
        let mut archive = Archive::new(read_part(path, &manifest, found.start, found.end)?);
        let mut entry = archive.entries().map_err(read)?.next().ok_or_else(|| refuse("has no header")).and_then(|e| e.map_err(read))?;
        if entry.header().entry_type() == EntryType::Link {
            let first = entry.link_name_bytes().map(|t| t.into_owned()).unwrap_or_default();
            found = section(path, &manifest, &parts(&first).map_err(refuse)?.join(&b'/'))?;
            continue;
        }
        let below = name[top.len() + 1..].to_vec();
        let contents = write(path, &mut entry, &below, into, control)?;
        return Ok((below, contents));
    }
    Err(refuse("is another name of another name"))
}

/// The same without an index.
fn scan(
    path: &Path,
    component: &str,
    wanted: &str,
    into: &Path,
    effort: &Effort,
    control: &Control,
) -> Result<(Vec<u8>, Contents), ExtractError> {
    let read = |source| read_error(path, control, source);
    let refuse = |why: &str| ExtractError::Refused { path: path.to_owned(), member: wanted.to_owned(), why: why.into() };
    let mut name: Option<(Vec<u8>, usize)> = None;
    let mut look_for_first = None;
    for _ in 0..2 {
        let mut archive = Archive::new(open(path, effort, control)?);
        for entry in archive.entries().map_err(read)? {
            let mut entry = entry.map_err(read)?;
            let member = entry.path_bytes().into_owned();
            let member = parts(&member).map_err(refuse)?.join(&b'/');
            if name.is_none() {
                let top = member.split(|b| *b == b'/').next().unwrap_or(&member).to_vec();
                name = Some((full_name(&top, component, wanted.as_bytes()).map_err(refuse)?, top.len() + 1));
            }
            let Some((full, below)) = &name else { continue };
            if member != *look_for_first.as_ref().unwrap_or(full) {
                continue;
            }
            if entry.header().entry_type() == EntryType::Link {
                let first = entry.link_name_bytes().map(|t| t.into_owned()).unwrap_or_default();
                look_for_first = Some(parts(&first).map_err(refuse)?.join(&b'/'));
                break;
            }
            let below = full[*below..].to_vec();
            let contents = write(path, &mut entry, &below, into, control)?;
            return Ok((below, contents));
        }
        if look_for_first.is_none() {
            break;
        }
    }
    let wanted = name.map_or_else(|| wanted.to_owned(), |(name, _)| section_name(&name));
    Err(ExtractError::NotThere { path: path.to_owned(), wanted, near: Vec::new() })
}

/// Writes the member, which must be a regular file, at `below`.
fn write<R: Read>(path: &Path, entry: &mut Entry<'_, R>, below: &[u8], into: &Path, control: &Control) -> Result<Contents, ExtractError> {
    let failed = |source: io::Error| ExtractError::Write { path: into.to_owned(), member: section_name(below), source };
    // It is not its live tree that matters here: a link is refused below.
    let member = Checker::new(path, Path::new("/")).check(entry)?;
    let MemberKind::File { size, .. } = member.kind else {
        return Err(ExtractError::Refused {
            path: path.to_owned(),
            member: section_name(below),
            why: "is no regular file: restore the whole archive".into(),
        });
    };
    let root = openat(CWD, into, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| failed(e.into()))?;
    let file = create(&root, below).map_err(failed)?;
    control.progress.phase(format!("unpacking {}", section_name(below)), size);
    copy(entry, &file, size, control).map_err(|error| match error {
        Copy::Read(source) => read_error(path, control, source),
        Copy::Write(source) => failed(source),
    })?;
    let owned = set_meta(&file.into(), &member.meta).map_err(failed)?;
    syncfs(&root).map_err(|e| failed(e.into()))?;
    Ok(Contents { files: 1, bytes: size, not_owned: u64::from(!owned), ..Contents::default() })
}
