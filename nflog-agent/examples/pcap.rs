//! Records what rules log to a group in a file that tcpdump and Wireshark open, and prints such files.
//!
//! ```text
//! nft add table inet demo
//! nft 'add chain inet demo output { type filter hook output priority 0; }'
//! nft add rule inet demo output log prefix '"out: "' group 5
//! cargo run --example pcap -- record 5 out.pcap 10
//! cargo run --example pcap -- print out.pcap
//! ```

use std::error::Error;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;
use std::time::SystemTime;

use nflog_agent::nflog::pcap::{Reader, Record, Writer};
use nflog_agent::nflog::{COPY_RANGE_MAX, Config, Flags, Nflog};

const USAGE: &str =
    "usage: pcap record GROUP FILE [COUNT]   packets of NFLOG group 0..=65535; needs CAP_NET_ADMIN
       pcap print FILE                   a pcap or pcapng file of link type NFLOG";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["record", group, file] => record(group, file, None),
        ["record", group, file, count] => record(group, file, Some(count)),
        ["print", file] => print(file),
        _ => Err(Usage.into()),
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("pcap: {error}");
    if error.is::<Usage>() {
        ExitCode::from(64)
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Debug)]
struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what should be done?\n{USAGE}")
    }
}

impl Error for Usage {}

/// Writes packets to a file until there are `count`, or until it is interrupted.
fn record(group: &str, file: &str, count: Option<&str>) -> Result<(), Box<dyn Error>> {
    let group = group
        .parse()
        .map_err(|error| format!("group {group:?}: {error}\n{USAGE}"))?;
    let count = count
        .map(|count| {
            count
                .parse::<u64>()
                .map_err(|error| format!("count {count:?}: {error}\n{USAGE}"))
        })
        .transpose()?;
    let config = |flags| {
        Config::builder()
            .group(group)
            .copy_range(COPY_RANGE_MAX)
            .flags(flags)
            .build()
    };
    let numbered = Flags::SEQ | Flags::SEQ_GLOBAL;
    // With the conntrack entry where the kernel can attach it.
    let mut nflog = match Nflog::open(&config(numbered | Flags::CONNTRACK)?) {
        Ok(nflog) => nflog,
        Err(_) => Nflog::open(&config(numbered)?)?,
    };
    let output = File::create(file).map_err(|error| format!("cannot create {file}: {error}"))?;
    let mut writer = Writer::new(BufWriter::new(output))?;
    eprintln!("recording group {group} to {file}");
    let mut written = 0;
    while count.is_none_or(|count| written < count) {
        if let Some(batch) = nflog.recv(None)? {
            let received = SystemTime::now();
            for entry in batch {
                if count.is_some_and(|count| written == count) {
                    break;
                }
                writer.write(&entry, received)?;
                written += 1;
            }
        }
        // An interrupt can come at any time and must find whole records.
        writer.flush()?;
    }
    let loss = nflog.loss()?;
    eprintln!("{written} packets recorded; {loss:?}");
    Ok(())
}

/// Prints one line for each packet.
fn print(file: &str) -> Result<(), Box<dyn Error>> {
    let input = File::open(file).map_err(|error| format!("cannot open {file}: {error}"))?;
    let mut reader = Reader::new(input)?;
    while let Some(record) = reader.next_entry()? {
        println!("{}", line(&record)?);
    }
    Ok(())
}

fn line(record: &Record<'_>) -> Result<String, fmt::Error> {
    let entry = &record.entry;
    let mut line = format!(
        "{}.{:09} group {} {}",
        record.timestamp.as_secs(),
        record.timestamp.subsec_nanos(),
        entry.group(),
        entry.family().name()
    );
    if let Some(hook) = entry.hook() {
        write!(line, " {}", hook.name())?;
    }
    for (name, value) in [
        ("indev", entry.indev()),
        ("outdev", entry.outdev()),
        ("mark", entry.mark()),
        ("uid", entry.uid()),
    ] {
        if let Some(value) = value {
            write!(line, " {name} {value}")?;
        }
    }
    write!(
        line,
        " prefix {:?}, {} bytes of payload",
        entry.prefix_lossy(),
        entry.payload().len()
    )?;
    if record.truncated() {
        line.push_str(", cut");
    }
    Ok(line)
}
