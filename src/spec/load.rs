//! Finding and reading the texts of a lab: a file, a directory, or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::de::decode;
use super::edit::{self, Edit};
use super::manifest::{self, Objects};
use super::node::Node;
use super::types::LabFile;
use super::yaml::{self, LARGEST_FILE};
use crate::diag::{Place, Problem, Problems, Sources, codes, shown};

/// The most files that one pattern may mean.
const MOST_MANIFESTS: usize = 1_000;

/// What a lab is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Stdin,
    Path(PathBuf),
}

impl Input {
    /// `-` is standard input, everything else a path.
    pub fn parse(word: &str) -> Input {
        if word == "-" { Input::Stdin } else { Input::Path(PathBuf::from(word)) }
    }
}

/// A text that was read, ready to be decoded here or in the lab's own process.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Text {
    /// What to call it in messages.
    pub name: String,
    pub text: String,
    /// The lab's name where the text gives none.
    pub default_name: String,
    /// The files that its `manifests` name, and those given beside it.
    #[serde(default)]
    pub manifests: Vec<Manifest>,
    /// The file that `cluster.ingress.controller.template` names.
    #[serde(default)]
    pub template: Option<Manifest>,
    /// What was done to the running lab since, by `apply`, `delete` and `scale`.
    #[serde(default)]
    pub edits: Vec<Edit>,
}

/// A text with Kubernetes manifests, or another one that a lab file names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// The words of `manifests` that led to it; nothing where it was given beside the lab file.
    pub asked: Option<String>,
    /// What to call it in messages.
    pub name: String,
    /// The text, or why it cannot be read.
    pub text: Result<String, Problem>,
    /// The namespace of objects that name none; `default` where this is left out. Those that do must
    /// name this one.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// A lab file that was read and decoded as far as it could be.
#[derive(Debug, Default)]
pub struct Loaded {
    pub file: LabFile,
    pub sources: Sources,
    pub problems: Problems,
    /// The lab's name where the file gives none.
    pub default_name: String,
    /// Whether objects were changed beside the file, by `apply`, `delete` or `scale`.
    pub edited: bool,
    /// What is left of the text's edits without those that did nothing.
    pub edits: Vec<Edit>,
}

/// Read `input` and decode it. Problems are in the result, with what could be read beside them.
pub fn load(input: &Input) -> Loaded {
    match read(input) {
        Ok(text) => decode_text(&text),
        Err(problem) => {
            let mut loaded = Loaded::default();
            loaded.problems.push(*problem);
            loaded
        }
    }
}

/// Decode a text that was read before.
pub fn decode_text(text: &Text) -> Loaded {
    let edited = !text.edits.is_empty();
    let mut loaded = Loaded { default_name: text.default_name.clone(), edited, ..Loaded::default() };
    let source = loaded.sources.add(&text.name, text.text.as_str());
    let mut documents = yaml::read(&text.text, source, &mut loaded.problems);
    if documents.len() > 1 {
        loaded.problems.push(
            Problem::error(codes::YAML_DOCUMENTS, "a lab file is one document, this one has several")
                .at(first_bytes(documents[1].place), "the second begins here")
                .help("put each lab into a file of its own"),
        );
    }
    if documents.is_empty() {
        if !loaded.problems.has_errors() {
            loaded.problems.push(
                Problem::error(codes::FILE_EMPTY, format!("{} holds no lab", text.name))
                    .help("the smallest lab is: `hosts: { node1: {} }`"),
            );
        }
        return loaded;
    }
    let document = documents.swap_remove(0);
    let mut objects = Objects::of_sections(&document, &mut loaded.problems);
    let (mut file, damage) = decode::<LabFile>(document, &mut loaded.problems);
    read_manifests(&text.manifests, &file, &mut objects, &mut loaded);
    file.pods.0.append(&mut objects.pods);
    file.deployments.0.append(&mut objects.deployments);
    let template = text.template.as_ref().map(|template| template.text.clone());
    loaded.file = LabFile { damage, objects, template, ..file };
    loaded.edits = edit::make_all(&text.edits, &mut loaded);
    loaded
}

