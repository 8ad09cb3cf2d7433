//! What is typed of `labctl trace`, and what it says of that: names that nothing has, ports that a service lacks,
//! what an ingress refuses, and remedies that name the line to be changed.

use serde_json::Value;

use crate::as_root_and_ordinary_user;
use crate::harness::{Bench, Ran};

as_root_and_ordinary_user![
    a_name_that_nothing_has_is_asked_for_as_the_askers_resolver_does,
    hosts_and_clients_know_the_names_of_their_own_file_alone,
    a_port_that_a_service_lacks_is_named_with_those_that_it_has,
    a_service_without_endpoints_says_what_would_give_it_some,
    an_ingress_that_refuses_says_which_rules_there_are,
    a_certificate_is_for_names_and_believed_in_the_lab,
    what_the_other_does_not_speak_is_told_as_it_was_foreseen,
    a_machine_asks_itself_without_a_dns_server,
    a_fault_of_an_object_is_told_with_its_line,
    a_lab_that_came_from_no_file_names_none,
    a_packet_goes_as_far_as_its_time_to_live,
    what_a_host_asks_itself_by_its_loopback_address_is_seen,
    a_program_that_answers_what_is_not_http_is_named,
    a_datagram_that_is_traced_is_like_no_other,
    the_ending_of_a_file_chooses_the_form_and_a_strange_one_is_refused,
    why_the_kernel_drops_packets_is_missed_only_where_one_was_dropped,
];

const LAB: &str = "hosts: { node1: {}, node2: {} }
clients: { laptop: {} }
pods:
  a: { host: node1 }
  own: { host: node1, dnsConfig: { searches: [shop.example.com], options: [{ name: ndots, value: '1' }] } }
deployments:
  web: { replicas: 2, labels: { app: web }, ports: [8080] }
dns:
  records: { till.shop.example.com: 192.0.2.1 }
services:
  web: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
  bare: { ports: [{ port: 80 }] }
  typo:
    selector: { app: web }
    ports: [{ port: 80, targetPort: 8081 }]
  door: { type: NodePort, selector: { app: web }, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] }
ingresses:
  front:
    tls: [{ hosts: [front.example.com], secretName: front-secret }]
    rules:
      - host: front.example.com
        http:
          paths:
            - { path: /web, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }
            - { path: /status, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }
secrets: { front-secret: { generate: true } }
";

fn asked(bench: &Bench, words: &[&str]) -> Value {
    bench.run(&[&["trace", "-o", "json", "--timeout", "1"], words].concat()).json()
}

/// The fault's cause, its place and the verdict.
#[track_caller]
fn is(trace: &Value, cause: &str, place: &str, says: &str) {
    let fault = &trace["verdict"]["fault"];
    let found = [&fault["cause"], &fault["place"]].map(|v| v.as_str().unwrap_or_default());
    assert_eq!(found, [cause, place], "{:#}", trace["verdict"]);
    let verdict = trace["verdict"]["says"].as_str().unwrap_or_default();
    assert!(verdict.contains(says), "{says:?} is not in {verdict:?}");
}

#[track_caller]
fn is_mended(trace: &Value, how: &str) {
    let remedy = &trace["verdict"]["fault"]["remedy"];
    let mut all = remedy.as_array().into_iter().flatten().flat_map(|r| [&r["says"], &r["command"]]);
    assert!(all.any(|text| text.as_str().is_some_and(|text| text.contains(how))), "{how:?} is not in {remedy:#}");
}

/// `x.yaml:12` for the line of a file that contains `what`, as somebody beside it names it.
fn line(file: &str, what: &str) -> String {
    let text = std::fs::read_to_string(file).expect("the file");
    let number = text.lines().position(|line| line.contains(what)).expect("the line") + 1;
    format!("{}:{number}", name(file))
}

fn name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn refused(ran: Ran, says: &str) {
    ran.ends_with(2).says(says);
}

fn place(trace: &Value) -> &str {
    trace["verdict"]["fault"]["place"].as_str().unwrap_or_default()
}

