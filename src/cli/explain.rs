//! `explain`: what an error code means, and which codes there are.

use std::process::ExitCode;

use crate::diag::{Problem, codes, did_you_mean};

use super::Done;
use super::args::ExplainArgs;
use super::output;

pub fn run(args: &ExplainArgs) -> Done {
    let names = || codes::ALL.iter().map(|(code, _)| code.as_str());
    let Some(word) = &args.code else {
        let widest = names().map(str::len).max().unwrap_or(0);
        for (code, page) in codes::ALL {
            output::line(format_args!("{:<widest$}  {}", code.as_str(), gist(page)));
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
    output::write(format_args!("{}", for_a_terminal(code.explanation())));
    Ok(ExitCode::SUCCESS)
}

/// A page's first sentence, which is the first one behind its heading.
fn gist(page: &str) -> &str {
    let line = page.lines().skip(1).find(|l| !l.is_empty()).unwrap_or_default();
    line.split_once(". ").map_or(line, |(first, _)| first).trim_end_matches('.')
}

/// A page as it is read on a terminal: blocks are indented, and have no fences around them.
fn for_a_terminal(page: &str) -> String {
    let mut out = String::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block && !line.is_empty() {
            out.push_str(&format!("    {line}\n"));
        } else {
            out.push_str(&format!("{}\n", line.replace("**", "")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_gist_of_one_line() {
        for (code, page) in codes::ALL {
            let gist = gist(page);
            assert!(gist.len() > 15 && !gist.ends_with('.') && !gist.contains("```"), "{}: {gist:?}", code.as_str());
        }
    }

    #[test]
    fn a_block_is_indented_and_its_fence_is_gone() {
        let page = "# code\n\nText. More.\n\n```yaml good\na: 1\n\nb: 2\n```\n**What to do.** This.\n";
        let shown = "# code\n\nText. More.\n\n    a: 1\n\n    b: 2\nWhat to do. This.\n";
        assert_eq!(for_a_terminal(page), shown);
        assert_eq!(gist(page), "Text");
    }
}
