use mainstay_sds::{
    hash::{FilterHashes, farm64, sha64},
    wire::Profile,
};

use super::{cases, number, text};

#[test]
fn farmhash_is_that_of_the_nim_peers() {
    for case in cases("/nim/string_hash") {
        let hash = farm64(text(&case, "s").as_bytes());
        assert_eq!(format!("{hash:016x}"), text(&case, "u64_hex"), "{case}");
        assert_eq!((hash as i64).to_string(), text(&case, "i64"));
        let hashes = FilterHashes::of(Profile::Nim, text(&case, "s").as_bytes());
        assert_eq!(hashes.a, number(&case, "abs"));
    }
}

#[test]
fn bits_are_those_of_the_lip_peers_also_outside_of_ascii() {
    for case in cases("/js/hashN") {
        let hashes = FilterHashes::of(Profile::Lip, text(&case, "item").as_bytes());
        let (n, max) = (number(&case, "n"), number(&case, "max"));
        let bit = (hashes.a % max + n * (hashes.b % max)) % max;
        assert_eq!(bit, number(&case, "value"), "{case}");
    }
}

#[test]
fn the_repair_hash_is_that_of_the_lip_peers() {
    for case in cases("/js/sha_hash") {
        assert_eq!(sha64(text(&case, "s").as_bytes()), number(&case, "u64"), "{case}");
    }
}
