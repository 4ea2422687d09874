//! The JSON Schema of the configuration file: the shipped one is what the program prints, and it judges files as the program does.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nflog_agent::settings::{self, SettingsError};
use serde_json::Value;

use super::{nflog_agent, stdout};

const POLICY: &str = include_str!("../../src/policy/mod.rs");
const SETTINGS: &str = include_str!("../../src/settings/mod.rs");

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn schema() -> Value {
    serde_json::from_str(&stdout(["config-schema"])).expect("JSON")
}

/// What the schema has against a configuration.
fn complaints(schema: &Value, toml: &str) -> Vec<String> {
    let config: toml::Table = toml::from_str(toml).unwrap_or_else(|error| panic!("{error}: {toml}"));
    let mut judge = Judge {
        root: schema,
        complaints: Vec::new(),
    };
    judge.check("", schema, &serde_json::to_value(config).unwrap());
    judge.complaints
}

/// Judges values by the keywords that are in the schema, and no others.
struct Judge<'a> {
    root: &'a Value,
    complaints: Vec<String>,
}

impl<'a> Judge<'a> {
    fn fits(&self, schema: &'a Value, value: &Value) -> bool {
        let mut judge = Judge {
            root: self.root,
            complaints: Vec::new(),
        };
        judge.check("", schema, value);
        judge.complaints.is_empty()
    }

    fn check(&mut self, path: &str, schema: &'a Value, value: &Value) {
        let schema = schema.as_object().unwrap_or_else(|| panic!("{path}: {schema}"));
        for (keyword, says) in schema {
            let one_of = |says: &'a Value| says.as_array().expect("a list of schemas");
            let good = match keyword.as_str() {
                "$schema" | "title" | "description" | "default" | "examples" | "format" | "definitions" => {
                    true
                }
                "type" => match says {
                    Value::Array(types) => types.iter().any(|name| is(name, value)),
                    name => is(name, value),
                },
                "enum" => says.as_array().expect("a list").contains(value),
                "const" => says == value,
                "minItems" => value
                    .as_array()
                    .is_none_or(|list| list.len() as u64 >= says.as_u64().unwrap()),
                "minimum" => value.as_f64().is_none_or(|value| value >= says.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|value| value <= says.as_f64().unwrap()),
                "pattern" => {
                    let pattern = regex_lite::Regex::new(says.as_str().unwrap()).unwrap();
                    value.as_str().is_none_or(|text| pattern.is_match(text))
                }
                "required" => says.as_array().unwrap().iter().all(|key| {
                    let table = value.as_object();
                    table.is_none_or(|table| table.contains_key(key.as_str().unwrap()))
                }),
                "anyOf" => one_of(says).iter().any(|schema| self.fits(schema, value)),
                "oneOf" => {
                    let fitting = one_of(says).iter().filter(|schema| self.fits(schema, value));
                    fitting.count() == 1
                }
                "allOf" => one_of(says).iter().all(|schema| self.fits(schema, value)),
                "$ref" => {
                    let pointer = says.as_str().unwrap().trim_start_matches('#');
                    self.fits(self.root.pointer(pointer).expect("a definition"), value)
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.check(path, says, item);
                    }
                    true
                }
                "properties" => {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        if let Some(schema) = says.get(key) {
                            self.check(&format!("{path}.{key}"), schema, value);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = schema.get("properties");
                    for (key, value) in value.as_object().into_iter().flatten() {
                        if known.is_some_and(|known| known.get(key).is_some()) {
                            continue;
                        }
                        match says {
                            Value::Bool(false) => self.complaints.push(format!("{path}.{key} is unknown")),
                            says => self.check(&format!("{path}.{key}"), says, value),
                        }
                    }
                    true
                }
                other => panic!("{path}: the keyword {other} is not known here"),
            };
            if !good {
                self.complaints
                    .push(format!("{path}: {value} against {keyword} {says}"));
            }
        }
    }
}

fn is(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type's name") {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is not in TOML"),
    }
}

/// Whether the program has nothing against a configuration: it then misses the group, which comes last.
fn takes(toml: &str) -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let output = nflog_agent(["run", "--config", path, "--group", "none"]);
    let messages = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{messages}");
    !messages.contains(path)
}

/// The file that is shipped, as it is and with every commented key in it.
fn shipped() -> [String; 2] {
    let shipped = std::fs::read_to_string(deploy("systemd/nflog-agent.toml")).unwrap();
    let all = shipped.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => format!("{key}\n"),
        _ => format!("{line}\n"),
    });
    let all = all.collect();
    [shipped, all]
}

/// The configuration in a module's documentation.
fn documented(source: &str) -> String {
    let text = source.lines().filter_map(|line| line.strip_prefix("//! "));
    text.skip_while(|line| *line != "```toml")
        .skip(1)
        .take_while(|line| *line != "```")
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_schema_that_is_shipped_is_what_the_program_prints() {
    let path = deploy("nflog-agent.schema.json");
    let printed = stdout(["config-schema"]);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == printed,
        "deploy/nflog-agent.schema.json is not what the program says: UPDATE=1 cargo test -p nflog-agent --test commands"
    );
}

#[test]
fn everything_that_is_shipped_or_documented_fits_the_schema() {
    let schema = schema();
    let [shipped, all] = shipped();
    for text in [shipped, all, documented(POLICY), documented(SETTINGS)] {
        assert!(!text.is_empty());
        assert_eq!(complaints(&schema, &text), [""; 0], "{text}");
        assert!(takes(&text), "{text}");
    }
}

