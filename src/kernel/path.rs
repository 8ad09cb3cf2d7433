//! Where programs of containers are looked for: this machine's own, as there are no images.

use std::path::Path;

/// The PATH of a container's program that sets none itself.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether this machine has a program of that name or at that path. It looks only for the file.
pub fn is_there(program: &str) -> bool {
    match program.contains('/') {
        true => Path::new(program).is_file(),
        false => PATH.split(':').any(|dir| Path::new(dir).join(program).is_file()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        assert!(is_there("sh") && is_there("/bin/sh"));
        assert!(!is_there("no-such-program") && !is_there("/bin") && !is_there("/no/such/program") && !is_there(""));
    }
}
