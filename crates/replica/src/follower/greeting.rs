//! Who is at the other end, and what ends a channel (O3).

use std::time::Duration;

use super::{Follower, Link, Output, Told, place::Wrong};
use crate::{
    error::Error,
    leader::check_fits,
    traits::Sink,
    wire::{Hello, Message, Reason, Refusal},
};

impl<K: Sink> Follower<K> {
    /// Whether the other end may be listened to (O3).
    pub(super) fn check_epoch(&mut self, now: Duration, epoch: u64) -> Result<bool, Wrong> {
        if epoch < self.known {
            let (ours, theirs) = (self.known, epoch);
            let refusal = Refusal { reason: Reason::Replaced, ours, theirs, text: "" };
            self.refuse(now, refusal, Told::StaleLeader { epoch, known: self.known });
            return Ok(false);
        }
        if epoch > self.known {
            match self.sink.know(epoch) {
                // No leader can have such an epoch.
                Err(error @ mainstay_store::Error::OutOfLimits { .. }) => {
                    return Err(Wrong::Protocol(error.to_string()));
                }
                known => known?,
            }
            self.known = self.sink.known_epoch();
        }
        Ok(true)
    }

    pub(super) fn welcome(
        &mut self,
        now: Duration,
        epoch: u64,
        theirs: &Hello,
    ) -> Result<(), Wrong> {
        if self.link != Link::Greeting {
            return Err(Wrong::Protocol("a second welcome".to_owned()));
        }
        let has_this_store = theirs.identity.id == self.hello.identity.id;
        if has_this_store && !self.check_epoch(now, epoch)? {
            return Ok(());
        }
        let misfit = if theirs.version == self.hello.version {
            let (ours, theirs_max) = (self.hello.write_bytes_max, theirs.write_bytes_max);
            check_fits(&self.hello.identity, &theirs.identity, theirs_max, ours).err()
        } else {
            Some((Reason::Version, self.hello.version.into(), theirs.version.into()))
        };
        if let Some((reason, ours, theirs)) = misfit {
            let refusal = Refusal { reason, ours, theirs, text: "" };
            let why = refusal.to_string();
            let told = Told::Refused(Error::Refused { by: "the follower", why });
            self.refuse(now, refusal, told);
            return Ok(());
        }
        self.link = Link::Open;
        self.ack_due = true;
        self.outputs.push_back(Output::Told(Told::Joined { epoch }));
        let mut syncs = Vec::new();
        for place in &mut self.shards {
            let (shard, at) = place.ask();
            syncs.push((shard, at, self.sink.records(shard)? == 0));
        }
        for (shard, at, is_empty) in syncs {
            self.send(now, &Message::Sync { shard, at, is_empty });
        }
        Ok(())
    }

    /// The leader wants no more of it.
    pub(super) fn refused(&mut self, now: Duration, epoch: u64, refusal: &Refusal<'_>) {
        let told = if refusal.reason == Reason::Replaced && epoch < self.known {
            Told::StaleLeader { epoch, known: self.known }
        } else {
            Told::Refused(Error::Refused { by: "the leader", why: refusal.to_string() })
        };
        self.outputs.push_back(Output::Told(told));
        self.outputs.push_back(Output::Disconnect);
        self.wait(now);
    }

    pub(super) fn give_up(&mut self, now: Duration, wrong: Wrong) {
        let text;
        let (reason, told) = match wrong {
            Wrong::Protocol(what) => {
                text = what.clone();
                let why = what;
                (Reason::Protocol, Told::Refused(Error::Refused { by: "the follower", why }))
            }
            Wrong::Store(error) => {
                text = error.to_string();
                (Reason::Failed, Told::Failed(error.into()))
            }
        };
        let refusal = Refusal { reason, ours: 0, theirs: 0, text: &text };
        self.refuse(now, refusal, told);
    }

    pub(super) fn refuse(&mut self, now: Duration, refusal: Refusal<'_>, told: Told) {
        self.send(now, &Message::Refused(refusal));
        self.outputs.push_back(Output::Disconnect);
        self.outputs.push_back(Output::Told(told));
        self.wait(now);
    }
}
