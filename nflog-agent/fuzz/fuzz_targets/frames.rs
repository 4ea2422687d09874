//! The program of target `frames`.
#![cfg_attr(fuzzing, no_main)]

nflog_fuzz::program!(nflog_fuzz::frames);
