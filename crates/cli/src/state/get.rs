//! `mainstay state get`.

use super::{
    target::{Target, layout},
    value::{Form, ValueRow},
};
use crate::{
    error::{Outcome, Result},
    output::Output,
};
use serde::Serialize;

/// Show the value of a state
///
/// One version of it, whole, however fast it is written. A value of a type that describes its
/// fields is shown as JSON; another as text if it is one, else as a dump. A state that was never
/// written reads as zeros, version 0.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state get temperature
  mainstay state get temperature --version
  mainstay state get frame --raw > frame.bin
  mainstay state get vitals.cpu | jq .running")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    form: FormArgs,
    /// Only the number of the version
    #[arg(long, conflicts_with_all = ["text", "hex", "raw"])]
    version: bool,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct FormArgs {
    /// As text, without the zeros at its end, whatever it is
    #[arg(long, conflicts_with = "json")]
    text: bool,
    /// In hexadecimal digits, as `set --hex` takes them
    #[arg(long, conflicts_with = "json")]
    hex: bool,
    /// The bytes as they are
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

impl FormArgs {
    fn form(&self) -> Form {
        match self {
            Self { text: true, .. } => Form::Text,
            Self { hex: true, .. } => Form::Hex,
            Self { raw: true, .. } => Form::Raw,
            _ => Form::Fitting,
        }
    }
}

#[derive(Serialize)]
struct Got<'a> {
    name: &'a str,
    version: u64,
    size_bytes: usize,
    #[serde(skip_serializing_if = "str::is_empty")]
    r#type: &'a str,
    #[serde(flatten)]
    value: Option<ValueRow<'a>>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (domain, info) = args.target.existing()?;
    let state = args.target.reader(&domain)?;
    let layout = layout(&info);
    // A copy: standard output may be slow, and a pin keeps a slot from its writer.
    let (version, bytes) = {
        let snapshot = state.read()?;
        (snapshot.version(), snapshot.to_vec())
    };
    if out.json {
        let value = (!args.version).then(|| ValueRow::of(&bytes, layout.as_ref()));
        let (name, size_bytes, r#type) = (state.name(), bytes.len(), &*info.type_name);
        out.document(&Got { name, version, size_bytes, r#type, value })?;
    } else if args.version {
        out.line(&version.to_string())?;
    } else {
        args.form.form().show(&bytes, layout.as_ref(), out)?;
    }
    Ok(Outcome::Fine)
}