fn read_manifests(texts: &[Manifest], file: &LabFile, objects: &mut Objects, loaded: &mut Loaded) {
    for manifest in texts {
        match &manifest.text {
            Ok(text) => {
                let source = loaded.sources.add(&manifest.name, text.as_str());
                manifest::read(text, source, objects, &mut loaded.problems);
            }
            Err(problem) => {
                let asked = file.manifests.iter().find(|a| Some(&a.value) == manifest.asked.as_ref());
                let place = asked.map(|a| a.place);
                let problem = problem.clone();
                loaded.problems.push(match place {
                    Some(place) => problem.at(place, "named here"),
                    None => problem,
                });
            }
        }
    }
}

fn first_bytes(place: Place) -> Place {
    Place { end: place.end.min(place.start + 20), ..place }
}

/// The lab that manifests without one stand for.
const BARE_LAB: &str = "hosts: { node1: {}, node2: {} }\nclients: { laptop: {} }\n";

/// Read the text of `input` and of the manifests that it names. See [`read_text`]. A file that is
/// itself a manifest stands for a lab of two hosts and a client with that manifest.
pub fn read(input: &Input) -> Result<Text, Box<Problem>> {
    let mut text = read_text(input)?;
    if is_manifest(&text.text) {
        let manifest = Manifest { asked: None, name: text.name, text: Ok(text.text), namespace: None };
        return Ok(bare_lab(text.default_name, vec![manifest]));
    }
    let folder = match input {
        Input::Stdin => PathBuf::new(),
        Input::Path(_) => Path::new(&text.name).parent().map(Path::to_owned).unwrap_or_default(),
    };
    for pattern in named_manifests(&text.text) {
        text.manifests.extend(manifests(&folder, &pattern));
    }
    text.template = named_template(&text.text).map(|name| template(&folder, &name));
    Ok(text)
}

/// The word of a text's `cluster.ingress.controller.template`.
fn named_template(text: &str) -> Option<String> {
    if !text.contains("template") {
        return None;
    }
    let documents = yaml::read(text, 0, &mut Problems::default());
    let path = ["cluster", "ingress", "controller", "template"];
    let node = path.iter().try_fold(documents.first()?, |node, key| node.get(key))?;
    node.text().map(str::to_owned)
}

fn template(folder: &Path, name: &str) -> Manifest {
    let asked = Some(name.to_owned());
    match one_manifest(None, &Input::Path(folder.join(name))) {
        Ok(template) => Manifest { asked, ..template },
        Err(problem) => Manifest { asked, name: name.to_owned(), text: Err(*problem), namespace: None },
    }
}

/// The lab of hosts alone that manifests without one are put into.
pub(super) fn bare_lab(default_name: String, manifests: Vec<Manifest>) -> Text {
    Text {
        name: "<lab of a manifest>".to_owned(),
        text: BARE_LAB.to_owned(),
        default_name,
        manifests,
        ..Text::default()
    }
}

/// A file with manifests that was given beside a lab file; a directory stands for all of its
/// YAML and JSON files.
pub fn read_manifest(input: &Input) -> Result<Vec<Manifest>, Box<Problem>> {
    match input {
        Input::Path(path) if path.is_dir() => {
            let entries = std::fs::read_dir(path).map_err(|e| unreadable(&shown(path), &e))?;
            let mut found: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
            found.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"));
            found.sort();
            found.into_iter().map(|p| one_manifest(None, &Input::Path(p))).collect()
        }
        input => one_manifest(None, input).map(|m| vec![m]),
    }
}

fn one_manifest(asked: Option<&str>, input: &Input) -> Result<Manifest, Box<Problem>> {
    let text = read_text(input)?;
    Ok(Manifest { asked: asked.map(str::to_owned), name: text.name, text: Ok(text.text), namespace: None })
}

