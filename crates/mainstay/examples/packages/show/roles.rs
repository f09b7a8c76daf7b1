//! What each process of the show does.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mainstay::{
    channel::{
        Channel, ClusterId, NodeId, Secret,
        handshake::{Local, Purpose},
        net::{self, Listener, Settings, Wire},
    },
    replica::{FollowSettings, LeadSettings, Level, Sink, drive, follower},
    store::{Directory, Durability, Options, RawStore, Role as StoreRole},
};

use super::{
    Result,
    child::{Line, PATIENCE},
    forgetful::Forgetful,
    records::{KEY_LEN, Step, VALUE_LEN, load},
};

/// Steps between two waits for followers.
const STEPS: usize = 1_024;
/// How often a process looks for orders, and says how it is.
const LOOK: Duration = Duration::from_millis(20);
/// One who was hung up on calls again after so long, at first and at the most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

type Store = Arc<RawStore<Directory>>;

/// A process of the show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Leads the store of a folder: makes it if there is none, promotes it if it followed.
    Leader,
    /// Follows with the store of a folder: copies it if there is none, demotes it if it led.
    Follower,
    /// The same with a fault: it does not delete what its leader deletes.
    Forgetful,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Forgetful => "forgetful-follower",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Leader, Self::Follower, Self::Forgetful];
        all.into_iter().find(|role| role.name() == name)
    }
}

/// Is this process until told to stop. `node` is its number, and `folder` that of the show; a
/// follower calls at `address`.
pub(crate) fn play(role: Role, folder: &Path, node: u64, address: &str) -> Result<()> {
    let line = Line::listen();
    let path = folder.join(node.to_string());
    match role {
        Role::Leader => lead(&line, &path, node)?,
        Role::Follower => follow(&line, &path, node, address, |store| store)?,
        Role::Forgetful => follow(&line, &path, node, address, Forgetful)?,
    }
    line.leave(folder);
    Ok(())
}

/// Nodes of one show know each other by a secret. It is no secret to who reads this: the show is
/// between processes of one person, on one machine.
fn settings(node: u64) -> Result<Settings> {
    let local = Local::new(NodeId(node), ClusterId::default(), Purpose::new("packages")?);
    Ok(Settings::new(local.with_secret(Secret::new(*b"packages, packages, packages")?)))
}

fn lead(line: &Line, path: &Path, node: u64) -> Result<()> {
    let folder = Directory::lock(path)?;
    let options = Options::default();
    let store = match path.join("store").exists() {
        true => RawStore::open(folder, &options)?,
        false => RawStore::create(folder, KEY_LEN, VALUE_LEN, &options)?,
    };
    let store = match store.role() {
        StoreRole::Leader => store,
        // There is one conductor, which promotes one at a time: any number will do.
        StoreRole::Follower => store.promote(0)?,
    };
    let store = Arc::new(store);
    let leader = drive::lead(Arc::clone(&store), LeadSettings::default(), |told| {
        if let mainstay::replica::leader::Told::Failed(error) = told {
            eprintln!("packages: the leader: {error}");
        }
    })?;
    let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", settings(node)?)?;
    line.say(&format!("leads at {}", listener.address()));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                match listener.accept(LOOK) {
                    Ok(channel) => {
                        channel.into_iter().for_each(|channel| leader.attach(Arc::new(channel)));
                    }
                    Err(error) => return eprintln!("packages: the leader: {error}"),
                }
            }
        });
        let obeyed = obey(line, &store, &leader);
        is_over.store(true, Ordering::Relaxed);
        obeyed
    })?;
    drop(leader);
    store.sync()?;
    Ok(())
}

/// Does what it is told until it is told to stop.
fn obey(line: &Line, store: &Store, leader: &drive::Leading) -> Result<()> {
    while !line.is_over() {
        store.tend()?;
        let Some(order) = line.order(LOOK) else { continue };
        let mut words = order.splitn(3, ' ');
        let (Some("make"), Some(copies), Some(file)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!("{order:?} is no order").into());
        };
        make(line, store, leader, copies.parse()?, &load(Path::new(file))?)?;
    }
    Ok(())
}

