//! What carries messages to everybody in a group.

use super::error::Result;

/// Carries messages to all other members of a group, or loses them.
///
/// A message arrives whole or not at all. Everything else may happen to it: SDS puts it right.
///
/// ```
/// use mainstay_sds::driver::{Bus, Heard, Result, Transport};
///
/// /// Counts what goes out.
/// struct Counted<T> {
///     inner: T,
///     sent: usize,
/// }
///
/// impl<T: Transport> Transport for Counted<T> {
///     fn message_len_max(&self) -> usize {
///         self.inner.message_len_max()
///     }
///
///     async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
///         self.sent += 1;
///         self.inner.broadcast(message).await
///     }
///
///     async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
///         self.inner.receive(message).await
///     }
/// }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let bus = Bus::new();
/// let mut alice = Counted { inner: bus.join(), sent: 0 };
/// let mut bob = bus.join();
/// alice.broadcast(b"hello").await?;
/// let mut message = Vec::new();
/// bob.receive(&mut message).await?;
/// assert_eq!((&message[..], alice.sent), (&b"hello"[..], 1));
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
pub trait Transport: Send {
    /// The longest message it carries, in bytes.
    fn message_len_max(&self) -> usize;

    /// Sends a message to all others. What is lost on the way is no error.
    ///
    /// # Errors
    /// [`Error::TooLong`](super::Error::TooLong) and what the network says. The node tells it and
    /// goes on: the message counts as lost.
    fn broadcast(&mut self, message: &[u8]) -> impl Future<Output = Result<()>> + Send;

    /// Replaces what is in `message` by the next one that arrives, or tells of a newcomer. One's own
    /// messages may be among them.
    ///
    /// Must be *cancel safe*: when the future is dropped before it is ready, nothing is lost.
    ///
    /// # Errors
    /// [`Error::Ended`](super::Error::Ended) when nothing will ever arrive again; any other error
    /// is told, and after a pause the node tries again.
    fn receive(&mut self, message: &mut Vec<u8>) -> impl Future<Output = Result<Heard>> + Send;
}

/// What a transport has heard.
///
/// ```
/// use mainstay_sds::driver::{Bus, Heard, Transport};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let bus = Bus::new();
/// let (mut alice, mut bob) = (bus.join(), bus.join());
/// alice.broadcast(b"hello").await?;
/// assert_eq!(bob.receive(&mut Vec::new()).await?, Heard::Message);
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message,
    /// A member has come, or has come back, and may lack what was said before. Only transports that
    /// know of members tell this.
    Newcomer,
}
