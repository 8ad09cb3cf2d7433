//! What a lab makes of ingresses, secrets and the controller's settings.

use super::*;
use crate::diag::{Place, Problem, Problems, codes};
use crate::lab::resolve;
use crate::objects::ByteString;
use crate::spec::edit::{Edit, ObjectKind, ObjectRef};
use crate::spec::load::{Manifest, Text, decode_text};

mod classes;

const GROUND: &str = "
hosts: { node1: {}, node2: {} }
clients: { laptop: {} }
deployments: { tea: { labels: { app: tea } } }
services: { tea-svc: { selector: { app: tea }, ports: [{ port: 80, targetPort: 8080 }] } }
";

const BACKEND: &str = "backend: { service: { name: tea-svc, port: { number: 80 } } }";

/// A rule that leads `/` of a host to the tea.
fn rule(host: &str) -> String {
    format!("{{ host: {host}, http: {{ paths: [{{ path: /, pathType: Prefix, {BACKEND} }}] }} }}")
}

fn manifest(text: &str) -> Manifest {
    Manifest { name: "m.yaml".to_owned(), text: Ok(text.to_owned()), asked: None, namespace: None }
}

/// A lab of the ground with these lines, manifests and edits, and what is told of it.
fn told(lines: &str, manifests: &[&str], edits: &[Edit]) -> (Option<Lab>, Vec<Problem>) {
    let text = Text {
        name: "lab".to_owned(),
        text: format!("{GROUND}{lines}"),
        default_name: "lab".to_owned(),
        manifests: manifests.iter().map(|m| manifest(m)).collect(),
        edits: edits.to_vec(),
        ..Text::default()
    };
    let mut loaded = decode_text(&text);
    let mut problems = std::mem::take(&mut loaded.problems);
    let lab = resolve(&loaded, None, &mut problems);
    (lab, Problems::into_iter(problems).collect())
}

/// The same where there is no error.
#[track_caller]
fn lab(lines: &str) -> Lab {
    let (lab, told) = told(lines, &[], &[]);
    lab.unwrap_or_else(|| panic!("no lab: {told:#?}"))
}

#[track_caller]
fn layer(lines: &str) -> IngressLayer {
    lab(lines).ingress.expect("an ingress layer")
}

fn names(ingresses: &[Ingress]) -> Vec<String> {
    ingresses.iter().map(|i| ObjectKey::of(&i.metadata).to_string()).collect()
}

#[test]
fn a_lab_without_ingress_has_no_controller() {
    let lab = lab("");
    assert_eq!(lab.ingress, None);
    assert!(lab.pods.iter().all(|p| p.id.namespace.as_str() != INGRESS_NAMESPACE));
    assert_eq!(lab.ingress_address(), None);
}

#[test]
fn a_controller_has_pods_and_a_load_balancer() {
    let lab = lab("cluster: { ingress: { replicas: 2 } }\n");
    let pods: Vec<_> = lab.pods.iter().filter(|p| p.id.namespace.as_str() == INGRESS_NAMESPACE).collect();
    assert_eq!(
        pods.iter().map(|p| p.id.name.as_str()).collect::<Vec<_>>(),
        ["ingress-controller-1", "ingress-controller-2"]
    );
    assert!(
        pods.iter().all(|p| p.containers[0].run == crate::lab::Run::Ingress && p.containers[0].readiness.is_some())
    );
    assert!(
        lab.deployments.iter().any(|d| d.key == ObjectKey::new(INGRESS_NAMESPACE, INGRESS_NAME) && d.replicas == 2)
    );
    assert!(lab.namespaces.contains(INGRESS_NAMESPACE));
    let address = lab.ingress_address().expect("an address");
    assert_eq!((address.ip.to_string().as_str(), address.http, address.https), ("198.51.100.1", 80, 443));
    let service = lab.ingress_service().and_then(|s| s.spec.clone()).expect("a service");
    let targets: Vec<_> = service.ports.iter().flatten().filter_map(|p| p.name.clone()).collect();
    assert_eq!(targets, [HTTP, HTTPS]);
    assert_eq!(service.selector, Some(pods[0].labels.clone()));
}

#[test]
fn the_service_is_as_it_was_asked_for() {
    let lab = lab("cluster: { ingress: { service: { type: NodePort, nodePorts: { http: 30080, https: 30443 }, \
                   externalTrafficPolicy: Local } } }\n");
    let spec = lab.ingress_service().and_then(|s| s.spec.clone()).expect("a service");
    assert_eq!((spec.type_.as_deref(), spec.external_traffic_policy.as_deref()), (Some("NodePort"), Some("Local")));
    let address = lab.ingress_address().expect("an address");
    assert_eq!((address.http, address.https), (30080, 30443));
    let pod = lab.pods.iter().find(|p| p.id.namespace.as_str() == INGRESS_NAMESPACE).expect("a pod");
    assert_eq!(Some(address.ip), lab.host(&pod.host).map(Host::ip), "with Local only that host answers");
}

