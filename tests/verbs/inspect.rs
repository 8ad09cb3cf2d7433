//! `inspect` shows what the kernel holds, and follows it when that changes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::lab::{LABCTL, LOOK, Lab, array, assert_has, mac};

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

impl Watch {
    /// Wait for its end.
    fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child")
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
    let mut watch = Watch::begin(&lab, "node1");
    watch.until(|l| l.contains("aged out") && l.contains(&tea));
    // With the lab the watch ends, and that is no failure.
    lab.says(&["down"]);
    assert!(watch.ended().success());
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
    let odd = lab.run(&["inspect", "stack", "tea 1 é%"]);
    assert_has(&String::from_utf8_lossy(&odd.stderr), "is called `tea 1 é%`");
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
