//! The structures of the header. Their sizes are compared here, and again by the C program in the
//! tests.

use std::ffi::{c_char, c_int, c_void};

use mainstay_sds::{Config, Keep, Now, Start, wire::Profile};

use super::failure::{Failure, Outcome};

/// `mainstay_sds_time`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) mono_ms: u64,
    pub(super) wall_ms: u64,
}

impl From<Time> for Now {
    fn from(time: Time) -> Self {
        Self { mono_ms: time.mono_ms, wall_ms: time.wall_ms }
    }
}

/// `mainstay_sds_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct RawConfig {
    size: u64,
    profile: u32,
    only_own_peers: u32,
    participants: u32,
    joining: u32,
    seed: u64,
    filter_capacity: u32,
    history: u32,
    causal: u32,
    resend_attempts: u32,
    resend_ms: u64,
    sync_interval_ms: u64,
    t_min_ms: u64,
    t_max_ms: u64,
    lost_after_ms: u64,
    fetch: u32,
    confirm: u32,
    keep: u32,
    reserved: u32,
}

/// `mainstay_sds_output`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct RawOutput {
    pub(super) kind: u32,
    pub(super) reason: u32,
    pub(super) channel: *const c_char,
    pub(super) id: *const u8,
    pub(super) id_len: usize,
    pub(super) sender: *const u8,
    pub(super) sender_len: usize,
    pub(super) bytes: *const u8,
    pub(super) bytes_len: usize,
    pub(super) lamport: u64,
    pub(super) number: u64,
    pub(super) later: u64,
    pub(super) again: u32,
    pub(super) base: u32,
}

/// `mainstay_sds_backend`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct RawBackend {
    pub(super) data: *mut c_void,
    pub(super) save: Option<
        unsafe extern "C" fn(*mut c_void, *const c_char, u64, c_int, *const u8, usize) -> c_int,
    >,
    pub(super) load: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const c_char,
            unsafe extern "C" fn(*mut c_void, *const u8, usize),
            *mut c_void,
        ) -> c_int,
    >,
    pub(super) forget: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int>,
}

const _: () = {
    assert!(size_of::<Time>() == 16);
    assert!(size_of::<RawConfig>() == 104 && align_of::<RawConfig>() == 8);
    assert!(size_of::<RawOutput>() == 96 || size_of::<usize>() != 8);
    assert!(size_of::<RawBackend>() == 32 || size_of::<usize>() != 8);
};

const LIP: u32 = 0;
const NIM: u32 = 1;

impl RawConfig {
    /// The defaults of a profile, by its number.
    pub(super) fn default_of(profile: u32) -> Outcome<Self> {
        let config = match profile {
            LIP => Config::lip(),
            NIM => Config::nim(),
            _ => return Err(Failure::argument("the profile is neither LIP nor NIM")),
        };
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Self {
            size: size_of::<Self>() as u64,
            profile,
            only_own_peers: u32::from(config.only_own_peers),
            participants: config.participants,
            joining: u32::from(config.start == Start::Joining),
            seed: config.seed,
            filter_capacity: config.filter_capacity,
            history: number(config.history),
            causal: number(config.causal),
            resend_attempts: u32::from(config.resend_attempts),
            resend_ms: config.resend_ms,
            sync_interval_ms: if config.sync { config.sync_interval_ms } else { 0 },
            t_min_ms: if config.repair { config.t_min_ms } else { 0 },
            t_max_ms: config.t_max_ms,
            lost_after_ms: config.lost_after_ms.unwrap_or(0),
            fetch: u32::from(config.fetch),
            confirm: u32::from(config.confirm),
            keep: match config.keep {
                Keep::Relaxed => 1,
                Keep::Durable => 2,
                _ => 0,
            },
            reserved: 0,
        })
    }

    /// The configuration it stands for. Numbers are checked by the core.
    pub(super) fn read(&self) -> Outcome<Config> {
        if self.size != size_of::<Self>() as u64 || self.reserved != 0 {
            return Err(Failure::argument(
                "the configuration was not filled by mainstay_sds_config_default of this version",
            ));
        }
        let mut config = match (self.profile, self.only_own_peers) {
            (LIP, _) => Config::lip(),
            (NIM, 0) => Config::nim(),
            (NIM, _) => Config::nim_own(),
            _ => return Err(Failure::argument("the profile is neither LIP nor NIM")),
        };
        debug_assert_eq!(config.profile == Profile::Nim, self.profile == NIM);
        config.only_own_peers = self.only_own_peers != 0;
        config.participants = self.participants;
        config.start = if self.joining != 0 { Start::Joining } else { Start::Beginning };
        config.seed = if self.seed == 0 { random() } else { self.seed };
        config.filter_capacity = self.filter_capacity;
        config.history = self.history as usize;
        config.causal = self.causal as usize;
        config.resend_attempts = u8::try_from(self.resend_attempts)
            .map_err(|_| Failure::argument("more than 255 attempts to send"))?;
        config.resend_ms = self.resend_ms;
        config.resend_possibly_ms = self.resend_ms.saturating_mul(4);
        config.sync = self.sync_interval_ms != 0;
        if config.sync {
            config.sync_interval_ms = self.sync_interval_ms;
        }
        config.repair = self.t_min_ms != 0;
        if config.repair {
            (config.t_min_ms, config.t_max_ms) = (self.t_min_ms, self.t_max_ms);
        }
        config.lost_after_ms = (self.lost_after_ms != 0).then_some(self.lost_after_ms);
        config.fetch = self.fetch != 0;
        config.confirm = self.confirm != 0;
        config.keep = match self.keep {
            0 => Keep::Nothing,
            1 => Keep::Relaxed,
            2 => Keep::Durable,
            _ => return Err(Failure::argument("an unknown way to keep changes")),
        };
        Ok(config)
    }
}

/// 64 bits from the system's source, by way of the standard library's hash keys.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_read_as_they_were_written() {
        for (number, expected) in [(LIP, Config::lip()), (NIM, Config::nim())] {
            let mut raw = RawConfig::default_of(number).unwrap();
            raw.seed = 7;
            assert_eq!(raw.read().unwrap(), {
                let mut expected = expected;
                expected.seed = 7;
                expected
            });
        }
        assert!(RawConfig::default_of(2).is_err());
    }

    #[test]
    fn a_structure_of_another_version_is_refused() {
        let raw = RawConfig { size: 96, ..RawConfig::default_of(LIP).unwrap() };
        assert!(raw.read().is_err());
    }
}
