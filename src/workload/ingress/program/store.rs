//! The folders of configurations: one each, and the link `current` to the one in use.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::plan::ingress::Rendered;

/// The link to the configuration in use.
pub const CURRENT: &str = "current";

pub struct Store {
    directory: PathBuf,
    /// Of the configuration that was written last.
    number: u64,
}

impl Store {
    /// In a directory that nobody else may look into: keys and sockets are there. What a former
    /// process left of its configurations is removed.
    pub fn new(directory: &Path) -> io::Result<Store> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", directory.display()));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
        let text = directory.as_os_str().as_encoded_bytes();
        if !directory.is_absolute() || !text.iter().all(|b| plain(*b)) {
            return Err(named(io::Error::other("a path of letters, digits, `/`, `.`, `_` and `-` is needed")));
        }
        // A Unix socket's path has room for 107 bytes, and HAProxy adds to it while it starts.
        if text.len() > 70 {
            return Err(named(io::Error::other("a path of at most 70 letters is needed, for sockets in it")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(named)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(named)?;
        let store = Store { directory: directory.to_owned(), number: 0 };
        store.remove_but(None);
        Ok(store)
    }

    /// Write a configuration into a folder of its own.
    pub fn write(&mut self, rendered: &Rendered) -> io::Result<PathBuf> {
        self.number += 1;
        let folder = self.directory.join(format!("configuration-{}", self.number));
        for file in &rendered.files {
            let path = folder.join(&file.name);
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mode = if file.secret { 0o600 } else { 0o644 };
            let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            new.write_all(file.text.as_bytes())?;
        }
        Ok(folder)
    }

    /// Make it the one in use. Returns the one that was.
    pub fn adopt(&self, folder: &Path) -> io::Result<Option<PathBuf>> {
        let link = self.directory.join(CURRENT);
        let before = fs::read_link(&link).ok();
        self.point(folder)?;
        Ok(before.map(|b| self.directory.join(b)))
    }

    fn point(&self, folder: &Path) -> io::Result<()> {
        let new = self.directory.join("next");
        let _ = fs::remove_file(&new);
        symlink(folder.file_name().unwrap_or_default(), &new)?;
        fs::rename(&new, self.directory.join(CURRENT))
    }

    /// Take the one that was in use before.
    pub fn go_back(&self, before: Option<PathBuf>) -> io::Result<()> {
        before.map_or(Ok(()), |before| self.point(&before))
    }

    /// Remove a configuration that is not used.
    pub fn forget(&self, folder: &Path) {
        // What is left over is removed with the next one.
        let _ = fs::remove_dir_all(folder);
    }

    /// Remove all but the one in use.
    pub fn tidy(&self) {
        let current = fs::read_link(self.directory.join(CURRENT)).ok();
        self.remove_but(current.as_deref());
    }

    fn remove_but(&self, kept: Option<&Path>) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|n| n.starts_with("configuration-"));
            if ours && kept.is_none_or(|kept| kept.as_os_str() != name) {
                self.forget(&entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ingress::File;

    fn rendered(text: &str) -> Rendered {
        let file = |name: &str, secret| File { name: name.to_owned(), text: text.to_owned(), secret };
        Rendered { files: vec![file("main.conf", false), file("certificates/a_b.pem", true)], ..Rendered::default() }
    }

    #[test]
    fn one_is_used_and_the_others_go() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let mut store = Store::new(&dir.path().join("deep/er")).unwrap();
        let current = |store: &Store| fs::read_to_string(store.directory.join("current/main.conf")).unwrap();
        let first = store.write(&rendered("1")).unwrap();
        store.adopt(&first).unwrap();
        let second = store.write(&rendered("2")).unwrap();
        assert_eq!(current(&store), "1");
        let before = store.adopt(&second).unwrap();
        assert_eq!((current(&store).as_str(), before.as_ref()), ("2", Some(&first)));
        store.go_back(before).unwrap();
        assert_eq!(current(&store), "1");
        store.tidy();
        assert!(first.exists() && !second.exists());
        let key = first.join("certificates/a_b.pem");
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&store.directory).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_would_mean_something_to_a_program_is_refused() {
        for path in ["relative", "/tmp/a b", "/tmp/a;b", "/tmp/$x", &format!("/tmp/{}", "x".repeat(80))] {
            assert!(Store::new(Path::new(path)).is_err(), "{path}");
        }
    }
}
