//! The connections by which a proxy that tells nothing of what it does must have sent a request on, where no request
//! with the question's mark was seen: by when the proxy began them, and to whom.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::HttpAsk;
use crate::plan::{ingress, services};
use crate::probe::Outcome;
use crate::trace::flow::{Found, FoundPacket};
use crate::trace::model::{Direction, Protocol};
use crate::trace::packet::Essence;
use crate::trace::sight::{Sight, Tuple};
use crate::trace::tell::Evidence;
use crate::trace::unseen;

/// A request that waits in a controller for somebody's answer.
pub struct Waiting<'e> {
    evidence: &'e Evidence<'e>,
    request: &'e Found,
    /// The controller.
    pub place: &'e NsName,
    /// The controller's own port, by which the request came.
    port: u16,
    /// From when it was taken in until it was answered, in nanoseconds since the epoch.
    time: Range<u64>,
}

impl<'e> Waiting<'e> {
    /// Nothing where no controller has taken the request.
    pub fn of(request: &'e Found, evidence: &'e Evidence<'e>, outcome: &Outcome) -> Option<Waiting<'e>> {
        let sights = || request.packets.iter().flat_map(|p| p.sights.iter().map(move |n| (p, &evidence.sights[*n])));
        let lab = evidence.who.lab();
        let there =
            |(p, s): &(&FoundPacket, &Sight)| p.direction == Direction::There && is_data(&p.essence) && !s.outgoing;
        let (_, taken) = sights().filter(there).find(|(_, s)| super::is_controller(lab, &s.place))?;
        let place = &taken.place;
        let back = |(p, s): &(&FoundPacket, &Sight)| {
            p.direction == Direction::Back && is_data(&p.essence) && s.outgoing && s.place == *place
        };
        // What came before the answer made the connection (TLS): without an answer it still waits.
        let answered = outcome.details.status.and_then(|_| sights().filter(back).map(|(_, s)| s.at).max());
        let time = taken.at..answered.unwrap_or(u64::MAX);
        Some(Waiting { evidence, request, place, port: taken.header.destination_port, time })
    }

    /// What the controller sent meanwhile and is no part of the request's own connection. What has the controller's
    /// own port as its source answers somebody else.
    fn sent(&self) -> impl Iterator<Item = &'e Sight> {
        let is_its = |s: &&Sight| {
            let tuple = s.tuple();
            let is_other = tuple.source.1 != self.port && !self.request.tuples.contains_key(&tuple);
            s.place == *self.place && s.outgoing && s.layer == 0 && self.time.contains(&s.at) && is_other
        };
        self.evidence.sights.iter().filter(is_its)
    }

    /// The connection by which the request was sent on where it cannot be read, as it is encrypted: the only one
    /// over which data was sent to a pod meanwhile. Nothing where there are several, or none.
    pub fn unread(&self) -> Option<Tuple> {
        let goes_to_pod = |t: &Tuple| matches!(self.evidence.who.machine(t.destination.0), Some(NsName::Pod(_)));
        let data = self.sent().filter(|s| is_data(&s.essence)).map(Sight::tuple);
        match each_once(data.filter(goes_to_pod))[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The connections that the controller meanwhile wanted with endpoints of the service to which the request's
    /// ingress leads, and did not get.
    pub fn tried(&self, asked: &HttpAsk) -> Vec<Tuple> {
        let endpoints = endpoints(self.evidence.who.lab(), asked);
        let fits = |t: &Tuple| t.protocol == Protocol::Tcp && endpoints.contains(&t.destination);
        let begun = self.sent().filter(|s| s.kind == "SYN").map(Sight::tuple);
        // Of what the controller's own rules drop is only known that it was sent while everything was watched.
        let unseen = unseen::sent(self.evidence, self.place).map(|met| met.hit.ends);
        each_once(begun.chain(unseen).filter(fits)).into_iter().filter(|t| !self.is_made(*t)).collect()
    }

    /// Whether the controller got a connection.
    fn is_made(&self, tuple: Tuple) -> bool {
        let came = |s: &&Sight| s.place == *self.place && !s.outgoing && s.tuple() == tuple.reversed();
        self.evidence.sights.iter().filter(came).any(|s| s.kind == "SYN-ACK")
    }
}

fn is_data(essence: &Essence) -> bool {
    matches!(essence, Essence::Tcp { data: 1.., .. })
}

fn each_once(tuples: impl Iterator<Item = Tuple>) -> Vec<Tuple> {
    let mut all = Vec::new();
    for tuple in tuples {
        if !all.contains(&tuple) {
            all.push(tuple);
        }
    }
    all
}

/// The endpoints to which a request may be sent on, whether or not they are ready just now.
fn endpoints(lab: &Lab, asked: &HttpAsk) -> HashSet<(IpAddr, u16)> {
    let Some(router) = super::router(lab) else { return HashSet::new() };
    let Some(backend) = super::choice(&router, asked).backend() else { return HashSet::new() };
    let mut all = ingress::endpoints(router.routing(), &lab.services, &services::slices_of_ready(lab));
    all.remove(backend).into_iter().flatten().map(|e| (e.address.ip(), e.address.port())).collect()
}
