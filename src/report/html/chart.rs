//! The chart of a run as SVG: bars in the lanes of their tracks, and the path through them.
//!
//! All that is horizontal is in percents of the wall time, so that the page can make the chart wider than the screen
//! without drawing it anew. What the page's script says of a bar is in [`Data`], in the order of the bars.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::event::{Moment, Stage};
use crate::report::number::{clock, count, duration, plural};
use crate::report::summary::Summary;
use crate::report::timeline::{self, Bar, End, Site, Timeline, Track};

/// Bars that are drawn each for itself; beyond that neighbours that are too short to be seen apart become one.
const MOST_BARS: usize = 40_000;

/// Pixels of height that all slots share, and that the lanes of any other track do.
const SLOTS: f64 = 520.0;
const OTHERS: f64 = 48.0;

/// Pixels of the line with a track's name, and of the scale on top.
const NAME: f64 = 19.0;
const SCALE: f64 = 20.0;

/// Pixels of a lane in which a name can be read, and the share of the width that a bar needs to have one.
const READABLE: f64 = 11.0;
const WIDE: f64 = 0.045;

/// Steps of a path from which on it is drawn thin.
const MANY_STEPS: usize = 60;

/// A drawn chart.
#[derive(Debug, Default)]
pub(super) struct Chart {
    /// Pixels.
    pub(super) height: u32,
    /// Names of tracks.
    pub(super) labels: Vec<Label>,
    /// Where times are written on top.
    pub(super) ticks: Vec<Tick>,
    /// The bars, a group a lane.
    pub(super) bars: String,
    /// The path through them.
    pub(super) path: String,
    /// What the script reads.
    pub(super) data: Data,
}

/// The name of a track.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) top: u32,
    pub(super) name: String,
    pub(super) detail: String,
}

/// A moment on the scale.
#[derive(Debug)]
pub(super) struct Tick {
    /// Percents.
    pub(super) at: String,
    pub(super) text: String,
}

/// What the script reads: milliseconds, and names by number.
#[derive(Debug, Default, Serialize)]
pub(super) struct Data {
    end: u64,
    sites: Vec<String>,
    names: Vec<String>,
    /// The number of its name, or how many bars are in this one, negated; from; how long.
    bars: Vec<(i64, u64, u64)>,
}

/// Draws it.
pub(super) fn draw(s: &Summary, timeline: &Timeline) -> Chart {
    let mut drawing = Drawing {
        s,
        end: timeline.end.0.max(1) as f64,
        least: least(timeline),
        chart: Chart::default(),
        names: BTreeMap::new(),
        y: SCALE,
    };
    drawing.chart.data.end = timeline.end.0.div_ceil(1000);
    drawing.scale();
    drawing.stages();
    let slots: usize = timeline.tracks.iter().filter(|t| is_slots(t)).map(|t| t.lanes.len()).sum();
    let places: Vec<(f64, f64)> = timeline.tracks.iter().map(|track| drawing.track(track, slots)).collect();
    drawing.path(timeline, &places);
    drawing.chart.height = (drawing.y + 4.0) as u32;
    drawing.chart
}

fn is_slots(track: &Track) -> bool {
    matches!(track.site, Site::Slots(_))
}

/// The shortest time that is drawn for itself, so that there are not too many bars.
fn least(timeline: &Timeline) -> u64 {
    let bars = || timeline.tracks.iter().flat_map(|track| track.lanes.iter().flatten());
    if bars().count() <= MOST_BARS {
        return 0;
    }
    let mut lengths: Vec<u64> = bars().map(|bar| bar.to.0 - bar.from.0).collect();
    let at = lengths.len() - MOST_BARS / 2;
    *lengths.select_nth_unstable(at).1
}

struct Drawing<'a> {
    s: &'a Summary,
    end: f64,
    least: u64,
    chart: Chart,
    names: BTreeMap<String, i64>,
    /// Pixels from the top.
    y: f64,
}

