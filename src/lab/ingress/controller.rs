//! Which controller the lab has, and its objects: the container, and the service in front of its pods.

use std::time::Duration;

use crate::diag::{Problem, Problems, codes};
use crate::lab::host_ports::HostPort;
use crate::lab::model::{Container, HttpCheck, Port, Readiness, ReadinessCheck, Run};
use crate::objects::Service;
use crate::spec::LabFile;
use crate::spec::manifest::{Written, ingress};
use crate::spec::types::{ControllerName, ControllerSpec, IngressSettings};
use crate::spec::value::{Labels, Protocol};

use super::{
    Controller, Driver, HTTP, HTTPS, INGRESS_CONTAINER, INGRESS_HEALTH_PORT, INGRESS_LABEL, INGRESS_NAME,
    INGRESS_NAMESPACE,
};

/// Beyond it a typing error is likelier than a wish.
const MOST_REPLICAS: u32 = 100;

/// Whether the lab has a controller.
pub fn wanted(file: &LabFile) -> bool {
    file.cluster.ingress.is_some() || !file.objects.ingresses.is_empty()
}

/// The lab's controller, where it has one.
pub fn controller(file: &LabFile, problems: &mut Problems) -> Option<Controller> {
    if !wanted(file) {
        return None;
    }
    let unwritten = IngressSettings::default();
    let settings = file.cluster.ingress.as_ref().map_or(&unwritten, |s| &s.value);
    let replicas = settings.replicas.as_ref().map_or(1, |r| r.value);
    if let Some(written) = settings.replicas.as_ref().filter(|r| r.value > MOST_REPLICAS) {
        problems.push(
            Problem::error(codes::SPEC_BAD_VALUE, format!("{replicas} pods of the ingress controller are too many"))
                .at(written.place, "this number")
                .help(format!("take 0 to {MOST_REPLICAS}")),
        );
    }
    Some(Controller {
        driver: driver(file, settings, problems),
        replicas: replicas.min(MOST_REPLICAS),
        host_port: settings.host_port,
        labels: Labels::from([(INGRESS_LABEL.0.to_owned(), INGRESS_LABEL.1.to_owned())]),
    })
}

fn driver(file: &LabFile, settings: &IngressSettings, problems: &mut Problems) -> Driver {
    let Some(written) = &settings.controller else { return Driver::BuiltIn };
    match &written.value {
        ControllerSpec::Named(ControllerName::BuiltIn) => Driver::BuiltIn,
        ControllerSpec::Named(ControllerName::Nginx) => Driver::Nginx,
        ControllerSpec::Named(ControllerName::Haproxy) => Driver::Haproxy,
        ControllerSpec::Command(own) => {
            if own.command.is_empty() {
                problems.push(
                    Problem::error(codes::SPEC_BAD_VALUE, "the controller has no command")
                        .at(written.place, "this one")
                        .help("name its program: `command: [/usr/bin/envoy, -c, '{config}']`"),
                );
            }
            let template = match file.template.clone() {
                Some(Ok(text)) => text,
                Some(Err(problem)) => {
                    problems.push(problem.at(own.template.place, "named here"));
                    String::new()
                }
                // A text that came without its files, as one of a test or of another program.
                None => {
                    let message = format!("the template `{}` was not read", own.template.value);
                    let problem = Problem::error(codes::FILE_UNREADABLE, message).at(own.template.place, "named here");
                    problems.push(problem.help("give labctl the lab by its file's path"));
                    String::new()
                }
            };
            Driver::Command { command: own.command.clone(), template }
        }
    }
}

/// The service in front of the controller's pods, each field at the place where it was asked for.
pub fn service(file: &LabFile, problems: &mut Problems) -> Option<Written<Service>> {
    wanted(file).then(|| {
        let names = ingress::ControllerNames {
            namespace: INGRESS_NAMESPACE,
            name: INGRESS_NAME,
            label: INGRESS_LABEL,
            ports: [(HTTP, 80), (HTTPS, 443)],
        };
        ingress::controller_service(file.cluster.ingress.as_ref(), &names, problems)
    })?
}

/// The container of a controller's pod, with the ports and the readiness of ingress-nginx.
pub fn container(controller: &Controller) -> Container {
    let port = |number, name: &str| Port {
        number,
        protocol: Protocol::Tcp,
        name: Some(name.to_owned()),
        host_port: controller.host_port.then_some(HostPort { number, ip: None }),
    };
    Container {
        name: INGRESS_CONTAINER.to_owned(),
        ports: vec![port(80, HTTP), port(443, HTTPS)],
        run: Run::Ingress,
        readiness: Some(Readiness {
            check: ReadinessCheck::HttpGet(HttpCheck {
                path: "/healthz".to_owned(),
                port: INGRESS_HEALTH_PORT,
                ..HttpCheck::default()
            }),
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }),
    }
}
