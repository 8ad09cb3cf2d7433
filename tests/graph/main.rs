//! `labctl graph`: what is drawn, where it stands, each format, and the page in a real browser.

#[path = "../harness/mod.rs"]
mod harness;

mod browser;
mod drawn;
mod formats;
mod page;
mod placed;
mod running;

use std::path::{Path, PathBuf};

use labctl::graph::model::{Graph, Options};
use labctl::lab::{self, Lab};
use labctl::plan::{Plan, plan};
use labctl::spec::load::{Input, Text, decode_text, read};
use labctl::trace::model::Trace;

fn main() {
    harness::tests::main();
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn resolve(text: &Text) -> Lab {
    let mut loaded = decode_text(text);
    let mut problems = std::mem::take(&mut loaded.problems);
    let lab = lab::resolve(&loaded, None, &mut problems);
    lab.unwrap_or_else(|| panic!("{problems:#?}"))
}

/// A lab with its plan.
struct Drawn {
    name: String,
    lab: Lab,
    plan: Plan,
}

impl Drawn {
    fn of_file(path: &Path) -> Drawn {
        let text = read(&Input::Path(path.to_owned())).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        Drawn::of(&path.display().to_string(), &text)
    }

    fn of_text(name: &str, text: &str) -> Drawn {
        let text =
            Text { name: name.to_owned(), text: text.to_owned(), default_name: name.to_owned(), ..Text::default() };
        Drawn::of(name, &text)
    }

    fn of(name: &str, text: &Text) -> Drawn {
        let lab = resolve(text);
        let plan = plan(&lab);
        Drawn { name: name.to_owned(), lab, plan }
    }

    fn graph(&self, all: bool) -> Graph {
        Graph::of(&self.lab, &self.plan, &Options { all, ..Options::default() })
    }
}

/// The lab that the trace beside this file is of, and the trace.
fn tea() -> (Drawn, Trace) {
    let here = Path::new(ROOT).join("tests/graph");
    let trace = std::fs::read_to_string(here.join("trace.json")).expect("a trace");
    (Drawn::of_file(&here.join("tea.yaml")), serde_json::from_str(&trace).expect("a trace"))
}

/// The lab files of the project.
fn lab_files() -> Vec<PathBuf> {
    let labs = std::fs::read_dir(Path::new(ROOT).join("labs")).expect("the labs").map(|e| e.expect("an entry").path());
    let file = |path: PathBuf| if path.is_dir() { path.join("lab.yaml") } else { path };
    let mut files: Vec<PathBuf> = labs.map(file).filter(|path| path.is_file()).collect();
    files.sort();
    assert!(files.len() > 15, "{files:?}");
    files
}

/// Ten hosts with two hundred pods of three deployments.
fn crowd(flannel: &str) -> Drawn {
    let hosts: String = (1..=10).map(|n| format!("  node{n}: {{ network: rack{} }}\n", 1 + n % 2)).collect();
    let clients: String = (1..=9).map(|n| format!("  pc{n}: {{ network: rack2 }}\n")).collect();
    let text = format!(
        "cluster: {{ flannel: {{ backend: {flannel} }} }}
networks: {{ rack1: {{ cidr: 192.168.1.0/24 }}, rack2: {{ cidr: 192.168.2.0/24 }} }}
hosts:
{hosts}clients:
{clients}deployments:
  tea: {{ replicas: 80, labels: {{ app: tea }} }}
  coffee: {{ replicas: 60, labels: {{ app: coffee }} }}
  a-name-as-long-as-names-of-deployments-may-be: {{ replicas: 60, labels: {{ app: bread }} }}
"
    );
    Drawn::of_text(&format!("crowd-{flannel}"), &text)
}

/// Every lab of the project, and some that are larger or stranger.
fn labs() -> Vec<Drawn> {
    let mut labs: Vec<Drawn> = lab_files().iter().map(|path| Drawn::of_file(path)).collect();
    labs.extend(["vxlan", "udp", "vxlan, directRouting: true"].map(crowd));
    labs.push(Drawn::of_text("empty", "hosts: { a-host-with-a-name-that-is-longer-than-others: { network: n } }\nnetworks: { n: { cidr: 10.0.0.0/24 } }\n"));
    labs
}
