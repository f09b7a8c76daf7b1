//! Going to a peer again and again.

use super::{NetChannel, Settings, Wire, connect};
use crate::{
    Channel, Error, Result,
    dial::{Action, Backoff, Dial, Event},
};
use mainstay_base::mix64;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Keeps a channel to a peer: connects, and connects again when it was lost, with pauses that
/// double from 1 s to 30 s.
///
/// ```
/// # use mainstay_channel::{Channel, ClusterId, NodeId, Secret, handshake::{Local, Purpose}};
/// # use mainstay_channel::net::{Dialler, Listener, Settings, Wire};
/// # use std::time::Duration;
/// # let settings = |node| {
/// #     let secret = Secret::new(*b"0123456789abcdef").unwrap();
/// #     let local = Local::new(NodeId(node), ClusterId::default(), Purpose::new("x").unwrap());
/// #     Settings::new(local.with_secret(secret))
/// # };
/// # let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", settings(1))?;
/// # let address = listener.address().to_string();
/// let mut dialler = Dialler::new(Wire::Tcp, &address, settings(2));
/// let channel = dialler.channel(Duration::from_secs(5))?.expect("the peer is there");
/// channel.send("ringing".into())?;
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
#[derive(Debug)]
pub struct Dialler {
    wire: Wire,
    address: String,
    settings: Settings,
    dial: Dial,
    current: Option<NetChannel>,
    failures: u64,
    last: Option<Error>,
}

impl Dialler {
    /// A dialler that has not begun.
    ///
    /// Example: see [`Dialler`].
    #[must_use]
    pub fn new(wire: Wire, address: &str, settings: Settings) -> Self {
        Self {
            wire,
            address: address.to_owned(),
            settings,
            dial: Dial::new(Backoff::default()),
            current: None,
            failures: 0,
            last: None,
        }
    }

    /// The same with other pauses.
    ///
    /// ```no_run
    /// # use mainstay_channel::net::Dialler;
    /// # fn f(dialler: Dialler) {
    /// use mainstay_channel::dial::Backoff;
    /// use std::time::Duration;
    /// let dialler =
    ///     dialler.with_backoff(Backoff::between(Duration::from_millis(50), Duration::from_secs(1)));
    /// # }
    /// ```
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.dial = Dial::new(backoff);
        self
    }

    /// The channel, if it is open; or else a new one as soon as one can be had, within `timeout`.
    /// An attempt that is under way when the time is over is brought to its end, which the settings
    /// bound.
    ///
    /// Example: see [`Dialler`].
    ///
    /// # Errors
    /// None at present: a peer that refuses today may not do so tomorrow. [`Dialler::last_error`]
    /// says how the last attempt failed.
    pub fn channel(&mut self, timeout: Duration) -> Result<Option<NetChannel>> {
        let deadline = Instant::now().checked_add(timeout);
        let mut event = Event::Tick;
        if let Some(channel) = &self.current {
            if channel.is_open() {
                return Ok(Some(channel.clone()));
            }
            if channel.statistics().messages_received > 0 {
                self.dial.settle();
            }
            self.current = None;
            event = Event::Lost;
        }
        loop {
            let now = Instant::now();
            let action = self.dial.handle(now, event, self.random());
            event = Event::Tick;
            match action {
                Action::Dial => match connect(&self.wire, &self.address, &self.settings) {
                    Ok(channel) => {
                        self.dial.handle(Instant::now(), Event::Connected, 0);
                        self.last = None;
                        self.current = Some(channel.clone());
                        return Ok(Some(channel));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "dialling failed");
                        self.failures += 1;
                        self.last = Some(error);
                        event = Event::Failed;
                    }
                },
                Action::WaitUntil(until) => {
                    let wake = deadline.map_or(until, |deadline| deadline.min(until));
                    thread::sleep(wake.saturating_duration_since(now));
                    if wake < until {
                        return Ok(None);
                    }
                }
                // There is no attempt under way, since this is the only place that makes one.
                Action::Nothing => return Ok(None),
            }
        }
    }

    /// How the last attempt failed, if it did.
    ///
    /// ```no_run
    /// # use mainstay_channel::net::Dialler;
    /// # fn f(dialler: Dialler) {
    /// if let Some(error) = dialler.last_error() {
    ///     eprintln!("{error}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn last_error(&self) -> Option<&Error> {
        self.last.as_ref()
    }

    /// Jitter must differ between nodes and attempts, and need not be secret.
    fn random(&self) -> u64 {
        let node = self.settings.local.node.0;
        mix64(node ^ mix64(self.failures ^ u64::from(std::process::id()) << 32))
    }
}
