//! Golden files for what goes wrong with the machine and in a lab's life: each situation is
//! brought about for real, and what labctl says is compared with `tests/golden/life/NAME.txt`,
//! the exit code included. `UPDATE_GOLDEN=1` writes the files anew.
//!
//! Most situations need root, to take something away from the machine's own view in a mount
//! namespace of the test's; run by an ordinary user, those tests are reported as ignored.

mod harness;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::tests::Need;
use labctl::daemon::state::problem;
use labctl::diag::{Problems, Sources, render};
use labctl::kernel::ns::NetNs;
use labctl::kernel::world::World;
use labctl::lab::names::{IfName, NsName};
use labctl::plan::diff::{Op, Step};
use labctl::plan::{Link, LinkKind};

const SMALL: &str = "name: small\nhosts: { node1: {} }\npods: { a: {} }\n";

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().expect("a directory"));
        bench.file("small.yaml", SMALL);
        bench
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("a file");
    }

    fn runtime(&self) -> PathBuf {
        self.0.path().join("run")
    }

    /// Run a shell line in the bench's directory, `$LABCTL` being the program. Returns what it
    /// wrote to standard error, its exit code behind it.
    fn run(&self, line: &str) -> String {
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(self.0.path())
            .env("LABCTL", env!("CARGO_BIN_EXE_labctl"))
            .env("LABCTL_RUNTIME_DIR", self.runtime())
            .env("COLUMNS", "100")
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr).replace(&self.0.path().display().to_string(), "DIR");
        format!("{said}exit code {}\n", output.status.code().unwrap_or(-1))
    }

    fn down(&self) {
        self.run("$LABCTL down --all");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.down();
    }
}

fn is_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/life").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("a golden file");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{} differs", path.display());
}

tests![&[Need::Root]; machine_iptables, machine_tun, kernel_refused];
tests![&[]; machine_namespaces, runtime_dir, lab_running, lab_unknown, lab_gone, lab_not_ready, target_unknown, trace_too_many, command_failed, workload_failed];

fn main() {
    harness::tests::main();
}

fn machine_namespaces() {
    let line = "unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_net_namespaces; exec $LABCTL up small.yaml'";
    is_golden("machine-namespaces", &Bench::new().run(line));
}

fn machine_iptables() {
    let hide = "for d in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $d; done; [ -L /sbin ] || mount -t tmpfs none /sbin";
    let line = format!("unshare -m sh -c '{hide}; PATH=/usr/bin:/bin exec $LABCTL up small.yaml'");
    is_golden("machine-iptables", &Bench::new().run(&line));
}

fn machine_tun() {
    let bench = Bench::new();
    bench.file("udp.yaml", &format!("cluster: {{ flannel: {{ backend: udp }} }}\n{SMALL}"));
    // The device file as it is where only root may open it.
    let closed = "mount -t tmpfs -o dev none /dev/net; mknod -m 600 /dev/net/tun c 10 200";
    let user = "chmod 755 .; mkdir -m 700 of-user; chown 65534 of-user; cp $LABCTL of-user/labctl; cd of-user";
    let become_user = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";
    let run = "env LABCTL_RUNTIME_DIR=$PWD/run ./labctl up ../udp.yaml";
    let line = format!("unshare -m sh -c '{closed}; {user}; chown 65534 labctl; {become_user} {run}'");
    is_golden("machine-tun", &bench.run(&line));
}

fn kernel_refused() {
    let link = |name: &str, index, kind| Link {
        name: IfName::new(name),
        index,
        mac: None,
        mtu: 1450,
        master: None,
        hairpin: false,
        up: true,
        kind,
    };
    let vxlan =
        LinkKind::Vxlan { vni: 1 << 24, port: 8472, local: [192, 168, 1, 11].into(), dev: IfName::new("br-lan") };
    let add = |link| Step { ns: NsName::Router, op: Op::AddLink { link: Box::new(link), peer: None } };
    let steps = [add(link("br-lan", 2, LinkKind::Bridge)), add(link("flannel.1", 3, vxlan))];
    // A thread of its own: it moves into a namespace of its own.
    let failed = std::thread::spawn(move || World::new(NetNs::create_and_enter().expect("a namespace")).apply(&steps));
    let failed = failed.join().expect("the thread").expect_err("a VNI of 25 bits is refused");
    let mut problems = Problems::default();
    problems.push(*problem(&failed));
    is_golden("kernel-refused", &render::to_text(&problems, &Sources::default(), false, 100));
}

