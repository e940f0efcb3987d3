//! Rule 1: everything that must happen happens exactly once, where it belongs, and the optimizer step comes last.

use std::collections::BTreeMap;

use super::clocks::Clocks;
use super::error::Rule;
use super::facts::Facts;
use super::names;
use super::report::{Place, Report};
use crate::ir::{CollectiveId, InstrId, KindId, Microbatch, Op, Pass, Payload, Rank};

/// Nowhere in a list. A table of positions has an entry for each pass of a plan, of which there may be 10^7: 4 bytes each,
/// where an `Option` takes 8. No position is as large: `structure` refuses plans with 2^32 instructions.
const NOWHERE: u32 = u32::MAX;

/// Where each pass runs in the list of the rank that owns it.
pub(super) struct Placed {
    positions: Vec<u32>,
}

impl Placed {
    /// The position of a pass in its owner's list, if it runs there.
    pub(super) fn find(&self, facts: &Facts<'_>, pass: Pass) -> Option<InstrId> {
        let position = self.positions[facts.pass_index(pass)];
        (position != NOWHERE).then_some(InstrId(position))
    }
}

/// Reports passes, collectives and steps that are missing, too many or on the wrong rank.
pub(super) fn check(facts: &Facts<'_>, report: &mut Report) -> Placed {
    let mut placed = Placed { positions: vec![NOWHERE; facts.passes()] };
    let mut collectives = vec![NOWHERE; facts.catalog.collectives.len() * facts.units];
    for rank in Rank::all(facts.plan.ranks.len()) {
        collectives.fill(NOWHERE);
        let (mut tied, mut step) = (NOWHERE, NOWHERE);
        let mut copies = BTreeMap::new();
        for (id, instr) in facts.plan.ranks[rank.index()].instrs.iter().enumerate() {
            let id = InstrId::new(id);
            let place = Place::Instr(rank, id);
            let slot = match instr.op {
                Op::Pass(pass) if facts.rank_of(pass.site) != rank => {
                    report.add(place, || Rule::ForeignPass {
                        pass: names::pass(facts.header, pass),
                        owner: facts.rank_of(pass.site),
                    });
                    continue;
                }
                Op::Pass(pass) => &mut placed.positions[facts.pass_index(pass)],
                Op::Collective { payload: Payload::Value { collective, microbatch }, .. }
                    if facts.ranks > 1 =>
                {
                    &mut collectives[collective.index() * facts.units + microbatch.index()]
                }
                Op::Collective { payload, .. } if facts.needs_sum(payload, rank) => match payload {
                    Payload::StageGradient(stage) => copies.entry(stage).or_insert(NOWHERE),
                    _ => &mut tied,
                },
                Op::Collective { payload, .. } => {
                    let collective = names::payload(facts.header, payload);
                    report.add(place, || Rule::NeedlessCollective { collective });
                    continue;
                }
                Op::Step => &mut step,
                Op::Send { .. } | Op::Recv { .. } => continue,
            };
            if *slot == NOWHERE {
                *slot = id.0;
            } else {
                let first = (Place::Instr(rank, InstrId(*slot)), "already here".to_owned());
                report.add_with(place, || twice(facts, &instr.op, first.0), || vec![first.clone()]);
            }
        }
        absent(facts, rank, &collectives, report);
        if tied == NOWHERE && facts.needs_sum(Payload::TiedGradient, rank) {
            report.add(Place::Rank(rank), || Rule::MissingSum);
        }
        for &stage in facts.copies(rank).iter().filter(|stage| !copies.contains_key(stage)) {
            report.add(Place::Rank(rank), || Rule::MissingCopySum { stage });
        }
        if step == NOWHERE {
            report.add(Place::Rank(rank), || Rule::MissingStep);
        }
    }
    missing_passes(facts, &placed, report);
    placed
}

fn twice(facts: &Facts<'_>, op: &Op, first: Place) -> Rule {
    let what = names::op(facts.header, op);
    match op {
        Op::Pass(_) => Rule::DuplicatePass { pass: what, first },
        Op::Step => Rule::DuplicateStep { first },
        _ => Rule::DuplicateCollective { collective: what, first },
    }
}

fn absent(facts: &Facts<'_>, rank: Rank, collectives: &[u32], report: &mut Report) {
    if facts.ranks == 1 {
        return;
    }
    for (position, _) in collectives.iter().enumerate().filter(|(_, position)| **position == NOWHERE) {
        let payload = Payload::Value {
            collective: CollectiveId::new(position / facts.units),
            microbatch: Microbatch::new(position % facts.units),
        };
        report.add(Place::Rank(rank), || Rule::MissingCollective {
            collective: names::payload(facts.header, payload),
        });
    }
}

fn missing_passes(facts: &Facts<'_>, placed: &Placed, report: &mut Report) {
    if !placed.positions.contains(&NOWHERE) {
        return;
    }
    for kind in KindId::all(facts.catalog.kinds.len()) {
        for microbatch in Microbatch::all(facts.units) {
            for site in facts.sites_of_kind(kind, facts.header.flow_of(microbatch)) {
                let pass = Pass { kind, site, microbatch };
                if placed.find(facts, pass).is_none() {
                    report.add(Place::Rank(facts.rank_of(site)), || Rule::MissingPass {
                        pass: names::pass(facts.header, pass),
                    });
                }
            }
        }
    }
}

/// Reports a step that does not come after everything else on its rank.
pub(super) fn check_end(facts: &Facts<'_>, rank: Rank, clocks: &Clocks, report: &mut Report) {
    let instrs = &facts.plan.ranks[rank.index()].instrs;
    let steps = instrs.iter().enumerate().filter(|(_, instr)| instr.op == Op::Step);
    for (step, _) in steps {
        let step = InstrId::new(step);
        if let Some(other) = clocks.ends().find(|&end| end != step && !clocks.ordered(end, step)) {
            let other_place = Place::Instr(rank, other);
            report.add_with(
                Place::Instr(rank, step),
                || Rule::EarlyStep { other, what: names::op(facts.header, &instrs[other.index()].op) },
                || vec![(other_place, "may still run".to_owned())],
            );
        }
    }
}
