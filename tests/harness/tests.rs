//! The list of a test program's tests. Each knows what it needs of who runs it and of what lies
//! beside the project; where that is missing the runner reports it as ignored, with the reason in
//! front of its name, and nothing is skipped in silence.
//!
//! Tests enter the list where they are written, by the macros below. A program that uses them has
//! `harness = false`, and its main function is [`main`]; a plain `#[test]` would not be run there.

use libtest_mimic::{Arguments, Failed, Trial};

use super::{Bench, Who, beside_the_project};

/// What a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Root,
    /// A folder beside the project.
    Folder(&'static str),
    /// A program at this path, or of this name in one of PATH's directories. Where `CI` is set it must be
    /// there: the test fails without it.
    Program(&'static str),
    /// A /dev/net/tun that whoever runs the tests may open. Root can always make one.
    Tun,
}

impl Need {
    /// What is missing of it here.
    fn missing(self) -> Option<String> {
        let root = nix::unistd::geteuid().is_root();
        match self {
            Need::Root => (!root).then(|| "needs root".to_owned()),
            Need::Folder(folder) => beside_the_project(folder).is_none().then(|| format!("needs ../{folder}")),
            Need::Program(program) => (!is_there(program)).then(|| format!("needs {program}")),
            Need::Tun => {
                let open = || std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok();
                (!root && !open()).then(|| "needs root or an open /dev/net/tun".to_owned())
            }
        }
    }
}

/// Whether a program is there; one with a slash in its name is at that path alone.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Joining an absolute path to a directory gives that path.
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// How a test is run.
#[derive(Clone, Copy)]
pub enum How {
    /// On a bench of its own.
    On(Who, fn(&Bench)),
    /// As it is.
    Plain(fn()),
}

/// One test of the list.
pub struct Test {
    /// The module it is written in.
    pub module: &'static str,
    pub name: &'static str,
    pub needs: &'static [Need],
    pub how: How,
}

inventory::collect!(Test);

impl Test {
    fn trial(&self) -> Trial {
        let module = self.module.split_once("::").map(|(_, rest)| format!("{rest}::")).unwrap_or_default();
        let how = self.how;
        let run = move || -> Result<(), Failed> {
            match how {
                How::On(who, test) => test(&Bench::new(who)),
                How::Plain(test) => test(),
            }
            Ok(())
        };
        let trial = Trial::test(format!("{module}{}", self.name), run);
        let missing = self.needs.iter().find_map(|need| Some((need, need.missing()?)));
        match missing {
            Some((Need::Program(_), missing)) if std::env::var_os("CI").is_some() => {
                Trial::test(trial.name().to_owned(), move || Err(missing.into()))
            }
            Some((_, missing)) => trial.with_ignored_flag(true).with_kind(missing),
            None => trial,
        }
    }
}

/// Run the tests of the list, as the command line says.
pub fn main() {
    let mut trials: Vec<Trial> = inventory::iter::<Test>.into_iter().map(Test::trial).collect();
    assert!(!trials.is_empty(), "the list is empty");
    trials.push(Trial::test("every_test_is_on_the_list", every_test_is_on_the_list));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Without libtest a plain `#[test]` is not run, and nobody would miss it.
fn every_test_is_on_the_list() -> Result<(), Failed> {
    let program = module_path!().split("::").next().unwrap_or_default();
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut files = vec![tests.join(format!("{program}.rs"))];
    for entry in std::fs::read_dir(tests.join(program)).into_iter().flatten() {
        files.push(entry?.path());
    }
    for file in files.iter().filter(|f| f.is_file()) {
        let text = std::fs::read_to_string(file)?;
        if text.lines().any(|line| line.trim() == concat!("#[", "test]")) {
            return Err(format!("{} has a test that is not on the list", file.display()).into());
        }
    }
    Ok(())
}

/// With libtest it is the list that nobody would read.
#[test]
fn this_program_lacks_harness_false_in_cargo_toml() {
    panic!("tests that are written with the macros of this module are not run by libtest");
}

/// Put tests on the list, each a function without arguments: `tests![&[NEED, …]; name, …]`.
#[macro_export]
macro_rules! tests {
    ($needs:expr; $($name:ident),* $(,)?) => { $(
        inventory::submit! {
            $crate::harness::tests::Test {
                module: module_path!(),
                name: stringify!($name),
                needs: $needs,
                how: $crate::harness::tests::How::Plain($name),
            }
        }
    )* };
}

/// Put a test on the list that wants a bench. For the macros below.
#[macro_export]
macro_rules! on_a_bench {
    ($who:ident, $suffix:literal, $needs:expr, $name:ident) => {
        inventory::submit! {
            $crate::harness::tests::Test {
                module: module_path!(),
                name: concat!(stringify!($name), "::", $suffix),
                needs: $needs,
                how: $crate::harness::tests::How::On($crate::harness::Who::$who, $name),
            }
        }
    };
}

/// Make a test of each function, run as root and again as an ordinary user. `beside FOLDER;` in front
/// says that they need a folder beside the project.
#[macro_export]
macro_rules! as_root_and_ordinary_user {
    (beside $folder:literal; $($name:ident),* $(,)?) => { $(
        $crate::on_a_bench!(Root, "as_root", &[$crate::harness::tests::Need::Root, $crate::harness::tests::Need::Folder($folder)], $name);
        $crate::on_a_bench!(Ordinary, "as_an_ordinary_user", &[$crate::harness::tests::Need::Folder($folder)], $name);
    )* };
    ($($name:ident),* $(,)?) => { $(
        $crate::on_a_bench!(Root, "as_root", &[$crate::harness::tests::Need::Root], $name);
        $crate::on_a_bench!(Ordinary, "as_an_ordinary_user", &[], $name);
    )* };
}

/// Make a test of each function, run as root only.
#[macro_export]
macro_rules! as_root {
    (beside $folder:literal; $($name:ident),* $(,)?) => { $(
        $crate::on_a_bench!(Root, "as_root", &[$crate::harness::tests::Need::Root, $crate::harness::tests::Need::Folder($folder)], $name);
    )* };
    ($($name:ident),* $(,)?) => { $(
        $crate::on_a_bench!(Root, "as_root", &[$crate::harness::tests::Need::Root], $name);
    )* };
}

/// Make a test of each function, run as an ordinary user who may make TUN devices.
#[macro_export]
macro_rules! as_ordinary_user_with_tun {
    (beside $folder:literal; $($name:ident),* $(,)?) => { $(
        $crate::on_a_bench!(WithTun, "as_an_ordinary_user_with_tun", &[$crate::harness::tests::Need::Tun, $crate::harness::tests::Need::Folder($folder)], $name);
    )* };
    ($($name:ident),* $(,)?) => { $(
        $crate::on_a_bench!(WithTun, "as_an_ordinary_user_with_tun", &[$crate::harness::tests::Need::Tun], $name);
    )* };
}
