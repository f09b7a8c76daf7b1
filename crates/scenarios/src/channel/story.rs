//! The story: who is there, what they may say of each other, and how it has to end.

use super::{
    Flaw,
    link::SILENCE,
    member::{CalmDown, Member, OpenEnd, Person, Report, name_of},
    stranger::Stranger,
};
use crate::registry::{Options, Outcome};
use mainstay_channel::{
    ClusterId, NodeId as Name, Secret,
    handshake::{Local, Purpose, Reason},
};
use mainstay_sim::{
    Boot, Chance, Error, Fault, FaultSet, Faults, Happening, NodeId, Setup, Story, Time, World,
    stream,
};
use std::{collections::BTreeMap, time::Duration};

const SAFETY: Duration = Duration::from_secs(40);
/// The longest pause of a dialler and the longest wait of a stream, twice.
const LIVENESS: Duration = Duration::from_secs(150);
/// Nothing is lost, and everybody says something: the calm speak every 16 seconds at least.
const STABLE: Duration = Duration::from_secs(40);

/// How one of the nodes does not belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Misfit {
    Secret,
    NoSecret,
    Cluster,
    Purpose,
    Version,
    Features,
}

impl Misfit {
    const ALL: [Self; 6] =
        [Self::Secret, Self::NoSecret, Self::Cluster, Self::Purpose, Self::Version, Self::Features];

    /// Is it why a handshake was refused?
    fn explains(self, reason: Reason) -> bool {
        match self {
            Self::Secret => reason == Reason::Proof,
            Self::NoSecret => reason == Reason::ProofMode,
            Self::Cluster => reason == Reason::Cluster,
            Self::Purpose => reason == Reason::Purpose,
            Self::Version => matches!(reason, Reason::Version { .. }),
            Self::Features => reason == Reason::Features,
        }
    }
}

/// Who is there.
#[derive(Clone, Copy, Debug)]
struct Cast {
    /// With the misfit, who is the last of them.
    members: u32,
    misfit: Option<Misfit>,
    stranger: bool,
}

impl Cast {
    fn drawn(seed: u64) -> Self {
        let mut rng = stream(seed, "cast");
        Self {
            members: rng.between(2, 4) as u32,
            misfit: rng.chance(400_000).then(|| *rng.pick(&Misfit::ALL)),
            stranger: rng.chance(500_000),
        }
    }

    fn is_misfit(self, node: NodeId) -> bool {
        self.misfit.is_some() && node.0 == self.members - 1
    }

    fn is_stranger(self, node: NodeId) -> bool {
        node.0 >= self.members
    }

    /// Those who are to find together.
    fn fitting(self) -> u32 {
        self.members - u32::from(self.misfit.is_some())
    }

    fn local(self, node: NodeId) -> Local {
        let misfit = self.misfit.filter(|_| self.is_misfit(node));
        let purpose = if misfit == Some(Misfit::Purpose) { "orders" } else { "calls" };
        let purpose = Purpose::new(purpose).expect("it is short and plain");
        let mut cluster = ClusterId::default();
        if misfit == Some(Misfit::Cluster) {
            cluster = "6f8a4b1e-0d0c-4a3e-9a51-3f2d3b7f9c10".parse().expect("it is a UUID");
        }
        let mut local = Local::new(name_of(node), cluster, purpose).with_features(0b01, 0);
        if misfit != Some(Misfit::NoSecret) {
            let wrong = misfit == Some(Misfit::Secret);
            let secret = if wrong { *b"fedcba9876543210" } else { *b"0123456789abcdef" };
            local = local.with_secret(Secret::new(secret).expect("it is long enough"));
        }
        match misfit {
            Some(Misfit::Version) => local.versions = 2..=3,
            Some(Misfit::Features) => local = local.with_features(0b01, 0b10),
            _ => {}
        }
        local.message_len_max = super::link::BOUNDS.message_len;
        local
    }

