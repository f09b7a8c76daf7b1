//! A manager: a thread that owns a participant.

use std::{
    collections::HashSet,
    ffi::{CString, c_int},
    io,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mainstay_sds::{
    Channel, Error, Now, Output, Participant, Reason, Received, shown,
    wire::{Kind, MessageView, Profile},
};

use super::{
    config::Settings,
    reply::{Dependency, Event, Unwrapped, base64, decimal, json, text},
};
use crate::raw::{Callback, HintProvider, guarded};

pub(super) const RET_OK: c_int = 0;
pub(super) const RET_ERR: c_int = 1;

/// Channels that messages received may make: strangers must not fill the memory.
const STRANGE_CHANNELS_MAX: usize = 1024;

/// The longest sleep, so that no arithmetic on time can overflow.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

type Task = Box<dyn FnOnce(&mut Worker) + Send>;

/// What a call gives: a text, or what was wrong.
type Answer = Result<String, String>;

/// The thread, from outside.
pub(super) struct Manager {
    tasks: mpsc::Sender<Task>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Manager {
    pub(super) fn start(participant: &[u8], settings: Settings) -> io::Result<Self> {
        let worker = Worker::new(participant, settings).map_err(io::Error::other)?;
        let (tasks, to_do) = mpsc::channel();
        let thread = thread::Builder::new().name("sds".to_owned());
        let thread = thread.spawn(move || worker.run(&to_do))?;
        Ok(Self { tasks, thread: Mutex::new(Some(thread)) })
    }

    /// Has the thread do something and tell the callback what came of it; false if it has ended.
    pub(super) fn ask(
        &self,
        callback: Callback,
        work: impl FnOnce(&mut Worker) -> Answer + Send + 'static,
    ) -> bool {
        self.tell(move |worker| {
            let failed =
                || Err("an internal error; the call may have been done in part".to_owned());
            match guarded(failed(), || work(&mut *worker)) {
                Ok(text) => callback.call(RET_OK, &text),
                Err(text) => callback.call(RET_ERR, &text),
            }
        })
    }

    pub(super) fn tell(&self, work: impl FnOnce(&mut Worker) + Send + 'static) -> bool {
        self.tasks.send(Box::new(work)).is_ok()
    }

    /// Waits for the thread's end, unless it is the caller.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // A panic of it was caught and told before it got here.
            let _ended = thread.join();
        }
    }
}

/// The thread, from inside.
pub(super) struct Worker {
    participant: Participant,
    settings: Settings,
    /// When the periodic tasks were started. Before that no time passes: nothing is sent again,
    /// asked for or given up, as nobody would send it.
    started: Option<Instant>,
    pub(super) events: Option<Callback>,
    pub(super) hints: Option<HintProvider>,
    /// Channels that were made by messages received.
    strange: HashSet<String>,
    /// When to tell the program to sync; only after the periodic tasks were started.
    next_sync_ms: Option<u64>,
    is_ending: bool,
}

impl Worker {
    fn new(participant: &[u8], settings: Settings) -> mainstay_sds::Result<Self> {
        Ok(Self {
            participant: Participant::new(participant)?,
            settings,
            started: None,
            events: None,
            hints: None,
            strange: HashSet::new(),
            next_sync_ms: None,
            is_ending: false,
        })
    }

