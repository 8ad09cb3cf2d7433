//! Numbers that nobody knows beforehand: a walk supposes them, and what was seen is put in their place.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::model::{Header, Means, Protocol, Step, What};

/// Numbers that the walk supposed, and those that were seen in their place.
#[derive(Default)]
struct Real {
    /// Ports, by their address and the supposed one.
    ports: HashMap<(IpAddr, u16), u16>,
    /// Identifiers of echoes between two addresses: both ends have the same one.
    echoes: HashMap<(IpAddr, IpAddr), u16>,
}

/// Put the ports that were really seen in place of those that the walk could only suppose: which port
/// masquerading chooses, and which one a tunnel's packet is sent from, nobody knows before.
pub fn settle(steps: &mut [Step], walked: &[Step], matched: &[(usize, &Header)]) {
    let mut real = Real::default();
    for (n, seen) in matched {
        let Some(supposed) = &walked[*n].header else { continue };
        if supposed.protocol == Protocol::Icmp {
            real.echoes.insert((supposed.source, supposed.destination), seen.source_port);
            continue;
        }
        let both = [
            ((supposed.source, supposed.source_port), (seen.source, seen.source_port)),
            ((supposed.destination, supposed.destination_port), (seen.destination, seen.destination_port)),
        ];
        for (end, seen) in both {
            if end.0 == seen.0 && end.1 != seen.1 {
                real.ports.insert(end, seen.1);
            }
        }
    }
    steps.iter_mut().for_each(|step| correct(step, &real));
}

impl Real {
    fn put_into(&self, header: &mut Header) {
        if header.protocol == Protocol::Icmp {
            if let Some(echo) = self.echoes.get(&(header.source, header.destination)) {
                (header.source_port, header.destination_port) = (*echo, *echo);
            }
            return;
        }
        if let Some(port) = self.ports.get(&(header.source, header.source_port)) {
            header.source_port = *port;
        }
        if let Some(port) = self.ports.get(&(header.destination, header.destination_port)) {
            header.destination_port = *port;
        }
    }
}

fn correct(step: &mut Step, real: &Real) {
    if let Some(header) = step.header.as_mut().filter(|_| !step.known_by.contains(&Means::Tap)) {
        real.put_into(header);
    }
    match &mut step.what {
        What::Rewritten { before, after, .. } => {
            real.put_into(before);
            real.put_into(after);
        }
        What::Encapsulated { outer, .. } => real.put_into(outer),
        _ => {}
    }
    for ((ip, supposed), port) in &real.ports {
        let (supposed, port) = (SocketAddr::new(*ip, *supposed), SocketAddr::new(*ip, *port));
        step.says = step.says.replace(&supposed.to_string(), &port.to_string());
    }
}
