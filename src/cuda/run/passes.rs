//! A pass -> the calls that compute it.

use super::calls::Calls;
use super::layer::{Before, Emit};
use super::ranks::RankState;
use super::shape::{ActAt, DeltaAt, OutputAt};
use super::vocabulary::{Gathered, Ids};
use crate::cuda::{Address, Argument, Queue};
use crate::execute::model::HeldStage;
use crate::execute::views::{Place, Places};
use crate::ir::{Compute, Pass, Site};

/// The ids of all units on the device: tokens, then targets of one, then those of the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub(super) start: Address,
    /// Tokens of a unit.
    pub(super) tokens: u32,
}

impl Feed {
    fn of(self, unit: u32) -> Ids {
        let each = 4 * u64::from(self.tokens);
        let tokens = self.start.plus(2 * each * u64::from(unit));
        Ids { tokens, targets: tokens.plus(each) }
    }
}

/// Lists of the states of earlier slices, which kernels read on the device.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) start: Address,
    /// What is to be written there.
    pub(super) pointers: Vec<u64>,
}

impl Lists {
    /// Notes the places of queries, keys and values.
    fn note(&mut self, acts: &[ActAt]) -> Argument {
        if acts.is_empty() {
            return Argument::NOTHING;
        }
        let at = self.start.plus(8 * self.pointers.len() as u64);
        self.pointers.extend(acts.iter().map(|act| act.qkv.0));
        Argument::At(at)
    }
}

/// What a pass runs with.
pub(super) struct PassRun<'a> {
    pub(super) rank: &'a RankState,
    pub(super) pass: Pass,
    pub(super) places: &'a Places,
    pub(super) feed: Feed,
    pub(super) lists: &'a mut Lists,
    /// Whether the exponentials took the logits' place: algorithm 2.
    pub(super) exponentials: bool,
    /// Whether the pass runs beside the compute lane.
    pub(super) beside: bool,
}

/// Whether a backward pass computes the weight gradient, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backward {
    Fused,
    InputOnly,
}

