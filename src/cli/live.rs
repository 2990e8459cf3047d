//! One line on a terminal that is drawn again and again, while something takes long that is no run.

use std::io::Write as _;
use std::time::Duration;

use crate::report::text::Line;

use super::Session;

/// How often the line is drawn.
pub(super) const FRAME: Duration = Duration::from_millis(100);

/// Back to the first column, and nothing in this line.
const WIPE: &str = "\r\u{1b}[K";

/// Draws it.
pub(super) fn draw(session: &Session, line: Line) {
    let line = line.fit(session.width());
    // A closed stderr is no reason to stop.
    let _ = write!(std::io::stderr(), "{WIPE}{}", line.render(session.style()));
    let _ = std::io::stderr().flush();
}

/// Takes it away.
pub(super) fn wipe() {
    let _ = write!(std::io::stderr(), "{WIPE}");
}
