//! What can be typed of verbs that look into machines and run programs on them.

use clap::{Args, Subcommand};

use super::OutputArgs;

#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(subcommand)]
    pub what: Inspect,
}

#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// Interfaces, loopback, routing table and iptables rules of one network stack
    Stack(StackArgs),
    /// The forwarding table of a bridge, with who is behind each address
    Bridge(BridgeArgs),
    /// Each host's subnet and lease, and how it reaches each peer
    Flannel(FlannelArgs),
}

#[derive(Debug, Args)]
pub struct StackArgs {
    /// A pod, host, client, or `router`
    pub target: String,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct BridgeArgs {
    /// A host (its cni0), a network (its switch), or MACHINE:BRIDGE such as `router:br-rack1`
    pub bridge: String,
    /// Go on and print what it learns and forgets, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct FlannelArgs {
    /// Only this host
    pub host: Option<String>,
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
    /// The program and its arguments; options of labctl's own stand before it
    #[arg(required = true, trailing_var_arg = true)]
    pub command: Vec<std::ffi::OsString>,
    #[command(flatten)]
    pub terminal: TerminalArgs,
    /// The pod's namespace; `default` where it is left out
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

/// kubectl's options for what labctl does anyway: a program has the caller's own terminal.
#[derive(Debug, Args)]
pub struct TerminalArgs {
    /// As kubectl has it; the program reads what the caller types in any case
    #[arg(short = 'i', long = "stdin")]
    _stdin: bool,
    /// As kubectl has it; the program has the caller's terminal in any case
    #[arg(short = 't', long = "tty")]
    _tty: bool,
}

#[derive(Debug, Args)]
pub struct ShellArgs {
    /// A pod, host, client, or `router`
    pub target: String,
    /// The pod's namespace; `default` where it is left out
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The pod, or a host for what its flanneld wrote
    pub pod: String,
    /// The container; the first one where this is left out
    #[arg(short, long)]
    pub container: Option<String>,
    /// Go on as more is written
    #[arg(short, long)]
    pub follow: bool,
    /// The pod's namespace; `default` where it is left out
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
}
