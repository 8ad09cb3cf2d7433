//! What can be typed of `trace`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("kind").args(["tcp", "udp", "icmp", "http", "dns"])))]
pub struct TraceArgs {
    /// Who asks: a pod, host, client or `router`
    #[arg(required_unless_present = "follow")]
    pub from: Option<String>,
    /// Whom: a pod, host, client, service, name, address or URL, with :PORT where it is wanted
    #[arg(required_unless_present = "follow")]
    pub to: Option<String>,
    /// Open a TCP connection
    #[arg(long)]
    pub tcp: bool,
    /// Send a UDP datagram
    #[arg(long)]
    pub udp: bool,
    /// Ping
    #[arg(long, visible_alias = "ping")]
    pub icmp: bool,
    /// Send an HTTP request; a URL as target does so, too
    #[arg(long)]
    pub http: bool,
    /// Look the name up in the cluster's DNS, as the asker's resolver would
    #[arg(long)]
    pub dns: bool,
    /// The port, by number or name; the target's first where it is left out
    #[arg(short, long)]
    pub port: Option<String>,
    /// Send an HTTP request there in place of the URL's host, as curl's --connect-to; `ingress` is the
    /// ingress controller
    #[arg(long, value_name = "NAME")]
    pub connect_to: Option<String>,
    /// Accept any certificate
    #[arg(short = 'k', long)]
    pub insecure: bool,
    /// Bytes of a ping's packet, which must not be fragmented then
    #[arg(short, long, value_name = "BYTES")]
    pub size: Option<u32>,
    /// Let a ping's packet be fragmented
    #[arg(long, requires = "size")]
    pub fragment: bool,
    /// The time to live of a ping, a datagram or a connection's packets: each router on the way takes one from it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub ttl: Option<u8>,
    /// Seconds to wait for an answer, or to follow [default: 2; while following: until Ctrl-C]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<f64>,
    /// Tell the way back in full, too
    #[arg(long)]
    pub reply: bool,
    /// Say what a fault rests on and what would mend it
    #[arg(long)]
    pub why: bool,
    /// Send nothing: say what the plan says, without root and, with --file, without a running lab
    #[arg(long)]
    pub predict: bool,
    /// The lab file to predict from, in place of a running lab
    #[arg(short, long, value_name = "FILE", requires = "predict")]
    pub file: Option<String>,
    /// Send nothing: watch what a pod, host or client sends and gets
    #[arg(long, value_name = "POD", conflicts_with_all = ["from", "to", "predict", "kind", "port", "size", "connect_to", "ttl"])]
    pub follow: Option<String>,
    /// Follow without some means, to see what each costs: `rules`, `conntrack`, `drops`, `senders`, with commas between
    #[arg(long, value_name = "MEANS", requires = "follow", hide = true)]
    pub without: Option<String>,
    /// The lab; may be left out where only one runs
    #[arg(short, long)]
    pub lab: Option<String>,
    /// How to show it; by the ending of the file that --out names where it is left out, else as text
    #[arg(short, long, value_enum)]
    pub output: Option<TraceFormat>,
    /// Write it to this file in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl TraceArgs {
    /// How it is to be shown.
    pub fn format(&self) -> TraceFormat {
        let ending = self.out.as_ref().and_then(|path| path.extension()?.to_str());
        let by_ending = || match ending? {
            "json" => Some(TraceFormat::Json),
            "pcapng" | "pcap" => Some(TraceFormat::Pcapng),
            "mmd" | "mermaid" => Some(TraceFormat::Mermaid),
            "html" | "htm" => Some(TraceFormat::Html),
            _ => None,
        };
        self.output.or_else(by_ending).unwrap_or_default()
    }

    /// The ending of `--out` where it is none that any form has, and no form is chosen.
    pub fn strange_ending(&self) -> Option<&str> {
        let ending = self.out.as_ref().filter(|_| self.output.is_none())?.extension()?.to_str()?;
        let known = ["txt", "text", "json", "pcapng", "pcap", "mmd", "mermaid", "html", "htm"];
        (!known.contains(&ending)).then_some(ending)
    }
}

/// How a trace is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    #[default]
    Text,
    /// Text with every rule and every packet
    Wide,
    Json,
    /// Packets of every device, for Wireshark
    Pcapng,
    /// A sequence diagram
    Mermaid,
    /// A page that plays it along a picture of the lab
    Html,
}
