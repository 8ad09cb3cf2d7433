//! Pods with programs of their own: their output, their end, and what they may cost.

use std::io::{BufRead, BufReader};

use crate::as_root_and_ordinary_user;
use crate::harness::{Background, Bench, until};

as_root_and_ordinary_user![
    what_a_program_writes_is_in_its_log,
    a_log_can_be_followed,
    a_log_is_followed_across_a_programs_replacement,
    a_program_that_keeps_dying_is_in_a_crash_loop_and_the_rest_goes_on,
    a_program_that_ends_well_and_must_not_be_restarted_has_completed,
    a_program_that_floods_its_log_costs_bounded_memory,
    a_program_has_its_arguments_environment_and_place,
    a_changed_command_restarts_only_that_program,
];

const GROUND: &str = "hosts: { node1: {} }\npods:\n  good: {}\n";

/// Add a pod with a shell line as its program.
fn with(name: &str, fields: &str, line: &str) -> String {
    let line = line.replace('\'', "''");
    format!(
        "{GROUND}  {name}: {{ {fields} command: [sh, -c, '{line}'] }}\nprobes:\n  - {{ from: node1, ping: good }}\n"
    )
}

fn what_a_program_writes_is_in_its_log(bench: &Bench) {
    bench.up(&bench.write(&with("talker", "", "echo out; echo err >&2; exec sleep 1000")));
    until("both lines are in the log", || {
        let log = bench.ok(&["logs", "talker"]);
        log.contains("out\n") && log.contains("err\n")
    });
}

fn a_log_can_be_followed(bench: &Bench) {
    let wait = "while [ ! -e /run/go ]; do sleep 0.1; done; echo second; exec sleep 1000";
    bench.up(&bench.write(&with("talker", "", &format!("echo first; {wait}"))));
    let mut logs = Background::start(bench.labctl(&["logs", "-f", "talker"]));
    let mut lines = BufReader::new(logs.0.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "first");
    bench.sh("talker", "touch /run/go");
    assert_eq!(next(), "second");
    bench.ok(&["down"]);
    logs.end();
}

fn a_log_is_followed_across_a_programs_replacement(bench: &Bench) {
    let talker = |line: &str| bench.write(&with("talker", "", &format!("echo {line}; exec sleep 1000")));
    bench.up(&talker("first"));
    let mut logs = Background::start(bench.labctl(&["logs", "-f", "talker"]));
    let mut lines = BufReader::new(logs.0.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "first");
    // Longer than what was written before, and then shorter: no position in it is the old one's.
    for line in ["the second one says far more than the first one did", "3"] {
        bench.up(&talker(line));
        assert_eq!(next(), line);
        assert_eq!(bench.ok(&["logs", "talker"]), format!("{line}\n"), "a new program has a new log");
    }
    bench.up(&bench.write(&format!("{GROUND}  talker: {{}}\n")));
    logs.end();
}

fn a_program_that_keeps_dying_is_in_a_crash_loop_and_the_rest_goes_on(bench: &Bench) {
    let file = bench.write(&with("dying", "", "echo I die; exit 3"));
    // Without a readiness probe it counts as ready in the moments in which it lives.
    bench.run(&["up", &file, "--timeout", "1", "--no-probes"]);
    until("it waits for its third start", || bench.row("dying").contains("CrashLoopBackOff"));
    let row = bench.row("dying");
    assert!(row.contains("0/1"), "{row}");
    let status = bench.ok(&["status"]);
    assert!(status.contains("pod dying") && status.contains("ended with 3"), "{status}");
    let restarts = bench.pod("dying")["status"]["containerStatuses"][0]["restartCount"].as_u64();
    assert!(restarts.is_some_and(|n| n >= 1), "it was started again");
    assert!(bench.ok(&["logs", "dying"]).matches("I die").count() >= 2);
    bench.probes_pass();
}

fn a_program_that_ends_well_and_must_not_be_restarted_has_completed(bench: &Bench) {
    let file = bench.write(&with("job", "restartPolicy: Never,", "exit 0"));
    bench.run(&["up", &file, "--timeout", "1", "--no-probes"]);
    until("it has completed", || bench.row("job").contains("Completed"));
    assert_eq!(bench.pod("job")["status"]["phase"], "Succeeded");
}

fn a_program_that_floods_its_log_costs_bounded_memory(bench: &Bench) {
    let flood = "yes 'a line of a flood' | head -c 50000000; touch /run/done; exec sleep 1000";
    bench.up(&bench.write(&with("flood", "", flood)));
    until("fifty megabytes were written", || bench.exec("flood", &["test", "-e", "/run/done"]).code == 0);
    let memory = bench.json(&["status"])["memory_kib"].as_u64().expect("a number");
    assert!(memory < 48 * 1024, "the daemon holds {memory} KiB");
    assert!(bench.ok(&["logs", "flood"]).len() <= 256 * 1024);
    bench.probes_pass();
}

fn a_program_has_its_arguments_environment_and_place(bench: &Bench) {
    let text = "hosts: { node1: {} }\npods:\n  env:\n    command: [sh, -c, 'echo $0 $1 $TEA $(hostname) $(ls /sys/class/net); exec sleep 1000']\n    \
                args: [zero, one]\n    env: [{ name: TEA, value: green }]\n";
    bench.up(&bench.write(text));
    until("it has spoken", || bench.ok(&["logs", "env"]) == "zero one green env eth0 lo\n");
}

fn a_changed_command_restarts_only_that_program(bench: &Bench) {
    let text = |word: &str| {
        format!(
            "{GROUND}  one: {{ command: [sh, -c, 'echo {word} $$; exec sleep 1000'] }}\n  \
             two: {{ command: [sh, -c, 'echo same $$; exec sleep 1000'] }}\n"
        )
    };
    bench.up(&bench.write(&text("old")));
    let log = |pod: &str| bench.ok(&["logs", pod]);
    until("both have spoken", || log("one").starts_with("old") && log("two").starts_with("same"));
    let before = log("two");
    bench.up(&bench.write(&text("new")));
    until("the new one has spoken", || log("one").starts_with("new"));
    assert_eq!(log("two"), before, "the other one is the same process");
}
