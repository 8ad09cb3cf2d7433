//! What would mend a fault, as commands. What differs between a machine and its plan is known as steps
//! (`plan::diff`); here they become what a person types to do the same by hand.

use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::Deviation;
use crate::plan::diff::{Op, Step};
use crate::plan::{Address, FdbEntry, Link, LinkKind, Neighbour, Sysctl};

use super::model::Remedy;

/// More differences than these are not told one by one.
const MOST: usize = 8;

/// What would mend a machine that is not as planned: each difference by a command, and all of them by
/// `up`. Nothing where it is as planned.
pub fn of_machine(place: &NsName, drift: &[Step], file: &str) -> Vec<Remedy> {
    let here = essential(place, drift);
    if here.is_empty() {
        return Vec::new();
    }
    let by_hand: Option<Vec<_>> = here.iter().map(|s| commands(&s.op)).collect();
    let mut all = Vec::new();
    if let Some(by_hand) = by_hand.filter(|_| here.len() <= MOST) {
        for (step, commands) in here.iter().zip(by_hand) {
            let says = format!("on {place}, {}", what_for(&step.op));
            let remedy =
                |command| Remedy { says: says.clone(), command: Some(format!("labctl exec {place} -- {command}")) };
            all.extend(commands.into_iter().map(remedy));
        }
    }
    all.push(up(file));
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
        Op::SetRules { .. } => "without what is too many among the rules".to_owned(),
        op => format!("as planned: {}", first_line(&op.to_string())),
    }
}

/// The command that makes a lab again what its file says.
pub fn up(file: &str) -> Remedy {
    Remedy {
        says: "let labctl make the whole lab what its file says".to_owned(),
        command: Some(format!("labctl up --no-probes {file}")),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What does a step by hand, in the machine that it is about; nothing where labctl alone can do it.
fn commands(op: &Op) -> Option<Vec<String>> {
    let one = |command: String| Some(vec![command]);
    match op {
        Op::SetSysctl(Sysctl { key, value, .. }) => one(format!("sysctl -w {}={value}", key.replace('/', "."))),
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
        Op::Mend(Deviation::PolicyRule(told)) => one(policy(&told.what)),
        Op::Mend(Deviation::NftTable(table)) => one(format!("nft delete table {} {}", table.family_name(), table.name)),
        Op::Mend(Deviation::Qdisc(qdisc)) => one(format!("tc qdisc del dev {} root", qdisc.dev)),
        Op::SetRules { .. } => rules(op),
        _ => None,
    }
}

/// `ip rule` shows the priority in front, and takes it by name.
fn policy(told: &str) -> String {
    match told.split_once(':') {
        Some((priority, rest)) if priority.bytes().all(|b| b.is_ascii_digit()) => {
            format!("ip rule del priority {priority} {}", rest.trim())
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

/// Rules that go, and policies; a rule that is missing has its place among others, which only a restore
/// finds again.
fn rules(op: &Op) -> Option<Vec<String>> {
    let told = op.to_string();
    told.lines().skip(1).map(|line| rule(line.trim())).collect()
}

fn rule(line: &str) -> Option<String> {
    let (sign, rest) = line.split_once(' ')?;
    let mut words = rest.split(' ');
    let (Some("-t"), Some(table), Some(verb), Some(chain)) = (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    let rule = words.collect::<Vec<_>>().join(" ");
    match (sign, verb) {
        ("-", "-A") => Some(format!("iptables -t {table} -D {chain} {rule}")),
        // A policy that is not ACCEPT is all that is told of one.
        ("-", "-P") => Some(format!("iptables -t {table} -P {chain} ACCEPT")),
        ("+", "-P") => Some(format!("iptables -t {table} -P {chain} {rule}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::names::HostName;
    use crate::plan::Route;
    use crate::plan::rules::Rules;

    fn node() -> NsName {
        NsName::Host(HostName::try_from("node1".to_owned()).expect("a name"))
    }

    fn told(ops: Vec<Op>) -> Vec<String> {
        let drift: Vec<Step> = ops.into_iter().map(|op| Step { ns: node(), op }).collect();
        of_machine(&node(), &drift, "lab.yaml").into_iter().filter_map(|r| r.command).collect()
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
                "labctl up --no-probes lab.yaml",
            ]
        );
        assert_eq!(told(Vec::new()), [""; 0]);
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
        let commands: Vec<_> = of_machine(&node(), &drift, "f").into_iter().filter_map(|r| r.command).collect();
        assert_eq!(commands[0], "labctl exec node1 -- ip link set eth0 up");
        assert_eq!(commands[1], "labctl exec node1 -- ip route add default via 10.244.1.1 dev eth0");
        // The difference that counts is one.
        let differences: Vec<String> = origins(&node(), &drift).into_iter().flat_map(in_words).collect();
        assert_eq!(differences, ["it would take `link set eth0 up`"]);
        // Of a device that is up they are mended themselves.
        let commands = told(vec![lost, whole]);
        assert_eq!(commands[1], "labctl exec node1 -- ip address add 10.244.1.20/24 broadcast + dev eth0");
    }

    #[test]
    fn rules_that_are_too_many_go_and_missing_ones_are_left_to_a_restore() {
        let rules = |text: &str| Rules::parse(&format!("*filter\n:FORWARD ACCEPT [0:0]\n{text}COMMIT\n"));
        let (bad, good) = (rules("-A FORWARD -j DROP\n-A FORWARD -j A\n"), rules("-A FORWARD -j A\n"));
        let commands = told(vec![Op::SetRules { from: bad.clone(), to: good.clone() }]);
        assert_eq!(commands[0], "labctl exec node1 -- iptables -t filter -D FORWARD -j DROP");
        assert_eq!(told(vec![Op::SetRules { from: good, to: bad }]), ["labctl up --no-probes lab.yaml"]);
    }
}