fn a_name_that_nothing_has_is_asked_for_as_the_askers_resolver_does(bench: &Bench) {
    let file = bench.write(LAB);
    bench.up(&file);
    for to in ["wbe", "http://wbe/x", "wbe:80"] {
        let trace = asked(bench, &["a", to]);
        let server = place(&trace);
        assert!(server.starts_with("pod/kube-system/coredns-"), "{to}: {:#}", trace["verdict"]);
        let all = "NXDOMAIN for wbe.default.svc.cluster.local, wbe.svc.cluster.local, wbe.cluster.local and wbe";
        is(&trace, "no-such-name", server, all);
        is_mended(&trace, "did you mean `web`?");
        // Each was asked for, and answered.
        let lookups = trace["flows"].as_array().expect("flows").iter().filter(|f| f["role"] == "name-lookup").count();
        assert_eq!(lookups, 4, "{to}");
    }
    let elsewhere = asked(bench, &["a", "kube-dns", "--port=53"]);
    is_mended(&elsewhere, "ask for `kube-dns.kube-system`");
    // A look-up alone is completed as well, by what the pod's own resolver has.
    let dns = |from, name| asked(bench, &[from, name, "--dns"]);
    assert_eq!(dns("own", "till")["asked"]["answered"], true);
    assert_eq!(dns("a", "till")["asked"]["answered"], false);
    assert_eq!(dns("a", "front.example.com")["asked"]["answered"], true);
    let first = asked(bench, &["own", "x.y"]);
    is(&first, "no-such-name", place(&first), "NXDOMAIN for x.y, x.y.default.svc.cluster.local, ");
    bench.ok(&["delete", "service", "bare"]);
    let gone = asked(bench, &["a", "bare:80"]);
    is_mended(
        &gone,
        &format!("was deleted from the running lab; its text still has it, at {}", line(&file, "  bare: {")),
    );
    // What cannot be a name is refused, as is an asker that is not there.
    refused(bench.run(&["trace", "a", "no such"]), "nothing in the lab is called `no such`");
    refused(bench.run(&["trace", "b", "wbe"]), "nothing in the lab is called `b`");
}

fn hosts_and_clients_know_the_names_of_their_own_file_alone(bench: &Bench) {
    bench.up(&bench.write(LAB));
    for from in ["laptop", "node1"] {
        let path = if from == "laptop" { "client/laptop" } else { "host/node1" };
        let trace = asked(bench, &[from, "frnt.example.com"]);
        is(&trace, "no-such-name", path, &format!("it is not in the /etc/hosts of {from}, which knows no DNS server"));
        is_mended(&trace, "did you mean `front.example.com`?");
        // What is known in the lab, and not here, is not offered again.
        let trace = asked(bench, &["node1", "front.example.com"]);
        is_mended(&trace, "`labctl exec node1 -- cat /etc/hosts` shows the names that node1 knows");
        assert_eq!(trace["flows"].as_array().map(Vec::len), Some(0), "somebody was asked: {trace:#}");
        refused(bench.run(&["trace", from, "laptob"]), "did you mean `laptop`?");
    }
    assert_eq!(asked(bench, &["laptop", "front.example.com:80"])["asked"]["answered"], true);
}

fn a_port_that_a_service_lacks_is_named_with_those_that_it_has(bench: &Bench) {
    let file = bench.write(LAB);
    bench.up(&file);
    for from in ["a", "node1"] {
        let trace = asked(bench, &[from, "web:81"]);
        is(&trace, "no-service-port", "host/node1", "service default/web has no port 81/tcp, only 80/tcp");
        is_mended(&trace, &format!("{}: ask for a port that it has, such as 80", line(&file, "  web: { selector")));
        let ping = asked(bench, &[from, "web", "--icmp"]);
        is(
            &ping,
            "no-service-port",
            "host/node1",
            "service default/web answers no ping, as its address has rules for ports alone",
        );
    }
    // The router leads a client's packets for it nowhere, whatever their port.
    is(&asked(bench, &["laptop", "web:81"]), "no-route", "router", "router has no route to ");
}

