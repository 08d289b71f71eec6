//! Lines over steps as SVG, by the crate `plotters`.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Points of a line, at most: more are not seen.
const POINTS: usize = 400;
/// Colours that people with any kind of eyes can tell apart (Okabe and Ito), the dark ones first.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];
const INK: RGBColor = RGBColor(60, 60, 60);
const MESH: RGBColor = RGBColor(228, 228, 228);
const MARK: RGBColor = RGBColor(150, 150, 150);

/// Lines in one frame.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What is measured.
    pub title: String,
    /// The lines.
    pub lines: Vec<Line>,
    /// Where something begins, and its name.
    pub marks: Vec<(String, f64)>,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is called; none where it goes on with one before.
    pub name: Option<String>,
    /// The number of its colour.
    pub color: usize,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is shown.
    pub dots: bool,
}

impl Plot {
    /// Points in all.
    pub fn points(&self) -> usize {
        self.lines.iter().map(|line| line.points.len()).sum()
    }

    /// The plot, so many pixels wide and high.
    pub fn svg(&self, width: u32, height: u32) -> String {
        let mut svg = String::new();
        let drawn = self.draw(&SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area());
        // The only error of a backend that writes to a string.
        drawn.expect("a string takes everything");
        svg
    }

    fn draw<'a>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
        let (x, mut y) = (self.range(|point| point.0, 0.0), self.range(|point| point.1, 0.06));
        if !self.marks.is_empty() {
            // Room for their names above the lines.
            y.1 += 0.1 * (y.1 - y.0);
        }
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(30)
            .y_label_area_size(56)
            .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        let small = TextStyle::from(("sans-serif", 13).into_font()).color(&INK);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(MESH)
            .axis_style(MARK)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|value| tidy(*value))
            .y_label_formatter(&|value| tidy(*value))
            .label_style(small.clone())
            .draw()?;
        for (name, at) in &self.marks {
            chart.draw_series([PathElement::new(vec![(*at, y.0), (*at, y.1)], MARK)])?;
            let right = (at - x.0) > 0.85 * (x.1 - x.0);
            let side = if right { HPos::Right } else { HPos::Left };
            let style = small.clone().color(&MARK).pos(Pos::new(side, VPos::Top));
            let label = EmptyElement::at((*at, y.1)) + Text::new(name.clone(), (if right { -5 } else { 5 }, 2), style);
            chart.draw_series([label])?;
        }
        for line in &self.lines {
            let color = COLORS[line.color % COLORS.len()];
            let points = thinned(&line.points);
            let drawn = chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
            if let Some(name) = &line.name {
                drawn
                    .label(name.clone())
                    .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
            }
            if line.dots {
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
            }
        }
        if self.lines.iter().filter(|line| line.name.is_some()).count() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.85))
                .border_style(MESH)
                .label_font(small)
                .draw()?;
        }
        area.present()
    }

    /// The least and the largest value, with a share of what lies between added at both ends.
    fn range(&self, of: impl Fn(&(f64, f64)) -> f64, more: f64) -> (f64, f64) {
        let values = self.lines.iter().flat_map(|line| &line.points).map(of);
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return (0.0, 1.0);
        }
        let room = if high > low { more * (high - low) } else { high.abs().max(1.0) * 0.05 };
        (low - room, high + room)
    }
}

/// At most so many points as can be seen: of each stretch its mean.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS).max(1);
    let mean = |stretch: &[(f64, f64)]| {
        let n = stretch.len() as f64;
        let sum = stretch.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(step).map(mean).collect()
}

/// A number on an axis.
fn tidy(value: f64) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_lines_marks_and_names_and_escapes_them() {
        let line = |name: &str, color| Line {
            name: Some(name.into()),
            color,
            points: (0..1000).map(|step| (f64::from(step), 3.0 / f64::from(step + 1))).collect(),
            dots: false,
        };
        let lines = vec![line("loss", 0), line("<b>eval</b>", 1)];
        let plot = Plot { title: "loss".into(), lines, marks: vec![("<script>".into(), 500.0)] };
        let svg = plot.svg(600, 260);
        assert!(svg.starts_with("<svg width=\"600\" height=\"260\"") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.matches("<polyline").count() >= 2);
        assert!(!svg.contains("<script>") && !svg.contains("<b>") && svg.contains("&lt;script&gt;"), "{svg}");
        assert!(svg.len() < 60_000, "{}", svg.len());
        assert_eq!(plot.svg(600, 260), svg);
    }

    #[test]
    fn nothing_and_one_value_have_a_frame_too() {
        let plot = |points: Vec<(f64, f64)>| {
            let lines = vec![Line { name: None, color: 0, points, dots: true }];
            Plot { title: String::new(), lines, marks: Vec::new() }.svg(300, 100)
        };
        assert!(plot(Vec::new()).contains("</svg>") && plot(vec![(3.0, 0.0)]).contains("<circle"));
    }

    #[test]
    fn numbers_on_an_axis_are_short() {
        assert_eq!([0.0, 2.5, 1000.0, 2e-4, 0.1 + 0.2].map(tidy), ["0", "2.5", "1000", "2.0e-4", "0.3"]);
    }
}
