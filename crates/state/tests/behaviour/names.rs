use crate::Scratch;
use mainstay_base::NameError;
use mainstay_state::Error;

fn refusal(name: &str) -> NameError {
    let scratch = Scratch::new();
    match scratch.domain.writer::<[u8]>(name) {
        Err(Error::Name(error)) => {
            assert!(scratch.state_files().is_empty(), "a refused name left files");
            error
        }
        other => panic!("{name:?}: {other:?}"),
    }
}

#[test]
fn an_empty_name_is_refused() {
    assert_eq!(refusal(""), NameError::Empty);
}

#[test]
fn a_name_of_247_bytes_is_welcome_and_one_of_248_is_refused() {
    let scratch = Scratch::new();
    let name = "n".repeat(247);
    let state = scratch.domain.writer::<[u8]>(&name).unwrap();
    assert_eq!(state.name(), name);
    assert_eq!(refusal(&"n".repeat(248)), NameError::TooLong { len: 248 });
}

#[test]
fn a_leading_dot_is_refused() {
    assert_eq!(refusal(".speed"), NameError::LeadingDot);
}

#[test]
fn a_trailing_dot_is_refused() {
    assert_eq!(refusal("speed."), NameError::TrailingDot);
}

#[test]
fn a_doubled_dot_is_refused() {
    assert_eq!(refusal("car..speed"), NameError::DoubledDot { at: 4 });
}

#[test]
fn a_foreign_character_is_refused() {
    assert_eq!(refusal("car/speed"), NameError::ForeignCharacter { at: 3, found: '/' });
}
