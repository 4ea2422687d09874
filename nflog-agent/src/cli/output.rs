//! Where records go, and how: the same for `run`, `replay` and `top`.

use clap::{Args, ValueEnum};

/// Where records go, and how.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Where records go.
    #[arg(
        id = "output",
        short,
        long = "output",
        value_enum,
        default_value_t,
        env = "NFLOG_AGENT_OUTPUT"
    )]
    pub kind: OutputArg,

    /// An id for each record, by which a backend can drop what arrives twice: after a request whose answer was lost, or a crash.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_RECORD_ID")]
    pub record_id: RecordIdArg,

    /// On the console, everything that is known of each packet, in lines below its own. JSON and OTLP always have it.
    #[arg(short, long, env = "NFLOG_AGENT_VERBOSE")]
    pub verbose: bool,

    /// Colour on the console.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_COLOR")]
    pub color: ColorArg,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// OTLP when an endpoint is set in the environment, else console.
    #[default]
    Auto,
    /// OTLP to OTEL_EXPORTER_OTLP_ENDPOINT, or to the specification's default on localhost.
    Otlp,
    /// One readable line per packet on standard output.
    Console,
    /// One JSON object per line on standard output.
    Json,
}

/// `--record-id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RecordIdArg {
    /// A ULID in log.record.uid: 48 bytes of each record.
    #[default]
    Ulid,
    /// None.
    Off,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// When standard output is a terminal and NO_COLOR is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
