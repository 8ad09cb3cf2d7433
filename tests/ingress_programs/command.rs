//! A program that the user brings: a small one in Python stands for it, which reads its file whenever
//! that is replaced, as Envoy and Traefik do, and answers with what the file says.

use labctl::plan::ingress::PathPattern;
use labctl::workload::ingress::{Config, Driver};

use crate::Test;
use crate::client::{Server, get};
use crate::ground::{Controller, Ground, Rules, self_signed, until};

pub const TESTS: &[Test] = &[
    ("a_program_serves_from_its_file", a_program_serves_from_its_file),
    ("a_template_that_cannot_be_read_is_told", a_template_that_cannot_be_read_is_told),
    ("a_program_that_is_nowhere_is_told", a_program_that_is_nowhere_is_told),
];

const PROGRAM: &str = r#"
import http.server, json, os, ssl, sys
config, routing, directory = sys.argv[1:4]
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        # As the file is replaced as a whole, what is read is whole.
        told = json.load(open(config))
        everything = json.load(open(routing))
        told["keys"] = sorted(everything)
        told["mode"] = oct(os.stat(routing).st_mode & 0o777)
        told["pid"] = os.getpid()
        told["directory"] = directory
        for host in told["hosts"].values():
            if host:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(host)
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", 80), Answer).serve_forever()
"#;

/// As an Envoy or Traefik file would be, in JSON, which is YAML, too.
const TEMPLATE: &str = r#"{
  "paths": { {{#hosts}}{{#paths}}{{path}}: {{backend}},{{/paths}}{{/hosts}} "": "" },
  "hosts": { {{#hosts}}{{host}}: {{certificate}},{{/hosts}} "": "" },
  "pods": { {{#backends}}{{name}}: [ {{#endpoints}}{{address}},{{/endpoints}} "" ],{{/backends}} "": [] }
}"#;

fn config(ground: &Ground, command: &[&str], template: &str) -> Config {
    let command = command.iter().map(|w| (*w).to_owned()).collect();
    Config { driver: Driver::Command { command, template: template.to_owned() }, ..ground.config() }
}

fn told() -> serde_json::Value {
    let answer = get("h.com", "/");
    serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"))
}

fn a_program_serves_from_its_file(ground: &Ground) {
    let program = ground.path("program.py");
    std::fs::write(&program, PROGRAM).unwrap();
    let program = program.display().to_string();
    let config = config(ground, &["python3", &program, "{config}.json", "{routing}", "{directory}"], TEMPLATE);
    let mut controller = Controller::start(&config);
    let servers = [Server::start("one", 11), Server::start("two", 12)];
    let rules = Rules::new()
        .path("h.com", PathPattern::Exact("/it's \"quoted\"".to_owned()), "there", |_| {})
        .tls("h.com", &self_signed("h.com"));
    controller.endpoints(&[("default-there-80", &[servers[0].address])]);
    controller.routing(&rules.0);
    controller.hears("ready");
    let first = told();
    assert_eq!(first["paths"]["/it's \"quoted\""], "default-there-80", "{first}");
    assert_eq!(first["pods"]["default-there-80"][0], servers[0].address.to_string());
    assert_eq!(first["keys"], serde_json::json!(["endpoints", "routing"]));
    assert_eq!(
        (&first["mode"], &first["directory"]),
        (&"0o600".into(), &config.directory.display().to_string().into())
    );
    controller.endpoints(&[("default-there-80", &[servers[1].address])]);
    until("it reads of the new endpoint", || told()["pods"]["default-there-80"][0] == servers[1].address.to_string());
    controller.routing(&rules.prefix("h.com", "/new", "there").0);
    until("it reads of the new path", || told()["paths"]["/new"] == "default-there-80");
    assert_eq!(told()["pid"], first["pid"], "the program goes on");
}

fn a_template_that_cannot_be_read_is_told(ground: &Ground) {
    let mut controller = Controller::start(&config(ground, &["python3"], "a\n{{hots}}"));
    assert!(!controller.ended());
    controller.logs("line 2: there is no `hots`");
}

fn a_program_that_is_nowhere_is_told(ground: &Ground) {
    let mut controller = Controller::start(&config(ground, &["no-such-program"], ""));
    assert!(!controller.ended());
    controller.logs("no-such-program was found nowhere");
}
