//! Bringing a copy up to date in one go, without a channel: the same cores, one calling the other.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    follower::{self, FollowSettings, Follower, Told},
    leader::{self, LeadSettings, Leader},
    traits::{Sink, Source},
    wire::Way,
};

/// Nobody else takes part, so nothing has to be waited for, and no time passes.
const NOW: Duration = Duration::ZERO;
/// The only follower there is.
const PEER: u64 = 1;

/// What bringing a copy up to date came to.
///
/// Example: see [`update`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated {
    /// Bytes of the messages that it took: about what was copied.
    pub bytes: u64,
    /// Shards that had to be compared record by record, as the log no longer has what they lacked, or
    /// as they had what the original never had.
    pub compared: u32,
    /// Records of the copy that the original does not have, set aside.
    pub set_aside: u64,
}

/// Makes `copy`, a follower of the same store, equal to what `of` was when this was called, or later;
/// durably. What is equal already is not copied: so it is an incremental backup, which can go on after
/// it was interrupted anywhere, and the way back from one. From its first change until it is through,
/// the copy is not [whole](mainstay_store::RawStore::is_whole): it is neither promoted, restored nor copied, so that
/// nobody takes a part of a store for all of it. Call it again, then it is. `progress` is shown how many writes the copy
/// has, and how many it wants.
///
/// The original may be written to meanwhile: each shard of the copy is then as one write left it, and a
/// batch across shards may be there in part. The leader of other followers keeps the log for one of
/// them at a time; to copy from such a one, let the copy follow it as well. An original whose place was
/// taken by another leader, as the copy knows, is told so and takes no more writes (N4).
///
/// ```
/// use mainstay_replica::update;
/// use mainstay_sim::Disk;
/// use mainstay_store::{Durability::Memory, Options, RawStore};
/// use std::sync::Arc;
/// let store = Arc::new(RawStore::create(Disk::new(1), 2, 3, &Options::default())?);
/// let copy = RawStore::create_replica(Disk::new(2), &store.identity(), &Options::default())?;
/// let copy = Arc::new(copy);
/// for (key, value) in [(b"de", b"049"), (b"it", b"039")] {
///     store.put(key, value, Memory)?;
///     update(&store, &copy, |_done, _wanted| {})?;
///     assert_eq!(copy.get(key)?, Some(value.to_vec()));
/// }
/// assert!(update(&store, &copy, |_, _| {})?.bytes < 1_000, "nothing is copied again");
/// # Ok::<(), mainstay_replica::Error>(())
/// ```
///
/// # Errors
/// [`mainstay_store::Error::Leads`] if the copy takes writes of its own; [`Error::Refused`] if the two
/// are not replicas of one store; [`mainstay_store::Error::Mending`] or
/// [`mainstay_store::Error::NotWhole`] if the original is itself on its way; what the disks say. What was copied stays, and is not copied again.
pub fn update<S: Source + Clone, K: Sink + Clone>(
    of: &S,
    copy: &K,
    progress: impl FnMut(u64, u64),
) -> Result<Updated> {
    if of.identity() != copy.identity() {
        let why = "it is of another store, or has other sizes or shards".to_owned();
        return Err(Error::Refused { by: "the copy", why });
    }
    let wanted = tips(of)?;
    let settings = FollowSettings { as_one: true, ..FollowSettings::default() };
    let mut pair = Pair {
        leader: Leader::new(of.clone(), LeadSettings::default(), NOW),
        follower: Follower::new(copy.clone(), settings, 0, NOW)?,
        updated: Updated::default(),
    };
    let done = pair.run(&wanted, progress);
    // Lets go of the log that was kept for the copy.
    pair.leader.handle(NOW, leader::Input::Lost { peer: PEER });
    // What has come, though an error ended it, stays. A copy may lie for years: damage of its last
    // writes must not look like writes that were never finished.
    let vouched = copy.vouch();
    done?;
    vouched?;
    Ok(pair.updated)
}

/// The last write of each shard.
fn tips<S: Source>(of: &S) -> Result<Vec<u64>> {
    let tip = |shard| {
        let position = of.tip(shard)?;
        Ok(position.ok_or(mainstay_store::Error::Mending { shard })?.sequence)
    };
    let tips = (0..of.identity().shards).map(tip).collect::<Result<_>>()?;
    if of.is_whole() { Ok(tips) } else { Err(mainstay_store::Error::NotWhole.into()) }
}

