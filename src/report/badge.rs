//! How a run went as a badge, an SVG for a page about a repository. It holds all that it needs.

use super::list;
use super::number::duration;
use super::summary::Summary;
use super::text::Line;

const NAME: &str = "drover";

/// Pixels of a column of text, and beside it.
const COLUMN: usize = 7;
const MARGIN: usize = 6;

/// Columns of what is said at most.
const MOST: usize = 48;

/// The picture.
#[must_use]
pub fn svg(s: &Summary) -> String {
    let verdict = list::verdict(s);
    let said = match s.exit {
        Some(0) => format!("{verdict} · {}", duration(s.seconds())),
        _ => verdict,
    };
    let said: String = Line::from(said.as_str()).fit(MOST).pieces().map(|(_, text)| text).collect();
    let colour = match (s.exit, s.cancelled) {
        (_, Some(_)) | (None, _) => "#9a6700",
        (Some(0), None) => "#1a7f37",
        (Some(_), None) => "#c1272d",
    };
    drawn(NAME, &said, colour)
}

fn drawn(name: &str, said: &str, colour: &str) -> String {
    let text = |text: &str| Line::from(text).width() * COLUMN;
    let (left, right) = (text(name) + 2 * MARGIN, text(said) + 2 * MARGIN);
    let width = left + right;
    let (at, length, beside) = (left + MARGIN, text(said), text(name));
    let said = super::html::escaped(said);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" aria-label=\"{name}: {said}\">\n\
         <title>{name}: {said}</title>\n\
         <clipPath id=\"r\"><rect width=\"{width}\" height=\"20\" rx=\"3\"/></clipPath>\n\
         <g clip-path=\"url(#r)\"><rect width=\"{left}\" height=\"20\" fill=\"#444b54\"/>\
         <rect x=\"{left}\" width=\"{right}\" height=\"20\" fill=\"{colour}\"/></g>\n\
         <g fill=\"#fff\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
         <text x=\"{MARGIN}\" y=\"14\" textLength=\"{beside}\" lengthAdjust=\"spacingAndGlyphs\">{name}</text>\
         <text x=\"{at}\" y=\"14\" textLength=\"{length}\" lengthAdjust=\"spacingAndGlyphs\">{said}</text></g>\n\
         </svg>\n"
    )
}
