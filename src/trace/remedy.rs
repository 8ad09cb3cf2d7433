//! What would mend a fault, as commands. What differs between a machine and its plan is known as steps
//! (`plan::diff`); here they become what a person types to do the same by hand.

use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::{Deviation, Setting};
use crate::plan::diff::{Op, Step};
use crate::plan::rules::{Chain, Rules};
use crate::plan::{Address, FdbEntry, Link, LinkKind, Neighbour, Sysctl};

use super::model::Remedy;
use super::shell;

/// More differences than these are not told one by one.
const MOST: usize = 12;
/// The priorities of the rules that every machine has.
const FIRST_RULES: [u32; 3] = [0, 32766, 32767];

/// What would mend a machine that is not as planned, each difference by a command. Nothing where it is as planned, or
/// where labctl alone can mend it.
pub fn of_machine(place: &NsName, drift: &[Step]) -> Vec<Remedy> {
    let here = essential(place, drift);
    if here.is_empty() {
        return Vec::new();
    }
    let by_hand: Option<Vec<_>> = here.iter().map(|s| commands(&s.op, &here)).collect();
    let mut all = Vec::new();
    if let Some(by_hand) = by_hand.filter(|_| here.len() <= MOST) {
        for (step, commands) in here.iter().zip(by_hand) {
            let says = format!("on {place}, {}", what_for(&step.op));
            let remedy =
                |command| Remedy { says: says.clone(), command: Some(format!("labctl exec {place} -- {command}")) };
            all.extend(commands.into_iter().map(remedy));
        }
    }
    all
}

/// What is not as planned in a machine, without what only follows from it: the addresses of a device that is down
/// have lost their routes, and get them again with it.
pub fn essential<'d>(place: &NsName, drift: &'d [Step]) -> Vec<&'d Step> {
    let here = || drift.iter().filter(|s| s.ns == *place);
    let rises = |dev: &IfName| {
        here().any(|s| matches!(&s.op, Op::ChangeLink { from, to } if to.name == *dev && !from.up && to.up))
    };
    let again = |a: &Address| {
        let same = |b: &Address| (&a.dev, a.net, a.broadcast) == (&b.dev, b.net, b.broadcast);
        let goes = here().any(|s| matches!(&s.op, Op::RemoveAddress(b) if same(b)));
        let comes = here().any(|s| matches!(&s.op, Op::AddAddress(b) if same(b)));
        goes && comes && rises(&a.dev)
    };
    let follows = |s: &&Step| matches!(&s.op, Op::AddAddress(a) | Op::RemoveAddress(a) if again(a));
    here().filter(|s| !follows(s)).collect()
}

/// The same without what belongs to a device that is to come or to rise, which is the difference that counts.
pub fn origins<'d>(place: &NsName, drift: &'d [Step]) -> Vec<&'d Step> {
    let here = essential(place, drift);
    let changes = |dev: &IfName| {
        here.iter().any(|s| match &s.op {
            Op::AddLink { link, .. } => link.name == *dev,
            Op::ChangeLink { to, .. } => to.name == *dev,
            _ => false,
        })
    };
    let belongs = |s: &&&Step| match &s.op {
        Op::AddAddress(Address { dev, .. })
        | Op::AddNeighbour(Neighbour { dev, .. })
        | Op::AddFdb(FdbEntry { dev, .. }) => changes(dev),
        Op::AddRoute(route) => route.devices().any(changes),
        _ => false,
    };
    here.iter().filter(|s| !belongs(s)).copied().collect()
}

/// A difference in words, as the command that would end it; rules one by one.
pub fn in_words(step: &Step) -> Vec<String> {
    let text = step.op.to_string();
    if !matches!(step.op, Op::SetRules { .. }) {
        return vec![format!("it would take `{}`", first_line(&text))];
    }
    let told = |line: &str| match line.trim().split_once(' ') {
        Some(("-", rule)) => format!("`{rule}` is too many"),
        Some(("+", rule)) => format!("`{rule}` is missing"),
        _ => line.trim().to_owned(),
    };
    text.lines().skip(1).map(told).collect()
}

