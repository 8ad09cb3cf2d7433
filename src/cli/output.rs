//! How answers look: tables for people, JSON and YAML for programs, colour where it is wanted.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde_json::Value;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Padding, Style};

use crate::diag::{Problem, codes};
use crate::probe::report::Look;

use super::Failure;
use super::args::Format;

/// Whether colour is wanted on `stream`: on a terminal, unless NO_COLOR says otherwise.
pub fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// How a report of probes is drawn on standard output: cut to fit on a terminal, whole in a pipe.
pub fn look(wide: bool) -> Look {
    let out = std::io::stdout();
    Look { colour: colour(&out), cut: out.is_terminal() && !wide, wide }
}

/// How many columns a line has.
pub fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(100)
}

/// A table with its headings in capitals, as kubectl draws them.
pub struct Table(Builder);

impl Table {
    pub fn new(headings: &[&str]) -> Table {
        let mut builder = Builder::default();
        builder.push_record(headings.iter().copied());
        Table(builder)
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push_record(cells);
    }

    /// The table, each line without blanks at its end.
    pub fn text(self) -> String {
        let mut table = self.0.build();
        table.with(Style::blank()).modify(Columns::first(), Padding::new(0, 1, 0, 0));
        table.to_string().lines().map(|l| format!("{}\n", l.trim_end())).collect()
    }
}

/// Write to standard output. A reader that goes away, such as `head`, ends the program quietly.
pub fn write(text: fmt::Arguments<'_>) {
    let mut out = anstream::stdout().lock();
    end_unless(out.write_fmt(text).and_then(|()| out.flush()));
}

/// Write what is no text, such as a capture.
pub fn write_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    end_unless(out.write_all(bytes).and_then(|()| out.flush()));
}

fn end_unless(written: io::Result<()>) {
    if let Err(e) = written {
        // What a shell shows for a program that SIGPIPE ended. The signal itself stays ignored: it
        // would end us when a lab's daemon hangs up, too.
        let code = if e.kind() == io::ErrorKind::BrokenPipe { 141 } else { i32::from(super::MACHINE) };
        std::process::exit(code);
    }
}

/// Write a line to standard output.
pub fn line(text: fmt::Arguments<'_>) {
    write(format_args!("{text}\n"));
}

/// Print `value` for programs, or the table that `draw` makes of it (`true`: the wide one).
pub fn print(format: Format, value: &Value, draw: impl FnOnce(bool) -> String) {
    match format {
        Format::Table => write(format_args!("{}", draw(false))),
        Format::Wide => write(format_args!("{}", draw(true))),
        Format::Json => print_json(value),
        Format::Yaml => print_yaml(value),
    }
}

pub fn print_json(value: &Value) {
    line(format_args!("{value:#}"));
}

pub fn print_yaml(value: &Value) {
    // A JSON value has nothing that YAML could not write.
    write(format_args!("{}", serde_saphyr::to_string(value).unwrap_or_default()));
}

/// Write a file that the caller named.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    std::fs::write(path, content).map_err(|e| unwritable(path, &e))
}

/// Why a file or directory that the caller named was not made.
pub fn unwritable(path: &Path, e: &io::Error) -> Failure {
    let message = format!("{} cannot be written: {e}", path.display());
    let problem = Problem::error(codes::FILE_UNREADABLE, message).help("check the path and its permissions");
    Failure::from(Box::new(problem))
}

/// A duration as people say it: `34s`, `5m12s`, `3h7m`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 pod`, `2 pods`.
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A file as the caller would name it: from the directory that they are in, where it is below.
pub fn file_name(path: &str) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| Path::new(path).strip_prefix(here).ok());
    below.map_or_else(|| path.to_owned(), crate::diag::shown)
}

/// The text at a path of keys, or nothing.
pub fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
