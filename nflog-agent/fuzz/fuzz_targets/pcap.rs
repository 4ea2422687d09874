//! The program of target `pcap`.
#![cfg_attr(fuzzing, no_main)]

nflog_fuzz::program!(nflog_fuzz::pcap);
