//! What can be typed. Nothing is done here. Verbs about a lab's objects are in [`objects`], those that
//! look into its machines in [`machines`], that of pictures in [`graph`].

mod faults;
mod graph;
mod machines;
mod objects;
mod schema;
mod trace;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use faults::{BreakArgs, HealArgs, QuizArgs};
pub use graph::{GraphArgs, PictureFormat};
pub use machines::{BridgeArgs, ExecArgs, FlannelArgs, Inspect, InspectArgs, LogsArgs, ShellArgs, StackArgs};
pub use objects::{ApplyArgs, DeleteArgs, DescribeArgs, GetArgs, Kind, ScaleArgs, Wanted};
pub use schema::{SchemaArgs, SchemaOf};
pub use trace::{TraceArgs, TraceFormat};

/// Kubernetes networking in a box: labs of hosts, pods and a flannel network out of real Linux
/// namespaces, with probes that prove what they do.
#[derive(Debug, Parser)]
#[command(name = "labctl", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build a lab, or change a running one to what its file says now; what `apply`, `delete` and
    /// `scale` have done to it since is forgotten
    Up(UpArgs),
    /// End a lab; nothing of it stays
    Down(DownArgs),
    /// List the labs that run
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show how a running lab is
    Status(LabArgs),
    /// Run a running lab's probes
    Probe(ProbeArgs),
    /// Build labs, run their probes, end them: for CI
    Test(TestArgs),
    /// Show where a packet goes, what changes it, and why it dies
    Trace(TraceArgs),
    /// Add objects to a running lab, or replace those of the same name
    Apply(ApplyArgs),
    /// Take objects out of a running lab
    Delete(DeleteArgs),
    /// Give a deployment of a running lab another number of pods
    Scale(ScaleArgs),
    /// Show objects of a running lab: pods, services, endpoints, hosts and others
    Get(GetArgs),
    /// Print the certificate of the lab's authority, which signs the secrets that nobody brings
    Ca(LabArgs),
    /// Show one pod, service, host or client with all that is known of it
    Describe(DescribeArgs),
    /// Look into the kernel: a network stack, a bridge, flannel
    Inspect(InspectArgs),
    /// Run a program on a pod, host or client
    Exec(ExecArgs),
    /// Open a shell on a pod, host or client
    Shell(ShellArgs),
    /// Show what a pod's program wrote
    Logs(LogsArgs),
    /// Show what `up` would do, without doing it
    Plan(PlanArgs),
    /// Show where a running lab's kernel state differs from its plan
    Diff(LabArgs),
    /// Give a running lab a fault on purpose
    Break(BreakArgs),
    /// Undo the faults that a running lab was given
    Heal(HealArgs),
    /// Give a running lab a fault without saying which, to be found
    Quiz(QuizArgs),
    /// Draw a lab: networks, machines, pods, devices and links, and a trace along them
    Graph(GraphArgs),
    /// Print the rules that kube-proxy would write for manifests
    Rules(super::rules::RulesArgs),
    /// Check lab files
    Validate(ValidateArgs),
    /// Explain an error code
    Explain(ExplainArgs),
    /// Print the JSON Schema of lab files, or of traces
    Schema(SchemaArgs),
    /// Try what the machine allows, and say what to do where it does not
    Doctor(OutputArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(ManArgs),
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    /// A table with more columns
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct LabArgs {
    /// The lab; may be left out where only one runs
    lab: Option<String>,
    /// The lab, as other verbs take it
    #[arg(short = 'l', long = "lab", value_name = "LAB", conflicts_with = "lab")]
    named: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

impl LabArgs {
    /// The lab that was named, in either way.
    pub fn lab(&self) -> Option<&str> {
        self.lab.as_deref().or(self.named.as_deref())
    }
}

/// The lab that is meant, with what stands beside it.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// A lab file, a directory with one, or `-` for standard input
    #[arg(required_unless_present = "filename")]
    pub file: Option<String>,
    /// Kubernetes manifests beside the lab, or the lab itself; a directory stands for its files.
    /// Manifests without a lab get one of two hosts and a client
    #[arg(short = 'f', long = "filename", value_name = "FILE", id = "filename")]
    pub beside: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub from: FileArgs,
    /// Stay until Ctrl-C, and end the lab then
    #[arg(long)]
    pub foreground: bool,
    /// Do not run the file's probes
    #[arg(long)]
    pub no_probes: bool,
    /// How long to wait for pods to become ready, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    /// The lab; may be left out where only one runs
    lab: Option<String>,
    /// The lab, as other verbs take it
    #[arg(short = 'l', long = "lab", value_name = "LAB", conflicts_with = "lab")]
    named: Option<String>,
    /// All labs
    #[arg(long, conflicts_with_all = ["lab", "named"])]
    pub all: bool,
}

impl DownArgs {
    /// The lab that was named, in either way.
    pub fn lab(&self) -> Option<&str> {
        self.lab.as_deref().or(self.named.as_deref())
    }
}

#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Names of probes; all where none is given
    pub names: Vec<String>,
    /// Ask what differed once more, and tell where its packets went
    #[arg(long)]
    pub trace_failures: bool,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    /// How to write the report
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportFormat,
    /// Draw who answered probes with a `count`, one SVG file each in this directory
    #[arg(long, value_name = "DIR")]
    pub svg: Option<std::path::PathBuf>,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    #[default]
    Table,
    /// A table with what was asked and how long it took, and nothing cut
    Wide,
    Json,
    Yaml,
    Junit,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Lab files, or directories: with a lab.yaml one lab, without it each file a lab
    #[arg(required = true)]
    pub files: Vec<String>,
    /// Ask what differed once more, and tell where its packets went
    #[arg(long)]
    pub trace_failures: bool,
    /// How to write the report
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportFormat,
    /// Write a JUnit report to this file, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<std::path::PathBuf>,
    /// Draw who answered probes with a `count`, one SVG file each in this directory
    #[arg(long, value_name = "DIR")]
    pub svg: Option<std::path::PathBuf>,
    /// How long to wait for pods to become ready, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each verb into this directory
    pub dir: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub from: FileArgs,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Lab files, `-` for standard input, or directories: with a lab.yaml one lab, without it each
    /// file a lab
    #[arg(required_unless_present = "filename")]
    files: Vec<String>,
    /// The same, as kubectl takes it; Kubernetes manifests stand beside the one lab that is named,
    /// or in a lab of two hosts and a client
    #[arg(short = 'f', long = "filename", value_name = "FILE", id = "filename")]
    beside: Vec<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

impl ValidateArgs {
    /// Each lab for itself.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        self.files.iter().chain(&self.beside)
    }

    /// The only lab, with what stands beside it.
    pub fn one(&self) -> FileArgs {
        FileArgs { file: self.files.first().cloned(), beside: self.beside.clone() }
    }

    /// Files behind `-f`.
    pub fn beside(&self) -> &[String] {
        &self.beside
    }

    /// Whether at most one lab is named without `-f`.
    pub fn is_one(&self) -> bool {
        self.files.len() < 2
    }
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A code such as `spec-unknown-field`; all are listed where it is left out
    pub code: Option<String>,
}
