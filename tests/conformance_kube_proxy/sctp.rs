//! The first packet of an SCTP association (RFC 9260, INIT), for kernels without SCTP sockets.
//! Conntrack looks at its checksum.

/// The whole packet, from `port` to `to`.
pub fn init(port: u16, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(port.to_be_bytes());
    packet.extend(to.to_be_bytes());
    // An INIT has no verification tag, and the checksum comes later.
    packet.extend([0; 8]);
    // INIT: type 1, no flags, 20 bytes; initiate tag, window, streams out and in, first number.
    packet.extend([1, 0, 0, 20]);
    packet.extend(u32::from(port).to_be_bytes());
    packet.extend(65536u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1u32.to_be_bytes());
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}
