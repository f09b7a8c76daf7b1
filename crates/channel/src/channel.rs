//! What every channel can do, whatever it runs over.

use crate::{Bytes, Error, Peer, Result, Statistics, limits};
use bytes::{BufMut, BytesMut};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::park::Parker;

/// One end of a channel: framed, ordered, reliable messages in both directions.
///
/// C1. What was sent arrives whole, once, and in the order of sending, or the channel ends.
/// C2. Each direction holds at most its [`Bounds`]; at the bound a sender waits, and goes on when
///     the peer receives.
/// C3. Sending and receiving never wait for each other, and `close` and `abort` for neither.
/// C4. After `close`, the peer receives all that was sent before, then is told `ChannelClosed`; at
///     the end that closed, everything fails at once. Dropping the last handle closes.
/// C5. After `abort`, and after the loss of the peer or of the connection, everything fails at once
///     at both ends, and what was on its way is gone.
/// C6. Whoever waits is woken when the channel ends.
/// C7. A receive that ends without a message has taken nothing: no byte is lost, whatever the
///     timing.
///
/// Handles are shared: any number of threads and tasks may send and receive at once.
///
/// ```
/// use mainstay_channel::{Channel, memory};
/// use std::time::Duration;
/// let (a, b) = memory::pair();
/// a.send("ringing".into())?;
/// assert_eq!(b.receive(Duration::from_secs(1))?.unwrap(), "ringing");
/// assert_eq!(b.receive(Duration::ZERO)?, None, "nothing in time");
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
pub trait Channel: Send + Sync {
    /// Takes `message` out of its place as soon as there is room, or else has `cx` woken when there
    /// may be. The asynchronous face of [`Channel::send`]; see also [`ChannelExt::sending`].
    ///
    /// The message is still in its place whenever the outcome is not `Ready(Ok(()))`.
    ///
    /// ```
    /// use mainstay_channel::{Channel, Payload, memory};
    /// use std::task::{Context, Poll, Waker};
    /// let (a, _b) = memory::pair();
    /// let mut message = Some(Payload::from("ringing"));
    /// let polled = a.poll_send(&mut Context::from_waker(Waker::noop()), &mut message);
    /// assert!(matches!(polled, Poll::Ready(Ok(()))) && message.is_none());
    /// ```
    fn poll_send(&self, cx: &mut Context<'_>, message: &mut Option<Payload>) -> Poll<Result<()>>;

    /// The next message, or else has `cx` woken when there may be one. The asynchronous face of
    /// [`Channel::receive`]; see also [`ChannelExt::receiving`].
    ///
    /// ```
    /// use mainstay_channel::{Channel, memory};
    /// use std::task::{Context, Poll, Waker};
    /// let (a, b) = memory::pair();
    /// let mut cx = Context::from_waker(Waker::noop());
    /// assert!(b.poll_receive(&mut cx).is_pending());
    /// a.send("ringing".into())?;
    /// assert!(matches!(b.poll_receive(&mut cx), Poll::Ready(Ok(message)) if message == "ringing"));
    /// # Ok::<(), mainstay_channel::Error>(())
    /// ```
    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>>;

    /// Ends the channel in order (C4): what was sent before is still received. Returns at once; a
    /// transport that needs time to hand it over takes at most [`limits::LINGER`] for it.
    ///
    /// ```
    /// use mainstay_channel::{Channel, memory};
    /// # use std::time::Duration;
    /// let (a, b) = memory::pair();
    /// a.send("last words".into())?;
    /// a.close();
    /// assert!(a.send("more".into()).is_err());
    /// assert_eq!(b.receive(Duration::ZERO)?.unwrap(), "last words");
    /// assert!(b.receive(Duration::ZERO).is_err());
    /// # Ok::<(), mainstay_channel::Error>(())
    /// ```
    fn close(&self);

    /// Ends the channel at once (C5): what is on its way is dropped.
    ///
    /// ```
    /// use mainstay_channel::{Channel, memory};
    /// # use std::time::Duration;
    /// let (a, b) = memory::pair();
    /// a.send("never mind".into())?;
    /// a.abort();
    /// assert!(b.receive(Duration::ZERO).is_err());
    /// # Ok::<(), mainstay_channel::Error>(())
    /// ```
    fn abort(&self);

    /// Whether, as far as is known here, neither end has closed or lost it. Messages may be left to
    /// receive after it is not.
    ///
    /// ```
    /// use mainstay_channel::{Channel, memory};
    /// let (a, b) = memory::pair();
    /// assert!(a.is_open());
    /// drop(b);
    /// assert!(!a.is_open());
    /// ```
    fn is_open(&self) -> bool;

    /// Who is at the other end.
    ///
    /// Example: see [`Peer`].
    fn peer(&self) -> &Peer;

    /// What has passed through this end.
    ///
    /// Example: see [`Statistics`].
    fn statistics(&self) -> Statistics;

    /// Sends a message; waits while the channel is full.
    ///
    /// Example: see [`Channel`].
    ///
    /// # Errors
    /// `ChannelClosed`, `TooLong`.
    fn send(&self, message: Bytes) -> Result<()> {
        let mut message = Some(Payload::One(message));
        wait_to_send(self, &mut message)
    }

    /// Sends the bytes of `parts`, one behind the other, as one message. Network transports write
    /// them to the socket from where they are; others join them, which is the one copy there is.
    ///
    /// ```
    /// use mainstay_channel::{Channel, memory};
    /// # use std::time::Duration;
    /// let (a, b) = memory::pair();
    /// a.send_vectored(&["ring".into(), "ing".into()])?;
    /// assert_eq!(b.receive(Duration::from_secs(1))?.unwrap(), "ringing");
    /// # Ok::<(), mainstay_channel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ChannelClosed`, `TooLong`, `TooManyParts`.
    fn send_vectored(&self, parts: &[Bytes]) -> Result<()> {
        let mut message = Some(Payload::of_parts(parts)?);
        wait_to_send(self, &mut message)
    }

    /// Sends the message if there is room for it now; hands it back if there is not.
    ///
    /// ```
    /// use mainstay_channel::{Bounds, Channel, memory};
    /// let (a, _b) = memory::pair_with(Bounds { messages: 1, ..Bounds::default() })?;
    /// assert_eq!(a.try_send("first".into())?, None);
    /// assert_eq!(a.try_send("second".into())?.unwrap(), "second");
    /// # Ok::<(), mainstay_channel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ChannelClosed`, `TooLong`.
    fn try_send(&self, message: Bytes) -> Result<Option<Bytes>> {
        let mut message = Some(Payload::One(message));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.poll_send(&mut cx, &mut message) {
            Poll::Ready(sent) => sent.map(|()| None),
            Poll::Pending => Ok(message.map(Payload::into_bytes)),
        }
    }

    /// The next message; none if there was none within `timeout`, which may be zero.
    ///
    /// Example: see [`Channel`].
    ///
    /// # Errors
    /// `ChannelClosed`, when there never will be one.
    fn receive(&self, timeout: Duration) -> Result<Option<Bytes>> {
        wait_to_receive(self, timeout)
    }
}

/// Blocks the thread until the message is taken.
fn wait_to_send(channel: &(impl Channel + ?Sized), message: &mut Option<Payload>) -> Result<()> {
    Parker::with(|parker| {
        loop {
            match channel.poll_send(&mut parker.context(), message) {
                Poll::Ready(sent) => return sent,
                Poll::Pending => parker.park(None),
            }
        }
    })
}

fn wait_to_receive(channel: &(impl Channel + ?Sized), timeout: Duration) -> Result<Option<Bytes>> {
    if timeout.is_zero() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        return match channel.poll_receive(&mut cx) {
            Poll::Ready(received) => received.map(Some),
            Poll::Pending => Ok(None),
        };
    }
    let deadline = Instant::now().checked_add(timeout);
    Parker::with(|parker| {
        loop {
            if let Poll::Ready(received) = channel.poll_receive(&mut parker.context()) {
                return received.map(Some);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(None);
            }
            parker.park(deadline);
        }
    })
}

