//! A lab in a runtime directory of its own, driven by the real program, as whatever user runs the
//! tests.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

pub const LABCTL: &str = env!("CARGO_BIN_EXE_labctl");

pub const LOOK: &str = "
networks:
  rack1: { cidr: 192.168.1.0/24 }
  rack2: { cidr: 192.168.2.0/24 }
hosts:
  node1: { network: rack1 }
  node2: { network: rack1 }
  node3: { network: rack2 }
clients:
  laptop: { network: rack1 }
pods:
  tea-1: { host: node1, labels: { app: tea }, ports: [8080] }
  tea-2: { host: node1, ports: [8080] }
  coffee-1: { host: node2, ports: [8080] }
  talker: { host: node3, command: [sh, -c, 'echo hello from the talker; exec sleep 1000'] }
";

/// A lab that ends with the test, also with one that fails.
pub struct Lab {
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn up(text: &str) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().expect("a directory") };
        std::fs::write(lab.file(), text).expect("the lab's file");
        let file = lab.file().display().to_string();
        assert_success(&lab.run(&["up", &file]));
        lab
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("look.yaml")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(LABCTL);
        command.args(args).env("LABCTL_RUNTIME_DIR", self.dir.path().join("run")).env_remove("COLUMNS");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("labctl runs")
    }

    /// What a verb that must succeed prints.
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_success(&output);
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.says(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    /// A shell command on a machine of the lab.
    pub fn on(&self, machine: &str, script: &str) -> String {
        self.says(&["exec", machine, "--", "sh", "-c", script])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed has its own message; this one must not hide it.
        let _ = self.command(&["down", "--all"]).output();
    }
}

#[track_caller]
pub fn assert_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
}

#[track_caller]
pub fn assert_has(text: &str, words: &str) {
    assert!(text.contains(words), "`{words}` is not in:\n{text}");
}

pub fn array<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub fn mac(lab: &Lab, machine: &str) -> String {
    lab.on(machine, "cat /sys/class/net/eth0/address").trim().to_owned()
}
