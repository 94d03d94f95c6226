//! Mistakes that the decisions can be told to make, one at a time, so that the simulator can prove that it would find
//! them. Builds without debug assertions, which is what is released, have none of it: [`planted`] is `false` there.

/// A mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Of exports of equal age, the observer's own wins rather than the one with the first cluster id.
    OwnExportWinsTies,
    /// A list that broke off counts as complete.
    PruneOnInterruptedList,
    /// A tombstone is not read as a withdrawal.
    TombstoneIgnored,
    /// The deletion of a record at the broker is taken for a withdrawal.
    DeletionIsWithdrawal,
    /// More than half of the members may be dead at once.
    DeadWithoutQuorum,
    /// New addresses are allocated before every healthy member has said that its own are reserved.
    AllocationWithoutGate,
    /// An import's address is chosen anew rather than kept.
    AddressNotKept,
    /// A list from the past is believed.
    WentBackIgnored,
    /// A source serves a port if it has one of that name.
    PortsByName,
    /// An address is released when its holder exports no more, though others do.
    ReleasedWhileOthersExport,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OwnExportWinsTies,
        Self::PruneOnInterruptedList,
        Self::TombstoneIgnored,
        Self::DeletionIsWithdrawal,
        Self::DeadWithoutQuorum,
        Self::AllocationWithoutGate,
        Self::AddressNotKept,
        Self::WentBackIgnored,
        Self::PortsByName,
        Self::ReleasedWhileOthersExport,
    ];
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// From now on, all decisions of this thread make this mistake; or none.
#[cfg(debug_assertions)]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether this mistake is to be made.
#[cfg(debug_assertions)]
pub(super) fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Never.
#[cfg(not(debug_assertions))]
pub(super) const fn planted(_fault: Fault) -> bool {
    false
}
