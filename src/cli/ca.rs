//! `ca`: the certificate of the lab's authority, for programs that are to trust what it signed.

use std::process::ExitCode;

use serde_json::json;

use crate::diag::{Problem, codes};

use super::args::LabArgs;
use super::output::print;
use super::{Done, find_lab};

pub fn run(args: &LabArgs) -> Done {
    let pem: Option<String> = find_lab(args.lab())?.get("/labctl/v1/authority")?;
    let Some(pem) = pem else {
        let problem = Problem::error(codes::TARGET_UNKNOWN, "the lab has no authority");
        let help = "one comes with the first ingress of a lab: it signs the secrets that nobody brings";
        return Err(Box::new(problem.help(help)).into());
    };
    print(args.format.output, &json!({ "certificate": pem }), |_| pem.clone());
    Ok(ExitCode::SUCCESS)
}
