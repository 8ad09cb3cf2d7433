//! Asking services as a program on a machine of the lab does: with curl, and with perl's sockets for
//! UDP and raw packets. And what the hosts' rules say stands behind a service.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Background, Bench, PATIENCE};

/// Seconds that an answer may take. What is dropped costs a test this long.
const WAIT: &str = "1";

/// How an HTTP request failed: curl's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Name,
    /// Refused, or no way there.
    Connect,
    Timeout,
    Other(i32),
}

/// One GET on a connection of its own. The echo server's answer, or how it failed.
pub fn get(bench: &Bench, from: &str, url: &str) -> Result<Value, Failure> {
    get_many(bench, from, url, 1).map(|mut all| all.remove(0))
}

/// So many of them, one after the other, each on a connection of its own.
pub fn get_many(bench: &Bench, from: &str, url: &str, count: u32) -> Result<Vec<Value>, Failure> {
    let urls = format!("{}/[1-{count}]", url.trim_end_matches('/'));
    let words = ["curl", "-sS", "--noproxy", "*", "--max-time", WAIT, "-H", "Connection: close", "--fail-early", &urls];
    let ran = bench.exec(from, &words);
    match ran.code {
        0 => {
            let answers: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&ran.stdout).into_iter().collect();
            let answers = answers.unwrap_or_else(|e| panic!("no JSON ({e}): {ran}"));
            assert_eq!(answers.len(), count as usize, "{ran}");
            Ok(answers)
        }
        6 => Err(Failure::Name),
        7 => Err(Failure::Connect),
        28 => Err(Failure::Timeout),
        other => Err(Failure::Other(other)),
    }
}

/// Who answered a GET, which must succeed.
#[track_caller]
pub fn who(bench: &Bench, from: &str, url: &str) -> String {
    text(&must(get(bench, from, url), from, url), "name")
}

/// The address that the answerer of a GET saw.
#[track_caller]
pub fn source(bench: &Bench, from: &str, url: &str) -> String {
    let seen = text(&must(get(bench, from, url), from, url), "source");
    seen.rsplit_once(':').expect("address and port").0.to_owned()
}

/// All who answered so many GETs, in order of their names.
#[track_caller]
pub fn answerers(bench: &Bench, from: &str, url: &str, count: u32) -> Vec<String> {
    let mut all: Vec<String> =
        must(get_many(bench, from, url, count), from, url).iter().map(|a| text(a, "name")).collect();
    all.sort();
    all.dedup();
    all
}

#[track_caller]
fn must<T>(asked: Result<T, Failure>, from: &str, url: &str) -> T {
    asked.unwrap_or_else(|failure| panic!("{from} asks {url}: {failure:?}"))
}

/// A GET must be refused, and at once: a packet that is dropped would take [`WAIT`].
#[track_caller]
pub fn refused(bench: &Bench, from: &str, url: &str) {
    let started = Instant::now();
    assert_eq!(get(bench, from, url), Err(Failure::Connect), "{from} asks {url}");
    assert!(started.elapsed() < Duration::from_millis(900), "refused after {:?}", started.elapsed());
}

/// A GET must get no answer at all.
#[track_caller]
pub fn dropped(bench: &Bench, from: &str, url: &str) {
    assert_eq!(get(bench, from, url), Err(Failure::Timeout), "{from} asks {url}");
}

/// Wait until a GET gives what is wanted.
#[track_caller]
pub fn until_answers(bench: &Bench, from: &str, url: &str, wanted: impl Fn(&Result<Value, Failure>) -> bool) {
    let started = Instant::now();
    loop {
        let got = get(bench, from, url);
        if wanted(&got) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?} {from} asks {url} and gets {got:?}");
    }
}

pub fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}")).to_owned()
}

/// A datagram and its answer.
const DATAGRAM: &str = "
my ($to, $port, $size) = @ARGV;
my $answer;
my $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $to, ($port ? (LocalPort => $port, ReuseAddr => 1) : ()))
    or do { print 'name'; exit };
$s->send('x' x $size) or do { print 'refused'; exit };
unless (IO::Select->new($s)->can_read(1)) { print 'timeout'; exit }
print defined $s->recv($answer, 65536) ? $answer : 'refused';
";

