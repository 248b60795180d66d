//! Draws predicted against true remaining time: a panel for each predictor and pass, so that a good one shows as
//! lines along the diagonal.

use std::fmt::Write as _;

use crate::evaluation::{RunScore, mean};
use crate::predictors::Predictor;
use crate::trace::Pass;

/// Sizes in pixels.
const PANEL: f64 = 230.0;
const GAP: f64 = 22.0;
const LEFT: f64 = 92.0;
const TOP: f64 = 112.0;
const RIGHT: f64 = 28.0;
const BOTTOM: f64 = 64.0;
const ROW_GAP: f64 = 44.0;

const COVE: &str = "#0b63ce";
const BASELINE: &str = "#6b7280";

/// Returns the plot as SVG.
pub(crate) fn svg(scores: &[RunScore]) -> String {
    let longest = scores.iter().map(|run| run.total_ms).fold(0.0, f64::max) / 1e3;
    // Whole five seconds, so that the last tick is the corner.
    let axis = ((longest / 5.0).ceil() * 5.0).max(5.0);
    let passes: Vec<Pass> = Pass::ALL
        .into_iter()
        .filter(|pass| scores.iter().any(|run| run.pass == *pass))
        .collect();
    let columns = as_f64(Predictor::ALL.len());
    let rows = as_f64(passes.len());
    let width = LEFT + columns * PANEL + (columns - 1.0) * GAP + RIGHT;
    let height = TOP + rows * PANEL + (rows - 1.0) * ROW_GAP + BOTTOM;
    let band = axis / 10.0;
    let mut svg = Svg::default();
    svg.line(format_args!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="Inter, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12" fill="#374151">"##
    ));
    svg.line(format_args!(
        r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##
    ));
    svg.line(format_args!(
        r##"<text x="{LEFT}" y="34" font-size="18" font-weight="600" fill="#111827">Remaining time: predicted against true</text>"##
    ));
    svg.line(format_args!(
        r#"<text x="{LEFT}" y="54">One line a pull, {} pulls. On the diagonal the prediction is right; in the band it is off by at most {band} s.</text>"#,
        scores.len()
    ));
    for (row, pass) in passes.iter().enumerate() {
        let y = TOP + as_f64(row) * (PANEL + ROW_GAP);
        for (column, predictor) in Predictor::ALL.into_iter().enumerate() {
            let x = LEFT + as_f64(column) * (PANEL + GAP);
            let place = Place {
                x,
                y,
                axis,
                has_ticks_left: column == 0,
                has_ticks_below: row + 1 == passes.len(),
            };
            panel(&mut svg, &place, predictor, *pass, scores);
        }
        let (middle, x) = (y + PANEL / 2.0, LEFT - 70.0);
        let name = match pass {
            Pass::FirstRun => "First run",
            Pass::WithHistory => "With history",
        };
        svg.line(format_args!(
            r##"<text transform="translate({x} {middle}) rotate(-90)" text-anchor="middle" font-size="14" font-weight="600" fill="#111827">{name}</text>"##
        ));
        let x = LEFT - 42.0;
        svg.line(format_args!(
            r#"<text transform="translate({x} {middle}) rotate(-90)" text-anchor="middle">predicted, s</text>"#
        ));
    }
    let middle = LEFT + (width - LEFT - RIGHT) / 2.0;
    svg.line(format_args!(
        r#"<text x="{middle}" y="{}" text-anchor="middle">true remaining time, s; a pull goes from right to left</text>"#,
        height - 18.0
    ));
    svg.line(format_args!("</svg>"));
    svg.text
}

/// Where a panel is and what it shows beside its lines.
struct Place {
    x: f64,
    y: f64,
    /// Seconds at the end of both axes.
    axis: f64,
    has_ticks_left: bool,
    has_ticks_below: bool,
}

impl Place {
    /// Returns where a moment is drawn, in seconds.
    fn point(&self, truth: f64, predicted: f64) -> (f64, f64) {
        let scale = PANEL / self.axis;
        (self.x + truth * scale, self.y + PANEL - predicted * scale)
    }
}

