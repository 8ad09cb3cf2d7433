//! What the controller's process tells of itself, a line each on its standard output: that it serves,
//! and what came of each routing. Both ends of the line are here.

use std::fmt;

use super::say;

/// Letters of the longest complaint that is told; its end says least.
const LONGEST: usize = 8 << 10;

/// A word on standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// What was told first is served.
    Ready,
    /// The routing of this mark is in force.
    Accepted { mark: String },
    /// The routing of this mark is not taken, for this reason, and the one before stays in force.
    Refused { mark: String, why: String },
}

impl Report {
    /// That `mark` is refused, in one line.
    pub fn refused(mark: String, why: &str) -> Report {
        let lines = why.lines().map(str::trim).filter(|line| !line.is_empty());
        let why = lines.collect::<Vec<_>>().join("; ").chars().take(LONGEST).collect();
        Report::Refused { mark, why }
    }

    /// A line without its end; nothing where it is no report.
    pub fn read(line: &str) -> Option<Report> {
        let mut words = line.splitn(3, ' ');
        Some(match (words.next()?, words.next(), words.next()) {
            ("ready", None, None) => Report::Ready,
            ("accepted", Some(mark), None) => Report::Accepted { mark: mark.to_owned() },
            ("refused", Some(mark), why) => Report::refused(mark.to_owned(), why.unwrap_or_default()),
            _ => return None,
        })
    }

    /// Tell it. Standard output may be closed, and that is no reason to stop serving.
    pub fn tell(&self) {
        let _ = say(format_args!("{self}"));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Ready => f.write_str("ready"),
            Report::Accepted { mark } => write!(f, "accepted {mark}"),
            Report::Refused { mark, why } => write!(f, "refused {mark} {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_again() {
        let why = "nginx: [emerg] no \"server\"\n\n  line 3 comes from ingress default/cafe\n";
        let refused = Report::refused("0a1b".to_owned(), why);
        let told = "refused 0a1b nginx: [emerg] no \"server\"; line 3 comes from ingress default/cafe";
        assert_eq!(refused.to_string(), told);
        for report in [Report::Ready, Report::Accepted { mark: "0a1b".to_owned() }, refused] {
            assert_eq!(Report::read(&report.to_string()), Some(report));
        }
        for other in ["", "ready?", "accepted", "10.0.0.1 - - \"GET / HTTP/1.1\" 200"] {
            assert_eq!(Report::read(other), None, "{other}");
        }
    }
}
