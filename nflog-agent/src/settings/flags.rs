//! Keys that are flags of `run`: each is checked by the flag's own parser, then becomes the flag's default.

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _};

use super::error::Problem;
use crate::cli::{Cli, usage_parts};

/// The command whose flags these are.
pub(super) const RUN: &str = "run";
/// The other commands that heed the file, as far as they have the flags.
const ALSO: [&str; 2] = ["replay", "top"];
/// Flags that have no place in a file.
const NOT_IN_FILES: [&str; 3] = ["config", "help", "version"];

/// A flag that a file sets.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    /// Its long name.
    pub(super) name: String,
    /// Its values, as on a command line; of a switch, `true` or `false`.
    pub(super) values: Vec<String>,
}

/// The long names of all flags that a file may set.
pub(super) fn names() -> Vec<String> {
    arguments()
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect()
}

/// What was given for each of them, by its long name; several values with commas between them.
pub(super) fn given(run: &ArgMatches) -> impl Iterator<Item = (String, String)> {
    arguments().filter_map(|arg| {
        let values = run.try_get_raw(arg.get_id().as_str()).ok()??;
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        Some((arg.get_long()?.to_owned(), values.join(",")))
    })
}

/// Flags that a command line or the environment sets, as far as they are right.
pub(super) fn beside_files(command: &ArgMatches) -> Vec<Flag> {
    let set = arguments().filter_map(|arg| {
        let id = arg.get_id().as_str();
        // `replay` does not have all of them.
        let given = command.try_contains_id(id).is_ok_and(|given| given)
            && command.value_source(id) != Some(ValueSource::DefaultValue);
        let values = command
            .try_get_raw(id)
            .ok()??
            .map(|value| value.to_string_lossy().into_owned());
        let flag = Flag {
            name: arg.get_long()?.to_owned(),
            values: values.collect(),
        };
        (given && check(&flag).is_ok()).then_some(flag)
    });
    set.collect()
}

/// All flags that a file may set.
pub(super) fn arguments() -> impl Iterator<Item = Arg> {
    let run = run_command();
    let all: Vec<_> = run.get_arguments().cloned().collect();
    all.into_iter()
        .filter(|arg| arg.get_long().is_some_and(|name| !NOT_IN_FILES.contains(&name)))
}

/// Is the flag a switch, without a value?
pub(super) fn is_switch(name: &str) -> bool {
    arguments().any(|arg| arg.get_long() == Some(name) && is_set_true(&arg))
}

/// Does the flag take several values?
pub(super) fn is_list(name: &str) -> bool {
    arguments().any(|arg| arg.get_long() == Some(name) && takes_several(&arg))
}

/// What the flag's own parser has against it.
pub(super) fn check(flag: &Flag) -> Result<(), Problem> {
    parse(std::slice::from_ref(flag), true)
}

/// What the flags have against each other.
pub(super) fn check_together(flags: &[Flag]) -> Result<(), Problem> {
    parse(flags, false)
}

/// The command line's parser with the flags as defaults: the command line and the environment come first.
pub(super) fn as_defaults(command: Command, flags: &[Flag]) -> Command {
    let default = |arg: Arg| match flags.iter().find(|flag| arg.get_long() == Some(&flag.name)) {
        Some(flag) => arg.required(false).default_values(flag.values.clone()),
        None => arg,
    };
    std::iter::once(RUN).chain(ALSO).fold(command, |command, name| {
        command.mut_subcommand(name, |subcommand| subcommand.mut_args(default))
    })
}

fn run_command() -> Command {
    let mut command = Cli::command();
    // Gives every argument what clap adds.
    command.build();
    match command.find_subcommand(RUN) {
        Some(run) => run.clone(),
        None => command,
    }
}

fn parse(flags: &[Flag], alone: bool) -> Result<(), Problem> {
    let command = Cli::command().mut_subcommand(RUN, |run| {
        run.mut_args(|arg| {
            let arg = arg.required(false).env(Resettable::Reset);
            if alone {
                arg.requires(Resettable::Reset)
            } else {
                arg
            }
        })
    });
    let arguments = flags.iter().flat_map(|flag| {
        let switch = is_switch(&flag.name);
        flag.values.iter().filter_map(move |value| match value.as_str() {
            "true" if switch => Some(format!("--{}", flag.name)),
            _ if switch => None,
            value => Some(format!("--{}={value}", flag.name)),
        })
    });
    let start = ["nflog-agent", RUN].map(str::to_owned);
    match command.try_get_matches_from(start.into_iter().chain(arguments)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Problem::Flag(text(&error))),
    }
}

fn text(error: &clap::Error) -> String {
    let text = usage_parts(error);
    // The file's name is in front instead.
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

pub(super) fn takes_several(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

pub(super) fn is_set_true(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}
