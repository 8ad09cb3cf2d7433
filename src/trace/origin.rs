//! The text from which a lab came, for remedies: where in it something is written, and how it is given to
//! labctl again.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::diag::{Place, Problems};
use crate::lab::{self, Lab, Pod};
use crate::objects::ObjectKey;
use crate::spec::at::At;
use crate::spec::edit::{Edit, ObjectKind};
use crate::spec::load::{Loaded, Manifest, Text, decode_text};
use crate::spec::types::DeploymentSpec;

use super::model::Remedy;

/// A lab's text, as somebody in a folder sees it.
#[derive(Debug, Default)]
pub struct Origin {
    text: Text,
    /// Where the caller is.
    base: Option<PathBuf>,
    /// The text as it was read, with all that was done to the lab since and without. Each is read once, when it is
    /// first asked for: several remedies may ask.
    edited: OnceLock<Loaded>,
    written: OnceLock<Loaded>,
}

/// What was done to a running lab has no file: neither standard input nor an object that `break` applied.
fn is_file(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('<')
}

impl Origin {
    pub fn new(text: Text, base: Option<PathBuf>) -> Origin {
        Origin { text, base, ..Origin::default() }
    }

    /// Whether the lab was changed beside its text since, by `apply`, `delete` or `scale`.
    pub fn is_edited(&self) -> bool {
        !self.text.edits.is_empty()
    }

    /// A file as the caller would name it, for a shell.
    fn named(&self, file: &str) -> String {
        let below = self.base.as_deref().and_then(|base| Path::new(file).strip_prefix(base).ok());
        quoted(&below.map_or_else(|| file.to_owned(), |path| path.display().to_string()))
    }

    /// The words behind `labctl up` that give the whole text again; nothing where it is in no file.
    fn words(&self) -> Option<String> {
        let beside = || self.text.manifests.iter().filter(|m| m.asked.is_none());
        let is_bare = self.text.name.starts_with("<lab of a manifest");
        let lab = (!is_bare).then_some(&self.text.name);
        if !lab.into_iter().chain(beside().map(|m| &m.name)).all(|name| is_file(name)) {
            return None;
        }
        let lab = lab.map(|name| self.named(name));
        let more = beside().map(|Manifest { name, .. }| format!("-f {}", self.named(name)));
        Some(lab.into_iter().chain(more).collect::<Vec<_>>().join(" "))
    }

    /// How a lab is made again what its file says.
    pub fn up(&self) -> Remedy {
        match self.words() {
            Some(words) => Remedy {
                says: "let labctl make the whole lab what its file says".to_owned(),
                command: Some(format!("labctl up --no-probes {words}")),
            },
            None => Remedy {
                says:
                    "give the lab's text to `labctl up --no-probes -` again, which makes the whole lab what it says; \
                       it came from no file"
                        .to_owned(),
                command: None,
            },
        }
    }

    /// What follows a change of a file in which something is written.
    fn then(&self, file: &str) -> String {
        let is_applied = self.text.edits.iter().any(|edit| matches!(edit, Edit::Apply(given) if given.name == file));
        match self.words() {
            _ if is_applied => format!("labctl apply -f {}", self.named(file)),
            Some(words) => format!("labctl up {words}"),
            None => "labctl up -".to_owned(),
        }
    }

    /// A place as the caller would name it.
    pub fn at(&self, (file, line): &(String, usize)) -> String {
        format!("{}:{line}", self.named(file))
    }

    /// `labs/x.yaml:12: WHAT, and then `labctl up labs/x.yaml``; the words alone where what is to be
    /// changed is in no file.
    pub fn change(&self, place: Option<(String, usize)>, what: &str) -> Remedy {
        let says = match place {
            Some(place) if is_file(&place.0) => format!("{}: {what}; then `{}`", self.at(&place), self.then(&place.0)),
            _ => what.to_owned(),
        };
        Remedy { says, command: None }
    }

    /// The text with all that was done to the lab since.
    fn edited(&self) -> &Loaded {
        self.edited.get_or_init(|| decode_text(&self.text))
    }

    /// The text by itself.
    fn written(&self) -> &Loaded {
        self.written.get_or_init(|| decode_text(&Text { edits: Vec::new(), ..self.text.clone() }))
    }

    /// The lab that the text by itself would make of `lab`.
    pub fn written_lab(&self, lab: &Lab) -> Option<Lab> {
        lab::resolve(self.written(), Some(lab), &mut Problems::default())
    }

    /// The file and line of a service's field.
    pub fn service(&self, key: &ObjectKey, path: &str) -> Option<(String, usize)> {
        let loaded = self.edited();
        let written = loaded.file.objects.services.iter().find(|w| ObjectKey::of(&w.object.metadata) == *key)?;
        line(loaded, written.place(path))
    }

