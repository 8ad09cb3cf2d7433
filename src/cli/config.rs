//! `get config`: the configuration that an ingress controller serves by, as it was generated, each part
//! with the object that it comes from. What was refused is told, and shown where it is asked for.

use std::process::ExitCode;

use serde_json::json;

use crate::daemon::api::ControllerConfig;
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
    let wanted = args.wanted_config;
    let config: ControllerConfig = client.get(&format!("/labctl/v1/config?target={target}&wanted={wanted}"))?;
    print(args.format.output, &json!(config.text), |_| config.text.clone());
    if let Some(why) = config.refused {
        let what = match wanted {
            true => "this is refused, and the configuration before it is in force",
            false => "this is in force; what is wanted instead is refused, and `--wanted` shows it",
        };
        anstream::eprintln!("{name}: {what}: {why}");
    }
    Ok(ExitCode::SUCCESS)
}
