//! What is too long for a result: texts lose their middle, cut between characters, and lists their end.

use serde_json::Value;

/// The most items of any list of a result whose lists have no cursor.
const MAX_ITEMS: usize = 200;

/// The longest text in such a result, in bytes.
const MAX_TEXT: usize = 2048;

/// Head and tail of `text`, `max` bytes at most besides the mark between them, and whether something was left out.
pub(crate) fn head_and_tail(text: &str, max: usize) -> (String, bool) {
    if text.len() <= max {
        return (text.to_owned(), false);
    }
    let head = floor(text, head_share(max));
    let tail = ceil(text, text.len() - (max - head_share(max)));
    let mark = mark(tail - head);
    (format!("{}{mark}{}", &text[..head], &text[tail..]), true)
}

/// The beginning of `text`, `max` bytes at most, and whether something follows.
pub(crate) fn head(text: &str, max: usize) -> (&str, bool) {
    if text.len() <= max {
        return (text, false);
    }
    (&text[..floor(text, max)], true)
}

/// How much of `max` bytes the head gets: what a command says last counts more.
pub(crate) fn head_share(max: usize) -> usize {
    max / 4
}

/// What stands between head and tail.
pub(crate) fn mark(left_out: usize) -> String {
    format!("\n[… {left_out} bytes left out …]\n")
}

/// The place at or before byte `at` where a character begins.
pub(crate) fn boundary(text: &str, at: usize) -> usize {
    floor(text, at)
}

/// Shortens every list and text in `value`, and says so in the objects that hold them.
pub(crate) fn values(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let mut cut = false;
            for (_, field) in fields.iter_mut() {
                match field {
                    Value::Array(items) if items.len() > MAX_ITEMS => {
                        items.truncate(MAX_ITEMS);
                        cut = true;
                    }
                    Value::String(text) if text.len() > MAX_TEXT => {
                        *text = head_and_tail(text, MAX_TEXT).0;
                        cut = true;
                    }
                    _ => {}
                }
                values(field);
            }
            if cut {
                fields.insert("truncated".into(), true.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(values),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(head_and_tail("abc", 3), ("abc".into(), false));
        assert_eq!(head("abc", 3), ("abc", false));
    }

    #[test]
    fn the_end_gets_more_than_the_beginning() {
        let text = "0123456789".repeat(10);
        let (cut, truncated) = head_and_tail(&text, 20);
        assert!(truncated);
        assert_eq!(cut, "01234\n[… 80 bytes left out …]\n567890123456789");
    }

    #[test]
    fn what_is_cut_says_so_where_it_was() {
        let mut value = serde_json::json!({
            "a": {"list": vec![1; MAX_ITEMS + 1]},
            "b": [{"text": "x".repeat(MAX_TEXT + 1)}, {"text": "y"}],
        });
        values(&mut value);
        assert_eq!(value["a"]["list"].as_array().unwrap().len(), MAX_ITEMS);
        assert_eq!(value["a"]["truncated"], true);
        assert_eq!(value["b"][0]["truncated"], true);
        assert_eq!(value["b"][1], serde_json::json!({"text": "y"}));
        assert!(value["truncated"].is_null());
    }

    proptest! {
        #[test]
        fn what_is_left_is_never_more_than_was_allowed(text in "\\PC{0,200}", max in 0usize..300) {
            let (cut, truncated) = head_and_tail(&text, max);
            prop_assert_eq!(truncated, text.len() > max);
            if truncated {
                let (before, rest) = cut.split_once("\n[… ").unwrap();
                let (left_out, after) = rest.split_once(" bytes left out …]\n").unwrap();
                prop_assert!(before.len() + after.len() <= max);
                prop_assert!(text.starts_with(before) && text.ends_with(after));
                let left_out: usize = left_out.parse().unwrap();
                prop_assert_eq!(before.len() + left_out + after.len(), text.len());
            }
            let (begun, more) = head(&text, max);
            prop_assert!(begun.len() <= max && text.starts_with(begun));
            prop_assert_eq!(more, begun.len() < text.len());
        }
    }
}