fn runtime_dir() {
    let bench = Bench::new();
    fs::create_dir(bench.runtime()).expect("a directory");
    let line = "chmod 777 $LABCTL_RUNTIME_DIR; $LABCTL up small.yaml; chmod 700 $LABCTL_RUNTIME_DIR; exit 3";
    is_golden("runtime-dir", &bench.run(line));
}

fn lab_running() {
    let bench = Bench::new();
    let line = "$LABCTL up small.yaml >/dev/null; $LABCTL test small.yaml";
    is_golden("lab-running", &bench.run(line));
}

fn lab_unknown() {
    let bench = Bench::new();
    let line = "$LABCTL status; $LABCTL up small.yaml >/dev/null; $LABCTL status smal";
    is_golden("lab-unknown", &bench.run(line));
}

fn lab_gone() {
    let bench = Bench::new();
    fs::create_dir(bench.runtime()).expect("a directory");
    // Somebody who holds the lock, and hangs up on whoever calls.
    let lock = fs::File::create(bench.runtime().join("ghost.lock")).expect("a lock file");
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).expect("the lock");
    let listener = UnixListener::bind(bench.runtime().join("ghost.sock")).expect("a socket");
    let ghost = std::thread::spawn(move || listener.accept().map(drop).and_then(|()| listener.accept().map(drop)));
    let said = bench.run("chmod 700 $LABCTL_RUNTIME_DIR; $LABCTL get pods --lab ghost");
    // Whether the hanging up is seen while writing or reading is chance.
    let why = said.lines().find_map(|l| l.split_once("answer: ")).map_or("", |(_, why)| why);
    is_golden("lab-gone", &said.replace(why, "[..]"));
    let knock = std::os::unix::net::UnixStream::connect(bench.runtime().join("ghost.sock"));
    drop((knock, lock));
    ghost.join().expect("the thread").expect("two callers");
}

fn lab_not_ready() {
    let bench = Bench::new();
    bench.file("slow.yaml", "name: slow\nhosts: { node1: {} }\npods: { a: { command: [sleep, inf], readinessProbe: { tcpSocket: { port: 9 } } } }\n");
    is_golden("lab-not-ready", &bench.run("$LABCTL up slow.yaml --timeout 1"));
}

fn target_unknown() {
    let bench = Bench::new();
    let line = "$LABCTL up small.yaml >/dev/null; $LABCTL exec node2 -- true; $LABCTL get pods b; $LABCTL logs a";
    is_golden("target-unknown", &bench.run(line));
}

fn trace_too_many() {
    let bench = Bench::new();
    // Each says first that it follows.
    let line = "$LABCTL up small.yaml >/dev/null; for i in 1 2 3 4 5 6 7 8; do \
                timeout 60 $LABCTL trace --follow a >$i.said 2>/dev/null & done; \
                until [ $(cat *.said | grep -c following) = 8 ]; do sleep 0.05; done; $LABCTL trace --follow a";
    is_golden("trace-too-many", &bench.run(line));
}

fn command_failed() {
    let bench = Bench::new();
    let line = "$LABCTL up small.yaml >/dev/null; $LABCTL exec a -- /does/not/exist";
    is_golden("command-failed", &bench.run(line));
}

fn workload_failed() {
    let bench = Bench::new();
    let listen = "import socket,os\ns=socket.create_server((\"\",90))\nprint(1,flush=True)\nos.read(0,1)";
    bench.file("listen.py", &listen.replace("\\\"", "\""));
    bench.file("more.yaml", &SMALL.replace("a: {}", "a: { ports: [90] }"));
    // The one who listens says that it does, and goes with its input.
    let line = "$LABCTL up small.yaml >/dev/null; mkfifo in out; $LABCTL exec a -- python3 listen.py <in >out & \
                exec 3>in; read line <out; $LABCTL up more.yaml; code=$?; exec 3>&-; wait; exit $code";
    is_golden("workload-failed", &bench.run(line));
}
