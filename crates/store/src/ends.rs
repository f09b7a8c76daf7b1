//! When records end: milliseconds since 1970, by a clock on the wall; 0: never.

use std::time::{Duration, SystemTime};

use crate::{
    error::{Error, Result},
    limits::TTL_MAX,
};

/// The clock: milliseconds since 1970.
pub(crate) type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// Milliseconds since 1970; a clock before that stands at its beginning.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The end of what ends so long from `now`.
pub(crate) fn end_in(ttl: Option<Duration>, now: u64) -> Result<u64> {
    let Some(ttl) = ttl else { return Ok(0) };
    let (what, must) = ("the time to live, in milliseconds", "1 to 3,155,760,000,000");
    match u64::try_from(ttl.as_millis()) {
        Ok(ms) if ms > 0 && ttl <= TTL_MAX => Ok(now.saturating_add(ms)),
        ms => Err(Error::OutOfLimits { what, value: ms.unwrap_or(u64::MAX), must }),
    }
}

/// The end at that time; `None`: never. The beginning of time itself is a little later.
pub(crate) fn end_at(end: Option<u64>) -> u64 {
    end.map_or(0, |end| end.max(1))
}

pub(crate) fn has_ended(end: u64, now: u64) -> bool {
    end != 0 && end <= now
}

/// How long it is until then; `None` if it does not end.
pub(crate) fn left(end: u64, now: u64) -> Option<Duration> {
    (end != 0).then(|| Duration::from_millis(end.saturating_sub(now)))
}
