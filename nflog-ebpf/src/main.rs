//! eBPF programs of nflog-agent.
#![no_std]
#![no_main]
