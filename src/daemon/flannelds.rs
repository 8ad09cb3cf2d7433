//! The flannelds of the udp back end: a process for each host, which holds the TUN device and is
//! told over a pipe which subnet is behind which host. What it then does is `workload::flanneld`'s.
//!
//! It is a process like any other, which somebody may stop or slow down. The daemon never waits
//! for it longer than `PATIENCE`: one that does not answer in time is ended, and the next change
//! starts it again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::Mutex;

use crate::kernel::ns::NetNs;
use crate::kernel::process::{PLACE_FD, hand_over};
use crate::lab::names::NsName;
use crate::plan::{Flanneld, PeerLease};
use crate::workload::flanneld;

use super::programs::{Log, keep};
use super::telling::{Present, next_order};

/// The hidden verb that is flanneld.
pub const VERB: &str = "lab-flanneld";
/// How long a flanneld may take to begin, or to take a list of subnets.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that is told of what one said before it ended.
const MOST_LAST_WORDS: u64 = 4096;

/// The flannelds of a lab.
#[derive(Default)]
pub struct Flannelds(RefCell<BTreeMap<NsName, Daemonised>>);

struct Daemonised {
    config: Flanneld,
    process: Process,
    control: Rc<Mutex<Sender>>,
    log: Rc<Log>,
}

/// A process that ends when it is dropped, also where it is stopped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been ended by someone else; then there is nothing left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Flannelds {
    /// Start flanneld behind a TUN device and wait until it says that it is ready.
    pub async fn start(
        &self,
        (ns, config): (&NsName, &Flanneld),
        netns: &NetNs,
        tun: OwnedFd,
        present: Present,
    ) -> io::Result<()> {
        let mut process = Process(spawn(config, netns, tun)?);
        let pipes = (process.0.stdin.take(), process.0.stdout.take(), process.0.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::Error::other("no pipes")) };
        let mut control = Sender::from_owned_fd(stdin.into())?;
        let (stdout, mut stderr) =
            (Receiver::from_owned_fd(stdout.into())?, Receiver::from_owned_fd(OwnedFd::from(stderr))?);
        let mut stdout = BufReader::new(stdout);
        let begun = async {
            tell(&mut control, &config.peers).await?;
            is_ready(&mut stdout).await
        };
        match within(PATIENCE, "it was not ready", begun).await {
            Ok(true) => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(e),
            // It has ended, and has said why, or closed what we write to.
            Ok(false) | Err(_) => {
                drop(process);
                let mut why = Vec::new();
                stderr.take(MOST_LAST_WORDS).read_to_end(&mut why).await?;
                return Err(io::Error::other(format!("it ended at once: {}", String::from_utf8_lossy(&why).trim())));
            }
        }
        let log = Rc::new(Log::default());
        let listening = Rc::clone(&log);
        tokio::task::spawn_local(async move { keep(&mut stderr, listening).await });
        let control = Rc::new(Mutex::new(control));
        tokio::task::spawn_local(converse(stdout, Rc::clone(&control), present));
        self.0.borrow_mut().insert(ns.clone(), Daemonised { config: config.clone(), process, control, log });
        Ok(())
    }

    pub fn stop(&self, ns: &NsName) {
        self.0.borrow_mut().remove(ns);
    }

    /// Tell a host's flanneld the subnets of the others. One that does not take them is ended.
    pub async fn set_peers(&self, ns: &NsName, peers: &[PeerLease]) -> io::Result<()> {
        let Some(control) = self.0.borrow().get(ns).map(|f| Rc::clone(&f.control)) else { return Ok(()) };
        let mut control = control.lock().await;
        let told = within(PATIENCE, "it did not take the list of subnets", tell(&mut control, peers)).await;
        if told.is_err() {
            // Part of a list may have been written; nothing that followed would be understood.
            self.stop(ns);
        } else if let Some(flanneld) = self.0.borrow_mut().get_mut(ns) {
            flanneld.config.peers = peers.to_vec();
        }
        told
    }

    /// What a host's flanneld complained about, where there is one or was.
    pub fn log(&self, ns: &NsName) -> Option<Rc<Log>> {
        self.0.borrow().get(ns).map(|f| Rc::clone(&f.log))
    }

    /// The process of a host's flanneld, where it lives.
    pub fn pid(&self, ns: &NsName) -> Option<u32> {
        let mut all = self.0.borrow_mut();
        let child = &mut all.get_mut(ns)?.process.0;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// What a host's flanneld was told, where it lives.
    pub fn config(&self, ns: &NsName) -> Option<Flanneld> {
        self.pid(ns)?;
        self.0.borrow().get(ns).map(|f| f.config.clone())
    }
}

