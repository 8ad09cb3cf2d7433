//! `labctl test`, for CI: exit codes, reports, and nothing else in a pipe; and every lab of the
//! project passes it.

use std::fs;
use std::path::{Path, PathBuf};

use quick_junit::Report;

use crate::harness::{Bench, Ran};
use crate::sample::FOUR_PODS;
use crate::{as_ordinary_user_with_tun, as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    a_lab_that_is_as_expected_gives_0_and_leaves_nothing,
    a_probe_that_differs_gives_1_and_shows_both_sides,
    a_bad_file_gives_2_and_the_others_are_tested_all_the_same,
    a_lab_that_runs_already_is_refused_and_left_alone,
    the_junit_report_has_every_probe,
    what_differed_is_traced_while_the_lab_is_up,
    a_pipe_gets_the_answer_and_nothing_else,
    each_lab_of_a_directory_is_tested_and_summed_up,
    a_lab_that_is_not_ready_is_not_said_to_run_on,
    a_picture_shows_who_answered_and_is_the_one_in_the_book,
    the_projects_labs_pass,
];
as_root![a_machine_that_cannot_gives_3, the_projects_udp_labs_pass];
as_ordinary_user_with_tun![the_projects_udp_labs_pass];

fn a_lab_that_is_as_expected_gives_0_and_leaves_nothing(bench: &Bench) {
    let said = bench.ok(&["test", &bench.write(FOUR_PODS)]);
    assert!(said.contains("3 probes: 3 as expected"), "{said}");
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    bench.nothing_lives();
}

fn wrong() -> String {
    FOUR_PODS.replace("pod: b1, source: a1", "pod: b1, source: a2")
}

fn a_probe_that_differs_gives_1_and_shows_both_sides(bench: &Bench) {
    let ran = bench.run(&["test", &bench.write(&wrong())]).ends_with(1);
    assert!(ran.stdout.contains("expected:") && ran.stdout.contains("10.244.1.3"), "{ran}");
    assert!(ran.stdout.contains("observed:") && ran.stdout.contains("10.244.1.2"), "{ran}");
    assert!(ran.stdout.contains("3 probes: 2 as expected, 1 differed"), "{ran}");
}

fn a_bad_file_gives_2_and_the_others_are_tested_all_the_same(bench: &Bench) {
    let bad = bench.write_as(&format!("{}-bad", bench.lab), "hosts: { node1: {}, node1: {} }\n");
    let good = bench.write(FOUR_PODS);
    let ran = bench.run(&["test", &bad, &good]).ends_with(2).says("yaml-duplicate-key");
    assert!(ran.stdout.contains("3 probes: 3 as expected"), "{ran}");
    bench.run(&["test", "no-such-file.yaml"]).ends_with(2).says("file-unreadable");
}

fn a_machine_that_cannot_gives_3(bench: &Bench) {
    // A namespace limit of none, in a user namespace of its own, so that the machine's stays.
    let test = bench.labctl(&["test", &bench.write(FOUR_PODS)]);
    let arguments: Vec<String> = test.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let line = format!(
        "echo 0 > /proc/sys/user/max_net_namespaces; exec '{}' {}",
        test.get_program().display(),
        arguments.join(" ")
    );
    let mut command = bench.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &line]);
    Ran::of(command, &["test"]).ends_with(3).says("machine-namespaces");
    bench.nothing_lives();
}

fn a_lab_that_runs_already_is_refused_and_left_alone(bench: &Bench) {
    let file = bench.write(FOUR_PODS);
    bench.up(&file);
    bench.run(&["test", &file]).ends_with(2).says("lab-running");
    bench.probes_pass();
}

fn the_junit_report_has_every_probe(bench: &Bench) {
    let path = bench.path("run/report.xml");
    let target = path.to_string_lossy().into_owned();
    bench.run(&["test", &bench.write(&wrong()), "--junit", &target]).ends_with(1);
    let written = fs::read_to_string(&path).expect("the report");
    fs::remove_file(&path).expect("the report");
    let report = Report::deserialize_from_str(&written).unwrap_or_else(|e| panic!("{e}: {written}"));
    assert_eq!((report.tests, report.failures), (3, 1));
    assert_eq!(report.test_suites[0].name.as_str(), bench.lab);
    let ran = bench.run(&["test", &bench.write(FOUR_PODS), "-o", "junit"]).ends_with(0);
    let report = Report::deserialize_from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
    assert_eq!((report.tests, report.failures), (3, 0));
}

