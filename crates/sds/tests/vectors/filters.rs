use mainstay_sds::{
    bloom::{Params, PeerFilter, RollingFilter},
    hash::{FilterHashes, farm64},
    wire::Profile,
};
use serde_json::Value;

use super::{cases, hex, number, text, unhex, vectors};

fn ids(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect()
}

fn params(case: &Value) -> Params {
    let rate = case["error_rate"].as_f64().unwrap();
    Params::new(number(case, "capacity") as u32, rate).unwrap()
}

#[test]
fn sizes_are_those_of_the_nim_peers() {
    for case in cases("/nim/bloom_params_auto") {
        let params = params(&case);
        assert_eq!(u64::from(params.hashes), number(&case, "k"), "{case}");
        assert_eq!(u64::from(params.bits), number(&case, "m_bits"));
        assert_eq!(params.words() as u64, number(&case, "words"));
        let filter = RollingFilter::new(Profile::Nim, params);
        assert_eq!(filter.to_bytes().len() as u64, number(&case, "serialized_len"));
    }
}

#[test]
fn sizes_for_a_given_number_of_hashes_are_those_of_the_nim_peers() {
    let mut compared = 0;
    for case in cases("/nim/bloom_params_k") {
        let rate = case["error_rate"].as_f64().unwrap();
        let hashes = number(&case, "k_in") as u32;
        let bits_per_id = number(&case, "force_bits") as u32;
        if bits_per_id != 0 {
            // The peers can be told the bits as well. Nobody needs that here, but a filter of such
            // a size is read, and filled, like any other.
            let capacity = number(&case, "capacity") as u32;
            let bits = capacity * bits_per_id;
            let params = Params { capacity, error_rate: rate, hashes, bits };
            assert_eq!(u64::from(bits), number(&case, "m_bits"), "{case}");
            assert_eq!(params.words() as u64, number(&case, "words"), "{case}");
            let mut filter = RollingFilter::new(Profile::Nim, params);
            let id = |id: &str| FilterHashes::of(Profile::Nim, id.as_bytes());
            filter.add(id("here"));
            let bytes = filter.to_bytes();
            let read = PeerFilter::parse(Profile::Nim, &bytes, params).unwrap();
            assert!(read.contains(id("here")) && !read.contains(id("not here")));
            compared += 1;
            continue;
        }
        let made = Params::with_hashes(number(&case, "capacity") as u32, rate, hashes);
        if case.get("err").is_some() {
            assert!(made.is_err(), "{case}");
        } else {
            let made = made.unwrap();
            assert_eq!(u64::from(made.bits), number(&case, "m_bits"), "{case}");
            assert_eq!(made.words() as u64, number(&case, "words"));
        }
        compared += 1;
    }
    assert!(compared >= 7);
}

#[test]
fn filters_are_byte_for_byte_those_of_the_nim_peers() {
    for case in cases("/nim/bloom_insert") {
        let mut filter = RollingFilter::new(Profile::Nim, params(&case));
        for id in ids(&case["ids"]) {
            filter.add(FilterHashes::of(Profile::Nim, id.as_bytes()));
        }
        let bytes = filter.to_bytes();
        assert_eq!(bytes.len() as u64, number(&case, "serialized_len"));
        match case.get("serialized_hex").and_then(Value::as_str) {
            Some(expected) => assert_eq!(hex(&bytes), expected),
            None => {
                let hash = farm64(&bytes);
                assert_eq!(format!("{hash:016x}"), text(&case, "serialized_hash_u64_hex"));
            }
        }
        let theirs = PeerFilter::parse(Profile::Nim, &bytes, params(&case)).unwrap();
        for (id, expected) in case["lookup"].as_object().unwrap() {
            let hashes = FilterHashes::of(Profile::Nim, id.as_bytes());
            assert_eq!(filter.contains(hashes), expected.as_bool().unwrap(), "{id}");
            assert_eq!(theirs.contains(hashes), expected.as_bool().unwrap(), "{id}");
        }
    }
}

#[test]
fn rolling_over_leaves_byte_for_byte_what_the_nim_peers_have() {
    let mut steps = 0;
    for case in cases("/nim/bloom_rolling") {
        let mut filter = RollingFilter::new(Profile::Nim, params(&case));
        for step in case["steps"].as_array().unwrap() {
            filter.add(FilterHashes::of(Profile::Nim, text(step, "add").as_bytes()));
            assert_eq!(filter.len(), step["messages"].as_array().unwrap().len(), "{step}");
            assert_eq!(hex(&filter.to_bytes()), text(step, "serialized_hex"), "{step}");
            steps += 1;
        }
    }
    assert!(steps >= 24);
}

#[test]
fn blobs_are_read_or_refused_as_by_the_nim_peers_unless_that_would_crash_them() {
    for case in cases("/nim/bloom_decode") {
        let blob = unhex(text(&case, "hex"));
        let read = PeerFilter::parse(Profile::Nim, &blob, Params::new(10_000, 0.001).unwrap());
        // One without a whole word is read by them, and the first look-up ends the process.
        let usable = case["ok"].as_bool().unwrap() && number(&case, "words") > 0;
        assert_eq!(read.is_some(), usable, "{case}");
    }
}

#[test]
fn filters_are_byte_for_byte_those_of_the_lip_peers() {
    for case in cases("/js/bloom") {
        let options = &case["options"];
        let rate = options["errorRate"].as_f64().unwrap();
        let params = Params::new(number(options, "capacity") as u32, rate).unwrap();
        let mut filter = RollingFilter::new(Profile::Lip, params);
        for id in ids(&case["ids"]) {
            filter.add(FilterHashes::of(Profile::Lip, id.as_bytes()));
        }
        let bytes = filter.to_bytes();
        assert_eq!(bytes.len() as u64, number(&case, "bytes_len"));
        if let Some(expected) = case.get("hex").and_then(Value::as_str) {
            assert_eq!(hex(&bytes), expected);
        }
        let bits = params.bits as usize;
        let set: Vec<usize> =
            (0..bits).filter(|bit| bytes[(bit / 8) ^ 7] & (1 << (bit % 8)) != 0).collect();
        let expected: Vec<usize> = case["set_bits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bit| bit.as_u64().unwrap() as usize)
            .collect();
        assert_eq!(set, expected);
    }
}

#[test]
fn a_hostile_filter_in_an_adversarial_vector_says_nothing() {
    let mut filters = 0;
    for case in vectors()["adversarial_nim_layout"].as_array().unwrap() {
        let bytes = unhex(text(case, "hex"));
        let Ok(message) = mainstay_sds::wire::MessageView::parse(Profile::Nim, &bytes) else {
            continue;
        };
        let Some(blob) = message.filter.filter(|blob| !blob.is_empty()) else { continue };
        let own = Params::new(10_000, 0.001).unwrap();
        assert!(PeerFilter::parse(Profile::Nim, blob, own).is_none(), "{case}");
        filters += 1;
    }
    assert!(filters >= 3);
}