/// Futures of a channel's asynchronous face, for any runtime.
///
/// ```
/// use mainstay_channel::{Channel, ChannelExt, memory};
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let (a, b) = memory::pair();
/// a.sending("ringing".into()).await?;
/// assert_eq!(b.receiving().await?, "ringing");
/// # Ok::<(), mainstay_channel::Error>(())
/// # }).unwrap();
/// ```
pub trait ChannelExt: Channel {
    /// As [`Channel::send`]. When the future is dropped before it is done, nothing was sent.
    ///
    /// Example: see [`ChannelExt`].
    ///
    /// # Errors
    /// The future ends with `ChannelClosed` or `TooLong`.
    fn sending(&self, message: Bytes) -> Sending<'_, Self> {
        Sending { channel: self, message: Some(Payload::One(message)) }
    }

    /// As [`Channel::receive`], without end. When the future is dropped before it is done, nothing
    /// was received.
    ///
    /// Example: see [`ChannelExt`].
    ///
    /// # Errors
    /// The future ends with `ChannelClosed`.
    fn receiving(&self) -> Receiving<'_, Self> {
        Receiving { channel: self }
    }
}

impl<C: Channel + ?Sized> ChannelExt for C {}

/// The future of [`ChannelExt::sending`].
///
/// Example: see [`ChannelExt`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sending<'c, C: ?Sized> {
    channel: &'c C,
    message: Option<Payload>,
}

