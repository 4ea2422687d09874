//! Reads a configuration file, and collects what is wrong with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::error::{FileError, FileErrors, Problem};
use super::flags::{self, Flag};
use super::nearest;
use super::variables::{self, HEADERS, HEADERS_KEY, INSECURE, TIMEOUT};
use crate::export::{OtlpConfig, Signal, detect_resource};
use crate::policy::{Place, Policy, PolicyConfig};

const SERVICE_NAME: &str = "service.name";
pub(super) const OTLP: &str = "otlp";
pub(super) const RESOURCE: &str = "resource";
pub(super) const PREFIX: &str = "prefix";
pub(super) const RULE: &str = "rule";
const TABLES: [&str; 4] = [OTLP, RESOURCE, PREFIX, RULE];

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) flags: Vec<Flag>,
    /// Variables of the OpenTelemetry specification.
    pub(super) variables: BTreeMap<String, String>,
    pub(super) policy: Policy,
    /// The policy as it is written.
    pub(super) written: PolicyConfig,
}

impl File {
    /// `beside`: flags that are given elsewhere, which those of the file may need.
    ///
    /// # Errors
    /// Everything that is wrong with the file, in its order.
    pub(super) fn read(path: &Path, beside: &[Flag]) -> Result<Self, FileErrors> {
        let text = fs::read_to_string(path).map_err(|error| {
            FileErrors(vec![FileError {
                path: path.to_owned(),
                line: None,
                problem: Problem::Unreadable(error),
            }])
        })?;
        let mut reader = Reader {
            path: path.to_owned(),
            text: &text,
            file: Self::default(),
            keys: BTreeMap::new(),
            prefixes: Vec::new(),
            rules: Vec::new(),
            errors: Vec::new(),
        };
        match DeTable::parse(&text) {
            Ok(table) => {
                reader.root(table.get_ref(), beside);
                reader.compile();
            }
            Err(error) => {
                let at = error.span().map(|span| span.start);
                reader.error(at, Problem::Toml(error.message().to_owned()));
            }
        }
        if reader.errors.is_empty() {
            return Ok(reader.file);
        }
        reader.errors.sort_by_key(|error| error.line);
        Err(FileErrors(reader.errors))
    }
}

struct Reader<'a> {
    path: PathBuf,
    text: &'a str,
    file: File,
    /// Where each variable comes from: its key, and the offset of that.
    keys: BTreeMap<String, (String, usize)>,
    prefixes: Vec<Spot>,
    rules: Vec<Spot>,
    errors: Vec<FileError>,
}

/// A table's number in the file, from 1, and its offset.
type Spot = (usize, usize);

