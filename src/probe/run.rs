//! Probes side by side: how many at once, how often each is asked, when it is asked again.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::expect::{Tally, expected};
use super::outcome::{Answer, Failure, Kind, Observation, Outcome, Verdict, asked};
use super::{Asking, Field, dns, exec, http, name, ping, stream, udp};
use crate::lab::probe::{Ask, Probe};

/// How many tries of one probe are under way at once.
const TRIES_AT_ONCE: usize = 8;
/// How many differing tries of a round are enough: then the round has failed, and as nobody may
/// answer at all, the rest of it could take a time limit each.
const ENOUGH_DIFFER: u64 = 20;
/// The pause before a probe that differed is asked again; it doubles each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Ask all of `probes`, at most `at_once` at a time (at least one), and give the outcomes in the
/// same order. Never fails as a whole: what could not be asked is an outcome that differs.
/// Dropping the future stops all of it, programs included.
pub async fn run_all(probes: &[Probe], field: Arc<Field>, at_once: usize) -> Vec<Outcome> {
    let jobs = probes.iter().cloned().map(|probe| {
        let field = field.clone();
        async move { run_one(&Arc::new(probe), &field).await }
    });
    let mut outcomes: Vec<Option<Outcome>> = probes.iter().map(|_| None).collect();
    side_by_side(jobs, at_once, |done| {
        if let Some((n, outcome)) = done {
            outcomes[n] = Some(outcome);
        }
    })
    .await;
    // A task that ended without a result has panicked; its probe still gets its line.
    probes.iter().zip(outcomes).map(|(probe, outcome)| outcome.unwrap_or_else(|| broken(probe))).collect()
}

fn broken(probe: &Probe) -> Outcome {
    let mut tally = Tally::new(&probe.expect);
    tally.add(broke(), &|_| Vec::new());
    outcome(probe, tally, 0, Duration::ZERO)
}

/// What is seen of a try whose task panicked.
fn broke() -> Observation {
    Observation::new(None, Err(Failure::unasked("the prober broke")))
}

/// Run jobs as tasks, at most `at_once` at a time, and hand over each result with its job's
/// number as it comes; `None` for a job that panicked.
async fn side_by_side<T, F>(jobs: impl Iterator<Item = F>, at_once: usize, mut take: impl FnMut(Option<(usize, T)>))
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut waiting = jobs.enumerate();
    let mut running = JoinSet::new();
    loop {
        while running.len() < at_once.max(1)
            && let Some((n, job)) = waiting.next()
        {
            running.spawn(async move { (n, job.await) });
        }
        match running.join_next().await {
            None => return,
            Some(result) => take(result.ok()),
        }
    }
}