impl Drawing<'_> {
    fn percent(&self, at: Moment) -> String {
        percent(at.0 as f64 / self.end)
    }

    fn scale(&mut self) {
        const STEPS: [f64; 17] =
            [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0];
        let seconds = self.end / 1e6;
        let step =
            STEPS.into_iter().find(|step| seconds / step <= 10.0).unwrap_or((seconds / 36_000.0).ceil() * 3600.0);
        for n in 0..=10 {
            let at = step * f64::from(n);
            if at <= seconds {
                let text = if step < 1.0 { format!("{at:.1}s") } else { clock(at) };
                self.chart.ticks.push(Tick { at: percent(at / seconds), text });
            }
        }
    }

    fn stages(&mut self) {
        let stages: Vec<_> = timeline::stages(self.s)
            .into_iter()
            .filter(|span| span.stage != Stage::Record && span.from < span.to)
            .collect();
        if stages.is_empty() {
            return;
        }
        self.label("stages".to_owned(), String::new());
        for span in stages {
            let (x, width) = (self.percent(span.from), percent((span.to.0 - span.from.0) as f64 / self.end));
            let (word, y) = (timeline::word(span.stage), self.y);
            let _ = write!(
                self.chart.path,
                "<svg class=\"t {word}\" x={x}% y={y} width={width}% height=13><rect width=100% height=13 rx=2 />\
                 <text x=5 y=10>{word} {}</text></svg>",
                duration(span.seconds()),
            );
            self.y += 15.0;
        }
    }

    fn label(&mut self, name: String, detail: String) {
        self.chart.labels.push(Label { top: (self.y + 4.0) as u32, name, detail });
        self.y += NAME + 4.0;
    }

    /// Gives the top of its first lane, and the height of each.
    fn track(&mut self, track: &Track, slots: usize) -> (f64, f64) {
        let (budget, lanes, most) =
            if is_slots(track) { (SLOTS, slots, 17.0) } else { (OTHERS, track.lanes.len(), 8.0) };
        let lane = (budget / lanes.max(1) as f64).floor().clamp(2.0, most);
        let bar = if lane > 5.0 { lane - 2.0 } else { lane - 0.5 };
        self.label(track.site.name(self.s), detail(self.s, track));
        let top = self.y;
        let number = self.chart.data.sites.len();
        self.chart.data.sites.push(track.site.name(self.s));
        for (n, bars) in track.lanes.iter().enumerate() {
            let class = class(track.site);
            let _ = write!(
                self.chart.bars,
                "<g class={class} transform=\"translate(0 {})\" style=--h:{bar}px data-s={number}>",
                self.y
            );
            if is_slots(track) {
                self.chart.bars.push_str("<rect class=z width=100% />");
            }
            self.lane(bars);
            self.chart.bars.push_str("</g>");
            self.names(bars, top + lane * n as f64, bar);
            self.y += lane;
        }
        (top, lane)
    }

    fn lane(&mut self, bars: &[Bar]) {
        let mut rest = bars;
        while let Some(first) = rest.first() {
            let short = |bar: &&Bar| bar.to.0 - bar.from.0 < self.least && bar.end == first.end;
            let touching = rest.windows(2).take_while(|pair| pair[1].from.0.saturating_sub(pair[0].to.0) <= self.least);
            let some = 1 + touching.zip(rest.iter().skip(1)).take_while(|(_, bar)| short(bar)).count();
            let some = if short(&first) { some } else { 1 };
            let to = rest[some - 1].to;
            self.bar(first, to, some);
            rest = &rest[some..];
        }
    }

    fn bar(&mut self, first: &Bar, to: Moment, some: usize) {
        let class = match first.end {
            End::Done => "",
            End::Failed => " class=f",
            End::Open => " class=o",
        };
        let (x, width) = (self.percent(first.from), percent((to.0 - first.from.0) as f64 / self.end));
        let _ = write!(self.chart.bars, "<rect x={x}% width={width}%{class} />");
        let name = if some > 1 { -i64::try_from(some).unwrap_or(i64::MAX) } else { self.name(first) };
        self.chart.data.bars.push((name, first.from.0 / 1000, (to.0 - first.from.0) / 1000));
    }

    fn name(&mut self, bar: &Bar) -> i64 {
        let name = bar.subject.name(self.s);
        if let Some(number) = self.names.get(&name) {
            return *number;
        }
        let number = self.chart.data.names.len() as i64;
        self.chart.data.names.push(name.clone());
        self.names.insert(name, number);
        number
    }

    /// Names in bars that are wide enough.
    fn names(&mut self, bars: &[Bar], top: f64, height: f64) {
        if height < READABLE {
            return;
        }
        for bar in bars {
            let width = (bar.to.0 - bar.from.0) as f64 / self.end;
            if width >= WIDE {
                let (x, width) = (self.percent(bar.from), percent(width));
                let name = super::escaped(&bar.subject.name(self.s));
                let baseline = height / 2.0 + 3.5;
                let _ = write!(
                    self.chart.path,
                    "<svg class=n x={x}% y={top} width={width}% height={height}><text x=4 y={baseline}>{name}</text></svg>"
                );
            }
        }
    }

    /// A frame around each bar of the path, and a line from one to the next.
    fn path(&mut self, timeline: &Timeline, places: &[(f64, f64)]) {
        let many = timeline.path.iter().filter(|step| step.spot.is_some()).count() > MANY_STEPS;
        self.chart.path.push_str(if many { "<g class=many>" } else { "<g>" });
        let mut last: Option<(String, f64)> = None;
        for step in &timeline.path {
            let Some(spot) = step.spot else { continue };
            let Some((top, lane)) = places.get(spot.track) else { continue };
            let y = top + lane * spot.lane as f64;
            let height = if *lane > 5.0 { lane - 2.0 } else { lane - 0.5 };
            let (x, to) = (self.percent(step.interval.from), self.percent(step.interval.to));
            let middle = y + height / 2.0;
            if let Some((from, before)) = last.filter(|(_, before)| (before - middle).abs() > 0.5) {
                let _ = write!(self.chart.path, "<line class=c x1={from}% y1={before} x2={x}% y2={middle} />");
            }
            let width = percent(step.interval.to.since(step.interval.from) * 1e6 / self.end);
            let _ = write!(self.chart.path, "<rect class=c x={x}% y={y} width={width}% height={height} />");
            last = Some((to, middle));
        }
        self.chart.path.push_str("</g>");
    }
}

/// `16 slots, 61% busy`.
fn detail(s: &Summary, track: &Track) -> String {
    let bars: usize = track.lanes.iter().map(Vec::len).sum();
    match track.site {
        Site::Evaluators => format!("{} · {}", count(track.lanes.len()), plural(bars, "evaluation", "evaluations")),
        Site::Slots(builder) => {
            let slots = s.builders.get(&builder).map_or(track.lanes.len(), |builder| builder.slots as usize);
            format!("{} · {}", plural(slots, "slot", "slots"), plural(bars, "attempt", "attempts"))
        }
        _ => format!("{}, {} at once", count(bars), count(track.lanes.len())),
    }
}

/// A letter for the style sheet.
fn class(site: Site) -> char {
    match site {
        Site::Evaluators => 'e',
        Site::Fetches => 'd',
        Site::Inputs(_) => 'i',
        Site::Slots(_) => 'b',
        Site::Results(_) => 'r',
        Site::Pushes(_) => 'p',
    }
}

/// A share in percents, no more exact than a screen shows at the largest scale.
pub(super) fn percent(share: f64) -> String {
    let mut text = format!("{:.3}", share.clamp(0.0, 1.0) * 100.0);
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text
}