    /// The file and line of an ingress' rules.
    pub fn rules_of_ingress(&self, key: &ObjectKey) -> Option<(String, usize)> {
        let loaded = self.edited();
        let written = loaded.file.objects.ingresses.iter().find(|w| ObjectKey::of(&w.object.metadata) == *key)?;
        line(loaded, written.place("spec.rules"))
    }

    /// The file and line of the readiness probe of a pod, or of the deployment whose pods have it.
    pub fn readiness(&self, pod: &Pod) -> Option<(String, usize)> {
        let loaded = self.edited();
        let (namespace, file) = (pod.id.namespace.as_str(), &loaded.file);
        let is_in =
            |written: &Option<At<String>>| written.as_ref().map_or("default", |n| n.value.as_str()) == namespace;
        let probe = match &pod.owner {
            Some(owner) => {
                let mut all = file.deployments.iter().filter(|(name, d)| name.value == *owner && is_in(&d.namespace));
                all.next()?.1.readiness_probe.as_ref()
            }
            None => {
                let is_it = |name: &At<String>| name.value == pod.id.name.as_str();
                let mut all = file.pods.iter().filter(|(name, p)| is_it(name) && is_in(&p.namespace));
                all.next()?.1.readiness_probe.as_ref()
            }
        };
        line(loaded, probe?.place)
    }

    /// The file and line of a service that the text has and that was deleted from the running lab since.
    pub fn deleted_service(&self, key: &ObjectKey) -> Option<(String, usize)> {
        let is_it =
            |edit: &Edit| matches!(edit, Edit::Delete(gone) if gone.kind == ObjectKind::Service && gone.key == *key);
        self.text.edits.iter().find(|edit| is_it(edit))?;
        let written = self.written();
        let service = written.file.objects.services.iter().find(|w| ObjectKey::of(&w.object.metadata) == *key)?;
        line(written, service.name_place())
    }

    /// How many pods a deployment has by the text itself, without what was done to the lab since.
    pub fn replicas(&self, key: &ObjectKey) -> Option<u32> {
        let written = self.written();
        let namespace = |d: &DeploymentSpec| d.namespace.as_ref().map_or("default".to_owned(), |n| n.value.clone());
        let mut all =
            written.file.deployments.iter().filter(|(name, d)| name.value == key.name && namespace(d) == key.namespace);
        Some(all.next()?.1.replicas.as_ref().map_or(1, |r| r.value))
    }
}

/// The file of a place, and its line from 1.
fn line(loaded: &Loaded, place: Place) -> Option<(String, usize)> {
    let source = loaded.sources.get(place.source)?;
    let before = source.text.get(..place.start as usize)?;
    Some((source.name.clone(), before.matches('\n').count() + 1))
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = "hosts: { node1: {} }\nservices:\n  web:\n    selector: { app: a }\n    ports: [{ port: 80 }]\n\
                       deployments:\n  web:\n    replicas: 3\n    labels: { app: web }\n";

    fn of(name: &str, manifests: Vec<Manifest>) -> Origin {
        let text =
            Text { name: name.into(), text: LAB.into(), default_name: "lab".into(), manifests, ..Text::default() };
        Origin::new(text, Some("/home/me".into()))
    }

    fn beside(name: &str) -> Manifest {
        Manifest { asked: None, name: name.into(), text: Ok(String::new()), namespace: None }
    }

    fn up(origin: &Origin) -> Option<String> {
        origin.up().command
    }

    #[test]
    fn the_whole_text_is_given_to_up_again() {
        let command = |words: &str| Some(format!("labctl up --no-probes {words}"));
        assert_eq!(up(&of("/home/me/labs/x.yaml", Vec::new())), command("labs/x.yaml"));
        assert_eq!(up(&of("/srv/x.yaml", vec![beside("/home/me/more.yaml")])), command("/srv/x.yaml -f more.yaml"));
        assert_eq!(up(&of("/home/me/my lab's.yaml", Vec::new())), command(r"'my lab'\''s.yaml'"));
        assert_eq!(up(&of("<lab of a manifest>", vec![beside("/home/me/more.yaml")])), command("-f more.yaml"));
    }

    #[test]
    fn a_lab_that_came_from_no_file_is_mended_in_words() {
        let remedy = of("<stdin>", Vec::new()).up();
        assert!(remedy.command.is_none() && remedy.says.contains("labctl up --no-probes -"), "{remedy:?}");
        assert_eq!(up(&of("/home/me/x.yaml", vec![beside("<stdin>")])), None);
    }

    #[test]
    fn a_field_is_found_at_its_line() {
        let origin = of("/home/me/labs/x.yaml", Vec::new());
        let place = origin.service(&ObjectKey::new("default", "web"), "spec.selector");
        let remedy = origin.change(place, "did you mean app=web?");
        assert_eq!(remedy.says, "labs/x.yaml:4: did you mean app=web?; then `labctl up labs/x.yaml`");
        assert_eq!(origin.replicas(&ObjectKey::new("default", "web")), Some(3));
    }
}
