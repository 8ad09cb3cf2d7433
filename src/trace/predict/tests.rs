use super::*;
use crate::diag::Problems;
use crate::objects::ObjectKey;
use crate::spec::edit::{Edit, ObjectKind, ObjectRef};
use crate::spec::load::{Manifest, Text, decode_text};
use crate::trace::model::{Cause, What};
use crate::trace::question::{self, Ask};

const LAB: &str = "hosts: { node1: {}, node2: {} }\nclients: { laptop: {} }\n\
                   pods: { a: { host: node1 } }\n\
                   deployments: { web: { replicas: 2, labels: { app: web }, ports: [8080] } }\n\
                   services:\n  web: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }\n  \
                   none: { selector: { app: nobody }, ports: [{ port: 80 }] }\n";
const INGRESS: &str = "ingresses:\n  shop:\n    rules: [{ host: shop.example.com, http: { paths: [\
                       { path: /web, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } },\
                       { path: /none, pathType: Prefix, backend: { service: { name: none, port: { number: 80 } } } }] } }]\n";

fn predicted_in(text: &str, from: &str, to: &str, kind: Option<Ask>) -> Trace {
    predicted_after(Vec::new(), text, (from, to, kind))
}

fn predicted_after(edits: Vec<Edit>, text: &str, (from, to, kind): (&str, &str, Option<Ask>)) -> Trace {
    let text = Text { name: "lab".into(), text: text.into(), default_name: "lab".into(), edits, ..Text::default() };
    let mut problems = Problems::default();
    let lab = crate::lab::resolve(&decode_text(&text), None, &mut problems).unwrap_or_else(|| panic!("{problems:?}"));
    let asked = question::Question { from: from.into(), to: to.into(), kind, ..Default::default() };
    let origin = Origin::new(text, None);
    trace(&lab, &asked.probe(&lab).expect("a probe"), (to, &origin))
}

fn predicted(from: &str, to: &str) -> Trace {
    predicted_in(LAB, from, to, None)
}

fn roles(trace: &Trace) -> Vec<Role> {
    trace.flows.iter().map(|f| f.role).collect()
}

#[track_caller]
fn cause(trace: &Trace) -> Cause {
    let fault = trace.verdict.fault.as_ref().unwrap_or_else(|| panic!("no fault: {:?}", trace.verdict));
    assert!(!trace.asked.answered && !fault.remedy.is_empty(), "{:?}, {fault:?}", trace.asked);
    assert_eq!(fault.evidence, ["the lab's file says so; nothing was sent"]);
    fault.cause
}

