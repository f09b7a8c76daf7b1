//! Faults that come from the host.

use mainstay_sds::{
    Result,
    persist::{Change, Persistence},
};

use super::{
    mainstay_sds_error,
    opening::{mainstay_sds_close, mainstay_sds_join, open},
    talking::{mainstay_sds_poll, mainstay_sds_send},
};
use crate::node::layout::{RawConfig, RawOutput, Time};

/// A place with a fault of its own.
struct Faulty;

impl Persistence for Faulty {
    fn save(&mut self, _: &str, _: &Change<'_>) -> Result<()> {
        panic!("a fault while a change is saved")
    }

    fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>> {
        assert!(channel != "faulty", "a fault while a channel is loaded");
        Ok(Vec::new())
    }

    fn forget(&mut self, _: &str) -> Result<()> {
        Ok(())
    }

    fn channels(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

const INTERNAL: i32 = -6;

#[test]
fn f1_a_panic_inside_is_a_number_outside_and_the_node_goes_on() {
    let node = open(Some(b"bob".to_vec()), Some(Box::new(Faulty))).unwrap();
    let now = Time { mono_ms: 1, wall_ms: 1 };
    let mut config = RawConfig::default_of(0).unwrap();
    config.keep_durably();
    // SAFETY: all pointers are those of values that live.
    let join = |name: &std::ffi::CStr| unsafe {
        mainstay_sds_join(node, now, name.as_ptr(), &raw const config)
    };
    assert_eq!(join(c"faulty"), INTERNAL);
    // SAFETY: a text of this thread, which makes no other call meanwhile.
    let text = unsafe { std::ffi::CStr::from_ptr(mainstay_sds_error()) };
    assert!(text.to_string_lossy().contains("a fault in the library"), "{text:?}");
    assert_eq!(join(c"room"), 0);
    let (id, content) = (b"m1", b"hello");
    // SAFETY: all pointers are those of values that live.
    let sent = unsafe {
        let (id, content) = (id.as_ptr().cast(), content.as_ptr().cast());
        mainstay_sds_send(node, now, c"room".as_ptr(), id, 2, content, 5)
    };
    assert_eq!(sent, 0);
    let mut output = std::mem::MaybeUninit::<RawOutput>::uninit();
    // SAFETY: there is room for an output.
    let polled = unsafe { mainstay_sds_poll(node, now, output.as_mut_ptr()) };
    assert_eq!(polled, INTERNAL);
    assert_eq!(join(c"another room"), 0);
    // SAFETY: any value is allowed.
    assert_eq!(unsafe { mainstay_sds_close(node) }, 0);
}
