//! Packet filters that somebody wrote beside the lab's own, in any of the kernel's two places for
//! them, and labs whose own are in the older one.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::harness::{Bench, Ran};
use crate::sample::FOUR_PODS;
use crate::{as_root_and_ordinary_user, drift};

drift! {
    missing_rules: on "node1" "iptables -w -F FLANNEL-FWD" => "+ -t filter -A FLANNEL-FWD";
    a_rule_too_many: on "b1" "iptables -w -A INPUT -p icmp -j DROP" => "- -t filter -A INPUT -p icmp -j DROP";
    rules_in_a_table_of_nobodys: on "node1" "iptables -w -t raw -A PREROUTING -p icmp -j DROP"
        => "- -t raw -A PREROUTING -p icmp -j DROP";
    a_table_of_nftables: on "a1"
        "nft 'add table inet mine; add chain inet mine in { type filter hook input priority 0; }; \
         add rule inet mine in meta l4proto icmp drop'"
        => "nft delete table inet mine";
    a_table_of_nftables_with_the_name_of_another_family: on "node1" "nft add table netdev filter"
        => "nft delete table netdev filter";
    a_table_of_nftables_in_our_family: on "node1" "nft add table ip mine" => "nft delete table ip mine";
    a_chain_of_nftables_in_a_table_of_ours: on "node1"
        "nft 'add chain ip filter mine { type filter hook forward priority 10; policy drop; }'"
        => "nft delete table ip filter";
    a_rule_of_nftables_in_a_chain_of_ours: on "node1"
        "nft add rule ip filter FORWARD ct state established drop"
        => "nft delete table ip filter";
    rules_for_ipv6: on "b2" "ip6tables -w -A OUTPUT -j DROP" => "nft delete table ip6 filter";
    rules_of_the_older_kind: on "node1" "iptables-legacy -w -A FORWARD -j DROP"
        => "- -t filter -A FORWARD -j DROP";
}

as_root_and_ordinary_user![a_lab_with_the_older_iptables, looking_at_the_older_tables_is_no_drift];

/// A directory where `iptables` and its companions are the older ones, first in the PATH.
fn legacy_first(bench: &Bench) -> OsString {
    let dir = bench.path("legacy");
    fs::create_dir(&dir).expect("a directory");
    for name in ["iptables", "iptables-restore", "iptables-save"] {
        let real = name.replacen("iptables", "iptables-legacy", 1);
        let places = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from);
        let real = places.iter().map(|p| p.join(&real)).find(|p| p.exists()).expect("iptables-legacy is installed");
        symlink(real, dir.join(name)).expect("a link");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([dir].into_iter().chain(std::env::split_paths(&path))).expect("a PATH")
}

fn a_lab_with_the_older_iptables(bench: &Bench) {
    let path = legacy_first(bench);
    let run = |args: &[&str]| {
        let mut command = bench.labctl(args);
        command.env("PATH", &path);
        Ran::of(command, args)
    };
    let sh = |target: &str, line: &str| run(&["exec", target, "--", "sh", "-c", line]).ends_with(0).stdout;
    let file = bench.write(FOUR_PODS);
    let up = || run(&["up", &file, "--no-probes"]).ends_with(0);
    let mends = |step: &str| {
        let drift = run(&["diff"]).ends_with(1);
        assert!(drift.stdout.contains(step), "it should name {step:?}: {drift}");
        up();
        run(&["diff"]).ends_with(0);
        run(&["probe"]).ends_with(0);
    };
    up();
    run(&["diff"]).ends_with(0);
    run(&["probe"]).ends_with(0);
    assert!(sh("node1", "iptables-legacy-save").contains("FLANNEL-FWD"), "the rules are where they should be");
    let nft = sh("node1", "iptables-nft-save");
    assert!(!nft.contains("FLANNEL-FWD"), "and nowhere else: {nft}");
    sh("node1", "iptables -w -A FORWARD -j DROP");
    mends("- -t filter -A FORWARD -j DROP");
    sh("node2", "iptables-nft -w -A FORWARD -j DROP");
    mends("nft delete table ip filter");
}

fn looking_at_the_older_tables_is_no_drift(bench: &Bench) {
    bench.up(&bench.write(FOUR_PODS));
    // The kernel makes a table for whoever looks at it, and keeps it.
    bench.sh("node1", "iptables-legacy -w -L");
    assert_eq!(bench.sh("node1", "cat /proc/net/ip_tables_names").trim(), "filter");
    bench.is_as_planned();
}