struct Pair<S: Source, K: Sink> {
    leader: Leader<S>,
    follower: Follower<K>,
    updated: Updated,
}

impl<S: Source, K: Sink> Pair<S, K> {
    fn run(&mut self, wanted: &[u64], mut progress: impl FnMut(u64, u64)) -> Result<()> {
        let total = wanted.iter().sum();
        self.leader.handle(NOW, leader::Input::Connected { peer: PEER });
        self.follower.handle(NOW, follower::Input::Tick);
        self.follower.handle(NOW, follower::Input::Connected);
        while !self.has(wanted) {
            // The follower's allowance bounds what is on its way between them.
            let (answers, news) = (self.hear_follower()?, self.hear_leader()?);
            // Who is at a long comparison may say nothing for a while.
            let is_due = self.follower.deadline(NOW).is_some_and(|due| due <= NOW);
            let is_busy = is_due || self.leader.deadline(NOW) <= NOW;
            if answers + news == 0 && !is_busy {
                let why = "neither has anything more to say, and the copy is not equal".to_owned();
                return Err(Error::Refused { by: "the copy", why });
            }
            progress(self.places(wanted), total);
        }
        // What the last messages have led to.
        self.hear_follower()?;
        progress(total, total);
        Ok(())
    }

    /// Whether the copy has all that was wanted.
    fn has(&self, wanted: &[u64]) -> bool {
        wanted.iter().zip(0..).all(|(wanted, shard)| {
            self.follower.status(shard).is_some_and(|status| {
                status.is_caught_up && status.at.is_some_and(|at| at.sequence >= *wanted)
            })
        })
    }

    /// How many of the writes that are wanted it has.
    fn places(&self, wanted: &[u64]) -> u64 {
        let place = |(wanted, shard): (&u64, u32)| {
            let at = self.follower.status(shard).and_then(|status| status.at);
            at.map_or(0, |at| at.sequence.min(*wanted))
        };
        wanted.iter().zip(0..).map(place).sum()
    }

    /// Takes the follower's messages to the leader; how many there were.
    fn hear_follower(&mut self) -> Result<usize> {
        let mut count = 0;
        while let Some(output) = self.follower.poll(NOW) {
            match output {
                follower::Output::Send(bytes) => {
                    let input = leader::Input::Message { peer: PEER, bytes: &bytes };
                    self.leader.handle(NOW, input);
                }
                follower::Output::Sync => {
                    self.follower.sink().sync()?;
                    self.follower.handle(NOW, follower::Input::Synced(true));
                }
                follower::Output::Told(told) => self.heed(told)?,
                // It asked before it was told that the leader is there, or ends, and has told why.
                follower::Output::Connect | follower::Output::Disconnect => continue,
            }
            count += 1;
        }
        Ok(count)
    }

    /// Takes the leader's messages to the follower.
    fn hear_leader(&mut self) -> Result<usize> {
        let mut count = 0;
        while let Some(output) = self.leader.poll(NOW) {
            match output {
                leader::Output::Send { bytes, .. } => {
                    self.updated.bytes += bytes.len() as u64;
                    self.follower.handle(NOW, follower::Input::Message(&bytes));
                }
                leader::Output::Told(leader::Told::Failed(error)) => return Err(error),
                leader::Output::Told(leader::Told::Replaced { by }) => {
                    let why =
                        format!("the copy knows of a leader of epoch {by}, copy from that one");
                    return Err(Error::Refused { by: "the copy", why });
                }
                leader::Output::Told(_) | leader::Output::Close { .. } => continue,
            }
            count += 1;
        }
        Ok(count)
    }

    fn heed(&mut self, told: Told) -> Result<()> {
        match told {
            Told::Refused(error) | Told::Failed(error) => return Err(error),
            Told::StaleLeader { epoch, known } => {
                let why =
                    format!("it knows of a leader of epoch {known}, and this one has {epoch}");
                return Err(Error::Refused { by: "the copy", why });
            }
            Told::Way { way, .. } => self.updated.compared += u32::from(way != Way::Resume),
            Told::SetAside { records, .. } => self.updated.set_aside += records,
            Told::Joined { .. } | Told::CaughtUp { .. } | Told::Lost => {}
        }
        Ok(())
    }
}
