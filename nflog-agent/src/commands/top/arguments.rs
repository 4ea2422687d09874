//! Arguments of `top`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::tally::By;
use crate::cli::{RunArgs, interval};

/// Arguments of `top`: those of `run`, as it reads and attributes like `run`, and how to show it. Those of `run` about the output
/// have no effect.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// What to read.
    #[command(flatten)]
    pub run: RunArgs,
    /// How to show it.
    #[command(flatten)]
    pub view: ViewArgs,
}

/// How `top` shows what it reads.
#[derive(Clone, Debug, Args)]
pub struct ViewArgs {
    /// Print tables to standard output, as plain text, in place of the live view; at SIGINT or SIGTERM a last time.
    #[arg(short, long)]
    pub batch: bool,

    /// Time between two reports or updates. Rates are those of this time.
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,

    /// Reports to print, then end. Default: until a signal.
    #[arg(short = 'n', long, value_name = "N", requires = "batch", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,

    /// Rows of each table that are printed.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "batch", value_parser = clap::value_parser!(u32).range(1..))]
    pub rows: u32,

    /// The table to begin with; with --batch, the only one that is printed.
    #[arg(long, value_enum)]
    pub view: Option<By>,
}

impl ValueEnum for By {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let help = self.text().first().map_or("", |text| text.trim());
        Some(clap::builder::PossibleValue::new(self.name()).help(help))
    }
}
