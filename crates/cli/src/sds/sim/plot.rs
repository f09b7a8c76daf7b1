//! The record as two diagrams in one SVG file.

use super::story::{KINDS, Record, STEP_S};
use crate::error::{CliError, Result};
use plotters::prelude::*;
use std::{
    error::Error,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

const SIZE: (u32, u32) = (960, 840);
const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(255, 127, 14),
    RGBColor(120, 120, 120),
];

/// A file that can be written.
pub(super) struct Plot {
    path: PathBuf,
    file: File,
}

const HINT: &str = "name a file that you may write";

/// Opens the file, and leaves in it what it has until there is something to write.
pub(super) fn open(path: &Path) -> Result<Plot> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(CliError::file(path, "write the plot", HINT))?;
    Ok(Plot { path: path.to_owned(), file })
}

impl Plot {
    pub(super) fn write(mut self, record: &Record, loss: u8, members: u32) -> Result<()> {
        let mut text = String::new();
        let title = format!("{members} participants, {loss} of 100 messages lost");
        draw(&mut text, record, &title)
            .map_err(|error| CliError::Simulation { what: format!("cannot draw: {error}") })?;
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(CliError::file(&self.path, "write the plot", HINT))
    }
}

fn draw(text: &mut String, record: &Record, title: &str) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled(title, ("sans-serif", 22))?;
    let (above, below) = area.split_vertically(SIZE.1 / 2 - 20);
    delays(&above, record)?;
    traffic(&below, record)?;
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Which share of all deliveries had happened after how many seconds.
fn delays(area: &Area<'_>, record: &Record) -> Result<(), Box<dyn Error>> {
    let mut delays: Vec<f64> = record.deliveries.iter().map(|delivery| delivery.delay_s).collect();
    delays.sort_unstable_by(f64::total_cmp);
    let longest = delays.last().copied().unwrap_or(1.0).max(1.0);
    let mut chart = ChartBuilder::on(area)
        .caption("deliveries by the time since the message was said", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..longest * 1.02, 0.0..100.0)?;
    chart.configure_mesh().x_desc("seconds").y_desc("% delivered").draw()?;
    // A thousand points say as much as a million.
    let expected = (record.expected().max(1)) as f64;
    let skip = delays.len().div_ceil(1000).max(1);
    let last = delays.len().saturating_sub(1);
    let points = delays.iter().enumerate().filter(|(at, _)| at % skip == 0 || *at == last);
    let points = points.map(|(at, delay)| (*delay, 100.0 * (at + 1) as f64 / expected));
    chart.draw_series(LineSeries::new(points, COLOURS[0].stroke_width(2)))?;
    Ok(())
}

/// How many bytes a second were sent, by what for.
fn traffic(area: &Area<'_>, record: &Record) -> Result<(), Box<dyn Error>> {
    let per_second = |bytes: u64| bytes as f64 / STEP_S / 1024.0;
    let last = record.traffic.keys().next_back().copied().unwrap_or(0) + 1;
    let all = record.traffic.values().flatten();
    let most = all.map(|traffic| per_second(traffic.bytes)).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("bytes sent by all members together", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last as f64 * STEP_S, 0.0..most * 1.05)?;
    chart.configure_mesh().x_desc("seconds").y_desc("KiB a second").draw()?;
    for (kind, (name, colour)) in KINDS.iter().zip(COLOURS).enumerate() {
        let points = (0..last).map(|step| {
            let bytes = record.traffic.get(&step).map_or(0, |traffic| traffic[kind].bytes);
            ((step as f64 + 0.5) * STEP_S, per_second(bytes))
        });
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}
