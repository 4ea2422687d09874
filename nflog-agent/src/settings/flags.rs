//! Keys that are flags of `run`: each is checked by the flag's own parser, then becomes the flag's default.

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::error::Problem;
use crate::cli::{Cli, usage_parts};

const SUBCOMMAND: &str = "run";
/// The other commands that heed the file, as far as they have the flags.
const ALSO: [&str; 1] = ["replay"];
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
    let command = run_command();
    let names = command.get_arguments().filter_map(Arg::get_long);
    names
        .filter(|name| !NOT_IN_FILES.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Is the flag a switch, without a value?
pub(super) fn is_switch(name: &str) -> bool {
    run_command()
        .get_arguments()
        .any(|arg| arg.get_long() == Some(name) && is_set_true(arg))
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
    std::iter::once(SUBCOMMAND)
        .chain(ALSO)
        .fold(command, |command, name| {
            command.mut_subcommand(name, |subcommand| subcommand.mut_args(default))
        })
}

fn run_command() -> Command {
    let mut command = Cli::command();
    // Gives every argument what clap adds.
    command.build();
    match command.find_subcommand(SUBCOMMAND) {
        Some(run) => run.clone(),
        None => command,
    }
}

fn parse(flags: &[Flag], alone: bool) -> Result<(), Problem> {
    let command = Cli::command().mut_subcommand(SUBCOMMAND, |run| {
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
    let start = ["nflog-agent", SUBCOMMAND].map(str::to_owned);
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

fn is_set_true(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}
