//! One rule of iptables taken apart: what it matches and what it does. What is not known here is kept
//! as such, to be told and not guessed.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::plan::proxy::explain::Rule;

/// A condition, and whether it is turned round by `!`.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    pub not: bool,
    pub what: Test,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    Source(IpNet),
    Destination(IpNet),
    Input(String),
    Output(String),
    Protocol(String),
    SourcePort(Vec<(u16, u16)>),
    DestinationPort(Vec<(u16, u16)>),
    Mark {
        value: u32,
        mask: u32,
    },
    /// `LOCAL` is the one type that is known.
    SourceLocal,
    DestinationLocal,
    /// Any of these states, such as `NEW` and `DNAT`.
    State(Vec<String>),
    /// The destination that the flow's first packet had.
    OriginalDestination(IpNet),
    /// Met with this probability.
    Chance(f64),
    /// Met where the client was remembered, which is not known here.
    Remembered {
        list: String,
    },
    /// A connection's first packet.
    Syn,
    Unknown(String),
}

/// What a rule does with a packet that it matches.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Accept,
    Drop,
    Reject(String),
    Return,
    Jump(String),
    Goto(String),
    Mark {
        value: u32,
        mask: u32,
    },
    Masquerade,
    Source(IpAddr),
    Destination {
        ip: IpAddr,
        port: Option<u16>,
    },
    NoTrack,
    /// Nothing that concerns the way: LOG, TRACE, a rule without a target.
    Nothing,
    Unknown(String),
}

/// Options of matches that say nothing about the packet, each with a value.
const PASSED_OVER: &[&str] =
    &["--comment", "--nfacct-name", "--mode", "--mask", "--seconds", "--hitcount", "--log-prefix", "--log-level"];
/// Those without one.
const FLAGS: &[&str] =
    &["--reap", "--rsource", "--rdest", "--set", "--update", "--random", "--random-fully", "--persistent", "--rttl"];
/// Matches whose options are known.
const MODULES: &[&str] = &[
    "comment",
    "tcp",
    "udp",
    "icmp",
    "sctp",
    "multiport",
    "mark",
    "addrtype",
    "conntrack",
    "state",
    "statistic",
    "recent",
    "nfacct",
];

/// The conditions of a rule, and what it does.
#[derive(Debug)]
pub struct Parts {
    pub tests: Vec<Match>,
    pub target: Target,
}

impl Parts {
    pub fn of(rule: &Rule) -> Parts {
        let (tests, target) = read(rule);
        Parts { tests, target }
    }
}

fn read(rule: &Rule) -> (Vec<Match>, Target) {
    let mut reader = Reader { words: rule.words(), at: 0, not: false, all: Vec::new(), list: String::new() };
    while let Some(word) = reader.word() {
        reader.take(word);
        if word != "!" {
            reader.not = false;
        }
    }
    let target = target(rule);
    (reader.all, target)
}

struct Reader<'r> {
    words: &'r [String],
    at: usize,
    not: bool,
    all: Vec<Match>,
    /// Of the match `recent`.
    list: String,
}

impl<'r> Reader<'r> {
    fn word(&mut self) -> Option<&'r str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    fn take(&mut self, word: &'r str) {
        let test = match word {
            "!" => {
                self.not = true;
                return;
            }
            // The target and its options come last.
            "-j" | "-g" => {
                self.at = self.words.len();
                return;
            }
            "-m" => {
                let module = self.word().unwrap_or_default();
                if MODULES.contains(&module) {
                    return;
                }
                self.skip_options();
                Test::Unknown(format!("-m {module}"))
            }
            "--syn" => Test::Syn,
            "--rcheck" => Test::Remembered { list: self.list_ahead() },
            flag if FLAGS.contains(&flag) => return,
            option => match self.option(option) {
                Some(test) => test,
                None => return,
            },
        };
        self.all.push(Match { not: self.not, what: test });
    }

    /// An option with its value; nothing where it says nothing about the packet.
    fn option(&mut self, option: &str) -> Option<Test> {
        let value = self.word().unwrap_or_default();
        let unknown = || Test::Unknown(format!("{option} {value}"));
        let range = |make: fn(IpNet) -> Test| value.parse().map_or_else(|_| unknown(), make);
        let ports = |make: fn(Vec<(u16, u16)>) -> Test| ports(value).map_or_else(unknown, make);
        Some(match option {
            "-s" => range(Test::Source),
            "-d" => range(Test::Destination),
            "-i" => Test::Input(value.to_owned()),
            "-o" => Test::Output(value.to_owned()),
            "-p" => Test::Protocol(value.to_owned()),
            "--sport" | "--sports" => ports(Test::SourcePort),
            "--dport" | "--dports" => ports(Test::DestinationPort),
            "--mark" => mark(value).map_or_else(unknown, |(value, mask)| Test::Mark { value, mask }),
            "--src-type" if value == "LOCAL" => Test::SourceLocal,
            "--dst-type" if value == "LOCAL" => Test::DestinationLocal,
            "--ctstate" | "--state" => Test::State(value.split(',').map(str::to_owned).collect()),
            "--ctorigdst" => {
                match value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from)) {
                    Some(net) => Test::OriginalDestination(net),
                    None => unknown(),
                }
            }
            "--probability" => value.parse().map_or_else(|_| unknown(), Test::Chance),
            "--every" => value.parse::<f64>().map_or_else(|_| unknown(), |n| Test::Chance(1.0 / n.max(1.0))),
            "--packet" => return None,
            "--name" => {
                self.list = value.to_owned();
                return None;
            }
            passed if PASSED_OVER.contains(&passed) => return None,
            _ => unknown(),
        })
    }

    /// The list's name may stand behind the option.
    fn list_ahead(&self) -> String {
        let ahead = self.words[self.at..].iter().skip_while(|w| *w != "--name").nth(1);
        ahead.unwrap_or(&self.list).clone()
    }

    /// Up to the next match or the target.
    fn skip_options(&mut self) {
        while self.words.get(self.at).is_some_and(|w| !matches!(w.as_str(), "-m" | "-j" | "-g")) {
            self.at += 1;
        }
    }
}

