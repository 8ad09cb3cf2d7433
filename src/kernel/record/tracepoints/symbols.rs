//! Names of the kernel's functions (/proc/kallsyms), which are the same as long as the machine runs.

use std::fs;
use std::sync::OnceLock;

/// Sorted by address.
static FUNCTIONS: OnceLock<Vec<(u64, Box<str>)>> = OnceLock::new();

/// Read them, which takes some 100 ms the first time. What is loaded into the kernel later has no names.
pub(in crate::kernel::record) fn load() -> &'static [(u64, Box<str>)] {
    FUNCTIONS.get_or_init(|| parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default()))
}

/// `ip_rcv_core+0x1a0` for an address as `0xffffffff81234567`; the address where the kernel hides names.
pub(in crate::kernel::record) fn name(address: &str) -> Option<String> {
    let wanted = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    find(load(), wanted)
}

fn parse(text: &str) -> Vec<(u64, Box<str>)> {
    let function = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let address = u64::from_str_radix(address, 16).ok().filter(|address| *address > 0)?;
        matches!(kind, "t" | "T").then(|| (address, name.into()))
    };
    let mut all: Vec<_> = text.lines().filter_map(function).collect();
    all.sort_unstable_by_key(|(address, _)| *address);
    all
}

fn find(all: &[(u64, Box<str>)], wanted: u64) -> Option<String> {
    let (address, name) = all.get(all.partition_point(|(address, _)| *address <= wanted).checked_sub(1)?)?;
    Some(format!("{name}+{:#x}", wanted - address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_by_the_function_it_is_in() {
        let all = parse("ffffffff81000010 T ip_rcv\nffffffff81000000 t other\nffffffff81000020 D data\n");
        assert_eq!(find(&all, 0xffff_ffff_8100_0018).as_deref(), Some("ip_rcv+0x8"));
        assert_eq!(find(&all, 1), None);
        assert_eq!(find(&parse("0000000000000000 T ip_rcv\n"), 5), None, "names are hidden");
    }
}
