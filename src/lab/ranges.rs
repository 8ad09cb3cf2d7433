//! Ranges as they are written, and what is said of addresses that do not fit into them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diag::{Place, Problem, Problems, codes};
use crate::spec::at::At;

use super::ipam::Ranges;

/// Read a range; host bits and IPv6 are refused with the remedy.
pub(super) fn range(text: &At<String>, problems: &mut Problems) -> Option<IpNet> {
    parse(text).map_err(|problem| problems.push(*problem)).ok()
}

pub(super) fn parse(text: &At<String>) -> Result<IpNet, Box<Problem>> {
    let fault = |message: String, help: String| {
        Err(Box::new(Problem::error(codes::RANGE_INVALID, message).at(text.place, "this range").help(help)))
    };
    match text.parse::<IpNet>() {
        Err(_) => fault(
            format!("`{}` is not a range of addresses", text.value),
            "write an address and a length, such as 192.168.1.0/24".to_owned(),
        ),
        Ok(IpNet::V6(net)) => fault(
            format!("`{net}` is IPv6; labs are IPv4 for now"),
            "take an IPv4 range, such as 10.244.0.0/16".to_owned(),
        ),
        Ok(net) if net.trunc() != net => fault(
            format!("`{net}` is an address within a range, not a range"),
            format!("did you mean {}?", net.trunc()),
        ),
        Ok(net) => Ok(net),
    }
}

/// A range that this program brings itself.
pub(super) fn fixed(text: &str) -> IpNet {
    // The texts are this module's own constants; the fallback keeps it free of panics.
    text.parse().unwrap_or_else(|_| IpNet::V4(ipnet::Ipv4Net::default()))
}

/// Note who has a range; one that shares addresses with another's is refused.
pub(super) fn claim_range(
    net: IpNet,
    owner: &str,
    place: Option<Place>,
    ranges: &mut Ranges,
    problems: &mut Problems,
) -> bool {
    if let Some((other, who, whose_place)) = ranges.overlapping(net) {
        let mut problem =
            Problem::error(codes::RANGE_OVERLAP, format!("the range {net} of {owner} overlaps {other} of {who}"));
        if let Some(place) = place.or(*whose_place) {
            problem = problem.at(place, format!("overlaps {other}"));
        }
        if let (Some(_), Some(whose)) = (place, whose_place) {
            problem = problem.at(*whose, "the other one");
        }
        problems.push(problem.help("an address must belong to one of them; take another range"));
        return false;
    }
    ranges.add(net, owner, place);
    true
}

pub(super) fn outside(written: &At<String>, range: IpNet, what: &str) -> Problem {
    // The first address of a range is most often a router's or bridge's.
    let free = range.hosts().nth(1).or_else(|| range.hosts().next());
    let such_as = free.map_or("take a larger range".to_owned(), |ip| format!("take one such as {ip}"));
    let (message, words) = match written.parse::<IpAddr>() {
        Err(_) => (format!("`{}` is not an address", written.value), "this address".to_owned()),
        Ok(ip) if range.contains(&ip) => {
            (format!("{ip} is the first or last address of {what}, {range}"), "not for a machine".to_owned())
        }
        Ok(ip) => (format!("{ip} is not an address of {what}, {range}"), format!("not within {range}")),
    };
    Problem::error(codes::ADDRESS_OUTSIDE, message).at(written.place, words).help(such_as)
}

/// `first` is the place that has the address already; `otherwise` is who has it where there is none.
pub(super) fn taken(ip: IpAddr, place: Place, first: Option<Place>, otherwise: &str) -> Problem {
    match first {
        Some(first) => Problem::error(codes::ADDRESS_TAKEN, format!("the address {ip} is taken"))
            .at(place, "taken")
            .at(first, "by this one"),
        None => Problem::error(codes::ADDRESS_TAKEN, format!("the address {ip} is {otherwise}'s")).at(place, "taken"),
    }
    .help("take another, or leave it out and the next free one is given")
}
