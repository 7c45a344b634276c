//! Words of a Dockerfile with their quotes taken away and their variables filled in.
//!
//! Pure. Knows the forms `$X`, `${X}` and `${X:-…}`, `${X-…}`, `${X:+…}`, `${X+…}`.

use std::collections::BTreeMap;

use super::MAX_WORD;

/// Deepest nesting of `${X:-${Y:-…}}`.
const MAX_DEPTH: usize = 8;

/// What the variables are worth.
pub(super) type Variables = BTreeMap<String, String>;

/// The word with its quotes taken away and its variables filled in; an unknown variable is
/// empty. `None` for a form that is not known here, or more than [`MAX_WORD`] bytes.
pub(super) fn expand(word: &str, variables: &Variables, escape: char) -> Option<String> {
    let mut expansion = Expansion {
        variables,
        escape,
        out: String::new(),
    };
    let mut letters = word.chars().peekable();
    expansion.run(&mut letters, None, 0)?;
    Some(expansion.out)
}

type Letters<'t> = std::iter::Peekable<std::str::Chars<'t>>;

struct Expansion<'v> {
    variables: &'v Variables,
    escape: char,
    out: String,
}

impl Expansion<'_> {
    /// Goes on to the end, or to an unquoted `until`, which is taken.
    fn run(&mut self, letters: &mut Letters<'_>, until: Option<char>, depth: usize) -> Option<()> {
        let mut quote = None;
        loop {
            let Some(letter) = letters.next() else {
                return (until.is_none() && quote.is_none()).then_some(());
            };
            if quote.is_none() && until == Some(letter) {
                return Some(());
            }
            match letter {
                _ if letter == self.escape && quote != Some('\'') => self.push(letters.next()?)?,
                '"' | '\'' if quote == Some(letter) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(letter),
                '$' if quote != Some('\'') => self.variable(letters, depth)?,
                _ => self.push(letter)?,
            }
        }
    }

    fn variable(&mut self, letters: &mut Letters<'_>, depth: usize) -> Option<()> {
        if letters.next_if_eq(&'{').is_none() {
            let name = name(letters);
            return if name.is_empty() {
                self.push('$')
            } else {
                let value = self.variables.get(&name).cloned();
                self.append(&value.unwrap_or_default())
            };
        }
        let name = name(letters);
        if name.is_empty() || depth == MAX_DEPTH {
            return None;
        }
        let value = self.variables.get(&name).cloned();
        let (value, operator) = match letters.next()? {
            '}' => return self.append(&value.unwrap_or_default()),
            ':' => (value.filter(|value| !value.is_empty()), letters.next()?),
            operator => (value, operator),
        };
        // The word behind the operator is read in any case, to find its end.
        let mut inner = Self {
            variables: self.variables,
            escape: self.escape,
            out: String::new(),
        };
        inner.run(letters, Some('}'), depth + 1)?;
        match (operator, value) {
            ('-', Some(value)) => self.append(&value),
            ('-', None) | ('+', Some(_)) => self.append(&inner.out),
            ('+', None) => Some(()),
            _ => None,
        }
    }

    fn push(&mut self, letter: char) -> Option<()> {
        self.append(letter.encode_utf8(&mut [0; 4]))
    }

    fn append(&mut self, text: &str) -> Option<()> {
        self.out.push_str(text);
        (self.out.len() <= MAX_WORD).then_some(())
    }
}

fn name(letters: &mut Letters<'_>) -> String {
    let mut name = String::new();
    let is_part = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    while let Some(letter) = letters.next_if(is_part) {
        name.push(letter);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_quotes() {
        let variables: Variables = [("A", "one"), ("E", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let expanded = |word| expand(word, &variables, '\\');
        for (word, expected) in [
            ("plain", "plain"),
            ("$A", "one"),
            ("x${A}y", "xoney"),
            ("$A:$E.$none", "one:."),
            ("${A:-d}", "one"),
            ("${E:-d}", "d"),
            ("${E-d}", ""),
            ("${none-d}", "d"),
            ("${none:-${E:-$A}}", "one"),
            ("${A:+set}${E:+set}${E+here}", "sethere"),
            ("'$A'", "$A"),
            ("\"$A b\"", "one b"),
            ("\\$A", "$A"),
            ("${none:-\"}\"}", "}"),
            ("$", "$"),
        ] {
            assert_eq!(expanded(word).as_deref(), Some(expected), "{word}");
        }
        for word in [
            "${A", "${A%x}", "${A:?no}", "${}", "\"open", "${A:-x", "end\\",
        ] {
            assert_eq!(expanded(word), None, "{word}");
        }
    }

    #[test]
    fn nesting_and_growth_have_bounds() {
        let deep = format!("{}{}", "${x:-".repeat(20), "}".repeat(20));
        assert_eq!(expand(&deep, &Variables::new(), '\\'), None);
        let variables = Variables::from([("A".to_owned(), "x".repeat(1000))]);
        assert_eq!(expand(&"$A".repeat(1000), &variables, '\\'), None);
    }
}