fn what_differed_is_traced_while_the_lab_is_up(bench: &Bench) {
    let probes = "  - { name: closed, from: a1, tcp: 'b1:81' }\n  - { name: program, from: a1, exec: ['false'] }\n";
    let file = bench.write(&format!("{FOUR_PODS}{probes}"));
    let path = bench.path("run/report.xml").to_string_lossy().into_owned();
    let ran = bench.run(&["test", &file, "--trace-failures", "-o", "json", "--junit", &path]).ends_with(1);
    let probes = ran.json()[0]["probes"].as_array().cloned().expect("probes");
    let traced: Vec<&str> =
        probes.iter().filter(|p| !p["trace"].is_null()).filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(traced, ["closed"]);
    let trace = &probes[3]["trace"];
    assert_eq!((&trace["asked"]["to"], &trace["asked"]["kind"]), (&"b1:81".into(), &"tcp".into()), "{trace:#}");
    let fault = &trace["verdict"]["fault"];
    assert_eq!((&fault["cause"], &fault["place"]), (&"no-listener".into(), &"pod/default/b1".into()), "{fault:#}");
    let written = fs::read_to_string(&path).expect("the report");
    fs::remove_file(&path).expect("the report");
    assert!(written.contains("cause: no-listener at b1") && written.contains("what would mend it"), "{written}");
    let ran = bench.run(&["test", &file, "--trace-failures"]).ends_with(1);
    assert!(ran.stdout.contains("closed, asked once more:\na1 asks b1:81"), "{ran}");
    assert!(ran.stdout.contains("cause: no-listener at b1"), "{ran}");
    assert_eq!(ran.stdout.matches("asked once more").count(), 1, "{ran}");
    bench.nothing_lives();
}

fn a_pipe_gets_the_answer_and_nothing_else(bench: &Bench) {
    let file = bench.write(FOUR_PODS);
    let ran = bench.run(&["test", &file, "-o", "json"]).ends_with(0);
    assert_eq!(ran.stderr, "");
    let answer = ran.json();
    assert_eq!(answer[0]["lab"], bench.lab.as_str());
    assert_eq!(answer[0]["probes"].as_array().map(Vec::len), Some(3));
    for arguments in [&["up", &file][..], &["status"], &["get", "pods"], &["probe"], &["diff"], &["plan", &file]] {
        let ran = bench.run(arguments).ends_with(0);
        assert_eq!(ran.stderr, "", "{arguments:?} says something else, too");
        assert!(!ran.stdout.contains('\u{1b}'), "colour in a pipe: {ran}");
    }
    let mut command = bench.labctl(&["validate", "no-such-file.yaml"]);
    command.env("NO_COLOR", "1").env("CLICOLOR_FORCE", "1");
    let ran = Ran::of(command, &["validate"]).ends_with(2);
    assert!(!ran.stderr.contains('\u{1b}'), "NO_COLOR is honoured: {ran}");
}

/// The numbers in a text, and the text without them.
fn numbers(text: &str) -> (Vec<f64>, String) {
    let (mut found, mut form, mut number) = (Vec::new(), String::new(), String::new());
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() || (c == '.' && !number.is_empty()) {
            number.push(c);
            continue;
        }
        if !number.is_empty() {
            found.push(number.parse().expect("a number"));
            number.clear();
            form.push('#');
        }
        form.push(c);
    }
    (found, form)
}

/// The dice fall differently each time, so it is the form that must be the same, and each number near
/// the one in the book. `UPDATE_BOOK=1` puts the picture there.
fn a_picture_shows_who_answered_and_is_the_one_in_the_book(bench: &Bench) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lab = fs::read_to_string(project.join("labs/services.yaml")).expect("the lab");
    // The bench names its labs itself.
    let lab = lab.replace("\nname: services\n", "\n");
    let pictures = bench.path("pictures");
    bench.ok(&["up", "--no-probes", &bench.write(&lab)]);
    bench.ok(&["probe", "22: a thousand connections", "--svg", &pictures.display().to_string()]);
    let files: Vec<PathBuf> = fs::read_dir(&pictures).expect("pictures").map(|e| e.expect("an entry").path()).collect();
    let [file] = &files[..] else { panic!("one picture, not {files:?}") };
    assert!(file.ends_with(format!("{}-22-a-thousand-connections.svg", bench.lab)), "{file:?}");
    let drawn = fs::read_to_string(file).expect("the picture");
    let book = project.join("book/src/images/thousand-connections.svg");
    if std::env::var_os("UPDATE_BOOK").is_some() {
        fs::write(&book, &drawn).expect("the book's picture");
    }
    let ((drawn_numbers, drawn_form), (numbers, form)) =
        (numbers(&drawn), numbers(&fs::read_to_string(&book).expect("the book's picture")));
    assert_eq!(drawn_form, form, "UPDATE_BOOK=1 draws it anew");
    // Each of three shares of a thousand is within 70 of 333, as the lab itself has it; the longest
    // bar has 400 pixels, so a bar may be off by as much again.
    for (drawn, written) in drawn_numbers.iter().zip(&numbers) {
        assert!((drawn - written).abs() <= 140.0, "{drawn} and {written} are too far apart:\n{drawn_form}");
    }
}

