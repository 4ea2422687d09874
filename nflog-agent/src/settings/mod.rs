//! What the operator asked for: command line, environment and configuration file in one.
//!
//! A value on the command line beats the environment, which beats the file, which beats the default. An empty variable is as good as
//! none. The file is TOML:
//!
//! ```toml
//! group = [7, 8]              # each flag of `run` is a key of the same name
//! copy-range = 256
//! spool = "/var/lib/nflog-agent"
//!
//! [otlp]                      # OTEL_EXPORTER_OTLP_…
//! endpoint = "http://collector:4317"
//! protocol = "grpc"
//! timeout = "10s"
//! headers = { authorization = "Bearer …" }
//!
//! [otlp.metrics]              # OTEL_EXPORTER_OTLP_METRICS_…; [otlp.logs] likewise
//! endpoint = "http://prometheus-gateway:4318"
//!
//! [resource]                  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
//! "service.name" = "firewall"
//! "deployment.environment.name" = "production"
//! ```
//!
//! The tables `[[prefix]]` and `[[rule]]` are described at [`policy`](crate::policy).
//!
//! Everything that is wrong with the file is said at once, with the lines; nothing in it is ignored. [`schema()`] is its JSON Schema.
//!
//! On SIGHUP the agent reads all of it again. `[[prefix]]`, `[[rule]]`, `account-interval`, `netns-interval` and `max-netns` are in force
//! from then on; what else has changed is named, and waits for a restart. If anything is wrong, all of that is said and nothing changes.

mod changes;
mod environment;
mod error;
mod file;
mod flags;
mod schema;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::FromArgMatches as _;

use crate::cli::{self, Cli, Command, ReplayArgs, RunArgs, Tool};
use crate::commands::top::{TopArgs, ViewArgs};
use crate::policy::{Policy, PolicyConfig};
pub use changes::{Change, Given};
pub use environment::{UnknownVariable, unknown_variables};
pub use error::{FileError, FileErrors, Problem};
use file::File;
use flags::Flag;
pub use schema::schema;

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Settings<A = RunArgs> {
    /// Flags, wherever they were set.
    pub args: A,
    /// What prefixes mean, and which records leave.
    pub policy: Arc<Policy>,
    /// What they are, to be compared with what they are when they are read again.
    pub given: Given,
    variables: BTreeMap<String, String>,
    arguments: Vec<OsString>,
}

impl<A> Settings<A> {
    /// A variable of the OpenTelemetry specification, from the environment or else from the file. Empty in the environment means unset,
    /// as the specification has it.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .or_else(|| self.variables.get(name).map(OsString::from))
    }
}

impl Settings {
    /// Reads the same command line and environment, and what is in the configuration file by now.
    ///
    /// # Errors
    /// As at the first time.
    pub fn read_again(&self) -> Result<Self, SettingsError> {
        match read(self.arguments.iter().cloned())? {
            Asked::Run(settings) | Asked::Top(settings, _) => Ok(*settings),
            // The same arguments ask for the same command.
            Asked::Replay(_) | Asked::Tool(_) => Ok(self.clone()),
        }
    }

    /// Adds what clap does not know.
    fn complete(&mut self, written: &PolicyConfig) {
        for (variable, key) in variables::keys() {
            if let Some(value) = self.variable(&variable) {
                self.given.add(&key, value.to_string_lossy().into_owned());
            }
        }
        if !written.prefix.is_empty() {
            self.given.add(file::PREFIX, format!("{:?}", written.prefix));
        }
        if !written.rule.is_empty() {
            self.given.add(file::RULE, format!("{:?}", written.rule));
        }
    }
}

