//! The built-in controller: a reverse proxy on hyper and rustls, in one process with one thread.
//!
//! A request comes in over `connection` (behind [`intake`], which refuses what could be read in two
//! ways), `decide` finds out what becomes of it, `forward` asks endpoints over `pool`, and `body`
//! passes both bodies on. `site` is what all that looks at, and what updates replace. What belongs to
//! whom is decided by `crate::plan::ingress`, so that all controllers agree about it.
//!
//! On standard output come lines `listening http ADDRESS` and `listening https ADDRESS` before `ready`;
//! on standard error the access log and, behind `ingress:`, complaints.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use self::connection::{Peer, Scheme};
use self::site::Site;
use super::{Config, Told, log};
use crate::kernel::memory;

mod balance;
mod body;
mod certificates;
mod connection;
mod decide;
mod forward;
mod headers;
pub mod intake;
mod log;
mod pages;
mod patience;
mod pool;
mod site;
mod told;
mod tunnel;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Between two looks for endpoints' connections that were idle for too long.
const SWEEP: Duration = Duration::from_secs(15);

/// Serve what is told, from the first routing on.
///
/// # Errors
/// A port that cannot be had, and TLS that cannot be done.
pub async fn serve(config: &Config, told: Told) -> io::Result<()> {
    let (http, https) = (listen(config.http)?, listen(config.https)?);
    super::say(format_args!("listening http {}", http.local_addr()?))?;
    super::say(format_args!("listening https {}", https.local_addr()?))?;
    let mut told = told;
    let first = told.routing.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
    let endpoints = told.endpoints.borrow_and_update().clone();
    let site = Rc::new(Site::new(first.unwrap_or_default(), &endpoints, told.teller.clone())?);
    told.healthy.send_replace(true);
    let room = Arc::new(Semaphore::new(room()?));
    tokio::select! {
        outcome = accept(http, Scheme::Http, (&site, &room)) => outcome,
        outcome = accept(https, Scheme::Https, (&site, &room)) => outcome,
        () = follow(told, &site) => Ok(()),
        () = site.log.write_on() => Ok(()),
        () = sweep(&site) => Ok(()),
    }
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// How many connections there may be: three quarters of the files that this process may have, which is as
/// many as it may. The rest is for endpoints; idle clients need none.
fn room() -> io::Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(1 << 20);
    Ok((most / 4 * 3).max(1))
}

async fn accept(listener: TcpListener, scheme: Scheme, (site, room): (&Rc<Site>, &Arc<Semaphore>)) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    loop {
        // Who finds no room waits in the kernel's queue.
        let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, from)) => {
                let peer = Peer::new((from, port), scheme, place);
                tokio::task::spawn_local(connection::attend(Rc::clone(site), stream, peer));
            }
            // The client's own trouble, such as a reset before it was accepted (accept(2)).
            Err(e) if from_network(&e) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                log(format_args!("a connection has to wait: {e}"));
                // No event tells when a file is closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(e) => return Err(e),
        }
    }
}

fn from_network(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    kinds.contains(&error.kind())
        || matches!(
            error.raw_os_error(),
            Some(libc::ENETDOWN | libc::EPROTO | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ETIMEDOUT)
        )
}

/// Take in updates for ever.
async fn follow(mut told: Told, site: &Site) {
    loop {
        tokio::select! {
            Ok(()) = told.routing.changed() => {
                let routing = told.routing.borrow_and_update().clone();
                if let Err(e) = site.set_routing(routing.unwrap_or_default()) {
                    log(format_args!("a change is not served: {e}"));
                }
            }
            Ok(()) = told.endpoints.changed() => {
                let endpoints = told.endpoints.borrow_and_update().clone();
                site.set_endpoints(&endpoints);
            }
            // Nobody tells any more; whoever runs this knows why.
            else => pending().await,
        }
    }
}

async fn sweep(site: &Site) {
    let mut turns = interval(SWEEP);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        site.pool.sweep();
        // What many clients at once have needed.
        memory::give_back();
    }
}