#[test]
fn pods_with_ports_of_their_hosts_stand_apart() {
    let many: String = (0..9).map(|n| format!("p{n}: {{ host: node1 }}, ")).collect();
    let lines = format!(
        "cluster: {{ ingress: {{ replicas: 2, hostPort: true, service: {{ type: NodePort }} }} }}\npods: {{ {many} }}\n"
    );
    // A host with fewer pods would get both.
    let lab = lab(&lines);
    let mut hosts: Vec<_> =
        lab.pods.iter().filter(|p| p.id.namespace.as_str() == INGRESS_NAMESPACE).map(|p| p.host.as_str()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["node1", "node2"]);
    let address = lab.ingress_address().expect("an address");
    assert_eq!((address.http, address.https), (80, 443));
}

const OF_MANIFEST: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: other }
spec:
  tls: [{ hosts: [other.example.com], secretName: other }]
  rules: [{ host: other.example.com }]
";

fn with_tls(hosts: &str, secret: &str) -> String {
    format!(
        "ingresses: {{ cafe: {{ tls: [{{ {hosts}secretName: {secret} }}], rules: [{}, {}] }} }}\n",
        rule("tea.example.com"),
        rule("coffee.example.com")
    )
}

#[test]
fn a_secret_that_the_lab_file_asks_for_and_nobody_brings_is_made() {
    let key = ObjectKey::new("default", "cafe-secret");
    let (lab, problems) = told(&with_tls("hosts: [tea.example.com, coffee.example.com], ", "cafe-secret"), &[], &[]);
    assert_eq!(problems, []);
    let made = lab.and_then(|lab| lab.ingress).expect("a layer").generated;
    assert_eq!(made[&key], ["coffee.example.com", "tea.example.com"]);
    let made = layer(&with_tls("", "cafe-secret")).generated;
    assert_eq!(made[&key], ["coffee.example.com", "tea.example.com"], "no hosts: those of the rules");
    let brought = format!("{}secrets: {{ cafe-secret: {{ stringData: {{ a: b }} }} }}\n", with_tls("", "cafe-secret"));
    assert!(layer(&brought).generated.is_empty());
}

#[test]
fn a_secret_that_a_manifest_asks_for_is_made_only_where_the_lab_file_says_so() {
    let key = ObjectKey::new("default", "other");
    let (lab, problems) = told("", &[OF_MANIFEST], &[]);
    let codes: Vec<_> = problems.iter().map(|p| p.code.as_str()).collect();
    assert_eq!(codes, ["ingress-secret"]);
    assert!(lab.and_then(|lab| lab.ingress).expect("a layer").generated.is_empty());
    let (lab, problems) = told("secrets: { other: { generate: true } }\n", &[OF_MANIFEST], &[]);
    assert_eq!(problems, []);
    assert_eq!(lab.and_then(|lab| lab.ingress).expect("a layer").generated[&key], ["other.example.com"]);
}

#[test]
fn what_is_made_follows_what_is_applied_and_deleted() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: { name: other }\nstringData: { a: b }\n";
    let generate = "secrets: { other: { generate: true } }\n";
    let made = |edits: &[Edit]| {
        let (lab, _) = told(generate, &[OF_MANIFEST], edits);
        lab.and_then(|lab| lab.ingress).expect("a layer").generated.len()
    };
    assert_eq!(made(&[]), 1);
    let apply = Edit::Apply(manifest(secret));
    assert_eq!(made(std::slice::from_ref(&apply)), 0, "it is brought");
    let delete = Edit::Delete(ObjectRef { kind: ObjectKind::Secret, key: ObjectKey::new("default", "other") });
    assert_eq!(made(std::slice::from_ref(&delete)), 0, "it is not wanted any more");
}

#[test]
fn the_default_certificate_is_for_all_hosts() {
    let lines = format!(
        "cluster: {{ ingress: {{ defaultSSLCertificate: default/all }} }}\ningresses: {{ cafe: {{ rules: [{}] }} }}\n",
        rule("cafe.example.com")
    );
    let layer = layer(&lines);
    let key = ObjectKey::new("default", "all");
    assert_eq!(layer.default_certificate.as_ref(), Some(&key));
    assert_eq!(layer.generated[&key], ["cafe.example.com"]);
}

