//! Pages beside the reference: what the kernel does, how to size the buffers, and where everything of the Go library is.

#[doc = include_str!("guide/kernel.md")]
pub mod kernel {}

#[doc = include_str!("guide/sizes.md")]
pub mod sizes {}

#[doc = include_str!("guide/go_nflog.md")]
pub mod go_nflog {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Every exported identifier of go-nflog at a5e6b74 (`types.go`, `nflog.go`).
    const GO: &str = "
        Open Nflog Nflog.Con Nflog.Close Nflog.SetOption Nflog.Register Nflog.RegisterWithErrorFunc HookFunc ErrorFunc
        Logger Logger.Debugf Logger.Errorf
        Config Config.NetNS Config.Flags Config.QThresh Config.Timeout Config.Group Config.Copymode Config.Bufsize
        Config.Settings Config.ReadTimeout Config.Logger
        CopyNone CopyMeta CopyPacket FlagSeq FlagGlobal FlagConntrack GenericGroup ErrCopyMode ErrUnknownFlag
        Attribute Attribute.Hook Attribute.Mark Attribute.Timestamp Attribute.InDev Attribute.PhysInDev Attribute.OutDev
        Attribute.PhysOutDev Attribute.Payload Attribute.Prefix Attribute.UID Attribute.Seq Attribute.SeqGlobal Attribute.GID
        Attribute.HwType Attribute.HwAddr Attribute.HwHeader Attribute.HwLen Attribute.HwProtocol Attribute.CtInfo
        Attribute.Ct Attribute.Layer2Hdr Attribute.VLAN
        VLAN VLAN.Proto VLAN.TCI";

    /// Identifiers in the first column of the tables.
    fn mapped() -> BTreeSet<&'static str> {
        include_str!("guide/go_nflog.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"))
            .flat_map(|(cell, _)| cell.split(", "))
            .map(|identifier| identifier.trim_matches('`'))
            .collect()
    }

    #[test]
    fn the_table_has_every_identifier_of_the_go_library_and_no_other() {
        let go: BTreeSet<_> = GO.split_whitespace().collect();
        assert_eq!(mapped(), go);
    }
}
