//! iceoryx2's blackboard: two cells and a count; a reader copies and looks again.

use std::hint::black_box;
use std::path::Path;

use iceoryx2::port::reader::{EntryHandle, Reader as Port};
use iceoryx2::port::writer::{EntryHandleMut, Writer as WritingPort};
use iceoryx2::prelude::{NodeBuilder, ipc};
use iceoryx2::service::port_factory::blackboard::PortFactory;

use super::value::{Keeper, Reader, Writer, stamp_of, with_words};
use crate::{Outcome, raw};

pub(super) const KEEPER: Keeper = Keeper {
    name: "iceoryx2",
    writer: |folder, size| with_words!(size, writer(folder)),
    reader: |folder, size| with_words!(size, reader(folder)),
};

const KEY: u64 = 1;

/// A handle is of no use without what it came from; fields are dropped in this order.
struct Publishing<const N: usize> {
    entry: Option<EntryHandleMut<ipc::Service, u64, [u64; N]>>,
    _port: WritingPort<ipc::Service, u64>,
    _service: PortFactory<ipc::Service, u64>,
    _node: iceoryx2::node::Node<ipc::Service>,
}

struct Looking<const N: usize> {
    entry: EntryHandle<ipc::Service, u64, [u64; N]>,
    _port: Port<ipc::Service, u64>,
    _service: PortFactory<ipc::Service, u64>,
    _node: iceoryx2::node::Node<ipc::Service>,
}

/// A service's name is one for the whole machine.
fn name(folder: &Path) -> String {
    format!("mainstay-bench{}", folder.display())
}

fn writer<const N: usize>(folder: &Path) -> Outcome<Box<dyn Writer>> {
    iceoryx2::prelude::set_log_level(iceoryx2::prelude::LogLevel::Fatal);
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let service = node
        .service_builder(&name(folder).as_str().try_into()?)
        .blackboard_creator::<u64>()
        .add::<[u64; N]>(KEY, [0; N])
        .create()?;
    let port = service.writer_builder().create()?;
    let entry = Some(port.entry::<[u64; N]>(&KEY)?);
    Ok(Box::new(Publishing { entry, _port: port, _service: service, _node: node }))
}

fn reader<const N: usize>(folder: &Path) -> Outcome<Box<dyn Reader>> {
    iceoryx2::prelude::set_log_level(iceoryx2::prelude::LogLevel::Fatal);
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let service = node
        .service_builder(&name(folder).as_str().try_into()?)
        .blackboard_opener::<u64>()
        .open()?;
    let port = service.reader_builder().create()?;
    let entry = port.entry::<[u64; N]>(&KEY)?;
    Ok(Box::new(Looking { entry, _port: port, _service: service, _node: node }))
}

impl<const N: usize> Writer for Publishing<N> {
    fn commit(&mut self, value: &[u64]) -> Outcome<()> {
        let value: &[u64; N] = value.try_into()?;
        let entry = self.entry.take().ok_or("a commit before this one failed")?;
        self.entry = Some(raw::iceoryx_update(entry.loan_uninit(), value));
        Ok(())
    }
}

impl<const N: usize> Reader for Looking<N> {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        let value = self.entry.get();
        // The copy is what is measured: it must not be left out for the two words looked at.
        Ok(stamp_of(black_box(&*value)))
    }
}
