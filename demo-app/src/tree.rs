//! The application's directories: what a file backup has to cope with.

use crate::{
    files::{self, SAMPLES},
    rng::Rng,
    text::LANGUAGES,
};
use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of all files together, in units of a million, roughly. Does not count the holes of the sparse file.
    pub mb: u64,
    /// The same seed gives the same files.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { mb: 60, seed: 42 }
    }
}

/// Apparent size of the sparse file; it takes a few blocks on the disk.
const SPARSE: u64 = 128 << 20;

/// Writes the tree into `dir`, which must be empty or not exist; returns the number of files.
///
/// Directories: `uploads`, `packages`, and around them the framework (`app`, `config`, `.env`, `vendor`, ...).
pub fn write(dir: &Path, options: &Options) -> io::Result<u64> {
    fs::create_dir_all(dir)?;
    if fs::read_dir(dir)?.next().is_some() {
        return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty"));
    }
    let mut tree = Tree { root: dir.to_owned(), options: options.clone(), rng: Rng::new(options.seed, "tree", 0), files: 0, bytes: 0 };
    tree.framework()?;
    tree.packages()?;
    tree.uploads()?;
    Ok(tree.files)
}

struct Tree {
    root: PathBuf,
    options: Options,
    rng: Rng,
    files: u64,
    bytes: u64,
}

