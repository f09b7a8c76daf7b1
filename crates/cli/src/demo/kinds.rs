//! What is recorded: one payload type a kind of entity, of [`PAYLOAD_LEN`] bytes each.
//!
//! All fields are little-endian and unaligned, so the layout is the same for every compiler, and
//! there is no padding that could carry bytes nobody wrote.

use std::net::{IpAddr, SocketAddr};

use mainstay::pool::{Block, Record, Result};
use mainstay_base::mix64;
use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::twin::Twin;

/// Bytes of every payload.
pub(super) const PAYLOAD_LEN: usize = 80;

/// A payload: plain bytes with an identity in them.
pub(super) trait Payload:
    FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + 'static
{
    /// Which kind of entity it describes.
    const KIND: Kind;
    /// The name of the type, for the header of its blocks. A change of the layout changes it.
    const NAME: &'static str;

    /// What tells this entity from all others of its kind, computed from the payload alone.
    fn identity(&self) -> [u64; 2];
}

/// Declares the kinds in one place: number in the record, type, plural for people.
macro_rules! kinds {
    ($($number:literal $kind:ident $plural:literal;)*) => {
        /// A kind of entity.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u16)]
        pub(super) enum Kind { $(#[doc = $plural] $kind = $number,)* }

        impl Kind {
            /// All of them.
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The kind with this number.
            pub(super) fn from_u16(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$kind),)* _ => None }
            }

            /// For people.
            pub(super) fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)* }
            }

            /// The same block, if it was allocated for records of this kind.
            pub(super) fn typed(self, block: Block) -> Result<Block> {
                match self {
                    $(Self::$kind => block.typed::<Twin<$kind>>().map(Block::into_bytes),)*
                }
            }

            /// The identity that a payload of this kind carries.
            pub(super) fn identity_of(self, payload: &[u8]) -> Option<[u64; 2]> {
                match self {
                    $(Self::$kind => Some($kind::read_from_bytes(payload).ok()?.identity()),)*
                }
            }
        }

        $(const _: () = assert!(size_of::<$kind>() == PAYLOAD_LEN);)*
    };
}

impl<T: Payload> Record for Twin<T> {
    const NAME: &'static str = T::NAME;
}

kinds! {
    1 Process "processes";
    2 Thread "threads";
    3 Descriptor "descriptors";
    4 Socket "sockets";
    5 Disk "disks";
    6 Interface "interfaces";
    7 Mount "mounts";
    8 Counter "counters";
}

/// Text in a field of fixed length: cut at the end, filled with zeros.
pub(super) fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let len = text.len().min(N);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

/// The last bytes of a text, for paths: their end says more than their beginning.
pub(super) fn text_end<const N: usize>(whole: &str) -> [u8; N] {
    let bytes = whole.as_bytes();
    let mut field = [0; N];
    let tail = &bytes[bytes.len().saturating_sub(N)..];
    field[..tail.len()].copy_from_slice(tail);
    field
}

/// 64 bits that stand for a byte string as an identity.
fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix64(hash ^ u64::from_le_bytes(word))
    })
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A process, from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Process {
    pub(super) pid: U32,
    pub(super) parent: U32,
    pub(super) state: u8,
    pub(super) reserved: [u8; 3],
    pub(super) threads: U32,
    pub(super) user_ticks: U64,
    pub(super) system_ticks: U64,
    pub(super) start_ticks: U64,
    pub(super) resident_pages: U64,
    pub(super) virtual_bytes: U64,
    pub(super) faults: U64,
    pub(super) comm: [u8; 16],
}

impl Payload for Process {
    const KIND: Kind = Kind::Process;
    const NAME: &'static str = "demo.process/1";

    fn identity(&self) -> [u64; 2] {
        [self.pid.get().into(), self.start_ticks.get()]
    }
}

/// A thread, from `/proc/PID/task/TID/stat` and `schedstat`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Thread {
    pub(super) pid: U32,
    pub(super) tid: U32,
    pub(super) state: u8,
    pub(super) reserved: [u8; 3],
    pub(super) processor: I32,
    pub(super) user_ticks: U64,
    pub(super) system_ticks: U64,
    pub(super) start_ticks: U64,
    pub(super) run_ns: U64,
    pub(super) wait_ns: U64,
    pub(super) slices: U64,
    pub(super) comm: [u8; 16],
}

impl Payload for Thread {
    const KIND: Kind = Kind::Thread;
    const NAME: &'static str = "demo.thread/1";

    fn identity(&self) -> [u64; 2] {
        [pair(self.pid.get(), self.tid.get()), self.start_ticks.get()]
    }
}

/// An open file descriptor, from `/proc/PID/fd`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) pid: U32,
    pub(super) number: U32,
    /// Of the process: process numbers come round again.
    pub(super) start_ticks: U64,
    pub(super) target: [u8; 64],
}

impl Payload for Descriptor {
    const KIND: Kind = Kind::Descriptor;
    const NAME: &'static str = "demo.descriptor/1";

    fn identity(&self) -> [u64; 2] {
        [pair(self.pid.get(), self.number.get()), self.start_ticks.get()]
    }
}

/// A socket, from `/proc/net/{tcp,tcp6,udp,udp6,unix}`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Socket {
    /// One of [`protocol`].
    pub(super) protocol: u8,
    pub(super) state: u8,
    pub(super) local_port: U16,
    pub(super) uid: U32,
    pub(super) inode: U64,
    pub(super) local: [u8; 16],
    pub(super) remote: [u8; 16],
    pub(super) remote_port: U16,
    pub(super) reserved: U16,
    pub(super) send_queue: U32,
    pub(super) receive_queue: U32,
    /// The end of the path of a unix socket.
    pub(super) path: [u8; 20],
}

