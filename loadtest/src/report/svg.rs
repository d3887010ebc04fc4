//! Line charts as inline SVG, without scripts: colours come from the page's style sheet, so that one
//! drawing serves light and dark.

use crate::report::markup::escaped;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;
/// Points of a line; of more, the highest of each group is drawn.
const POINTS_MAX: usize = 800;
const TICKS: f64 = 5.0;
const LOG_TICKS_MAX: usize = 6;

/// A chart.
pub struct Chart<'a> {
    /// What it shows, for those who cannot see it.
    pub title: &'a str,
    /// Its height, of 960 in width.
    pub height: f64,
    /// Whether values are spread by their logarithm; those at 0 or below are gaps then.
    pub is_logarithmic: bool,
    /// How a value is written.
    pub value: fn(f64) -> String,
    /// The lines, the most important last.
    pub lines: Vec<Line<'a>>,
    /// Times that are marked over the whole height.
    pub bands: Vec<Band<'a>>,
    /// The places of the horizontal axis that are named; chosen for seconds where there are none.
    pub places: Vec<(f64, String)>,
}

/// A line.
pub struct Line<'a> {
    /// Its class in the style sheet.
    pub class: &'a str,
    /// Its name.
    pub name: &'a str,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// A marked time.
pub struct Band<'a> {
    /// Its class in the style sheet.
    pub class: &'a str,
    /// What is said of it.
    pub name: String,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
}

struct Scale {
    from: f64,
    to: f64,
    /// Where they lie on the drawing.
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let (value, from, to) = if self.is_logarithmic {
            (value.max(self.from).ln(), self.from.ln(), self.to.ln())
        } else {
            (value, self.from, self.to)
        };
        let share = if to > from { (value - from) / (to - from) } else { 0.5 };
        self.low + share.clamp(0.0, 1.0) * (self.high - self.low)
    }
}

impl Chart<'_> {
    /// The drawing with its legend, or a sentence where there is nothing to draw.
    pub fn draw(&self) -> String {
        let Some((across, up)) = self.scales() else {
            return "<p class=\"none\">Nothing was recorded.</p>".into();
        };
        let (width, height) = (WIDTH, self.height);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
            escaped(self.title)
        );
        for band in &self.bands {
            svg.push_str(&draw_band(band, &across, &up));
        }
        self.draw_axes(&across, &up, &mut svg);
        for line in &self.lines {
            svg.push_str(&self.draw_line(line, &across, &up));
        }
        svg.push_str("</svg>");
        format!("{}{svg}", self.legend())
    }

    fn scales(&self) -> Option<(Scale, Scale)> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let shown = || points().filter(|point| !self.is_logarithmic || point.1 > 0.0);
        let least = shown().map(|point| point.1).reduce(f64::min)?;
        let most = shown().map(|point| point.1).reduce(f64::max)?;
        let across = Scale {
            from: points().map(|point| point.0).reduce(f64::min)?,
            to: points().map(|point| point.0).reduce(f64::max)?,
            low: LEFT,
            high: WIDTH - RIGHT,
            is_logarithmic: false,
        };
        let (from, to) = if self.is_logarithmic {
            (least / 1.3, most * 1.3)
        } else {
            (0.0, if most > 0.0 { most * 1.08 } else { 1.0 })
        };
        let up = Scale {
            from,
            to,
            low: self.height - BOTTOM,
            high: TOP,
            is_logarithmic: self.is_logarithmic,
        };
        Some((across, up))
    }

    fn draw_axes(&self, across: &Scale, up: &Scale, svg: &mut String) {
        let right = WIDTH - RIGHT;
        for value in if self.is_logarithmic { decades(up) } else { round_steps(up) } {
            let y = up.place(value);
            svg.push_str(&format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escaped(&(self.value)(value)),
            ));
        }
        let chosen: Vec<(f64, String)> =
            if self.places.is_empty() { instants(across) } else { self.places.clone() };
        for (value, name) in chosen {
            let (x, y) = (across.place(value), self.height - 8.0);
            let bottom = self.height - BOTTOM;
            svg.push_str(&format!(
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
                bottom + 5.0,
                escaped(&name),
            ));
        }
    }

    fn draw_line(&self, line: &Line<'_>, across: &Scale, up: &Scale) -> String {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (x, y) in thinned(&line.points) {
            if self.is_logarithmic && y <= 0.0 {
                pen_is_down = false;
                continue;
            }
            let command = if pen_is_down { 'L' } else { 'M' };
            path.push_str(&format!("{command}{:.1} {:.1}", across.place(x), up.place(y)));
            pen_is_down = true;
        }
        format!("<path class=\"line {}\" d=\"{path}\"/>", line.class)
    }

    fn legend(&self) -> String {
        let mut legend = String::from("<p class=\"legend\">");
        for line in self.lines.iter().rev() {
            legend.push_str(&format!(
                "<span><i class=\"{}\"></i>{}</span>",
                line.class,
                escaped(line.name)
            ));
        }
        legend.push_str("</p>");
        legend
    }
}