/// Whether a text holds Kubernetes objects: those have `apiVersion` and `kind`, and a lab has neither.
pub(super) fn is_manifest(text: &str) -> bool {
    if !text.contains("apiVersion") || !text.contains("kind") {
        return false;
    }
    let is_object = |node: &Node| node.get("apiVersion").is_some() && node.get("kind").is_some();
    yaml::read(text, 0, &mut Problems::default()).iter().any(is_object)
}

/// The words of a text's `manifests`. What is wrong with the text is told when it is decoded.
fn named_manifests(text: &str) -> Vec<String> {
    if !text.contains("manifests") {
        return Vec::new();
    }
    let documents = yaml::read(text, 0, &mut Problems::default());
    let list = documents.first().and_then(|d| d.get("manifests")).map(|m| m.items()).unwrap_or_default();
    list.iter().filter_map(|n| n.text().map(str::to_owned)).collect()
}

/// The files that `pattern` means, in the order of their names.
fn manifests(folder: &Path, pattern: &str) -> Vec<Manifest> {
    let refused = |problem: Problem| {
        let (asked, name) = (Some(pattern.to_owned()), pattern.to_owned());
        vec![Manifest { asked, name, text: Err(problem), namespace: None }]
    };
    // Asked of the pattern alone, so that the place that is told is a place in what was written.
    if let Err(e) = glob::Pattern::new(pattern) {
        let problem = Problem::error(codes::FILE_UNREADABLE, format!("`{pattern}` is no pattern for files: {e}"));
        return refused(problem.help("write a path, in which `*` stands for any letters of a name"));
    }
    // Letters of the folder's own name stand for themselves.
    let whole = Path::new(&glob::Pattern::escape(&folder.to_string_lossy())).join(pattern);
    // What is a pattern is one behind a folder, too.
    let paths = glob::glob(&whole.to_string_lossy()).into_iter().flatten();
    let found: Vec<PathBuf> = paths.filter_map(Result::ok).filter(|p| p.is_file()).take(MOST_MANIFESTS).collect();
    if found.is_empty() {
        let problem =
            Problem::error(codes::FILE_UNREADABLE, format!("there is no file `{}`", shown(&folder.join(pattern))));
        return refused(problem.help("paths are relative to the lab file"));
    }
    let read = |path: PathBuf| match one_manifest(Some(pattern), &Input::Path(path)) {
        Ok(manifest) => vec![manifest],
        Err(problem) => refused(*problem),
    };
    found.into_iter().flat_map(read).collect()
}

/// Read the text of `input`, bounded by [`LARGEST_FILE`]. A directory stands for its `lab.yaml`,
/// or for its only YAML file.
pub fn read_text(input: &Input) -> Result<Text, Box<Problem>> {
    match input {
        Input::Stdin => {
            let bytes = bounded(&mut std::io::stdin().lock(), "<stdin>")?;
            text("<stdin>", bytes, "lab")
        }
        Input::Path(path) => {
            let path = in_directory(path)?;
            let name = shown(&path);
            let mut file = std::fs::File::open(&path).map_err(|e| unreadable(&name, &e))?;
            let bytes = bounded(&mut file, &name)?;
            let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let parent = path.canonicalize().ok();
            let parent = parent.as_deref().and_then(Path::parent).and_then(Path::file_name);
            let default_name = match (stem.as_str(), parent) {
                ("lab", Some(parent)) => parent.to_string_lossy().into_owned(),
                _ => stem,
            };
            text(&name, bytes, &default_name)
        }
    }
}

