//! What is left of handshakes over QUIC that came to nothing. The library keeps such a connection
//! until its last packets cannot arrive any more (RFC 9000, 10.2), for some seconds where nothing
//! was measured of the network; nobody can hurry it.
//!
//! R1. There is never more left than of a fixed number of handshakes, and of one place never of more
//!     than a part of it; beside these are only those who are in theirs ([`super::strangers`]).
//! R2. Whoever comes when it is too much gets no answer, and costs nothing: a dialler says its first
//!     words again by itself, and is let in when there is room. So a flood from one place has to
//!     wait for itself, and a member from another does not.
//!
//! Against a flood from a great many places there is nothing to go by: then all have to wait.

use super::strangers::place_of;
use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Of how many failed handshakes something may be left, and of how many from one place.
const FAILED_MAX: usize = 1_024;
const FAILED_MAX_OF_PLACE: usize = 128;

/// What a listener knows of it.
#[derive(Clone, Default)]
pub(super) struct Remains {
    list: Arc<Mutex<List>>,
}

#[derive(Default)]
struct List {
    /// Connections that are in their handshakes, or those of members.
    living: usize,
    /// From where the others were, oldest first.
    failed: VecDeque<IpAddr>,
}

/// Somebody with a connection; a stranger until it is [`Self::is_member`].
pub(super) struct Guest {
    remains: Remains,
    place: IpAddr,
    member: bool,
}

impl Remains {
    /// Lets a connection come into being, if there is room; `open` is how many the library has.
    pub(super) fn admit(&self, from: IpAddr, open: usize) -> Option<Guest> {
        let place = place_of(from);
        let mut list = self.list();
        list.forget(open);
        if !list.has_room_for(place) {
            return None;
        }
        list.living += 1;
        Some(Guest { remains: self.clone(), place, member: false })
    }

    // No code that could panic runs in the middle of a change.
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// Of what the library does not have any more nothing is left: that is the oldest.
    fn forget(&mut self, open: usize) {
        let left = open.saturating_sub(self.living);
        let forgotten = self.failed.len().saturating_sub(left);
        self.failed.drain(..forgotten);
    }

    /// R1.
    fn has_room_for(&self, place: IpAddr) -> bool {
        let of_place = self.failed.iter().filter(|failed| **failed == place).count();
        self.failed.len() < FAILED_MAX && of_place < FAILED_MAX_OF_PLACE
    }
}

impl Guest {
    /// It has proved to be a member: what is left of its connection is not counted one day.
    pub(super) fn is_member(&mut self) {
        self.member = true;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut list = self.remains.list();
        list.living -= 1;
        if !self.member {
            list.failed.push_back(self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    /// A handshake that fails; how many there were before, the library still has.
    fn fails(remains: &Remains, from: IpAddr) -> bool {
        let list = remains.list();
        let open = list.failed.len() + list.living;
        drop(list);
        remains.admit(from, open).is_some()
    }

    #[test]
    fn r1_r2_a_place_has_its_part_and_waits_then_while_others_are_let_in() {
        let remains = Remains::default();
        for number in 0..FAILED_MAX_OF_PLACE {
            assert!(fails(&remains, address(1)), "{number}");
        }
        assert!(!fails(&remains, address(1)), "one past its part");
        assert!(fails(&remains, address(2)));
        // One was forgotten: it was the oldest.
        let open = FAILED_MAX_OF_PLACE;
        assert!(remains.admit(address(1), open).is_some());
        assert!(remains.admit(address(1), open + 1).is_none());
    }

    #[test]
    fn r1_from_many_places_there_is_a_fixed_number_and_all_wait() {
        let remains = Remains::default();
        for number in 0..FAILED_MAX {
            let place = IpAddr::from([10, 0, (number >> 8) as u8, number as u8]);
            assert!(fails(&remains, place), "{number}");
        }
        assert!(!fails(&remains, address(1)), "one past the number");
        // All are forgotten.
        assert!(remains.admit(address(1), 0).is_some());
    }

    #[test]
    fn members_and_those_in_their_handshakes_take_nobodys_room() {
        let remains = Remains::default();
        let guests: Vec<_> = (0..2 * FAILED_MAX_OF_PLACE)
            .map(|open| remains.admit(address(1), open).unwrap())
            .map(|mut guest| {
                guest.is_member();
                guest
            })
            .collect();
        assert!(fails(&remains, address(1)));
        let open = guests.len() + 1;
        drop(guests);
        // What is left of members is theirs.
        assert!(remains.admit(address(1), open).is_some());
        assert!(remains.list().failed.len() <= 2);
    }
}
