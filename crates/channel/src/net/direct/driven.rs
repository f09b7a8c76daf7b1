//! What the tasks of a channel do: everything for those who do not block, and what goes on beside.

use super::{Direct, LOOK_MAX, LOOK_MIN, Next, lock, try_lock};
use crate::{
    Payload, Why,
    frame::Kind,
    net::{
        batch::BATCH_BYTES,
        socket::watched,
        tasks::{Ended, lost},
    },
};
use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::Interest,
    time::{MissedTickBehavior, interval_at, timeout},
};

impl Direct {
    pub(super) async fn read_all(&self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.read_driven().await? {
                return Ok(ended);
            }
            if let Some(ended) = self.watch_direct().await {
                return Ok(ended);
            }
        }
    }

    /// Reads for everybody, until threads want to do it themselves.
    async fn read_driven(&self) -> io::Result<Option<Ended>> {
        let half = (self.silence / 2).max(Duration::from_millis(1));
        let mut ticks = interval_at(tokio::time::Instant::now() + half, half);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        lock(&self.inbox).heard = Instant::now();
        // Registered as long as it is used: what threads read would wake it otherwise.
        let socket = watched(Arc::clone(&self.socket), Interest::READABLE)?;
        loop {
            let next = lock(&self.inbox).next();
            match next {
                Next::End(ended) => return Ok(Some(ended)),
                Next::Message(message) => {
                    let mut message = Some(Payload::One(message));
                    match self.queues.incoming.push(&mut message) {
                        Ok(true) => continue,
                        Ok(false) => {}
                        Err(_) => return Ok(Some(Ended::Here)),
                    }
                    let pushed = poll_fn(|cx| self.queues.incoming.poll_push(cx, &mut message));
                    if pushed.await.is_err() {
                        return Ok(Some(Ended::Here));
                    }
                    // Meanwhile nobody listened.
                    lock(&self.inbox).heard = Instant::now();
                    ticks.reset();
                    continue;
                }
                Next::More => {}
            }
            tokio::select! {
                biased;
                ready = socket.readable() => {
                    let mut ready = ready?;
                    let mut inbox = lock(&self.inbox);
                    match self.read_some(&mut inbox) {
                        Ok(0) => return Ok(Some(lost("the peer hung up"))),
                        Ok(_) => inbox.heard = Instant::now(),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            ready.clear_ready();
                        }
                        Err(error) => return Ok(Some(lost(&error.to_string()))),
                    }
                }
                _ = ticks.tick() => {
                    if lock(&self.inbox).heard.elapsed() >= self.silence {
                        return Ok(Some(Ended::Lost(Why::Silent { silence: self.silence })));
                    }
                }
                () = self.changed.notified() => {
                    if self.direct_wanted.swap(false, Relaxed) && self.queues.incoming.is_open() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Lets threads read, until none does any more.
    async fn watch_direct(&self) -> Option<Ended> {
        {
            let mut inbox = lock(&self.inbox);
            inbox.heard = Instant::now();
            self.is_direct.store(true, Release);
        }
        self.queues.incoming.wake_readers();
        let (mut seen, mut look) = (self.uses.load(Relaxed), LOOK_MIN);
        loop {
            let woken = timeout(look, self.changed.notified()).await.is_ok();
            let wanted = self.driven_wanted.swap(false, Relaxed);
            let over = !self.queues.incoming.is_open();
            let uses = self.uses.load(Relaxed);
            // Whoever is inside sees to everything, and gives it back when it is over.
            let Some(mut inbox) = try_lock(&self.inbox) else {
                if wanted {
                    self.driven_wanted.store(true, Relaxed);
                }
                look = if woken || wanted { LOOK_MIN } else { (look * 2).min(LOOK_MAX) };
                continue;
            };
            if let Some(ended) = inbox.ended.take() {
                return Some(ended);
            }
            if wanted || over || (!woken && uses == seen) {
                self.is_direct.store(false, Release);
                // A thread that has just missed it asks again.
                self.direct_wanted.store(false, Relaxed);
                return None;
            }
            (seen, look) = (uses, LOOK_MIN);
        }
    }

    /// Reads what nobody wants until the peer has hung up: hanging up on unread bytes would take
    /// away from the peer what it has not read yet (RFC 1122, 4.2.2.13). The writer bounds the time.
    pub(super) async fn drain(&self) {
        let socket = watched(Arc::clone(&self.socket), Interest::READABLE);
        let Ok(socket) = socket else { return };
        let mut waste = vec![0; 16 << 10];
        while let Ok(mut ready) = socket.readable().await {
            match io::Read::read(&mut &*self.socket, &mut waste) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Writes what comes by the queue. Returns when the user closes or aborts, or the peer does.
    pub(super) async fn write_all(&self, keep_alive: Duration) -> io::Result<()> {
        let mut ticks = interval_at(tokio::time::Instant::now() + keep_alive, keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes = 0;
        loop {
            tokio::select! {
                biased;
                ready = poll_fn(|cx| self.queues.outgoing.poll_ready(cx)) => {
                    if ready.is_err() {
                        // What a thread has left half written is still to be whole.
                        let aborted = self.queues.outgoing.is_aborted();
                        return if aborted { Ok(()) } else { self.flush().await };
                    }
                }
                () = self.freed.notified() => {}
                _ = ticks.tick() => {
                    // Whoever has the outbox is writing: a sign of life as good as any.
                    if let Some(mut outbox) = try_lock(&self.outbox) {
                        if outbox.writes == writes && self.is_written(&outbox) {
                            outbox.batch.sign(Kind::KeepAlive);
                        }
                        writes = outbox.writes;
                    }
                }
            }
            self.flush().await?;
        }
    }

    /// Writes until queue and batch are empty.
    async fn flush(&self) -> io::Result<()> {
        loop {
            let written = match try_lock(&self.outbox) {
                None => None,
                Some(mut outbox) => {
                    // B2. Popped under the lock.
                    while outbox.batch.len() < BATCH_BYTES {
                        match self.queues.outgoing.pop() {
                            Ok(Some(message)) => {
                                outbox.batch.add(&message);
                                outbox.writes += 1;
                            }
                            Ok(None) | Err(_) => break,
                        }
                    }
                    if self.is_written(&outbox) {
                        return Ok(());
                    }
                    Some(self.write_some(&mut outbox)?)
                }
            };
            match written {
                Some(true) => {}
                Some(false) => self.writable().await?,
                // A thread is writing, and says when it is through.
                None => {
                    let _ = timeout(LOOK_MIN, self.freed.notified()).await;
                }
            }
        }
    }

    async fn writable(&self) -> io::Result<()> {
        // A descriptor of its own, since a poller takes each only once.
        let socket = watched(Arc::new(self.socket.try_clone()?), Interest::WRITABLE)?;
        socket.writable().await?.retain_ready();
        Ok(())
    }

    pub(super) async fn say_close(&self) -> io::Result<()> {
        // Threads see that it is over: none adds anything any more.
        self.flush().await?;
        lock(&self.outbox).batch.sign(Kind::Close);
        self.flush().await?;
        #[cfg(feature = "tls")]
        if let Some(records) = &self.records {
            records.say_end();
            self.flush().await?;
        }
        Ok(())
    }
}
