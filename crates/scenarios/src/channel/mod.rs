//! Channels in a bad world: members of a cluster that dial each other over faulty streams, chat,
//! pause, close and hang up; misfits that do not belong; strangers who speak nonsense.
//!
//! The channel's own cores do the work: frames, handshake, back-off, and the queues of a channel in
//! memory. [`link`] drives them over a simulated stream, and is a channel to its user.
//!
//! Z1. A handshake ends in time, in an agreement or with a reason; nobody agrees with a misfit.
//! Z2. What is received is what was sent, in order, once, without a gap, whole.
//! Z3. After a clean close, everything sent before it has been received.
//! Z4. No end holds more than its bounds, whatever the other does.
//! Z5. A stranger is never sent more than it has sent.
//! Z6. Peers that cannot be reached are not dialled more often than the back-off says.
//! Z7. The user of a channel that has ended is told so.
//! Z8. Once all is mended, all members are connected, all connections are open on both ends, none
//!     of them is lost any more, and messages pass through each.

mod chat;
mod link;
mod member;
mod story;
mod stranger;

use crate::registry::{Options, Planted, Scenario};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "channel",
    about: "members, misfits and strangers dial each other over faulty streams",
    work: "messages received",
    run: story::run,
    planted: &FLAWS,
};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    ForgetsWhatIsFull,
    Overtakes,
    ReadsOnWhenFull,
    ForgetsOnClose,
    TakesTheEndForAClose,
    NeverSaysAnything,
    NeverMindsSilence,
    WaitsForStrangers,
    DialsAtOnce,
    AnswersStrangersAtLength,
    LeavesItsUserWaiting,
}

impl Flaw {
    const ALL: [Self; FLAWS.len()] = [
        Self::ForgetsWhatIsFull,
        Self::Overtakes,
        Self::ReadsOnWhenFull,
        Self::ForgetsOnClose,
        Self::TakesTheEndForAClose,
        Self::NeverSaysAnything,
        Self::NeverMindsSilence,
        Self::WaitsForStrangers,
        Self::DialsAtOnce,
        Self::AnswersStrangersAtLength,
        Self::LeavesItsUserWaiting,
    ];

    /// The one that is planted, if any.
    fn of(options: &Options) -> Option<Self> {
        options.flaw(&FLAWS, Self::ALL.into_iter())
    }
}

const FLAWS: [Planted; 11] = [
    Planted::new("forgets-what-is-full", "a message that finds no room is dropped"),
    Planted::new("overtakes", "a message that finds no room is put behind the next"),
    Planted::new("reads-on-when-full", "a reader whose user is slow reads on"),
    Planted::new("forgets-on-close", "what was sent right before a close is dropped"),
    Planted::new("takes-the-end-for-a-close", "a stream that ends counts as closed in order"),
    Planted::new("never-says-anything", "an idle end gives no sign of life"),
    Planted::new("never-minds-silence", "a peer that is gone is waited for, for ever"),
    Planted::new("waits-for-strangers", "a handshake may take for ever"),
    Planted::new("dials-at-once", "a lost peer is dialled again without a pause"),
    Planted::new("answers-strangers-at-length", "an acceptor pads its challenge"),
    Planted::new("leaves-its-user-waiting", "a channel is lost and its user is not told"),
];
