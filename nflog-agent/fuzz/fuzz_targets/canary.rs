//! The program of target `canary`.
#![cfg_attr(fuzzing, no_main)]

nflog_fuzz::program!(nflog_fuzz::canary);
