//! Packets that are for somebody else: whether the namespace passes them on, and what it looks at before it does.

use crate::lab::names::IfName;
use crate::trace::model::Cause;

use super::netfilter;
use super::packet::{Hop, Trouble};
use super::routing::{Entry, Found, Key, hop_words};
use super::walker::{At, Go, Stage, Walker, Why};

impl<'s, 'a> Walker<'s, 'a, '_> {
    /// A packet that is not for the namespace itself.
    pub fn pass_on(&mut self, at: At<'s, 'a>, dev: &IfName, key: Key, found: Found<'_>) -> Go<Stage<'s, 'a>> {
        self.suspect_lost_address(at, key.destination);
        let setting = match (at.forwards(dev), found) {
            (Ok(()), Found::Route(entry)) => return self.forward(at, dev, key, entry),
            (Ok(()), found) => return self.no_way(at, key, &found, Some(dev)),
            (Err(setting), _) => setting,
        };
        let name = at.name();
        let refuses = match setting.as_str() {
            "net.ipv4.ip_forward" => "forwards nothing: ip_forward is 0".to_owned(),
            of_device => format!("passes nothing on that comes in by {dev}: {of_device} is 0"),
        };
        let says = format!("it is not for {name} itself, and {name} {refuses}");
        self.dropped(at, Some(dev), Why::new(Cause::ForwardingOff, setting, says))
    }

    /// In the order of `ip_forward`: hops, size, then the rules.
    fn forward(&mut self, at: At<'s, 'a>, dev: &IfName, key: Key, entry: &Entry) -> Go<Stage<'s, 'a>> {
        let hop = self.choose_hop(at, entry);
        let says = format!("{} passes it on {}: route `{}`", at.name(), hop_words(&hop), entry.text);
        self.suspect_lost_route(at, key, Some(entry));
        let mtu = at.link(&hop.1).map_or(u32::MAX, |l| l.mtu);
        let is_over = self.packet.header.ttl <= 1;
        let is_too_big = self.packet.size() > mtu && self.packet.header.dont_fragment;
        if !is_over && !is_too_big {
            self.packet.header.ttl -= 1;
        }
        self.routed(at, Some(&hop), entry.text.clone(), says);
        if is_over {
            let says = format!("its time to live has run out where `{}` would lead it on", entry.text);
            let why = Why::new(Cause::TtlExceeded, &entry.text, says);
            return self.dropped(at, Some(dev), Why { trouble: Some(Trouble::Ttl), ..why });
        }
        if is_too_big {
            return self.too_big(at, &hop.1, mtu);
        }
        self.hooks(at, netfilter::FORWARD, (Some(dev), Some(&hop.1)))?;
        Ok(Stage::Leave(at, Hop { dev: hop.1, to: hop.0.unwrap_or(key.destination) }))
    }
}
