//! Those who are in the middle of their handshakes.
//!
//! T1. There are never more than a fixed number, and each is given a fixed time.
//! T2. When there is one too many, the one that goes is the oldest of the place that has most: so a
//!     flood from one place displaces itself, and not a member from another. A place is an address
//!     of IPv4, or a network of 64 bits of IPv6: a host there has all the addresses in one.
//!
//! Against a flood from a great many places there is nothing to go by: then the oldest of all goes.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{runtime::Handle, task::AbortHandle};

#[derive(Clone)]
pub(super) struct Strangers {
    list: Arc<Mutex<List>>,
}

struct List {
    max: usize,
    next: u64,
    len: usize,
    /// None of them is empty; each is in the order of arrival.
    crowds: HashMap<IpAddr, VecDeque<Stranger>>,
    displaced: u64,
}

struct Stranger {
    number: u64,
    task: AbortHandle,
}

/// Takes its stranger off the list, however the handshake ends.
struct Leaving {
    strangers: Strangers,
    place: IpAddr,
    number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.strangers.list().leave(self.place, self.number);
    }
}

impl Strangers {
    pub(super) fn new(max: usize) -> Self {
        let max = max.max(1);
        let list = List { max, next: 0, len: 0, crowds: HashMap::new(), displaced: 0 };
        Self { list: Arc::new(Mutex::new(list)) }
    }

    /// Starts a handshake, in place of another if there are too many.
    pub(super) fn admit(
        &self,
        runtime: &Handle,
        address: IpAddr,
        handshake: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut list = self.list();
        let displaced = if list.len >= list.max { list.remove_one() } else { None };
        let place = place_of(address);
        let number = list.next;
        list.next += 1;
        let leaving = Leaving { strangers: self.clone(), place, number };
        let task = runtime.spawn(async move {
            let _leaving = leaving;
            handshake.await;
        });
        list.crowds
            .entry(place)
            .or_default()
            .push_back(Stranger { number, task: task.abort_handle() });
        list.len += 1;
        drop(list);
        if let Some(stranger) = displaced {
            stranger.task.abort();
        }
    }

    pub(super) fn displaced(&self) -> u64 {
        self.list().displaced
    }

    /// Ends all handshakes.
    pub(super) fn dismiss(&self) {
        let mut list = self.list();
        let all = std::mem::take(&mut list.crowds);
        list.len = 0;
        drop(list);
        all.values().flatten().for_each(|stranger| stranger.task.abort());
    }

    // No code that could panic runs in the middle of a change.
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// T2.
    fn remove_one(&mut self) -> Option<Stranger> {
        let oldest = |crowd: &VecDeque<Stranger>| crowd.front().map(|stranger| stranger.number);
        let busiest = self.crowds.iter().max_by_key(|(_, c)| (c.len(), Reverse(oldest(c))));
        let place = *busiest?.0;
        let crowd = self.crowds.get_mut(&place)?;
        let stranger = crowd.pop_front();
        if crowd.is_empty() {
            self.crowds.remove(&place);
        }
        self.len -= 1;
        self.displaced += 1;
        stranger
    }

    /// Whoever was displaced has left already.
    fn leave(&mut self, place: IpAddr, number: u64) {
        let Some(crowd) = self.crowds.get_mut(&place) else { return };
        let Some(at) = crowd.iter().position(|stranger| stranger.number == number) else { return };
        crowd.remove(at);
        if crowd.is_empty() {
            self.crowds.remove(&place);
        }
        self.len -= 1;
    }
}

/// Who an address stands for. One of IPv4 is the same, however it is written.
pub(super) fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    /// Places and numbers, in the order of arrival.
    fn present(strangers: &Strangers) -> Vec<(IpAddr, u64)> {
        let list = strangers.list();
        let crowds = list.crowds.iter();
        let mut present: Vec<_> = crowds
            .flat_map(|(place, crowd)| crowd.iter().map(|one| (*place, one.number)))
            .collect();
        assert_eq!(present.len(), list.len);
        present.sort_by_key(|(_, number)| *number);
        present
    }

    #[test]
    fn t1_t2_a_flood_from_one_address_displaces_itself_oldest_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let strangers = Strangers::new(4);
        let admit = |from| strangers.admit(runtime.handle(), address(from), std::future::pending());
        admit(1);
        (0..100).for_each(|_| admit(2));
        let flood = address(2);
        assert_eq!(present(&strangers), [(address(1), 0), (flood, 98), (flood, 99), (flood, 100)]);
        assert_eq!(strangers.displaced(), 97);
    }

    #[test]
    fn t2_a_network_of_ipv6_is_one_place_and_each_address_of_ipv4_another() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let strangers = Strangers::new(4);
        let admit = |from: &str| {
            let from = from.parse().unwrap();
            strangers.admit(runtime.handle(), from, std::future::pending());
        };
        // Members: two of IPv4, one of them as a socket for both families shows it.
        admit("::ffff:10.0.0.1");
        admit("10.0.0.2");
        for host in 1..=100 {
            admit(&format!("2001:db8::{host:x}"));
        }
        let flood = "2001:db8::".parse().unwrap();
        let expected = [("10.0.0.1".parse().unwrap(), 0), ("10.0.0.2".parse().unwrap(), 1)];
        assert_eq!(present(&strangers), [expected[0], expected[1], (flood, 100), (flood, 101)]);
        // From many networks at once: the oldest of all goes.
        admit("2001:db8:1::1");
        admit("2001:db8:2::1");
        let numbers: Vec<u64> = present(&strangers).iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [1, 101, 102, 103]);
    }

    #[test]
    fn a_handshake_that_ends_makes_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let strangers = Strangers::new(1);
        for _ in 0..5 {
            strangers.admit(runtime.handle(), address(1), async {});
            runtime.block_on(async { tokio::task::yield_now().await });
        }
        let list = strangers.list();
        assert_eq!((list.len, list.crowds.len(), list.displaced), (0, 0, 0));
    }
}
