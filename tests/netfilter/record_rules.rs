//! Rules that are not those of iptables-nft: what a recording tells of iptables-legacy, and of tables that
//! somebody made with `nft`.

use labctl::kernel::record::{Options, Recorder, Recording, RuleKind, RuleSeen, Verdict};
use labctl::trace::model::Means;

use crate::as_root_and_in_a_user_namespace;
use crate::ground::{out, sh};
use crate::line::{Line, RIGHT, destination, host, rules, way};

as_root_and_in_a_user_namespace!(
    rules_of_iptables_legacy_are_told_in_the_order_in_which_they_are_met,
    rules_of_both_kinds_are_told_in_one_order,
    a_namespaces_log_goes_where_it_went_before,
    a_log_that_another_recording_reads_is_left_to_it_and_that_is_said,
    a_rule_of_a_table_of_nft_is_told_as_nft_lists_it,
    a_policy_of_a_table_of_nft_is_told_as_nft_lists_it,
    a_rule_at_a_device_is_told,
    a_rule_of_inet_at_a_device_is_told,
    a_rule_that_is_met_before_all_others_is_told,
    a_rule_of_a_bridge_is_told,
);

/// Rules and connections alone.
fn options() -> Options {
    Options { drops: false, ..Options::default() }
}

/// Rules of xtables in the middle. Its lock is in /run, which is root's.
fn legacy(line: &Line, rules: &str) {
    let lock = tempfile::NamedTempFile::new().expect("a file");
    let lines = rules.lines().map(|rule| format!("iptables-legacy {}", rule.trim()));
    let script: Vec<String> = lines.collect();
    sh(&line.middle, &format!("export XTABLES_LOCKFILE={}\n{}", lock.path().display(), script.join("\n")));
}

fn legacy_places(seen: &Recording) -> Vec<(String, RuleKind, u32)> {
    let all = rules(&seen.events);
    let of = |r: &&RuleSeen| Some((format!("{} {}", r.table, r.chain), r.kind, r.legacy?));
    all.iter().filter_map(of).collect()
}

fn rules_of_iptables_legacy_are_told_in_the_order_in_which_they_are_met() {
    let line = Line::new();
    legacy(
        &line,
        "-N MINE
         -A FORWARD -p tcp -j DROP
         -A FORWARD -p icmp -j MINE
         -A MINE -m comment --comment first
         -A MINE -d 10.0.1.2 -j DROP",
    );
    let seen = line.record(&options(), || line.ping(RIGHT));
    let expected = [("filter FORWARD", 2), ("filter MINE", 1), ("filter MINE", 2)];
    let expected = expected.map(|(place, number)| (place.to_owned(), RuleKind::Rule, number));
    assert_eq!(legacy_places(&seen), expected, "{:?}", seen.events);
    let told = rules(&seen.events);
    let last = told.last().expect("a rule");
    assert_eq!((destination(&last.network, 0), last.transport[0]), (RIGHT, 8), "{last:?}");
    let devices = [&last.iif, &last.oif].map(|dev| dev.as_ref().map(ToString::to_string));
    assert_eq!(devices, [Some("west".to_owned()), Some("east".to_owned())]);
    assert_eq!(way(&seen.events), ["left eth0 out", "middle west in"]);
}

fn rules_of_both_kinds_are_told_in_one_order() {
    let line = Line::new();
    legacy(&line, "-t raw -A PREROUTING -p icmp -m comment --comment a\n-A FORWARD -p icmp -j DROP");
    sh(&line.middle, "iptables-nft -t mangle -A PREROUTING -p icmp -m comment --comment b");
    let seen = line.record(&options(), || line.ping(RIGHT));
    let told = rules(&seen.events);
    let order: Vec<_> =
        told.iter().filter(|r| r.kind == RuleKind::Rule && (r.handle, r.legacy) != (None, None)).collect();
    let order: Vec<_> = order.into_iter().map(|r| (r.table.as_str(), r.legacy)).collect();
    assert_eq!(order, [("raw", Some(1)), ("mangle", None), ("filter", Some(1))], "{told:?}");
}

fn a_namespaces_log_goes_where_it_went_before() {
    let line = Line::new();
    legacy(&line, "-A FORWARD -p icmp -j ACCEPT\n-A FORWARD -p tcp -j DROP");
    let log = || out(&line.middle, "cat /proc/sys/net/netfilter/nf_log/2");
    let lock = tempfile::NamedTempFile::new().expect("a file");
    let counted = || {
        out(&line.middle, &format!("XTABLES_LOCKFILE={} iptables-legacy-save -c | grep -v '^#'", lock.path().display()))
    };
    let zero = || legacy(&line, "-Z");
    for former in ["NONE", "nf_log_ipv4"] {
        // Not every kernel has both.
        sh(&line.middle, &format!("echo {former} > /proc/sys/net/netfilter/nf_log/2 || true"));
        let before = log();
        zero();
        line.ping(RIGHT);
        let without = counted();
        zero();
        let recorder = Recorder::open(&line.spots(), &options()).expect("a recording");
        assert_eq!((recorder.missing(), log().trim()), (&[][..], "nfnetlink_log"));
        line.ping(RIGHT);
        let seen = recorder.finish();
        assert_eq!(legacy_places(&seen).len(), 2, "{:?}", seen.events);
        assert_eq!((log(), counted()), (before.clone(), without));
        drop(Recorder::open(&line.spots(), &options()).expect("a recording"));
        assert_eq!(log(), before);
    }
}

