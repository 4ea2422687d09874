//! Exit codes of the program: the one list for code, help and man pages. From 64 on they are those of `sysexits.h`.

/// Failed while running.
pub const FAILED: u8 = 1;
/// Wrong arguments, environment or configuration (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// An input file is not what it should be (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// An input file cannot be opened (`EX_NOINPUT`).
pub const NO_INPUT: u8 = 66;
/// The kernel, or a program or server that is asked, lacks something (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// The output, or a directory, cannot be written (`EX_IOERR`).
pub const IO: u8 = 74;
/// Something else holds what is needed; trying later may help (`EX_TEMPFAIL`).
pub const BUSY: u8 = 75;
/// Missing privileges (`EX_NOPERM`).
pub const PERMISSION: u8 = 77;

/// All of them, with what they mean.
pub const ALL: [(u8, &str); 9] = [
    (0, "ended as asked"),
    (FAILED, "failed while running"),
    (USAGE, "wrong arguments, environment or configuration"),
    (DATA, "an input file is not what it should be"),
    (NO_INPUT, "an input file cannot be opened"),
    (
        UNAVAILABLE,
        "the kernel, or a program or server that is asked, lacks something",
    ),
    (IO, "the output, or a directory, cannot be written"),
    (
        BUSY,
        "something else holds what is needed, such as the NFLOG group: try later",
    ),
    (PERMISSION, "missing privileges"),
];

/// The list, as a section of a help text.
pub(crate) fn section() -> String {
    let lines = ALL.map(|(code, meaning)| format!("  {code:<3} {meaning}"));
    format!("Exit codes:\n{}", lines.join("\n"))
}
