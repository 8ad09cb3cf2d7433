//! `quiz`: a running lab is given a fault that is to be found.

use std::process::ExitCode;

use serde_json::json;

use crate::daemon::client::Client;
use crate::daemon::faults::api::{Judged, PATH, Quiz, QuizRequest, fault};

use super::args::QuizArgs;
use super::output::print;
use super::{DIFFERED, Done, break_it, find_lab};

pub fn run(args: &QuizArgs) -> Done {
    if let Some(name) = &args.answer {
        fault(name)?;
    }
    let client = find_lab(args.lab.as_deref())?;
    if args.answer.is_some() || args.reveal {
        return judge(args, &client);
    }
    let quiz: Quiz = client.post(&format!("{PATH}/quiz"), &QuizRequest { seed: args.seed })?;
    print(args.format.output, &json!(quiz), |_| {
        format!(
            "lab {} is broken, and this is what one sees:\n{}\nWhat is it? Look at:\n{}\
             \n`labctl break --list` has the faults, `labctl quiz --answer NAME` judges,\n\
             `labctl quiz --reveal` tells, as does `--why` behind `labctl trace`; `labctl heal` ends it\n",
            client.lab(),
            break_it::asked(&quiz.asks, &quiz.now),
            looks(&quiz, &break_it::named(args.lab.as_deref())),
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// Where one looks first.
fn looks(quiz: &Quiz, lab: &str) -> String {
    let from = &quiz.question.from;
    let lines = [
        "labctl status".to_owned(),
        format!("labctl inspect stack {from}"),
        "labctl get pods -o wide".to_owned(),
        "labctl get services,endpoints".to_owned(),
        "labctl inspect flannel".to_owned(),
        format!("labctl shell {from}"),
        format!("labctl trace {}", quiz.question.typed().join(" ")),
    ];
    lines.map(|line| format!("  {line}{lab}\n")).concat()
}

fn judge(args: &QuizArgs, client: &Client) -> Done {
    let judged: Judged = client.post(&format!("{PATH}/judge"), &args.answer)?;
    print(args.format.output, &json!(judged), |_| {
        let Some(name) = &judged.name else {
            return "no, it is something else\n".to_owned();
        };
        let (on, object) = (judged.on.as_deref().unwrap_or_default(), judged.object.as_deref().unwrap_or_default());
        // Of a service or ingress there is no more to say.
        let what = if on == object { String::new() } else { format!(" ({object})") };
        let yes = if args.answer.is_some() { "yes, it is" } else { "it is" };
        let says = judged.says.as_deref().unwrap_or_default();
        format!("{yes} {name}, on {on}{what}\n  {says}\n`labctl heal` repairs it\n")
    });
    Ok(if judged.right { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}