/// Values of [`Socket::protocol`].
pub(super) mod protocol {
    pub(in super::super) const TCP: u8 = 1;
    pub(in super::super) const TCP6: u8 = 2;
    pub(in super::super) const UDP: u8 = 3;
    pub(in super::super) const UDP6: u8 = 4;
    pub(in super::super) const UNIX: u8 = 5;
}

impl Payload for Socket {
    const KIND: Kind = Kind::Socket;
    const NAME: &'static str = "demo.socket/1";

    fn identity(&self) -> [u64; 2] {
        let of_inode = match self.inode.get() {
            // A connection in TIME_WAIT has no inode any more: its two ends are its identity.
            0 => {
                digest(&self.local)
                    ^ mix64(digest(&self.remote))
                    ^ mix64(pair(self.local_port.get().into(), self.remote_port.get().into()))
            }
            inode => inode,
        };
        [of_inode, u64::from(self.protocol) << 1 | u64::from(self.inode.get() == 0)]
    }
}

/// Address and port of one end of a socket.
pub(super) fn endpoint(address: &SocketAddr) -> ([u8; 16], U16) {
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    (octets, address.port().into())
}

/// A block device, from `/proc/diskstats`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Disk {
    pub(super) major: U32,
    pub(super) minor: U32,
    pub(super) reads: U64,
    pub(super) writes: U64,
    pub(super) sectors_read: U64,
    pub(super) sectors_written: U64,
    pub(super) in_progress: U64,
    pub(super) busy_ms: U64,
    pub(super) name: [u8; 24],
}

impl Payload for Disk {
    const KIND: Kind = Kind::Disk;
    const NAME: &'static str = "demo.disk/1";

    fn identity(&self) -> [u64; 2] {
        [pair(self.major.get(), self.minor.get()), 0]
    }
}

/// A network interface, from `/proc/net/dev`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Interface {
    pub(super) name: [u8; 16],
    pub(super) received_bytes: U64,
    pub(super) received_packets: U64,
    pub(super) received_errors: U64,
    pub(super) received_drops: U64,
    pub(super) sent_bytes: U64,
    pub(super) sent_packets: U64,
    pub(super) sent_errors: U64,
    pub(super) sent_drops: U64,
}

impl Payload for Interface {
    const KIND: Kind = Kind::Interface;
    const NAME: &'static str = "demo.interface/1";

    fn identity(&self) -> [u64; 2] {
        // A name has at most 15 bytes (IFNAMSIZ): the two words are the name itself.
        let (low, high) = self.name.split_at(8);
        [low, high].map(|half| half.iter().rev().fold(0, |word, &b| word << 8 | u64::from(b)))
    }
}

/// A mount of the recorder's mount namespace, from `/proc/self/mountinfo`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Mount {
    pub(super) id: U32,
    pub(super) parent: U32,
    pub(super) major: U32,
    pub(super) minor: U32,
    pub(super) file_system: [u8; 16],
    pub(super) point: [u8; 48],
}

impl Payload for Mount {
    const KIND: Kind = Kind::Mount;
    const NAME: &'static str = "demo.mount/1";

    fn identity(&self) -> [u64; 2] {
        [self.id.get().into(), 0]
    }
}

/// One number that the kernel keeps: of memory, of a CPU, of an interrupt, of a protocol.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Counter {
    /// Which file, as an index into the sampler's list of them.
    pub(super) source: u8,
    pub(super) reserved: [u8; 3],
    /// Which of several numbers of one name: the CPU.
    pub(super) column: U32,
    /// Two's complement: a few are negative.
    pub(super) value: U64,
    pub(super) label: [u8; 64],
}

impl Payload for Counter {
    const KIND: Kind = Kind::Counter;
    const NAME: &'static str = "demo.counter/1";

    fn identity(&self) -> [u64; 2] {
        [digest(&self.label), pair(self.source.into(), self.column.get())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_kinds_are_those_in_the_blocks() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_u16(kind as u16), Some(kind));
        }
        assert_eq!(Kind::from_u16(0), None);
        assert_eq!(Kind::from_u16(9), None);
    }

    #[test]
    fn text_is_cut_and_filled() {
        assert_eq!(text::<4>("ab"), *b"ab\0\0");
        assert_eq!(text::<2>("abc"), *b"ab");
        assert_eq!(text_end::<2>("abc"), *b"bc");
        assert_eq!(text_end::<4>("abc"), *b"abc\0");
    }

    #[test]
    fn connections_without_an_inode_are_told_apart_by_their_ends() {
        let of = |port: u16| {
            let (local, local_port) = endpoint(&SocketAddr::from(([127, 0, 0, 1], port)));
            let (remote, remote_port) = endpoint(&SocketAddr::from(([127, 0, 0, 1], 80)));
            let socket = Socket {
                protocol: protocol::TCP,
                state: 6,
                local_port,
                uid: 0.into(),
                inode: 0.into(),
                local,
                remote,
                remote_port,
                reserved: 0.into(),
                send_queue: 0.into(),
                receive_queue: 0.into(),
                path: [0; 20],
            };
            socket.identity()
        };
        assert_eq!(of(1000), of(1000));
        assert_ne!(of(1000), of(1001));
    }
}
