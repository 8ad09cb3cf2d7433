//! Who lives in a lab besides the kernel: the echo server behind every pod that has no program of
//! its own, flannel's user-space daemon, the cluster's DNS server and ingress controllers. Each is given its sockets and devices, made elsewhere
//! inside the right namespace; nothing here enters a namespace, plans or configures the kernel.

pub mod dns;
pub mod echo;
pub mod events;
pub mod flanneld;
pub mod ingress;
pub mod lines;
