//! Indices into the per-CPU counter array that the programs keep.

/// What a probe counted. The value is the index into the `STATS` map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// `nf_log_packet` calls for an NFLOG rule of one of our groups, in a namespace that the agent reads.
    Logged = 0,
    /// Logged packets that got an owner.
    Attributed,
    /// Logged packets whose headers could not be read in the kernel.
    Unparsable,
    /// Logged packets whose answer was lost, because the agent was behind and the ring buffer full.
    AnswerLost,
    /// The socket map was full or refused an owner.
    SocketMapError,
    /// The connection tuple map was full or refused a socket.
    TupleMapError,
    /// The port map was full or refused a socket.
    PortMapError,
    /// The map that carries an argument from a probe to its return probe was full or refused it.
    ScratchMapError,
    /// A kernel struct could not be read.
    ReadError,
    /// Sockets stamped with an owner.
    Stamped,
    /// Sockets whose end was seen.
    Died,
    /// Sockets older than the agent that were given an owner, or marked as shared, at start.
    Seeded,
    /// Those among them that several processes share, so that none can be named.
    SeededShared,
    /// Processes made.
    Forks,
    /// Programs that processes began to run.
    Execs,
    /// Processes that ended.
    Exits,
    /// Of these three, those that the agent does not hear of, because the ring buffer was full.
    ProcessEventsLost,
}

impl Stat {
    /// All, in index order.
    pub const ALL: [Self; 17] = [
        Self::Logged,
        Self::Attributed,
        Self::Unparsable,
        Self::AnswerLost,
        Self::SocketMapError,
        Self::TupleMapError,
        Self::PortMapError,
        Self::ScratchMapError,
        Self::ReadError,
        Self::Stamped,
        Self::Died,
        Self::Seeded,
        Self::SeededShared,
        Self::Forks,
        Self::Execs,
        Self::Exits,
        Self::ProcessEventsLost,
    ];

    /// Label value in metrics and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logged => "logged",
            Self::Attributed => "attributed",
            Self::Unparsable => "unparsable",
            Self::AnswerLost => "answer-lost",
            Self::SocketMapError => "socket-map-error",
            Self::TupleMapError => "tuple-map-error",
            Self::PortMapError => "port-map-error",
            Self::ScratchMapError => "scratch-map-error",
            Self::ReadError => "read-error",
            Self::Stamped => "stamped",
            Self::Died => "died",
            Self::Seeded => "seeded",
            Self::SeededShared => "seeded-shared",
            Self::Forks => "forks",
            Self::Execs => "execs",
            Self::Exits => "exits",
            Self::ProcessEventsLost => "process-events-lost",
        }
    }
}
