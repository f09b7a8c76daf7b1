//! Writing messages in parts: what never changes of one is written once and kept.
//!
//! A kept *body* is a message without filter and requests, in two pieces: the filter and the
//! requests of the moment go between them (or, in the nim profile, the requests behind both). A
//! copy sent again for others has an empty filter: ours would be credited to its sender.

use super::{
    EntryView, Fields, MessageView, Profile, entry,
    proto::{bytes_field_len, put_bytes_field, put_bytes_head, put_varint_field},
};

/// Tags and lengths of all fields that are no lists, and the Lamport time, take no more than this.
pub(crate) const FIELDS_LEN: usize = 48;

fn inner_len(view: &EntryView<'_>) -> usize {
    let optional = |number, bytes: &[u8]| {
        if bytes.is_empty() { 0 } else { bytes_field_len(number, bytes.len()) }
    };
    bytes_field_len(entry::ID, view.id.len())
        + optional(entry::HINT, view.hint)
        + optional(entry::SENDER, view.sender)
}

impl EntryView<'_> {
    /// The same without the hint, where there is no room for it.
    pub(crate) fn bare(self) -> Self {
        Self { hint: &[], ..self }
    }
}

/// The bytes that a history entry takes as field `number`.
pub(crate) fn entry_len(number: u64, view: &EntryView<'_>) -> usize {
    bytes_field_len(number, inner_len(view))
}

/// Writes a history entry as field `number`.
pub(crate) fn put_entry(out: &mut Vec<u8>, number: u64, view: &EntryView<'_>) {
    let len = inner_len(view);
    put_bytes_head(out, number, len);
    put_bytes_field(out, entry::ID, view.id);
    if !view.hint.is_empty() {
        put_bytes_field(out, entry::HINT, view.hint);
    }
    if !view.sender.is_empty() {
        put_bytes_field(out, entry::SENDER, view.sender);
    }
}

/// The first fields of a message, up to the causal history, which comes next in both profiles.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    profile: Profile,
    sender: &[u8],
    id: &[u8],
    channel: &[u8],
    lamport: u64,
) {
    let fields = profile.fields();
    match profile {
        Profile::Nim => {
            put_bytes_field(out, fields.id, id);
            put_varint_field(out, fields.lamport, lamport);
        }
        Profile::Lip => {
            if !sender.is_empty() {
                put_bytes_field(out, fields.sender, sender);
            }
            put_bytes_field(out, fields.id, id);
            if !channel.is_empty() {
                put_bytes_field(out, fields.channel, channel);
            }
            put_varint_field(out, fields.lamport, lamport);
        }
    }
}

/// Where a body's two pieces meet, and where its content lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) split: u32,
    pub(crate) content_at: u32,
    pub(crate) content_len: u32,
}

impl Body {
    /// Writes the rest of a body behind its head and causal history.
    pub(crate) fn finish(
        out: &mut Vec<u8>,
        profile: Profile,
        sender: &[u8],
        channel: &[u8],
        content: &[u8],
    ) -> Self {
        let fields: &Fields = profile.fields();
        let mut body = Self { content_len: content.len() as u32, ..Self::default() };
        match profile {
            Profile::Nim => {
                put_bytes_field(out, fields.channel, channel);
                put_bytes_field(out, fields.content, content);
                body.content_at = (out.len() - content.len()) as u32;
                body.split = out.len() as u32;
                if !sender.is_empty() {
                    put_bytes_field(out, fields.sender, sender);
                }
            }
            Profile::Lip => {
                body.split = out.len() as u32;
                if !content.is_empty() {
                    put_bytes_field(out, fields.content, content);
                }
                body.content_at = (out.len() - content.len()) as u32;
            }
        }
        body
    }

    /// The body of a message that was received (W3).
    pub(crate) fn of(out: &mut Vec<u8>, message: &MessageView<'_>) -> Self {
        let profile = message.profile;
        let lamport = message.lamport.unwrap_or_default();
        write_head(out, profile, message.sender, message.id, message.channel, lamport);
        for view in message.causal.iter() {
            put_entry(out, profile.fields().causal, &view);
        }
        let content = message.content.unwrap_or_default();
        Self::finish(out, profile, message.sender, message.channel, content)
    }

    /// The whole message: `body` with a filter field and requests written by the caller.
    pub(crate) fn assemble(
        self,
        out: &mut Vec<u8>,
        profile: Profile,
        body: &[u8],
        filter: impl FnOnce(&mut Vec<u8>),
        requests: impl FnOnce(&mut Vec<u8>),
    ) {
        let (front, back) = body.split_at(self.split as usize);
        out.extend_from_slice(front);
        filter(out);
        match profile {
            Profile::Nim => {
                out.extend_from_slice(back);
                requests(out);
            }
            Profile::Lip => {
                requests(out);
                out.extend_from_slice(back);
            }
        }
    }

    /// The whole message as others have it: without a filter of ours and without requests.
    pub(crate) fn copy(self, out: &mut Vec<u8>, profile: Profile, body: &[u8]) {
        let no_filter = |out: &mut Vec<u8>| {
            if profile == Profile::Nim {
                put_bytes_field(out, profile.fields().filter, &[]);
            }
        };
        self.assemble(out, profile, body, no_filter, |_| {});
    }
}
