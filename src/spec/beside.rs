//! What `-f` means: each of its files is a lab, or manifests that stand beside the lab.
//!
//! A manifest is known by its `apiVersion` and `kind`, which a lab file does not have.

use std::path::Path;

use super::load::{Input, Manifest, Text, bare_lab, is_manifest, lab_yaml, read, read_manifest, read_text};
use crate::diag::{Problem, codes, shown};

/// The lab that `lab` and the words behind `-f` make together. At most one of them may be a lab;
/// where none is, a lab of two hosts and a client stands for it, called as the first manifest is.
pub fn read_with(lab: Option<&str>, beside: &[String]) -> Result<Text, Box<Problem>> {
    let mut found = lab.map(|word| read(&Input::parse(word))).transpose()?;
    let mut manifests = Vec::new();
    let mut default_name = None;
    for word in beside {
        let input = Input::parse(word);
        match what(&input)? {
            What::Manifests(more) => {
                default_name.get_or_insert_with(|| name_of(&input));
                manifests.extend(more);
            }
            What::Lab(text) => match &found {
                Some(first) => return Err(two_labs(&first.name, &text.name)),
                None => found = Some(*text),
            },
        }
    }
    let mut text = found.unwrap_or_else(|| bare_lab(default_name.unwrap_or_default(), Vec::new()));
    text.manifests.extend(manifests);
    Ok(text)
}

/// Whether any of the words behind `-f` stands for manifests. Standard input is not read for that.
pub fn any_manifest(words: &[String]) -> bool {
    let inputs = words.iter().map(|w| Input::parse(w)).filter(|i| *i != Input::Stdin);
    inputs.map(|input| what(&input)).any(|found| matches!(found, Ok(What::Manifests(_))))
}

/// Manifests alone, as `apply` and `delete` take them.
pub fn read_manifests(words: &[String]) -> Result<Vec<Manifest>, Box<Problem>> {
    let mut all = Vec::new();
    for word in words {
        all.extend(read_manifest(&Input::parse(word))?);
    }
    Ok(all)
}

/// What one word behind `-f` stands for.
enum What {
    Lab(Box<Text>),
    Manifests(Vec<Manifest>),
}

fn what(input: &Input) -> Result<What, Box<Problem>> {
    if let Input::Path(path) = input
        && path.is_dir()
        && lab_yaml(path).is_none()
    {
        let all = read_manifest(input)?;
        let any = all.iter().any(|m| m.text.as_deref().is_ok_and(is_manifest));
        // A directory with labs only is told, or taken, as it is without -f.
        return if any { Ok(What::Manifests(all)) } else { read(input).map(|text| What::Lab(Box::new(text))) };
    }
    if *input != Input::Stdin {
        let text = read_text(input)?;
        if !is_manifest(&text.text) {
            return read(input).map(|text| What::Lab(Box::new(text)));
        }
        let manifest = Manifest { asked: None, name: text.name, text: Ok(text.text), namespace: None };
        return Ok(What::Manifests(vec![manifest]));
    }
    // Standard input can be read only once; a manifest there comes back as a bare lab with it.
    let mut text = read(input)?;
    let given = text.manifests.iter().any(|m| m.asked.is_none());
    Ok(if given { What::Manifests(std::mem::take(&mut text.manifests)) } else { What::Lab(Box::new(text)) })
}

fn name_of(input: &Input) -> String {
    let Input::Path(path) = input else { return "lab".to_owned() };
    let path = path.canonicalize().unwrap_or_else(|_| path.clone());
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

fn two_labs(first: &str, second: &str) -> Box<Problem> {
    let (first, second) = (shown(Path::new(first)), shown(Path::new(second)));
    Box::new(
        Problem::error(codes::FILE_UNREADABLE, format!("{first} and {second} are two labs"))
            .help("name one lab; what stands beside it with -f are Kubernetes manifests"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: x }\nspec: { ports: [{ port: 80 }] }\n";
    const LAB: &str = "hosts: { node1: {} }\n";

    fn words(dir: &tempfile::TempDir, names: &[&str]) -> Vec<String> {
        names.iter().map(|n| dir.path().join(n).display().to_string()).collect()
    }

    fn files(all: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in all {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        dir
    }

    #[test]
    fn manifests_stand_beside_a_lab_or_in_a_bare_one() {
        let dir = files(&[("lab1.yaml", LAB), ("svc.yaml", SERVICE), ("more/a.yaml", SERVICE), ("more/b.json", "{}")]);
        let lab = words(&dir, &["lab1.yaml"]);
        let both = read_with(Some(&lab[0]), &words(&dir, &["svc.yaml", "more"])).expect("a lab");
        assert_eq!((both.text.as_str(), both.manifests.len()), (LAB, 3));
        let same = read_with(None, &words(&dir, &["svc.yaml", "lab1.yaml"])).expect("a lab");
        assert_eq!((same.text.as_str(), same.manifests.len(), same.default_name.as_str()), (LAB, 1, "lab1"));
        let bare = read_with(None, &words(&dir, &["more", "svc.yaml"])).expect("a lab");
        assert_eq!((bare.name.as_str(), bare.manifests.len()), ("<lab of a manifest>", 3));
        assert_eq!(bare.default_name, "more");
    }

    #[test]
    fn two_labs_are_one_too_many() {
        let dir = files(&[("one.yaml", LAB), ("two.yaml", LAB), ("there/lab.yaml", LAB), ("there/svc.yaml", SERVICE)]);
        let all = words(&dir, &["one.yaml", "two.yaml", "there"]);
        assert!(read_with(None, &all[..2]).is_err_and(|p| p.message.contains("are two labs")));
        let there = read_with(None, &all[2..]).expect("the directory's lab.yaml");
        assert_eq!((there.text.as_str(), there.default_name.as_str()), (LAB, "there"));
    }
}