impl Tree {
    fn framework(&mut self) -> io::Result<()> {
        self.file("artisan", b"#!/usr/bin/env php\n<?php\nrequire __DIR__.'/vendor/autoload.php';\n", 0o755)?;
        self.file(
            ".env",
            b"APP_NAME=\"Heratio demo\"\nAPP_ENV=production\nAPP_KEY=base64:bm90LWEtcmVhbC1rZXktYnV0LTMyLWJ5dGVzLWxvbmch\nDB_PASSWORD='not a real # password'\n\
              MAIL_PASSWORD=not-a-real-secret\n",
            0o640,
        )?;
        self.file("composer.json", br#"{"name": "demo/heratio", "require": {"php": "^8.3"}}"#, 0o644)?;
        self.file("package.json", br#"{"private": true}"#, 0o644)?;
        self.file("public/index.php", b"<?php\n", 0o644)?;
        self.file("public/hot", b"http://localhost:5173", 0o644)?;
        self.file("public/build/manifest.json", b"{}", 0o644)?;
        self.file("bootstrap/app.php", b"<?php\n", 0o644)?;
        self.file("bootstrap/cache/x.php", b"<?php return [];\n", 0o644)?;
        self.file(".git/HEAD", b"ref: refs/heads/main\n", 0o644)?;
        self.texts(".git/objects", "", 30)?;
        for (dir, extension, count) in [
            ("app/Http/Controllers", "php", 60),
            ("app/Models", "php", 60),
            ("config", "php", 30),
            ("database/migrations", "php", 60),
            ("resources/views", "blade.php", 80),
            ("lang/zu", "json", 10),
            ("routes", "php", 4),
            ("public/vendor/lightbox", "js", 20),
            ("public/build/assets", "js", 20),
            ("storage/framework/views", "php", 60),
            ("storage/framework/sessions", "", 40),
            ("storage/framework/cache/data/0a/f3", "", 40),
            ("vendor/laravel/framework/src", "php", 500),
            ("vendor/symfony/console", "php", 250),
            ("node_modules/vite/dist", "js", 200),
        ] {
            self.texts(dir, extension, count)?;
        }
        let mut log = String::new();
        while log.len() < 400_000 {
            let text = LANGUAGES[0].prose(&mut self.rng, false);
            log.push_str(&format!("[2025-06-{:02} 12:00:00] production.ERROR: {text}\n", 1 + self.rng.below(30)));
        }
        self.file("storage/logs/laravel.log", log.as_bytes(), 0o664)?;
        fs::create_dir_all(self.root.join("storage/app/public"))?;
        symlink("../storage/app/public", self.root.join("public/storage"))
    }

    fn packages(&mut self) -> io::Result<()> {
        for package in ["ahg-core", "ahg-theme-demo", "ahg-museum"] {
            self.file(&format!("packages/{package}/composer.json"), b"{}", 0o644)?;
            self.texts(&format!("packages/{package}/src/Services"), "php", 40)?;
            self.file(&format!("packages/{package}/bin/install"), b"#!/bin/sh\nexit 0\n", 0o755)?;
        }
        Ok(())
    }

    fn uploads(&mut self) -> io::Result<()> {
        for number in 0..SAMPLES {
            for file in files::sample(self.options.seed, number) {
                let path = format!("{}{}", files::directory("demo", &file.sha256), file.name);
                self.file(path.trim_start_matches('/'), &file.bytes, 0o644)?;
            }
        }
        self.texts("uploads/transcripts", "txt", 300)?;
        self.texts("uploads/ocr", "hocr", 300)?;

        let long = "Notulen der Vergaderingen van den Kerkeraad ".repeat(5);
        self.file(&format!("uploads/{}/{}.txt", long[..180].trim(), long[..200].trim()), b"long names", 0o644)?;
        self.file("uploads/фонды/опись № 1.txt", "опись\n".as_bytes(), 0o644)?;
        self.file("uploads/檔案/目錄 😀.txt", "目錄\n".as_bytes(), 0o644)?;
        self.file("uploads/new\nline and -dash; $(name) 'quoted' \"twice\" \\.txt", b"awkward", 0o644)?;
        self.file_os(&Path::new("uploads/legacy").join(OsStr::from_bytes(b"caf\xe9 (latin1).txt")), b"not UTF-8", 0o644)?;
        self.file("uploads/empty.txt", b"", 0o644)?;
        self.file("uploads/readonly.txt", b"r--", 0o444)?;
        self.file("uploads/private.txt", b"rw-", 0o600)?;
        self.file("uploads/hook.sh", b"#!/bin/sh\n", 0o2751)?;
        fs::create_dir_all(self.root.join("uploads/tmp/empty"))?;
        fs::set_permissions(self.root.join("uploads/tmp"), Permissions::from_mode(0o2775))?;
        symlink("r/demo", self.root.join("uploads/latest"))?;
        symlink("/nonexistent/volume/масters", self.root.join("uploads/unmounted"))?;
        fs::hard_link(self.root.join("uploads/private.txt"), self.root.join("uploads/private (same file).txt"))?;
        self.sparse("uploads/masters/reel_0001.mov")?;

        let mut number = 0;
        let target = self.options.mb * 1_000_000;
        while self.bytes < target {
            // Mostly screen size, now and then a scan of some megabytes.
            let len = if self.rng.chance(10) { self.rng.between(1_000_000, 6_000_000) } else { self.rng.between(15_000, 400_000) };
            let bytes = files::jpeg_like(&mut self.rng, len.min((target - self.bytes + 13) as i64) as usize);
            self.file(&format!("uploads/images/{:02}/DSC_{number:05}.JPG", number % 20), &bytes, 0o644)?;
            number += 1;
        }
        Ok(())
    }

    /// So many small files of text, below some directories of their own.
    fn texts(&mut self, dir: &str, extension: &str, count: usize) -> io::Result<()> {
        // A small tree has fewer of them.
        let count = (count as u64 * self.options.mb.min(60)).div_ceil(60);
        for n in 0..count {
            let mut text = String::from(if extension.ends_with("php") { "<?php\n// " } else { "" });
            let len = 200 + self.rng.below(5000);
            while text.len() < len {
                text.push_str(&LANGUAGES[n as usize % LANGUAGES.len()].prose(&mut self.rng, true));
                text.push('\n');
            }
            let name = hex::encode(self.rng.bytes(4));
            let dot = if extension.is_empty() { "" } else { "." };
            self.file(&format!("{dir}/{:x}/{name}{dot}{extension}", n % 8), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// Three islands of data in a large hole.
    fn sparse(&mut self, path: &str) -> io::Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        let mut file = File::create(&path)?;
        file.set_len(SPARSE)?;
        for at in [0, SPARSE / 2 + 100, SPARSE - 4096] {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&self.rng.bytes(4096))?;
        }
        self.files += 1;
        self.date(&file)
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.file_os(Path::new(path), bytes, mode)
    }

    fn file_os(&mut self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        let mut file = File::create_new(&path)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        self.files += 1;
        self.bytes += bytes.len() as u64;
        self.date(&file)
    }

    /// Some time between 1999 and 2025.
    fn date(&mut self, file: &File) -> io::Result<()> {
        let seconds = self.rng.between(930_000_000, 1_748_736_000) as u64;
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// Paths, kinds and contents of everything below a directory, as one checksum.
    fn fingerprint(dir: &Path) -> String {
        fn visit(dir: &Path, hash: &mut Sha256) {
            let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                hash.update(path.file_name().unwrap().as_bytes());
                let meta = path.symlink_metadata().unwrap();
                if meta.is_dir() {
                    visit(&path, hash);
                } else if meta.is_file() && meta.len() < SPARSE {
                    hash.update(fs::read(&path).unwrap());
                }
            }
        }
        let mut hash = Sha256::new();
        visit(dir, &mut hash);
        hex::encode(hash.finalize())
    }

    #[test]
    fn the_same_seed_gives_the_same_tree() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { mb: 4, seed: 5 };
        let files = write(&dir.path().join("a"), &options).unwrap();
        assert_eq!(write(&dir.path().join("b"), &options).unwrap(), files);
        assert_eq!(fingerprint(&dir.path().join("a")), fingerprint(&dir.path().join("b")));
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        let error = write(dir.path(), &Options::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
    }
}
