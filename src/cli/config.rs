//! `get config`: the configuration of an ingress controller as it was generated, each part with the
//! object that it comes from.

use std::process::ExitCode;

use serde_json::json;

use crate::diag::{Problem, codes};

use super::args::GetArgs;
use super::output::print;
use super::{Done, find_lab, kube};

pub fn run(args: &GetArgs, names: &[&str]) -> Done {
    let [name] = names else {
        let problem = Problem::error(codes::TARGET_UNKNOWN, "one pod of an ingress controller is wanted");
        return Err(Box::new(problem.help("`labctl get config ingress/ingress-controller-1`")).into());
    };
    let client = find_lab(args.lab())?;
    let target = kube::target(&client, name, Some(&args.scope.namespace))?;
    let text: String = client.get(&format!("/labctl/v1/config?target={target}"))?;
    print(args.format.output, &json!(text), |_| text.clone());
    Ok(ExitCode::SUCCESS)
}
