//! `config-schema`: the configuration file's JSON Schema, for editors and tests.

use std::io::{self, Write as _, stdout};

use super::CommandError;
use crate::settings;

pub(super) fn print() -> Result<u8, CommandError> {
    let mut text = serde_json::to_vec_pretty(&settings::schema()).map_err(io::Error::from)?;
    text.push(b'\n');
    stdout().write_all(&text)?;
    Ok(0)
}