/// What a directory holds: one lab, or several that each have a file.
enum Directory {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

/// A directory with a `lab.yaml` is that lab, whatever else lies there. Otherwise each YAML file in
/// it is a lab of its own, as is each directory in it that has a `lab.yaml`.
fn directory(path: &Path) -> Result<Directory, Box<Problem>> {
    let name = shown(path);
    let entries = std::fs::read_dir(path).map_err(|e| unreadable(&name, &e))?;
    let entries: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
    let is_yaml = |p: &Path| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && !p.is_dir();
    if let Some(lab) = lab_yaml(path) {
        return Ok(Directory::One(lab));
    }
    let mut found: Vec<PathBuf> = entries.iter().filter(|p| is_yaml(p)).cloned().collect();
    found.extend(entries.iter().filter_map(|p| lab_yaml(p)));
    found.sort();
    match found.as_slice() {
        [only] => Ok(Directory::One(only.clone())),
        [] => Err(Box::new(
            Problem::error(codes::FILE_UNREADABLE, format!("the directory {name} holds no lab"))
                .help("name a YAML file, or put a lab.yaml there"),
        )),
        _ => Ok(Directory::Several(found)),
    }
}

pub(super) fn lab_yaml(directory: &Path) -> Option<PathBuf> {
    ["lab.yaml", "lab.yml"].map(|name| directory.join(name)).into_iter().find(|file| file.is_file())
}

/// The labs that `word` names: itself, or each that the directory holds.
pub fn labs(word: &str) -> Result<Vec<String>, Box<Problem>> {
    match Input::parse(word) {
        Input::Path(path) if path.is_dir() => Ok(match directory(&path)? {
            Directory::One(lab) => vec![shown(&lab)],
            Directory::Several(labs) => labs.iter().map(|l| shown(l)).collect(),
        }),
        _ => Ok(vec![word.to_owned()]),
    }
}

/// The one lab that `path` stands for.
fn in_directory(path: &Path) -> Result<PathBuf, Box<Problem>> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    match directory(path)? {
        Directory::One(lab) => Ok(lab),
        Directory::Several(several) => {
            let names: Vec<_> = several.iter().take(8).map(|p| shown(p)).collect();
            let message = format!("the directory {} holds several labs", shown(path));
            let help = format!("name one: {}; `labctl test` and `labctl validate` take all of them", names.join(", "));
            Err(Box::new(Problem::error(codes::FILE_UNREADABLE, message).help(help)))
        }
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Box<Problem> {
    Box::new(
        Problem::error(codes::FILE_UNREADABLE, format!("{name} cannot be read: {error}"))
            .help("check the path and its permissions; `-` reads standard input"),
    )
}

fn bounded(from: &mut dyn Read, name: &str) -> Result<Vec<u8>, Box<Problem>> {
    let mut bytes = Vec::new();
    let limit = LARGEST_FILE as u64 + 1;
    from.take(limit).read_to_end(&mut bytes).map_err(|e| unreadable(name, &e))?;
    if bytes.len() > LARGEST_FILE {
        return Err(Box::new(
            Problem::error(codes::FILE_TOO_LARGE, format!("{name} is larger than {} MiB", LARGEST_FILE >> 20))
                .help("is it a lab file? A thousand pods need less than one MiB"),
        ));
    }
    Ok(bytes)
}

fn text(name: &str, bytes: Vec<u8>, default_name: &str) -> Result<Text, Box<Problem>> {
    // Of the control characters YAML knows tab and line ends only; others mean a program or archive.
    let control = bytes.iter().position(|b| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r'));
    match String::from_utf8(bytes) {
        Ok(text) => match control {
            Some(at) => Err(not_text(name, text.as_bytes(), at, "a control character")),
            None => {
                let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
                let (name, default_name) = (name.to_owned(), default_name.to_owned());
                Ok(Text { name, text, default_name, ..Text::default() })
            }
        },
        Err(e) => Err(not_text(name, e.as_bytes(), e.utf8_error().valid_up_to(), "not UTF-8")),
    }
}

fn not_text(name: &str, bytes: &[u8], at: usize, what: &str) -> Box<Problem> {
    let line = bytes[..at].iter().filter(|b| **b == b'\n').count() + 1;
    Box::new(
        Problem::error(codes::FILE_NOT_TEXT, format!("{name} is not text: byte {}, on line {line}, is {what}", at + 1))
            .help("save it as UTF-8, or check that it is the file you meant"),
    )
}
