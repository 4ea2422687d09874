//! Names with `*` (any text) and `?` (any character) in them. Nothing else is special: prefixes are full of brackets.

/// A pattern for whole texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Box<str>);

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Linear in the length of both for one `*`, at worst their product. No allocation.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.chars(), text.chars());
        // Behind the last `*`, and where its text ends so far.
        let mut star = None;
        loop {
            let mut next = rest.clone();
            match (pattern.next(), next.next()) {
                (Some('*'), _) => star = Some((pattern.clone(), rest.clone())),
                (None, None) => return true,
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => rest = next,
                _ => {
                    let Some((behind, text)) = &mut star else {
                        return false;
                    };
                    if text.next().is_none() {
                        return false;
                    }
                    (pattern, rest) = (behind.clone(), text.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the definition.
    fn model(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|at| model(rest, &text[at..])),
            Some(('?', rest)) => !text.is_empty() && model(rest, &text[1..]),
            Some((wanted, rest)) => text.first() == Some(wanted) && model(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_its_definition_says(pattern in "[ab*?]{0,7}", text in "[abä]{0,9}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Glob::new(&pattern).matches(&text), model(&chars(&pattern), &chars(&text)));
        }
    }

    #[test]
    fn brackets_are_brackets() {
        assert!(Glob::new("[UFW *]").matches("[UFW BLOCK]"));
        assert!(!Glob::new("[UFW BLOCK]").matches("U"));
    }
}