fn draw_band(band: &Band<'_>, across: &Scale, up: &Scale) -> String {
    let (from, to) = (across.place(band.from), across.place(band.to));
    let (width, height) = ((to - from).max(1.5), up.low - up.high);
    format!(
        "<rect class=\"band {}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
         height=\"{height:.1}\"><title>{}</title></rect>",
        band.class,
        up.high,
        escaped(&band.name),
    )
}

/// At most [`POINTS_MAX`] points: the highest of each group, so that no peak is smoothed away.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = |group: &[(f64, f64)]| {
        group.iter().copied().reduce(|one, other| if other.1 > one.1 { other } else { one })
    };
    points.chunks(group).filter_map(highest).collect()
}

fn decades(scale: &Scale) -> Vec<f64> {
    let mut fine = Vec::new();
    let mut decade = 10_f64.powf(scale.from.log10().floor());
    while decade <= scale.to {
        fine.extend([1.0, 2.0, 5.0].map(|step| step * decade));
        decade *= 10.0;
    }
    fine.retain(|value| (scale.from..=scale.to).contains(value));
    if fine.len() <= LOG_TICKS_MAX {
        return fine;
    }
    let is_decade = |value: &f64| (value.log10() - value.log10().round()).abs() < 1e-9;
    fine.retain(is_decade);
    fine
}

fn round_steps(scale: &Scale) -> Vec<f64> {
    let step = round_step((scale.to - scale.from) / TICKS);
    (0..=10)
        .map(|count| scale.from + f64::from(count) * step)
        .filter(|at| *at <= scale.to)
        .collect()
}

/// The least of 1, 2 and 5 times a power of ten that is not below.
fn round_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * decade)
        .find(|step| *step >= least * 0.999_999)
        .unwrap_or(decade * 10.0)
}

fn instants(scale: &Scale) -> Vec<(f64, String)> {
    const STEPS: [f64; 16] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0,
        21_600.0, 43_200.0, 86_400.0,
    ];
    let least = (scale.to - scale.from) / 10.0;
    let step = STEPS.into_iter().find(|step| *step >= least).unwrap_or(86_400.0);
    let first = (scale.from / step).ceil() * step;
    (0..20)
        .map(|count| first + f64::from(count) * step)
        .filter(|at| *at <= scale.to)
        .map(|at| (at, clock(at)))
        .collect()
}

/// Seconds of a run as people read them.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (hours, minutes, rest) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, is_logarithmic: bool) -> String {
        Chart {
            title: "<t>",
            height: 200.0,
            is_logarithmic,
            value: |value| format!("{value}<"),
            lines: vec![Line { class: "p50", name: "a&b", points }],
            bands: vec![Band { class: "late", name: "<late>".into(), from: 1.0, to: 2.0 }],
            places: Vec::new(),
        }
        .draw()
    }

    #[test]
    fn names_are_escaped_and_gaps_are_left() {
        let svg = chart(vec![(0.0, 1.0), (1.0, 0.0), (2.0, 10.0)], true);
        assert!(svg.contains("&lt;t&gt;") && svg.contains("a&amp;b"), "{svg}");
        assert!(svg.contains("&lt;late&gt;"), "{svg}");
        let path = svg.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 0), "{path}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn nothing_and_one_point_are_drawn_too() {
        assert!(chart(Vec::new(), false).contains("Nothing"));
        assert!(chart(vec![(0.0, 0.0)], true).contains("Nothing"));
        for is_logarithmic in [false, true] {
            assert!(!chart(vec![(5.0, 5.0)], is_logarithmic).contains("NaN"));
        }
        assert!(!chart(vec![(0.0, 0.0), (1.0, 0.0)], false).contains("NaN"));
    }

    #[test]
    fn a_long_run_keeps_its_peaks() {
        let points: Vec<(f64, f64)> =
            (0..604_800_u32).map(|at| (f64::from(at), f64::from(u8::from(at == 12_345)))).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS_MAX && thin.iter().any(|point| point.1 == 1.0));
    }

    #[test]
    fn axes_are_named_in_round_steps() {
        let scale = |from, to| Scale { from, to, low: 0.0, high: 1.0, is_logarithmic: true };
        assert_eq!(decades(&scale(0.9, 6.0)), [1.0, 2.0, 5.0]);
        assert_eq!(decades(&scale(0.5, 2_000.0)).len(), 4);
        assert_eq!(round_steps(&scale(0.0, 100.0)), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let places = instants(&scale(0.0, 60.0));
        assert_eq!((places.len(), places[1].1.as_str()), (7, "0:10"));
        assert_eq!(clock(3_725.0), "1:02:05");
    }
}
