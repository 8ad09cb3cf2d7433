//! A controller's configuration as text, for people.

use crate::lab::ingress::Driver;

use super::rendered::{Place, Rendered};
use super::template::Template;
use super::types::{Endpoints, Routing};
use super::{haproxy, nginx};

/// The configuration that `driver` makes of what it is told, in its program's own words: nginx.conf,
/// haproxy.cfg, or a template filled in. The built-in controller's is the routing itself, in YAML. Keys of
/// certificates are left out.
///
/// haproxy.cfg has servers for the endpoints that there are now; a HAProxy that was told of them one
/// after the other has some of them under other numbers.
pub fn text(driver: &Driver, (routing, endpoints): (&Routing, &Endpoints), place: Place<'_>) -> String {
    match driver {
        Driver::BuiltIn => yaml(routing),
        Driver::Nginx => first(nginx::render(routing, place)),
        Driver::Haproxy => first(haproxy::render(routing, place, &haproxy::slots(routing, endpoints))),
        // Its controller says in its log what is wrong with a template.
        Driver::Command { template, .. } => Template::read(template)
            .map(|t| t.fill(routing, endpoints, place))
            .unwrap_or_else(|fault| fault.to_string()),
    }
}

/// The file that the program is started with.
fn first(rendered: Rendered) -> String {
    rendered.files.into_iter().next().map(|file| file.text).unwrap_or_default()
}

fn yaml(routing: &Routing) -> String {
    let mut shown = routing.clone();
    let certificates = shown.certificates.values_mut().chain(&mut shown.default_certificate);
    certificates.for_each(|certificate| certificate.key = "(not shown)".to_owned());
    // What is made of plain data can be written.
    serde_saphyr::to_string(&shown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::ingress::Certificate;

    fn shown(driver: &Driver) -> String {
        let certificate = Certificate { chain: "the chain".to_owned(), key: "the key".to_owned() };
        let certificates = [("default/cafe".to_owned(), certificate.clone())].into();
        let routing = Routing { certificates, default_certificate: Some(certificate), ..Routing::default() };
        let at = |port| ([0, 0, 0, 0], port).into();
        let place = Place { http: at(80), https: at(443), directory: Path::new("/run/ingress") };
        text(driver, (&routing, &Endpoints::new()), place)
    }

    #[test]
    fn each_program_has_its_own_words_and_no_key_is_shown() {
        let template = "port {{httpPort}}".to_owned();
        for (driver, word) in [
            (Driver::BuiltIn, "servers:"),
            (Driver::Nginx, "worker_processes"),
            (Driver::Haproxy, "frontend"),
            (Driver::Command { command: vec!["x".to_owned()], template }, "port 80"),
        ] {
            let text = shown(&driver);
            assert!(text.contains(word), "{text}");
            assert!(!text.contains("the key"), "{text}");
        }
        let faulty = Driver::Command { command: vec!["x".to_owned()], template: "\n{{ports}}".to_owned() };
        assert!(shown(&faulty).starts_with("line 2: there is no `ports`"));
    }
}
