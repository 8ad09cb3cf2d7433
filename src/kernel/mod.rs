//! Effects: everything that changes or reads the kernel. Nothing is decided here; what to do
//! comes from `plan`.

pub mod birth;
pub mod conntrack;
pub mod crowd;
pub mod deviations;
pub mod enter;
pub mod iptables;
pub mod learnt;
pub mod memory;
pub mod message;
mod nfnl;
pub mod ns;
pub mod observe;
pub mod path;
pub mod process;
pub mod read;
pub mod record;
pub mod restore;
pub mod room;
pub mod rtnl;
pub mod rulewatch;
pub mod sections;
pub mod sockets;
pub mod stack;
pub mod sysctl;
pub mod tables;
pub mod tun;
pub mod watch;
pub mod world;