#[test]
fn every_key_is_described() {
    fn check(path: &str, table: &Value) {
        for (key, value) in table["properties"].as_object().expect("a table's properties") {
            let path = format!("{path}.{key}");
            assert!(value["description"].is_string(), "{path}: {value}");
            if value["properties"].is_object() {
                check(&path, value);
            }
        }
    }
    let schema = schema();
    check("", &schema);
    let definitions = schema["definitions"].as_object().expect("definitions");
    for name in [
        "PrefixConfig",
        "RuleConfig",
        "MatchConfig",
        "LimitConfig",
        "AggregateConfig",
    ] {
        check(name, &definitions[name]);
    }
}

#[test]
fn what_the_schema_refuses_the_program_refuses() {
    let schema = schema();
    for wrong in [
        "grop = 7",
        "copy-range = 0",
        "copy-range = 65532",
        "netns-interval = 5",
        "output = 'xml'",
        "verbose = 'yes'",
        "config = 'x'",
        "[otpl]\nendpoint = 'x'",
        "[otlp]\nendpiont = 'x'",
        "[otlp]\ninsecure = 'yes'",
        "[otlp.metrics]\nlogs = {}",
        "[otlp]\nheaders = { a = 1 }",
        "[resource]\nname = 1",
        "[[prefix]]\npreset = 'ufv'",
        "[[prefix]]\npreset = 'ufw'\ntemplate = '{action}'",
        "[[prefix]]\naction = 'drop'",
        "[[prefix]]\ntemplate = '{action}'\nseverity = 'notice'",
        "[[rule]]\nname = 'x'",
        "[[rule]]\nthen = 'dorp'",
        "[[rule]]\nthen = { sample = 0 }",
        "[[rule]]\nthen = 'keep'\nmatch = { hook = 'in' }",
        "[[rule]]\nthen = 'keep'\nmatch = { family = ['inet', 'ipv6'] }",
        "[[rule]]\nthen = 'keep'\nmatch = { prot = 'tcp' }",
        "[[rule]]\nthen = 'keep'\nmatch = { direction = 'out' }",
        "[[rule]]\nthen = 'keep'\nmatch = { owner-reason = 'none' }",
        "[[rule]]\nthen = { limit = { burst = 3 } }",
        "[[rule]]\nthen = { limit = { rate = '1/s', per = 'pod' } }",
        "[[rule]]\nthen = { aggregate = { intervall = '1s' } }",
        "[[rule]]\nthen = 'drop'\nmatch = { source-address = [] }",
    ] {
        assert!(!complaints(&schema, wrong).is_empty(), "the schema: {wrong}");
        assert!(!takes(wrong), "the program: {wrong}");
    }
}

#[test]
fn what_the_program_takes_the_schema_takes() {
    let schema = schema();
    for right in [
        "",
        "group = 7\ncopy-range = 1",
        "group = [7, 8]\ncopy-range = 65531",
        "group = '7,8'\nmax-netns = '16384'",
        "netns = 4711",
        "netns = ['web', 4711]",
        "verbose = true",
        "spool = '/x'\nspool-bytes = 1048576",
        "[otlp]\nheaders = { a = 'b' }\ninsecure = true\ntimeout = '3s'",
        "[otlp.logs]\nendpoint = 'http://a:1'",
        "[resource]\n'service.name' = 'x'",
        "[[prefix]]\nregex = 'x(?P<action>y)'\nseverity = 'WARN'",
        "[[rule]]\nthen = 'drop'\nmatch = { group = 7, destination-port = [22, '80-90'], uid = 0 }",
        "[[rule]]\nthen = { aggregate = {} }",
        "[[rule]]\nthen = { limit = { rate = '1/s', per = 'workload', max-keys = 9 } }",
    ] {
        assert!(takes(right), "the program: {right}");
        assert_eq!(complaints(&schema, right), [""; 0], "the schema: {right}");
    }
}

/// Each key that the schema has below `table`, in the words of TOML.
fn keys(table: &Value, path: &str, all: &mut Vec<String>) {
    for (key, value) in table["properties"].as_object().expect("a table's properties") {
        let path = format!("{path}{key}");
        if value["properties"].is_object() {
            keys(value, &format!("{path}."), all);
        } else if key != "prefix" && key != "rule" {
            all.push(path);
        }
    }
}

#[test]
fn whatever_value_of_a_key_the_program_takes_fits_the_schema() {
    const VALUES: [&str; 24] = [
        "0",
        "1",
        "-1",
        "7",
        "65535",
        "65536",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "0x10",
        "1.5",
        "true",
        "''",
        "'x'",
        "'7'",
        "' 7 '",
        "'off'",
        "'1s'",
        "'/a,/b'",
        "'127.0.0.1:1'",
        "[]",
        "[7, '8']",
        "['/a', '/b']",
        "{ a = 'b' }",
    ];
    let schema = schema();
    let mut all = Vec::new();
    keys(&schema, "", &mut all);
    assert!(
        all.len() > 50 && all.contains(&"otlp.logs.endpoint".to_owned()),
        "{all:?}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let (mut taken, mut wrong) = (0, Vec::new());
    for key in &all {
        for value in VALUES {
            let text = format!("{key} = {value}\n");
            std::fs::write(file.path(), &text).unwrap();
            let [program, run, config, group, none] =
                ["nflog-agent", "run", "--config", "--group", "none"].map(OsString::from);
            let file = file.path().as_os_str().to_owned();
            match settings::read([program, run, config, file, group, none].into_iter()) {
                Err(SettingsError::File(_)) => continue,
                Err(SettingsError::Arguments(_)) => taken += 1,
                Ok(_) => panic!("{text}: there is no group none"),
            }
            wrong.extend(complaints(&schema, &text));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(taken > 100, "{taken}");
}