    fn person(self, boot: Boot, flaw: Option<Flaw>) -> Person {
        if self.is_stranger(boot.id) {
            return Person::Stranger(Stranger::new(boot, self.members));
        }
        let local = self.local(boot.id);
        Person::Member(Box::new(Member::new(boot, local, self.members, flaw)))
    }
}

/// Whoever watches.
struct Watcher {
    cast: Cast,
    /// What each end had sent when it closed.
    closed: BTreeMap<u64, u64>,
    received: u64,
}

impl Watcher {
    /// Z1.
    fn check_agreement(&self, node: NodeId, with: NodeId, says: Name) -> Result<(), String> {
        let cast = self.cast;
        let outside = [node, with].iter().any(|n| cast.is_misfit(*n) || cast.is_stranger(*n));
        if outside || says != name_of(with) {
            return Err(format!("{node} agreed with {with}, who says to be node {says}"));
        }
        Ok(())
    }

    /// Z1.
    fn check_refusal(&self, node: NodeId, with: NodeId, reason: Reason) -> Result<(), String> {
        let cast = self.cast;
        let misfit = [node, with].iter().any(|n| cast.is_misfit(*n));
        let explained = reason == Reason::Late
            || cast.is_stranger(with)
            || (misfit && cast.misfit.is_some_and(|misfit| misfit.explains(reason)));
        if explained {
            return Ok(());
        }
        Err(format!("{node} and {with} refused each other without a cause: {reason}"))
    }

    /// Z3. Whoever closes says so before its peer can know.
    fn check_end(&mut self, tag: u64, theirs: Option<u64>, received: u64) -> Result<(), String> {
        // One that has said nothing cannot be told from others.
        let Some(theirs) = theirs else { return Ok(()) };
        match self.closed.get(&theirs) {
            Some(sent) if *sent == received => Ok(()),
            Some(sent) => Err(format!(
                "{theirs:x} had sent {sent} messages when it closed, and {tag:x} was told a clean \
                 end after {received}"
            )),
            None => Err(format!("{tag:x} was told that {theirs:x} has closed, and it has not")),
        }
    }

    /// Z8, but that it stays so: all ends are open, and have heard more than they had in `before`.
    fn all_is_well(&self, world: &World<Person>, before: &OpenEnds) -> bool {
        let open = open_ends(world);
        let is_well = |end: &OpenEnd| is_matched(&open, end) && has_heard_more(before, end);
        open.len() == self.ends_expected() && open.values().all(|(_, end)| is_well(end))
    }

    /// Each of them dials all others.
    fn ends_expected(&self) -> usize {
        let fitting = self.cast.fitting() as usize;
        2 * fitting * (fitting - 1)
    }

    fn what_is_missing(&self, world: &World<Person>, before: &OpenEnds) -> String {
        let open = open_ends(world);
        let deaf = open.values().filter(|(_, end)| !has_heard_more(before, end)).count();
        let half = open.iter().filter(|(_, (_, end))| !is_matched(&open, end));
        let half: Vec<_> =
            half.map(|(tag, (node, _))| format!("{tag:x} of {node}")).take(SHOWN_MAX).collect();
        let (ends, expected) = (open.len(), self.ends_expected());
        format!(
            "{ends} ends are open and not {expected}; without their other end: {half:?}; {deaf} have \
             heard nothing since"
        )
    }
}

/// So many are shown.
const SHOWN_MAX: usize = 4;

type OpenEnds = BTreeMap<u64, (NodeId, OpenEnd)>;

/// By their tags.
fn open_ends(world: &World<Person>) -> OpenEnds {
    let ends = world.nodes().flat_map(|node| {
        let member = match world.node(node) {
            Some(Person::Member(member)) => Some(member),
            _ => None,
        };
        let ends = member.into_iter().flat_map(|member| member.open_ends());
        ends.map(move |end| (end.tag, (node, end)))
    });
    ends.collect()
}