/// Makes steps, and after each few of them waits until so many followers have them on their disks.
fn make(
    line: &Line,
    store: &Store,
    leader: &drive::Leading,
    copies: usize,
    steps: &[Step],
) -> Result<()> {
    let mut made = 0;
    for steps in steps.chunks(STEPS) {
        for step in steps {
            match step {
                Step::Put(key, value) => drop(store.put(key, value, Durability::Memory)?),
                Step::Delete(key) => drop(store.delete(key, Durability::Memory)?),
            }
        }
        for (shard, sequence) in places(store)? {
            leader.wait(shard, sequence, Level::Durable, copies, PATIENCE)?;
        }
        made += steps.len();
        line.say(&format!("acknowledged {made}"));
        store.tend()?;
    }
    store.sync()?;
    let writes: u64 = places(store)?.iter().map(|(_, sequence)| sequence).sum();
    line.say(&format!("made {writes}"));
    Ok(())
}

/// The last write of each shard.
fn places(store: &Store) -> Result<Vec<(u32, u64)>> {
    let mut places = Vec::new();
    for shard in 0..store.identity().shards {
        places.extend(store.history(shard)?.position().map(|at| (shard, at.sequence)));
    }
    Ok(places)
}

fn follow<K: Sink + Clone + Send + 'static>(
    line: &Line,
    path: &Path,
    node: u64,
    address: &str,
    sink: impl FnOnce(Store) -> K,
) -> Result<()> {
    let settings = settings(node)?;
    let store = match path.join("store").exists() {
        true => RawStore::open(Directory::lock(path)?, &Options::default())?,
        false => copy(path, address, &settings)?,
    };
    let store = match store.role() {
        StoreRole::Leader => store.demote()?,
        StoreRole::Follower => store,
    };
    let store = Arc::new(store);
    let to = address.to_owned();
    let dial = move || {
        let channel = net::connect(&Wire::Tcp, &to, &settings)?;
        Ok(Arc::new(channel) as Arc<dyn Channel>)
    };
    let aside = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&aside);
    let (pause_min, pause_max) = PAUSES;
    let settings = FollowSettings { pause_min, pause_max, ..FollowSettings::default() };
    let follower =
        drive::follow(sink(Arc::clone(&store)), dial, settings, move |told| match told {
            follower::Told::SetAside { records, .. } => {
                count.fetch_add(records, Ordering::Relaxed);
            }
            follower::Told::Refused(error) | follower::Told::Failed(error) => {
                eprintln!("packages: a follower: {error}");
            }
            _ => {}
        })?;
    let mut said = String::new();
    while !line.is_over() {
        thread::sleep(LOOK);
        store.tend()?;
        let status = follower.status();
        if status.iter().all(|shard| shard.is_caught_up) {
            let at: u64 = status.iter().filter_map(|shard| shard.at).map(|at| at.sequence).sum();
            let now = format!("follows {at} {}", aside.load(Ordering::Relaxed));
            if now != said {
                line.say(&now);
                said = now;
            }
        } else {
            said.clear();
        }
    }
    follower.stop();
    store.sync()?;
    Ok(())
}

/// An empty copy of what the leader has, who may be busy, or not there yet.
fn copy(path: &Path, address: &str, settings: &Settings) -> Result<RawStore<Directory>> {
    let until = Instant::now() + PATIENCE;
    let hello = loop {
        let asked = net::connect(&Wire::Tcp, address, settings)
            .map_err(mainstay::replica::Error::from)
            .and_then(|channel| drive::ask(&channel, settings.silence));
        match asked {
            Ok(hello) => break hello,
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => thread::sleep(PAUSES.0),
        }
    };
    let folder = Directory::lock(path)?;
    Ok(RawStore::create_replica(folder, &hello.identity, &Options::default())?)
}