impl PassRun<'_> {
    /// Where a buffer of the pass lies, if it has it.
    fn view(&self, place: Place) -> Option<Address> {
        let range = &self.places.ranges[place as usize];
        self.places.has(place).then(|| self.rank.arena.plus(4 * range.start as u64))
    }

    /// A buffer that the contract of the model makes sure of.
    fn must(&self, place: Place) -> Address {
        self.view(place).expect("the contract: a pass has the buffers that it computes with")
    }

    fn ids(&self) -> Ids {
        self.feed.of(self.pass.microbatch.0)
    }

    /// Units that a step's mean loss is taken over.
    fn units(&self) -> u32 {
        self.rank.held.cut.units()
    }

    fn slice(&self) -> u32 {
        self.rank.held.cut.slice(self.pass.microbatch)
    }

    /// Where the unit's mean loss goes.
    fn loss(&self) -> Address {
        self.rank.losses.plus(4 * u64::from(self.pass.microbatch.0))
    }

    fn gathered(&self) -> Gathered {
        let held = &self.rank.held;
        Gathered { stats: self.must(Place::StatsRead), rank: held.rank.0, ranks: held.ranks }
    }

    /// The calls of the pass; whether they give a loss.
    pub(super) fn run(&mut self, compute: Compute, queue: Queue, calls: &mut Calls) -> bool {
        let RankState { shape, mut scratch, .. } = *self.rank;
        if self.beside {
            scratch.combined = scratch.rescaled;
        }
        let emit = &mut Emit { calls, queue, shape, scratch };
        match compute {
            Compute::StageForward => return self.forward(emit),
            Compute::StageBackward => self.backward(emit, Backward::Fused),
            Compute::StageInputGrad => self.backward(emit, Backward::InputOnly),
            Compute::StageWeightGrad => self.weight_gradient(emit),
            Compute::InputLookup => {
                if let (Some(table), Some(x)) = (&self.rank.parameters.input, self.view(Place::XWrite)) {
                    emit.lookup(table, x, self.ids(), Argument::NOTHING);
                }
            }
            Compute::InputScatter => {
                if let Some(table) = &self.rank.parameters.input {
                    emit.scatter(table, self.must(Place::DxRead), self.ids());
                }
            }
            Compute::OutputLoss => {
                emit.output_loss(self.gathered(), self.loss());
                return true;
            }
            Compute::Release => {}
            _ => return self.output(emit, compute),
        }
        false
    }

    /// A pass of a sharded output layer.
    fn output(&mut self, emit: &mut Emit<'_>, compute: Compute) -> bool {
        let (ids, units) = (self.ids(), self.units());
        let Some(table) = &self.rank.parameters.output else { return false };
        let dx = self.view(Place::DxWrite);
        match compute {
            Compute::OutputSoftmax | Compute::OutputSoftmaxGrad => {
                // Without a reader of the statistics there is nobody to compute for.
                let Some(stats) = self.view(Place::StatsWrite) else { return false };
                let (x, kept) = (self.must(Place::XRead), self.must(Place::Logits));
                emit.softmax(table, x, kept, stats, ids);
                if compute == Compute::OutputSoftmaxGrad {
                    emit.exponentials(table, kept, stats, dx);
                }
                false
            }
            Compute::OutputRescale => {
                if let Some(dx) = dx {
                    emit.rescale(table, dx, self.must(Place::DxRead), self.gathered(), ids, units);
                }
                false
            }
            _ => {
                let dx = dx.filter(|_| compute == Compute::OutputGrad);
                let (kept, gathered) = (self.must(Place::Logits), self.gathered());
                emit.output_gradient(table, kept, gathered, ids, [units, self.exponentials.into()], dx);
                emit.combined_loss(self.loss());
                true
            }
        }
    }

    /// The stage; a verified plan runs its passes on the rank that holds it.
    fn stage(&self) -> &HeldStage {
        let is = |stage: &&HeldStage| Site::Stage(stage.stage) == self.pass.site;
        self.rank.held.stages.iter().find(is).expect("a stage's passes run on the rank that holds it")
    }

    /// One layer's share of the state of earlier slices.
    fn earlier(&self, layer: usize) -> Vec<ActAt> {
        let start = |range: &std::ops::Range<usize>| self.rank.arena.plus(4 * range.start as u64);
        let sizes = &self.rank.held.sizes;
        self.places.earlier.iter().map(|range| ActAt::of(sizes, start(range), layer)).collect()
    }

    /// The stage's layers forward, and on the end stages the vocabulary layers that no transform took away.
    fn forward(&mut self, emit: &mut Emit<'_>) -> bool {
        let rank = self.rank;
        let (held, parameters, sizes) = (&rank.held, &rank.parameters, &rank.held.sizes);
        let stage = self.stage().clone();
        let layers = parameters.layers(stage.parameters);
        let act = self.must(Place::Act);
        let output = OutputAt::of(sizes, act, layers.len(), held.sharded_output);
        let end =
            if stage.last { output.input } else { self.view(Place::XWrite).unwrap_or(emit.scratch.stream) };
        let input = |layer| if layer < layers.len() { ActAt::of(sizes, act, layer).input } else { end };
        let start = input(0);
        let positions = parameters.positions.as_ref().filter(|_| stage.first);
        match (self.view(Place::XRead), positions) {
            (Some(x), positions) => {
                emit.copy(start, x);
                if let Some(positions) = positions {
                    emit.add_positions(self.slice(), positions, start);
                }
            }
            (None, Some(positions)) => {
                let positions = emit.positions(self.slice(), positions);
                if let Some(table) = &parameters.input {
                    emit.lookup(table, start, self.ids(), positions);
                }
            }
            (None, None) => {}
        }
        for (index, layer) in layers.iter().enumerate() {
            let acts = self.earlier(index);
            let before = Before { acts: &acts, list: self.lists.note(&acts) };
            emit.layer_forward(layer, &ActAt::of(sizes, act, index), before, input(index + 1));
        }
        let Some(norm) = parameters.norm.as_ref().filter(|_| stage.last) else { return false };
        if held.sharded_output {
            let normed = self.view(Place::XWrite).unwrap_or(emit.scratch.stream);
            emit.norm(normed, output.stats, output.input, norm);
            return false;
        }
        emit.norm(output.normed, output.stats, output.input, norm);
        let Some(table) = &parameters.output else { return false };
        emit.output_forward(table, &output, self.ids(), self.units(), self.loss());
        true
    }

    /// The stage's layers backward.
    fn backward(&mut self, emit: &mut Emit<'_>, which: Backward) {
        let rank = self.rank;
        let (held, parameters, sizes) = (&rank.held, &rank.parameters, &rank.held.sizes);
        let stage = self.stage().clone();
        let layers = parameters.layers(stage.parameters);
        let act = self.must(Place::Act);
        let gradient = self.view(Place::DxWrite).unwrap_or(emit.scratch.gradient);
        if let Some(norm) = parameters.norm.as_ref().filter(|_| stage.last) {
            let kept = OutputAt::of(sizes, act, layers.len(), held.sharded_output);
            let table = parameters.output.as_ref().filter(|_| !held.sharded_output);
            let branch = if let Some(table) = table {
                emit.output_input(table, emit.scratch.branch, kept.logits);
                emit.scratch.branch
            } else {
                self.must(Place::DxRead)
            };
            emit.calls.zero(emit.queue, gradient, emit.shape.wide_bytes());
            emit.norm_gradients(gradient, branch, kept.input, kept.stats, norm);
            if let Some(table) = table.filter(|_| which == Backward::Fused) {
                emit.output_weight(table, kept.normed, kept.logits);
            }
        } else if let Some(dx) = self.view(Place::DxRead) {
            emit.copy(gradient, dx);
        }
        for (index, layer) in layers.iter().enumerate().rev() {
            let act = ActAt::of(sizes, act, index);
            let acts = self.earlier(index);
            let before = Before { acts: &acts, list: self.lists.note(&acts) };
            let delta = match which {
                Backward::Fused => DeltaAt::of(sizes, emit.scratch.delta, 0),
                Backward::InputOnly => DeltaAt::of(sizes, self.must(Place::Delta), index),
            };
            emit.layer_input_gradient(layer, &act, before, &delta, gradient);
            if which == Backward::Fused {
                emit.layer_weight_gradient(layer, &act, &delta);
            }
        }
        let Some(positions) = parameters.positions.as_ref().filter(|_| stage.first) else { return };
        emit.positions_gradient(self.slice(), positions, gradient);
        if let Some(table) = parameters.input.as_ref().filter(|_| !held.sharded_input) {
            emit.scatter(table, gradient, self.ids());
        }
    }

    /// The weight gradients that [`Backward::InputOnly`] left.
    fn weight_gradient(&mut self, emit: &mut Emit<'_>) {
        let rank = self.rank;
        let (held, parameters, sizes) = (&rank.held, &rank.parameters, &rank.held.sizes);
        let stage = self.stage();
        let layers = parameters.layers(stage.parameters);
        let act = self.must(Place::Act);
        let table = parameters.output.as_ref().filter(|_| stage.last && !held.sharded_output);
        if let Some(table) = table {
            let kept = OutputAt::of(sizes, act, layers.len(), held.sharded_output);
            emit.output_weight(table, kept.normed, kept.logits);
        }
        let delta = self.must(Place::Delta);
        for (index, layer) in layers.iter().enumerate().rev() {
            let (act, delta) = (ActAt::of(sizes, act, index), DeltaAt::of(sizes, delta, index));
            emit.layer_weight_gradient(layer, &act, &delta);
        }
    }
}
