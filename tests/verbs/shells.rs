//! `completions` and `man`: what other programs read.

use std::process::Command;

use crate::lab::{LABCTL, assert_has, assert_success};

#[test]
fn completions_of_each_shell_are_read_by_it() {
    for (shell, check) in [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish --no-execute")] {
        let output = Command::new(LABCTL).args(["completions", shell]).output().expect("labctl runs");
        assert_success(&output);
        let script = String::from_utf8(output.stdout).expect("text");
        assert_has(&script, "inspect");
        assert_has(&script, "doctor");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &script).expect("written");
        let mut words = check.split(' ');
        let mut parse = Command::new(words.next().expect("a word"));
        match parse.args(words).arg(file.path()).output() {
            Ok(parsed) => assert_success(&parsed),
            // bash is everywhere; of the others the words above are what can be proved here.
            Err(e) if shell != "bash" => eprintln!("{shell} is not installed ({e}): its script was not parsed"),
            Err(e) => panic!("bash: {e}"),
        }
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    let main = Command::new(LABCTL).arg("man").output().expect("labctl runs");
    assert_success(&main);
    let main = String::from_utf8(main.stdout).expect("text");
    assert!(main.contains(".TH labctl 1"), "{main}");
    let dir = tempfile::tempdir().expect("a directory");
    let pages = dir.path().join("man1");
    assert_success(&Command::new(LABCTL).arg("man").arg(&pages).output().expect("labctl runs"));
    for page in ["labctl", "labctl-up", "labctl-doctor", "labctl-inspect-bridge"] {
        let text = std::fs::read_to_string(pages.join(format!("{page}.1"))).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
    }
}
