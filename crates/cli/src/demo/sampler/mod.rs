//! Reads this machine, as `/proc` shows it: nothing here is made up.
//!
//! A sweep visits the groups one after the other and hands every entity it finds to a [`Sink`].
//! What cannot be read (hidden from this user, ended meanwhile, absent from this kernel) is left
//! out: a sweep that stopped there would make the demo depend on the machine.
//!
//! Files with a structure of their own go through the `procfs` crate. The counters are parsed here
//! (`counters`), because the crate has a struct for each file and no way to list what is in it.

mod counters;
mod devices;
mod processes;
mod sockets;

use super::kinds::{Kind, Payload};

/// Takes what a sweep finds.
pub(super) trait Sink {
    /// Why the sweep must end.
    type Error;

    /// One entity, as it is now.
    fn record<T: Payload>(&mut self, payload: &T) -> Result<(), Self::Error>;
}

/// Entities that are listed together, so that one who is not in the list is known to be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    /// Processes, their threads, their descriptors.
    Processes,
    /// Sockets of the network namespace.
    Sockets,
    /// Disks, interfaces, mounts.
    Devices,
    /// Numbers of the kernel.
    Counters,
}

impl Group {
    /// In the order of a sweep.
    pub(super) const ALL: [Self; 4] =
        [Self::Processes, Self::Sockets, Self::Devices, Self::Counters];

    /// The kinds that belong to the group.
    pub(super) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Processes => &[Kind::Process, Kind::Thread, Kind::Descriptor],
            Self::Sockets => &[Kind::Socket],
            Self::Devices => &[Kind::Disk, Kind::Interface, Kind::Mount],
            Self::Counters => &[Kind::Counter],
        }
    }

    /// Whether this sweep, counted from 1, visits the group. For a list of TCP sockets the kernel
    /// walks its whole table of connections, also where there are none (4 ms of CPU time for each
    /// version of IP, as much as everything else together): every fourth sweep has to do.
    pub(super) fn is_due(self, sweep: u64) -> bool {
        self != Self::Sockets || sweep % 4 == 1
    }

    /// Hands everything of this group to the sink.
    pub(super) fn visit<S: Sink>(self, sink: &mut S) -> Result<(), S::Error> {
        match self {
            Self::Processes => processes::visit(sink),
            Self::Sockets => sockets::visit(sink),
            Self::Devices => devices::visit(sink),
            Self::Counters => counters::visit(sink),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::super::twin::Key;
    use super::*;

    /// Keeps the payload of every entity by its key.
    #[derive(Default)]
    pub(in super::super) struct Collected(pub(in super::super) HashMap<Key, Vec<u8>>);

    impl Sink for Collected {
        type Error = Infallible;

        fn record<T: Payload>(&mut self, payload: &T) -> Result<(), Infallible> {
            let key = Key { kind: T::KIND, words: payload.identity() };
            self.0.insert(key, payload.as_bytes().to_vec());
            Ok(())
        }
    }

    pub(super) fn collected(group: Group) -> Collected {
        let mut sink = Collected::default();
        group.visit(&mut sink).unwrap();
        sink
    }

    #[test]
    fn every_kind_is_in_exactly_one_group() {
        let mut kinds: Vec<_> = Group::ALL.iter().flat_map(|group| group.kinds()).collect();
        kinds.sort();
        assert_eq!(kinds, Kind::ALL.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_sweep_finds_nothing_but_the_kinds_of_its_group() {
        for group in Group::ALL {
            for key in collected(group).0.keys() {
                assert!(group.kinds().contains(&key.kind), "{key:?} in {group:?}");
            }
        }
    }
}
