//! What can be typed of verbs that break a lab on purpose.

use clap::Args;

use super::OutputArgs;

#[derive(Debug, Args)]
pub struct BreakArgs {
    /// The fault; `--list` shows them
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// Where: a host, pod, client or service; the first that fits where this is left out
    #[arg(long, value_name = "WHERE", conflicts_with = "list")]
    pub on: Option<String>,
    /// Show every fault, and where it would be in the lab that runs
    #[arg(long, conflicts_with = "name")]
    pub list: bool,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct HealArgs {
    /// The fault that is to go; all where this is left out
    pub name: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}

#[derive(Debug, Args)]
pub struct QuizArgs {
    /// Take the fault that this number gives, the same each time in the same lab
    #[arg(long, value_name = "N", conflicts_with_all = ["answer", "reveal"])]
    pub seed: Option<u64>,
    /// Say which fault it is, and be told whether that is right
    #[arg(long, value_name = "NAME", conflicts_with = "reveal")]
    pub answer: Option<String>,
    /// Be told which fault it is
    #[arg(long)]
    pub reveal: bool,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    #[command(flatten)]
    pub format: OutputArgs,
}
