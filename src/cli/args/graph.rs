//! What can be typed of the verb that draws labs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct GraphArgs {
    /// A running lab, or a lab file, a directory with one or `-` for standard input, which need not run; may
    /// be left out where only one lab runs
    #[arg(value_name = "LAB|FILE")]
    lab: Option<String>,
    /// The running lab, as other verbs take it
    #[arg(short = 'l', long = "lab", value_name = "LAB", conflicts_with = "lab")]
    pub running: Option<String>,
    /// The format; where it is left out, what the ending of --out says, or else html with a trace and
    /// mermaid without one
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<PictureFormat>,
    /// A trace as JSON, `-` for standard input: the page (html) plays it along the picture
    #[arg(long, value_name = "TRACE.json")]
    pub trace: Option<PathBuf>,
    /// Write to this file in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw each pod, also where there are so many that those of a deployment would be drawn as one
    #[arg(long)]
    pub all: bool,
}

/// The format of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PictureFormat {
    /// A flowchart, which Markdown may have in it
    Mermaid,
    /// For Graphviz
    Dot,
    Svg,
    /// One page that needs nothing beside it
    Html,
}

impl GraphArgs {
    /// What was typed in place of a lab's name behind `--lab`.
    pub fn word(&self) -> Option<&str> {
        self.lab.as_deref()
    }

    pub fn format(&self) -> PictureFormat {
        let ending = self.out.as_ref().and_then(|path| path.extension()?.to_str());
        let by_ending = match ending {
            Some("mmd" | "mermaid") => Some(PictureFormat::Mermaid),
            Some("dot" | "gv") => Some(PictureFormat::Dot),
            Some("svg") => Some(PictureFormat::Svg),
            Some("html" | "htm") => Some(PictureFormat::Html),
            _ => None,
        };
        let usual = if self.trace.is_some() { PictureFormat::Html } else { PictureFormat::Mermaid };
        self.output.or(by_ending).unwrap_or(usual)
    }
}
