//! What the machine allows: one finding for each thing that a lab needs, with a remedy where it is
//! not given.
//!
//! [`examine`] gathers them. What can be read without harm is read by the module `machine`; everything else
//! is done for real by [`tryout`], in a child process with namespaces of its own, which the kernel
//! takes away with it. [`remedy`] has the words that `up` uses, too, where the same thing fails
//! there. How findings look is `cli::doctor`'s.

mod machine;
pub mod remedy;
mod tcpdump;
pub mod tryout;

use serde::{Deserialize, Serialize};

/// How well the machine gives one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Labs do without it; people may miss it.
    Hint,
    /// Some labs cannot run, or not as large as they might be.
    Warning,
    /// No lab can run.
    Fails,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Hint => "hint",
            Verdict::Warning => "warning",
            Verdict::Fails => "fails",
        }
    }
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The thing, such as `namespaces` or `TUN`.
    pub what: String,
    pub verdict: Verdict,
    /// What was seen.
    pub said: String,
    pub remedy: Option<String>,
}

impl Finding {
    fn new(what: &str, verdict: Verdict, said: impl Into<String>) -> Finding {
        Finding { what: what.to_owned(), verdict, said: said.into(), remedy: None }
    }

    fn ok(what: &str, said: impl Into<String>) -> Finding {
        Finding::new(what, Verdict::Ok, said)
    }

    #[must_use]
    fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Everything that can be found out. Nothing of the machine is changed and nothing stays.
pub fn examine() -> Vec<Finding> {
    let mut all = vec![machine::kernel()];
    all.extend(tryout::in_child());
    all.extend([
        machine::net_namespaces(),
        machine::processes(),
        machine::descriptors(),
        machine::neighbours(),
        machine::runtime_dir(),
    ]);
    all.extend(machine::programs());
    all
}

/// Whether labs can run.
pub fn is_fit(findings: &[Finding]) -> bool {
    findings.iter().all(|f| f.verdict != Verdict::Fails)
}
