//! Prints each second how many packets of a group were received and how many were lost, and where.
//!
//! ```text
//! nft add table inet demo
//! nft add chain inet demo output '{ type filter hook output priority 0; }'
//! nft add rule inet demo output log group 100
//! cargo run --example loss -- 100 10 16384    # group, seconds (0: until Ctrl-C), receive buffer in bytes
//! nft delete table inet demo
//! ```
//!
//! With a receive buffer as small as this, a burst of packets is lost in part; the default is 16 MiB. Needs root, or
//! CAP_NET_ADMIN.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nflog_agent::nflog::{Config, Loss, Nflog};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loss: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let group: u16 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let receive_buffer: u32 = arguments.next().map_or(Ok(16 << 20), |text| text.parse())?;

    let builder = Config::builder().group(group);
    let mut nflog = Nflog::open(&builder.receive_buffer(receive_buffer).build()?)?;
    for warning in &nflog.effective().warnings {
        eprintln!("loss: {warning}");
    }
    println!("reading NFLOG group {group}");

    let end = (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds));
    let mut received = 0_u64;
    let mut next = Instant::now() + Duration::from_secs(1);
    while end.is_none_or(|end| Instant::now() < end) {
        if let Some(batch) = nflog.recv(Some(next.saturating_duration_since(Instant::now())))? {
            received += u64::try_from(batch.count())?;
        }
        if Instant::now() >= next {
            print(received, &nflog.loss()?);
            next += Duration::from_secs(1);
        }
    }
    let mut rest = 0;
    let loss = nflog.close(|batch| rest += batch.count())?;
    print(received + u64::try_from(rest)?, &loss);
    Ok(())
}

fn print(received: u64, loss: &Loss) {
    let pending = if loss.pending {
        ", more lost that is not counted yet"
    } else {
        ""
    };
    println!(
        "received {received}, lost {} in {} datagrams{pending}",
        loss.gaps, loss.sk_drops
    );
}
