//! Control channels of the lab's processes: lines of JSON, read within bounds on a thread of its
//! own, so that those who are served do not wait. What a line means is each process's own.

use std::io::{self, BufRead, BufReader, Read};

use tokio::sync::oneshot;

use super::events::Teller;

/// Bytes of the longest line: some 100,000 services with their endpoints. A longer one ends the
/// process, as nothing sensible can follow it.
const MAX_LINE: u64 = 256 << 20;

/// Give each line of `control` to `each`, on a new thread, until either ends; orders to tell of what is done are the
/// `teller`'s. What is returned tells of the end, and of an error that was the reason.
///
/// # Errors
/// A thread that cannot be started.
pub fn follow(
    control: impl Read + Send + 'static,
    teller: Teller,
    mut each: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let outcome = read(control, &mut |line| if teller.obey(line) { Ok(()) } else { each(line) });
        // Where nobody waits any more, the process has ended before.
        let _ = tell.send(outcome);
    })?;
    Ok(ended)
}

fn read(control: impl Read, each: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut control = BufReader::with_capacity(64 << 10, control);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut control).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an update is longer than 256 MiB"));
        }
        each(&line)?;
        // The next one may be small and long in coming.
        line.shrink_to(64 << 10);
    }
}
