//! A page of Markdown as blocks: what is run, what is checked and what is only text.

use std::io;
use std::path::{Path, PathBuf};
use std::{fs, mem};

/// One command of a `console` block and what stands under it.
#[derive(Debug, Clone, Default)]
pub struct Command {
    pub line: String,
    pub output: Vec<String>,
}

#[derive(Debug, Clone)]
enum Part {
    /// Everything else, fences included.
    Text(Vec<String>),
    Console(Vec<Command>),
    Yaml(Vec<String>),
}

#[derive(Debug, Clone)]
pub struct Page {
    path: PathBuf,
    parts: Vec<Part>,
}

impl Page {
    pub fn read(path: &Path) -> Page {
        let text = fs::read_to_string(path).expect("a page can be read");
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            plain.push(line.to_owned());
            let Some(language) = line.strip_prefix("```") else { continue };
            parts.push(Part::Text(mem::take(&mut plain)));
            let block: Vec<String> = lines.by_ref().take_while(|l| *l != "```").map(str::to_owned).collect();
            parts.push(match language {
                "console" => Part::Console(commands(&block)),
                "yaml" => Part::Yaml(block),
                _ => Part::Text(block),
            });
            plain.push("```".to_owned());
        }
        parts.push(Part::Text(plain));
        Page { path: path.to_owned(), parts }
    }

    pub fn has_commands(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Console(_)))
    }

    /// Whether the page tells its readers that they must be root.
    pub fn needs_root(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Text(lines) if lines.iter().any(|l| l.starts_with("*Needs root"))))
    }

    pub fn has_yaml(&self) -> bool {
        self.yaml().next().is_some()
    }

    pub fn commands_mut(&mut self) -> impl Iterator<Item = &mut Command> {
        self.parts.iter_mut().flat_map(|part| match part {
            Part::Console(commands) => commands.iter_mut(),
            Part::Text(_) | Part::Yaml(_) => [].iter_mut(),
        })
    }

    pub fn yaml(&self) -> impl Iterator<Item = String> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Yaml(lines) => Some(lines.join("\n") + "\n"),
            Part::Text(_) | Part::Console(_) => None,
        })
    }

    /// Write the page back, with the outputs that its commands have now.
    pub fn write(&self) -> io::Result<()> {
        let mut text = String::new();
        for line in self.parts.iter().flat_map(Part::lines) {
            text.push_str(&line);
            text.push('\n');
        }
        fs::write(&self.path, text)
    }
}

impl Part {
    fn lines(&self) -> Vec<String> {
        match self {
            Part::Text(lines) | Part::Yaml(lines) => lines.clone(),
            Part::Console(commands) => {
                let one = |c: &Command| std::iter::once(format!("$ {}", c.line)).chain(c.output.clone());
                commands.iter().flat_map(|c| one(c).collect::<Vec<_>>()).collect()
            }
        }
    }
}

fn commands(block: &[String]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Command { line: command.to_owned(), ..Command::default() }),
            (None, Some(last)) => last.output.push(line.trim_end().to_owned()),
            (None, None) => panic!("a console block begins with output: {line}"),
        }
    }
    commands
}
