//! The command line: one verb, one file. What verbs share is here (exit codes, finding a lab) and
//! in `output` (tables, JSON and YAML, colour).

mod apply;
mod args;
mod break_it;
mod ca;
mod completions;
mod config;
mod delete;
mod describe;
mod describe_deployment;
mod describe_ingress;
mod describe_service;
mod diff;
mod doctor;
mod down;
mod exec;
mod explain;
mod failures;
mod follow;
mod get;
mod graph;
mod heal;
mod hidden;
mod inspect;
mod kube;
mod list;
mod logs;
mod man;
mod named;
mod output;
mod pictures;
mod plan;
mod probe;
mod process;
mod quiz;
mod reach;
mod rules;
mod rules_tree;
mod schema;
mod selector;
mod status;
mod tables;
mod test;
mod trace;
mod up;
mod validate;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use crate::daemon::client::Client;
use crate::diag::{Code, Problem, Problems, Sources, codes, did_you_mean, render};
use crate::lab::names::LabName;
use crate::runtime::RuntimeDir;

use args::{Cli, Verb};

/// A probe differed from what was expected, or the lab did not become ready.
pub const DIFFERED: u8 = 1;
/// The input was bad.
pub const BAD_INPUT: u8 = 2;
/// The machine cannot.
pub const MACHINE: u8 = 3;

/// Why a verb did not do its work.
#[derive(Debug, Default)]
pub struct Failure {
    problems: Problems,
    sources: Sources,
}

impl Failure {
    fn new(problems: Problems, sources: Sources) -> Failure {
        Failure { problems, sources }
    }

    fn code(&self) -> u8 {
        let errors = || self.problems.iter().filter(|p| p.is_error()).map(|p| p.code);
        if errors().any(is_machine) {
            MACHINE
        } else if errors().all(|c| c == codes::LAB_NOT_READY || c == codes::COMMAND_FAILED) {
            DIFFERED
        } else {
            BAD_INPUT
        }
    }
}

fn is_machine(code: Code) -> bool {
    const MACHINE: [Code; 8] = [
        codes::MACHINE_NAMESPACES,
        codes::MACHINE_IPTABLES,
        codes::MACHINE_TUN,
        codes::KERNEL_REFUSED,
        codes::WORKLOAD_FAILED,
        codes::RUNTIME_DIR,
        codes::LAB_GONE,
        codes::TRACE_TOO_MANY,
    ];
    MACHINE.contains(&code)
}

impl From<Box<Problem>> for Failure {
    fn from(problem: Box<Problem>) -> Failure {
        let mut problems = Problems::default();
        problems.push(*problem);
        Failure::new(problems, Sources::default())
    }
}

/// What a verb gives back: its exit code, or why not.
pub type Done = Result<ExitCode, Failure>;

/// Read the arguments, do what they say, and tell what went wrong.
pub fn main() -> ExitCode {
    if let Some(code) = hidden::run() {
        return code;
    }
    let cli = Cli::parse();
    match run(cli.verb) {
        Ok(code) => code,
        Err(failure) => {
            show(&failure.problems, &failure.sources);
            point_to_explain(failure.problems.iter());
            ExitCode::from(failure.code())
        }
    }
}

fn run(verb: Verb) -> Done {
    match verb {
        Verb::Up(args) => up::run(&args),
        Verb::Down(args) => down::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Probe(args) => probe::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Trace(args) => trace::run(&args),
        Verb::Apply(args) => apply::apply(&args),
        Verb::Delete(args) => delete::run(&args),
        Verb::Scale(args) => apply::scale(&args),
        Verb::Get(args) => get::run(&args),
        Verb::Ca(args) => ca::run(&args),
        Verb::Describe(args) => describe::run(&args),
        Verb::Inspect(args) => inspect::run(&args.what),
        Verb::Exec(args) => exec::exec(&args),
        Verb::Shell(args) => exec::shell(&args),
        Verb::Logs(args) => logs::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Break(args) => break_it::run(&args),
        Verb::Heal(args) => heal::run(&args),
        Verb::Quiz(args) => quiz::run(&args),
        Verb::Graph(args) => graph::run(&args),
        Verb::Rules(args) => rules::run(&args),
        Verb::Validate(args) => validate::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

/// Problems, drawn on standard error.
fn show(problems: &Problems, sources: &Sources) {
    if !problems.is_empty() {
        let text = render::to_text(problems, sources, output::colour(&std::io::stderr()), output::width());
        anstream::eprint!("{text}");
    }
}

/// Once, behind all that was said: where more is to be read about it.
fn point_to_explain<'p>(problems: impl IntoIterator<Item = &'p Problem>) {
    let errors: BTreeSet<Code> = problems.into_iter().filter(|p| p.is_error()).map(|p| p.code).collect();
    match (errors.first(), errors.len()) {
        (None, _) => {}
        (Some(only), 1) => anstream::eprintln!("`labctl explain {only}` tells more"),
        (Some(first), _) => anstream::eprintln!("`labctl explain CODE` tells more of each, such as {first}"),
    }
}

/// Whether a person watches standard error, so that progress is worth showing.
fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// The lab that is meant: the one that is named, or the only one that runs.
fn find_lab(name: Option<&str>) -> Result<Client, Box<Problem>> {
    let dir = RuntimeDir::open()?;
    let running = dir.labs()?;
    let names: Vec<&str> = running.iter().map(LabName::as_str).collect();
    let unknown = |message: String, help: String| Box::new(Problem::error(codes::LAB_UNKNOWN, message).help(help));
    let found = match (name, running.as_slice()) {
        (Some(name), _) => running.iter().find(|l| l.as_str() == name).ok_or_else(|| {
            let help = match did_you_mean(name, names.iter().copied()) {
                _ if name.contains('=') => "`-l` names a lab; label selectors are for `labctl get`".to_owned(),
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("start it with `labctl up FILE`; running are: {}", list_of(&names)),
            };
            unknown(format!("no lab `{name}` runs"), help)
        })?,
        (None, [only]) => only,
        (None, []) => return Err(unknown("no lab runs".to_owned(), "start one with `labctl up FILE`".to_owned())),
        (None, _) => {
            let help = format!("name one with `--lab`: {}", names.join(", "));
            return Err(unknown("several labs run".to_owned(), help));
        }
    };
    Ok(Client::new(&dir, found.clone()))
}

fn list_of(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