#[test]
fn a_service_is_looked_up_and_every_endpoint_told_with_its_odds() {
    let trace = predicted("a", "web");
    assert_eq!(roles(&trace), [Role::NameLookup, Role::Request]);
    let numbers: Vec<u32> = trace.flows.iter().flat_map(|f| &f.packets).map(|p| p.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(trace.asked.answered && trace.verdict.fault.is_none(), "{:?}", trace.verdict);
    assert_eq!(trace.notes.len(), 2, "{:?}", trace.notes);
    assert!(trace.notes[0].starts_with("with probability 0.50 it ends at web-"), "{:?}", trace.notes);
}

#[test]
fn ways_that_end_alike_are_summed() {
    // The balancer's choice of a host, and that host's of an endpoint.
    let balanced = "  twice: { type: LoadBalancer, selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }\n";
    let trace = predicted_in(&format!("{LAB}{balanced}"), "laptop", "twice", None);
    let begins = |note: &String| note.starts_with("with probability 0.50 it ends at web-");
    assert!(trace.notes.len() == 2 && trace.notes.iter().all(begins), "{:?}", trace.notes);
}

#[test]
fn what_will_not_be_answered_is_judged_as_if_it_had_been_asked() {
    assert_eq!(cause(&predicted("node1", "a:9999")), Cause::NoListener);
    let trace = predicted("a", "none");
    assert_eq!(cause(&trace), Cause::NoEndpoints);
    let fault = trace.verdict.fault.expect("a fault");
    assert_eq!(fault.object, "spec.selector of service default/none");
}

#[test]
fn an_address_that_nobody_has_is_doubted() {
    let remedy = |to: &str| {
        let trace = predicted_in(LAB, "a", to, Some(Ask::Icmp));
        (cause(&trace), trace.verdict.says, trace.verdict.fault.expect("a fault").remedy.remove(0).says)
    };
    let doubt = |ip: &str| format!("nobody has the address {ip}: is it the right one?");
    let says = "router has no route to 10.9.9.9".to_owned();
    assert_eq!(remedy("10.9.9.9"), (Cause::NoRoute, says, doubt("10.9.9.9")));
    let (cause, _, says) = remedy("10.244.2.99");
    assert_eq!((cause, says), (Cause::NoNeighbour, doubt("10.244.2.99")));
}

#[test]
fn a_name_that_nobody_has_is_known_before() {
    let trace = predicted_in(LAB, "a", "nope", Some(Ask::Dns));
    assert_eq!(cause(&trace), Cause::NoSuchName);
    assert!(trace.asked.seen.contains("NXDOMAIN"), "{:?}", trace.asked);
    let trace = predicted("a", "http://nope/");
    assert_eq!((cause(&trace), roles(&trace)), (Cause::NoSuchName, vec![Role::NameLookup]));
    let trace = predicted_in(LAB, "a", "web", Some(Ask::Dns));
    assert!(trace.asked.answered && trace.asked.seen.starts_with("an answer, records 10.96."), "{:?}", trace.asked);
}

#[test]
fn what_the_ingress_controller_does_is_predicted_too() {
    let lab = format!("{LAB}{INGRESS}");
    let trace = predicted_in(&lab, "laptop", "http://shop.example.com/web", None);
    assert_eq!(roles(&trace), [Role::Request, Role::Proxied]);
    let step = &trace.flows[1].packets[0].steps[0];
    assert!(
        matches!(&step.what, What::Proxied { because: Some(rule), .. } if rule.contains("(Prefix /web)")),
        "{step:?}"
    );
    assert!(trace.asked.answered && trace.verdict.says.starts_with("will be delivered to web-"), "{:?}", trace.verdict);
    for (path, status) in [("/cake", "404 Not Found"), ("/none", "503 Service Unavailable")] {
        let trace = predicted_in(&lab, "laptop", &format!("http://shop.example.com{path}"), None);
        assert_eq!((cause(&trace), roles(&trace)), (Cause::ProxyRefused, vec![Role::Request]), "{path}");
        assert!(trace.asked.seen.ends_with(status), "{:?}", trace.asked);
    }
}

#[test]
fn nothing_is_said_of_a_proxy_where_there_is_none() {
    let trace = predicted("a", "http://web/");
    assert!(trace.asked.answered && !trace.notes.iter().any(|n| n.contains("proxy")), "{:?}", trace.notes);
}

/// An ingress for `shop.example.com` with an annotation.
fn annotated(annotation: &str) -> String {
    let named = format!("  shop:\n    annotations: {{ nginx.ingress.kubernetes.io/{annotation} }}\n");
    format!("{LAB}{}", INGRESS.replace("  shop:\n", &named))
}

fn seen(lab: &str, url: &str) -> String {
    predicted_in(lab, "laptop", url, None).asked.seen
}

#[test]
fn what_the_controller_answers_itself_is_predicted_by_its_own_rules() {
    for (annotation, url, status) in [
        ("whitelist-source-range: 203.0.113.0/24", "http://shop.example.com/web", "403 Forbidden"),
        ("app-root: /web", "http://shop.example.com/?x=1", "302 Found"),
        ("force-ssl-redirect: \"true\"", "http://shop.example.com/web", "308 Permanent Redirect"),
    ] {
        let seen = seen(&annotated(annotation), url);
        assert!(seen.ends_with(status), "{annotation}: {seen}");
    }
    assert_eq!(seen(&annotated("whitelist-source-range: 0.0.0.0/0"), "http://shop.example.com/web"), "an answer");
}

#[test]
fn a_path_is_predicted_as_the_controller_reads_it() {
    let lab = format!("{LAB}{INGRESS}");
    let url = |path: &str| format!("http://shop.example.com{path}");
    assert!(seen(&lab, &url("/web/../none")).ends_with("503 Service Unavailable"));
    assert_eq!(seen(&lab, &url("/cake/%2e%2e/web")), "an answer");
    assert!(seen(&lab, &url("/..")).ends_with("400 Bad Request"));
}

#[test]
fn a_name_that_another_server_is_asked_for_is_not_known() {
    let lab = LAB.replace(
        "pods: { a: { host: node1 } }",
        "pods: { b: { host: node2, ports: [{ containerPort: 53, protocol: UDP }], address: 10.244.2.9 }, \
         a: { host: node1, dnsPolicy: None, dnsConfig: { nameservers: [10.244.2.9] } } }",
    );
    let trace = predicted_in(&lab, "a", "http://web.default.svc.cluster.local/", None);
    assert_eq!((roles(&trace), trace.asked.answered), (vec![Role::NameLookup], false));
    assert_eq!(trace.verdict.says, "the plan does not know where this goes");
    assert!(trace.notes.iter().any(|n| n.starts_with("what b answers for `web.default")), "{:?}", trace.notes);
}

#[test]
fn a_service_that_was_deleted_is_known_by_each_of_its_names() {
    for name in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local."] {
        let gone = ObjectRef { kind: ObjectKind::Service, key: ObjectKey::new("default", "web") };
        let trace = predicted_after(vec![Edit::Delete(gone)], LAB, ("a", &format!("{name}:80"), None));
        assert_eq!(cause(&trace), Cause::NoSuchName);
        let remedy = &trace.verdict.fault.expect("a fault").remedy;
        let says = |says: &str| remedy.iter().any(|r| r.says.contains(says));
        assert!(says("service default/web was deleted from the running lab"), "{name}: {remedy:?}");
    }
}

