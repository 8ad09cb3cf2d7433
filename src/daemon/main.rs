//! The daemon's own beginning, in the process that [`super::launch`] started: lock, namespaces,
//! first build, and then the socket until the lab ends.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::rc::Rc;

use nix::sys::stat::{Mode, umask};

use crate::diag::{Problem, Problems, codes};
use crate::doctor::remedy;
use crate::kernel::{birth, memory};
use crate::lab::{self, Lab};
use crate::runtime::{Held, RuntimeDir};
use crate::spec::load::decode_text;

use super::api::{Bundle, Event};
use super::server;
use super::state::Daemon;

/// The longest bundle: a file of the largest size, with every letter escaped.
const LONGEST_BUNDLE: u64 = 256 << 20;

/// Run the daemon. Reports go to standard output as [`Event`] lines.
pub fn run() -> ExitCode {
    birth::close_inherited();
    memory::few_arenas();
    match begin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            report(&Event::Failed(vec![*problem]));
            ExitCode::FAILURE
        }
    }
}

/// Tell the caller. One that has gone away is noticed by its end of standard input, not here.
pub fn report(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn begin() -> Result<(), Box<Problem>> {
    let bundle = read_bundle().map_err(|e| {
        Box::new(Problem::error(codes::MACHINE_NAMESPACES, format!("the lab's text did not arrive: {e}")))
    })?;
    let mut loaded = decode_text(&bundle.text);
    let mut problems = std::mem::take(&mut loaded.problems);
    let Some(lab) = lab::resolve(&loaded, None, &mut problems) else {
        report(&Event::Failed(problems.into_iter().collect()));
        return Ok(());
    };
    let Some(held) = hold(&bundle, &lab)? else {
        report(&Event::Running);
        return Ok(());
    };
    let forbidden = remedy::forbidden();
    birth::unshare_all().map_err(|failed| match forbidden {
        Some(limit) => namespaces_refused(&failed, &limit),
        None => no_namespaces(failed),
    })?;
    birth::fork_daemon().map_err(no_namespaces)?;
    // From here on only the daemon itself goes on, as the second process of the lab.
    let outcome = live(bundle, lab, problems, &held);
    held.sweep();
    outcome
}

fn read_bundle() -> io::Result<Bundle> {
    // Byte by byte would be slow and a buffer would swallow nothing: one line is all that comes.
    let mut line = Vec::new();
    io::stdin().lock().take(LONGEST_BUNDLE).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line).map_err(io::Error::other)
}

fn hold(bundle: &Bundle, lab: &Lab) -> Result<Option<Held>, Box<Problem>> {
    let dir = RuntimeDir::at(bundle.runtime_dir.clone())?;
    let Some(lock) = dir.lock(&lab.name)? else { return Ok(None) };
    // Whatever lies there is a leftover: we hold the lock.
    let _ = std::fs::remove_file(dir.socket(&lab.name));
    Held::new(&dir, &lab.name, lock).map(Some).map_err(|e| no_socket(&e))
}

fn no_socket(e: &io::Error) -> Box<Problem> {
    Box::new(
        Problem::error(codes::RUNTIME_DIR, format!("the lab's control socket cannot be made: {e}"))
            .help("make room in the runtime directory, or name another one in LABCTL_RUNTIME_DIR"),
    )
}

fn no_namespaces(failed: birth::Failed) -> Box<Problem> {
    namespaces_refused(&failed, &remedy::namespaces(Some(&failed.error)))
}

fn namespaces_refused(failed: &birth::Failed, help: &str) -> Box<Problem> {
    Box::new(
        Problem::error(codes::MACHINE_NAMESPACES, format!("the machine gives no namespaces: {failed}"))
            .help(format!("{help}; `labctl doctor` tries everything that a lab needs")),
    )
}

fn live(bundle: Bundle, lab: Lab, problems: Problems, held: &Held) -> Result<(), Box<Problem>> {
    birth::name_process("labctl");
    birth::mounts().map_err(no_namespaces)?;
    raise_descriptor_limit();
    let listener = listen(held).map_err(|e| no_socket(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| no_socket(&e))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let daemon = Rc::new(Daemon::new(bundle.text.clone(), lab).map_err(|e| no_socket(&e))?);
        tokio::select! {
            outcome = serve(&daemon, listener, problems, bundle.lifeline) => outcome,
            () = caller_is_gone(&daemon, bundle.lifeline) => Ok(()),
            () = told_to_end(&daemon) => Ok(()),
        }
    })
}

async fn serve(
    daemon: &Rc<Daemon>,
    listener: UnixListener,
    problems: Problems,
    lifeline: bool,
) -> Result<(), Box<Problem>> {
    let listener = tokio::net::UnixListener::from_std(listener).map_err(|e| no_socket(&e))?;
    let accepting = tokio::task::spawn_local(server::run(Rc::clone(daemon), listener));
    match daemon.build(report).await {
        Ok(mut summary) => {
            summary.warnings = problems.into_iter().collect();
            daemon.set_built();
            daemon.services_changed(daemon.services.proxies()).await;
            tokio::task::spawn_local(Rc::clone(daemon).follow_endpoints());
            tokio::task::spawn_local(Rc::clone(daemon).follow_balancers());
            report(&Event::Done(summary));
        }
        Err(failed) => {
            report(&Event::Failed(failed));
            return Ok(());
        }
    }
    if !lifeline {
        birth::let_go_of_caller().map_err(|e| no_socket(&e))?;
    }
    // The server ends only with the lab.
    let _ = accepting.await;
    Ok(())
}

fn listen(held: &Held) -> io::Result<UnixListener> {
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(held.socket());
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A thousand pods need some thousand descriptors; the soft limit is often 1024.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Standard input ends when the caller does. Before the lab is built that means that nobody
/// waits for it any more; afterwards only a lab in the foreground ends with it.
async fn caller_is_gone(daemon: &Daemon, lifeline: bool) {
    let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() else { return std::future::pending().await };
    let Ok(mut stdin) = tokio::net::unix::pipe::Receiver::from_owned_fd(stdin) else {
        return std::future::pending().await;
    };
    let mut byte = [0u8; 16];
    while matches!(tokio::io::AsyncReadExt::read(&mut stdin, &mut byte).await, Ok(n) if n > 0) {}
    if daemon.is_built() && !lifeline {
        std::future::pending::<()>().await;
    }
}

async fn told_to_end(daemon: &Daemon) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return daemon.ended().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = daemon.ended() => {}
    }
}
