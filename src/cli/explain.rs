//! `explain`: what an error code means.

use std::process::ExitCode;

use crate::diag::{Problem, codes, did_you_mean};

use super::Done;
use super::args::ExplainArgs;
use super::output;

pub fn run(args: &ExplainArgs) -> Done {
    let names = || codes::ALL.iter().map(|(code, _)| code.as_str());
    let Some(word) = &args.code else {
        for name in names() {
            output::line(format_args!("{name}"));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let code = codes::Code::parse(word).ok_or_else(|| {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("there is no code `{word}`"));
        Box::new(match did_you_mean(word, names()) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help("`labctl explain` lists all"),
        })
    })?;
    output::write(format_args!("{}", code.explanation()));
    Ok(ExitCode::SUCCESS)
}
