//! `doctor` tells the truth about this machine, and about ones that lack something.

use std::process::Command;

use serde_json::Value;

use crate::lab::{LABCTL, array, assert_has};

/// doctor's findings as whoever the command is.
fn doctor(mut command: Command) -> (Option<i32>, Value) {
    let dir = tempfile::tempdir().expect("a directory");
    // Its runtime directory is not there before and must not be there afterwards.
    let run = std::env::temp_dir().join(format!("labctl-doctor-{}", dir.path().file_name().unwrap().display()));
    let output = command.args(["doctor", "-o", "json"]).env("LABCTL_RUNTIME_DIR", &run).output().expect("it runs");
    assert!(!run.exists(), "{} was left behind", run.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&text).unwrap_or_else(|e| {
        panic!("{e} in {text} {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), value)
}

fn finding(all: &Value, what: &str) -> Value {
    let found = array(all, "/findings").iter().find(|f| f["what"] == what);
    found.cloned().unwrap_or_else(|| panic!("nothing about {what} in {all}"))
}

#[test]
fn doctor_finds_what_the_labs_of_these_tests_need() {
    let before = std::fs::read_to_string("/proc/net/dev").expect("devices");
    let (code, all) = doctor(Command::new(LABCTL));
    assert_eq!(code, Some(0), "{all}");
    for what in ["namespaces", "veth", "bridge", "VXLAN", "iptables", "raw ICMP socket", "runtime directory"] {
        assert_eq!(finding(&all, what)["verdict"], "ok", "{all}");
    }
    let open = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok();
    assert_eq!(finding(&all, "TUN")["verdict"] == "ok", open, "{all}");
    let names =
        |text: &str| text.lines().filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect::<Vec<_>>();
    let after = std::fs::read_to_string("/proc/net/dev").expect("devices");
    assert_eq!(names(&before), names(&after));
}

#[test]
fn doctor_tells_an_ordinary_user_that_tun_is_closed() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let closed = std::fs::metadata("/dev/net/tun").map_or(true, |m| m.permissions().mode() & 0o006 != 0o006);
    // The test program may lie where only root can go.
    let place = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let copy = place.path().join("labctl");
    std::fs::copy(LABCTL, &copy).expect("a copy");
    let mut command = Command::new(&copy);
    command.current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(54321).gid(54321);
    }
    let (code, all) = doctor(command);
    let namespaces = finding(&all, "namespaces");
    if namespaces["verdict"] != "ok" {
        // A machine that gives an ordinary user none must say so, and what to do.
        assert_eq!(code, Some(3), "{all}");
        assert!(namespaces["remedy"].is_string(), "{all}");
        return;
    }
    assert_eq!(code, Some(0), "{all}");
    assert_has(namespaces["said"].as_str().unwrap_or_default(), "rootless");
    let tun = finding(&all, "TUN");
    assert_eq!(tun["verdict"] == "warning", closed, "{tun}");
    if closed {
        assert_has(tun["said"].as_str().unwrap_or_default(), "/dev/net/tun");
        assert_has(tun["remedy"].as_str().unwrap_or_default(), "backend: vxlan");
    }
}

#[test]
fn doctor_fails_where_the_runtime_directory_is_no_directory() {
    let mut command = Command::new(LABCTL);
    let output = command.arg("doctor").env("LABCTL_RUNTIME_DIR", "/dev/null").output().expect("labctl runs");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_has(&text, "fails    runtime directory");
    assert_has(&text, "what to do: ");
}

#[test]
fn doctor_fails_where_iptables_is_missing() {
    // Without PATH it still looks in the system's own places, so this hides them in a mount
    // namespace of a user namespace, as any user may.
    let dir = tempfile::tempdir().expect("a directory");
    let script = "for d in /usr/sbin /sbin /usr/local/sbin; do [ -d $d ] && mount --bind $1 $d; done; \
                  PATH=/nowhere exec $2 doctor";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(dir.path()).arg(LABCTL).env("LABCTL_RUNTIME_DIR", dir.path().join("run"));
    let output = command.output().expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert_has(&text, "no iptables-restore is installed");
    assert_has(&text, "apt install iptables");
}

#[test]
fn doctor_and_up_name_the_setting_that_forbids_namespaces() {
    // In a user namespace of its own the limit is ours to set, and nobody else's is touched.
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lab.yaml");
    std::fs::write(&file, "hosts: { node1: {} }\n").expect("the lab's file");
    let script = "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\"";
    let forbidden = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", LABCTL]).args(args);
        command.env("LABCTL_RUNTIME_DIR", dir.path().join("run")).output().expect("unshare runs")
    };
    let doctor = forbidden(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(3), "{doctor:?}");
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_has(&text, "fails    namespaces");
    assert_has(&text, "user.max_net_namespaces=");
    let up = forbidden(&["up", &file.display().to_string()]);
    assert_eq!(up.status.code(), Some(3), "{up:?}");
    assert_has(&String::from_utf8_lossy(&up.stderr), "user.max_net_namespaces=");
}
