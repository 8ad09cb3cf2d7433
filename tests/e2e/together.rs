//! Several labs, several callers, and a runtime directory without room.

use crate::harness::process::Tree;
use crate::harness::{Background, Bench, Ran, until};
use crate::sample::FOUR_PODS;
use crate::{as_root, as_root_and_ordinary_user};

as_root_and_ordinary_user![
    two_labs_with_the_same_addresses_do_not_see_each_other,
    many_ups_at_once_make_one_lab,
    a_lab_that_is_not_named_must_be_the_only_one,
];
as_root![no_room_for_the_lock_or_the_socket_is_told_and_leaves_nothing];

fn one_pod(pod: &str) -> String {
    format!(
        "hosts: {{ node1: {{}} }}\npods: {{ {pod}: {{}} }}\nprobes:\n  \
         - {{ name: who, from: node1, http: 'http://10.244.1.2:8080/', expect: {{ pod: {pod} }} }}\n"
    )
}

fn two_labs_with_the_same_addresses_do_not_see_each_other(bench: &Bench) {
    let (red, blue) = (format!("{}-red", bench.lab), format!("{}-blue", bench.lab));
    for (lab, pod) in [(&red, "red"), (&blue, "blue")] {
        bench.ok(&["up", &bench.write_as(lab, &one_pod(pod))]);
    }
    bench.ok(&["probe", "--lab", &red]);
    bench.ok(&["probe", "--lab", &blue]);
    bench.ok(&["down", &red]);
    assert_eq!(bench.labs(), [blue.as_str()]);
    bench.ok(&["probe", "--lab", &blue]);
}

fn many_ups_at_once_make_one_lab(bench: &Bench) {
    let file = bench.write(FOUR_PODS);
    let mut ups: Vec<Background> = (0..6).map(|_| Background::start(bench.labctl(&["up", &file]))).collect();
    for up in &mut ups {
        until("up returns", || up.0.try_wait().expect("a child").is_some());
        let mut said = String::new();
        std::io::Read::read_to_string(up.0.stderr.as_mut().expect("a pipe"), &mut said).expect("text");
        assert!(up.end().success(), "an up failed: {said}");
    }
    assert_eq!(bench.labs(), [bench.lab.as_str()]);
    let daemon = Tree::of(bench.daemon());
    until("only the lab's own processes are left", || {
        let ours = daemon.processes();
        bench.processes().iter().all(|p| ours.contains(p))
    });
    bench.is_as_planned();
}

fn a_lab_that_is_not_named_must_be_the_only_one(bench: &Bench) {
    let (red, blue) = (format!("{}-red", bench.lab), format!("{}-blue", bench.lab));
    bench.run(&["status"]).ends_with(2).says("lab-unknown");
    for lab in [&red, &blue] {
        bench.up(&bench.write_as(lab, &one_pod("a")));
    }
    bench.run(&["status"]).ends_with(2).says(&red).says(&blue);
    bench.ok(&["status", &red]);
    bench.run(&["status", &format!("{red}x")]).ends_with(2).says("did you mean");
}

fn no_room_for_the_lock_or_the_socket_is_told_and_leaves_nothing(bench: &Bench) {
    let file = bench.write(FOUR_PODS);
    // A tmpfs with room for the directory alone, and with room for one file in it.
    for inodes in [1, 2] {
        let up = bench.labctl(&["up", &file]);
        let line = format!(
            "mount -t tmpfs -o mode=700,nr_inodes={inodes} none '{dir}' || exit 99; '{program}' up '{file}'; code=$?; \
             ls -A '{dir}'; exit $code",
            dir = bench.runtime_dir().display(),
            program = up.get_program().display(),
        );
        let mut command = bench.command("unshare");
        command.args(["--mount", "sh", "-c", &line]);
        let ran = Ran::of(command, &["up"]).ends_with(3).says("runtime-dir").says("No space left");
        assert_eq!(ran.stdout, "", "nothing is left in the directory");
        bench.nothing_lives();
    }
}
