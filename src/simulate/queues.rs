//! Plan -> its lanes as queues, and what meets what across ranks.

use crate::ir::{GroupId, Lane, LaneId, Op, Plan, Rank, RankPlan};

/// Every lane of every rank, in one numbering: rank by rank, lane by lane.
pub(super) struct Queues {
    /// Where each rank's instructions begin among those of all ranks, by rank, and the end of the last.
    pub(super) bases: Vec<usize>,
    /// Where each lane begins in `instrs`, and the end of the last.
    pub(super) starts: Vec<usize>,
    /// The instructions of each lane, by their number on their rank.
    pub(super) instrs: Vec<u32>,
    /// Where each rank's lanes begin, by rank, and the end of the last.
    pub(super) lane_bases: Vec<usize>,
    /// The rank of each lane.
    pub(super) ranks: Vec<Rank>,
    /// For a lane of receives, the peer's lane of sends to it.
    pub(super) peers: Vec<Option<usize>>,
    /// For each instruction of all ranks that is a collective, its meeting.
    pub(super) meetings: Vec<u32>,
    /// How many members each meeting has.
    pub(super) members: Vec<u32>,
}

impl Queues {
    pub(super) fn of(plan: &Plan) -> Self {
        let sums = |counts: &mut dyn Iterator<Item = usize>| {
            let mut end = 0;
            let mut starts = vec![0];
            starts.extend(counts.map(|count| {
                end += count;
                end
            }));
            starts
        };
        let bases = sums(&mut plan.ranks.iter().map(|rank| rank.instrs.len()));
        let lane_bases = sums(&mut plan.ranks.iter().map(|rank| rank.lanes.len()));
        let mut counts = vec![0; lane_bases[plan.ranks.len()]];
        let mut ranks = Vec::with_capacity(counts.len());
        for (index, rank) in plan.ranks.iter().enumerate() {
            rank.instrs.iter().for_each(|instr| counts[lane_bases[index] + instr.lane.index()] += 1);
            ranks.extend(rank.lanes.iter().map(|_| Rank::new(index)));
        }
        let starts = sums(&mut counts.iter().copied());
        let mut ends = starts.clone();
        let mut instrs = vec![0; bases[plan.ranks.len()]];
        for (rank, &lane_base) in plan.ranks.iter().zip(&lane_bases) {
            for (instr, number) in rank.instrs.iter().zip(0..) {
                let end = &mut ends[lane_base + instr.lane.index()];
                instrs[*end] = number;
                *end += 1;
            }
        }
        let peers = peers(plan, &lane_bases);
        let (meetings, members) = meetings(plan, &bases);
        Self { bases, starts, instrs, lane_bases, ranks, peers, meetings, members }
    }
}

impl Queues {
    /// The number of a rank's lane among those of all ranks.
    pub(super) fn lane_of(&self, rank: Rank, lane: LaneId) -> usize {
        self.lane_bases[rank.index()] + lane.index()
    }

    /// The send, among the instructions of all ranks, that the receive at a position of a lane meets.
    pub(super) fn send_of(&self, lane: usize, position: usize) -> usize {
        let peer = self.peers[lane].expect("a verified plan has a send for each receive");
        let turn = position - self.starts[lane];
        let number = self.instrs[self.starts[peer] + turn];
        self.bases[self.ranks[peer].index()] + number as usize
    }
}

/// The lane of sends for each lane of receives.
fn peers(plan: &Plan, lane_bases: &[usize]) -> Vec<Option<usize>> {
    let sorted = |rank: &RankPlan| {
        let mut lanes: Vec<(Lane, usize)> = rank.lanes.iter().copied().zip(0..).collect();
        lanes.sort_unstable();
        lanes
    };
    let sorted: Vec<_> = plan.ranks.iter().map(sorted).collect();
    let ranks = plan.ranks.iter().zip(Rank::all(plan.ranks.len()));
    let lanes = ranks.flat_map(|(rank, id)| rank.lanes.iter().map(move |lane| (lane, id)));
    let peer = |(lane, id): (&Lane, Rank)| {
        let &Lane::Recv(from) = lane else { return None };
        let lanes = &sorted[from.index()];
        let found = lanes.binary_search_by_key(&Lane::Send(id), |&(lane, _)| lane).ok()?;
        Some(lane_bases[from.index()] + lanes[found].1)
    };
    lanes.map(peer).collect()
}

/// The meeting of each collective instruction and the number of members of each meeting. A group's collectives on the compute lanes and
/// those on its own lanes are two sequences; the k-th of each member meet.
fn meetings(plan: &Plan, bases: &[usize]) -> (Vec<u32>, Vec<u32>) {
    let groups = &plan.header.groups;
    let sequence = |group: GroupId, lane: LaneId| 2 * group.index() + usize::from(lane.index() == 0);
    let mut firsts = vec![0; 2 * groups.len() + 1];
    for (index, group) in groups.iter().enumerate() {
        let Some(lead) = group.0.first() else { continue };
        for instr in &plan.ranks[lead.index()].instrs {
            if let Op::Collective { group, .. } = instr.op
                && group.index() == index
            {
                firsts[sequence(group, instr.lane) + 1] += 1;
            }
        }
    }
    for at in 1..firsts.len() {
        firsts[at] += firsts[at - 1];
    }
    let mut members = Vec::with_capacity(firsts[2 * groups.len()]);
    for (at, ends) in firsts.windows(2).enumerate() {
        members.resize(members.len() + ends[1] - ends[0], groups[at / 2].0.len() as u32);
    }
    let mut meetings = vec![0; bases[plan.ranks.len()]];
    for (rank, &base) in plan.ranks.iter().zip(bases) {
        let mut next = firsts.clone();
        for (instr, at) in rank.instrs.iter().zip(base..) {
            if let Op::Collective { group, .. } = instr.op {
                let next = &mut next[sequence(group, instr.lane)];
                meetings[at] = u32::try_from(*next).expect("a plan has less than 2^32 instructions");
                *next += 1;
            }
        }
    }
    (meetings, members)
}
