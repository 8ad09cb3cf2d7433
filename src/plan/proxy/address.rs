//! Addresses as kube-proxy reads them: with leading zeros, which count as decimal
//! (`ParseIPSloppy`), and an IPv4 address in IPv6 clothes taken for what it is. Something that is no
//! address is nothing here, and whoever asks leaves it out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::config::Family;

/// The address in `text`.
pub fn ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let v6: Ipv6Addr = text.parse().ok()?;
        return Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4));
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?).and_then(|n| u8::try_from(n).ok())?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// The range in `text`, with white space around it, without bits of a host.
pub fn range(text: &str) -> Option<IpNet> {
    let (address, length) = text.trim().split_once('/')?;
    let length = decimal(length).and_then(|n| u8::try_from(n).ok())?;
    let net = match ip(address)? {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new(v4, length).ok()?),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new(v6, length).ok()?),
    };
    Some(net.trunc())
}

/// The addresses of this family, in their order.
pub fn ips_of<'t>(family: Family, texts: impl IntoIterator<Item = &'t String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|t| ip(t)).filter(|ip| family.has(ip)).collect()
}

fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_decimal() {
        assert_eq!(ip("010.001.0.08"), Some(Ipv4Addr::new(10, 1, 0, 8).into()));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_one_of_ipv4() {
        assert_eq!(ip("::ffff:1.2.3.4"), Some(Ipv4Addr::new(1, 2, 3, 4).into()));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.+4", "None", "fe80::1%eth0", "1.2.3.4/32"] {
            assert_eq!(ip(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_loses_its_host_bits_and_the_space_around_it() {
        assert_eq!(range(" 203.0.113.9/25\t").map(|r| r.to_string()).as_deref(), Some("203.0.113.0/25"));
        assert_eq!(range("1.2.3.4/33"), None);
        assert_eq!(range("1.2.3.4"), None);
    }
}
