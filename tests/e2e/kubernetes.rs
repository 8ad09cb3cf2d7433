//! The page kubernetes.md, which says what mirrors Kubernetes' own end-to-end tests, against the
//! tests that there are and the names that Kubernetes has.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::beside_the_project;
use crate::harness::tests::{Need, Test};
use crate::tests;

tests![&[]; every_test_that_the_page_names_is_there, every_line_names_a_test_or_a_reason];
tests![&[Need::Folder("shared/conformance/kubernetes")]; every_name_of_kubernetes_is_on_the_page];

const PAGE: &str = include_str!("kubernetes.md");

/// The lines of the tables: Kubernetes' name, and what is said of it.
fn lines() -> Vec<(&'static str, &'static str)> {
    let rows = PAGE.lines().filter_map(|l| l.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | "));
    rows.filter(|(name, _)| *name != "Kubernetes").collect()
}

/// The words between backticks that name a test.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| word.contains("::"))
}

fn every_test_that_the_page_names_is_there() {
    let path = |test: &Test| format!("{}::{}", test.module, test.name);
    let there: BTreeSet<String> = inventory::iter::<Test>.into_iter().map(path).collect();
    // Behind a test's own name stands who runs it.
    let is_there = |name: &str| {
        let begin = format!("e2e::{name}");
        there.iter().any(|t| *t == begin || t.starts_with(&format!("{begin}::")))
    };
    let missing: Vec<&str> = lines().into_iter().flat_map(|(_, said)| named(said)).filter(|n| !is_there(n)).collect();
    assert!(missing.is_empty(), "kubernetes.md names tests that are not there: {missing:#?}");
    assert!(lines().iter().filter(|(_, said)| said.starts_with('`')).count() > 50, "the page is read");
}

fn every_line_names_a_test_or_a_reason() {
    let empty: Vec<&str> =
        lines().into_iter().filter(|(_, said)| said.trim().is_empty()).map(|(name, _)| name).collect();
    assert!(empty.is_empty(), "nothing is said of {empty:#?}");
}

/// A name without its tags, such as [Conformance].
fn bare(name: &str) -> String {
    let mut bare = String::new();
    let mut rest = name;
    while let Some((before, tag)) = rest.split_once('[') {
        bare.push_str(before);
        rest = tag.split_once(']').map_or("", |(_, rest)| rest);
    }
    bare.push_str(rest);
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn every_name_of_kubernetes_is_on_the_page() {
    let folder = beside_the_project("shared/conformance/kubernetes").expect("the runner has looked");
    let read = |file: &str| fs::read_to_string(folder.join(file)).expect("a file of the folder");
    let mut section = String::new();
    let mut wanted = Vec::new();
    for line in read("e2e_network_test_names.txt").lines().filter(|l| !l.trim().is_empty()) {
        match line.strip_prefix("## ") {
            Some(file) => section = file.to_owned(),
            // The page says of that whole section why it is left out.
            None if section.starts_with("netpol/") => {}
            None => wanted.push(bare(line)),
        }
    }
    let items: serde_json::Value = serde_json::from_str(&read("sig-network_conformance.json")).expect("JSON");
    let items = items.as_array().expect("a list");
    wanted.extend(items.iter().map(|item| bare(item["codename"].as_str().expect("a name"))));
    assert!(wanted.len() > 150, "the lists are read");
    let names: Vec<&str> = lines().into_iter().map(|(name, _)| name).collect();
    let missing: Vec<&String> = wanted.iter().filter(|w| !names.iter().any(|n| w.ends_with(n))).collect();
    assert!(missing.is_empty(), "kubernetes.md says nothing of {missing:#?}");
}
