//! Reads a group as a stream of owned entries on tokio, until so many have come or Ctrl-C.
//!
//! ```text
//! nft add table inet demo
//! nft add chain inet demo output '{ type filter hook output priority 0; }'
//! nft add rule inet demo output udp dport 53 log prefix '"dns "' group 100
//! cargo run --example async_stream -- 100 5     # group and number of packets; these are the defaults
//! nft delete table inet demo
//! ```
//!
//! Needs root, or CAP_NET_ADMIN.

use std::error::Error;
use std::process::ExitCode;

use nflog_agent::nflog::{AsyncNflog, Config};
use tokio::signal::ctrl_c;
use tokio_stream::StreamExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("async_stream: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let group: u16 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let count: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;

    let config = Config::builder().group(group).build()?;
    let mut entries = AsyncNflog::open(&config)?.into_stream();
    println!("reading {count} packets from NFLOG group {group}");

    let mut interrupted = std::pin::pin!(ctrl_c());
    for _ in 0..count {
        tokio::select! {
            signal = &mut interrupted => {
                signal?;
                break;
            }
            Some(entry) = entries.next() => {
                let entry = entry?;
                println!("{:?} {} bytes, prefix {:?}", entry.family, entry.payload.len(), entry.prefix_lossy());
            }
        }
    }
    let mut rest = 0_u64;
    let loss = entries.close(|_| rest += 1).await?;
    println!("packets lost: {}, not waited for: {rest}", loss.gaps);
    Ok(())
}