/// Ask over UDP. The answer (who answered, a line of JSON, and the bytes behind it), or in a word how
/// it failed: `refused`, `timeout` or `name`.
pub fn udp(bench: &Bench, from: &str, to: &str, datagram: Datagram) -> Result<(Value, usize), String> {
    let (port, size) = (datagram.source_port.to_string(), datagram.size.to_string());
    let words = ["perl", "-MIO::Socket::INET", "-MIO::Select", "-e", DATAGRAM, to, &port, &size];
    let said = bench.exec(from, &words).ends_with(0).stdout;
    match said.split_once('\n') {
        Some((line, rest)) => Ok((serde_json::from_str(line).expect("JSON"), rest.len())),
        None => Err(said),
    }
}

/// What is sent over UDP.
#[derive(Debug, Clone, Copy)]
pub struct Datagram {
    /// The port it comes from; 0 for any.
    pub source_port: u16,
    pub size: usize,
}

impl Datagram {
    pub const ANY: Datagram = Datagram { source_port: 0, size: 1 };
}

/// Who answered over UDP.
#[track_caller]
pub fn udp_who(bench: &Bench, from: &str, to: &str) -> String {
    let asked = udp(bench, from, to, Datagram::ANY);
    let (answer, _) = asked.unwrap_or_else(|failure| panic!("{from} asks {to} over UDP: {failure}"));
    text(&answer, "name")
}

/// A client that asks over UDP from one port, over and over, as long as the test lives.
pub struct Stream {
    _client: Background,
    answers: BufReader<ChildStdout>,
}

impl Stream {
    const LOOP: &str = "
my ($to, $from) = @ARGV; $| = 1;
my ($peer, $port) = split /:/, $to;
my $there = sockaddr_in($port, inet_aton($peer));
my $s = IO::Socket::INET->new(Proto => 'udp', LocalPort => $from) or die;
while (1) {
    $s->send('?', 0, $there);
    unless (IO::Select->new($s)->can_read(0.05)) { print qq(silence\\n); next }
    next unless defined $s->recv(my $answer, 65536);
    print $1, qq(\\n) if $answer =~ /\"name\":\"([^\"]+)\"/;
    select undef, undef, undef, 0.01;
}
";

    /// Begin to ask `to`, an address with its port, from the port `from_port` of a machine.
    pub fn start(bench: &Bench, from: &str, to: &str, from_port: u16) -> Stream {
        let port = from_port.to_string();
        let words = ["exec", from, "--", "perl", "-MIO::Socket::INET", "-MIO::Select", "-e", Self::LOOP, to, &port];
        let mut client = Background::start(bench.labctl(&words));
        let answers = BufReader::new(client.0.stdout.take().expect("a pipe"));
        Stream { _client: client, answers }
    }

    /// Pass over what has been answered up to now.
    pub fn forget(&mut self) {
        let told = self.answers.buffer().len();
        self.answers.consume(told);
    }

    /// Wait for an answer of `name`. Answers of others are passed over, and silence, which the client
    /// tells of. How long it took.
    #[track_caller]
    pub fn until_answered_by(&mut self, name: &str) -> Duration {
        let started = Instant::now();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).expect("text") > 0, "the client ended before {name} answered");
            if line.trim() == name {
                return started.elapsed();
            }
            assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?} {name} does not answer, {line:?} does");
        }
    }
}

/// The addresses and ports that a host's rules send a service port's connections to, such as
/// `default/tea:http` or `default/tea` where the port has no name.
pub fn endpoints(bench: &Bench, host: &str, service_port: &str) -> Vec<String> {
    let rules = bench.sh(host, "iptables-save -t nat");
    let comment = format!("--comment {service_port} ");
    let quoted = format!("--comment \"{service_port}\" ");
    let of_it = rules.lines().filter(|l| l.contains(&comment) || l.contains(&quoted));
    let mut all: Vec<String> =
        of_it.filter_map(|l| Some(l.split_once("--to-destination ")?.1.trim().to_owned())).collect();
    all.sort();
    all
}

/// The virtual address that the DNS gives a service.
#[track_caller]
pub fn address(bench: &Bench, from: &str, name: &str) -> String {
    bench.sh(from, &format!("getent ahostsv4 {name}")).split_whitespace().next().expect("an address").to_owned()
}
