//! The agent's own variables, `NFLOG_AGENT_*`, which stand for flags.

use std::env;
use std::fmt;

use clap::builder::Resettable;
use clap::{Arg, Command};

use super::nearest;
use crate::cli;

const OWN: &str = "NFLOG_AGENT_";

/// The command without the variables that are empty: they count as unset, as those of the OpenTelemetry specification.
pub(super) fn without_empty(command: Command) -> Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command.mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
    })
}

/// A variable that is set, reads like one of the agent's, and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    name: String,
    suggestion: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is set, and there is no such variable; ", self.name)?;
        match &self.suggestion {
            Some(name) => write!(f, "did you mean {name}?"),
            None => f.write_str("see nflog-agent run --help for those there are"),
        }
    }
}

/// Those that are set.
#[must_use]
pub fn unknown_variables() -> Vec<UnknownVariable> {
    let set = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown(set)
}

fn unknown(set: impl Iterator<Item = String>) -> Vec<UnknownVariable> {
    let command = cli::command();
    let known: Vec<_> = command
        .get_subcommands()
        .flat_map(Command::get_arguments)
        .filter_map(|arg| arg.get_env()?.to_str())
        .collect();
    let strange = set.filter(|name| name.starts_with(OWN) && !is_of_a_service(name));
    strange
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| UnknownVariable {
            suggestion: nearest(&name, known.iter().copied()),
            name,
        })
        .collect()
}

/// Kubernetes sets these in a pod for each Service, which may be named like the agent.
fn is_of_a_service(name: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT_") || name.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_none_is_named_with_the_one_that_it_is_much_like() {
        let set = [
            "NFLOG_AGENT_GROUP",
            "NFLOG_AGENT_GROUPS",
            "NFLOG_AGENT_METRICS_SERVICE_HOST",
            "NFLOG_AGENT_PORT_6356_TCP",
            "OTEL_X",
        ];
        let said: Vec<_> = unknown(set.into_iter().map(str::to_owned))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            ["NFLOG_AGENT_GROUP is set, and there is no such variable; did you mean NFLOG_AGENT_GROUPS?"]
        );
    }
}
