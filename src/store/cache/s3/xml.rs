//! The few elements of XML that S3 answers with. Foreign bytes: what is not as expected is not there.

/// The texts of all elements of this name, in order. Elements of one name are never inside of each other in answers of S3.
pub(super) fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (inside, after) = rest.split_once(&open)?.1.split_once(&close)?;
        rest = after;
        Some(inside)
    })
}

/// The text of the first element of this name, with its escapes undone.
pub(super) fn element(text: &str, name: &str) -> Option<String> {
    elements(text, name).next().map(unescape)
}

/// The code of an error: `<Error>…<Code>SlowDown</Code>…`. `None` where the text is something else.
pub(super) fn code(text: &str) -> Option<String> {
    element(elements(text, "Error").next()?, "Code").map(|code| code.trim().to_owned())
}

fn unescape(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        match name_of(after).and_then(|(name, after)| Some((entity(name)?, after))) {
            Some((c, after)) => {
                plain.push(c);
                rest = after;
            }
            None => {
                plain.push('&');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// What a reference names, and what follows it. Names are short: a text of many `&` is not searched anew for each.
fn name_of(after: &str) -> Option<(&str, &str)> {
    const LONGEST: usize = "#x10FFFF".len();
    let end = after.bytes().take(LONGEST + 1).position(|byte| byte == b';')?;
    Some((&after[..end], &after[end + 1..]))
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

/// The list of parts that completes an upload: number and tag of each, by number.
pub(super) fn complete(parts: &std::collections::BTreeMap<u32, String>) -> String {
    let escape = |tag: &str| tag.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let part = |(number, tag): (&u32, &String)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", escape(tag))
    };
    let parts: String = parts.iter().map(part).collect();
    format!(
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_references_that_are_none_take_no_time() {
        let text = format!("{};", "&".repeat(4 << 20));
        assert_eq!(unescape(&text), text);
        assert_eq!(unescape("&#x10FFFF;&#1114111;&amp;&#xD800;&;"), "\u{10ffff}\u{10ffff}&&#xD800;&;");
    }

    #[test]
    fn elements_are_found_and_their_escapes_undone() {
        let text = "<?xml?><R><Key>a&amp;b&#x22;&#39;&nope;&</Key><Key>c</Key><Size>7</Size></R>";
        assert_eq!(element(text, "Key").unwrap(), "a&b\"'&nope;&");
        assert_eq!(elements(text, "Key").collect::<Vec<_>>()[1], "c");
        assert_eq!(element(text, "Gone"), None);
        assert_eq!(element("<Key>half", "Key"), None);
        assert_eq!(code("<Error><Code> SlowDown </Code></Error>").unwrap(), "SlowDown");
        assert_eq!(code("<html><Code>x</Code>"), None);
    }

    #[test]
    fn parts_are_listed_by_number() {
        let parts = [(2, "\"b\"".to_owned()), (1, "a".to_owned())].into_iter().collect();
        let text = complete(&parts);
        let (first, second) = (text.find("<PartNumber>1<").unwrap(), text.find("<PartNumber>2<").unwrap());
        assert!(first < second && text.contains("<ETag>&quot;b&quot;</ETag>"), "{text}");
    }
}
