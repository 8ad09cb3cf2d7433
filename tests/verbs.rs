//! The verbs that look: `inspect`, `describe`, `get`, `doctor`, `completions`, `man`; each against
//! real labs in a runtime directory of their own, as whatever user runs the tests.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

const LABCTL: &str = env!("CARGO_BIN_EXE_labctl");

const LOOK: &str = "
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
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn up(text: &str) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().expect("a directory") };
        std::fs::write(lab.file(), text).expect("the lab's file");
        let file = lab.file().display().to_string();
        assert_success(&lab.run(&["up", &file]));
        lab
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("look.yaml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(LABCTL);
        command.args(args).env("LABCTL_RUNTIME_DIR", self.dir.path().join("run")).env_remove("COLUMNS");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("labctl runs")
    }

    /// What a verb that must succeed prints.
    fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_success(&output);
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.says(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    /// A shell command on a machine of the lab.
    fn on(&self, machine: &str, script: &str) -> String {
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
fn assert_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
}

#[track_caller]
fn assert_has(text: &str, words: &str) {
    assert!(text.contains(words), "`{words}` is not in:\n{text}");
}

fn array<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn mac(lab: &Lab, machine: &str) -> String {
    lab.on(machine, "cat /sys/class/net/eth0/address").trim().to_owned()
}

/// The lines of a watch, as they come.
struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    /// Begin, and wait until the table has been shown: from then on no change is missed.
    fn begin(lab: &Lab, bridge: &str) -> Watch {
        let mut command = lab.command(&["inspect", "bridge", bridge, "--watch"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("labctl runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
        let watch = Watch { child, lines };
        watch.until(|l| l.starts_with("watching"));
        watch
    }

    #[track_caller]
    fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(e) => panic!("{e}; seen was:\n{}", seen.join("\n")),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stack_shows_its_four_parts_as_the_kernel_has_them() {
    let lab = Lab::up(LOOK);
    let host = lab.says(&["inspect", "stack", "node1"]);
    for part in ["1. Interfaces", "2. Loopback", "3. Routing table", "4. iptables rules"] {
        assert_has(&host, part);
    }
    assert_has(&host, "port of cni0, other end eth0 on pod tea-1");
    assert_has(&host, "nat FLANNEL-POSTRTG");
    let pod = lab.json(&["inspect", "stack", "tea-1"]);
    let interfaces = array(&pod, "/interfaces");
    let named = |name: &str| interfaces.iter().find(|i| i["name"] == name).unwrap_or_else(|| panic!("{name} in {pod}"));
    assert_eq!(named("lo")["kind"], "loopback");
    assert_eq!(named("lo")["addresses"][0]["address"], "127.0.0.1/8");
    let eth0 = named("eth0");
    assert_eq!(eth0["mac"].as_str(), Some(mac(&lab, "tea-1").as_str()));
    assert_eq!(eth0["mtu"], 1450);
    assert_eq!(eth0["otherEnd"]["name"], "node1");
    let local = array(eth0, "/addresses").iter().any(|a| a["scope"] == "link");
    assert!(local, "no link-local address in {eth0}");
    let connected = array(&pod, "/routes").iter().find(|r| r["protocol"] == "kernel" && r["dst"] == "10.244.1.0/24");
    assert!(connected.is_some(), "no connected route in {pod}");
    // What is taken away is no longer shown: it is read, not repeated from the plan.
    lab.on("tea-1", "ip route del 10.244.0.0/16");
    let after = lab.json(&["inspect", "stack", "tea-1"]);
    assert!(!array(&after, "/routes").iter().any(|r| r["dst"] == "10.244.0.0/16"), "{after}");
}

#[test]
fn a_bridge_learns_who_pings_and_a_watch_tells_it() {
    let lab = Lab::up(LOOK);
    let tea = mac(&lab, "tea-1");
    let entry = |lab: &Lab| {
        let table = lab.json(&["inspect", "bridge", "node1"]);
        array(&table, "/entries").iter().find(|e| e["mac"] == tea.as_str()).cloned()
    };
    let watch = Watch::begin(&lab, "node1");
    lab.on("node1", "bridge fdb flush dev cni0 2>/dev/null || echo 1 > /sys/class/net/cni0/bridge/flush");
    lab.on("tea-1", "ping -c 1 -W 5 10.244.1.3");
    watch.until(|l| l.contains("learnt") && l.contains(&tea) && l.contains("pod tea-1 (eth0)"));
    let there = entry(&lab).expect("learnt after a ping");
    assert_eq!(there["origin"], "learnt");
    assert_eq!(there["owner"]["name"], "tea-1");
    assert_eq!(there["leadsTo"]["name"], "tea-1");
    // The same address behind another port is a move. That it sends is enough; an answer goes to
    // whoever had the address before.
    let script = format!(
        "ip link set eth0 down; ip link set eth0 address {tea}; ip link set eth0 up; ping -c 1 -W 1 10.244.1.1 || true"
    );
    lab.on("tea-2", &script);
    watch.until(|l| l.contains("moved") && l.contains(&tea) && l.contains(" from "));
}

#[test]
fn a_bridge_forgets_what_is_silent_and_a_watch_tells_it() {
    let lab = Lab::up(LOOK);
    let tea = mac(&lab, "tea-1");
    // In hundredths of a second.
    lab.on("node1", "echo 100 > /sys/class/net/cni0/bridge/ageing_time");
    lab.on("tea-1", "ping -c 1 -W 5 10.244.1.3");
    let watch = Watch::begin(&lab, "node1");
    watch.until(|l| l.contains("aged out") && l.contains(&tea));
}

#[test]
fn a_networks_switch_knows_its_machines_and_a_wrong_name_gets_a_remedy() {
    let lab = Lab::up(LOOK);
    lab.on("laptop", "ping -c 1 -W 5 192.168.1.11");
    let switch = lab.says(&["inspect", "bridge", "rack1"]);
    assert_has(&switch, "client laptop (eth0)");
    assert_has(&switch, "host node1 (eth0)");
    let refused = lab.run(&["inspect", "bridge", "router"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_has(&String::from_utf8_lossy(&refused.stderr), "br-rack2");
    let unknown = lab.run(&["inspect", "bridge", "node1", "--watch", "--lab", "loook"]);
    assert_has(&String::from_utf8_lossy(&unknown.stderr), "did you mean `look`?");
}

#[test]
fn flannel_ways_are_complete_until_an_entry_is_deleted() {
    let lab = Lab::up(LOOK);
    let way = |lab: &Lab, to: &str| {
        let all = lab.json(&["inspect", "flannel", "node1"]);
        array(&all, "/0/peers").iter().find(|p| p["peer"] == to).cloned().unwrap_or_else(|| panic!("{to} in {all}"))
    };
    assert_eq!(way(&lab, "node2")["complete"], true);
    assert_eq!(array(&way(&lab, "node2"), "/parts").len(), 3);
    assert_has(&lab.says(&["inspect", "flannel", "node1"]), "FLANNEL_SUBNET=10.244.1.1/24");
    lab.on(
        "node1",
        "bridge fdb show dev flannel.1 | grep 'dst 192.168.1.12' | while read mac rest; do \
                     bridge fdb del $mac dev flannel.1; done",
    );
    let broken = way(&lab, "node2");
    assert_eq!(broken["complete"], false, "{broken}");
    let fdb = array(&broken, "/parts").iter().find(|p| p["part"] == "fdb").expect("the part");
    assert!(fdb["there"].is_null() && fdb["wanted"].is_string(), "{fdb}");
    let text = lab.says(&["inspect", "flannel", "node1"]);
    assert_has(&text, "MISSING: ");
    assert_eq!(way(&lab, "node3")["complete"], true);
    lab.on("node1", "ip link set flannel.1 down");
    assert_has(&lab.says(&["inspect", "flannel", "node1"]), "flannel.1, DOWN");
}

#[test]
fn host_gw_says_where_there_is_no_way() {
    let lab = Lab::up(&format!("cluster: {{ flannel: {{ backend: host-gw }} }}{LOOK}"));
    let text = lab.says(&["inspect", "flannel", "node1"]);
    assert_has(&text, "direct by 192.168.1.12");
    assert_has(&text, "no way: host-gw reaches only hosts of its own network");
}

#[test]
fn udp_shows_flanneld_as_ps_does_and_tells_when_it_is_gone() {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_err() {
        // What is left to prove here is that the refusal names the remedy.
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("look.yaml");
        std::fs::write(&file, format!("cluster: {{ flannel: {{ backend: udp }} }}{LOOK}")).expect("the lab's file");
        let mut command = Command::new(LABCTL);
        let output = command.arg("up").arg(&file).env("LABCTL_RUNTIME_DIR", dir.path().join("run")).output();
        let output = output.expect("labctl runs");
        assert_eq!(output.status.code(), Some(3));
        assert_has(&String::from_utf8_lossy(&output.stderr), "/dev/net/tun");
        return;
    }
    let lab = Lab::up(&format!("cluster: {{ flannel: {{ backend: udp }} }}{LOOK}"));
    let all = lab.json(&["inspect", "flannel", "node1"]);
    let pid = all[0]["flanneld"]["pid"].as_i64().unwrap_or_else(|| panic!("no process in {all}"));
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("a process of the caller's");
    assert_eq!(name.trim(), "flanneld");
    assert_has(&lab.says(&["inspect", "flannel", "node1"]), "by flanneld to 192.168.1.12:8285");
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).expect("ours to end");
    // A killed process needs a moment to end; each look is a new one.
    let deadline = Instant::now() + Duration::from_secs(10);
    let looks = std::iter::repeat_with(|| lab.says(&["inspect", "flannel", "node1"]));
    let last = looks.take_while(|_| Instant::now() < deadline).find(|text| text.contains("flanneld    NOT RUNNING"));
    assert!(last.is_some(), "{}", lab.says(&["inspect", "flannel", "node1"]));
}

#[test]
fn describe_shows_what_is_true() {
    let lab = Lab::up(LOOK);
    let pod = lab.says(&["describe", "pod", "tea-1"]);
    assert_has(&pod, &mac(&lab, "tea-1"));
    let far = lab.on("node1", "ip -o link show master cni0");
    let veth = far.lines().next().and_then(|l| l.split([' ', '@']).nth(1)).expect("a port").trim_end_matches(':');
    assert_has(&pod, &format!("{veth} (index 5"));
    for words in ["app=tea", "10.244.1.2", "8080/TCP", "node1/192.168.1.11", "the built-in echo server"] {
        assert_has(&pod, words);
    }
    let talker = lab.json(&["describe", "pod", "talker"]);
    assert_eq!(talker["containers"][0]["log"][0], "hello from the talker");
    let pid = talker["containers"][0]["process"].as_i64().unwrap_or_else(|| panic!("no process in {talker}"));
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a process of the caller's");
    assert_has(&command, "sleep");
    let host = lab.says(&["describe", "host", "node1"]);
    for words in ["10.244.1.0/24", "VtepMAC", "tea-1", "tea-2", "flannel.1", "rack1, router 192.168.1.254/24"] {
        assert_has(&host, words);
    }
    assert_has(&lab.says(&["describe", "client", "laptop"]), "rack1");
    let wrong = lab.run(&["describe", "host", "tea-1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_has(&String::from_utf8_lossy(&wrong.stderr), "not a host but a pod");
}

#[test]
fn describe_tells_why_a_pod_is_not_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    let lab = Lab { dir };
    let text = "hosts: { node1: {} }\npods:\n  shy: { host: node1, ports: [8080], readinessProbe: { tcpSocket: { \
                port: 9 }, periodSeconds: 1 } }\n";
    std::fs::write(lab.file(), text).expect("the lab's file");
    let up = lab.run(&["up", "--timeout", "2", &lab.file().display().to_string()]);
    assert_eq!(up.status.code(), Some(1), "{}", String::from_utf8_lossy(&up.stderr));
    let pod = lab.says(&["describe", "pod", "shy"]);
    assert_has(&pod, "tcp-socket :9");
    assert_has(&pod, "Last failure:");
    assert_has(&pod, "refused");
}

#[test]
fn get_shows_clients_and_networks_and_keeps_kubernetes_shape() {
    let lab = Lab::up(LOOK);
    assert_has(&lab.says(&["get", "clients"]), "laptop");
    let networks = lab.says(&["get", "networks", "-o", "wide"]);
    assert_has(&networks, "node1,node2,laptop");
    assert_has(&networks, "br-rack1");
    assert_eq!(lab.json(&["get", "networks", "rack2"])["spec"]["cidr"], "192.168.2.0/24");
    let node = lab.json(&["get", "hosts", "node1"]);
    assert_eq!((&node["apiVersion"], &node["kind"]), (&"v1".into(), &"Node".into()));
}

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