    fn run(mut self, tasks: &mpsc::Receiver<Task>) {
        while !self.is_ending {
            match tasks.recv_timeout(self.sleep()) {
                Ok(task) => guarded((), || task(&mut self)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.is_ending {
                guarded((), || self.tick());
            }
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let passed = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        Now { mono_ms: ms(passed), wall_ms: ms(wall) }
    }

    fn sleep(&mut self) -> Duration {
        if self.started.is_none() {
            return SLEEP_MAX;
        }
        let next = [self.participant.poll_timeout(), self.next_sync_ms].into_iter().flatten().min();
        next.map_or(SLEEP_MAX, |at| {
            Duration::from_millis(at.saturating_sub(self.now().mono_ms)).min(SLEEP_MAX)
        })
    }

    /// What is due.
    fn tick(&mut self) {
        let now = self.now();
        let due = self.participant.poll_timeout().is_some_and(|at| at <= now.mono_ms);
        if due && self.started.is_some() {
            self.participant.handle_timeout(now);
        }
        self.tell_all(None);
        if let Some(at) = self.next_sync_ms
            && at <= now.mono_ms
        {
            self.next_sync_ms = Some(now.mono_ms + self.settings.sync_interval_ms);
            self.event(&Event::PeriodicSync);
        }
    }

    fn event(&self, event: &Event<'_>) {
        if let Some(callback) = self.events {
            callback.call(RET_OK, &json(event));
        }
    }

    /// Tells the program everything there is; returns the message with the id that is wanted.
    fn tell_all(&mut self, wanted: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut found = None;
        let repairs = self.started.is_some();
        let events = self.events;
        let tell = |event: &Event<'_>| {
            if let Some(callback) = events {
                callback.call(RET_OK, &json(event));
            }
        };
        while let Some((channel_id, output)) = self.participant.poll_output() {
            match output {
                Output::Broadcast(broadcast) => match broadcast.reason {
                    Reason::Content if wanted == Some(broadcast.id) => {
                        found = Some(broadcast.bytes.to_vec());
                    }
                    Reason::Repair | Reason::Resend if repairs => {
                        let message = base64(broadcast.bytes);
                        tell(&Event::RepairReady { channel_id, message });
                    }
                    _ => {}
                },
                Output::Deliver(delivery) => {
                    let message_id = &*text(delivery.id);
                    tell(&Event::MessageReady { message_id, channel_id });
                }
                Output::Acknowledged { id } => {
                    let message_id = &*text(id);
                    tell(&Event::MessageSent { message_id, channel_id });
                }
                Output::Evicted { id, .. } => {
                    let message_id = &*text(id);
                    tell(&Event::MessageEvicted { message_id, channel_id });
                }
                // Nothing is given up here. What is missing is told with the message that depends on it. Of a message that
                // nobody acknowledged in time the field's programs know nothing: an acknowledgement
                // that comes later is told.
                _ => {}
            }
        }
        found
    }

    fn make_channel(&mut self, name: &str) -> Result<(), Error> {
        let mut config = self.settings.config.clone();
        // Ids come from strangers: nobody must be able to tell where they are looked up.
        let keys = std::hash::RandomState::new();
        config.seed = std::hash::Hasher::finish(&std::hash::BuildHasher::build_hasher(&keys));
        self.participant.join(name, config)
    }

    pub(super) fn wrap(&mut self, content: &[u8], id: &[u8], channel: &[u8]) -> Answer {
        let name = name_of(channel)?;
        let now = self.now();
        if let Err(Error::UnknownChannel { .. }) = self.participant.channel(now, name) {
            self.make_channel(name).map_err(told)?;
        }
        self.strange.remove(name);
        let hints = self.hints;
        let channel = self.participant.channel(now, name).map_err(told)?;
        if let Some(provider) = hints {
            set_hints(channel, provider);
        }
        match channel.send(now, id, content) {
            Ok(_) => {}
            Err(Error::DuplicateId { .. }) => return again(channel, id, content),
            Err(error) => return Err(told(error)),
        }
        self.participant.touched(name);
        let wire = self.tell_all(Some(id));
        wire.map(|wire| decimal(&wire)).ok_or_else(|| "no message was made of it".to_owned())
    }

    pub(super) fn unwrap(&mut self, bytes: &[u8]) -> Answer {
        let message = MessageView::parse(Profile::Nim, bytes).map_err(told)?;
        let name = name_of(message.channel)?;
        let now = self.now();
        if let Err(Error::UnknownChannel { .. }) = self.participant.channel(now, name) {
            if self.strange.len() >= STRANGE_CHANNELS_MAX {
                return Err(format!(
                    "{STRANGE_CHANNELS_MAX} channels were made by messages received, and no more \
                     are: send to the channel first, or remove others"
                ));
            }
            self.make_channel(name).map_err(told)?;
            self.strange.insert(name.to_owned());
        }
        let received = match self.participant.receive(now, bytes) {
            Ok(received) => received,
            Err(error) => {
                self.drop_if_empty(now, name);
                return Err(told(error));
            }
        };
        let channel = self.participant.channel(now, name).map_err(told)?;
        let missing: Vec<Dependency> = match (received, message.kind()) {
            (Received::Duplicate | Received::Own, _) | (_, Kind::Ephemeral) => Vec::new(),
            _ => {
                let entries = message.causal.iter();
                let missing = entries.filter(|entry| !channel.is_here(entry.id));
                missing.map(|entry| Dependency::of(&entry)).collect()
            }
        };
        if !missing.is_empty() {
            let message_id = &*text(message.id);
            let missing_deps = &*missing;
            self.event(&Event::MissingDependencies { message_id, channel_id: name, missing_deps });
        }
        self.tell_all(None);
        let message = message.content.unwrap_or_default();
        Ok(json(&Unwrapped { message, channel_id: name, missing_deps: &missing }))
    }

    /// A channel that a refused message made is not kept.
    fn drop_if_empty(&mut self, now: Now, name: &str) {
        let known = self.participant.channel(now, name).map_or(0, |channel| channel.counts().known);
        if known == 0 && self.strange.remove(name) {
            let _was_there = self.participant.leave(name);
        }
    }

    pub(super) fn mark_met(&mut self, ids: &[Vec<u8>], channel: &[u8]) -> Answer {
        let name = name_of(channel)?;
        let now = self.now();
        let channel = self.participant.channel(now, name).map_err(told)?;
        for id in ids {
            channel.mark_known(now, id).map_err(told)?;
        }
        self.participant.touched(name);
        self.tell_all(None);
        Ok(String::new())
    }

    pub(super) fn start_periodic_tasks(&mut self) -> Answer {
        self.started.get_or_insert_with(Instant::now);
        let next = self.now().mono_ms + self.settings.sync_interval_ms;
        self.next_sync_ms.get_or_insert(next);
        Ok(String::new())
    }

    pub(super) fn remove(&mut self, channel: &[u8]) -> Answer {
        let name = name_of(channel)?;
        // That there is none is what was wanted.
        let _was_there = self.participant.leave(name);
        self.strange.remove(name);
        Ok(String::new())
    }

    pub(super) fn reset(&mut self) -> Answer {
        let own = Participant::new(self.participant.own_id()).map_err(told)?;
        self.participant = own;
        self.strange.clear();
        Ok(String::new())
    }

    pub(super) fn end(&mut self) -> Answer {
        self.is_ending = true;
        Ok(String::new())
    }
}

fn name_of(channel: &[u8]) -> Result<&str, String> {
    let no_text = |_| format!("the channel's name {} is no UTF-8 text: choose one", shown(channel));
    std::str::from_utf8(channel).map_err(no_text)
}

fn told(error: Error) -> String {
    error.to_string()
}

/// Asks the program how those messages can be found that the next message will cite.
fn set_hints(channel: &mut Channel, provider: HintProvider) {
    let cited: Vec<Vec<u8>> = channel.citable().map(<[u8]>::to_vec).collect();
    for id in cited {
        // An id with a zero in it cannot be told to a C program.
        let Ok(name) = CString::new(&*id) else { continue };
        let hint = provider.hint(&name);
        if !hint.is_empty() {
            // One that is too long for the wire is left out.
            let _too_long = channel.set_retrieval_hint(&id, &hint);
        }
    }
}

/// The message that was made of the same id and content before: the program sends it again.
fn again(channel: &Channel, id: &[u8], content: &[u8]) -> Answer {
    let copy = channel.copy_of(id).ok_or_else(|| used_before(id))?;
    let same = MessageView::parse(Profile::Nim, &copy)
        .is_ok_and(|message| message.content == Some(content));
    if same { Ok(decimal(&copy)) } else { Err(used_before(id)) }
}

fn used_before(id: &[u8]) -> String {
    told(Error::DuplicateId { id: shown(id) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::{c_char, c_void};

    /// With a small filter: nothing here is about filters.
    fn small() -> Worker {
        let settings = Settings::parse(br#"{"bloomFilterCapacity":10}"#).unwrap();
        Worker::new(b"", settings).unwrap()
    }

    #[test]
    fn a_message_that_waited_and_had_to_go_is_told() {
        let mut alice = small();
        let mut bob = small();
        let wire = |wrapped: Answer| -> Vec<u8> {
            wrapped.unwrap().split(',').map(|byte| byte.parse().unwrap()).collect()
        };
        // What all others depend on does not arrive.
        let _lost = wire(alice.wrap(b"lost", b"m0", b"room"));
        let (to, told) = mpsc::channel::<(c_int, String)>();
        let data = (&raw const to).cast_mut().cast();
        bob.events = Callback::new(Some(tell), data);
        let most = bob.settings.config.incoming_per_sender_max;
        for number in 1..=most + 1 {
            let wrapped = alice.wrap(b"content", format!("m{number}").as_bytes(), b"room");
            bob.unwrap(&wire(wrapped)).unwrap();
            let evicted = told.try_iter().find(|(_, text)| text.contains("message_evicted"));
            assert_eq!(evicted.is_some(), number > most, "{number}: {evicted:?}");
        }
    }

    type Told = mpsc::Sender<(c_int, String)>;

    unsafe extern "C" fn tell(status: c_int, text: *const c_char, len: usize, data: *mut c_void) {
        // SAFETY: the text is valid during the call.
        let text = unsafe { crate::raw::bytes(text.cast(), len) }.unwrap();
        // SAFETY: it is the sender below, which lives longer than the manager.
        let told = unsafe { &*data.cast::<Told>() };
        told.send((status, String::from_utf8(text).unwrap())).unwrap();
    }

    #[test]
    fn f1_a_panic_of_a_call_is_told_and_the_manager_goes_on() {
        let (to, told) = mpsc::channel();
        let to: Box<Told> = Box::new(to);
        let data = (&raw const *to).cast_mut().cast();
        let callback = Callback::new(Some(tell), data).unwrap();
        let manager = Manager::start(b"", Settings::parse(b"").unwrap()).unwrap();
        assert!(manager.ask(callback, |_| panic!("a fault")));
        let (status, text) = told.recv().unwrap();
        assert_eq!(status, RET_ERR);
        assert!(text.contains("an internal error"), "{text}");
        assert!(manager.tell(|_| panic!("a fault in what nobody waits for")));
        assert!(manager.ask(callback, |worker| worker.wrap(b"hello", b"m1", b"room")));
        let (status, text) = told.recv().unwrap();
        assert!(status == RET_OK && text.starts_with("10,2,"), "{status} {text}");
        assert!(manager.ask(callback, Worker::end));
        assert_eq!(told.recv().unwrap().0, RET_OK);
        manager.join();
    }
}
