//! Random questions to a lab: who asks whom with what, so that every kind of target is asked, and some
//! that cannot answer.

use labctl::lab::names::NsName;
use labctl::objects::Service;

use crate::harness::dice::Dice;
use crate::labs::Written;

/// What is asked, in the words of the command line.
#[derive(Debug, Clone)]
pub struct Question {
    pub from: String,
    pub to: String,
    pub options: Vec<String>,
}

impl Question {
    pub fn new(from: &str, to: &str, options: &[&str]) -> Question {
        Question { from: from.into(), to: to.into(), options: options.iter().map(ToString::to_string).collect() }
    }

    pub fn words(&self) -> Vec<&str> {
        let mut words = vec!["trace", self.from.as_str(), self.to.as_str()];
        words.extend(self.options.iter().map(String::as_str));
        // A connection that gets no answer is tried again after a second, which is worth a trace, too.
        if !words.contains(&"--timeout") {
            words.extend(["--timeout", "0.6"]);
        }
        words
    }
}

/// One question.
pub fn question(written: &Written, dice: &mut Dice) -> Question {
    let machines: Vec<&NsName> = written.plan.namespaces.iter().map(|n| &n.ns).collect();
    let asks = |ns: &&&NsName| !matches!(ns, NsName::Router);
    let askers: Vec<&NsName> = machines.iter().filter(asks).copied().collect();
    let from = *dice.one(&askers);
    let own: Vec<&Service> = written
        .lab
        .services
        .iter()
        .filter(|s| s.metadata.name.as_deref().is_some_and(|n| n.starts_with("svc")))
        .collect();
    if dice.below(5) < 3 {
        let service = *dice.one(&own);
        return of_service(written, dice, from, service);
    }
    let to = *dice.one(&machines);
    of_machine(dice, from, to)
}

fn of_machine(dice: &mut Dice, from: &NsName, to: &NsName) -> Question {
    let (from, machine) = (from.to_string(), to.to_string());
    let port = if matches!(to, NsName::Pod(_)) { "8080" } else { "9100" };
    let closed = dice.one(&["81", "8081"]);
    let options: &[&str] = match dice.below(9) {
        0 | 1 => &["--icmp"],
        2 | 3 => &["--tcp", "--port", port],
        4 => &["--udp", "--port", port],
        5 => &["--http", "--port", port],
        6 => &["--tcp", "--port", closed],
        7 => &["--udp", "--port", closed],
        _ => &["--icmp", "--size", "1480"],
    };
    Question::new(&from, &machine, options)
}

fn of_service(written: &Written, dice: &mut Dice, from: &NsName, service: &Service) -> Question {
    let spec = service.spec.as_ref().expect("a service has a spec");
    let port = &spec.ports.as_ref().expect("it has ports")[0];
    let number = port.port.to_string();
    let mut targets: Vec<(String, String)> = Vec::new();
    let name = service.metadata.name.clone().expect("a name");
    // Elsewhere than in its own namespace a service has another name.
    if matches!(from, NsName::Pod(pod) if pod.namespace.as_str() == "default") {
        targets.push((name, number.clone()));
    }
    let fixed = spec.cluster_ip.iter().filter(|ip| *ip != "None").chain(spec.external_ips.iter().flatten());
    let balanced = spec.load_balancer_ip.iter();
    targets.extend(fixed.chain(balanced).map(|ip| (ip.clone(), number.clone())));
    for host in &written.lab.hosts {
        targets.extend(port.node_port.map(|node_port| (host.name.to_string(), node_port.to_string())));
    }
    if targets.is_empty() {
        return Question::new(&from.to_string(), "node1", &["--icmp"]);
    }
    let (to, port) = dice.one(&targets).clone();
    let is_node_port = port.starts_with("30");
    let udp_port = if is_node_port { format!("301{}", &port[3..]) } else { port.clone() };
    let options: Vec<&str> = match dice.below(8) {
        0..=2 => vec!["--tcp", "--port", &port],
        3 | 4 => vec!["--udp", "--port", &udp_port],
        5 | 6 => vec!["--http", "--port", &port],
        _ if is_node_port => vec!["--tcp", "--port", "30999"],
        _ => vec!["--icmp"],
    };
    Question::new(&from.to_string(), &to, &options)
}
