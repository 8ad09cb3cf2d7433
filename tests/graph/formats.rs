//! Each format, as its own tools read it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use labctl::graph::{dot, mermaid, svg};

use super::harness::tests::Need;
use super::{Drawn, ROOT, labs, tea};

crate::tests![&[];
    a_lab_as_mermaid,
    a_lab_as_dot,
    mermaid_closes_what_it_opens_and_links_what_it_names,
    the_same_lab_gives_the_same_picture,
    a_description_that_means_harm_stays_a_text,
];
crate::tests![&[Need::Program("dot")]; graphviz_draws_every_box];
crate::tests![&[Need::Program("python3")]; svg_is_xml_that_a_parser_takes];

fn quickstart() -> Drawn {
    Drawn::of_file(&std::path::Path::new(ROOT).join("labs/quickstart.yaml"))
}

fn a_lab_as_mermaid() {
    insta::assert_snapshot!("mermaid", mermaid::write(&quickstart().graph(false)));
}

fn a_lab_as_dot() {
    insta::assert_snapshot!("dot", dot::write(&quickstart().graph(false)));
}

fn mermaid_closes_what_it_opens_and_links_what_it_names() {
    let name = regex::Regex::new(r#"^([ns]\d+)(\[|\(\[)"[^"<>]*(<br/>[^"<>]*)*"(\]|\]\))$"#).expect("a pattern");
    let link = regex::Regex::new(r"^(n\d+) (?:---|-\.-) (n\d+)$").expect("a pattern");
    for lab in labs() {
        let text = mermaid::write(&lab.graph(false));
        let (mut depth, mut names, mut linked) = (0, BTreeSet::new(), BTreeSet::new());
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("flowchart TB"));
        for line in lines.map(str::trim_start) {
            let opened = line.strip_prefix("subgraph ");
            if line == "end" {
                depth -= 1;
            } else if let Some(found) = name.captures(opened.unwrap_or(line)) {
                depth += i32::from(opened.is_some());
                assert!(names.insert(found[1].to_owned()), "{}: {} is there twice", lab.name, &found[1]);
            } else if let Some(found) = link.captures(line) {
                linked.extend([found[1].to_owned(), found[2].to_owned()]);
            } else {
                panic!("{}: what is this line? {line}\n{text}", lab.name);
            }
            assert!(depth >= 0, "{}: more is closed than opened\n{text}", lab.name);
        }
        assert_eq!(depth, 0, "{}\n{text}", lab.name);
        assert!(linked.is_subset(&names), "{}: {:?}", lab.name, linked.difference(&names));
        // Each box is plugged in somewhere; boxes around boxes have an s in front.
        let alone: Vec<&String> = names.difference(&linked).filter(|n| n.starts_with('n')).collect();
        let most = lab.lab.networks.len();
        assert!(alone.len() <= most, "{}: {alone:?} have no link\n{text}", lab.name);
    }
}

/// What a program prints that reads `input`; it must succeed.
#[track_caller]
fn through(program: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("its output");
    writing.join().expect("a thread").expect("a reader");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{program} {args:?}: {} {said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn graphviz_draws_every_box() {
    for lab in labs() {
        let graph = lab.graph(false);
        let drawn = through("dot", &["-Tplain"], &dot::write(&graph));
        let nodes = drawn.lines().filter(|l| l.starts_with("node ")).count();
        let mesh = usize::from(graph.tunnel.as_ref().is_some_and(|t| t.is_mesh));
        assert_eq!(nodes, graph.devices().count() + mesh, "{}\n{drawn}", lab.name);
    }
}

/// Reads a list of SVG pictures as JSON from its standard input; prints the ids of the boxes of each.
const PARSE: &str = "
import sys, json, xml.etree.ElementTree as tree
def ids(svg):
    root = tree.fromstring(svg)
    assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
    return [node.get('data-id') for node in root.iter() if node.get('data-id')]
json.dump([ids(svg) for svg in json.load(sys.stdin)], sys.stdout)
";

fn svg_is_xml_that_a_parser_takes() {
    let labs = labs();
    let pictures: Vec<String> = labs.iter().map(|lab| svg::write(&lab.graph(false))).collect();
    let input = serde_json::to_string(&pictures).expect("JSON");
    let read: Vec<Vec<String>> = serde_json::from_str(&through("python3", &["-c", PARSE], &input)).expect("JSON");
    for (lab, ids) in labs.iter().zip(read) {
        let boxes: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        assert_eq!(boxes.len(), ids.len(), "{}: an id is there twice", lab.name);
        for device in lab.graph(false).devices() {
            assert!(boxes.contains(device.id.as_str()), "{}: {} is missing", lab.name, device.id);
        }
    }
}

fn the_same_lab_gives_the_same_picture() {
    let (a, b) = (quickstart(), quickstart());
    assert_eq!(svg::write(&a.graph(false)), svg::write(&b.graph(false)));
}

fn a_description_that_means_harm_stays_a_text() {
    let text = "description: '</title><script>alert(1)</script>'\nnetworks: { n: { cidr: 10.0.0.0/24 } }\nhosts: { a: { network: n } }\n";
    let lab = Drawn::of_text("harm", text);
    let (_, trace) = tea();
    let loads = regex::Regex::new(r#"<[a-z]+[^>]*\s(?:src|href)=|url\(|@import"#).expect("a pattern");
    for trace in [None, Some(&trace)] {
        let page = labctl::graph::html(&lab.lab, &lab.plan, trace);
        assert_eq!(page.matches("<script").count(), 2, "the page's own alone");
        assert_eq!(page.matches("</script").count(), 2);
        assert!(page.contains("&lt;/title&gt;&lt;script&gt;alert(1)"), "{page}");
        assert_eq!(loads.find(&page).map(|m| m.as_str()), None, "the page asks nobody for anything");
    }
}
