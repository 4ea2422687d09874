//! The program of target `conntrack`.
#![cfg_attr(fuzzing, no_main)]

nflog_fuzz::program!(nflog_fuzz::conntrack);
