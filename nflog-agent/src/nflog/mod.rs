//! NFLOG over netlink.
