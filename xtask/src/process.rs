//! Child processes: started, waited for, and named in the error when they fail.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::paths;

/// Runs a command with our own standard streams; an error unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", render(command)))?;
    if !status.success() {
        bail!("`{}` failed with {status}", render(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote on standard output; its standard error is ours.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = bytes(command)?;
    String::from_utf8(output).with_context(|| format!("`{}` did not write UTF-8", render(command)))
}

/// As [`output`], for output that is no text.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", render(command)))?;
    if !output.status.success() {
        bail!("`{}` failed with {}", render(command), output.status);
    }
    Ok(output.stdout)
}

/// Whether a command can be started and exits with 0; says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The cargo that started xtask, as [`in_workspace`].
pub(crate) fn cargo() -> Command {
    in_workspace(Command::new(
        env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")),
    ))
}

/// A cargo in the workspace, with setup's programs in PATH and without the variables that describe the xtask package.
pub(crate) fn in_workspace(mut command: Command) -> Command {
    command
        .current_dir(paths::root())
        .env("CARGO_TARGET_DIR", paths::target())
        .env("PATH", path_with_tools());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_a_package) {
            command.env_remove(name);
        }
    }
    command
}

/// PATH with the programs that setup installed in front.
pub(crate) fn path_with_tools() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = [paths::tools().join("bin")]
        .into_iter()
        .chain(env::split_paths(&path));
    env::join_paths(directories).unwrap_or(path)
}

/// The command as one would type it, for messages.
pub(crate) fn render(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().map(OsStr::to_string_lossy) {
        let result = if argument.contains(' ') {
            write!(line, " '{argument}'")
        } else {
            write!(line, " {argument}")
        };
        result.expect("writing to a String succeeds");
    }
    line
}

fn describes_a_package(name: &str) -> bool {
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        || name == "LD_LIBRARY_PATH"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_in_the_error() {
        let error = run(Command::new("false").arg("an argument")).expect_err("false fails");
        assert!(
            error.to_string().starts_with("`false 'an argument'` failed with"),
            "{error}"
        );
    }

    #[test]
    fn output_is_what_the_command_wrote() {
        assert_eq!(
            output(Command::new("echo").arg("word")).expect("echo runs"),
            "word\n"
        );
        assert!(output(&mut Command::new("no-such-program-here")).is_err());
    }
}
