//! `mainstay state bus`.

use super::watch::parse_rate;
use crate::{
    error::{Outcome, Result},
    output::Output,
};

/// Put states on D-Bus, for programs that have no shared memory
///
/// Each state becomes an object, /org/mainstay/state/NAME, with the interface org.mainstay.State1:
/// methods Get, Set and SetIf, properties, and a signal Changed. A caller may do what it may do with
/// the state's file. The states are subscribed to, and on the bus, until the command is interrupted.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state bus speed --as org.example.Car
  mainstay state bus speed temperature --as org.example.Car --max-rate 2
  mainstay state bus speed --as org.example.Car --system --read-only

and then, from anywhere on that bus:
  busctl --user call org.example.Car /org/mainstay/state/speed org.mainstay.State1 Get
  busctl --user monitor org.example.Car")]
pub(super) struct Args {
    /// The states
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The name on the bus that others call them by
    #[arg(long = "as", value_name = "BUS_NAME")]
    bus_name: String,
    /// The bus of the system, not that of the session
    #[arg(long, conflicts_with = "address")]
    system: bool,
    /// The bus at this address, such as unix:path=/run/bus
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// At most so many signals a second for each state, with the newest version each time
    #[arg(long, value_name = "R", default_value = "10", value_parser = parse_rate)]
    max_rate: f64,
    /// Subscribe for reading only: nobody on the bus can set the states
    #[arg(long)]
    read_only: bool,
}

#[cfg(not(feature = "dbus"))]
pub(super) fn run(args: &Args, _: &mut Output) -> Result<Outcome> {
    // Complete command lines are checked in every build.
    let Args { names: _, bus_name: _, system: _, address: _, max_rate: _, read_only: _ } = args;
    Err(crate::error::CliError::WithoutDbus)
}

#[cfg(feature = "dbus")]
pub(super) use serving::run;

#[cfg(feature = "dbus")]
mod serving {
    use super::*;
    use crate::{interrupt::Interrupt, state::target::Target};
    use mainstay::state::{
        Error, State,
        dbus::{Bus, Exported},
    };
    use serde::Serialize;
    use std::{thread, time::Duration};

    /// How often it is looked whether a state was deleted, or the user wants an end.
    const NAP: Duration = Duration::from_millis(50);

    #[derive(Serialize)]
    struct Served<'a> {
        bus_name: &'a str,
        objects: Vec<Object<'a>>,
    }

    #[derive(Serialize)]
    struct Object<'a> {
        name: &'a str,
        path: &'a str,
        writable: bool,
    }

    pub(in crate::state) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
        let interrupt = Interrupt::watch();
        // All of them, before anybody hears of one.
        let states = args.names.iter().map(|name| subscribe(args, name));
        let states = states.collect::<Result<Vec<_>>>()?;
        let bus = connect(args)?;
        let interval = Duration::from_secs_f64(1.0 / args.max_rate);
        let exported = states.iter().map(|state| bus.export(state, interval));
        let exported = exported.collect::<Result<Vec<Exported>, Error>>()?;
        tell(args, &states, &exported, out)?;
        out.flush()?;
        while !interrupt.is_asked() {
            thread::sleep(NAP);
        }
        Ok(Outcome::Fine)
    }

    fn subscribe(args: &Args, name: &str) -> Result<State<[u8]>> {
        let target = Target { name: name.to_owned() };
        let (domain, _) = target.existing()?;
        if args.read_only { target.reader(&domain) } else { target.writer(&domain) }
    }

    fn connect(args: &Args) -> Result<Bus> {
        Ok(match &args.address {
            Some(address) => Bus::at(address, &args.bus_name)?,
            None if args.system => Bus::system(&args.bus_name)?,
            None => Bus::session(&args.bus_name)?,
        })
    }

    fn tell(
        args: &Args,
        states: &[State<[u8]>],
        exported: &[Exported],
        out: &mut Output,
    ) -> Result<()> {
        let bus_name = &*args.bus_name;
        if out.json {
            let objects = states.iter().zip(exported).map(|(state, exported)| Object {
                name: state.name(),
                path: exported.path(),
                writable: state.is_writable(),
            });
            return out.document(&Served { bus_name, objects: objects.collect() });
        }
        for (state, exported) in states.iter().zip(exported) {
            let then = if state.is_writable() { "" } else { ", to be read" };
            let (name, path) = (state.name(), exported.path());
            out.line(&format!("{name}: {path} of {bus_name}{then}; until interrupted"))?;
        }
        Ok(())
    }
}