fn spawn(config: &Flanneld, netns: &NetNs, tun: OwnedFd) -> io::Result<Child> {
    let options =
        flanneld::Config { listen: config.listen, port: config.port, tun_address: config.tun_address, mtu: config.mtu };
    let mut command = Command::new("/proc/self/exe");
    command.arg0("flanneld").arg(VERB).arg(serde_json::to_string(&options).map_err(io::Error::other)?);
    // Our standard error is the caller's until the lab is ready; flanneld must not hold it open.
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // SAFETY: dup2 is async-signal-safe, and the descriptor lives as long as the closure.
    unsafe {
        command.pre_exec(move || hand_over(tun.as_raw_fd(), PLACE_FD));
    }
    // A child is born into the namespace of the thread that starts it. Our copy of the descriptor
    // goes with the command, so that the device ends with flanneld.
    netns.run(|| command.spawn())?
}

async fn tell(control: &mut Sender, peers: &[PeerLease]) -> io::Result<()> {
    let mut line = serde_json::to_vec(peers).map_err(io::Error::other)?;
    line.push(b'\n');
    control.write_all(&line).await
}

/// Hear what it tells of packets, and tell it when to, until it ends.
async fn converse(stdout: BufReader<Receiver>, control: Rc<Mutex<Sender>>, present: Present) {
    let mut orders = present.orders();
    let ordering = async {
        loop {
            let order = next_order(&mut orders).await;
            // One that takes nothing is found out by the next list of subnets.
            if within(PATIENCE, "it did not take an order", control.lock().await.write_all(order.as_bytes()))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    // Its standard output ends when the process does.
    tokio::select! {
        () = ordering => {}
        () = present.hear_all(stdout, |_| {}) => {}
    }
}

/// Whether it says that it is ready, and not that it has ended.
async fn is_ready(stdout: &mut BufReader<Receiver>) -> io::Result<bool> {
    let mut said = String::new();
    stdout.read_line(&mut said).await?;
    Ok(said.trim() == "ready")
}

/// The future's outcome, or an error that says what did not happen in time.
async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {} s", limit.as_secs_f32()));
    tokio::time::timeout(limit, work).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn pipe() -> (Receiver, Sender) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let receiver = Receiver::from_owned_fd(reader.into()).expect("its reading end");
        (receiver, Sender::from_owned_fd(writer.into()).expect("its writing end"))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_flanneld_that_reads_nothing_is_waited_for_no_longer_than_allowed() {
        let (_unread, mut control) = pipe();
        let lease =
            PeerLease { subnet: "10.244.1.0/24".parse().expect("a subnet"), public_ip: [192, 168, 0, 1].into() };
        let many = vec![lease; 10_000];
        let told = within(SHORT, "it did not take the list", tell(&mut control, &many)).await;
        let error = told.expect_err("more than a pipe holds");
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::TimedOut, "it did not take the list within 0.1 s")
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_flanneld_that_says_nothing_is_waited_for_no_longer_than_allowed() {
        let (stdout, silent) = pipe();
        let mut stdout = BufReader::new(stdout);
        let error = within(SHORT, "it was not ready", is_ready(&mut stdout)).await.expect_err("nobody speaks");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(silent);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn ready_is_told_from_an_end() {
        let (stdout, mut speaker) = pipe();
        speaker.write_all(b"ready\n").await.expect("a reader");
        assert!(is_ready(&mut BufReader::new(stdout)).await.expect("a line"));
        let (stdout, speaker) = pipe();
        drop(speaker);
        assert!(!is_ready(&mut BufReader::new(stdout)).await.expect("an end"));
    }
}
