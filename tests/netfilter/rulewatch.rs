//! Hearing of changed rules, made by the programs that change them in earnest.

use std::future::Future;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use labctl::kernel::ns::NetNs;
use labctl::kernel::rulewatch::{Change, RuleWatch};
use socket2::SockRef;

use crate::as_root_and_in_a_user_namespace;
use crate::ground::{fresh, sh};

as_root_and_in_a_user_namespace!(
    a_change_is_heard_while_it_is_waited_for,
    a_restore_is_told_by_the_number_of_its_process,
    each_table_of_a_restore_is_a_change,
    a_program_in_another_pid_namespace_is_told_by_its_number_there,
    rules_removed_by_hand_are_heard_of,
    reading_rules_is_no_change,
    a_change_that_was_refused_is_none,
    changes_in_another_namespace_are_not_heard,
    thousands_of_rules_do_not_overrun_the_socket,
    more_changes_than_the_socket_holds_count_as_one_of_nobody,
);

/// How long anything that is waited for may take. Far more than it needs, for slow machines.
const PATIENCE: Duration = Duration::from_secs(30);
const SMALL: &str = "*filter\n:A - [0:0]\n-A A -j ACCEPT\nCOMMIT\n";

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// Run `program` in the namespace to its end with rules to read. Returns its process and whether
/// it succeeded.
fn run(ns: &NetNs, program: &[&str], rules: &str) -> (u32, bool) {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = ns.run(|| command.spawn()).expect("the namespace").expect(program[0]);
    let pid = child.id();
    child.stdin.take().expect("its input").write_all(rules.as_bytes()).expect("rules");
    (pid, child.wait().expect("its end").success())
}

/// Restore rules, which must be taken. Returns the process that did.
#[track_caller]
fn restore(ns: &NetNs, rules: &str) -> u32 {
    let (pid, taken) = run(ns, &["iptables-nft-restore", "--noflush"], rules);
    assert!(taken, "the rules were refused: {:.400}", rules);
    pid
}

fn a_change_is_heard_while_it_is_waited_for() {
    let ns = fresh();
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        let changed = tokio::spawn(async move { watch.changed().await });
        // The current thread's runtime gets to the waiting task before this one goes on.
        tokio::task::yield_now().await;
        let elsewhere = ns.clone();
        let pid = tokio::task::spawn_blocking(move || restore(&elsewhere, SMALL)).await.expect("no panic");
        let heard = tokio::time::timeout(PATIENCE, changed).await.expect("in time").expect("no panic");
        assert!(heard.as_ref().is_ok_and(|change| change.is_by(pid)), "{heard:?}");
    });
}

fn a_restore_is_told_by_the_number_of_its_process() {
    let ns = fresh();
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        let pid = restore(&ns, SMALL);
        // The program has ended, so nothing needs to be waited for.
        let told = watch.drain().expect("changes");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].is_by(pid), "{told:?} by {pid}");
        assert!(!told[0].is_by(pid + 1), "{told:?}");
        assert!(told[0].program.as_ref().is_some_and(|name| name.starts_with("iptables-")), "{told:?}");
        assert_eq!(watch.drain().expect("changes"), []);
    });
}

fn each_table_of_a_restore_is_a_change() {
    let ns = fresh();
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        let pid = restore(&ns, &format!("{SMALL}{}", SMALL.replace("filter", "nat")));
        let told = watch.drain().expect("changes");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|change| change.is_by(pid)), "{told:?}");
    });
}

fn a_program_in_another_pid_namespace_is_told_by_its_number_there() {
    let ns = fresh();
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        let inside = ["unshare", "--pid", "--fork", "iptables-nft-restore"];
        let (outside, taken) = run(&ns, &inside, SMALL);
        assert!(taken);
        let told = watch.drain().expect("changes");
        assert_eq!(told.len(), 1, "{told:?}");
        // Its first process there. The other number is the machine's, where it is not the first.
        assert!(told[0].is_by(1) && !told[0].is_by(outside), "{told:?}");
        assert!(told[0].pid.is_some_and(|pid| pid != 1), "{told:?}");
    });
}

fn rules_removed_by_hand_are_heard_of() {
    let ns = fresh();
    restore(&ns, SMALL);
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        for by_hand in ["iptables-nft -F A", "iptables-nft -X A"] {
            sh(&ns, by_hand);
            let heard = tokio::time::timeout(PATIENCE, watch.changed()).await.expect("in time").expect("a change");
            assert_eq!(heard.program.as_deref(), Some("iptables-nft"), "{by_hand}");
        }
    });
}

fn reading_rules_is_no_change() {
    let ns = fresh();
    restore(&ns, SMALL);
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        sh(&ns, "iptables-nft-save\niptables-nft -S\niptables-nft -t mangle -L -n");
        assert_eq!(watch.drain().expect("changes"), []);
        sh(&ns, "iptables-nft -F A");
        assert_eq!(watch.drain().expect("changes").len(), 1);
    });
}

fn a_change_that_was_refused_is_none() {
    let ns = fresh();
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        let refused = "*filter\n:A - [0:0]\n-A A -j NOWHERE\nCOMMIT\n";
        assert!(!run(&ns, &["iptables-nft-restore"], refused).1, "there is no such chain");
        assert_eq!(watch.drain().expect("changes"), []);
    });
}

fn changes_in_another_namespace_are_not_heard() {
    let (here, there) = (fresh(), fresh());
    block_on(async {
        let mut watch = RuleWatch::open(&here).expect("a watch");
        restore(&there, SMALL);
        assert_eq!(watch.drain().expect("changes"), []);
        let pid = restore(&here, SMALL);
        assert!(watch.drain().expect("changes").iter().any(|change| change.is_by(pid)));
    });
}

fn thousands_of_rules_do_not_overrun_the_socket() {
    let ns = fresh();
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        // In parts, because the program may not send more than 208 KiB at once in a user namespace.
        let rule = |i: u32| format!("-A A -s 10.1.{}.{} -j ACCEPT\n", i / 250, i % 250);
        let part = |n: u32| format!("*filter\n{}COMMIT\n", (n * 500..(n + 1) * 500).map(rule).collect::<String>());
        let parts: String = (0..40).map(part).collect();
        let pid = restore(&ns, &format!("*filter\n:A - [0:0]\nCOMMIT\n{parts}"));
        let told = watch.drain().expect("changes");
        assert_eq!(told.len(), 41, "{told:?}");
        assert!(told.iter().all(|change| change.is_by(pid)), "{told:?}");
    });
}

fn more_changes_than_the_socket_holds_count_as_one_of_nobody() {
    let ns = fresh();
    block_on(async {
        let mut watch = RuleWatch::open(&ns).expect("a watch");
        // The kernel makes of this the smallest buffer that there is, which holds a few messages.
        SockRef::from(&watch).set_recv_buffer_size(1).expect("a small buffer");
        let many: String = (0..20).map(|i| format!("*filter\n:A{i} - [0:0]\nCOMMIT\n")).collect();
        let pid = restore(&ns, &many);
        let heard = tokio::time::timeout(PATIENCE, watch.changed()).await.expect("in time").expect("a change");
        assert_eq!(heard, Change::default());
        assert!(!heard.is_by(pid));
        assert!(watch.drain().expect("changes").len() < 20, "some were lost");
        // It goes on as before.
        let pid = restore(&ns, SMALL);
        let told = watch.drain().expect("changes");
        assert!(told.len() == 1 && told[0].is_by(pid), "{told:?}");
    });
}
