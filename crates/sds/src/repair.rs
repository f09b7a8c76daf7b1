//! When to ask for a missing message, when to send one again for others, and who does it.
//!
//! Source: LIP-109, SDS Repair (SDS-R). The hash is that of the profile; its absolute values and
//! products are those of the profile's peers, so that all members of a group agree.

use crate::{
    hash::{absolute, farm64, repair_hash, sha64},
    wire::Profile,
};

/// How long to wait before asking for a missing message, in milliseconds (LIP-109, Determine
/// T_req).
///
/// ```
/// use mainstay_sds::{repair::request_delay_ms, wire::Profile};
/// assert_eq!(request_delay_ms(Profile::Lip, b"alice", b"m1", 30_000, 120_000), 81_014);
/// ```
#[must_use]
pub fn request_delay_ms(
    profile: Profile,
    own: &[u8],
    id: &[u8],
    t_min_ms: u64,
    t_max_ms: u64,
) -> u64 {
    if t_max_ms <= t_min_ms {
        return t_min_ms;
    }
    t_min_ms + repair_hash(profile, &[own, id]) % (t_max_ms - t_min_ms)
}

/// How long to wait before asking once more, for the `try_`-th time: as far as the first time, but
/// not in the same order among the members of a group.
///
/// ```
/// use mainstay_sds::{repair::{request_delay_ms, request_again_delay_ms}, wire::Profile};
/// let again = request_again_delay_ms(Profile::Lip, b"alice", b"m1", 1, 30_000, 120_000);
/// assert!((30_000..120_000).contains(&again));
/// assert_ne!(again, request_delay_ms(Profile::Lip, b"alice", b"m1", 30_000, 120_000));
/// ```
#[must_use]
pub fn request_again_delay_ms(
    profile: Profile,
    own: &[u8],
    id: &[u8],
    try_: u32,
    t_min_ms: u64,
    t_max_ms: u64,
) -> u64 {
    if t_max_ms <= t_min_ms {
        return t_min_ms;
    }
    let hash = repair_hash(profile, &[own, id, &try_.to_le_bytes()]);
    t_min_ms + hash % (t_max_ms - t_min_ms)
}

/// How long to wait before sending a message again for others, in milliseconds (LIP-109,
/// Determine T_resp): nothing for its own sender.
///
/// ```
/// use mainstay_sds::{repair::response_delay_ms, wire::Profile};
/// assert_eq!(response_delay_ms(Profile::Lip, b"alice", b"alice", b"m1", 120_000), 0);
/// assert_eq!(response_delay_ms(Profile::Lip, b"bob", b"alice", b"m1", 120_000), 86_325);
/// ```
#[must_use]
pub fn response_delay_ms(
    profile: Profile,
    own: &[u8],
    sender: &[u8],
    id: &[u8],
    t_max_ms: u64,
) -> u64 {
    if t_max_ms == 0 {
        return 0;
    }
    let (distance, hash) = match profile {
        Profile::Lip => (sha64(own) ^ sha64(sender), sha64(id)),
        Profile::Nim => (absolute(farm64(own) ^ farm64(sender)), absolute(farm64(id))),
    };
    let product = u128::from(distance % t_max_ms) * u128::from(hash % t_max_ms);
    (product % u128::from(t_max_ms)) as u64
}

/// Whether `own` is among those who send a message of `sender` again, when the members are divided
/// into `groups` (LIP-109, Determine response group).
///
/// ```
/// use mainstay_sds::{repair::in_response_group, wire::Profile};
/// assert!(in_response_group(Profile::Lip, b"alice", b"alice", b"m1", 64));
/// assert!(in_response_group(Profile::Lip, b"bob", b"alice", b"m1", 1));
/// ```
#[must_use]
pub fn in_response_group(
    profile: Profile,
    own: &[u8],
    sender: &[u8],
    id: &[u8],
    groups: u64,
) -> bool {
    groups <= 1
        || repair_hash(profile, &[own, id]) % groups == repair_hash(profile, &[sender, id]) % groups
}

/// The number of response groups for a group of so many participants, among Mainstay's own: a
/// power of two, so that groups nest and can be widened, with about eight members each.
///
/// Measured on a model of 100 and 1,000 participants with 20 % loss: groups of 8 need 1.16 to 1.24
/// times the copies that independent loss makes unavoidable, those of the specification's default
/// (128 participants a group) 1.33 to 1.47 times.
///
/// ```
/// use mainstay_sds::repair::response_groups;
/// assert_eq!((response_groups(10), response_groups(100), response_groups(1000)), (1, 8, 64));
/// ```
#[must_use]
pub fn response_groups(participants: u32) -> u32 {
    if participants < 16 { 1 } else { 1 << (participants / 8).ilog2() }
}

/// How many groups there are for a message after `requests` were heard for it: half as many after
/// every two, so that a message whose group has died out finds somebody who has it.
pub(crate) fn widened(groups: u32, requests: u32) -> u64 {
    u64::from((groups >> (requests / 2).min(31)).max(1))
}
