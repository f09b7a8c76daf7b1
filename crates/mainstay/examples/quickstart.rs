//! A service crashes, and its successor goes on where it was. README.md shows the same.

use mainstay::pool::{Kind, Offer, PoolOptions};
use std::{env, error::Error, fs, process};

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(file) = env::var_os("QUICKSTART_POOL") {
        // A service. It notes who is logged in, and then it crashes.
        let pool = PoolOptions::new("sessions", 256).open(file)?;
        let session = pool.allocate(Kind::Recoverable)?;
        session.write(0, b"user 42, logged in")?;
        process::abort();
    }
    let file = env::temp_dir().join(format!("sessions-{}.pool", process::id()));
    process::Command::new(env::current_exe()?).env("QUICKSTART_POOL", &file).status()?;

    // Its successor is offered what the dead one held: the same block, with all that was in it.
    let pool = PoolOptions::new("sessions", 256).open(&file)?;
    let session = pool.recover(Offer::Orphans)?.next().ok_or("it is lost")?.keep()?;
    let mut text = [0; 18];
    session.read(0, &mut text)?;
    println!("{} is still there: {}", session.id(), str::from_utf8(&text)?);
    assert_eq!(&text, b"user 42, logged in");
    Ok(fs::remove_file(file)?)
}