#[test]
fn text_wins_over_data_and_what_a_secret_holds_is_not_shown() {
    let lines =
        "cluster: { ingress: {} }\nsecrets: { s: { data: { a: b2xk, b: a2VwdA== }, stringData: { a: hidden } } }\n";
    let lab = lab(lines);
    let secret = &lab.ingress.as_ref().expect("a layer").secrets[&ObjectKey::new("default", "s")];
    assert_eq!(secret.data["a"], b"hidden");
    assert_eq!(secret.data["b"], b"kept");
    assert_eq!(secret.kind, "Opaque");
    assert_eq!(lab.secrets[0].data.as_ref().map(|d| &d["a"]), Some(&ByteString(b"hidden".to_vec())));
    assert_eq!(lab.secrets[0].string_data, None);
    let shown = format!("{secret:?} {}", serde_json::to_string(&lab).expect("JSON"));
    assert!(!shown.contains("hidden") && !shown.contains("aGlkZGVu"), "{shown}");
}

#[test]
fn settings_are_those_of_the_config_map_and_of_the_file() {
    let lines = "cluster: { ingress: { configMap: ingress/settings, config: { keep-alive: 30, use-http2: false } } }\n\
                 configMaps: { settings: { namespace: ingress, data: { keep-alive: '60', proxy-body-size: 8m } } }\n";
    let config = layer(lines).config;
    let all: Vec<_> = config.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(all, ["keep-alive=30", "proxy-body-size=8m", "use-http2=false"]);
}

/// As in an installation of ingress-nginx, whose controller is started with the name of its own.
#[test]
fn the_controllers_own_config_map_is_read_without_being_named() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: ingress-controller, namespace: ingress }\n\
               data: { keep-alive: '60' }\n";
    let (lab, told) = told("cluster: { ingress: {} }\n", &[], &[Edit::Apply(manifest(map))]);
    assert_eq!(told, []);
    assert_eq!(lab.and_then(|lab| lab.ingress).expect("a layer").config["keep-alive"], "60");
}

#[test]
fn what_a_change_does_is_said_of_ingresses_classes_secrets_and_the_controller() {
    let before = lab(&with_tls("hosts: [tea.example.com], ", "cafe-secret"));
    let lines = with_tls("hosts: [tea.example.com, coffee.example.com], ", "cafe-secret");
    let after = lab(&format!("cluster: {{ ingress: {{ controller: nginx, config: {{ keep-alive: 7 }} }} }}\n{lines}"));
    assert_eq!(changes(&before, &before), [""; 0]);
    assert_eq!(
        changes(&before, &after),
        [
            "ingress default/cafe: changed",
            "ingressclass built-in: gone",
            "ingressclass nginx: new",
            "secret default/cafe-secret: changed",
            "settings of ingress/ingress-controller: changed",
            "controller ingress/ingress-controller: changed",
        ]
    );
}

#[test]
fn hosts_whose_certificate_clients_refuse_are_known_for_as_long_as_it_is_so() {
    let bad = |lines: &str, manifests: &[&str]| {
        let layer = told(lines, manifests, &[]).0.and_then(|lab| lab.ingress).expect("a layer");
        layer.bad_certificates(&layer.ingresses[0], std::time::SystemTime::now())
    };
    let missing = "there is no secret default/other";
    let nobody = "other.example.com: clients get the default certificate, one that nobody trusts";
    assert_eq!(bad("", &[OF_MANIFEST]), [format!("{nobody}: {missing}")]);
    let with_default = "cluster: { ingress: { defaultSSLCertificate: default/all } }\n";
    let all = "other.example.com: clients get the default certificate, that of secret default/all";
    assert_eq!(bad(with_default, &[OF_MANIFEST]), [format!("{all}: {missing}")]);
    let unfit = "secrets: { other: { stringData: { tls.crt: x } } }\n";
    assert_eq!(bad(unfit, &[OF_MANIFEST]), [format!("{nobody}: secret default/other has no `tls.key`")]);
    assert_eq!(bad(&with_tls("", "cafe-secret"), &[]), [""; 0], "the lab signs it");
}

const OLD: &str = "
apiVersion: extensions/v1beta1
kind: Ingress
metadata: { name: old }
spec:
  backend: { serviceName: tea-svc, servicePort: '80' }
  rules:
  - host: old.example.com
    http: { paths: [{ path: /tea, backend: { serviceName: tea-svc, servicePort: http } }, { backend: { serviceName: tea-svc, servicePort: 80 } }] }
";