fn a_service_without_endpoints_says_what_would_give_it_some(bench: &Bench) {
    let file = bench.write(LAB);
    bench.up(&file);
    is_mended(&asked(bench, &["a", "kubernetes"]), "a lab has no API server");
    let bare = asked(bench, &["a", "bare"]);
    is(&bare, "no-endpoints", "host/node1", "service default/bare has no selector");
    is_mended(&bare, "`kubernetes.io/service-name: bare`");
    bench.ok(&["scale", "deployment", "web", "--replicas", "0"]);
    let none = asked(bench, &["a", "web"]);
    is(&none, "no-endpoints", "host/node1", "deployment default/web, which it selects, has 0 replicas");
    is_mended(&none, "labctl scale deployment web --replicas 2");
}

fn an_ingress_that_refuses_says_which_rules_there_are(bench: &Bench) {
    let file = bench.write(LAB);
    bench.up(&file);
    let controller = "pod/ingress/ingress-controller-1";
    let path = asked(bench, &["laptop", "https://front.example.com/milk"]);
    is(
        &path,
        "proxy-refused",
        controller,
        "no rule for front.example.com takes the path /milk, only /status (Prefix), /web (Prefix)",
    );
    is_mended(&path, &format!("{}: give the ingress a rule for it", line(&file, "      - host: front")));
    is_mended(&path, "`labctl logs -n ingress ingress-controller-1`");
    let host = asked(bench, &["laptop", "http://pub.example.com/", "--connect-to", "ingress"]);
    is(
        &host,
        "proxy-refused",
        controller,
        "no ingress has a rule for the host pub.example.com, only for front.example.com",
    );
    // What a pod says behind it is the pod's.
    let behind = asked(bench, &["laptop", "https://front.example.com/status/418"]);
    is(&behind, "other", place(&behind), " answers so");
    assert!(place(&behind).starts_with("pod/default/web-"), "{behind:#}");
    bench.ok(&["scale", "deployment", "web", "--replicas", "0"]);
    let nobody = asked(bench, &["laptop", "https://front.example.com/web"]);
    is(&nobody, "proxy-refused", controller, "deployment default/web has 0 replicas");
}

fn a_certificate_is_for_names_and_believed_in_the_lab(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let public = bench.json(&["get", "service", "ingress-controller", "-n", "ingress"]);
    let ip = public.pointer("/status/loadBalancer/ingress/0/ip").and_then(Value::as_str).expect("an address");
    is_mended(&asked(bench, &["laptop", &format!("https://{ip}/")]), &format!("{ip} is an address: ask for a name"));
    // Every machine of the lab believes its authority.
    for from in ["a", "laptop"] {
        assert_eq!(asked(bench, &[from, "https://front.example.com/web"])["asked"]["answered"], true, "{from}");
    }
    let twice = bench.run(&["trace", "laptop", "https://front.example.com/", "--port", "444"]);
    refused(twice, "says itself which port it means");
}

fn a_fault_of_an_object_is_told_with_its_line(bench: &Bench) {
    let file = bench.write(LAB);
    bench.up(&file);
    let wrong = asked(bench, &["a", "typo"]);
    assert_eq!(wrong["verdict"]["fault"]["cause"], "wrong-target-port", "{:#}", wrong["verdict"]);
    let at = line(&file, "targetPort: 8081");
    is_mended(&wrong, &format!("{at}: spec.ports[0].targetPort: did you mean `targetPort: 8080`?; then `labctl up "));
    // An object that was applied stands in its own file. To go back to the lab's own helps where that is right.
    let path = bench.path("applied.yaml");
    let up = format!("labctl up --no-probes {}", name(&file));
    for (service, is_right_there) in [("typo", false), ("web", true)] {
        let applied = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {service} }}\nspec:\n  selector: {{ app: wbe }}\n  \
             ports: [{{ port: 80 }}]\n"
        );
        std::fs::write(&path, applied).expect("a manifest");
        bench.ok(&["apply", "-f", &path.to_string_lossy()]);
        let wrong = asked(bench, &["a", service]);
        is_mended(&wrong, "applied.yaml:5: spec.selector: did you mean app=web?");
        is_mended(&wrong, "; then `labctl apply -f applied.yaml`");
        let remedy = &wrong["verdict"]["fault"]["remedy"];
        let commands = remedy.as_array().into_iter().flatten().filter_map(|r| r["command"].as_str());
        assert_eq!(commands.filter(|c| *c == up).count(), usize::from(is_right_there), "{remedy:#}");
    }
}

