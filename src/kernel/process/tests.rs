//! Programs are bounded, ended and reaped.

use super::*;

const MOST: usize = 64 << 10;

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[tokio::test(flavor = "current_thread")]
async fn output_is_bounded_and_does_not_hold_the_program_up() {
    let mut running = Running::start(sh("head -c 1000000 /dev/zero; exit 3")).expect("sh");
    let mut output = Vec::new();
    let status = running.until_the_end(&mut output, MOST).await.expect("an end");
    assert_eq!((status.code(), output.len()), (Some(3), MOST));
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_program_leaves_behind_is_ended() {
    let mut running = Running::start(sh("sleep 1000 & echo $!")).expect("sh");
    let mut output = Vec::new();
    running.until_the_end(&mut output, MOST).await.expect("an end");
    let left: i32 = String::from_utf8_lossy(&output).trim().parse().expect("a number");
    must_end(left).await;
}

#[tokio::test(flavor = "current_thread")]
async fn who_is_dropped_is_ended_and_reaped() {
    let running = Running::start(sh("sleep 1000")).expect("sh");
    let pid = i32::try_from(running.pid()).expect("a number");
    drop(running);
    must_end(pid).await;
    let begin = std::time::Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begin.elapsed().as_secs() < 10, "nobody has waited for {pid}");
        tokio::task::yield_now().await;
    }
}

/// The signal is there when the program's end is told; the child takes a moment to die.
async fn must_end(pid: i32) {
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|s| !s.contains(" Z ") && !s.contains(" X "))
    };
    let begin = std::time::Instant::now();
    while alive() {
        assert!(begin.elapsed().as_secs() < 10, "{pid} is still there");
        tokio::task::yield_now().await;
    }
}