#[test]
fn an_ingress_of_an_old_version_reads_as_todays() {
    let new = OLD
        .replace("extensions/v1beta1", "networking.k8s.io/v1")
        .replace(
            "backend: { serviceName: tea-svc, servicePort: '80' }",
            "defaultBackend: { service: { name: tea-svc, port: { number: 80 } } }",
        )
        .replace(
            "serviceName: tea-svc, servicePort: http }",
            "service: { name: tea-svc, port: { name: http } } }, pathType: ImplementationSpecific",
        )
        .replace(
            "serviceName: tea-svc, servicePort: 80 }",
            "service: { name: tea-svc, port: { number: 80 } } }, pathType: ImplementationSpecific",
        );
    let read = |text: &str| {
        let (lab, told) = told("", &[text], &[]);
        (lab.and_then(|lab| lab.ingress).unwrap_or_else(|| panic!("{told:#?}")).ingresses, told)
    };
    let ((old, told), (new, others)) = (read(OLD), read(&new));
    assert_eq!(old, new);
    let versions: Vec<_> = told.iter().filter(|p| p.code.as_str() == "object-version").collect();
    assert_eq!(versions.len(), 1, "{told:#?}");
    assert!(!versions[0].is_error() && told.len() == others.len() + 1);
    let help = versions[0].help.clone().unwrap_or_default();
    for part in
        ["networking.k8s.io/v1`", "service: { name: tea-svc, port: { name: http } }", "defaultBackend: {", "pathType"]
    {
        assert!(help.contains(part), "no {part:?} in {help}");
    }
}

#[test]
fn a_port_for_udp_is_no_backend() {
    let service = "services: { dns: { selector: { app: tea }, ports: [{ name: dns, port: 53, protocol: UDP }, { port: 80, name: web }] } }\n";
    let lines = |port: &str| {
        let backend = format!("backend: {{ service: {{ name: dns, port: {{ {port} }} }} }}");
        let path = format!("{{ path: /, pathType: Prefix, {backend} }}");
        format!("ingresses: {{ one: {{ rules: [{{ host: a.com, http: {{ paths: [{path}] }} }}] }} }}\n")
    };
    for (port, udp) in [("number: 53", true), ("name: dns", true), ("number: 80", false), ("name: web", false)] {
        let text = Text {
            name: "lab".to_owned(),
            text: format!(
                "hosts: {{ node1: {{}} }}\ndeployments: {{ tea: {{ labels: {{ app: tea }} }} }}\n{service}{}",
                lines(port)
            ),
            default_name: "lab".to_owned(),
            ..Text::default()
        };
        let mut loaded = decode_text(&text);
        let mut problems = std::mem::take(&mut loaded.problems);
        assert!(resolve(&loaded, None, &mut problems).is_some());
        let told: Vec<String> = Problems::into_iter(problems).map(|p| p.message.clone()).collect();
        assert_eq!(told.iter().any(|m| m.contains("is for UDP, and HTTP needs TCP")), udp, "{port}: {told:?}");
    }
}

#[test]
fn objects_are_told_by_the_place_of_their_fault() {
    let text = OLD.replace("serviceName: tea-svc, servicePort: http", "serviceName: coffee-svc, servicePort: http");
    let (_, told) = told("", &[&text], &[]);
    let fault = told.iter().find(|p| p.message.contains("coffee-svc")).expect("it is told");
    let Place { source, start, end } = fault.labels[0].0;
    assert_eq!((source, &text[start as usize..end as usize]), (1, "coffee-svc"));
}

/// A probe's `connectTo: ingress` leads to the controller, and other names stay what they are.
#[test]
fn a_probe_finds_the_controller() {
    let probe = |lines: &str, http: &str| {
        let (lab, told) = told(&format!("{lines}\nprobes: [{{ from: laptop, http: {http} }}]\n"), &[], &[]);
        match lab.map(|lab| lab.probes[0].ask.clone()) {
            Some(crate::lab::probe::Ask::Http(http)) => Ok((http.to, http.to_port)),
            other => Err(format!("{other:?} {told:?}")),
        }
    };
    let public = crate::lab::probe::Target::Address("198.51.100.1".parse().expect("an address"));
    let ingress = "cluster: { ingress: {} }";
    let to = |url: &str, to: &str| format!("{{ url: '{url}', connectTo: '{to}' }}");
    assert_eq!(probe(ingress, &to("https://a.b/", "ingress")), Ok((public.clone(), 443)));
    assert_eq!(probe(ingress, &to("http://a.b/", "ingress")), Ok((public.clone(), 80)));
    assert_eq!(probe(ingress, &to("http://a.b:8080/", "ingress")), Ok((public.clone(), 8080)));
    assert_eq!(probe(ingress, &to("http://a.b/", "ingress:8443")), Ok((public, 8443)));
    let node_port = "cluster: { ingress: { service: { type: NodePort, nodePorts: { http: 30080, https: 30443 } } } }";
    assert_eq!(probe(node_port, &to("https://a.b/", "ingress")).map(|found| found.1), Ok(30443));
    let none = probe("", &to("http://a.b/", "ingress")).expect_err("there is none");
    assert!(none.contains("the lab has no ingress controller"), "{none}");
    let named = probe("pods: { ingress: {} }", &to("http://a.b/", "ingress")).expect("a pod");
    assert!(matches!(named, (crate::lab::probe::Target::Machine(_), 80)), "{named:?}");
}
