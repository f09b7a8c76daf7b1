//! The watcher: looks at the pool from outside, through a read-only mapping and without a lease.
//!
//! Nothing it does can disturb the others, and nothing of it has to be taken back when it dies.

use std::time::Duration;

use mainstay::pool::PoolView;

use super::error::{DemoError, Trying};
use super::role::{Line, Order, Orders, receive_with_fd};
use super::wire::{Message, WatcherReport};

/// How often it counts.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Runs until told to stop.
pub(super) fn run() -> Result<(), DemoError> {
    let mut line = Line::inherited()?;
    let (_, fd) = receive_with_fd(&line.commands)?;
    let to_pass_on = fd.try_clone().trying("duplicate the pool's descriptor")?;
    let view = PoolView::open_fd(fd).trying("look at the pool")?;
    let orders = Orders::listen(line.commands, to_pass_on);
    let mut seen = None;
    loop {
        let blocks = view.blocks().trying("list the blocks")?;
        let live = blocks.filter(|info| info.kind.is_some()).count() as u64;
        note(&mut seen, live);
        match orders.wait(LOOK_INTERVAL) {
            None => {}
            Some(Order::Report) => {
                let report = seen.take().unwrap_or_default();
                let said = line.outbox.say(Message::Watcher(report));
                said.and_then(|()| line.outbox.flush()).trying("report")?;
            }
            Some(Order::Stop | Order::HandOver(_)) => return Ok(()),
        }
    }
}

fn note(seen: &mut Option<WatcherReport>, live: u64) {
    let seen = seen.get_or_insert(WatcherReport { fewest: live, most: live });
    seen.fewest = seen.fewest.min(live);
    seen.most = seen.most.max(live);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_fewest_and_the_most() {
        let mut seen = None;
        [5, 3, 9].into_iter().for_each(|live| note(&mut seen, live));
        assert_eq!(seen, Some(WatcherReport { fewest: 3, most: 9 }));
    }
}
