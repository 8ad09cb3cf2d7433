//! What the server has seen and said, counted, and told in Prometheus' text form under the names
//! that CoreDNS has for it. One thread counts.

use std::cell::Cell;
use std::fmt::Write;

use super::answer::Transport;
use super::query::Rcode;

#[derive(Debug, Default)]
pub struct Counters {
    udp: Cell<u64>,
    tcp: Cell<u64>,
    /// Answers by response code.
    codes: [Cell<u64>; 17],
    /// Messages that got no answer: no header, or an answer themselves.
    ignored: Cell<u64>,
    /// Answers that the kernel did not take.
    unsent: Cell<u64>,
    /// Connections that were closed at once, as there were too many.
    turned_away: Cell<u64>,
}

fn add(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

const CODES: [(Rcode, &str); 7] = [
    (Rcode::NoError, "NOERROR"),
    (Rcode::FormErr, "FORMERR"),
    (Rcode::ServFail, "SERVFAIL"),
    (Rcode::NxDomain, "NXDOMAIN"),
    (Rcode::NotImp, "NOTIMP"),
    (Rcode::Refused, "REFUSED"),
    (Rcode::BadVers, "BADVERS"),
];

impl Counters {
    pub fn seen(&self, transport: Transport, code: Option<Rcode>) {
        add(match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
        });
        match code.and_then(|code| self.codes.get(code as usize)) {
            Some(counter) => add(counter),
            None => add(&self.ignored),
        }
    }

    pub fn unsent(&self) {
        add(&self.unsent);
    }

    pub fn turned_away(&self) {
        add(&self.turned_away);
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE coredns_dns_requests_total counter");
        for (protocol, counter) in [("udp", &self.udp), ("tcp", &self.tcp)] {
            let _ = writeln!(text, "coredns_dns_requests_total{{proto=\"{protocol}\"}} {}", counter.get());
        }
        let _ = writeln!(text, "# TYPE coredns_dns_responses_total counter");
        for (code, name) in CODES {
            let count = self.codes.get(code as usize).map_or(0, Cell::get);
            let _ = writeln!(text, "coredns_dns_responses_total{{rcode=\"{name}\"}} {count}");
        }
        let others = [("ignored", &self.ignored), ("unsent", &self.unsent), ("turned_away", &self.turned_away)];
        for (name, counter) in others {
            let _ = writeln!(text, "# TYPE coredns_dns_{name}_total counter");
            let _ = writeln!(text, "coredns_dns_{name}_total {}", counter.get());
        }
        text
    }
}
