//! A controller's configuration as text, for people.

use crate::lab::ingress::Driver;

use super::types::Routing;

/// The configuration that `driver` makes of `routing`, in its program's own words; the built-in
/// controller's and a program of the user's own are the routing itself, in YAML. Keys of certificates
/// are left out.
pub fn text(driver: &Driver, routing: &Routing) -> String {
    match driver {
        Driver::BuiltIn | Driver::Command { .. } | Driver::Nginx | Driver::Haproxy => yaml(routing),
    }
}

fn yaml(routing: &Routing) -> String {
    let mut shown = routing.clone();
    let certificates = shown.certificates.values_mut().chain(&mut shown.default_certificate);
    certificates.for_each(|certificate| certificate.key = "(not shown)".to_owned());
    // What is made of plain data can be written.
    serde_saphyr::to_string(&shown).unwrap_or_default()
}
