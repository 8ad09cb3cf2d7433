//! What can be typed of verbs that show and change a lab's objects, as kubectl's users type it.

use std::ffi::OsStr;
use std::str::FromStr;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::{Args, ValueEnum};

use super::OutputArgs;
use crate::cli::selector::Selector;

/// Where an object is looked for.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// Kubernetes' namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Kubernetes manifests, `-` for standard input; a directory stands for its files
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<String>,
    /// The namespace of objects that name none; those that do must name this one
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// A kind with names behind it, or KIND/NAME
    #[arg(value_name = "KIND NAME", required_unless_present = "filename")]
    pub what: Vec<String>,
    /// Manifests whose objects are to go
    #[arg(short, long = "filename", value_name = "FILE", id = "filename", conflicts_with = "what")]
    pub files: Vec<String>,
    /// Kubernetes' namespace; `default` where it is left out
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// How long pods have to end; their own terminationGracePeriodSeconds where it is left out
    #[arg(long, value_name = "SECONDS")]
    pub grace_period: Option<u32>,
    /// Give pods one second to end
    #[arg(long, conflicts_with = "grace_period")]
    pub now: bool,
    /// What is not there is as good as deleted
    #[arg(long)]
    pub ignore_not_found: bool,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// `deployment NAME`, or `deployment/NAME`
    #[arg(value_name = "KIND NAME", required = true)]
    pub what: Vec<String>,
    /// How many pods it is to have
    #[arg(long, value_name = "N")]
    pub replicas: u32,
    /// Kubernetes' namespace; `default` where it is left out
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

/// What `get` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    #[value(alias = "pod", alias = "po")]
    Pods,
    #[value(alias = "host", alias = "nodes", alias = "node", alias = "no")]
    Hosts,
    #[value(alias = "client")]
    Clients,
    #[value(alias = "network", alias = "net")]
    Networks,
    #[value(alias = "service", alias = "svc")]
    Services,
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
    #[value(name = "endpointslices", alias = "endpointslice")]
    EndpointSlices,
    #[value(alias = "deployment", alias = "deploy")]
    Deployments,
    #[value(alias = "namespace", alias = "ns")]
    Namespaces,
    #[value(alias = "ingress", alias = "ing")]
    Ingresses,
    #[value(name = "ingressclasses", alias = "ingressclass")]
    IngressClasses,
    #[value(alias = "secret")]
    Secrets,
    #[value(name = "configmaps", alias = "configmap", alias = "cm")]
    ConfigMaps,
    /// What an ingress controller serves by, in its own words: `get config POD`
    Config,
    /// A host's rules of kube-proxy as a tree: `get rules HOST [SERVICE]`
    #[value(alias = "rule")]
    Rules,
}

/// What `get` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `pods`, `svc,pods`, or `all`.
    Kinds(Vec<Kind>),
    /// `pod/NAME`.
    Named(Kind, String),
}

/// Reads the first word behind `get`.
#[derive(Debug, Clone)]
struct WantedParser;

/// kubectl's `all`, as far as a lab has it.
const ALL: [Kind; 3] = [Kind::Pods, Kind::Services, Kind::Deployments];

impl TypedValueParser for WantedParser {
    type Value = Wanted;

    fn parse_ref(&self, cmd: &clap::Command, arg: Option<&clap::Arg>, word: &OsStr) -> Result<Wanted, clap::Error> {
        let text = word.to_string_lossy();
        let kind = |text: &str| {
            // Kubernetes' kinds may be written in capitals, as manifests have them.
            let text = text.to_ascii_lowercase();
            EnumValueParser::<Kind>::new().parse_ref(cmd, arg, OsStr::new(&text))
        };
        if let Some((word, name)) = text.split_once('/') {
            return Ok(Wanted::Named(kind(word)?, name.to_owned()));
        }
        let mut kinds = Vec::new();
        for word in text.split(',') {
            kinds.extend(if word == "all" { ALL.to_vec() } else { vec![kind(word)?] });
        }
        Ok(Wanted::Kinds(kinds))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let all = PossibleValue::new("all").help("Pods, services and deployments");
        Some(Box::new(Kind::value_variants().iter().filter_map(Kind::to_possible_value).chain([all])))
    }
}

impl Wanted {
    /// `KIND/NAME`, as words behind the first one.
    pub fn named(word: &str) -> Option<(Kind, &str)> {
        let (kind, name) = word.split_once('/')?;
        Some((Kind::from_str(&kind.to_ascii_lowercase(), false).ok()?, name))
    }
}

/// What stands behind `-l`: a lab, as everywhere, or a label selector, as kubectl has it. No lab is
/// called like a selector that compares.
#[derive(Debug, Clone)]
enum LabOrSelector {
    Lab(String),
    Selector(Selector),
}

impl FromStr for LabOrSelector {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let is_label = crate::lab::names::check_label(word).is_ok();
        if is_label { Ok(LabOrSelector::Lab(word.to_owned())) } else { word.parse().map(LabOrSelector::Selector) }
    }
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to show: a kind, several with commas between, `all`, or KIND/NAME
    #[arg(value_name = "KIND", value_parser = WantedParser)]
    pub wanted: Wanted,
    /// Only these; of `rules` a host and a service
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Only objects with these labels, such as `app=tea,tier!=front`; with an `=` in it, what stands
    /// behind -l is one, too
    #[arg(long, value_name = "LABELS")]
    selector: Option<Selector>,
    /// One column more: the labels
    #[arg(long)]
    pub show_labels: bool,
    /// Of `config`: what is wanted of the controller, also where it refused that and serves on as before
    #[arg(long = "wanted")]
    pub wanted_config: bool,
    /// The lab; may be left out where only one runs
    #[arg(short, long = "lab", value_name = "LAB")]
    labs: Vec<LabOrSelector>,
    #[command(flatten)]
    pub format: OutputArgs,
}

impl GetArgs {
    pub fn lab(&self) -> Option<&str> {
        self.labs.iter().rev().find_map(|l| match l {
            LabOrSelector::Lab(name) => Some(name.as_str()),
            LabOrSelector::Selector(_) => None,
        })
    }

    /// What objects must be like.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let behind_l = self.labs.iter().filter_map(|l| match l {
            LabOrSelector::Selector(selector) => Some(selector),
            LabOrSelector::Lab(_) => None,
        });
        self.selector.iter().chain(behind_l)
    }
}

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// A pod, service, deployment, ingress, host or client: NAME, KIND/NAME, KIND with names behind it, or
    /// KIND alone for all
    #[arg(value_name = "[KIND] NAME", num_args = 1.., required = true)]
    pub thing: Vec<String>,
    /// Kubernetes' namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}
