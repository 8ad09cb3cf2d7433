//! What the API server checks before it takes an object, as far as the object alone decides it
//! (`pkg/apis/core/validation`, `pkg/apis/discovery/validation`,
//! `pkg/apis/networking/validation`). Whether an address or a port is
//! still free is [`super::allocate`]'s; whether a selector finds a pod is `lab`'s.

pub mod config;
mod ingress;
mod meta;
mod ports;
mod service;
mod slice;

pub use config::{config_map, secret};
pub use ingress::{ingress, ingress_class};
pub use meta::{is_dns_subdomain, is_label_key, is_label_value};
pub use ports::is_port_name;
pub use service::service;
pub use slice::{endpoints, slice};
