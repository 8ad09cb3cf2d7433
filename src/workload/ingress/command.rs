//! A program that the user brings, such as Envoy or Traefik, with a file written from a template.
//!
//! The program is told of a change by its files: each is replaced as a whole, by a rename, which is
//! what such programs watch for. In its arguments `{config}` stands for the path of its file (what
//! follows directly, such as `.yaml`, is part of the name), `{routing}` for that of everything as JSON, and
//! `{directory}` for the directory of both. It serves once its http port takes connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use tokio::net::TcpStream;
use tokio::process::Command;

use super::program::{self, Process, Product, find};
use super::{Config, Told};
use crate::plan::ingress::template::{ROUTING, Template};
use crate::plan::ingress::{Endpoints, Rendered, Routing};

/// Serve with `command` until `told` ends.
///
/// # Errors
/// A template that cannot be read; a program that is nowhere, or ends as soon as it starts.
pub async fn serve(config: &Config, (command, template): (&[String], &str), told: Told) -> io::Result<()> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let template = Template::read(template).map_err(|fault| invalid(format!("the controller's template, {fault}")))?;
    let [name, ..] = command else { return Err(invalid("the controller's command is empty".to_owned())) };
    if !name.contains('/') && find(name).is_none() {
        let what = format!("the controller's program {name} was found nowhere in PATH");
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    let file = format!("config{}", suffix(command));
    program::keep(Brought { command: command.to_vec(), template, file, config: config.clone() }, config, told).await
}

/// What follows `{config}` in an argument.
fn suffix(command: &[String]) -> &str {
    let after = command.iter().find_map(|word| Some(word.split_once("{config}")?.1)).unwrap_or_default();
    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_'));
    &after[..end.unwrap_or(after.len())]
}

struct Brought {
    command: Vec<String>,
    template: Template,
    /// The name of the program's own file.
    file: String,
    config: Config,
}

impl Brought {
    /// Put the files that are now in use where the program looks for them.
    fn publish(&self) -> io::Result<()> {
        let directory = &self.config.directory;
        for name in [self.file.as_str(), ROUTING] {
            let new = directory.join("published");
            // A copy keeps the mode, which keeps keys to ourselves.
            std::fs::copy(directory.join("current").join(name), &new)?;
            std::fs::rename(&new, directory.join(name))?;
        }
        Ok(())
    }
}

impl Product for Brought {
    const NAME: &'static str = "controller";

    fn render(&mut self, routing: &Routing, endpoints: &Endpoints) -> Rendered {
        self.template.render(&self.file, (routing, endpoints), self.config.place())
    }

    fn check(&self, _folder: &Path) -> Option<Command> {
        None
    }

    fn start(&mut self, _endpoints: &Endpoints) -> io::Result<Process> {
        self.publish()?;
        let path = |name: &str| self.config.directory.join(name).display().to_string();
        let (config, routing, directory) = (path("config"), path(ROUTING), path(""));
        let directory = directory.trim_end_matches('/');
        let fill = |word: &String| {
            word.replace("{config}", &config).replace("{routing}", &routing).replace("{directory}", directory)
        };
        let mut words = self.command.iter().map(fill);
        let mut command = std::process::Command::new(words.next().unwrap_or_default());
        command.args(words);
        Process::start(Self::NAME, command)
    }

    async fn reload(&mut self, _process: &mut Process, _endpoints: &Endpoints) -> io::Result<()> {
        self.publish()
    }

    /// Its file has them.
    fn fits(&self, _endpoints: &Endpoints) -> bool {
        false
    }

    async fn tell(&mut self, _endpoints: &Endpoints) -> io::Result<()> {
        TcpStream::connect(reachable(self.config.http)).await.map(drop)
    }
}

/// Where one that listens on every address is asked.
fn reachable(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_name_goes_on_in_the_argument() {
        let suffix = |words: &[&str]| suffix(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).to_owned();
        assert_eq!(suffix(&["envoy", "-c", "{config}.yaml"]), ".yaml");
        assert_eq!(suffix(&["x", "--file={config}.d/../x"]), ".d");
        assert_eq!(suffix(&["x"]), "");
    }
}
