//! What a registry demands before it answers: the `WWW-Authenticate` header.
//!
//! Pure text. RFC 9110, section 11: several challenges in one header, each a scheme and
//! parameters, whose values may be quoted and hold commas.

/// A demand that we can meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        /// The address of that server.
        realm: String,
        /// Who the token is for.
        service: Option<String>,
        /// What the token is for.
        scope: Option<String>,
    },
}

/// The longest header that is looked at, in bytes.
const MAX_HEADER: usize = 8 * 1024;

/// The best of the demands that we can meet: tokens before passwords.
pub(super) fn best<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let mut all: Vec<Challenge> = headers.into_iter().flat_map(parse).collect();
    let bearer = all
        .iter()
        .position(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    match bearer {
        Some(at) => Some(all.swap_remove(at)),
        None => all.pop(),
    }
}

fn parse(header: &str) -> Vec<Challenge> {
    if header.len() > MAX_HEADER {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            // The end, or something that is none of the grammar: what was read so far counts.
            break;
        }
        let value_follows = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value_follows, &mut current) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = parameter_value(value) else {
                    break;
                };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.extend(current.take().and_then(challenge));
                current = Some((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    found.extend(current.and_then(challenge));
    found
}

fn challenge((scheme, mut parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(key, _)| key == name)?;
        Some(parameters.swap_remove(at).1)
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: take("realm")?,
            service: take("service"),
            scope: take("scope"),
        }),
        _ => None,
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let Some(quoted) = text.strip_prefix('"') else {
        // Some servers leave the quotes of an address away.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn commas_quotes_and_several_challenges_are_understood() {
        assert_eq!(
            best([
                r#"Bearer realm="https://a.x/token",service="s",scope="repository:a/b:pull,push""#
            ]),
            Some(bearer(
                "https://a.x/token",
                Some("s"),
                Some("repository:a/b:pull,push")
            ))
        );
        assert_eq!(
            best([r#"Basic realm="x, y=\"z\"", bearer REALM=https://a.x/t"#]),
            Some(bearer("https://a.x/t", None, None))
        );
        assert_eq!(
            best(["Negotiate", "Basic realm=\"r\""]),
            Some(Challenge::Basic)
        );
        assert_eq!(
            best(["Basic", "Bearer realm=\"https://a.x/\" , service = \"s\""]),
            Some(bearer("https://a.x/", Some("s"), None))
        );
    }

    #[test]
    fn nonsense_demands_nothing() {
        let long = format!("Bearer realm=\"{}\"", "a".repeat(MAX_HEADER));
        for header in [
            "",
            ",,,",
            "=",
            "Bearer",
            "Bearer scope=\"x\"",
            "Bearer realm=\"unclosed",
            "realm=\"x\"",
            "Bearer realm=\"a\\",
            "ä",
            &long,
        ] {
            assert_eq!(best([header]), None, "{header:.40}");
        }
    }
}
