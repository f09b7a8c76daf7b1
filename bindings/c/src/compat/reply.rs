//! Results and events as text.

use base64::{Engine, engine::general_purpose::STANDARD};
use mainstay_sds::wire::EntryView;
use serde::Serialize;

/// An event, as the header shows it.
#[derive(Serialize)]
#[serde(tag = "eventType", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub(super) enum Event<'a> {
    MessageReady { message_id: &'a str, channel_id: &'a str },
    MessageSent { message_id: &'a str, channel_id: &'a str },
    MessageEvicted { message_id: &'a str, channel_id: &'a str },
    MissingDependencies { message_id: &'a str, channel_id: &'a str, missing_deps: &'a [Dependency] },
    PeriodicSync,
    RepairReady { channel_id: &'a str, message: String },
}

/// A message that is not here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dependency {
    message_id: String,
    retrieval_hint: String,
}

/// What unwrapping gives.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unwrapped<'a> {
    pub(super) message: &'a [u8],
    pub(super) channel_id: &'a str,
    pub(super) missing_deps: &'a [Dependency],
}

impl Dependency {
    pub(super) fn of(entry: &EntryView<'_>) -> Self {
        Self { message_id: text(entry.id), retrieval_hint: base64(entry.hint) }
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// JSON has no place for bytes that are no text: such are shown as replacement characters, as the
/// programs at the other side would do.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn json(value: &impl Serialize) -> String {
    // Nothing here has a key that is no text, or fails to serialise.
    serde_json::to_string(value).unwrap_or_default()
}

/// Bytes as decimal numbers with commas between them.
pub(super) fn decimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(4 * bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _infallible = write!(text, "{comma}{byte}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_results_look_as_the_field_knows_them() {
        let entry = EntryView { id: b"m0", hint: b"hint", sender: b"" };
        let missing = [Dependency::of(&entry)];
        let (message_id, channel_id) = ("m1", "room");
        for (event, expected) in [
            (
                Event::MessageReady { message_id, channel_id },
                r#"{"eventType":"message_ready","messageId":"m1","channelId":"room"}"#,
            ),
            (
                Event::MessageSent { message_id, channel_id },
                r#"{"eventType":"message_sent","messageId":"m1","channelId":"room"}"#,
            ),
            (
                Event::MessageEvicted { message_id, channel_id },
                r#"{"eventType":"message_evicted","messageId":"m1","channelId":"room"}"#,
            ),
            (
                Event::MissingDependencies { message_id, channel_id, missing_deps: &missing },
                r#"{"eventType":"missing_dependencies","messageId":"m1","channelId":"room","missingDeps":[{"messageId":"m0","retrievalHint":"aGludA=="}]}"#,
            ),
            (Event::PeriodicSync, r#"{"eventType":"periodic_sync"}"#),
            (
                Event::RepairReady { channel_id, message: base64(&[1, 2]) },
                r#"{"eventType":"repair_ready","channelId":"room","message":"AQI="}"#,
            ),
        ] {
            assert_eq!(json(&event), expected);
        }
        let unwrapped = Unwrapped { message: &[104, 105], channel_id, missing_deps: &[] };
        assert_eq!(
            json(&unwrapped),
            r#"{"message":[104,105],"channelId":"room","missingDeps":[]}"#
        );
        assert_eq!((decimal(&[]), decimal(&[0, 10, 255])), (String::new(), "0,10,255".to_owned()));
    }
}