fn panel(svg: &mut Svg, place: &Place, predictor: Predictor, pass: Pass, scores: &[RunScore]) {
    let Place { x, y, axis, .. } = *place;
    let is_cove = predictor == Predictor::Cove;
    let color = if is_cove { COVE } else { BASELINE };
    let bottom = y + PANEL;
    let of_predictor = |run: &RunScore| {
        let mut scores = run.predictors.clone().into_iter();
        scores.find(|score| score.predictor == predictor)
    };
    let lines: Vec<_> = scores
        .iter()
        .filter(|run| run.pass == pass)
        .filter_map(of_predictor)
        .collect();

    let id = format!("clip-{x:.0}-{y:.0}");
    svg.line(format_args!(
        r#"<clipPath id="{id}"><rect x="{x}" y="{y}" width="{PANEL}" height="{PANEL}"/></clipPath>"#
    ));
    grid(svg, place);
    let off = axis / 10.0;
    let corners = [
        (0.0, off),
        (axis, axis + off),
        (axis, axis - off),
        (off, 0.0),
        (0.0, 0.0),
    ];
    let corners = corners.map(|(truth, predicted)| {
        let (x, y) = place.point(truth, predicted);
        format!("{x:.1},{y:.1}")
    });
    svg.line(format_args!(
        r##"<g clip-path="url(#{id})"><polygon points="{}" fill="#e5e7eb" opacity="0.7"/>"##,
        corners.join(" ")
    ));
    let width = if is_cove { 1.5 } else { 1.2 };
    for score in &lines {
        let path = path(place, &score.moments);
        svg.line(format_args!(
            r#"<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}" stroke-opacity="0.5" stroke-linejoin="round" stroke-linecap="round"/>"#
        ));
    }
    let ((from_x, from_y), (to_x, to_y)) = (place.point(0.0, 0.0), place.point(axis, axis));
    svg.line(format_args!(
        r##"<path d="M{from_x:.1} {from_y:.1}L{to_x:.1} {to_y:.1}" stroke="#111827" stroke-width="1.2" stroke-dasharray="5 4"/></g>"##
    ));
    svg.line(format_args!(
        r#"<text x="{x}" y="{}" font-size="13" font-weight="600" fill="{color}">{}</text>"#,
        y - 10.0,
        title(predictor)
    ));
    let error = mean(lines.iter().filter_map(|score| score.error));
    svg.line(format_args!(
        r##"<text x="{}" y="{}" text-anchor="end" font-weight="600" fill="{color}" stroke="#fafafa" stroke-width="3" paint-order="stroke">{}</text>"##,
        x + PANEL - 8.0,
        bottom - 26.0,
        percent(error)
    ));
    svg.line(format_args!(
        r##"<text x="{}" y="{}" text-anchor="end" font-size="11" stroke="#fafafa" stroke-width="3" paint-order="stroke">mean error</text>"##,
        x + PANEL - 8.0,
        bottom - 10.0
    ));
    let above = mean(lines.iter().flat_map(|score| {
        let predicted = score.moments.iter().filter_map(|(_, predicted)| *predicted);
        predicted.map(|ms| f64::from(u8::from(ms > axis * 1e3)))
    }));
    if let Some(above) = above.filter(|above| *above >= 0.01) {
        svg.line(format_args!(
            r##"<text x="{}" y="{}" text-anchor="end" font-size="11" stroke="#fafafa" stroke-width="3" paint-order="stroke">{} lie above the scale</text>"##,
            x + PANEL - 8.0,
            y + 16.0,
            percent(Some(above))
        ));
    }
}

/// Draws what is behind the lines, and the ticks beside it.
fn grid(svg: &mut Svg, place: &Place) {
    let Place { x, y, axis, .. } = *place;
    let bottom = y + PANEL;
    svg.line(format_args!(
        r##"<rect x="{x}" y="{y}" width="{PANEL}" height="{PANEL}" fill="#fafafa" stroke="#d1d5db"/>"##
    ));
    let step = if axis > 30.0 { 10.0 } else { 5.0 };
    let mut tick = 0.0;
    while tick <= axis {
        let (at_x, at_y) = place.point(tick, tick);
        if tick > 0.0 && tick < axis {
            svg.line(format_args!(
                r##"<path d="M{at_x:.1} {y}V{bottom}M{x} {at_y:.1}H{}" stroke="#e5e7eb"/>"##,
                x + PANEL
            ));
        }
        if place.has_ticks_below {
            svg.line(format_args!(
                r#"<text x="{at_x:.1}" y="{}" text-anchor="middle">{tick}</text>"#,
                bottom + 17.0
            ));
        }
        if place.has_ticks_left {
            svg.line(format_args!(
                r#"<text x="{}" y="{:.1}" text-anchor="end">{tick}</text>"#,
                x - 8.0,
                at_y + 4.0
            ));
        }
        tick += step;
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// Returns a run's line, interrupted where there was no answer.
fn path(place: &Place, moments: &[(f64, Option<f64>)]) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (truth, predicted) in moments {
        let Some(predicted) = predicted else {
            is_drawing = false;
            continue;
        };
        // Far outside is outside: a number of a hundred digits helps no reader of the file.
        let (x, y) = place.point(truth / 1e3, (predicted / 1e3).min(10.0 * place.axis));
        let command = if is_drawing { 'L' } else { 'M' };
        is_drawing = true;
        // Writing to a String cannot fail.
        let _ = write!(path, "{command}{x:.1} {y:.1}");
    }
    path
}

const fn title(predictor: Predictor) -> &'static str {
    match predictor {
        Predictor::Cove => "Cove",
        Predictor::Average => "Phase averages",
        Predictor::Share => "Elapsed ÷ share done",
        Predictor::Rate => "Bytes ÷ rate",
    }
}

#[derive(Default)]
struct Svg {
    text: String,
}

impl Svg {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of panels or runs")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
