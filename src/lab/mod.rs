//! The lab: what a file means. Names become references, ranges become addresses, defaults are
//! filled in, and what cannot be is refused with its place and remedy.
//!
//! [`resolve`] is the only way to a [`Lab`]. It takes the lab as it was before, where there is
//! one, so that a live change moves nobody who can stay.

mod addressing;
mod containers;
mod declared;
pub mod dns;
mod expect;
pub mod external;
mod host_ports;
pub mod ingress;
mod ipam;
mod leases;
mod machines;
mod model;
pub mod names;
mod placement;
pub mod probe;
mod probes;
mod ranges;
mod resolve;
pub mod resolver;
pub mod services;

pub use addressing::INTERNET_NAME;
pub use dns::Dns;
pub use host_ports::HostPort;
pub use ingress::IngressLayer;
pub use model::*;
pub use probes::question;
pub use resolve::resolve;
