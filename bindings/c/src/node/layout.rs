//! The structures of the header. Their sizes are compared here, and again by the C program in the
//! tests.

use std::ffi::{c_char, c_int, c_void};

use mainstay_sds::{Config, Counts, FilterPolicy, Keep, Now, Start, wire::Profile};

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
    response_groups: u32,
    filter_error_rate: f64,
    filter_sparse: u32,
    sync_causal: u32,
    requests: u32,
    sync_requests: u32,
    resend_possibly_ms: u64,
    fetch_interval_ms: u64,
    lamport_ahead_ms: u64,
    lamport_gap: u64,
    lamport_join_ahead_ms: u64,
    message_len_max: u32,
    outgoing_max: u32,
    incoming_max: u32,
    incoming_bytes_max: u32,
    incoming_per_sender_max: u32,
    incoming_per_sender_bytes_max: u32,
}

/// `mainstay_sds_counts`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct RawCounts {
    pub(super) logged: u64,
    pub(super) outgoing: u64,
    pub(super) buffered: u64,
    pub(super) buffered_bytes: u64,
    pub(super) missing: u64,
    pub(super) wanted: u64,
    pub(super) answers: u64,
    pub(super) remembered: u64,
    pub(super) known: u64,
    pub(super) unconfirmed: u64,
    pub(super) needed: u64,
    pub(super) lamport: u64,
    pub(super) memory_bytes: u64,
}

impl From<Counts> for RawCounts {
    fn from(counts: Counts) -> Self {
        Self {
            logged: counts.logged as u64,
            outgoing: counts.outgoing as u64,
            buffered: counts.buffered as u64,
            buffered_bytes: counts.buffered_bytes as u64,
            missing: counts.missing as u64,
            wanted: counts.wanted as u64,
            answers: counts.answers as u64,
            remembered: counts.remembered as u64,
            known: counts.known as u64,
            unconfirmed: counts.unconfirmed as u64,
            needed: counts.needed,
            lamport: counts.lamport,
            memory_bytes: counts.memory_bytes as u64,
        }
    }
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
    pub(super) before: *const u8,
    pub(super) before_len: usize,
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
    assert!(size_of::<RawConfig>() == 192 && align_of::<RawConfig>() == 8);
    assert!(size_of::<RawCounts>() == 104);
    assert!(size_of::<RawOutput>() == 112 || size_of::<usize>() != 8);
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
            response_groups: config.response_groups.unwrap_or(0),
            filter_error_rate: config.filter_error_rate,
            filter_sparse: u32::from(config.filter_policy == FilterPolicy::Sparse),
            sync_causal: number(config.sync_causal),
            requests: number(config.requests),
            sync_requests: number(config.sync_requests),
            resend_possibly_ms: 0,
            fetch_interval_ms: config.fetch_interval_ms,
            lamport_ahead_ms: config.lamport_ahead_ms,
            lamport_gap: config.lamport_gap,
            lamport_join_ahead_ms: config.lamport_join_ahead_ms,
            message_len_max: number(config.message_len_max),
            outgoing_max: number(config.outgoing_max),
            incoming_max: number(config.incoming_max),
            incoming_bytes_max: number(config.incoming_bytes_max),
            incoming_per_sender_max: number(config.incoming_per_sender_max),
            incoming_per_sender_bytes_max: number(config.incoming_per_sender_bytes_max),
        })
    }

    #[cfg(test)]
    pub(super) fn keep_durably(&mut self) {
        self.keep = 2;
    }

    /// The configuration it stands for. Numbers are checked by the core.
    pub(super) fn read(&self) -> Outcome<Config> {
        if self.size != size_of::<Self>() as u64 {
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
        config.resend_possibly_ms = match self.resend_possibly_ms {
            0 => self.resend_ms.saturating_mul(4),
            given => given,
        };
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
        config.response_groups = (self.response_groups != 0).then_some(self.response_groups);
        config.filter_error_rate = self.filter_error_rate;
        config.filter_policy =
            if self.filter_sparse != 0 { FilterPolicy::Sparse } else { FilterPolicy::Always };
        config.sync_causal = self.sync_causal as usize;
        config.requests = self.requests as usize;
        config.sync_requests = self.sync_requests as usize;
        config.fetch_interval_ms = self.fetch_interval_ms;
        config.lamport_ahead_ms = self.lamport_ahead_ms;
        config.lamport_gap = self.lamport_gap;
        config.lamport_join_ahead_ms = self.lamport_join_ahead_ms;
        config.message_len_max = self.message_len_max as usize;
        config.outgoing_max = self.outgoing_max as usize;
        config.incoming_max = self.incoming_max as usize;
        config.incoming_bytes_max = self.incoming_bytes_max as usize;
        config.incoming_per_sender_max = self.incoming_per_sender_max as usize;
        config.incoming_per_sender_bytes_max = self.incoming_per_sender_bytes_max as usize;
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
    fn what_is_given_is_read() {
        let mut raw = RawConfig::default_of(LIP).unwrap();
        (raw.response_groups, raw.filter_error_rate, raw.filter_sparse) = (4, 0.01, 1);
        (raw.sync_causal, raw.requests, raw.sync_requests) = (7, 5, 6);
        (raw.resend_possibly_ms, raw.fetch_interval_ms) = (9, 10);
        (raw.lamport_ahead_ms, raw.lamport_gap, raw.lamport_join_ahead_ms) = (11, 12, 13);
        (raw.message_len_max, raw.outgoing_max, raw.incoming_max) = (3000, 14, 15);
        (raw.incoming_bytes_max, raw.incoming_per_sender_max) = (16, 17);
        raw.incoming_per_sender_bytes_max = 18;
        let config = raw.read().unwrap();
        assert_eq!((config.response_groups, config.filter_error_rate), (Some(4), 0.01));
        assert_eq!(config.filter_policy, FilterPolicy::Sparse);
        assert_eq!((config.sync_causal, config.requests, config.sync_requests), (7, 5, 6));
        assert_eq!((config.resend_possibly_ms, config.fetch_interval_ms), (9, 10));
        let lamport = (config.lamport_ahead_ms, config.lamport_gap, config.lamport_join_ahead_ms);
        assert_eq!(lamport, (11, 12, 13));
        let limits = (config.message_len_max, config.outgoing_max, config.incoming_max);
        assert_eq!(limits, (3000, 14, 15));
        let bytes = (config.incoming_bytes_max, config.incoming_per_sender_bytes_max);
        assert_eq!((bytes, config.incoming_per_sender_max), ((16, 18), 17));
    }

    #[test]
    fn a_structure_of_another_version_is_refused() {
        let raw = RawConfig { size: 96, ..RawConfig::default_of(LIP).unwrap() };
        assert!(raw.read().is_err());
    }
}
