//! Faults that tests plant, to see that the tests find them. Without the feature `hook` there are
//! none.

/// What is done wrong.
///
/// Example: see [`plant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All sectors of an opening are sealed with the same number.
    NonceRepeated,
    /// Sectors are believed whatever their tags say.
    TagIgnored,
    /// A sector does not say where it belongs.
    PlaceIgnored,
    /// Content is written before the header is durable.
    HeaderUnsynced,
    /// What was behind the end of a file is there again when it grows.
    CutKept,
    /// After an error the last sector is believed to be what was to be written.
    TailTrusted,
    /// Both copies of a header are written anew at once.
    RewrappedAtOnce,
}

pub(crate) use switch::is;
#[cfg(any(test, feature = "hook"))]
pub use switch::plant;

#[cfg(any(test, feature = "hook"))]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault for this thread.
    ///
    /// ```
    /// use mainstay_storage::planted::{Fault, plant};
    /// plant(Some(Fault::TagIgnored));
    /// plant(None);
    /// ```
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// Is this fault planted?
    pub(crate) fn is(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}

#[cfg(not(any(test, feature = "hook")))]
mod switch {
    pub(crate) const fn is(_: super::Fault) -> bool {
        false
    }
}