fn ports(value: &str) -> Option<Vec<(u16, u16)>> {
    let one = |part: &str| match part.split_once(':') {
        Some((from, to)) => Some((from.parse().ok()?, to.parse().ok()?)),
        None => part.parse().ok().map(|port| (port, port)),
    };
    value.split(',').map(one).collect()
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

fn mark(value: &str) -> Option<(u32, u32)> {
    match value.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(value)?, u32::MAX)),
    }
}

fn target(rule: &Rule) -> Target {
    if let Some(chain) = rule.option("-g") {
        return Target::Goto(chain.to_owned());
    }
    let Some(name) = rule.option("-j") else { return Target::Nothing };
    let unknown = || Target::Unknown(name.to_owned());
    match name {
        "ACCEPT" => Target::Accept,
        "DROP" => Target::Drop,
        "REJECT" => Target::Reject(rule.option("--reject-with").unwrap_or("icmp-port-unreachable").to_owned()),
        "RETURN" => Target::Return,
        "LOG" | "TRACE" | "NFLOG" => Target::Nothing,
        "MASQUERADE" => Target::Masquerade,
        "NOTRACK" => Target::NoTrack,
        "CT" if rule.has("--notrack") => Target::NoTrack,
        "MARK" => {
            let set = ["--set-xmark", "--set-mark"].iter().find_map(|o| rule.option(o)).and_then(mark);
            set.map_or_else(unknown, |(value, mask)| Target::Mark { value, mask })
        }
        "SNAT" => match rule.option("--to-source").and_then(|to| to.parse().ok()) {
            Some(ip) => Target::Source(ip),
            None => unknown(),
        },
        "DNAT" => rule.option("--to-destination").and_then(destination).unwrap_or_else(unknown),
        "CONNMARK" | "REDIRECT" | "NETMAP" | "TPROXY" | "CT" | "TCPMSS" | "TTL" | "QUEUE" | "NFQUEUE" => unknown(),
        chain => Target::Jump(chain.to_owned()),
    }
}

fn destination(to: &str) -> Option<Target> {
    if let Ok(to) = to.parse::<SocketAddr>() {
        return Some(Target::Destination { ip: to.ip(), port: Some(to.port()) });
    }
    to.parse().ok().map(|ip| Target::Destination { ip, port: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Vec<Match>, Target) {
        read(&Rule::parse(text))
    }

    fn plain(what: Test) -> Match {
        Match { not: false, what }
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a range")
    }

    #[test]
    fn a_rule_of_kube_proxys_is_taken_apart() {
        let (all, target) = parts(
            "! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m comment --comment \"default/a cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ",
        );
        assert_eq!(
            all,
            [
                Match { not: true, what: Test::Source(net("10.244.0.0/16")) },
                plain(Test::Destination(net("10.96.0.1/32"))),
                plain(Test::Protocol("tcp".into())),
                plain(Test::DestinationPort(vec![(80, 80)])),
            ]
        );
        assert_eq!(target, Target::Jump("KUBE-MARK-MASQ".into()));
    }

    #[test]
    fn chance_marks_states_and_lists_are_known() {
        let (all, target) = parts("-m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A");
        assert_eq!((all, target), (vec![plain(Test::Chance(0.5))], Target::Jump("KUBE-SEP-A".into())));
        let (all, target) = parts("-m mark ! --mark 0x4000/0x4000 -j RETURN");
        assert_eq!(all, [Match { not: true, what: Test::Mark { value: 0x4000, mask: 0x4000 } }]);
        assert_eq!(target, Target::Return);
        assert_eq!(parts("-j MARK --set-xmark 0x4000/0x0").1, Target::Mark { value: 0x4000, mask: 0 });
        let (all, _) = parts("-m conntrack ! --ctstate RELATED,DNAT -j DROP");
        assert_eq!(all, [Match { not: true, what: Test::State(vec!["RELATED".into(), "DNAT".into()]) }]);
        let (all, _) = parts("-m recent --rcheck --seconds 10 --reap --name L --mask 255.255.255.255 --rsource -j X");
        assert_eq!(all, [plain(Test::Remembered { list: "L".into() })]);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let (all, target) = parts("-m set --match-set banned src -p tcp -j DROP");
        assert_eq!(all, [plain(Test::Unknown("-m set".into()))]);
        assert_eq!(target, Target::Drop);
        assert_eq!(parts("-p tcp -j REDIRECT --to-ports 81").1, Target::Unknown("REDIRECT".into()));
    }
}