fn applied(text: &str) -> Edit {
    let (name, text) = ("more.yaml".to_owned(), Ok(text.to_owned()));
    Edit::Apply(Manifest { asked: None, name, text, namespace: None })
}

/// A service in a manifest that selects the pods with this label.
fn service(name: &str, app: &str) -> String {
    format!(
        "{{ apiVersion: v1, kind: Service, metadata: {{ name: {name} }}, \
         spec: {{ selector: {{ app: {app} }}, ports: [{{ port: 80, targetPort: 8080 }}] }} }}\n"
    )
}

#[test]
fn the_text_is_given_to_up_again_where_it_has_an_answer_by_itself() {
    let is_offered = |edit: Edit, to: &str| {
        let trace = predicted_after(vec![edit], LAB, ("a", to, None));
        let remedy = trace.verdict.fault.unwrap_or_else(|| panic!("no fault: {:?}", trace.asked)).remedy;
        assert!(!remedy.is_empty());
        // The text has no file here.
        remedy.iter().any(|r| r.command.as_ref().is_some_and(|c| c.starts_with("labctl up --no-probes lab")))
    };
    assert!(is_offered(applied(&service("web", "nobody")), "web"), "a right one was there before");
    let deployment = ObjectKey::new("default", "web");
    assert!(is_offered(Edit::Scale { deployment, replicas: 0 }, "web"));
    assert!(!is_offered(applied(&service("new", "nobody")), "new"), "only a right one helps");
    assert!(!is_offered(applied(&service("new", "web")), "none"), "what was applied has no part in it");
}

#[test]
fn a_machine_itself_is_asked_for_without_a_dns_server() {
    for (from, url) in
        [("a", "http://localhost:8080/"), ("node1", "http://localhost:8080/"), ("laptop", "localhost:80")]
    {
        let trace = predicted(from, url);
        assert_eq!(roles(&trace), [Role::Request], "{from}: {:?}", trace.asked);
        assert!(trace.asked.tried.as_ref().is_some_and(|end| end.starts_with("127.0.0.1:")), "{:?}", trace.asked);
    }
}

/// What is seen, the cause's object, and the first remedy.
#[track_caller]
fn fault_of(lab: &str, from: &str, url: &str) -> (String, String, String) {
    let trace = predicted_in(lab, from, url, None);
    assert_eq!(cause(&trace), Cause::Other);
    let fault = trace.verdict.fault.expect("a fault");
    (trace.asked.seen, fault.object, fault.remedy[0].says.clone())
}

#[test]
fn tls_to_a_port_for_plain_http_is_foreseen() {
    let no_tls = |seen: &str, port: u16| {
        let begins = seen.starts_with("tls: no TLS with ");
        begins && seen.ends_with(&format!(":{port}: received corrupt message of type InvalidContentType"))
    };
    let (seen, object, remedy) = fault_of(LAB, "a", "https://web:80/");
    assert!(no_tls(&seen, 80), "{seen}");
    assert_eq!((object.as_str(), remedy.as_str()), ("TLS", "ask http://web/"));
    let (seen, _, remedy) = fault_of(&format!("{LAB}{INGRESS}"), "laptop", "https://shop.example.com:80/web");
    assert!(no_tls(&seen, 80) && remedy == "ask http://shop.example.com/web", "{seen}: {remedy}");
}

#[test]
fn plain_http_to_a_port_for_tls_is_foreseen_as_each_controller_answers_it() {
    for (controller, answer) in [
        ("built-in", "answers 400 Bad Request"),
        ("nginx", "answers 400 Bad Request"),
        ("haproxy", "hung up before it had answered"),
    ] {
        let lab = format!("cluster: {{ ingress: {{ controller: {controller} }} }}\n{LAB}{INGRESS}");
        let (seen, object, remedy) = fault_of(&lab, "laptop", "http://shop.example.com:443/web");
        assert!(seen.ends_with(answer), "{controller}: {seen}");
        assert_eq!((object.as_str(), remedy.as_str()), ("plain HTTP", "ask https://shop.example.com/web"));
        let says = predicted_in(&lab, "laptop", "http://shop.example.com:443/web", None).verdict.says;
        assert!(says.ends_with("; the ingress controller speaks TLS, and plain HTTP came on port 443"), "{says}");
    }
}

#[test]
fn a_program_may_speak_what_it_will() {
    let lab = LAB
        .replace("{ host: node1 } }", "{ host: node1 }, own: { host: node1, ports: [8443], command: [sleep, inf] } }");
    assert!(predicted_in(&lab, "a", "https://own:8443/", None).asked.answered);
    assert!(predicted_in(&lab, "a", "http://own:8443/", None).asked.answered);
}
