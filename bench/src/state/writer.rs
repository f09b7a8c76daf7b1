//! The process that writes while another is measured.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use super::value::{Size, keeper, stamp};
use crate::Outcome;
use crate::child::{self, Child};
use crate::processors::tie_to;
use crate::raw::SharedWords;
use crate::role::Role;

/// Makes a value, then writes it whenever it is told to.
pub(super) const WRITE: Role = Role { name: "state:write", run: play };

/// Commits between two looks at the orders.
const BATCH: u64 = 32;
const REST: u64 = 0;
const GO: u64 = 1;
/// How often a writer at rest looks whether it is to go: seldom, as there are several at rest while
/// another is measured.
const NAP: Duration = Duration::from_millis(1);
/// From an order to "everybody has seen it".
const SETTLE: Duration = Duration::from_millis(3);

/// A writer in a process of its own, at rest until it is let go.
pub(super) struct Remote {
    orders: SharedWords,
    _child: Child,
}

impl Remote {
    /// Starts it and waits until the value is there. If a processor is named, it writes there.
    pub(super) fn start(
        keeper: &str,
        folder: &Path,
        size: Size,
        processor: Option<usize>,
    ) -> Outcome<Remote> {
        let path = folder.join("orders");
        let orders = SharedWords::map(&open(&path)?, 2)?;
        let folder = folder.to_str().ok_or("the folder of the run is not UTF-8")?;
        let processor = processor.map_or_else(String::new, |processor| processor.to_string());
        let mut child = Child::start(&WRITE, &[keeper, folder, size.name, &processor])?;
        child.wait_ready()?;
        Ok(Remote { orders, _child: child })
    }

    /// Runs `work` while the writer writes as fast as it can.
    pub(super) fn while_writing<T>(&self, work: impl FnOnce() -> T) -> T {
        self.order(GO);
        let result = work();
        self.order(REST);
        result
    }

    fn order(&self, what: u64) {
        self.orders[0].store(what, Release);
        std::thread::sleep(SETTLE);
    }
}

fn open(path: &Path) -> Outcome<File> {
    Ok(File::options().read(true).write(true).create(true).truncate(false).open(path)?)
}

fn play(arguments: &[String]) -> Outcome<()> {
    let [name, folder, size, processor] = arguments else {
        return Err("a writer takes four words".into());
    };
    let (folder, size) = (Path::new(folder), Size::named(size)?);
    let mut writer = (keeper(name)?.writer)(folder, size)?;
    let orders = SharedWords::map(&open(&folder.join("orders"))?, 2)?;
    // A server that it has started may run elsewhere.
    if !processor.is_empty() {
        tie_to(processor.parse()?)?;
    }
    child::say_ready()?;
    let mut value = vec![7; size.words];
    let mut number = 0;
    loop {
        if orders[0].load(Acquire) != GO {
            std::thread::sleep(NAP);
            continue;
        }
        for _ in 0..BATCH {
            number += 1;
            stamp(&mut value, number);
            writer.commit(&value)?;
        }
    }
}
