//! Ports for servers whose address must be known before they start.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Where the kernel takes ports from for connections, and for listeners that name none.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Below this, ports belong to well-known services and to the superuser.
const FIRST: u16 = 10_000;
/// Tries before the machine is held to be full; each hits a port in use with a small chance.
const TRIES: u32 = 100;

/// A free port of 127.0.0.1, held until the listener is dropped. The kernel does not give it to anybody else afterwards
/// by itself: it is outside the range of ports for those who do not care, so that the server it is meant for finds it
/// free.
pub fn reserve() -> io::Result<TcpListener> {
    let first_ephemeral = std::fs::read_to_string(EPHEMERAL).ok();
    let first_ephemeral = first_ephemeral.and_then(|text| text.split_whitespace().next()?.parse::<u16>().ok());
    let count = u64::from(first_ephemeral.unwrap_or(FIRST).saturating_sub(FIRST));
    for _ in 0..if count > 0 { TRIES } else { 0 } {
        let offset = u16::try_from(crate::os::random_u64()? % count).expect("below the number of ports");
        match TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + offset)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_are_not_given_away() {
        let reserved = [reserve().expect("a port"), reserve().expect("a port")];
        let ports = reserved.each_ref().map(|listener| listener.local_addr().expect("bound").port());
        assert_ne!(ports[0], ports[1]);
        drop(reserved);
        let others: Vec<_> = (0..100).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        assert!(others.iter().all(|other| !ports.contains(&other.local_addr().expect("bound").port())));
    }
}
