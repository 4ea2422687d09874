//! Fenced blocks of a page, and what their info strings say.

use std::collections::BTreeMap;

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: String,
    /// What is done: one of [`VERBS`], or `skip` or `text` for nothing.
    pub(crate) verb: String,
    attributes: BTreeMap<String, String>,
    pub(crate) text: String,
    /// What is run before it.
    pub(crate) given: String,
}

const VERBS: [&str; 6] = ["given", "run", "agent", "rules", "config", "values"];
const ATTRIBUTES: [&str; 4] = ["skip", "traffic", "expect", "needs"];

impl Block {
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether something is done with it.
    pub(crate) fn acts(&self) -> bool {
        VERBS.contains(&self.verb.as_str())
    }

    fn new(line: usize, info: &str, text: String) -> Result<Self, String> {
        let mut words = words(info).into_iter();
        let language = words.next().unwrap_or_default();
        let mut block = Self {
            line,
            verb: String::new(),
            language,
            attributes: BTreeMap::new(),
            text,
            given: String::new(),
        };
        for word in words {
            match word.split_once('=') {
                Some((name, value)) if ATTRIBUTES.contains(&name) => {
                    block.attributes.insert(name.to_owned(), value.to_owned());
                }
                None if block.verb.is_empty() && VERBS.contains(&word.as_str()) => block.verb = word,
                _ => return Err(format!("line {line}: {word} means nothing here")),
            }
        }
        block.complete()
    }

    fn complete(mut self) -> Result<Self, String> {
        let line = self.line;
        if self.language.is_empty() {
            return Err(format!("line {line}: a block without a language; `text` is one"));
        }
        if !self.verb.is_empty() {
            return Ok(self);
        }
        self.verb = match (self.language.as_str(), self.attribute("skip")) {
            ("text", _) => "text".to_owned(),
            (language, "") => {
                return Err(format!(
                    "line {line}: what becomes of this {language}? Say run, agent, rules, config, values or skip=\"why\""
                ));
            }
            (_, why) if why.split(' ').count() < 3 => {
                return Err(format!("line {line}: skip=\"{why}\" is no reason"));
            }
            _ => "skip".to_owned(),
        };
        Ok(self)
    }
}

/// Words of an info string; a value in quotes has no quotes afterwards, and may have blanks.
fn words(info: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in info.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The blocks of a page.
pub(crate) fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let mut text = String::new();
        loop {
            let Some((_, line)) = lines.next() else {
                return Err(format!("line {}: the block does not end", number + 1));
            };
            if line.trim() == "```" {
                break;
            }
            text.push_str(line.get(indent..).unwrap_or_default());
            text.push('\n');
        }
        blocks.push(Block::new(number + 1, info, text)?);
    }
    Ok(blocks)
}

#[test]
fn info_strings_are_understood_and_what_is_not_is_an_error() {
    let page = |info: &str| blocks(&format!("x\n```{info}\na b\n```\n"));
    let block = page("sh agent traffic=\"udp:53\" expect=\"one two\"")
        .unwrap()
        .remove(0);
    assert_eq!(
        (block.line, block.verb.as_str(), block.text.as_str()),
        (2, "agent", "a b\n")
    );
    assert_eq!(
        (block.attribute("expect"), block.attribute("skip")),
        ("one two", "")
    );
    assert!(!page("text").unwrap()[0].acts());
    assert!(!page("sh skip=\"needs a cluster\"").unwrap()[0].acts());
    for wrong in ["", "sh", "sh skip=\"no\"", "sh runs", "sh run exepct=\"x\""] {
        assert!(page(wrong).is_err(), "{wrong}");
    }
    assert!(blocks("```sh run\n").is_err());
}
