//! A place that keeps changes, in the host.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use mainstay_sds::{
    Error, Result,
    persist::{Change, Persistence},
};

use super::{
    failure::{Failure, Outcome},
    layout::RawBackend,
};

type Save = unsafe extern "C" fn(*mut c_void, *const c_char, u64, c_int, *const u8, usize) -> c_int;
type Give = unsafe extern "C" fn(*mut c_void, *const u8, usize);
type Load = unsafe extern "C" fn(*mut c_void, *const c_char, Give, *mut c_void) -> c_int;
type Forget = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;

/// The functions of the host, all of them there.
pub(super) struct Backend {
    data: *mut c_void,
    save: Save,
    load: Load,
    forget: Forget,
}

// SAFETY: the value is only ever given back to the host's functions, which the header says are
// called by whichever thread calls the node.
unsafe impl Send for Backend {}

impl Backend {
    pub(super) fn new(raw: &RawBackend) -> Outcome<Self> {
        match (raw.save, raw.load, raw.forget) {
            (Some(save), Some(load), Some(forget)) => {
                Ok(Self { data: raw.data, save, load, forget })
            }
            _ => Err(Failure::null("a function of the backend")),
        }
    }
}

/// Names of channels come from C programs, so they have no zero in them.
fn name_of(channel: &str) -> Result<CString> {
    CString::new(channel).map_err(|_| failed("name", channel, -1))
}

fn failed(what: &str, channel: &str, status: c_int) -> Error {
    let what = format!(
        "the backend's function to {what} channel {channel:?} returned {status}; it knows why"
    );
    Error::Persistence { what }
}

/// Takes what the host's `load` gives. `to` is the list that [`Persistence::load`] passed on.
unsafe extern "C" fn take(to: *mut c_void, bytes: *const u8, len: usize) {
    crate::raw::guarded((), || {
        // SAFETY: the host passes on what it was given, bytes that are valid during the call.
        let Some(change) = (unsafe { crate::raw::bytes(bytes, len) }) else { return };
        // SAFETY: `to` is the list in `load` below, which nobody else touches during the call, as
        // the header says that it is to be passed on as it is.
        let list = unsafe { to.cast::<Vec<Vec<u8>>>().as_mut() };
        if let Some(list) = list {
            list.push(change);
        }
    });
}

impl Persistence for Backend {
    fn save(&mut self, channel: &str, change: &Change<'_>) -> Result<()> {
        let name = name_of(channel)?;
        let (bytes, base) = (change.bytes, c_int::from(change.base));
        let name: &CStr = &name;
        // SAFETY: the function came from the host as one of this type; all pointers are valid
        // during the call.
        let status = unsafe {
            (self.save)(self.data, name.as_ptr(), change.number, base, bytes.as_ptr(), bytes.len())
        };
        if status == 0 { Ok(()) } else { Err(failed("save", channel, status)) }
    }

    fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>> {
        let name = name_of(channel)?;
        let mut list: Vec<Vec<u8>> = Vec::new();
        let to: *mut c_void = (&raw mut list).cast();
        // SAFETY: the function came from the host as one of this type; `take` matches `to`, and all
        // pointers are valid during the call.
        let status = unsafe { (self.load)(self.data, name.as_ptr(), take, to) };
        if status == 0 { Ok(list) } else { Err(failed("load", channel, status)) }
    }

    fn forget(&mut self, channel: &str) -> Result<()> {
        let name = name_of(channel)?;
        // SAFETY: the function came from the host as one of this type; the name is valid during the
        // call.
        let status = unsafe { (self.forget)(self.data, name.as_ptr()) };
        if status == 0 { Ok(()) } else { Err(failed("forget", channel, status)) }
    }

    fn channels(&mut self) -> Result<Vec<String>> {
        let what = "this backend cannot say which channels it has; ask it by name".to_owned();
        Err(Error::Persistence { what })
    }
}
