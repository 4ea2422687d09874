//! Prints the payload of the packets that a rule logs to a group: the example of the Go library's documentation.
//!
//! ```text
//! nft add table inet demo
//! nft add chain inet demo output '{ type filter hook output priority 0; }'
//! nft add rule inet demo output meta l4proto icmp log group 100
//! cargo run --example print -- 100 10     # group and seconds; these are the defaults
//! ping -c 3 127.0.0.1                     # in another terminal
//! nft delete table inet demo
//! ```
//!
//! Needs root, or CAP_NET_ADMIN.

use std::error::Error;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use nflog_agent::nflog::{Config, Entry, Nflog, RecvError};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("print: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let group: u16 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;

    // Whole packets, up to the usual MTU.
    let config = Config::builder().group(group).copy_range(1500).build()?;
    let nflog = Nflog::open(&config)?;
    println!("reading NFLOG group {group} for {seconds} s");

    let hook = |entry: &Entry<'_>| {
        println!("{}", hex(entry.payload()));
        ControlFlow::Continue(())
    };
    let on_error = |error: RecvError| {
        eprintln!("print: {error}");
        ControlFlow::Break(())
    };
    let registration = nflog.register(hook, on_error)?;
    sleep(Duration::from_secs(seconds));
    let loss = registration.stop()?;
    println!("packets lost: {}", loss.gaps);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