async fn run_one(probe: &Arc<Probe>, field: &Arc<Field>) -> Outcome {
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut rounds = 0;
    let mut tries = 0;
    loop {
        let tally = round(probe, field).await;
        rounds += 1;
        tries += tally.tries();
        // Asked again is what may still come about, such as a server that is not yet up. Where a
        // failure must come, a success has proved the opposite, and a later failure by chance
        // must not hide it.
        let hopeless = tally.succeeded_against_expectation();
        if tally.passed() || hopeless || rounds > u64::from(probe.retries) {
            return outcome(probe, tally, tries, begin.elapsed());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Ask a probe as often as its count says.
async fn round<'a>(probe: &'a Arc<Probe>, field: &Arc<Field>) -> Tally<'a> {
    let mut tally = Tally::new(&probe.expect);
    let addresses = |ns: &_| field.addresses(ns);
    if probe.count == 1 {
        tally.add(try_once(probe, field).await, &addresses);
        return tally;
    }
    let differing = AtomicU64::new(0);
    let jobs = (0..probe.count).take_while(|_| differing.load(Relaxed) < ENOUGH_DIFFER).map(|_| {
        let (probe, field) = (probe.clone(), field.clone());
        async move { try_once(&probe, &field).await }
    });
    side_by_side(jobs, TRIES_AT_ONCE, |done| {
        let seen = done.map(|(_, seen)| seen);
        tally.add(seen.unwrap_or_else(broke), &addresses);
        differing.store(tally.differing(), Relaxed);
    })
    .await;
    tally
}

fn outcome(probe: &Probe, tally: Tally, tries: u64, took: Duration) -> Outcome {
    let kind = Kind::of(&probe.ask);
    let verdict = if tally.passed() { Verdict::Passed } else { Verdict::Differed };
    let observed = tally.observed();
    let (tried, details) = tally.into_seen();
    Outcome {
        name: probe.name.clone(),
        from: probe.from.clone(),
        kind,
        target: asked(&probe.ask),
        tried,
        verdict,
        expected: expected(&probe.expect, kind, probe.count),
        observed,
        tries,
        took_ms: took.as_secs_f64() * 1e3,
        details,
    }
}

async fn try_once(probe: &Probe, field: &Field) -> Observation {
    let Some(ns) = field.namespaces.get(&probe.from) else {
        return Observation::new(None, Err(Failure::unasked(format!("{} is not there", probe.from))));
    };
    let deadline = Instant::now() + probe.timeout;
    let (used, looked_up) = (Mutex::default(), Mutex::default());
    let asking =
        Asking { used, looked_up, field, from: &probe.from, ns, expect: &probe.expect, deadline, limit: probe.timeout };
    let mut seen = try_with(&asking, probe).await;
    seen.details.looked_up = asking.looked_up.into_inner().unwrap_or_else(PoisonError::into_inner);
    seen.details.used = asking.used.into_inner().unwrap_or_else(PoisonError::into_inner);
    seen
}

async fn try_with(asking: &Asking<'_>, probe: &Probe) -> Observation {
    let (target, port) = match probe.ask.target() {
        None => (None, 0),
        Some((target, port)) => match name::resolve(asking, target).await {
            Ok(ip) => (Some(ip), port),
            Err(failure) => return Observation::new(None, Err(failure)),
        },
    };
    let tried = target.map(|ip| if port == 0 { ip.to_string() } else { SocketAddr::new(ip, port).to_string() });
    Observation::new(tried, ask(asking, &probe.ask, target, port).await)
}

async fn ask(asking: &Asking<'_>, ask: &Ask, ip: Option<IpAddr>, port: u16) -> Result<Answer, Failure> {
    let Some(ip) = ip else {
        return match ask {
            Ask::Exec { command } => exec::ask(asking, command).await,
            _ => Err(Failure::unasked("the target has no address")),
        };
    };
    let to = SocketAddr::new(ip, port);
    match ask {
        Ask::Ping { size, dont_fragment, ttl, .. } => {
            let packet = ping::Packet { size: *size, dont_fragment: *dont_fragment, ttl: *ttl };
            ping::ask(asking, ip, packet).await
        }
        Ask::Tcp { send, ttl, .. } => stream::ask(asking, (to, *ttl), send.as_deref()).await,
        Ask::Udp { send, ttl, .. } => udp::ask(asking, (to, *ttl), send.as_deref()).await,
        Ask::Http(http) => http::ask(asking, to, http).await,
        Ask::Dns { name, search, record, tcp, .. } => {
            let names = if search.is_empty() { std::slice::from_ref(name) } else { search };
            let first = dns::Question { name, record, tcp: *tcp };
            dns::ask(asking, to, names, &first).await
        }
        Ask::Exec { command } => exec::ask(asking, command).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn jobs_are_numbered_and_bounded() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..20_u64).map(|n| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                // Long enough for others to begin beside it.
                tokio::task::yield_now().await;
                now.fetch_sub(1, SeqCst);
                n
            }
        });
        let mut results = Vec::new();
        side_by_side(jobs, 4, |done| results.extend(done)).await;
        results.sort_unstable();
        assert_eq!(results, (0..20).map(|n| (n as usize, n)).collect::<Vec<_>>());
        assert_eq!(most.load(SeqCst), 4);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_job_that_panics_costs_only_itself() {
        let jobs = (0..3).map(|n| async move { if n == 1 { panic!("on purpose") } else { n } });
        let mut results = Vec::new();
        side_by_side(jobs, 2, |done| results.push(done)).await;
        results.sort_unstable();
        assert_eq!(results, [None, Some((0, 0)), Some((2, 2))]);
    }
}
