//! A second store that is filled beside a first one which is used, and takes its place.
//!
//! Whatever is written meanwhile is written to both, by a hook, under the lock of the shard; records
//! are copied under the same lock, some at a time. So for each key the last thing that is done to the
//! second store is what was last done to the first.

use std::sync::{Arc, Mutex};

use crate::{
    error::{Error, Result},
    group::lock,
    hooks::{Commit, Hook, Hooks},
    rank::{Ranked, Standing},
};

/// The second store. When this is dropped nothing more is written to it.
pub(crate) struct Mirror<S> {
    to: Arc<S>,
    hook: Hook,
    failed: Arc<Mutex<Option<Error>>>,
}

impl<S: Send + Sync + 'static> Mirror<S> {
    /// `write` does to the second store what was done to the first, whose hooks these are.
    pub(crate) fn begin(
        hooks: &Arc<Hooks>,
        to: S,
        write: impl Fn(&S, &Commit<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (to, failed) = (Arc::new(to), Arc::new(Mutex::new(None)));
        let (weak, told) = (Arc::downgrade(&to), Arc::clone(&failed));
        let call = move |commit: &Commit<'_>| {
            let Some(to) = weak.upgrade() else { return };
            if let Err(error) = write(&to, commit) {
                lock(&told).get_or_insert(error);
            }
        };
        let hook = hooks.add(Arc::new(call));
        Self { to, hook, failed }
    }

    pub(crate) fn to(&self) -> &S {
        &self.to
    }

    /// Was all that was written to the first store written to this one?
    pub(crate) fn check(&self) -> Result<()> {
        lock(&self.failed).take().map_or(Ok(()), Err)
    }

    /// All is copied: the first store takes no more writes, and this one has all of them, durably.
    /// `wait` is until whoever got in before has written, to both.
    pub(crate) fn take_place<H: Ranked>(
        self,
        of: &Standing<H>,
        wait: impl FnOnce(),
        sync: impl Fn(&S) -> Result<()>,
    ) -> Result<S> {
        // Most of it before anybody has to wait.
        sync(&self.to)?;
        of.give_way();
        wait();
        let done = self.check().and_then(|()| sync(&self.to));
        let Self { to, hook, .. } = self;
        drop(hook);
        // The hook took it only while it was called, and is called no more.
        let new = done.and_then(|()| Arc::into_inner(to).ok_or(Error::Resharded));
        if new.is_err() {
            of.go_on();
        }
        new
    }
}

#[cfg(test)]
pub(crate) mod tests;
