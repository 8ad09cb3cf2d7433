//! The words between the command line and a lab's daemon: JSON over HTTP on the control socket,
//! and JSON lines on a pipe while the lab begins.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::diag::Problem;
use crate::spec::edit::Edit;
use crate::spec::load::Text;

/// What a new daemon reads from its standard input, as one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    pub text: Text,
    /// The directory of running labs, for the socket and lock.
    pub runtime_dir: PathBuf,
    /// Whether the lab ends when its standard input does; otherwise only until it is ready.
    pub lifeline: bool,
}

/// What happens while a lab is built or changed, one JSON line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// What is being done now.
    Progress(String),
    /// It is done; the lab is as wanted.
    Done(Summary),
    /// It was not done. Places point into the text that was sent.
    Failed(Vec<Problem>),
    /// The lab's daemon is there already; ask it on its socket.
    Running,
}

/// What a build or change did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many steps it took.
    pub steps: usize,
    /// The steps in words, for a live change.
    pub changes: Vec<String>,
    /// What a live change did to services, a line each.
    #[serde(default)]
    pub services: Vec<String>,
    /// What a live change did to ingresses, secrets and the controller's settings, a line each.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Edits that the lab had beside its file and has no more.
    #[serde(default)]
    pub forgotten: Vec<String>,
    /// Warnings that are worth a look.
    pub warnings: Vec<Problem>,
}

/// A question about a changed file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    pub text: Text,
}

/// Changes to the objects of a running lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EditRequest {
    pub edits: Vec<Edit>,
    /// How long pods that go have to end, in seconds; each pod's own time where this is left out.
    pub grace: Option<u32>,
}

/// The steps that a file would cause, or problems.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steps {
    Steps {
        steps: Vec<StepText>,
        /// What they do to services, a line each.
        services: Vec<String>,
        /// What becomes of ingresses, secrets and the controller, a line each.
        objects: Vec<String>,
    },
    Failed(Vec<Problem>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepText {
    /// The namespace's short name.
    pub namespace: String,
    pub step: String,
}

/// How to become a process of a machine: its namespaces, by descriptors of the daemon's, which
/// are there as long as the connection that they were asked on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Door {
    pub hostname: String,
    pub netns: i32,
    pub pids: i32,
    pub mounts: i32,
    pub uts: i32,
}

/// A lab as `list` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabStatus {
    pub name: String,
    pub description: Option<String>,
    pub backend: String,
    /// Seconds since it was built.
    pub age: u64,
    /// Without `internet`, which every lab has.
    pub networks: usize,
    pub hosts: usize,
    /// Without `internet`, which every lab has.
    pub clients: usize,
    pub pods: usize,
    pub pods_ready: usize,
    /// What is not as it should be, in words; empty where all is well.
    pub trouble: Vec<String>,
    /// Faults that the lab was given on purpose, with where they are; those of a quiz are not told.
    #[serde(default)]
    pub broken: Vec<String>,
    /// What works and is likely not as it was meant, in words.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The text that the lab was made from.
    pub file: String,
    /// Memory of the daemon in KiB (VmRSS).
    pub memory_kib: u64,
}

/// A controller's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerConfig {
    pub text: String,
    /// Why the controller does not serve what the lab wants of it, where that is so.
    pub refused: Option<String>,
}

/// A refusal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    pub problem: Problem,
}