/// The project's labs; a folder of several files is one lab, but for that of labs to be broken.
fn labs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs");
    let paths = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("the project's labs").map(|e| e.expect("an entry").path());
        entries.filter(|p| p.is_dir() || p.extension().is_some_and(|e| e == "yaml")).collect()
    };
    let broken = folder.join("broken");
    let mut labs: Vec<PathBuf> = paths(&folder).into_iter().filter(|p| *p != broken).chain(paths(&broken)).collect();
    labs.sort();
    labs
}

/// All labs but those with the back end udp, which a test below has.
fn the_projects_labs_pass(bench: &Bench) {
    pass(bench, |backend| backend != "udp");
}

fn the_projects_udp_labs_pass(bench: &Bench) {
    pass(bench, |backend| backend == "udp");
}

fn pass(bench: &Bench, chosen: fn(&str) -> bool) {
    let mut passed = 0;
    for lab in labs() {
        let file = bench.path(lab.file_name().and_then(|n| n.to_str()).expect("a name"));
        // The project may lie where the bench's user cannot go.
        let copied = std::process::Command::new("cp").arg("-r").args([&lab, &file]).status();
        assert!(copied.expect("cp").success(), "{} can be copied", lab.display());
        let file = file.to_string_lossy().into_owned();
        let plan = bench.json(&["plan", &file]);
        if chosen(plan["lab"]["cluster"]["backend"]["type"].as_str().expect("a back end")) {
            bench.ok(&["test", &file]);
            passed += 1;
        }
    }
    assert!(passed > 0, "no lab was chosen");
}

fn each_lab_of_a_directory_is_tested_and_summed_up(bench: &Bench) {
    let labs = bench.path("run/labs");
    fs::create_dir(&labs).expect("a directory");
    let file = |name: &str, text: &str| fs::write(labs.join(name), text).expect("a lab file");
    let name = |n: &str| format!("{}-{n}", bench.lab);
    file("a.yaml", &format!("name: {}\n{FOUR_PODS}", name("a")));
    file("b.yaml", &format!("name: {}\n{}", name("b"), wrong()));
    file("c.yaml", "hots: { node1: {} }\n");
    let (dir, report) = (labs.to_string_lossy().into_owned(), labs.join("report.xml").to_string_lossy().into_owned());
    // The bench's user writes there.
    let ran = bench.run(&["test", &dir, "--junit", &report.replace("/labs/", "/")]).ends_with(2);
    for words in ["passed", "differed", "not tested", "3 labs: 1 as expected, 2 not"] {
        assert!(ran.stdout.contains(words), "{words} is not in {ran}");
    }
    assert_eq!(ran.stderr.matches("labctl explain").count(), 1, "{ran}");
    let written = fs::read_to_string(report.replace("/labs/", "/")).expect("the report");
    fs::remove_file(report.replace("/labs/", "/")).expect("the report");
    let report = Report::deserialize_from_str(&written).unwrap_or_else(|e| panic!("{e}: {written}"));
    let suites: Vec<&str> = report.test_suites.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(suites[..2], [name("a"), name("b")]);
    assert_eq!((report.tests, report.failures, report.errors), (7, 1, 1), "{written}");
    let ran = bench.run(&["validate", &dir]).ends_with(2).says("spec-unknown-field");
    assert!(ran.stdout.contains("3 labs: 2 valid, 1 not"), "{ran}");
    bench.run(&["up", &dir]).ends_with(2).says("holds several labs");
    assert_eq!(bench.json(&["list"]), serde_json::json!([]));
    fs::remove_dir_all(&labs).expect("the directory");
}

fn a_lab_that_is_not_ready_is_not_said_to_run_on(bench: &Bench) {
    let shy = "hosts: { node1: {} }\npods: { shy: { readinessProbe: { tcpSocket: { port: 9 } } } }\n";
    let ran = bench.run(&["test", &bench.write(shy), "--timeout", "1"]).ends_with(1).says("the lab was ended");
    assert!(!ran.stderr.contains("runs on"), "{ran}");
    bench.nothing_lives();
}