/// Both ends know of each other.
fn is_matched(open: &OpenEnds, end: &OpenEnd) -> bool {
    let other = end.their_tag.and_then(|tag| open.get(&tag));
    other.is_some_and(|(_, other)| other.their_tag == Some(end.tag))
}

/// An end that is new has no past.
fn has_heard_more(before: &OpenEnds, end: &OpenEnd) -> bool {
    before.get(&end.tag).is_none_or(|(_, before)| end.received > before.received)
}

impl Story<Person> for Watcher {
    fn happens(&mut self, _: &mut World<Person>, what: Happening<Report>) -> Result<(), String> {
        let Happening::Report { node, report } = what else { return Ok(()) };
        match report {
            Report::Agreed { with, says } => self.check_agreement(node, with, says),
            Report::Refused { with, reason } => self.check_refusal(node, with, reason),
            Report::Closes { tag, sent } => {
                self.closed.insert(tag, sent);
                Ok(())
            }
            Report::Ended { tag, their_tag, received, clean } => {
                self.received += received;
                if clean { self.check_end(tag, their_tag, received) } else { Ok(()) }
            }
            Report::Wrong(what) => Err(what),
        }
    }
}

pub(super) fn run(seed: u64, options: &Options) -> Outcome {
    let (cast, flaw) = (Cast::drawn(seed), Flaw::of(options));
    let setup = Setup { break_after: Duration::from_secs(20), ..Setup::default() };
    let mut world = World::new(seed, setup, move |boot| cast.person(boot, flaw));
    if let Some(sink) = options.sink() {
        world.trace_to(sink);
    }
    let mut watcher = Watcher { cast, closed: BTreeMap::new(), received: 0 };
    let result = play(&mut world, &mut watcher, seed);
    Outcome {
        result: result.map_err(|error| error.to_string()),
        trace_hash: world.trace_hash(),
        events: world.events(),
        simulated: world.now().since(Time::START),
        worked: watcher.received,
    }
}

fn play(world: &mut World<Person>, watcher: &mut Watcher, seed: u64) -> Result<(), Error> {
    let cast = watcher.cast;
    world.note(&format!("{cast:?}"));
    world.add_nodes(cast.members as usize + usize::from(cast.stranger));
    let damage = FaultSet::of(&[Fault::Damage]);
    world.unleash(&Faults::drawn(seed, FaultSet::NETWORK | FaultSet::PROCESS | damage));
    world.run(SAFETY, watcher)?;

    world.heal();
    for node in world.nodes() {
        world.command(node, CalmDown);
    }
    let failed = |world: &World<Person>, what: String| Err(Error::Failed { at: world.now(), what });
    // Whoever has heard nothing for too long may not have noticed yet.
    world.run(SILENCE * 2, watcher)?;
    // Nor has one whose peer's last frame before had its length damaged: it takes what comes for the
    // rest of that frame, until it is whole and its checksum wrong. It hears no message till then.
    let silent = open_ends(world);
    // Looked at now and then: looking at all ends costs more than an event.
    let step = Duration::from_millis(500);
    let mut waited = Duration::ZERO;
    while !watcher.all_is_well(world, &silent) {
        if waited > LIVENESS {
            let what = watcher.what_is_missing(world, &silent);
            return failed(world, format!("{waited:?} after all was mended, {what}"));
        }
        world.run(step, watcher)?;
        waited += step;
    }

    let before = open_ends(world);
    world.run(STABLE, watcher)?;
    let after = open_ends(world);
    for (tag, (node, end)) in &before {
        let Some((_, now)) = after.get(tag) else {
            return failed(world, format!("{node} lost {tag:x} though all is well"));
        };
        if now.received <= end.received {
            return failed(world, format!("{node} has not heard anything on {tag:x} any more"));
        }
        watcher.received += now.received;
    }
    Ok(())
}