fn a_lab_that_came_from_no_file_names_none(bench: &Bench) {
    let file = bench.write(LAB);
    let mut up = bench.labctl(&["up", "--no-probes", "-"]);
    up.stdin(std::fs::File::open(&file).expect("the lab"));
    Ran::from_output(&up.output().expect("labctl"), "up").ends_with(0);
    bench.sh("node1", "sysctl -qw net.ipv4.ip_forward=0");
    let trace = asked(bench, &["a", "laptop"]);
    is(&trace, "forwarding-off", "host/node1", "ip_forward is 0");
    is_mended(&trace, "give the lab's text to `labctl up --no-probes -` again");
    let remedy = trace["verdict"]["fault"]["remedy"].to_string();
    assert!(!remedy.contains("<stdin>") && remedy.contains("sysctl -w net.ipv4.ip_forward=1"), "{remedy}");
    // Where the lab had to be named, it is named in what is to be typed, too.
    let lab = name(&file).trim_end_matches(".yaml");
    is_mended(&asked(bench, &["a", "laptop", "--lab", lab]), &format!("labctl exec -l {lab} node1 -- sysctl -w "));
}

fn a_packet_goes_as_far_as_its_time_to_live(bench: &Bench) {
    bench.up(&bench.write(LAB));
    for kind in ["--icmp", "--udp", "--tcp"] {
        let trace = |ttl: &str| asked(bench, &["a", "web-1", kind, "--port=8080", "--ttl", ttl]);
        let short = trace("1");
        is(&short, "ttl-exceeded", "host/node1", "its time to live has run out");
        is_mended(&short, "leave `--ttl` out");
        let header = &short["flows"][0]["packets"][0]["steps"][0]["header"];
        assert_eq!(header["ttl"], 1, "{kind}: {header}");
        // Two hosts and no more take one from it each, and a service of TCP alone answers that.
        if kind != "--udp" {
            assert_eq!(trace("3")["asked"]["answered"], true, "{kind}");
        }
    }
    refused(bench.run(&["trace", "a", "http://web/", "--ttl", "3"]), "a time to live is for a ping");
    bench.run(&["trace", "a", "web-1", "--ttl", "0"]).ends_with(2);
}

