use mainstay_sds::{
    repair::{in_response_group, request_delay_ms, response_delay_ms},
    wire::Profile,
};
use serde_json::Value;

use super::{cases, number, text, vectors};

const BOTH: [(Profile, &str); 2] = [(Profile::Nim, "/nim"), (Profile::Lip, "/js")];

fn bytes<'a>(case: &'a Value, key: &str) -> &'a [u8] {
    text(case, key).as_bytes()
}

#[test]
fn requests_wait_as_long_as_those_of_the_peers() {
    for (profile, name) in BOTH {
        for case in cases(&format!("{name}/t_req")) {
            let (t_min, t_max) = (number(&case, "t_min_ms"), number(&case, "t_max_ms"));
            let (own, id) = (bytes(&case, "participant"), bytes(&case, "message_id"));
            let delay = request_delay_ms(profile, own, id, t_min, t_max);
            assert_eq!(delay, number(&case, "t_req_ms"), "{case}");
        }
    }
}

#[test]
fn answers_wait_as_long_as_those_of_the_peers() {
    for (profile, name) in BOTH {
        for case in cases(&format!("{name}/t_resp")) {
            let (own, id) = (bytes(&case, "participant"), bytes(&case, "message_id"));
            let sender = bytes(&case, "sender");
            let delay = response_delay_ms(profile, own, sender, id, number(&case, "t_max_ms"));
            assert_eq!(delay, number(&case, "t_resp_ms"), "{case}");
        }
    }
}

#[test]
fn response_groups_are_those_of_the_peers() {
    for (profile, name) in BOTH {
        for case in cases(&format!("{name}/response_group")) {
            let (own, id) = (bytes(&case, "participant"), bytes(&case, "message_id"));
            let (sender, groups) = (bytes(&case, "sender"), number(&case, "groups"));
            let is_in = in_response_group(profile, own, sender, id, groups);
            assert_eq!(is_in, case["in_group"].as_bool().unwrap(), "{case}");
        }
    }
}

#[test]
fn a_response_group_has_the_members_it_has_for_the_nim_peers() {
    let case = &vectors()["nim"]["response_group_members"];
    let members: Vec<u64> = (0..200)
        .filter(|number| {
            let own = format!("participant-{number}");
            let (sender, id) = (bytes(case, "sender"), bytes(case, "message_id"));
            in_response_group(
                Profile::Nim,
                own.as_bytes(),
                sender,
                id,
                self::number(case, "groups"),
            )
        })
        .collect();
    let expected: Vec<u64> =
        case["members"].as_array().unwrap().iter().map(|member| member.as_u64().unwrap()).collect();
    assert_eq!(members, expected);
}