impl Settings<()> {
    fn with<A>(self, args: A) -> Settings<A> {
        Settings {
            args,
            policy: self.policy,
            given: self.given,
            variables: self.variables,
            arguments: self.arguments,
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line: wrong, or `--help`, which clap treats alike.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileErrors),
}

/// What is to be done.
#[derive(Debug)]
pub enum Asked {
    /// `run`, with all that belongs to it.
    Run(Box<Settings>),
    /// `replay`, likewise.
    Replay(Box<Settings<ReplayArgs>>),
    /// `top`, which runs an agent, with what it shows of it.
    Top(Box<Settings>, ViewArgs),
    /// A command without settings.
    Tool(Tool),
}

/// Reads the command line, the environment and the configuration file that they name.
///
/// # Errors
/// The first thing that is wrong with the command line or the environment, or all that are wrong with the file.
pub fn read(arguments: impl Iterator<Item = OsString>) -> Result<Asked, SettingsError> {
    let arguments: Vec<_> = arguments.collect();
    let mut command = environment::without_empty(cli::command());
    let mut variables = BTreeMap::new();
    let (mut policy, mut written) = (Policy::default(), PolicyConfig::default());
    if let Some((path, beside)) = file(&arguments) {
        let file = File::read(&path, &beside)?;
        command = flags::as_defaults(command, &file.flags);
        variables = file.variables;
        (policy, written) = (file.policy, file.written);
    }
    let matches = command.try_get_matches_from_mut(&arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let given = matches.subcommand_matches(flags::RUN).map(Given::new);
    let settings = Settings {
        args: (),
        policy: Arc::new(policy),
        given: given.unwrap_or_default(),
        variables,
        arguments,
    };
    Ok(match cli.command {
        Command::Run(args) => {
            let mut settings = settings.with(*args);
            settings.complete(&written);
            Asked::Run(Box::new(settings))
        }
        Command::Replay(args) => Asked::Replay(Box::new(settings.with(args))),
        Command::Top(args) => {
            let TopArgs { run, view } = *args;
            Asked::Top(Box::new(settings.with(run)), view)
        }
        Command::Tool(tool) => Asked::Tool(tool),
    })
}

/// The file that a command line, right or wrong, or the environment names, and the flags that they give beside it.
fn file(arguments: &[OsString]) -> Option<(PathBuf, Vec<Flag>)> {
    let matches = environment::without_empty(cli::command())
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .ok()?;
    let (_, command) = matches.subcommand()?;
    let path = command.try_get_one::<PathBuf>("config").ok()?.cloned()?;
    Some((path, flags::beside_files(command)))
}

/// The one of those that are known that a name is much like.
fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    known
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings(text: &str, arguments: &[&str]) -> Result<Settings, SettingsError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        let fixed = ["nflog-agent", "run", "--config"].map(OsString::from);
        let arguments = fixed
            .into_iter()
            .chain([path.into_os_string()])
            .chain(arguments.iter().map(OsString::from));
        match read(arguments)? {
            Asked::Run(settings) => Ok(*settings),
            other => panic!("{other:?}"),
        }
    }

