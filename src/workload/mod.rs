//! Who lives in a lab besides the kernel: the echo server behind every pod that has no program of
//! its own, and flannel's user-space daemon. Each is given its sockets and devices, made elsewhere
//! inside the right namespace; nothing here enters a namespace, plans or configures the kernel.

pub mod dns;
pub mod echo;
pub mod flanneld;
