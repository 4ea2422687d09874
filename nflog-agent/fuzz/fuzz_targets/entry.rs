//! The program of target `entry`.
#![cfg_attr(fuzzing, no_main)]

nflog_fuzz::program!(nflog_fuzz::entry);