type Key<'a> = Spanned<DeString<'a>>;
type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn root(&mut self, table: &DeTable<'_>, beside: &[Flag]) {
        let names = flags::names();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                OTLP => self.otlp("", OTLP, value),
                RESOURCE => self.resource(value),
                PREFIX => (self.file.written.prefix, self.prefixes) = self.tables(PREFIX, value),
                RULE => (self.file.written.rule, self.rules) = self.tables(RULE, value),
                name if names.iter().any(|known| known == name) => self.flag(name, value),
                name => {
                    let known = names.iter().map(String::as_str).chain(TABLES);
                    self.unknown(key, name, "", known);
                }
            }
        }
        if self.errors.is_empty() {
            let mut flags = self.file.flags.clone();
            let is_here = |flag: &&Flag| flags.iter().any(|other| other.name == flag.name);
            let more: Vec<_> = beside.iter().filter(|flag| !is_here(flag)).cloned().collect();
            flags.extend(more);
            if let Err(problem) = flags::check_together(&flags) {
                self.error(None, problem);
            }
        }
        self.check_variables();
    }

    fn flag(&mut self, name: &str, value: &Value<'_>) {
        let (switch, list) = (flags::is_switch(name), flags::is_list(name));
        let wanted = match (switch, list) {
            (true, _) => "true or false",
            (_, true) => "a string, a whole number, or a list of them",
            _ => "a string or a whole number",
        };
        let values = match value.get_ref() {
            DeValue::Boolean(value) if switch => Some(vec![value.to_string()]),
            _ if switch => None,
            DeValue::Array(values) if list => values.iter().map(scalar).collect(),
            _ => scalar(value).map(|value| vec![value]),
        };
        let Some(values) = values else {
            return self.wrong_type(name, value, wanted);
        };
        let flag = Flag {
            name: name.to_owned(),
            values,
        };
        match flags::check(&flag) {
            Ok(()) => self.file.flags.push(flag),
            Err(problem) => self.error(Some(value.span().start), problem),
        }
    }

    /// Tables of one name, each with its number and offset; those that are wrong are said and left out.
    fn tables<T: DeserializeOwned>(&mut self, name: &'static str, value: &Value<'_>) -> (Vec<T>, Vec<Spot>) {
        let DeValue::Array(tables) = value.get_ref() else {
            let wanted = if name == RULE { "[[rule]]" } else { "[[prefix]]" };
            self.wrong_type(name, value, wanted);
            return (Vec::new(), Vec::new());
        };
        let (mut all, mut spots) = (Vec::new(), Vec::new());
        for (number, table) in (1..).zip(tables) {
            let said = self.errors.len();
            if let Some(read) = self.read_table(&format!("{name} {number}"), table.clone())
                && self.errors.len() == said
            {
                all.push(read);
                spots.push((number, table.span().start));
            }
        }
        (all, spots)
    }

    /// One table. What is wrong with it is said, and taken out to find what else is.
    fn read_table<T: DeserializeOwned>(&mut self, place: &str, mut table: Value<'_>) -> Option<T> {
        let whole = table.span();
        let mut removed = Vec::new();
        loop {
            let error = match T::deserialize(ValueDeserializer::from(table.clone())) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let message = error.message();
            let is_missed = |key: &String| message == format!("missing field `{key}`");
            if removed.iter().any(is_missed) {
                return None;
            }
            let span = error.span().unwrap_or_else(|| whole.clone());
            let unknown = unknown_field(message);
            let within = |inner: &Range<usize>| match &unknown {
                Some(_) => *inner == span,
                // What is around it may need it.
                None => inner.start <= span.start && span.end <= inner.end,
            };
            let gone = remove(table.get_mut(), &within);
            let message = format!("{place}: {}", unknown.as_deref().unwrap_or(message));
            self.error(Some(span.start), Problem::Table(message));
            removed.push(gone?);
        }
    }

    /// Checks the policy; its numbers of tables become those of the file.
    fn compile(&mut self) {
        let errors = match self.file.written.compile() {
            Ok(policy) => {
                self.file.policy = policy;
                return;
            }
            Err(errors) => errors.0,
        };
        for mut error in errors {
            let (number, spots) = match &mut error.place {
                Place::Prefix(number) => (number, &self.prefixes),
                Place::Rule(number, _) => (number, &self.rules),
            };
            let spot = spots.get(*number - 1).copied();
            *number = spot.map_or(*number, |(number, _)| number);
            self.error(spot.map(|(_, at)| at), Problem::Policy(error));
        }
    }

    fn otlp(&mut self, signal: &str, name: &str, value: &Value<'_>) {
        let Some(table) = self.table(name, value) else {
            return;
        };
        for (key, value) in table {
            let path = format!("{name}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "logs" if signal.is_empty() => self.otlp("LOGS", &path, value),
                "metrics" if signal.is_empty() => self.otlp("METRICS", &path, value),
                plain => {
                    let known = variables::OTLP.iter().find(|(known, _)| *known == plain);
                    let Some((_, suffix)) = known else {
                        let of_signals: &[&str] = if signal.is_empty() {
                            &["logs", "metrics"]
                        } else {
                            &[]
                        };
                        let known = variables::OTLP.iter().map(|(known, _)| *known);
                        self.unknown(key, plain, name, known.chain(of_signals.iter().copied()));
                        continue;
                    };
                    self.otlp_variable(variables::otlp(signal, suffix), suffix, &path, value);
                }
            }
        }
    }

    fn otlp_variable(&mut self, variable: String, suffix: &str, path: &str, value: &Value<'_>) {
        let text = match (suffix, value.get_ref()) {
            (HEADERS, DeValue::Table(table)) => match self.members(path, table) {
                Some(members) => Some(variables::list(members.iter().copied())),
                None => return,
            },
            (INSECURE, DeValue::Boolean(value)) => Some(value.to_string()),
            (TIMEOUT, DeValue::String(value)) => humantime::parse_duration(value)
                .ok()
                .map(|duration| duration.as_millis().to_string()),
            (HEADERS | INSECURE | TIMEOUT, _) => None,
            (_, DeValue::String(value)) => Some(value.to_string()),
            _ => None,
        };
        let Some(text) = text else {
            let wanted = match suffix {
                HEADERS => "a table of strings, like { authorization = \"…\" }",
                INSECURE => "true or false",
                TIMEOUT => "a time, like \"10s\"",
                _ => "a string",
            };
            return self.wrong_type(path, value, wanted);
        };
        self.variable(variable, text, path, value);
    }

    fn resource(&mut self, value: &Value<'_>) {
        let Some(table) = self.table(RESOURCE, value) else {
            return;
        };
        let Some(members) = self.members(RESOURCE, table) else {
            return;
        };
        let (service, others): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|(key, _)| *key == SERVICE_NAME);
        if let Some((_, name)) = service.first() {
            let key = format!("{RESOURCE}.\"{SERVICE_NAME}\"");
            self.variable(
                variables::SERVICE_NAME.to_owned(),
                (*name).to_owned(),
                &key,
                value,
            );
        }
        if !others.is_empty() {
            let text = variables::list(others.into_iter());
            self.variable(variables::RESOURCE_ATTRIBUTES.to_owned(), text, RESOURCE, value);
        }
    }

    fn members<'t>(&mut self, path: &str, table: &'t DeTable<'_>) -> Option<Vec<(&'t str, &'t str)>> {
        let before = self.errors.len();
        let mut members = Vec::new();
        for (key, value) in table {
            match value.get_ref() {
                DeValue::String(text) => members.push((key.get_ref().as_ref(), text.as_ref())),
                _ => self.wrong_type(&format!("{path}.{}", key.get_ref()), value, "a string"),
            }
        }
        (self.errors.len() == before).then_some(members)
    }

    fn table<'t, 'v>(&mut self, name: &str, value: &'t Value<'v>) -> Option<&'t DeTable<'v>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(name, value, "a table");
            return None;
        };
        Some(table)
    }

    fn variable(&mut self, variable: String, text: String, key: &str, value: &Value<'_>) {
        self.keys
            .insert(variable.clone(), (key.to_owned(), value.span().start));
        self.file.variables.insert(variable, text);
    }

    /// What the variables' own parsers have against them, each by itself. Of the endpoint they need the protocol, too.
    fn check_variables(&mut self) {
        let mut wrong = Vec::new();
        for variable in self.file.variables.keys() {
            let get = |name: &str| -> Option<OsString> {
                let needed = name == variable
                    || name.ends_with("PROTOCOL") && !variable.ends_with("PROTOCOL")
                    // A certificate and its key are checked for being both there.
                    || name.contains("_CLIENT_") && variable.contains("_CLIENT_");
                let value = self.file.variables.get(name).filter(|_| needed);
                value.map(OsString::from)
            };
            let endpoint = |name: &str| {
                get(name).or_else(|| {
                    name.ends_with("OTLP_ENDPOINT")
                        .then(|| "http://localhost:1".into())
                })
            };
            let found = [Signal::Logs, Signal::Metrics]
                .into_iter()
                .find_map(|signal| OtlpConfig::from_env(signal, endpoint).err())
                .or_else(|| detect_resource(get).err());
            if let Some(error) = found.filter(|error| error.variable() == variable) {
                wrong.push((variable.clone(), error));
            }
        }
        for (variable, error) in wrong {
            if let Some((key, at)) = self.keys.get(&variable).cloned() {
                self.error(Some(at), Problem::Variable { key, error });
            }
        }
    }

    fn unknown<'k>(&mut self, key: &Key<'_>, name: &str, table: &str, known: impl Iterator<Item = &'k str>) {
        let suggestion = nearest(name, known);
        let separator = if table.is_empty() { "" } else { "." };
        let key_text = format!("{table}{separator}{name}");
        self.error(
            Some(key.span().start),
            Problem::UnknownKey {
                key: key_text,
                suggestion,
            },
        );
    }

    fn wrong_type(&mut self, key: &str, value: &Value<'_>, wanted: &'static str) {
        let found = match value.get_ref() {
            // They are mostly secrets.
            DeValue::String(_) | DeValue::Integer(_) if key.contains(HEADERS_KEY) => {
                "another value".to_owned()
            }
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(date) => date.to_string(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.error(
            Some(value.span().start),
            Problem::Type {
                key: key.to_owned(),
                found,
                wanted,
            },
        );
    }

    fn error(&mut self, offset: Option<usize>, problem: Problem) {
        let line = offset.and_then(|offset| self.text.get(..offset)).map(|before| {
            let newlines = before.bytes().filter(|byte| *byte == b'\n').count();
            newlines.saturating_add(1)
        });
        self.errors.push(FileError {
            path: self.path.clone(),
            line,
            problem,
        });
    }
}

/// A value as it is on a command line.
fn scalar(value: &Value<'_>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            i128::from_str_radix(digits, number.radix())
                .ok()
                .map(|number| number.to_string())
        }
        _ => None,
    }
}

/// What serde says of a key that it does not know, in the words for other keys.
fn unknown_field(message: &str) -> Option<String> {
    let (key, expected) = message
        .strip_prefix("unknown field `")?
        .split_once("`, expected ")?;
    let known = || expected.split('`').skip(1).step_by(2);
    let hint = nearest(key, known()).map_or_else(
        || format!("there are {}", known().collect::<Vec<_>>().join(", ")),
        |key| format!("did you mean '{key}'?"),
    );
    Some(format!("unknown key '{key}'; {hint}"))
}

/// Takes out the first key, outer ones first, that is at a place or has its value there. Returns it, if there is one.
fn remove(value: &mut DeValue<'_>, is_there: &impl Fn(&Range<usize>) -> bool) -> Option<String> {
    let DeValue::Table(table) = value else {
        return None;
    };
    let found = table
        .iter()
        .find(|(key, value)| is_there(&key.span()) || is_there(&value.span()));
    if let Some(key) = found.map(|(key, _)| key.clone()) {
        table.remove(&key);
        return Some(key.get_ref().to_string());
    }
    table
        .iter_mut()
        .find_map(|(_, value)| remove(value.get_mut(), is_there))
}
