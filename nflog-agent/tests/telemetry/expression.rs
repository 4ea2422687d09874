//! What PromQL and LogQL expressions refer to, as far as the expressions of this repository go.

use std::collections::BTreeSet;

/// A metric or a log stream, with the conditions in its braces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    /// Empty for a log stream.
    pub(crate) name: String,
    /// Label, operator, value.
    pub(crate) conditions: Vec<(String, String, String)>,
}

/// What an expression refers to.
#[derive(Debug, Default)]
pub(crate) struct References {
    pub(crate) selectors: Vec<Selector>,
    /// Labels of `by (…)`.
    pub(crate) grouping: BTreeSet<String>,
    /// Fields in the pipeline of a LogQL expression, those of `unwrap` included.
    pub(crate) fields: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

/// Reads an expression; panics with it if its brackets or quotes do not close.
#[track_caller]
pub(crate) fn references(expression: &str) -> References {
    let tokens = tokens(expression);
    let mut found = References::default();
    let mut at = 0;
    while at < tokens.len() {
        at = step(&tokens, at, &mut found);
    }
    found
}

/// Takes in what begins at a token; answers where to go on.
fn step(tokens: &[Token], at: usize, found: &mut References) -> usize {
    match &tokens[at] {
        Token::Word(word) if word == "by" => {
            let (words, next) = words(tokens, at + 1, ")");
            found.grouping.extend(words);
            next
        }
        Token::Word(word) if word == "unwrap" => {
            found.fields.extend(word_at(tokens, at + 1));
            at + 2
        }
        Token::Word(word) if word.starts_with("nflog_agent_") || word == "up" => {
            let (conditions, next) = conditions(tokens, at + 1);
            found.selectors.push(Selector {
                name: word.clone(),
                conditions,
            });
            next
        }
        Token::Sign(sign) if sign == "{" => {
            let (conditions, next) = conditions(tokens, at);
            let name = String::new();
            found.selectors.push(Selector { name, conditions });
            next
        }
        Token::Sign(sign) if sign == "|" => {
            if matches!(tokens.get(at + 2), Some(Token::Sign(sign)) if is_operator(sign)) {
                found.fields.extend(word_at(tokens, at + 1));
            }
            at + 1
        }
        _ => at + 1,
    }
}

fn is_operator(sign: &str) -> bool {
    ["=", "!=", "=~", "!~", ">", "<", ">=", "<="].contains(&sign)
}

fn word_at(tokens: &[Token], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(Token::Word(word)) => Some(word.clone()),
        _ => None,
    }
}

/// The words up to a sign, and what is behind it.
fn words(tokens: &[Token], from: usize, end: &str) -> (Vec<String>, usize) {
    let length = tokens[from..]
        .iter()
        .position(|token| *token == Token::Sign(end.to_owned()))
        .expect("it closes");
    let words = (from..from + length).filter_map(|at| word_at(tokens, at));
    (words.collect(), from + length + 1)
}

/// The conditions in the braces at a place, if there are any there.
fn conditions(tokens: &[Token], at: usize) -> (Vec<(String, String, String)>, usize) {
    if tokens.get(at) != Some(&Token::Sign("{".to_owned())) {
        return (Vec::new(), at);
    }
    let (mut all, mut at) = (Vec::new(), at + 1);
    loop {
        match &tokens[at..] {
            [Token::Word(label), Token::Sign(operator), Token::Text(value), ..] => {
                assert!(is_operator(operator), "{operator}");
                all.push((label.clone(), operator.clone(), value.clone()));
                at += 3;
            }
            [Token::Sign(sign), ..] if sign == "," => at += 1,
            [Token::Sign(sign), ..] if sign == "}" => return (all, at + 1),
            other => panic!("no condition: {other:?}"),
        }
    }
}

#[track_caller]
fn tokens(expression: &str) -> Vec<Token> {
    let (mut tokens, mut open) = (Vec::new(), Vec::new());
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let end = rest[1..]
                    .find('"')
                    .unwrap_or_else(|| panic!("open text: {expression}"));
                tokens.push(Token::Text(rest[1..=end].to_owned()));
                end + 2
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let end = end.unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            '=' | '!' | '<' | '>' | '|' => {
                let end = rest.find(|c: char| !"=!<>|~".contains(c)).unwrap_or(rest.len());
                tokens.push(Token::Sign(rest[..end].to_owned()));
                end
            }
            _ => {
                match first {
                    '(' => open.push(')'),
                    '[' => open.push(']'),
                    '{' => open.push('}'),
                    ')' | ']' | '}' => assert_eq!(open.pop(), Some(first), "{expression}"),
                    _ => {}
                }
                if !first.is_whitespace() {
                    tokens.push(Token::Sign(first.to_string()));
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    assert!(open.is_empty(), "open brackets: {expression}");
    tokens
}

#[test]
fn metrics_labels_and_fields_are_found() {
    let found = references(
        "sum by (job, reason) (rate(nflog_agent_a_total{job=\"x\",reason!~\"b|c\"}[5m])) > 0.5 * nflog_agent_d",
    );
    let condition =
        |label: &str, operator: &str, value: &str| (label.to_owned(), operator.to_owned(), value.to_owned());
    assert_eq!(
        found.selectors,
        [
            Selector {
                name: "nflog_agent_a_total".to_owned(),
                conditions: vec![condition("job", "=", "x"), condition("reason", "!~", "b|c")],
            },
            Selector {
                name: "nflog_agent_d".to_owned(),
                conditions: Vec::new(),
            }
        ]
    );
    assert_eq!(found.grouping.iter().collect::<Vec<_>>(), ["job", "reason"]);
    let found = references("sum(max_over_time({s=~\".+\"} |= \"x\" | a_b != \"\" | unwrap c_d [5m]) by (e))");
    assert_eq!(found.selectors[0].conditions, [condition("s", "=~", ".+")]);
    assert_eq!(found.fields.iter().collect::<Vec<_>>(), ["a_b", "c_d"]);
    assert_eq!(found.grouping.iter().collect::<Vec<_>>(), ["e"]);
}
