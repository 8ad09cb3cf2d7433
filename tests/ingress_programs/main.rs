//! All ingress controllers, the built-in one, real nginx, real HAProxy and a user's own program: the
//! process `lab-ingress` with each of them, as real requests to endpoints that run here. What only the
//! built-in one can be asked is in `tests/ingress_built_in`.
//!
//! Each test runs in a network and PID namespace of its own, so ports 80 and 443 are nobody else's and
//! nothing outlives it: as root, and in a user namespace that knows no user but root, as a lab
//! of an ordinary user does. The program starts itself there with the one test to run.

mod answers;
mod changes;
mod client;
mod command;
mod ground;
mod hostile;
mod load;
mod options;
mod refusals;
mod routing;
mod wire;

use std::process::Command;

use ground::Ground;
use libtest_mimic::{Arguments, Failed, Trial};

/// A test, for one controller.
pub type Test = (&'static str, fn(&Ground));

/// What holds for every controller.
const COMMON: &[&[Test]] = &[routing::TESTS, options::TESTS, wire::TESTS, answers::TESTS, refusals::TESTS];
/// What holds for both real programs besides.
const PROGRAMS: &[&[Test]] = &[changes::TESTS, load::TESTS, hostile::TESTS];

/// Set where the program runs inside the namespaces.
const INSIDE: &str = "LABCTL_TEST_INSIDE";

/// Who runs the controller.
#[derive(Clone, Copy)]
enum Who {
    Root,
    UserNamespace,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Root => "as_root",
            Who::UserNamespace => "in_a_user_namespace",
        }
    }

    fn missing(self) -> Option<&'static str> {
        let root = nix::unistd::geteuid().is_root();
        matches!(self, Who::Root).then_some(()).filter(|()| !root).map(|()| "needs root")
    }

    /// `unshare` for it: what is started inside ends with it.
    fn unshare(self) -> &'static [&'static str] {
        match self {
            Who::Root => &["--net", "--pid", "--fork", "--mount-proc", "--kill-child"],
            Who::UserNamespace => {
                &["--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
            }
        }
    }
}

fn main() {
    let mut trials = Vec::new();
    for who in [Who::Root, Who::UserNamespace] {
        for (program, tests) in [
            ("built-in", COMMON.concat()),
            ("nginx", [COMMON.concat(), PROGRAMS.concat(), changes::NGINX.to_vec()].concat()),
            ("haproxy", [COMMON.concat(), PROGRAMS.concat(), changes::HAPROXY.to_vec()].concat()),
            ("command", command::TESTS.to_vec()),
        ] {
            trials.extend(tests.into_iter().map(|test| trial(who, program, test)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trial(who: Who, program: &'static str, (name, test): Test) -> Trial {
    let name = format!("{program}::{}::{name}", who.name());
    let missing = who.missing().map(str::to_owned).or_else(|| ground::missing(program, &name));
    let inside = std::env::var_os(INSIDE).is_some();
    let title = name.clone();
    let run = move || if inside { run_here(program, test) } else { run_inside(who, &title) };
    match missing {
        Some(missing) => Trial::test(name, || Ok(())).with_ignored_flag(true).with_kind(missing),
        None => Trial::test(name, run),
    }
}

fn run_here(program: &str, test: fn(&Ground)) -> Result<(), Failed> {
    client::loopback_up();
    test(&Ground::new(program));
    Ok(())
}

fn run_inside(who: Who, name: &str) -> Result<(), Failed> {
    let output = Command::new("unshare")
        .args(who.unshare())
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    print!("{}", said(&output.stdout));
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}\n{}", said(&output.stdout), said(&output.stderr)).into())
}
