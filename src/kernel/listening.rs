//! On which ports somebody takes TCP connections in a namespace (proc_net_tcp(5)).

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::ns::NetNs;

const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// `TCP_LISTEN`.
const LISTEN: &str = "0A";

/// The ports that are listened on in `netns`. Blocks; errors where it cannot be entered or read.
pub fn ports(netns: &NetNs) -> io::Result<BTreeSet<u16>> {
    netns.run(|| {
        let mut all = BTreeSet::new();
        for table in TABLES {
            match fs::read_to_string(table) {
                Ok(text) => all.extend(text.lines().filter_map(port)),
                // A kernel without IPv6.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    })?
}

/// The port of a line that tells of a listener: `0: 00000000:1F90 00000000:0000 0A …`.
fn port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _, state) = (words.next()?, words.next()?, words.next()?);
    let (_, port) = local.rsplit_once(':')?;
    (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_sockets_those_that_listen_are_told() {
        let listens = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        assert_eq!(port(listens), Some(8080));
        assert_eq!(port(&listens.replace(" 0A ", " 01 ")), None);
        assert_eq!(port("  sl  local_address rem_address   st tx_queue rx_queue"), None);
    }
}
