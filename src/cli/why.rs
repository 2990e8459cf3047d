//! `drover why`: why something has to be built.

use crate::config::OutputSettings;
use crate::driver::why::{self, Answer, Explained, Explanation, Looked};
use crate::driver::{Finished, Mode};
use crate::error::{Error, Result};
use crate::event::{Difference, Text};
use crate::record::{self, Run};
use crate::report::past::{self, Past};
use crate::report::summary::Summary;
use crate::report::text::render;
use crate::report::why::{changed, missing};

use super::args::{Place, WhyArgs};
use super::run::{block_on, check, request, settings};
use super::{Session, print, print_json};

/// Says what changed against a base, or why no cache has it.
pub(super) fn why(session: &Session, args: WhyArgs, place: &Place) -> Result<u8> {
    check(&args.select)?;
    let words = args.words(place);
    let named = !words.what.is_empty();
    let settings = settings(session, words)?;
    if !named && settings.base.asked.is_none() && settings.base.pull_request.is_none() {
        let hint = "drover why web1    or, for all that differs from a branch: drover why --base main";
        return Err(Error::usage("why what?").hint(hint));
    }
    let output = settings.output.clone();
    let request = request(session, settings, Mode::Why);
    let Explained { finished, answer } = block_on(why::explain(request))?;
    match answer {
        Answer::Changed(mut answer) => {
            if !named {
                answer.attrs.retain(|attr| attr.difference != Difference::Unchanged);
            }
            if output.json {
                print_json(&changed::document(&answer, finished.exit))?;
            } else {
                let screen = changed::screen(&answer, named, session.width());
                print(render(&screen, session.stdout_style()).as_bytes())?;
            }
            Ok(finished.exit)
        }
        Answer::Missing(attrs) => tell(session, &output, &finished, attrs),
    }
}

/// Why no cache has it.
fn tell(session: &Session, output: &OutputSettings, finished: &Finished, attrs: Vec<Explanation>) -> Result<u8> {
    let paths = attrs.iter().flat_map(|one| std::iter::once(&one.own).chain(&one.first)).flat_map(|one| &one.outputs);
    let earlier = earlier(output, finished, &paths.cloned().collect::<Vec<_>>())?;
    let looked = |looked: Looked| {
        let past = |path: &Text| {
            let of_path = earlier.iter().filter(|(known, _)| known == path);
            of_path.map(|(_, past)| past.clone()).collect::<Vec<Past>>()
        };
        // Outputs of one drv share their fate; the first one that has one tells it.
        let past = looked.outputs.iter().map(past).find(|past| !past.is_empty());
        let evidence = crate::report::missing::Evidence { past: past.unwrap_or_default(), ..looked.evidence };
        missing::Looked { chain: looked.chain, evidence }
    };
    let answers: Vec<missing::Answer> = attrs
        .into_iter()
        .filter_map(|one| {
            let attr = finished.summary.attrs.get(&one.attr)?;
            Some(missing::Answer {
                attr: attr.path.to_string(),
                name: attr.name.to_string(),
                status: one.status,
                own: looked(one.own),
                first: one.first.into_iter().map(looked).collect(),
                more: one.more,
                builds: one.builds,
            })
        })
        .collect();
    if output.json {
        print_json(&missing::document(&answers, finished.exit))?;
    } else {
        let screen = missing::screen(&answers, session.width());
        print(render(&screen, session.stdout_style()).as_bytes())?;
    }
    Ok(finished.exit)
}

/// What earlier runs did with these paths, the newest first.
fn earlier(output: &OutputSettings, finished: &Finished, paths: &[Text]) -> Result<Vec<(Text, Past)>> {
    let mut found = Vec::new();
    let runs = record::list(&output.state_dir)?;
    for run in runs.iter().filter(|run| run.id != finished.dir.run()) {
        // A damaged record is no evidence, and no reason to say nothing.
        let Some(summary) = summary_of(run) else { continue };
        for path in paths {
            found.extend(past::of(&summary, &run.short, path).map(|past| (path.clone(), past)));
        }
    }
    Ok(found)
}

/// What a run did; `None` for one that asks and does nothing.
fn summary_of(run: &Run) -> Option<Summary> {
    let summary = Summary::of(&record::read(&run.dir.events()).ok()?.events);
    let acted =
        summary.header.as_ref().is_some_and(|header| matches!(&*header.command, "run" | "check" | "push" | "plan"));
    acted.then_some(summary)
}