fn the_ending_of_a_file_chooses_the_form_and_a_strange_one_is_refused(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let written = |name: &str| {
        bench.ok(&["trace", "a", "web-1", "--icmp", "--out", name]);
        std::fs::read(bench.path(name)).expect("the file")
    };
    assert!(serde_json::from_slice::<Value>(&written("t.json")).is_ok());
    assert_eq!(written("t.pcapng")[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert!(written("t.mmd").starts_with(b"sequenceDiagram"));
    assert!(written("t.html").starts_with(b"<!doctype html>"));
    for text in ["t.txt", "t"] {
        assert!(written(text).starts_with(b"a pings web-1"), "{text}");
    }
    let strange = bench.run(&["trace", "a", "web-1", "--out", "t.png"]);
    refused(strange, "no form of a trace is kept in a file that ends in `.png`");
    assert!(!bench.path("t.png").exists());
    bench.ok(&["trace", "a", "web-1", "-o", "text", "--out", "t.log"]);
}

fn why_the_kernel_drops_packets_is_missed_only_where_one_was_dropped(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let told = |words: &[&str]| asked(bench, words)["notes"].to_string().contains("root alone");
    assert!(!told(&["a", "web-1", "--icmp"]));
    assert!(!told(&["laptop", "nobody.example.com"]));
    assert_eq!(told(&["a", "web-1", "--icmp", "--ttl", "1"]), !bench.is_root());
    // Of a question that nobody was asked there is nothing to know, either.
    let text = bench.run(&["trace", "laptop", "nobody.example.com"]).ends_with(1).stdout;
    assert!(text.contains("0 flows, 0 packets\n") && !text.contains("known by"), "{text}");
}

fn what_a_host_asks_itself_by_its_loopback_address_is_seen(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let trace = asked(bench, &["a", "127.0.0.1:8080"]);
    let steps = &trace["flows"][0]["packets"][0]["steps"];
    let seen = |step: &&Value| step["knownBy"].as_array().is_some_and(|means| means.contains(&"tap".into()));
    let seen: Vec<&str> =
        steps.as_array().into_iter().flatten().filter(seen).filter_map(|s| s["dev"].as_str()).collect();
    assert_eq!(seen, ["lo", "lo"], "{steps:#}");
    // A NodePort is had at this address, too.
    let trace = asked(bench, &["node1", "127.0.0.1:30080"]);
    let steps = &trace["flows"][0]["packets"][0]["steps"];
    let met = |step: &&Value| step["what"]["chain"] == "KUBE-NODEPORTS";
    let met = steps.as_array().into_iter().flatten().find(met);
    assert!(met.is_some_and(|s| s["knownBy"][0] == "rules"), "{steps:#}");
}

fn what_the_other_does_not_speak_is_told_as_it_was_foreseen(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let tried = [
        ("a", "https://web:80/", "web-", "speaks plain HTTP, and TLS came on port 8080", "ask http://web/"),
        (
            "laptop",
            "https://front.example.com:80/",
            "ingress/",
            "speaks plain HTTP, and TLS came on port 80",
            "ask http://front.example.com/",
        ),
        (
            "laptop",
            "http://front.example.com:443/web",
            "ingress/",
            "speaks TLS, and plain HTTP came on port 443",
            "ask https://front.example.com/web",
        ),
    ];
    for (from, url, place, says, remedy) in tried {
        let [seen, foreseen] = [asked(bench, &[from, url]), asked(bench, &[from, url, "--predict"])];
        for trace in [&seen, &foreseen] {
            let verdict = trace["verdict"]["says"].as_str().unwrap_or_default();
            assert!(verdict.starts_with(place) && verdict.ends_with(says), "{verdict}");
            assert_eq!(trace["verdict"]["fault"]["remedy"][0]["says"], remedy, "{:#}", trace["verdict"]);
        }
        assert_eq!(seen["asked"]["seen"], foreseen["asked"]["seen"]);
    }
}

fn a_machine_asks_itself_without_a_dns_server(bench: &Bench) {
    bench.up(&bench.write(LAB));
    for words in [&["web-1", "http://localhost:8080/"][..], &["web-1", "http://localhost:8080/", "--predict"]] {
        let trace = asked(bench, words);
        assert_eq!(trace["asked"]["answered"], true, "{:#}", trace["asked"]);
        assert_eq!(trace["asked"]["tried"], "127.0.0.1:8080");
        let roles: Vec<_> = trace["flows"].as_array().expect("flows").iter().map(|flow| &flow["role"]).collect();
        assert_eq!(roles, ["request"]);
    }
    // And what is asked of another machine by this name is its own affair.
    assert_eq!(asked(bench, &["laptop", "localhost:1"])["asked"]["tried"], "127.0.0.1:1");
}

fn a_program_that_answers_what_is_not_http_is_named(bench: &Bench) {
    bench.up(&bench.write(
        "hosts: { node1: {} }
pods:
  a: { host: node1 }
  greeter:
    host: node1
    ports: [9000]
    command:
      - python3
      - -uc
      - |
        import socket
        listening = socket.create_server((\"\", 9000))
        while True:
            talk, _ = listening.accept()
            with talk:
                talk.recv(1000)
                talk.sendall(b\"hello\\n\")
    readinessProbe: { tcpSocket: { port: 9000 }, periodSeconds: 1 }
",
    ));
    let trace = asked(bench, &["a", "http://greeter:9000/"]);
    is(&trace, "other", "pod/default/greeter", "is it HTTP that it speaks?");
}

fn a_datagram_that_is_traced_is_like_no_other(bench: &Bench) {
    bench.up(&bench.write(LAB));
    let sent = |name: &str| {
        let path = bench.path(name);
        bench.ok(&["trace", "own", "a:8080", "--udp", "--out", &path.to_string_lossy()]);
        let bytes = std::fs::read(&path).expect("a capture");
        let said = b" is a trace of labctl's";
        let at = bytes.windows(said.len()).position(|w| w == said).expect("what was sent");
        bytes[at - 16..at].to_vec()
    };
    assert_ne!(sent("one.pcapng"), sent("other.pcapng"));
}
