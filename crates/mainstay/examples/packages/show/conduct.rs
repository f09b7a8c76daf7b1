//! Starts everybody, cuts, kills, promotes, and judges what the copies have in the end.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    Result,
    cable::Cable,
    child::Child,
    compare::{self, Differences, compare},
    index::Index,
    records::{Step, save, update},
    roles::Role,
};

/// What to do.
pub(crate) struct Plan<'a> {
    /// Where the stores are; made and removed by whoever calls.
    pub(crate) folder: &'a Path,
    /// The packages; there are some.
    pub(crate) index: &'a Index,
    /// Begins the command line of a process of the show; its role, the folder, its number and an
    /// address are added.
    pub(crate) command: &'a dyn Fn() -> Command,
    /// A fault done on purpose: one of the followers does not delete.
    pub(crate) is_forgetful: bool,
}

/// What became of it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Outcome {
    /// Steps of the update.
    pub(crate) steps: u64,
    /// Of these, steps that a follower had durably when the leader was killed.
    pub(crate) acknowledged: u64,
    /// Leaders that were killed.
    pub(crate) kills: u64,
    /// From the kill to the promoted follower's taking writes, starting a process included.
    pub(crate) promoted_ms: f64,
    /// Acknowledged steps that the promoted follower did not have.
    pub(crate) lost: u64,
    /// Records that only the killed leader had, and set aside.
    pub(crate) aside: u64,
    /// What went to a new follower, and what to the one that had been cut off.
    pub(crate) whole_bytes: u64,
    pub(crate) missed_bytes: u64,
    /// The three copies, by their names.
    pub(crate) copies: Vec<(&'static str, Differences)>,
    pub(crate) seconds: f64,
}

impl Outcome {
    fn sum(&self, of: fn(&Differences) -> u64) -> u64 {
        self.copies.iter().map(|(_, found)| of(found)).sum()
    }

    /// Records with another value than they have to have.
    pub(crate) fn different(&self) -> u64 {
        self.sum(|found| found.different)
    }

    /// Records that a copy lacks.
    pub(crate) fn missing(&self) -> u64 {
        self.sum(|found| found.missing)
    }

    /// Records that a copy has and should not have.
    pub(crate) fn ghosts(&self) -> u64 {
        self.sum(|found| found.ghosts)
    }

    /// Whether all is well, and something was proved at all.
    pub(crate) fn is_well(&self) -> bool {
        let are_equal = self.copies.iter().all(|(_, found)| found.none() && found.equal > 0);
        let was_cut_short = (1..self.steps).contains(&self.acknowledged);
        let all = self.copies.len() == 3 && self.kills == 1;
        all && are_equal && was_cut_short && self.lost == 0
    }

    /// A line a copy.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(name, found): &(&str, Differences)| {
            let Differences { equal, different, missing, ghosts } = found;
            format!(
                "{name:28} {equal:>7} packages right, {different} different, {missing} missing, \
                 {ghosts} too many"
            )
        };
        self.copies.iter().map(line).collect()
    }

    /// The verdict, for people and for scripts.
    pub(crate) fn last_line(&self) -> String {
        format!(
            "PACKAGES records={} kills={} lost={} different={} missing={} ghosts={}",
            self.copies.first().map_or(0, |(_, found)| found.equal),
            self.kills,
            self.lost,
            self.different(),
            self.missing(),
            self.ghosts(),
        )
    }
}

/// How long the leader is alone before it is killed.
const ALONE: Duration = Duration::from_millis(30);
/// The numbers of the three nodes, which are their stores' names in the folder.
const LEADER: u64 = 1;
const FIRST: u64 = 2;
const SECOND: u64 = 3;

struct Show<'a> {
    plan: &'a Plan<'a>,
    tell: &'a mut dyn FnMut(&str) -> Result<()>,
    outcome: Outcome,
}

