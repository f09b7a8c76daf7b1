//! Those who are in the middle of their handshakes.
//!
//! T1. There are never more than a fixed number, and each is given a fixed time.
//! T2. When there is one too many, the one that goes is the oldest of the address that has most: so
//!     a flood from one place displaces itself, and not a member from another.

use std::{
    net::IpAddr,
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
    present: Vec<Stranger>,
    displaced: u64,
}

struct Stranger {
    number: u64,
    address: IpAddr,
    task: AbortHandle,
}

/// Takes its stranger off the list, however the handshake ends.
struct Leaving {
    strangers: Strangers,
    number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.strangers.list().present.retain(|stranger| stranger.number != self.number);
    }
}

impl Strangers {
    pub(super) fn new(max: usize) -> Self {
        let list = List { max: max.max(1), next: 0, present: Vec::new(), displaced: 0 };
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
        let displaced = (list.present.len() >= list.max).then(|| list.remove_one());
        let number = list.next;
        list.next += 1;
        let leaving = Leaving { strangers: self.clone(), number };
        let task = runtime.spawn(async move {
            let _leaving = leaving;
            handshake.await;
        });
        list.present.push(Stranger { number, address, task: task.abort_handle() });
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
        let all: Vec<_> = self.list().present.drain(..).collect();
        all.iter().for_each(|stranger| stranger.task.abort());
    }

    // No code that could panic runs in the middle of a change.
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// T2. There is at least one.
    fn remove_one(&mut self) -> Stranger {
        self.displaced += 1;
        let crowd = |address| self.present.iter().filter(|other| other.address == address).count();
        let mut busiest = (0, 0);
        for (at, stranger) in self.present.iter().enumerate() {
            // The list is in the order of arrival: the first of an address is its oldest.
            let size = crowd(stranger.address);
            if size > busiest.0 {
                busiest = (size, at);
            }
        }
        self.present.remove(busiest.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn t1_t2_a_flood_from_one_address_displaces_itself_oldest_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let strangers = Strangers::new(4);
        let admit = |from| strangers.admit(runtime.handle(), address(from), std::future::pending());
        admit(1);
        (0..100).for_each(|_| admit(2));
        let list = strangers.list();
        let present: Vec<_> = list.present.iter().map(|one| (one.address, one.number)).collect();
        let flood = |number| (address(2), number);
        assert_eq!(present, [(address(1), 0), flood(98), flood(99), flood(100)]);
        assert_eq!(list.displaced, 97);
    }

    #[test]
    fn a_handshake_that_ends_makes_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let strangers = Strangers::new(1);
        for _ in 0..5 {
            strangers.admit(runtime.handle(), address(1), async {});
            runtime.block_on(async { tokio::task::yield_now().await });
        }
        let present = strangers.list().present.len();
        assert_eq!((present, strangers.displaced()), (0, 0));
    }
}
