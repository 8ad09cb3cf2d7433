//! The counters that kube-proxy makes for its `nfacct` rules, made here by netlink as it does.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// Make both counters. Whether this kernel has such a thing is the answer.
pub fn make() -> bool {
    let made = ["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"].map(one);
    let all = made.iter().all(|code| *code == 0);
    if !all {
        eprintln!("NOT COMPARED: rules with nfacct counters, which this kernel does not make ({made:?})");
    }
    all
}

/// `NFNL_MSG_ACCT_NEW` of the subsystem `NFNL_SUBSYS_ACCT`, with its name. Returns the error code.
fn one(name: &str) -> i32 {
    const ACCT_NEW: u16 = 7 << 8;
    // NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE.
    const FLAGS: u16 = 0x1 | 0x4 | 0x400;
    let length = 4 + name.len() + 1;
    let mut message = Vec::new();
    message.extend((20 + length.next_multiple_of(4) as u32).to_ne_bytes());
    message.extend(ACCT_NEW.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend([0; 8]);
    // nfgenmsg: any family, version 0, no resource.
    message.extend([0; 4]);
    message.extend((length as u16).to_ne_bytes());
    message.extend(1u16.to_ne_bytes());
    message.extend(name.as_bytes());
    message.resize(20 + length.next_multiple_of(4), 0);
    let mut socket = Socket::new(NETLINK_NETFILTER).expect("a netlink socket");
    socket.bind_auto().expect("a port");
    socket.connect(&SocketAddr::new(0, 0)).expect("the kernel");
    socket.send(&message, 0).expect("to send");
    let mut answer = Vec::with_capacity(4096);
    socket.recv(&mut answer, 0).expect("an answer");
    i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"))
}
