//! Line plots with a logarithmic axis, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;

/// A plot with two logarithmic axes.
#[derive(Clone, Copy, Debug)]
pub struct Plot<'a> {
    /// The title above the plot.
    pub title: &'a str,
    /// The label of the horizontal axis.
    pub x: &'a str,
    /// The label of the vertical axis.
    pub y: &'a str,
}

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// The points from left to right. All numbers are above zero.
    pub points: Vec<(f64, f64)>,
}

const SIZE_PIXELS: (u32, u32) = (900, 520);

impl Plot<'_> {
    /// Writes the plot to a file.
    ///
    /// # Errors
    /// The file cannot be written, or there is nothing to draw.
    pub fn write(&self, path: &Path, series: &[Series]) -> Result<()> {
        let points = || series.iter().flat_map(|series| series.points.iter().copied());
        let range = |numbers: &mut dyn Iterator<Item = f64>| {
            numbers.fold(None, |range: Option<(f64, f64)>, number| {
                let (low, high) = range.unwrap_or((number, number));
                Some((low.min(number), high.max(number)))
            })
        };
        let x = range(&mut points().map(|(x, _)| x)).ok_or("nothing to draw")?;
        let y = range(&mut points().map(|(_, y)| y)).ok_or("nothing to draw")?;

        let root = SVGBackend::new(path, SIZE_PIXELS).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (x.0 / 1.2..x.1 * 1.2).log_scale(),
                (y.0 / 1.5..y.1 * 1.5).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&short)
            .y_label_formatter(&short)
            .label_style(("sans-serif", 13))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (index, Series { name, points }) in series.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
            let legend =
                move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
            chart.draw_series(line)?.label(name).legend(legend);
            chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 13))
            .position(SeriesLabelPosition::UpperLeft)
            .draw()?;
        root.present()?;
        Ok(())
    }
}

/// Formats a number as 1, 20, 1k or 1M.
fn short(number: &f64) -> String {
    match *number {
        number if number >= 1e6 => format!("{}M", number / 1e6),
        number if number >= 1e3 => format!("{}k", number / 1e3),
        number => format!("{number}"),
    }
}
