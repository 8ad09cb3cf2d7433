//! What can be typed. Nothing is done here.

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Build a lab, or change a running one to what its file says now
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
    /// Show pods or hosts of a running lab
    Get(GetArgs),
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
    /// Check lab files
    Validate(ValidateArgs),
    /// Explain an error code
    Explain(ExplainArgs),
    /// Print the JSON Schema of lab files
    Schema,
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
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// A lab file, a directory with one, or `-` for standard input
    pub file: String,
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
    pub lab: Option<String>,
    /// All labs
    #[arg(long, conflicts_with = "lab")]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Names of probes; all where none is given
    pub names: Vec<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    /// How to write the report
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportFormat,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    #[default]
    Table,
    Json,
    Yaml,
    Junit,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Lab files or directories
    #[arg(required = true)]
    pub files: Vec<String>,
    /// How to write the report
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportFormat,
    /// Write a JUnit report to this file, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<std::path::PathBuf>,
    /// How long to wait for pods to become ready, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
}

/// What `get` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    #[value(alias = "pod", alias = "po")]
    Pods,
    #[value(alias = "host", alias = "nodes", alias = "node", alias = "no")]
    Hosts,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to show
    #[arg(value_enum)]
    pub kind: Kind,
    /// Only this one
    pub name: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// A pod, host, client, or `router`
    pub target: String,
    /// The program and its arguments
    #[arg(required = true, last = true)]
    pub command: Vec<std::ffi::OsString>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

#[derive(Debug, Args)]
pub struct ShellArgs {
    /// A pod, host, client, or `router`
    pub target: String,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The pod
    pub pod: String,
    /// The container; the first one where this is left out
    #[arg(short, long)]
    pub container: Option<String>,
    /// Go on as more is written
    #[arg(short, long)]
    pub follow: bool,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A lab file, a directory with one, or `-` for standard input
    pub file: String,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Lab files, directories, or `-` for standard input
    #[arg(required = true)]
    pub files: Vec<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A code such as `spec-unknown-field`; all are listed where it is left out
    pub code: Option<String>,
}
