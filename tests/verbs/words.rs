//! What may be typed, and what is said: names as kubectl users write them, and the words around
//! errors and reports.

use std::process::{Command, Output};

use crate::lab::{LABCTL, LOOK, Lab, assert_has, assert_success};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn things_are_found_by_name_by_kind_and_name_and_by_both() {
    let lab = Lab::up(LOOK);
    let pod = lab.says(&["describe", "pod", "tea-1"]);
    for other in [&["describe", "tea-1"][..], &["describe", "pod/tea-1"], &["describe", "po", "pods/tea-1"]] {
        assert_eq!(lab.says(other), pod, "{other:?}");
    }
    assert_has(&lab.says(&["describe", "node1"]), "Pod subnet:");
    assert_has(&lab.says(&["describe", "node/node1"]), "Pod subnet:");
    assert_has(&lab.says(&["describe", "laptop"]), "rack1, router");
    assert_eq!(lab.says(&["exec", "pod/tea-1", "--", "hostname"]), "tea-1\n");
    assert_eq!(lab.says(&["logs", "pod/talker"]), "hello from the talker\n");
    for (arguments, words) in [
        (&["describe", "sevice", "tea-1"][..], "there are pod, service, deployment, ingress, host and client"),
        (&["describe", "service", "tea-1"], "service \"tea-1\" not found"),
        (&["describe", "host/tea-1"], "`tea-1` is not a host but a pod"),
        (&["describe", "router"], "labctl inspect stack router"),
        (&["describe", "nobody-at-all"], "labctl get clients"),
    ] {
        let wrong = lab.run(arguments);
        assert_eq!(wrong.status.code(), Some(2), "{arguments:?}");
        assert_has(&said(&wrong), words);
    }
}

#[test]
fn a_program_needs_no_dashes_in_front_of_it() {
    let lab = Lab::up(LOOK);
    let with = lab.says(&["exec", "tea-1", "--", "ip", "-4", "-o", "address", "show", "dev", "eth0"]);
    assert_has(&with, "10.244.1.2/24");
    assert_eq!(lab.says(&["exec", "tea-1", "ip", "-4", "-o", "address", "show", "dev", "eth0"]), with);
    assert_eq!(lab.says(&["exec", "--lab", "look", "tea-1", "hostname"]), "tea-1\n");
    assert_eq!(lab.says(&["exec", "tea-1", "--lab", "look", "echo", "--lab", "x"]), "--lab x\n");
}

#[test]
fn status_counts_what_the_file_has() {
    let lab = Lab::up(LOOK);
    let status = lab.json(&["status"]);
    assert_eq!((&status["networks"], &status["clients"]), (&2.into(), &1.into()));
    assert_has(&lab.says(&["status"]), "2 networks, 3 hosts, 1 client, and the internet behind the router");
    assert_eq!(lab.json(&["get", "clients"])["items"].as_array().map(Vec::len), Some(2), "it is there all the same");
}

#[test]
fn up_says_that_another_file_takes_a_lab_over() {
    let lab = Lab::up(LOOK);
    let other = lab.dir.path().join("other.yaml");
    std::fs::write(&other, format!("name: look\n{LOOK}")).expect("a file");
    let other = other.display().to_string();
    let again = lab.run(&["up", "-f", &lab.file().display().to_string()]);
    assert_success(&again);
    assert_eq!(said(&again), "", "the same file is no news");
    let taken = lab.run(&["up", "-f", &other]);
    assert_success(&taken);
    assert_eq!(said(&taken).lines().count(), 1, "{}", said(&taken));
    for words in ["lab look was made from", "look.yaml; it is changed to what", "other.yaml says"] {
        assert_has(&said(&taken), words);
    }
    // From the directory itself the file is called by its bare name, and is the same one.
    let mut command = lab.command(&["up", "other.yaml"]);
    let again = command.current_dir(lab.dir.path()).output().expect("labctl runs");
    assert_eq!(said(&again), "");
    let status = lab.command(&["status"]).current_dir(lab.dir.path()).output().expect("labctl runs");
    assert_has(&String::from_utf8_lossy(&status.stdout), ", from other.yaml\n");
}

#[test]
fn what_to_try_next_follows_from_what_differed() {
    let dir = tempfile::tempdir().expect("a directory");
    let lab = Lab { dir };
    let probes = "probes:\n  - { name: it's closed, from: a, tcp: 'b:81', retries: 0 }\n";
    std::fs::write(lab.file(), format!("hosts: {{ node1: {{}} }}\npods: {{ a: {{}}, b: {{}} }}\n{probes}"))
        .expect("a file");
    let up = lab.run(&["up", &lab.file().display().to_string()]);
    assert_eq!(up.status.code(), Some(1), "{}", said(&up));
    let text = String::from_utf8_lossy(&up.stdout).into_owned();
    let next = text.split_once("Try next:").unwrap_or_else(|| panic!("{text}")).1;
    for words in ["labctl exec a -- ip route get 10.244.1.3\n", "labctl diff\n", r"labctl probe 'it'\''s closed'"] {
        assert_has(next, words);
    }
    let route = lab.says(&["exec", "a", "--", "ip", "route", "get", "10.244.1.3"]);
    assert_has(&route, "10.244.1.3 dev eth0");
    // Nothing is cut in a pipe, and the wide table says what was asked.
    let wide = lab.run(&["probe", "-o", "wide"]);
    assert_has(&String::from_utf8_lossy(&wide.stdout), "tcp b:81 (10.244.1.3:81)");
}

#[test]
fn explain_lists_all_codes_and_shows_no_fences() {
    let run = |arguments: &[&str]| {
        let output = Command::new(LABCTL).args(arguments).output().expect("labctl runs");
        assert_success(&output);
        String::from_utf8(output.stdout).expect("text")
    };
    let list = run(&["explain"]);
    assert_eq!(list.lines().count(), labctl::diag::codes::ALL.len());
    assert_has(&list, "file-empty                The file holds no lab");
    for (code, _) in labctl::diag::codes::ALL {
        let page = run(&["explain", code.as_str()]);
        assert!(!page.contains("```") && page.contains("What to do."), "{page}");
    }
}

#[test]
fn errors_point_to_explain_once_at_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let validate = |text: &str| {
        let file = dir.path().join("lab.yaml");
        std::fs::write(&file, text).expect("a file");
        said(&Command::new(LABCTL).arg("validate").arg(&file).output().expect("labctl runs"))
    };
    let one = validate("hosts: { a: 5, b: 6 }\n");
    assert_eq!(one.matches("labctl explain").count(), 1, "{one}");
    assert!(one.ends_with("`labctl explain spec-wrong-type` tells more\n"), "{one}");
    let several = validate("hosts: { a: 5, b: { x: 6 } }\n");
    assert!(several.ends_with("`labctl explain CODE` tells more of each, such as spec-unknown-field\n"), "{several}");
    let warning = validate("hosts: { a: {} }\npods: { web: { image: nginx } }\n");
    assert!(warning.contains("image-not-run") && !warning.contains("labctl explain"), "{warning}");
}
