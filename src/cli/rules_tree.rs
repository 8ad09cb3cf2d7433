//! `get rules`: a host's rules of kube-proxy as a tree that a person can follow.

use std::process::ExitCode;

use serde_json::json;

use crate::diag::{Problem, codes};
use crate::objects::ObjectKey;
use crate::plan::proxy::explain::{Branch, Tree};
use crate::spec::edit::ObjectKind;

use super::args::GetArgs;
use super::output::{self, count};
use super::{Done, find_lab, kube};

/// The width that a tree is folded to where the terminal has more: longer lines are hard to follow.
const WIDEST: usize = 100;
/// And the least that is left for words, however deep the tree is.
const NARROWEST: usize = 30;

pub fn run(args: &GetArgs) -> Done {
    let Some(host) = &args.name else {
        let problem = Problem::error(codes::TARGET_UNKNOWN, "rules are those of a host");
        return Err(Box::new(problem.help("name it: `labctl get rules HOST [SERVICE]`")).into());
    };
    let client = find_lab(args.lab.as_deref())?;
    let mut path = format!("/labctl/v1/inspect/rules?target={host}");
    if let Some(word) = &args.service {
        let (namespace, name) = word.split_once('/').unwrap_or((&args.scope.namespace, word));
        let key = ObjectKey::new(namespace, name);
        kube::one(&client, ObjectKind::Service, &key)?;
        path.push_str(&format!("&service={key}"));
    }
    let trees: Vec<Tree> = client.get(&path)?;
    output::print(args.format.output, &json!(trees), |wide| {
        if trees.is_empty() {
            let what = args.service.as_ref().map_or("of kube-proxy".to_owned(), |s| format!("for {s}"));
            return format!("host {host} has no rules {what}\n");
        }
        trees.iter().map(|tree| text(tree, wide)).collect::<Vec<_>>().join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

fn text(tree: &Tree, wide: bool) -> String {
    let mut out = format!("{} {}: {}\n", tree.table, tree.chain, tree.meaning);
    branches(&tree.rules, "", wide, &mut out);
    out
}

fn branches(all: &[Branch], indent: &str, wide: bool, out: &mut String) {
    for (n, branch) in all.iter().enumerate() {
        let last = n + 1 == all.len();
        let (first, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let below = if branch.below.is_empty() { "   " } else { "│  " };
        let packets = count(usize::try_from(branch.packets).unwrap_or(usize::MAX), "packet");
        let target = branch.target.as_ref().map(|t| format!(" → {t}")).unwrap_or_default();
        let words = format!("{}{target} ({packets})", branch.meaning);
        let start = indent.chars().count() + 3;
        let room = output::width().min(WIDEST).saturating_sub(start).max(NARROWEST);
        for (line, words) in fold(&words, room).iter().enumerate() {
            let mark = if line == 0 { first.to_owned() } else { format!("{rest}{below}") };
            out.push_str(&format!("{indent}{mark}{words}\n"));
        }
        if wide {
            out.push_str(&format!("{indent}{rest}{below}{}\n", branch.rule));
        }
        branches(&branch.below, &format!("{indent}{rest}"), wide, out);
    }
}

/// Words in lines of at most `room` letters; those behind the first stand three letters further in.
fn fold(words: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let room = if lines.len() == 1 { room } else { room.saturating_sub(3) };
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_fits_into_eighty_columns() {
        let leaf = |meaning: &str| Branch {
            packets: 12,
            bytes: 720,
            meaning: meaning.to_owned(),
            target: Some("KUBE-SEP-ABCDEFGHIJKLMNOP".to_owned()),
            rule: String::new(),
            below: Vec::new(),
        };
        let long =
            "endpoint 1 of 3: kube-system/a-long-name-of-a-pod-1 10.244.100.200:30080, chosen with probability 1/3";
        let mut branch = leaf(long);
        for _ in 0..4 {
            branch = Branch { below: vec![leaf(long), branch], ..leaf(long) };
        }
        let tree = Tree {
            table: "nat".to_owned(),
            chain: "KUBE-SERVICES".to_owned(),
            meaning: "all".to_owned(),
            rules: vec![branch],
        };
        let drawn = text(&tree, false);
        let widest = drawn.lines().map(|l| l.chars().count()).max();
        assert!(widest.is_some_and(|w| w <= output::width().min(WIDEST)), "{drawn}");
        assert_eq!(fold("a bc def", 4), ["a bc", "def"]);
    }
}
