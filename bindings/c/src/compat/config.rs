//! The configuration as JSON.

use mainstay_sds::Config;
use serde::Deserialize;

/// What can be configured; what is absent stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Json {
    bloom_filter_capacity: Option<u32>,
    bloom_filter_error_rate: Option<f64>,
    max_message_history: Option<usize>,
    max_causal_history: Option<usize>,
    resend_interval_ms: Option<u64>,
    max_resend_attempts: Option<u8>,
    sync_message_interval_ms: Option<u64>,
    #[serde(rename = "repairTMinMs")]
    repair_t_min_ms: Option<u64>,
    #[serde(rename = "repairTMaxMs")]
    repair_t_max_ms: Option<u64>,
    num_response_groups: Option<u32>,
    max_repair_requests: Option<usize>,
}

/// How channels are made, and how often the program is told to say something.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) sync_interval_ms: u64,
}

impl Settings {
    /// Those of a JSON text; of an empty one the defaults.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let mut config = Config::nim();
        // Programs for nim-sds do not expect a limit on what nobody acknowledges.
        config.outgoing_max = mainstay_sds::limits::OUTGOING_MAX;
        // Nor that a message is ready although what it depends on never came.
        config.lost_after_ms = None;
        let mut settings = Self { sync_interval_ms: config.sync_interval_ms, config };
        if json.is_empty() {
            return Ok(settings);
        }
        let json: Json =
            serde_json::from_slice(json).map_err(|error| format!("configuration: {error}"))?;
        let config = &mut settings.config;
        set(&mut config.filter_capacity, json.bloom_filter_capacity);
        set(&mut config.filter_error_rate, json.bloom_filter_error_rate);
        set(&mut config.history, json.max_message_history);
        set(&mut config.causal, json.max_causal_history);
        set(&mut config.resend_ms, json.resend_interval_ms);
        if let Some(ms) = json.resend_interval_ms {
            config.resend_possibly_ms = ms.saturating_mul(4);
        }
        set(&mut config.resend_attempts, json.max_resend_attempts);
        set(&mut settings.sync_interval_ms, json.sync_message_interval_ms);
        set(&mut config.t_min_ms, json.repair_t_min_ms);
        set(&mut config.t_max_ms, json.repair_t_max_ms);
        if json.num_response_groups.is_some() {
            config.response_groups = json.num_response_groups;
        }
        set(&mut config.requests, json.max_repair_requests);
        // Less would be a storm of callbacks.
        settings.sync_interval_ms = settings.sync_interval_ms.max(100);
        // Whether it can be used is found out now, and not at the first message.
        mainstay_sds::Channel::new("", b"", config.clone()).map_err(|error| error.to_string())?;
        Ok(settings)
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_counts_and_the_rest_stays() {
        let json = br#"{"maxCausalHistory": 2, "repairTMinMs": 5, "bufferSweepIntervalMs": 9}"#;
        let settings = Settings::parse(json).unwrap();
        let default = Settings::parse(b"").unwrap().config;
        assert_eq!((settings.config.causal, settings.config.t_min_ms), (2, 5));
        assert_eq!(settings.config.history, default.history);
        assert_eq!(default.lost_after_ms, None, "what is missing is waited for");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        for json in ["7", "{", r#"{"maxCausalHistory": 0}"#, r#"{"bloomFilterErrorRate": 2.0}"#] {
            assert!(Settings::parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
