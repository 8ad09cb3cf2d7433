//! The machine's own network, as its tools show it: what no lab may change.

use std::process::Command;

/// What is looked at. Each is a shell line; what it prints must stay the same.
const LOOKS: &[&str] = &[
    "ip netns list",
    "ip -d link show",
    "ip address show",
    "ip route show table all",
    "ip rule show",
    "iptables-save",
    "nft -s list ruleset",
    "sysctl -a --pattern '^net'",
];

/// Values that count what happens on the machine, whoever does it.
const COUNTERS: &[&str] = &[
    "net.netfilter.nf_conntrack_count",
    "net.ipv4.tcp_fastopen_key",
    "net.ipv6.conf.default.stable_secret",
    "net.core.netdev_rss_key",
];

/// The machine's network at one moment.
#[derive(PartialEq)]
pub struct Machine(Vec<(&'static str, String)>);

impl Machine {
    pub fn look() -> Machine {
        Machine(LOOKS.iter().map(|look| (*look, seen(look))).collect())
    }

    /// The machine must be as it was.
    #[track_caller]
    pub fn is_still(&self, moment: &str) {
        for ((look, before), (_, now)) in self.0.iter().zip(Machine::look().0) {
            let gone = before.lines().filter(|l| !now.lines().any(|n| n == *l)).map(|l| format!("- {l}\n"));
            let new = now.lines().filter(|l| !before.lines().any(|b| b == *l)).map(|l| format!("+ {l}\n"));
            let differs: String = gone.chain(new).collect();
            assert!(*before == now, "{moment}, `{look}` is no longer what it was:\n{differs}");
        }
    }
}

fn seen(look: &str) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", look]).env("PATH", path).output().expect("a shell");
    // An ordinary user may not look at everything; what the tool says then must stay the same, too.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let counts = |line: &&str| COUNTERS.iter().any(|c| line.starts_with(c));
    said.lines().filter(|l| !l.starts_with('#') && !counts(l)).map(without_counters).collect()
}

/// iptables-save shows packets and bytes in brackets, `ip -d link` the time a bridge's timers have.
fn without_counters(line: &str) -> String {
    let line = line.split_once(" [").map_or(line, |(before, _)| before);
    let mut words = Vec::new();
    let mut after_timer = false;
    for word in line.split_whitespace() {
        if !after_timer {
            words.push(word);
        }
        after_timer = word.ends_with("_timer");
    }
    words.join(" ") + "\n"
}