    fn problems(text: &str) -> Vec<String> {
        match settings(text, &[]) {
            Err(SettingsError::File(errors)) => errors.0.iter().map(ToString::to_string).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_beats_the_file_and_the_file_beats_the_default() {
        let text = "group = [7, 8]\ncopy-range = 256\nspool = '/x'\nspool-max-age = '1h'\nprocess-command-line = true";
        let read = settings(text, &["--copy-range", "99"]).unwrap().args;
        assert_eq!(read.groups, [7, 8]);
        assert_eq!(read.copy_range, 99);
        assert_eq!(read.spool_max_age.as_secs(), 3600);
        assert!(read.process_command_line);
        assert_eq!(read.max_netns, 1024);
        let read = settings(text, &["--group", "9"]).unwrap().args;
        assert_eq!((read.groups.as_slice(), read.copy_range), ([9].as_slice(), 256));
    }

    #[test]
    fn top_takes_the_file_of_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        fs::write(&path, "group = [7, 8]\nsampl = 1").unwrap();
        let read = |arguments: &[&str]| {
            let fixed = ["nflog-agent", "top", "--config"].map(OsString::from);
            let file = [path.clone().into_os_string()];
            read(
                fixed
                    .into_iter()
                    .chain(file)
                    .chain(arguments.iter().map(OsString::from)),
            )
        };
        assert!(
            matches!(read(&[]), Err(SettingsError::File(_))),
            "nothing in it is ignored"
        );
        fs::write(&path, "group = [7, 8]\ncopy-range = 256").unwrap();
        match read(&["--batch", "--copy-range", "99"]).unwrap() {
            Asked::Top(settings, view) => {
                assert_eq!((settings.args.groups, settings.args.copy_range), (vec![7, 8], 99));
                assert!(view.batch);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_value_needs_no_list() {
        assert_eq!(settings("group = 7", &[]).unwrap().args.groups, [7]);
        assert_eq!(settings("group = '7,8'", &[]).unwrap().args.groups, [7, 8]);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_line() {
        let text = "grop = 7\ncopy-range = 0\ncolor = []\noutput = 'xml'\nspool = 7.5\n[otpl]\nendpoint = 'x'\n[otlp]\ntimeout = 5\n\
                    hedaers = {}\n[otlp.logs]\nprotocol = 'smoke'\n[resource]\nname = 1";
        let problems = problems(text);
        let expected = [
            ("line 1", "did you mean 'group'"),
            ("line 2", "copy-range"),
            ("line 3", "'color' is a list"),
            ("line 4", "console"),
            ("line 5", "'spool' is 7.5"),
            ("line 6", "did you mean 'otlp'"),
            ("line 9", "\"10s\""),
            ("line 10", "did you mean 'headers'"),
            ("line 12", "smoke"),
            ("line 14", "string"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, (line, word)) in problems.iter().zip(expected) {
            assert!(
                problem.contains(&format!("{line}:")) && problem.contains(word),
                "{problem}"
            );
        }
    }

    #[test]
    fn everything_that_is_wrong_with_a_table_is_said_too() {
        let text = "[[rule]]\nthen = 'drop'\nmach = {}\nnam = 'x'\n[rule.match]\nprot = 'tcp'\nhok = 'input'\ngroup = []\n\
                    [[rule]]\nthen = { limit = { rat = '1/s' } }\n[[rule]]\nname = 'x'\n[[prefix]]\nprest = 'ufw'\nother = 1";
        let problems = problems(text);
        let expected = [
            ("line 3", "rule 1: unknown key 'mach'; did you mean 'match'?"),
            ("line 4", "rule 1: unknown key 'nam'; did you mean 'name'?"),
            ("line 6", "rule 1: unknown key 'prot'; did you mean 'protocol'?"),
            ("line 7", "rule 1: unknown key 'hok'; did you mean 'hook'?"),
            ("line 8", "rule 1: an empty list"),
            ("line 10", "rule 2: unknown key 'rat'; did you mean 'rate'?"),
            ("line 10", "rule 2: missing field `rate`"),
            ("line 11", "rule 3: missing field `then`"),
            ("line 14", "prefix 1: unknown key 'prest'; did you mean 'preset'?"),
            ("line 15", "prefix 1: unknown key 'other'; there are preset, "),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, (line, words)) in problems.iter().zip(expected) {
            assert!(
                problem.contains(&format!("{line}: {words}")),
                "{problem}: {line}: {words}"
            );
        }
    }

    #[test]
    fn values_that_are_wrong_are_shown_unless_they_may_be_secrets() {
        let text = "copy-range = 1.5\nverbose = 'yes'\nmax-netns = 'many'\n[otlp]\nheaders = 'authorization=secret'\n\
                    [otlp.logs]\nheaders = { authorization = 5017 }";
        let problems = problems(text);
        let expected = [
            "1.5; write",
            "\"yes\"; write true",
            "'many'",
            "another value",
            "another value",
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, words) in problems.iter().zip(expected) {
            assert!(problem.contains(words), "{problem}: {words}");
            assert!(
                !problem.contains("secret") && !problem.contains("5017"),
                "{problem}"
            );
        }
        assert!(problems[2].contains("write a whole number"), "{problems:?}");
    }

    #[test]
    fn flags_that_need_each_other_do_so_in_the_file() {
        let problems = problems("group = 7\nspool-bytes = 2000000");
        assert!(
            problems.len() == 1 && problems[0].contains("--spool "),
            "{problems:?}"
        );
        let read = settings(
            "group = 7\noutput = 'json'\nspool-bytes = 2000000",
            &["--spool", "/x", "--output", "console"],
        )
        .unwrap();
        assert_eq!(read.args.spool_bytes, 2_000_000);
    }

    /// Every commented key of the file that is shipped is taken, with the value that is shown.
    #[test]
    fn the_file_that_is_shipped_is_valid_with_everything_in_it() {
        let shipped = include_str!("../../../deploy/systemd/nflog-agent.toml");
        let all: String = shipped
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        for text in [shipped, &all] {
            assert_eq!(settings(text, &[]).unwrap().args.groups, [7]);
        }
        let set = settings(&all, &[]).unwrap();
        let defaults = settings("group = 7", &[]).unwrap();
        let chosen = |mut args: RunArgs| {
            (args.config, args.netns, args.spool) = (None, Vec::new(), None);
            args.netns_of_cgroup.clear();
            args.kubernetes_node = None;
            args.listen = None;
            args.kubernetes_labels.clear();
            args.kubernetes_annotations.clear();
            format!("{args:?}")
        };
        assert_eq!(
            chosen(set.args),
            chosen(defaults.args),
            "they are said to be the defaults"
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_with_the_line() {
        let problems = problems("group = 7\ncopy-range =\n");
        assert!(problems[0].contains("line 2"), "{problems:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let arguments = ["nflog-agent", "run", "--config", "/nowhere/agent.toml"].map(OsString::from);
        let error = read(arguments.into_iter()).unwrap_err().to_string();
        assert!(error.contains("/nowhere/agent.toml"), "{error}");
    }

    #[test]
    fn a_file_is_not_named_in_itself() {
        assert!(problems("config = 'x'")[0].contains("config"));
    }

    #[test]
    fn tables_stand_for_the_variables_of_the_specification() {
        let text = "group = 7\n[otlp]\nendpoint = 'http://c:4318'\ntimeout = '2s'\n\
                    headers = { b = 'x, y=%', a = '1' }\n[otlp.metrics]\ncompression = 'gzip'\n\
                    [resource]\n'service.name' = 'fw'\nzone = 'a b'";
        let settings = settings(text, &[]).unwrap();
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=x%2C%20y%3D%25"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
            ("OTEL_SERVICE_NAME", "fw"),
            ("OTEL_RESOURCE_ATTRIBUTES", "zone=a%20b"),
        ] {
            assert_eq!(settings.variable(variable), Some(value.into()), "{variable}");
        }
    }
}
