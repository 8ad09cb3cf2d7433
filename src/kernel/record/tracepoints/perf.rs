//! Tracepoints' records through a buffer that is shared with the kernel, one for each CPU
//! (perf_event_open(2), linux/perf_event.h).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// `PERF_TYPE_TRACEPOINT`.
const TRACEPOINT: u32 = 2;
/// `PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_RAW`.
const PROCESS_TIME_AND_RECORD: u64 = 1 << 1 | 1 << 2 | 1 << 10;
/// Bits of `perf_event_attr`: not yet, tell of programs and namespaces of processes, wake by how full it is, tell the time of
/// all that is told, and a clock of our choice.
const DISABLED: u64 = 1;
const COMM: u64 = 1 << 9;
const WATERMARK: u64 = 1 << 14;
const ALL_WITH_TIME: u64 = 1 << 18;
const USE_CLOCK: u64 = 1 << 25;
const NAMESPACES: u64 = 1 << 28;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOEXEC: libc::c_ulong = 8;
const ENABLE: libc::c_ulong = 0x2400;
const DISABLE: libc::c_ulong = 0x2401;
const SET_OUTPUT: libc::c_ulong = 0x2405;
const SET_FILTER: libc::c_ulong = 0x4008_2406;
/// `PERF_RECORD_LOST`, `PERF_RECORD_COMM`, `PERF_RECORD_SAMPLE` and `PERF_RECORD_NAMESPACES`.
const LOST: u32 = 2;
const RENAMED: u32 = 3;
const SAMPLE: u32 = 9;
const MOVED: u32 = 16;
/// Bytes of a buffer, a power of two.
const BUFFER: usize = 1024 * 1024;
/// Where the page before the buffer has the kernel's and our place in it (`perf_event_mmap_page`).
const HEAD: usize = 1024;
const TAIL: usize = 1032;

/// `struct perf_event_attr`, as of its third version.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample: u64,
    read: u64,
    bits: u64,
    wakeup: u32,
    breakpoint: u32,
    unused: [u64; 4],
    stack: u32,
    clock: i32,
}

/// A tracepoint to listen to.
#[derive(Default)]
pub(in crate::kernel::record) struct Wanted<'a> {
    pub id: u64,
    pub filter: Option<&'a str>,
    /// Whether whoever waits is woken by each record, and not only when the buffer is half full.
    pub wakes: bool,
    /// Whether processes are told of, too: when one begins, runs another program or enters another namespace.
    pub processes: bool,
}

/// What was told.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// `CLOCK_MONOTONIC`, as it comes.
    pub at: u64,
    /// The process that the CPU was with, by its number in the PID namespace of whoever opened the event; 0 where it has
    /// none there, as threads of the kernel.
    pub pid: u32,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    /// By a tracepoint.
    Point(Vec<u8>),
    /// The process is now called so.
    Named(String),
    /// The process is now in this network namespace, by the device and the inode that stat(2) tells.
    In(u64, u64),
}

impl What {
    /// Of a tracepoint.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            What::Point(bytes) => Some(bytes),
            What::Named(_) | What::In(..) => None,
        }
    }
}

/// The buffer of one CPU.
pub(in crate::kernel::record) struct Ring {
    /// The first owns the buffer, into which the others write, too.
    events: Vec<OwnedFd>,
    map: *mut u8,
    page: usize,
}

// SAFETY: the mapping is the ring's own, and nothing of it is bound to a thread.
unsafe impl Send for Ring {}
// SAFETY: the mapping is only read and written through `&mut self`.
unsafe impl Sync for Ring {}

