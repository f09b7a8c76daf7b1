//! Prints the files of a small store as text, for `tests/upgrade`:
//!
//! ```text
//! cargo run -p mainstay-store --example fixture -- fixed > crates/store/tests/upgrade/fixed-N.txt
//! cargo run -p mainstay-store --example fixture -- any > crates/store/tests/upgrade/any-N.txt
//! ```

#[allow(dead_code, unreachable_pub)]
#[path = "../tests/upgrade/story.rs"]
mod story;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    match std::env::args().nth(1).as_deref() {
        Some("fixed") => story::make_fixed(dir.path())?,
        Some("any") => story::make_any(dir.path())?,
        _ => return Err("say which store: fixed or any".into()),
    }
    print!("{}", story::describe(dir.path())?);
    Ok(())
}
