//! Values under /proc/sys of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::plan::Sysctl;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

/// Write a value. One that is marked optional is passed over where the kernel does not have it, or does not
/// know this value of it.
pub fn write(sysctl: &Sysctl) -> io::Result<()> {
    match fs::write(path(&sysctl.key), &sysctl.value) {
        Err(e) if sysctl.optional && matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            Ok(())
        }
        other => other,
    }
}

/// Read a value, without its line end.
pub fn read(key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(key))?.trim().to_owned())
}
