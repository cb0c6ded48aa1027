//! A line chart as SVG, for figures in docs that come from measured runs.

/// Size of the picture and of the part that holds the lines, in pixels.
const SIZE: (f64, f64) = (800.0, 360.0);
const LEFT: f64 = 60.0;
const RIGHT: f64 = 780.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 310.0;

/// A line with its name and colour.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// What it shows.
    pub name: &'a str,
    /// A CSS colour.
    pub colour: &'a str,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A chart of these lines; both axes begin at 0.
pub fn chart(title: &str, x_name: &str, y_name: &str, lines: &[Line<'_>]) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let x_most = points().map(|point| point.0).fold(1.0, f64::max);
    let y_most = points().map(|point| point.1).fold(1.0, f64::max) * 1.05;
    // Ticks that are no whole numbers are told apart.
    let x_digits = usize::from(x_most < 60.0 && x_most % 6.0 != 0.0);
    let x_at = |x: f64| LEFT + x / x_most * (RIGHT - LEFT);
    let y_at = |y: f64| BOTTOM - y / y_most * (BOTTOM - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" \
         y=\"24\" font-size=\"16\">{title}</text>\n",
        SIZE.0, SIZE.1
    );
    for step in 0..=6 {
        let (y, value) = (
            y_most * f64::from(step) / 6.0,
            f64::from(step) / 6.0 * y_most,
        );
        svg += &format!(
            "<line x1=\"{LEFT}\" y1=\"{0:.1}\" x2=\"{RIGHT}\" y2=\"{0:.1}\" stroke=\"#ddd\"/><text \
             x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{value:.1}</text>\n",
            y_at(y),
            LEFT - 6.0,
            y_at(y) + 4.0
        );
        let x = x_most * f64::from(step) / 6.0;
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x:.x_digits$}</text>\n",
            x_at(x),
            BOTTOM + 18.0
        );
    }
    for (number, line) in lines.iter().enumerate() {
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y)))
            .collect();
        svg += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n<text x=\"{}\" \
             y=\"42\" fill=\"{}\">{}</text>\n",
            path.join(" "),
            line.colour,
            LEFT + 200.0 * number as f64,
            line.colour,
            line.name
        );
    }
    svg += &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{x_name}</text>\n<text x=\"14\" y=\"{}\" \
         transform=\"rotate(-90 14 {})\" text-anchor=\"middle\">{y_name}</text>\n</svg>\n",
        RIGHT,
        SIZE.1 - 12.0,
        (TOP + BOTTOM) / 2.0,
        (TOP + BOTTOM) / 2.0
    );
    svg
}
