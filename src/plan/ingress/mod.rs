//! Ingress as a pure function: from the objects (ingresses, secrets, ConfigMaps, services) to what a
//! controller must do, whichever controller that is.
//!
//! [`Routing`] is the answer in a form of its own, which names no product: virtual hosts, their
//! locations in the order in which they are tried, backends, certificates, settings. The built-in
//! controller serves it as it is; nginx' and HAProxy's configurations are written from it. Which pods
//! stand behind a backend changes more often than any of this and is told apart, as [`Endpoints`], so
//! that nobody need be reloaded when a pod comes or goes. [`Router::choose`] is the one
//! place that knows which location takes a request. Serving is `crate::workload::ingress`'s.

mod choice;
mod endpoints;
mod fields;
pub mod haproxy;
mod lab;
pub mod nginx;
mod own_answer;
mod rendered;
mod request;
mod routing;
pub mod template;
mod text;
mod types;

pub use choice::{BadPattern, Choice, Rewritten, Router};
pub use endpoints::{endpoints, port};
pub use lab::{brought, of_lab};
pub use own_answer::{Arrived, OwnAnswer};
pub use rendered::{File, Place, Rendered};
pub use request::{Refusal, host_of, normalise};
pub use routing::{Objects, routing};
pub use text::text;
pub use types::*;
