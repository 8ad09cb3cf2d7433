//! The path and host tables of Kubernetes' documentation (networking.k8s.io/v1), asked of what is
//! made of ingresses that say the same. Every case is a test with the case's words.
//!
//! The tables are beside the project; where they are not, one test is reported as ignored that says so.

#[path = "harness/mod.rs"]
mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;

use labctl::plan::ingress::{Objects, Router, normalise, routing};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

fn main() {
    let arguments = Arguments::from_args();
    let Some(folder) = harness::beside_the_project("shared/conformance/ingress") else {
        let missing = Trial::test("tables", || Ok(()))
            .with_kind("../shared/conformance/ingress is not there")
            .with_ignored_flag(true);
        libtest_mimic::run(&arguments, vec![missing]).exit();
    };
    let text = std::fs::read_to_string(folder.join("path_cases.json")).unwrap();
    let tables: Value = serde_json::from_str(&text).unwrap();
    let mut trials: Vec<Trial> = tables["docPathTable"].as_array().unwrap().iter().map(path_trial).collect();
    trials.extend(tables["docHostTable"].as_array().unwrap().iter().map(host_trial));
    libtest_mimic::run(&arguments, trials).exit();
}

/// The router of an ingress with these paths (each with its type) for this host.
fn router(host: Option<&str>, paths: &[(String, String)]) -> Router {
    let path = |(path, kind): &(String, String)| {
        json!({ "path": path, "pathType": kind,
                "backend": { "service": { "name": "web", "port": { "number": 80 } } } })
    };
    let rule = json!({ "host": host, "http": { "paths": paths.iter().map(path).collect::<Vec<_>>() } });
    let ingress = json!({ "metadata": { "name": "i", "namespace": "default" }, "spec": { "rules": [rule] } });
    let ingress = serde_json::from_value(ingress).unwrap();
    let objects = Objects {
        ingresses: &[ingress],
        certificates: &BTreeMap::new(),
        config: &BTreeMap::new(),
        default_backend: None,
        default_certificate: None,
    };
    let (router, bad) = Router::new(Arc::new(routing(&objects)));
    assert_eq!(bad, []);
    router
}

fn path_trial(case: &Value) -> Trial {
    let case = case.clone();
    let name = format!("{} {} {}", case["kind"], case["paths"], case["request"]).replace('"', "");
    Trial::test(name, move || path_case(&case))
}

fn path_case(case: &Value) -> Result<(), Failed> {
    let kind = case["kind"].as_str().unwrap();
    let written: Vec<&str> = case["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    // Where kinds are mixed, each path has its own behind it.
    let typed = |path: &&str| match path.split_once(" (") {
        Some((path, kind)) => (path.to_owned(), kind.trim_end_matches(')').to_owned()),
        None => ((*path).to_owned(), kind.to_owned()),
    };
    let paths: Vec<_> = written.iter().map(typed).collect();
    let router = router(None, &paths);
    let requests: &[&str] = match case["request"].as_str().unwrap() {
        "(all paths)" => &["/", "/foo", "/foo/bar", "/a//b/../c"],
        one => &[one],
    };
    for request in requests {
        let choice = router.choose("any.example", normalise(request.as_bytes())?);
        let winner = choice.location.map(|location| {
            let index = location.source.field.split("paths[").nth(1).and_then(|rest| rest.split(']').next());
            written[index.unwrap().parse::<usize>().unwrap()]
        });
        let expected = case["winner"].as_str().filter(|_| case["matches"] == true);
        if winner != expected {
            return Err(format!("{request} belongs to {winner:?}, not to {expected:?}").into());
        }
    }
    Ok(())
}

fn host_trial(case: &Value) -> Trial {
    let case = case.clone();
    Trial::test(format!("host {} {}", case["rule"], case["hostHeader"]).replace('"', ""), move || {
        let router = router(case["rule"].as_str(), &[("/".to_owned(), "Prefix".to_owned())]);
        let taken = router.choose(case["hostHeader"].as_str().unwrap(), "/").location.is_some();
        match case["matches"] == taken {
            true => Ok(()),
            false => Err(format!("it is taken: {taken}").into()),
        }
    })
}
