//! Where memory of the host is read, and its functions are called.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
};

/// `SdsCallBack` of the header.
pub(crate) type SdsCallBack =
    Option<unsafe extern "C" fn(c_int, *const c_char, usize, *mut c_void)>;

/// `SdsRetrievalHintProvider` of the header.
pub(crate) type SdsRetrievalHintProvider =
    Option<unsafe extern "C" fn(*const c_char, *mut *mut c_char, *mut usize, *mut c_void)>;

/// The most bytes that a length from outside may say: more is no length but a mistake.
const LEN_MAX: usize = 1 << 30;

/// Runs an entry's body; a panic ends here and becomes `fallback` (F1).
pub(crate) fn guarded<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    // What a body leaves half done is behind a mutex whose poison is looked at, or its own.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

/// A copy of what `pointer` points to; none if it is null (unless `len` is 0) or `len` is absurd.
///
/// # Safety
/// If `pointer` is not null, `len` bytes there can be read and do not change during the call.
pub(crate) unsafe fn bytes(pointer: *const u8, len: usize) -> Option<Vec<u8>> {
    if len == 0 {
        return Some(Vec::new());
    }
    if pointer.is_null() || len > LEN_MAX {
        return None;
    }
    // SAFETY: not null, and the caller promises that so many bytes can be read and stay; `u8` has
    // no alignment and takes any value; the length is below `isize::MAX`.
    Some(unsafe { slice::from_raw_parts(pointer, len) }.to_vec())
}

/// A copy of a terminated text; none if it is null.
///
/// # Safety
/// If `pointer` is not null, it points to bytes that end with a zero and do not change during the
/// call.
pub(crate) unsafe fn text(pointer: *const c_char) -> Option<Vec<u8>> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller promises that it is terminated and stays.
    Some(unsafe { CStr::from_ptr(pointer) }.to_bytes().to_vec())
}

/// A copy of a list of terminated texts; none if the list, or one of them, is null.
///
/// # Safety
/// If `list` is not null, `count` pointers there can be read, each as [`text`] wants it.
pub(crate) unsafe fn texts(list: *const *const c_char, count: usize) -> Option<Vec<Vec<u8>>> {
    if count == 0 {
        return Some(Vec::new());
    }
    if list.is_null() || !list.is_aligned() || count > LEN_MAX / size_of::<usize>() {
        return None;
    }
    // SAFETY: not null, aligned, and the caller promises so many pointers that stay.
    let pointers = unsafe { slice::from_raw_parts(list, count) };
    // SAFETY: the caller promises that each is null or a terminated text.
    pointers.iter().map(|&pointer| unsafe { text(pointer) }).collect()
}

/// A function of the host that takes results, with the value that it wants to see again.
#[derive(Clone, Copy)]
pub(crate) struct Callback {
    function: unsafe extern "C" fn(c_int, *const c_char, usize, *mut c_void),
    data: *mut c_void,
}

// SAFETY: the value is only ever given back to the host's function; that this happens on another
// thread is what the header says, so the host is prepared for it.
unsafe impl Send for Callback {}

impl Callback {
    /// None for a null pointer.
    pub(crate) fn new(function: SdsCallBack, data: *mut c_void) -> Option<Self> {
        function.map(|function| Self { function, data })
    }

    pub(crate) fn call(self, status: c_int, text: &str) {
        // SAFETY: the function came from the host as one of this type, and the text is valid during
        // the call, as the header says.
        unsafe { (self.function)(status, text.as_ptr().cast(), text.len(), self.data) }
    }
}

/// A function of the host that says how messages can be found.
#[derive(Clone, Copy)]
pub(crate) struct HintProvider {
    function: unsafe extern "C" fn(*const c_char, *mut *mut c_char, *mut usize, *mut c_void),
    data: *mut c_void,
}

// SAFETY: as for `Callback`.
unsafe impl Send for HintProvider {}

impl HintProvider {
    /// None for a null pointer.
    pub(crate) fn new(function: SdsRetrievalHintProvider, data: *mut c_void) -> Option<Self> {
        function.map(|function| Self { function, data })
    }

    /// The hint for a message; empty if there is none.
    pub(crate) fn hint(self, id: &CStr) -> Vec<u8> {
        let mut hint: *mut c_char = std::ptr::null_mut();
        let mut len = 0;
        // SAFETY: the function came from the host as one of this type; all pointers are valid
        // during the call.
        unsafe { (self.function)(id.as_ptr(), &raw mut hint, &raw mut len, self.data) };
        // SAFETY: the header demands that what is not null has `len` bytes.
        let copy = unsafe { bytes(hint.cast(), len) }.unwrap_or_default();
        // SAFETY: the header demands that it was made with malloc and is not used any more; null is
        // fine.
        unsafe { libc::free(hint.cast()) };
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_a_panic_becomes_what_was_to_be_returned_then() {
        assert_eq!(guarded(-1, || 7), 7);
        assert_eq!(guarded(-1, || panic!("a fault")), -1);
    }
}
