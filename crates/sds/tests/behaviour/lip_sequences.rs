//! The scripted sequences of the lip peers: the same bytes in, and the same messages are missing, are
//! delivered, and end up in the log in the same order. Differs: they deliver what waited at a sweep,
//! and then a child before its parent; here it is delivered at once, parents first.

use mainstay_sds::{Channel, Config};
use serde_json::Value;

use crate::group::{START, Said, delivered, drain, log};

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// What the peers told in a step under that name.
fn told<'a>(step: &'a Value, name: &str) -> Vec<&'a Value> {
    let events = step["events"].as_array().unwrap();
    events.iter().filter(|event| event[0] == name).map(|event| &event[1]).collect()
}

#[test]
fn sequences_of_the_lip_peers_end_with_the_same_log_and_the_same_missing_messages() {
    let all: Value = serde_json::from_str(include_str!("../vectors/sds-vectors.json")).unwrap();
    let sequences = all["js"]["sequences"].as_array().unwrap();
    assert!(sequences.len() >= 3);
    for sequence in sequences {
        let name = &sequence["name"];
        let steps = sequence["steps"].as_array().unwrap();
        let mut bob = Channel::new("ch1", b"bob", Config::lip()).unwrap();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for step in steps {
            let theirs_now = told(step, "sds:in:message-delivered");
            theirs.extend(theirs_now.iter().map(|id| id.as_str().unwrap().to_owned()));
            let Some(hex) = step["hex"].as_str() else { continue };
            let bytes: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            bob.receive(START, &bytes).unwrap();
            let said = drain(&mut bob);
            ours.extend(delivered(&said).into_iter().map(str::to_owned));
            let missing = said.iter().filter_map(|said| match said {
                Said::Missing { id, .. } => Some(id.as_str()),
                _ => None,
            });
            let missing: Vec<&str> = missing.collect();
            let expected: Vec<&str> =
                told(step, "sds:in:message-missing").into_iter().flat_map(texts).collect();
            assert_eq!(missing, expected, "{name}: {}", step["op"]);
        }
        let history = texts(&steps.last().unwrap()["history"]);
        assert_eq!(log(&bob), history, "{name}");
        theirs.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, theirs, "{name}: each once");
    }
}