fn what_for(op: &Op) -> String {
    match op {
        Op::SetRules { .. } => "the rules as planned".to_owned(),
        op => format!("as planned: {}", first_line(&op.to_string())),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What does a step by hand, in the machine of which `here` are all; nothing where labctl alone can do it.
fn commands(op: &Op, here: &[&Step]) -> Option<Vec<String>> {
    let one = |command: String| Some(vec![command]);
    match op {
        Op::SetSysctl(sysctl @ Sysctl { value, .. })
        | Op::Mend(Deviation::Setting(Setting { wanted: sysctl @ Sysctl { value, .. }, .. })) => {
            one(format!("sysctl -w {}={value}", sysctl.dotted()))
        }
        Op::AddRoute(route) => one(format!("ip route add {route}")),
        Op::RemoveRoute(route) => one(format!("ip route del {route}")),
        Op::AddAddress(Address { net, dev, broadcast, .. }) => {
            let broadcast = if *broadcast { " broadcast +" } else { "" };
            one(format!("ip address add {net}{broadcast} dev {dev}"))
        }
        Op::RemoveAddress(address) => one(format!("ip address del {} dev {}", address.net, address.dev)),
        Op::AddNeighbour(n) => one(neighbour("replace", n)),
        Op::RemoveNeighbour(n) => one(format!("ip neigh del {} dev {}", n.ip, n.dev)),
        Op::AddFdb(entry) => one(fdb("append", entry)),
        Op::RemoveFdb(entry) => one(fdb("del", entry)),
        Op::ChangeLink { from, to } => link(from, to),
        Op::Mend(Deviation::LoopbackDown) => one("ip link set lo up".to_owned()),
        Op::Mend(Deviation::Route(told)) => one(format!("ip route del {}", told.what)),
        Op::Mend(Deviation::PolicyRule(told)) => one(policy(&told.what, here)),
        Op::Mend(Deviation::NftTable(table)) if shell::is_named(&table.name) => {
            one(format!("nft delete table {} {}", table.family_name(), table.name))
        }
        Op::Mend(Deviation::Qdisc(qdisc)) => one(format!("tc qdisc del dev {} {}", qdisc.dev, qdisc.place())),
        Op::Mend(Deviation::Port(port)) => one(format!("bridge link set dev {} {}", port.dev, port.fault.remedy())),
        Op::Mend(Deviation::BridgeEntry(entry)) => one(format!("bridge fdb del {}", entry.told.what)),
        Op::SetRules { from, to } => rules(from, to),
        Op::AddLink { link, peer: None } => made(link),
        Op::RemoveLink(link) if matches!(link.kind, LinkKind::Vxlan { .. }) => {
            one(format!("ip link del {}", link.name))
        }
        _ => None,
    }
}

/// `ip rule` shows the priority in front, and takes it by name. Where no other rule has it, it says all: what a rule
/// asks for is not always taken in the words in which it is shown.
fn policy(told: &str, here: &[&Step]) -> String {
    let priority = |told: &str| told.split_once(':')?.0.parse::<u32>().ok();
    let of = |step: &Step| match &step.op {
        Op::Mend(Deviation::PolicyRule(told)) => priority(&told.what),
        _ => None,
    };
    match (priority(told), told.split_once(':')) {
        (Some(own), Some((_, rest))) => {
            let is_shared = FIRST_RULES.contains(&own) || here.iter().filter(|s| of(s) == Some(own)).count() > 1;
            let rest = if is_shared { rest.trim_end() } else { "" };
            format!("ip rule del priority {own}{rest}")
        }
        _ => format!("ip rule del {told}"),
    }
}

fn neighbour(verb: &str, n: &Neighbour) -> String {
    format!("ip neigh {verb} {} dev {} lladdr {} nud permanent", n.ip, n.dev, n.mac)
}

fn fdb(verb: &str, entry: &FdbEntry) -> String {
    format!("bridge fdb {verb} {} dev {} dst {} self permanent", entry.mac, entry.dev, entry.dst)
}

/// A tunnel's end anew: its VNI and port are given to it at its birth.
fn made(link: &Link) -> Option<Vec<String>> {
    let LinkKind::Vxlan { vni, port, local, dev } = &link.kind else { return None };
    let Link { name, index, mtu, up, .. } = link;
    let mac = link.mac.map(|mac| format!(" address {mac}")).unwrap_or_default();
    let kind = format!("type vxlan id {vni} local {local} dev {dev} dstport {port} nolearning");
    let mut all = vec![format!("ip link add {name} index {index} mtu {mtu}{mac} {kind}")];
    all.extend(up.then(|| format!("ip link set {name} up")));
    Some(all)
}

fn link(from: &Link, to: &Link) -> Option<Vec<String>> {
    if matches!(to.kind, LinkKind::Other { .. }) {
        return None;
    }
    let mut all = Vec::new();
    let name = &to.name;
    if from.mtu != to.mtu {
        all.push(format!("ip link set {name} mtu {}", to.mtu));
    }
    if let (true, Some(mac)) = (from.mac != to.mac, to.mac) {
        all.push(format!("ip link set {name} address {mac}"));
    }
    if from.master != to.master {
        let master = to.master.as_ref().map_or("nomaster".to_owned(), |m| format!("master {m}"));
        all.push(format!("ip link set {name} {master}"));
    }
    if from.hairpin != to.hairpin {
        all.push(format!("bridge link set dev {name} hairpin {}", if to.hairpin { "on" } else { "off" }));
    }
    if from.up != to.up {
        all.push(format!("ip link set {name} {}", if to.up { "up" } else { "down" }));
    }
    Some(all)
}

/// Policies, rules that go, and rules that come, each at its place. Nothing where chains come or go, or rules are in
/// another order, which takes a restore.
fn rules(from: &Rules, to: &Rules) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut names: Vec<&str> = from.tables.iter().chain(&to.tables).map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        // A table without rules is as good as one that is not there.
        let of = |rules: &Rules| rules.clone().table(name).chains.clone();
        let (old, new) = (of(from), of(to));
        let same = old.iter().all(|c| new.iter().any(|d| d.name == c.name)) && old.len() == new.len();
        for wanted in new.iter().filter(|_| same) {
            let chain = old.iter().find(|c| c.name == wanted.name)?;
            all.extend(chain_commands(name, chain, wanted)?);
        }
        if !same {
            return None;
        }
    }
    Some(all)
}