fn a_log_that_another_recording_reads_is_left_to_it_and_that_is_said() {
    let line = Line::new();
    legacy(&line, "-A FORWARD -p icmp -j DROP");
    let first = Recorder::open(&line.spots(), &options()).expect("a recording");
    let second = Recorder::open(&line.spots(), &options()).expect("a recording");
    let [one] = second.missing() else { panic!("{:?}", second.missing()) };
    assert_eq!((one.means, &one.places[..]), (Means::Rules, &[host("middle")][..]));
    assert!(one.why.contains("iptables-legacy") && one.why.contains("another trace of labctl's"), "{}", one.why);
    drop(second);
    line.ping(RIGHT);
    let seen = first.finish();
    assert_eq!(legacy_places(&seen).len(), 1, "the first still hears: {:?}", seen.events);
}

/// The rules that drop, with what `nft` prints of them.
fn drops(seen: &Recording) -> Vec<(u8, String, String, Option<String>)> {
    let dropping = rules(&seen.events).into_iter().filter(|r| r.verdict == Verdict::Drop);
    let text = |r: &RuleSeen| seen.chains.text(&host("middle"), r).map(str::to_owned);
    dropping.map(|r| (r.family, r.table.clone(), r.chain.clone(), text(r))).collect()
}

fn told(family: u8, text: &str) -> [(u8, String, String, Option<String>); 1] {
    [(family, "t".to_owned(), "c".to_owned(), Some(text.to_owned()))]
}

/// A table `t` with a chain `c` in the middle.
fn table(line: &Line, family: &str, hook: &str, rule: &str) {
    let lines = rule.replace("; ", "\n");
    let text = format!("table {family} t {{\nchain c {{\ntype filter hook {hook}\n{lines}\n}}\n}}");
    sh(&line.middle, &format!("nft -f - <<'END'\n{text}\nEND"));
}

fn a_rule_of_a_table_of_nft_is_told_as_nft_lists_it() {
    for (family, number) in [("inet", 1), ("ip", 2)] {
        let line = Line::new();
        table(&line, family, "forward priority 5", "counter; meta l4proto icmp ip daddr 10.0.1.2 counter drop");
        let seen = line.record(&options(), || line.ping(RIGHT));
        let text = "meta l4proto icmp ip daddr 10.0.1.2 counter drop";
        let plain = "ip protocol icmp ip daddr 10.0.1.2 counter drop";
        let found = drops(&seen);
        assert!(found == told(number, text) || found == told(number, plain), "{found:?}");
        let all = rules(&seen.events);
        let last = all.iter().rfind(|r| r.verdict == Verdict::Drop).expect("a rule");
        assert_eq!(seen.chains.number(&host("middle"), last), Some(2));
    }
}

fn a_policy_of_a_table_of_nft_is_told_as_nft_lists_it() {
    let line = Line::new();
    table(&line, "inet", "forward priority filter; policy drop;", "");
    let seen = line.record(&options(), || line.ping(RIGHT));
    assert_eq!(drops(&seen), told(1, "type filter hook forward priority filter; policy drop;"));
}

fn a_rule_at_a_device_is_told() {
    let line = Line::new();
    table(&line, "netdev", "ingress device west priority 0", "ip daddr 10.0.1.2 drop");
    let seen = line.record(&options(), || line.ping(RIGHT));
    assert_eq!(drops(&seen), told(5, "ip daddr 10.0.1.2 drop"));
    assert_eq!(out(&line.middle, "nft list tables").trim(), "table netdev t");
}

fn a_rule_of_inet_at_a_device_is_told() {
    let line = Line::new();
    table(&line, "inet", "ingress device west priority 0", "ip daddr 10.0.1.2 drop");
    let seen = line.record(&options(), || line.ping(RIGHT));
    assert_eq!(drops(&seen), told(1, "ip daddr 10.0.1.2 drop"));
    assert_eq!(out(&line.middle, "nft list tables").trim(), "table inet t");
}

fn a_rule_that_is_met_before_all_others_is_told() {
    for (family, number) in [("inet", 1), ("ip", 2)] {
        let line = Line::new();
        table(&line, family, "prerouting priority -500", "ip daddr 10.0.1.2 drop");
        let seen = line.record(&options(), || line.ping(RIGHT));
        assert_eq!(drops(&seen), told(number, "ip daddr 10.0.1.2 drop"));
    }
}

fn a_rule_of_a_bridge_is_told() {
    let line = Line::new();
    // The middle bridges instead: the right is in the left's network.
    sh(
        &line.middle,
        "echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables || true\nip link add br0 type bridge\nip link set br0 up\nip link set west master br0\nip link set east master br0",
    );
    sh(&line.right, "ip address add 10.0.0.3/24 dev eth0");
    sh(&line.left, "ip neighbour add 10.0.0.3 lladdr 02:00:00:00:01:02 dev eth0");
    table(&line, "bridge", "forward priority 0", "ip daddr 10.0.0.3 drop");
    let seen = line.record(&options(), || line.ping("10.0.0.3".parse().expect("an address")));
    assert_eq!(drops(&seen), told(7, "ip daddr 10.0.0.3 drop"));
    assert_eq!(out(&line.middle, "nft list tables").trim(), "table bridge t");
}
