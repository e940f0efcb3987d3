//! Gradients of parameters that lie on several ranks: what is summed before the optimizer's step, and among whom.
//!
//! A tied embedding lies whole on every rank that holds an end of a flow, unless a transform shards it. With two flows each stage of the
//! model has two copies; where both lie on one rank they are one, and there is nothing to sum.

use crate::ir::{Group, GroupId, Payload, Rank, Schedule, Stage};

/// Every sum of a plan, and the groups of the plan.
#[derive(Debug)]
pub(super) struct Sums {
    /// `g0` is all ranks, where there are several; the groups of the sums follow.
    pub(super) groups: Vec<Group>,
    /// In the order in which every rank issues its own.
    pub(super) all: Vec<Sum>,
}

/// One sum, in place, over a group.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) payload: Payload,
    pub(super) group: GroupId,
    /// Of the gradient.
    pub(super) shape: Vec<u64>,
}

impl Sums {
    /// Linear in stages.
    pub(super) fn of(schedule: &Schedule) -> Self {
        let p = schedule.shape.ranks as usize;
        let all = (p > 1).then(|| Group(Rank::all(p).collect()));
        let mut sums = Self { groups: all.into_iter().collect(), all: Vec::new() };
        if !schedule.mode.is_training() {
            return sums;
        }
        let (shape, model) = (&schedule.shape, &schedule.model);
        let sharded = [schedule.catalog.shards_input(), schedule.catalog.shards_output()];
        if model.tied && sharded == [false, false] {
            let ends = (0..shape.flows)
                .map(crate::ir::Flow)
                .flat_map(|flow| [shape.first_of(flow), shape.last_of(flow)]);
            let table = vec![u64::from(model.vocab), u64::from(model.hidden)];
            sums.add(Payload::TiedGradient, ends.map(|stage| shape.rank_of(stage)).collect(), table);
        }
        if shape.flows == 2 {
            for stage in Stage::all(shape.depth() as usize) {
                let copy = Stage(stage.0 + shape.depth());
                let ranks = vec![shape.rank_of(stage), shape.rank_of(copy)];
                let layers = shape.partition.layers_of(stage, shape.depth(), model).len();
                let elements = model.stage_parameters(layers, stage, shape.depth(), sharded);
                if elements > 0 {
                    sums.add(Payload::StageGradient(stage), ranks, vec![elements]);
                }
            }
        }
        sums
    }

    /// Adds a sum over these ranks, if they are several.
    fn add(&mut self, payload: Payload, mut ranks: Vec<Rank>, shape: Vec<u64>) {
        ranks.sort_unstable();
        ranks.dedup();
        if ranks.len() < 2 {
            return;
        }
        // The first group is for the catalog's collectives; a sum among all ranks still has a lane of its own.
        let known = self.groups.iter().skip(1).position(|group| group.0 == ranks);
        let group = known.map_or(self.groups.len(), |known| known + 1);
        if known.is_none() {
            self.groups.push(Group(ranks));
        }
        self.all.push(Sum { payload, group: GroupId::new(group), shape });
    }
}
