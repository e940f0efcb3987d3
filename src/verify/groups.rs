//! Rule 4: the members of a group issue the same collectives in the same order, as the catalog has them.
//!
//! A rank's collectives of one group on the compute lane (in lock step) and on the group's lane are two sequences: the two
//! lanes run side by side, so an executor needs a communicator for each.

use super::channels::Meetings;
use super::error::Rule;
use super::facts::Facts;
use super::names;
use super::report::{Place, Report};
use crate::ir::{CollectiveOp, GroupId, Instr, InstrId, Op, Payload, Rank};

/// How far each member of each group has come, in each of its two sequences.
struct Sequences {
    /// Where each group's members begin in `counts`.
    first: Vec<usize>,
    counts: Vec<[usize; 2]>,
    /// Members that were found out of order; from there on everything is displaced.
    lost: Vec<[bool; 2]>,
    /// What the first member of each group issues: the instruction's number and the payload.
    leads: Vec<[Vec<(InstrId, Payload)>; 2]>,
}

/// Reports collectives that do not meet or are not the catalog's. Returns whether all are well.
pub(super) fn check(facts: &Facts<'_>, meetings: &mut Meetings, report: &mut Report) -> bool {
    let groups = &facts.header.groups;
    let mut first = vec![0];
    for group in groups {
        first.push(first[first.len() - 1] + group.0.len());
    }
    let members = first[groups.len()];
    let mut sequences = Sequences {
        first,
        counts: vec![[0; 2]; members],
        lost: vec![[false; 2]; members],
        leads: groups.iter().map(|_| [Vec::new(), Vec::new()]).collect(),
    };
    let mut sound = true;
    for rank in Rank::all(facts.plan.ranks.len()) {
        for (id, instr) in facts.plan.ranks[rank.index()].instrs.iter().enumerate() {
            if let Op::Collective { payload, group, .. } = instr.op {
                let id = InstrId::new(id);
                sound &= declared(facts, rank, id, instr, report);
                sound &= sequences.issue(facts, rank, id, payload, group, meetings, report);
            }
        }
    }
    sound & sequences.compare_lengths(facts, report)
}

/// The instruction has the group, op, root and count that the catalog says.
fn declared(facts: &Facts<'_>, rank: Rank, id: InstrId, instr: &Instr, report: &mut Report) -> bool {
    let Op::Collective { payload, op, group, root, elements } = instr.op else { return true };
    let (want_op, want_root, want_elements, in_group) = match payload {
        Payload::Value { collective, microbatch } => {
            let (declared, flow) = (facts.catalog.collective(collective), facts.header.flow_of(microbatch));
            let elements = facts.elements(declared, flow);
            (declared.op, facts.root(declared, flow), elements, group == GroupId(0))
        }
        Payload::TiedGradient | Payload::StageGradient(_) => {
            let members = facts.sum_ranks(payload);
            let in_group = members.is_none_or(|ranks| facts.header.groups[group.index()].0 == ranks);
            (CollectiveOp::AllReduce, None, facts.sum_elements(payload), in_group)
        }
    };
    let place = Place::Instr(rank, id);
    let name = || names::payload(facts.header, payload);
    let root_name = |root: Option<Rank>| root.map_or("no rank".to_owned(), |root| root.to_string());
    if op != want_op {
        report.add(place, || Rule::GroupOp { collective: name(), found: op, wanted: want_op });
    }
    if root != want_root {
        report.add(place, || Rule::GroupRoot {
            collective: name(),
            found: root_name(root),
            wanted: root_name(want_root),
        });
    }
    if elements != want_elements {
        report.add(place, || Rule::GroupCount { collective: name(), found: elements, wanted: want_elements });
    }
    if !in_group {
        report.add(place, || Rule::WrongGroup { collective: name(), group });
    }
    op == want_op && root == want_root && elements == want_elements && in_group
}

impl Sequences {
    #[expect(clippy::too_many_arguments, reason = "one instruction's parts, used once")]
    fn issue(
        &mut self,
        facts: &Facts<'_>,
        rank: Rank,
        id: InstrId,
        payload: Payload,
        group: GroupId,
        meetings: &mut Meetings,
        report: &mut Report,
    ) -> bool {
        let members = &facts.header.groups[group.index()].0;
        // In the group of all ranks each rank is its own position.
        let all = members.get(rank.index()) == Some(&rank);
        let Ok(member) = (if all { Ok(rank.index()) } else { members.binary_search(&rank) }) else {
            report.add(Place::Instr(rank, id), || Rule::ForeignMember {
                collective: names::payload(facts.header, payload),
                group,
            });
            return false;
        };
        let lockstep = match payload {
            Payload::Value { collective, .. } => usize::from(facts.catalog.collective(collective).lockstep),
            Payload::TiedGradient | Payload::StageGradient(_) => 0,
        };
        let slot = self.first[group.index()] + member;
        let position = self.counts[slot][lockstep];
        self.counts[slot][lockstep] += 1;
        let leads = &mut self.leads[group.index()][lockstep];
        if member == 0 {
            leads.push((id, payload));
            return true;
        }
        let Some(&(lead, expected)) = leads.get(position) else {
            return true;
        };
        if expected == payload {
            meetings.joint.push((meetings.number(members[0], lead), meetings.number(rank, id)));
            return true;
        }
        if !std::mem::replace(&mut self.lost[slot][lockstep], true) {
            let lead = Place::Instr(members[0], lead);
            report.add_with(
                Place::Instr(rank, id),
                || Rule::GroupOrder {
                    group,
                    position,
                    found: names::payload(facts.header, payload),
                    wanted: names::payload(facts.header, expected),
                    leader: members[0],
                },
                || vec![(lead, "at the same place".to_owned())],
            );
        }
        false
    }

    /// Every member issues as many as the first.
    fn compare_lengths(&self, facts: &Facts<'_>, report: &mut Report) -> bool {
        let mut sound = true;
        for (group, members) in facts.header.groups.iter().enumerate() {
            for (member, &rank) in members.0.iter().enumerate() {
                let counts = self.counts[self.first[group] + member];
                for (count, lead) in counts.into_iter().zip(&self.leads[group]) {
                    if count != lead.len() {
                        sound = false;
                        report.add(Place::Rank(rank), || Rule::MissingMember {
                            group: GroupId::new(group),
                            found: count,
                            leader: members.0[0],
                            wanted: lead.len(),
                        });
                    }
                }
            }
        }
        sound
    }
}
