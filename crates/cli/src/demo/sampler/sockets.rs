//! Sockets of the network namespace: TCP and UDP over both versions of IP, and unix.

use procfs::net::{TcpNetEntry, UdpNetEntry, UnixNetEntry};

use super::super::kinds::{Socket, endpoint, protocol, text_end};
use super::Sink;

pub(super) fn visit<S: Sink>(sink: &mut S) -> Result<(), S::Error> {
    for (number, entries) in
        [(protocol::TCP, procfs::net::tcp()), (protocol::TCP6, procfs::net::tcp6())]
    {
        entries.iter().flatten().try_for_each(|entry| sink.record(&of_tcp(number, entry)))?;
    }
    for (number, entries) in
        [(protocol::UDP, procfs::net::udp()), (protocol::UDP6, procfs::net::udp6())]
    {
        entries.iter().flatten().try_for_each(|entry| sink.record(&of_udp(number, entry)))?;
    }
    procfs::net::unix().iter().flatten().try_for_each(|entry| sink.record(&of_unix(entry)))
}

fn of_tcp(number: u8, entry: &TcpNetEntry) -> Socket {
    let (local, local_port) = endpoint(&entry.local_address);
    let (remote, remote_port) = endpoint(&entry.remote_address);
    Socket {
        protocol: number,
        state: entry.state.to_u8(),
        local_port,
        uid: entry.uid.into(),
        inode: entry.inode.into(),
        local,
        remote,
        remote_port,
        reserved: 0.into(),
        send_queue: entry.tx_queue.into(),
        receive_queue: entry.rx_queue.into(),
        path: [0; 20],
    }
}

fn of_udp(number: u8, entry: &UdpNetEntry) -> Socket {
    let (local, local_port) = endpoint(&entry.local_address);
    let (remote, remote_port) = endpoint(&entry.remote_address);
    Socket {
        protocol: number,
        state: entry.state.to_u8(),
        local_port,
        uid: entry.uid.into(),
        inode: entry.inode.into(),
        local,
        remote,
        remote_port,
        reserved: 0.into(),
        send_queue: entry.tx_queue.into(),
        receive_queue: entry.rx_queue.into(),
        path: [0; 20],
    }
}

fn of_unix(entry: &UnixNetEntry) -> Socket {
    let path = entry.path.as_deref().map_or_else(String::new, |p| p.to_string_lossy().into_owned());
    Socket {
        protocol: protocol::UNIX,
        state: entry.state.to_u8(),
        local_port: 0.into(),
        uid: 0.into(),
        inode: entry.inode.into(),
        local: [0; 16],
        remote: [0; 16],
        remote_port: 0.into(),
        reserved: 0.into(),
        send_queue: 0.into(),
        receive_queue: 0.into(),
        path: text_end(&path),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use zerocopy::FromBytes;

    use super::super::Group;
    use super::super::tests::collected;
    use super::*;

    #[test]
    fn a_listening_and_a_datagram_socket_of_this_process_are_found_by_their_ports() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (_one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let found: Vec<_> = collected(Group::Sockets)
            .0
            .into_values()
            .map(|bytes| Socket::read_from_bytes(&bytes).unwrap())
            .collect();
        let at = |number: u8, port: u16| {
            found.iter().any(|s| s.protocol == number && s.local_port.get() == port)
        };
        assert!(at(protocol::TCP, tcp.local_addr().unwrap().port()));
        assert!(at(protocol::UDP, udp.local_addr().unwrap().port()));
        assert!(found.iter().any(|s| s.protocol == protocol::UNIX));
    }
}
