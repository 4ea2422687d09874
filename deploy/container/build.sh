#!/bin/sh
# What the image holds, below a directory: build.sh amd64|arm64 DIRECTORY [PROGRAM]
# PROGRAM is one that is built already; without it the agent is built, statically linked.
set -eu

arch=$1
out=$2
program=${3:-}

if [ -z "$program" ]; then
    case "$arch" in
    amd64)
        CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
            cargo build --release --locked --package nflog-agent --bin nflog-agent --target x86_64-unknown-linux-gnu
        program=target/x86_64-unknown-linux-gnu/release/nflog-agent
        strip=strip
        ;;
    arm64)
        cargo xtask arm64
        program=target/aarch64-unknown-linux-gnu/release/nflog-agent
        strip=aarch64-linux-gnu-strip
        ;;
    *)
        echo "build.sh: $arch: no such architecture here; amd64 and arm64 are" >&2
        exit 64
        ;;
    esac
    # Names of functions stay, for what a panic says; by cargo's setting the eBPF programs would lose their types.
    "$strip" --strip-debug "$program"
fi

install -D -m 755 "$program" "$out/usr/bin/nflog-agent"
# For collectors that speak TLS.
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/ca-certificates.crt"
install -D -m 644 -t "$out/usr/share/doc/nflog-agent" LICENSE-APACHE LICENSE-MIT
# Where the spool is, if a volume is mounted there; the root file system itself is read-only.
install -d -m 700 "$out/var/lib/nflog-agent"
