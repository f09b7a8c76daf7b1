//! Numbers in the place of pointers (F2).

use std::{
    collections::HashMap,
    ffi::c_void,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What C programs hold as opaque pointers.
pub(crate) struct Registry<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    last: usize,
    entries: Option<HashMap<usize, Arc<T>>>,
}

impl<T> Registry<T> {
    pub(crate) const fn new() -> Self {
        Self { inner: Mutex::new(Inner { last: 0, entries: None }) }
    }

    /// A table is never left half changed, so a panic while it was locked did not harm it.
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The opaque pointer for a new entry; never null, and never the same again.
    pub(crate) fn insert(&self, entry: T) -> *mut c_void {
        let mut inner = self.lock();
        // Steps of 16 look like pointers to those who check the alignment of what they hold.
        inner.last += 16;
        let number = inner.last;
        inner.entries.get_or_insert_default().insert(number, Arc::new(entry));
        ptr::without_provenance_mut(number)
    }

    pub(crate) fn get(&self, pointer: *mut c_void) -> Option<Arc<T>> {
        self.lock().entries.as_ref()?.get(&pointer.addr()).cloned()
    }

    pub(crate) fn remove(&self, pointer: *mut c_void) -> Option<Arc<T>> {
        self.lock().entries.as_mut()?.remove(&pointer.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_a_pointer_is_good_from_insert_to_remove_and_never_again() {
        let registry = Registry::new();
        let first = registry.insert("first");
        let second = registry.insert("second");
        assert!(!first.is_null() && first != second);
        assert_eq!(registry.get(first).as_deref(), Some(&"first"));
        assert!(registry.remove(first).is_some());
        assert!(registry.get(first).is_none() && registry.remove(first).is_none());
        assert_ne!(registry.insert("third"), first);
        assert!(registry.get(ptr::null_mut()).is_none());
        assert!(registry.get(ptr::without_provenance_mut(usize::MAX)).is_none());
    }
}