impl<C: Channel + ?Sized> Future for Sending<'_, C> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        this.channel.poll_send(cx, &mut this.message)
    }
}

/// The future of [`ChannelExt::receiving`].
///
/// Example: see [`ChannelExt`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Receiving<'c, C: ?Sized> {
    channel: &'c C,
}

impl<C: Channel + ?Sized> Future for Receiving<'_, C> {
    type Output = Result<Bytes>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        self.channel.poll_receive(cx)
    }
}

/// A message as it is sent: in one piece, or in several that are one message.
///
/// ```
/// use mainstay_channel::Payload;
/// let parts = Payload::of_parts(&["ring".into(), "ing".into()])?;
/// assert_eq!(parts.len(), 7);
/// assert_eq!(parts.into_bytes(), "ringing");
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Payload {
    /// In one piece.
    One(Bytes),
    /// In several pieces, one behind the other.
    Many(Box<[Bytes]>),
}

impl Payload {
    /// Of several pieces.
    ///
    /// Example: see [`Payload`].
    ///
    /// # Errors
    /// `TooManyParts`.
    pub fn of_parts(parts: &[Bytes]) -> Result<Self> {
        match parts {
            [] => Ok(Self::One(Bytes::new())),
            [one] => Ok(Self::One(one.clone())),
            parts if parts.len() > limits::PARTS_MAX => {
                Err(Error::TooManyParts { parts: parts.len(), limit: limits::PARTS_MAX })
            }
            parts => Ok(Self::Many(parts.into())),
        }
    }

    /// How many bytes it has.
    ///
    /// Example: see [`Payload`].
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Many(parts) => len_of(parts),
        }
    }

    /// Whether it has none.
    ///
    /// ```
    /// assert!(mainstay_channel::Payload::from("").is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces.
    ///
    /// ```
    /// assert_eq!(mainstay_channel::Payload::from("ringing").parts()[0], "ringing");
    /// ```
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Many(parts) => parts,
        }
    }

    /// In one piece; copies if there are several.
    ///
    /// Example: see [`Payload`].
    #[must_use]
    #[inline]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(parts) => {
                let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                parts.iter().for_each(|part| joined.put_slice(part));
                joined.freeze()
            }
        }
    }
}

#[cold]
fn len_of(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Self::One(bytes.into())
    }
}

/// How much a channel holds in each direction, and how long one message may be.
///
/// A message that is longer than `bytes` passes when nothing else is held, so a direction holds at
/// most `bytes` or one message, whichever is more.
///
/// ```
/// use mainstay_channel::{Bounds, limits};
/// let bounds = Bounds::default();
/// assert_eq!((bounds.messages, bounds.bytes), (limits::MESSAGES_DEFAULT, limits::BYTES_DEFAULT));
/// assert!(bounds.check().is_ok());
/// let none = Bounds { messages: 0, ..bounds };
/// assert!(none.check().is_err());
/// let many = Bounds { messages: limits::MESSAGES_MAX + 1, ..bounds };
/// assert!(many.check().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The most messages.
    pub messages: usize,
    /// The most bytes of messages.
    pub bytes: usize,
    /// The longest message, in bytes.
    pub message_len: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            messages: limits::MESSAGES_DEFAULT,
            bytes: limits::BYTES_DEFAULT,
            message_len: limits::MESSAGE_LEN_MAX,
        }
    }
}

impl Bounds {
    /// Whether a channel can have them.
    ///
    /// Example: see [`Bounds`].
    ///
    /// # Errors
    /// `Bounds`, with the field that is out of range.
    pub fn check(self) -> Result<Self> {
        let refuse = |field, value, range| Err(Error::Bounds { field, value, range });
        if !(1..=limits::MESSAGES_MAX).contains(&self.messages) {
            return refuse("messages", self.messages, "1 to 1048576");
        }
        if self.bytes == 0 {
            return refuse("bytes", self.bytes, "1 or more");
        }
        if self.message_len > limits::MESSAGE_LEN_MAX {
            return refuse("message_len", self.message_len, "at most 67108864");
        }
        Ok(self)
    }
}
