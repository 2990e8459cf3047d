//! Names that look alike.

/// The name that looks most like the given one, if any looks like it.
pub(crate) fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| {
            let (given, known) = (given.to_lowercase(), name.to_lowercase());
            // Of a short word, two letters swapped are much.
            let typo = known.len() > 2 && strsim::damerau_levenshtein(&given, &known) == 1;
            (strsim::jaro_winkler(&given, &known).max(if typo { 0.9 } else { 0.0 }), name)
        })
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