/// Runs the show; `tell` is called with lines for people as they come.
pub(crate) fn conduct(
    plan: &Plan<'_>,
    tell: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Outcome> {
    let began = Instant::now();
    let mut show = Show { plan, tell, outcome: Outcome::default() };
    show.play()?;
    show.outcome.seconds = began.elapsed().as_secs_f64();
    Ok(show.outcome)
}

impl Show<'_> {
    fn play(&mut self) -> Result<()> {
        let packages = &self.plan.index.records;
        let (import, changes) = (self.plan.folder.join("import"), self.plan.folder.join("update"));
        let puts: Vec<_> = packages.iter().map(|(key, value)| Step::Put(*key, *value)).collect();
        save(&import, puts.iter())?;
        let steps = update(packages);
        save(&changes, steps.iter())?;
        self.outcome.steps = steps.len() as u64;

        let begun = Instant::now();
        let mut leader = self.start(Role::Leader, LEADER, None)?;
        let address = leader.hear("leads at ")?.parse()?;
        leader.order(&format!("make 0 {}", import.display()))?;
        let writes = leader.hear("made ")?.parse()?;
        self.say(begun, &format!("{} packages are in the leader's store", packages.len()))?;

        let begun = Instant::now();
        let cables = [Cable::new()?, Cable::new()?, Cable::new()?];
        let [to_first, to_second, to_old] = &cables;
        to_first.lead_to(address);
        to_second.lead_to(address);
        let first = self.start(Role::Follower, FIRST, Some(to_first))?;
        let role = if self.plan.is_forgetful { Role::Forgetful } else { Role::Follower };
        let second = self.start(role, SECOND, Some(to_second))?;
        wait_for(&first, writes)?;
        wait_for(&second, writes)?;
        self.outcome.whole_bytes = to_second.bytes();
        self.say(begun, &format!("two followers have them, {} each", mb(to_second.bytes())))?;

        to_second.cut();
        let begun = Instant::now();
        leader.order(&format!("make 1 {}", changes.display()))?;
        let half = self.outcome.steps / 2;
        while leader.hear("acknowledged ")?.parse::<u64>()? < half {}
        // What it writes from here on is on its own disk only.
        to_first.cut();
        thread::sleep(ALONE);
        let pid = leader.id();
        let killed = Instant::now();
        let last = leader.kill("acknowledged ")?;
        self.outcome.kills += 1;
        self.outcome.acknowledged = match last {
            Some(number) => number.parse()?,
            None => half,
        };
        self.say(
            begun,
            &format!(
                "the second is cut off, then the first too; leader {pid} is killed (SIGKILL) in an \
                 update,\n           after {} of {} acknowledged steps",
                self.outcome.acknowledged, self.outcome.steps
            ),
        )?;

        first.stop()?;
        let there = compare::records(&self.store(FIRST))?;
        let acknowledged = usize::try_from(self.outcome.acknowledged)?;
        self.outcome.lost = compare::not_made(&there, &steps[..acknowledged]);
        let mut leader = self.start(Role::Leader, FIRST, None)?;
        let address = leader.hear("leads at ")?.parse()?;
        self.outcome.promoted_ms = killed.elapsed().as_micros() as f64 / 1_000.0;
        let lost = self.outcome.lost;
        self.say(
            killed,
            &format!("the first is promoted; of what it acknowledged {lost} is lost"),
        )?;

        let begun = Instant::now();
        let before = to_second.bytes();
        to_second.lead_to(address);
        to_old.lead_to(address);
        let old = self.start(Role::Follower, LEADER, Some(to_old))?;
        second.hear("follows ")?;
        self.outcome.missed_bytes = to_second.bytes() - before;
        let missed = mb(self.outcome.missed_bytes);
        self.say(begun, &format!("the second follows it, and has what it missed: {missed}"))?;
        leader.order(&format!("make 2 {}", changes.display()))?;
        let writes = leader.hear("made ")?.parse()?;
        wait_for(&second, writes)?;
        self.outcome.aside = wait_for(&old, writes)?;
        let aside = self.outcome.aside;
        self.say(
            begun,
            &format!(
                "the killed one follows it too, {aside} records set aside that only it had; the \
                 update is made"
            ),
        )?;

        for follower in [old, second, leader] {
            follower.stop()?;
        }
        let mut wanted = packages.clone();
        steps.iter().for_each(|step| step.make(&mut wanted));
        for (name, node) in [
            ("promoted follower", FIRST),
            ("follower that was cut off", SECOND),
            ("leader that was killed", LEADER),
        ] {
            let found = compare(&compare::records(&self.store(node))?, &wanted);
            self.outcome.copies.push((name, found));
        }
        Ok(())
    }

    fn store(&self, node: u64) -> PathBuf {
        self.plan.folder.join(node.to_string())
    }

    fn start(&self, role: Role, node: u64, cable: Option<&Cable>) -> Result<Child> {
        let mut command = (self.plan.command)();
        let address = cable.map_or_else(String::new, |cable| cable.address().to_string());
        command.arg(role.name()).arg(self.plan.folder).args([node.to_string(), address]);
        Child::start(role.name(), command)
    }

    fn say(&mut self, begun: Instant, what: &str) -> Result<()> {
        (self.tell)(&format!("{:>7.2} s  {what}", begun.elapsed().as_secs_f64()))
    }
}

/// Waits until a follower has all of so many writes; how many records it has set aside.
fn wait_for(follower: &Child, writes: u64) -> Result<u64> {
    loop {
        let said = follower.hear("follows ")?;
        let (at, aside) = said.split_once(' ').ok_or("a follower that says too little")?;
        if at.parse::<u64>()? == writes {
            return Ok(aside.parse()?);
        }
    }
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_show_that_proved_nothing_is_not_well() {
        let equal = Differences { equal: 9, ..Differences::default() };
        let copies = vec![("one", equal), ("two", equal), ("three", equal)];
        let well = Outcome { steps: 9, acknowledged: 5, kills: 1, copies, ..Outcome::default() };
        assert!(well.is_well());
        assert!(!Outcome { kills: 0, ..well.clone() }.is_well());
        assert!(!Outcome { acknowledged: 0, ..well.clone() }.is_well());
        assert!(!Outcome { acknowledged: 9, ..well.clone() }.is_well());
        assert!(!Outcome { lost: 1, ..well.clone() }.is_well());
        assert!(!Outcome { copies: well.copies[1..].to_vec(), ..well.clone() }.is_well());
        for fault in [
            Differences { different: 1, ..equal },
            Differences { missing: 1, ..equal },
            Differences { ghosts: 1, ..equal },
            Differences { equal: 0, ..equal },
        ] {
            let copies = vec![("one", equal), ("two", fault), ("three", equal)];
            assert!(!Outcome { copies, ..well.clone() }.is_well());
        }
    }
}