fn chain_commands(table: &str, from: &Chain, to: &Chain) -> Option<Vec<String>> {
    let Chain { name, policy, rules } = to;
    let mut all = Vec::new();
    if let Some(policy) = policy.as_ref().filter(|_| from.policy != *policy) {
        all.push(format!("iptables -t {table} -P {name} {policy}"));
    }
    let mut here = Vec::new();
    let mut wanted = rules.clone();
    for rule in &from.rules {
        match wanted.iter().position(|w| w == rule) {
            Some(at) => {
                wanted.remove(at);
                here.push(rule);
            }
            None => all.push(format!("iptables -t {table} -D {name} {rule}")),
        }
    }
    for (at, rule) in rules.iter().enumerate() {
        if here.get(at) != Some(&rule) {
            all.push(format!("iptables -t {table} -I {name} {} {rule}", at + 1));
            here.insert(at, rule);
        }
    }
    if here.len() != rules.len() {
        return None;
    }
    all.iter().map(|command| shell::typed(command)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::names::HostName;
    use crate::plan::Route;
    use crate::plan::deviation::Told;

    fn node() -> NsName {
        NsName::Host(HostName::try_from("node1".to_owned()).expect("a name"))
    }

    fn told(ops: Vec<Op>) -> Vec<String> {
        let drift: Vec<Step> = ops.into_iter().map(|op| Step { ns: node(), op }).collect();
        of_machine(&node(), &drift).into_iter().filter_map(|r| r.command).collect()
    }

    #[test]
    fn a_difference_becomes_the_command_that_takes_it_away() {
        let route = Route {
            dst: "10.244.3.0/24".parse().expect("a range"),
            via: "10.244.3.0".parse().ok(),
            dev: IfName::new("flannel.1"),
            onlink: true,
            also: Vec::new(),
        };
        let sysctl = Sysctl { key: "net/ipv4/ip_forward".into(), value: "1".into(), optional: false };
        assert_eq!(
            told(vec![Op::SetSysctl(sysctl), Op::AddRoute(route)]),
            [
                "labctl exec node1 -- sysctl -w net.ipv4.ip_forward=1",
                "labctl exec node1 -- ip route add 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
            ]
        );
        assert_eq!(told(Vec::new()), [""; 0]);
    }

    #[test]
    fn a_policy_rule_is_named_by_its_priority_where_no_other_one_has_it() {
        let rule = |what: &str| Op::Mend(Deviation::PolicyRule(Told { what: what.to_owned(), message: Vec::new() }));
        let (own, twice) = (rule("50: from all uidrange 0-0 lookup 7"), rule("60: from all lookup 7"));
        let first = rule("32766: from 10.0.0.0/8 lookup 7");
        assert_eq!(
            told(vec![own, twice.clone(), twice, first]),
            [
                "labctl exec node1 -- ip rule del priority 50",
                "labctl exec node1 -- ip rule del priority 60 from all lookup 7",
                "labctl exec node1 -- ip rule del priority 60 from all lookup 7",
                "labctl exec node1 -- ip rule del priority 32766 from 10.0.0.0/8 lookup 7",
            ]
        );
    }

    #[test]
    fn addresses_of_a_device_that_is_down_come_back_with_it() {
        let dev = || IfName::new("eth0");
        let link = |up| {
            Box::new(Link {
                name: dev(),
                index: 2,
                mac: None,
                mtu: 1500,
                master: None,
                hairpin: false,
                up,
                kind: LinkKind::Tun,
            })
        };
        let address = |connected| Address {
            dev: dev(),
            net: "10.244.1.20/24".parse().expect("an address"),
            broadcast: true,
            connected,
        };
        let (lost, whole) = (Op::RemoveAddress(address(false)), Op::AddAddress(address(true)));
        let rises = Op::ChangeLink { from: link(false), to: link(true) };
        let default = Route {
            dst: "0.0.0.0/0".parse().expect("a range"),
            via: "10.244.1.1".parse().ok(),
            dev: dev(),
            onlink: false,
            also: Vec::new(),
        };
        let drift = [lost.clone(), rises, whole.clone(), Op::AddRoute(default)].map(|op| Step { ns: node(), op });
        let commands: Vec<_> = of_machine(&node(), &drift).into_iter().filter_map(|r| r.command).collect();
        assert_eq!(commands[0], "labctl exec node1 -- ip link set eth0 up");
        assert_eq!(commands[1], "labctl exec node1 -- ip route add default via 10.244.1.1 dev eth0");
        // The difference that counts is one.
        let differences: Vec<String> = origins(&node(), &drift).into_iter().flat_map(in_words).collect();
        assert_eq!(differences, ["it would take `link set eth0 up`"]);
        // Of a device that is up they are mended themselves.
        let commands = told(vec![lost, whole]);
        assert_eq!(commands[1], "labctl exec node1 -- ip address add 10.244.1.20/24 broadcast + dev eth0");
    }

    fn rules_of(text: &str) -> Rules {
        Rules::parse(&format!("*filter\n:INPUT ACCEPT [0:0]\n{text}COMMIT\n"))
    }

    fn mended(from: &str, to: &str) -> Vec<String> {
        let all = told(vec![Op::SetRules { from: rules_of(from), to: rules_of(to) }]);
        all.into_iter().map(|c| c.replace("labctl exec node1 -- iptables -t filter ", "")).collect()
    }

    #[test]
    fn rules_that_are_too_many_go_and_missing_ones_come_to_their_place() {
        let (bad, good) = (
            ":FORWARD ACCEPT [0:0]\n-A FORWARD -j DROP\n-A FORWARD -j A\n",
            ":FORWARD ACCEPT [0:0]\n-A FORWARD -j A\n",
        );
        assert_eq!(mended(bad, good), ["-D FORWARD -j DROP"]);
        assert_eq!(mended(good, bad), ["-I FORWARD 1 -j DROP"]);
        let both = ":FORWARD ACCEPT [0:0]\n-A FORWARD -j A\n-A FORWARD -j B\n-A FORWARD -j C\n";
        assert_eq!(
            mended(":FORWARD DROP [0:0]\n-A FORWARD -j A\n-A FORWARD -j X\n", both),
            ["-P FORWARD ACCEPT", "-D FORWARD -j X", "-I FORWARD 2 -j B", "-I FORWARD 3 -j C",]
        );
    }

    #[test]
    fn another_order_and_chains_that_come_are_left_to_a_restore() {
        let (one, other) = (
            ":FORWARD ACCEPT [0:0]\n-A FORWARD -j A\n-A FORWARD -j B\n",
            ":FORWARD ACCEPT [0:0]\n-A FORWARD -j B\n-A FORWARD -j A\n",
        );
        assert_eq!(mended(one, other), [""; 0]);
        assert_eq!(mended(one, &format!(":MORE - [0:0]\n{one}")), [""; 0]);
    }
}
