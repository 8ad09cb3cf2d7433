//! Connection tracking's own events: a new entry, a changed one, one that is gone.

use netlink_packet_core::{NLM_F_CREATE, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

use crate::kernel::conntrack::tracked;

use super::event::{Entry, EntryChange};

/// Read what is told of an entry; nothing where it is no such message, or of a protocol that has
/// neither ports nor identifiers.
pub(super) fn entry(bytes: &[u8]) -> Option<Entry> {
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes).ok()?;
    let created = message.header.flags & NLM_F_CREATE != 0;
    let NetlinkPayload::InnerMessage(NetfilterMessage { inner, .. }) = message.payload else { return None };
    let NetfilterMessageInner::Conntrack(told) = inner else { return None };
    let (change, attributes) = match told {
        ConntrackMessage::New(attributes) if created => (EntryChange::New, attributes),
        ConntrackMessage::New(attributes) => (EntryChange::Updated, attributes),
        ConntrackMessage::Delete(attributes) => (EntryChange::Destroyed, attributes),
        _ => return None,
    };
    Some(Entry { change, entry: tracked(&attributes)? })
}
