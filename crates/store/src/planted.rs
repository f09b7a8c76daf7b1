//! Faults that tests plant, to see that the tests find them. Outside of tests there are none.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write is told to be durable without a sync.
    SyncLeftOut,
    /// The next segment is begun before the last one is synced.
    RotationWithoutSync,
    /// A segment is written to before its name is durable.
    NamesUnsynced,
    /// The log is cut before the name of the image is durable, or a segment is removed before the name
    /// of the list without it is.
    CutBeforeName,
    /// An error of a sync is told once, and forgotten.
    ErrorForgotten,
    /// The log is cut before the image is synced.
    LogCutEarly,
    /// The header of an image is written together with its data.
    ImageHeaderEarly,
    /// An image is published before the log it has seen is synced.
    ImageAhead,
    /// An image is said to hold all that was written when it was finished.
    ImageDatedLate,
    /// Frames are believed without their checksum.
    ChecksumIgnored,
    /// What an opening finds at the end of the log is not written and synced again.
    TailTrusted,
    /// Only the last frame is synced, and not what was written before it.
    SyncTooShort,
    /// A sync does not write what is in the ring only.
    RingLeftOut,
    /// A write counts only when the records have it already.
    CommitLate,
    /// A write counts before the ring has its frame.
    RingLate,
    /// A write counts before the file has its frame, which is too long for the ring.
    LongLate,
    /// A write is taken for made before the records have it.
    AppliedEarly,
    /// What a slot has is shown without a look at its checksum.
    SlotUnchecked,
    /// Memory is taken over though something in it was found to be damaged.
    SuspectTakenOver,
    /// Memory is taken over though its file was cut off.
    CutIgnored,
    /// A delete is refused where there is no room for one more record.
    DeletesReserve,
    /// Words of an index are taken over though they are not those that were written.
    NamesUnchecked,
    /// The place of the last write is believed without its check.
    PlaceUnchecked,
    /// Damage of the log is not mended from the ring.
    RingUnasked,
    /// What memory says of the end of the log is not asked where it is made anew.
    DurableUnasked,
    /// Slots that a dead process left filled, and nothing names, are not emptied.
    SweepLeftOut,
    /// Records are changed without being kept for snapshots.
    SnapshotForgotten,
    /// The first shard of a batch does not get the parts of the others.
    BatchUnmarked,
    /// The other shards of a batch are not synced before it.
    BatchBehindGap,
    /// The other shards of a batch get their parts before it counts.
    BatchUnsynced,
    /// Writes follow a batch before all of it is durable.
    BatchUnsettled,
    /// Shards go on after a batch with a part of them has failed.
    BatchForgotten,
    /// The shards of a batch that fails are unlocked before they give up.
    BatchUnlockedEarly,
    /// A batch begins before there is room for all of its parts.
    BatchUnreserved,
    /// A batch ends when it begins to count.
    BatchLeftHalf,
    /// Memory is believed though the machine was off since.
    BootIgnored,
    /// The header of a log says that writes are durable which are not yet.
    VouchedUnsynced,
    /// A leader that is closed does not say beside its log where the log ends.
    EndUnmarked,
    /// A segment is removed before what was moved out of it is durable.
    MovedUnsynced,
    /// A compaction moves what is not a key's newest record.
    MovedUnchecked,
    /// A compaction drops deletes that hide older records.
    DeletesDropped,
    /// A segment is removed before that is written down.
    ListLate,
    /// While shards become others, deletes are not made in both stores.
    MirrorWithoutDeletes,
    /// While shards become others, records are copied while others write to them.
    CopiedUnlocked,
    /// A copy has what the store may lose yet.
    CopyAhead,
    /// What an older copy has is removed before the new one is durable.
    CopyTidiedEarly,
    /// A copy has each shard as it was at another moment.
    CopyOfMoments,
    /// The segments of a copy are not synced before they are named.
    CopyUnsynced,
    /// What is damaged in a store is not told when it is repaired.
    LossUntold,
    /// Where a key's last value is damaged, the one before is shown, and nobody is told.
    OlderShown,
    /// Damaged records are saved without a look at their checksums.
    SalvageUnchecked,
    /// Of the values of a key that are sound an older one is saved.
    OlderTaken,
    /// A store made of a damaged one is said to be whole before it is durable.
    SalvageUnsynced,
    /// A store made of a damaged one leads, whatever that was.
    MadeLeader,
    /// A store made of a part of what a leader had is said to be all of it.
    MadeWhole,
    /// One place of the header says that a store is not whole, and the other that it is.
    MarkedOnce,
    /// A store with a shard that is at no place is said to be whole.
    WholeAtNoPlace,
    /// What seems damaged beside a writer is told without another look.
    ScrubOnce,
    /// Frames of a segment are checked by themselves, and not whether one is missing.
    ScrubFramesOnly,
    /// Records are shown though their time is over.
    EndIgnored,
    /// A compaction forgets when a record ends.
    EndForgotten,
    /// What a compaction moves counts as a write of the history.
    MovedCounted,
    /// Who reads a log goes on behind a segment that was removed.
    HolesIgnored,
    /// A compaction removes what a follower needs.
    RetainIgnored,
    /// A store that a salvage or a copy has not finished is opened.
    MarkIgnored,
    /// What a salvage or a copy makes has no mark before it is whole.
    MarkLeftOut,
    /// Keys are taken from files of a shard where they do not belong.
    StrangersTaken,
    /// Of a hint only the keys are compared with the segment.
    HintHeaderIgnored,
    /// A hint that the disk cannot read is an error.
    HintNeeded,
    /// Where frames end it is not looked at what lies there.
    EndUnlooked,
    /// A sector of an encrypted file that was torn inside is told as damage.
    FillerTold,
    /// The list without a segment does not say what was durable when it was written.
    ListUnmarked,
    /// What was half written when a disk was full is not gone for good before the next write.
    RemainsLeft,
    /// Hooks are told that a change replaces what was there before all of its write.
    OldOfBatch,
}

pub(crate) use switch::{current, plant};

/// Is this fault planted?
pub(crate) fn is(fault: Fault) -> bool {
    current() == Some(fault)
}

#[cfg(test)]
mod switch {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault for this thread.
    pub(crate) fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// The fault of this thread.
    pub(crate) fn current() -> Option<Fault> {
        PLANTED.get()
    }
}

#[cfg(not(test))]
mod switch {
    use super::Fault;

    pub(crate) const fn plant(_: Option<Fault>) {}

    pub(crate) const fn current() -> Option<Fault> {
        None
    }
}