impl Ring {
    pub fn of_each_cpu(wanted: &[Wanted<'_>]) -> io::Result<Vec<Ring>> {
        // SAFETY: takes and gives numbers.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        let mut rings = Vec::new();
        for cpu in 0..i32::try_from(cpus).unwrap_or(1) {
            match Ring::open(cpu, wanted) {
                Ok(ring) => rings.push(ring),
                // It is switched off.
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(rings)
    }

    fn open(cpu: i32, wanted: &[Wanted<'_>]) -> io::Result<Ring> {
        let events = wanted.iter().map(|one| event(cpu, one)).collect::<io::Result<Vec<_>>>()?;
        let Some(first) = events.first() else { return Err(io::ErrorKind::InvalidInput.into()) };
        // SAFETY: takes and gives numbers.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let (access, length) = (libc::PROT_READ | libc::PROT_WRITE, page + BUFFER);
        // SAFETY: a new mapping at a place of the kernel's choice.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, first.as_raw_fd(), 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = Ring { map: map.cast(), page, events };
        for (i, (event, one)) in ring.events.iter().zip(wanted).enumerate() {
            if i > 0 {
                control(event, SET_OUTPUT, ring.events[0].as_raw_fd() as libc::c_ulong)?;
            }
            if let Some(filter) = one.filter {
                let text = std::ffi::CString::new(filter)?;
                control(event, SET_FILTER, text.as_ptr() as libc::c_ulong)?;
            }
            control(event, ENABLE, 0)?;
        }
        Ok(ring)
    }

    /// Let the kernel tell, or not: while it does not, what happens costs it next to nothing.
    pub(super) fn listen(&self, listens: bool) {
        for event in &self.events {
            // It cannot fail for an event that is there.
            let _ = control(event, if listens { ENABLE } else { DISABLE }, 0);
        }
    }

    /// One of the two numbers by which the kernel and we tell each other how far we are.
    fn place(&self, at: usize) -> &AtomicU64 {
        // SAFETY: both lie, aligned, in the mapping's first page, and the kernel changes them at once.
        unsafe { &*self.map.add(at).cast::<AtomicU64>() }
    }

    /// Call `each` with every record that is there. Returns how many were lost.
    pub(super) fn read(&mut self, mut each: impl FnMut(Record)) -> u64 {
        let (mut tail, head) = (self.place(TAIL).load(Ordering::Relaxed), self.place(HEAD).load(Ordering::Acquire));
        let mut lost = 0;
        while tail < head {
            let header = self.copy(tail, 8);
            let (kind, size) = (word(&header, 0), usize::from(u16::from_ne_bytes([header[6], header[7]])));
            if size < 8 {
                break;
            }
            let record = self.copy(tail + 8, size - 8);
            match kind {
                LOST => lost += long(&record, 8),
                SAMPLE => {
                    let length = usize::try_from(word(&record, 16)).unwrap_or(0);
                    let bytes = record.get(20..20 + length).unwrap_or_default().to_vec();
                    each(Record { at: long(&record, 8), pid: word(&record, 0), what: What::Point(bytes) });
                }
                kind => process(kind, &record).into_iter().for_each(&mut each),
            }
            tail += size as u64;
        }
        self.place(TAIL).store(head, Ordering::Release);
        lost
    }

    /// Bytes of the buffer, which goes on at its beginning.
    fn copy(&self, from: u64, length: usize) -> Vec<u8> {
        let start = usize::try_from(from % BUFFER as u64).unwrap_or(0);
        let first = length.min(BUFFER - start);
        let mut bytes = vec![0; length];
        // SAFETY: both parts lie in the buffer behind the first page, and the kernel leaves alone what is
        // between our place and its own.
        unsafe {
            let buffer = self.map.add(self.page);
            std::ptr::copy_nonoverlapping(buffer.add(start), bytes.as_mut_ptr(), first);
            std::ptr::copy_nonoverlapping(buffer, bytes.as_mut_ptr().add(first), length - first);
        }
        bytes
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // There is always one (`Ring::open`).
        self.events[0].as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nobody uses it any more.
        unsafe { libc::munmap(self.map.cast(), self.page + BUFFER) };
    }
}

/// A tracepoint's event on one CPU, of all processes, which does not tell anything yet.
fn event(cpu: i32, wanted: &Wanted<'_>) -> io::Result<OwnedFd> {
    let processes = if wanted.processes { COMM | NAMESPACES | ALL_WITH_TIME } else { 0 };
    let (bits, wakeup) = if wanted.wakes { (0, 1) } else { (WATERMARK, BUFFER as u32 / 2) };
    let attributes = Attributes {
        kind: TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: wanted.id,
        period: 1,
        sample: PROCESS_TIME_AND_RECORD,
        read: 0,
        bits: bits | processes | DISABLED | USE_CLOCK,
        wakeup,
        breakpoint: 0,
        unused: [0; 4],
        stack: 0,
        clock: libc::CLOCK_MONOTONIC,
    };
    let nobody: libc::c_int = -1;
    // SAFETY: the structure lives for the call and has the size that it tells.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, nobody, cpu, nobody, CLOEXEC) };
    match i32::try_from(fd) {
        // SAFETY: the descriptor is new and nobody else's.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn control(event: &OwnedFd, what: libc::c_ulong, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the value is a number, or a text that lives for the call, as `what` asks for.
    let done = unsafe { libc::ioctl(event.as_raw_fd(), what as _, value) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a record says of a process as a whole; nothing of its threads. Numbers of the process and the thread come first, the
/// same and the time last.
fn process(kind: u32, record: &[u8]) -> Option<Record> {
    let (pid, thread) = (word(record, 0), word(record, 4));
    let (own, time) = record.split_at_checked(record.len().checked_sub(8)?)?;
    let what = match kind {
        RENAMED => What::Named(String::from_utf8_lossy(own.get(8..)?.split(|b| *b == 0).next()?).into_owned()),
        // The network's namespace is the first of them.
        MOVED if long(own, 8) > 0 => What::In(long(own, 16), long(own, 24)),
        _ => return None,
    };
    (pid == thread).then_some(Record { at: long(time, 0), pid, what })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}
