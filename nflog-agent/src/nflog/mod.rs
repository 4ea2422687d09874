//! NFLOG over netlink: reading packets that netfilter rules log to a group (`nft … log group N`, `iptables -j NFLOG`).
//!
//! ```no_run
//! use nflog_agent::nflog::{Config, Nflog};
//!
//! let config = Config::builder().group(5).build()?;
//! let mut nflog = Nflog::open(&config)?;
//! while let Some(batch) = nflog.recv(None)? {
//!     for entry in batch {
//!         println!("{} {:?}", entry.prefix_lossy(), entry.payload());
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Three forms of the same reader: [`Nflog::recv`] waits in the calling thread; [`Nflog::register`] calls back from a thread of
//! its own; `AsyncNflog` waits on tokio, and turns into a `Stream` of owned entries (feature `async`).
//!
//! # Layout
//! [`Config`] (what to ask) → `bind` with `command` and `exchange` (asking) → [`Nflog`] (receiving) → [`Frames`] (messages of
//! a datagram) → `attr` (attributes of a message) → [`Entry`]. `seq` and `loss` keep the account of what did not arrive.
//! `groups` changes what an open reader reads, `close` ends it, `handover` passes it to another process, `generic_group` is about what no
//! rule logs.
//!
//! [`guide`] has a page on [what the kernel does](guide::kernel), on [choosing the sizes](guide::sizes), and one that
//! [maps every identifier of the Go library](guide::go_nflog).
//!
//! # Invariants
//! - An [`Entry`] borrows the receive buffer; between the kernel and its accessors nothing is copied or allocated.
//! - Every packet that the kernel numbers for a group between its bind and its unbind is handed out or counted in [`Loss`].
//! - Bytes from the kernel never panic; a packet's own contents are not looked at.
//! - Nothing else of this crate is used. `unsafe` is in `socket` only.

#[cfg(feature = "async")]
mod async_nflog;
mod attr;
mod batch;
mod bind;
#[cfg(feature = "serde")]
mod bit_names;
#[cfg(feature = "serde")]
mod byte_text;
mod close;
mod command;
mod config;
mod conntrack;
mod effective;
mod encode;
mod entry;
mod entry_buf;
#[cfg(feature = "serde")]
mod entry_serde;
mod error;
mod exchange;
mod flags;
mod frame;
mod generic_group;
mod groups;
pub mod guide;
mod handover;
mod hook;
mod loss;
mod netns;
#[cfg(feature = "pcap")]
pub mod pcap;
mod problems;
mod procfs;
mod reader;
mod register;
mod seq;
mod socket;
#[cfg(feature = "async")]
mod stream;
mod uapi;
mod waker;

#[cfg(feature = "async")]
pub use async_nflog::AsyncNflog;
pub use attr::{Attr, Attrs, BadLength};
pub use batch::Batch;
pub use config::{
    COPY_RANGE_MAX, Config, ConfigBuilder, NLBUFSIZ_MAX, RECEIVE_BUFFER_MAX, RECEIVE_BUFFER_MIN, TIMEOUT_MAX,
};
pub use conntrack::{
    Conntrack, ConntrackBuf, Counters, CtState, CtStatus, Dccp, ProtoInfo, Sctp, Tcp, TcpFlags, TcpState,
    Timestamps, Tuple, TupleProto,
};
pub use effective::{Effective, Warning};
pub use encode::EncodeError;
pub use entry::{Entry, Vlan};
pub use entry_buf::EntryBuf;
pub use error::{
    AdoptError, CloseError, ConfigError, ExchangeError, GroupOwner, NetnsError, OpenError, OwnerProcess,
    RecvError,
};
pub use flags::{CopyMode, Flags};
pub use frame::{Frame, Frames};
pub use handover::Handover;
pub use hook::{Family, Hook};
pub use loss::Loss;
pub use netns::Netns;
pub use problems::Problems;
pub use procfs::Instance;
pub use reader::Nflog;
pub use register::Registration;
pub use seq::{SeqTracker, Step};
#[cfg(feature = "agent")]
pub(crate) use socket::monotonic_ns;
#[cfg(feature = "async")]
pub use stream::EntryStream;
pub use waker::Waker;
