//! A TCP connection to an echo pod that is held while a lab is changed.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;

use crate::harness::{Background, Bench};

/// A connection that is asked again and again.
pub struct Connection {
    shell: Background,
    answers: BufReader<ChildStdout>,
}

impl Connection {
    /// Connect a machine to an address and port.
    pub fn open(bench: &Bench, from: &str, address: &str, port: u16) -> Connection {
        let talk = format!(
            "exec 3<>/dev/tcp/{address}/{port}; while read -r line; do echo \"$line\" >&3; \
             while read -r answer <&3; do echo \"$answer\"; [ \"$answer\" = \"$line\" ] && break; done; done"
        );
        let mut shell = Background::start(bench.labctl(&["exec", from, "--", "bash", "-c", &talk]));
        let answers = BufReader::new(shell.0.stdout.take().expect("a pipe"));
        Connection { shell, answers }
    }

    /// Send a word; it must come back on the same connection. Returns what came before it.
    #[track_caller]
    pub fn ask(&mut self, word: &str) -> String {
        self.shell.tell(word);
        let mut before = String::new();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).expect("text") > 0, "the connection was cut before {word:?}");
            if line.trim() == word {
                return before;
            }
            before += &line;
        }
    }
}
