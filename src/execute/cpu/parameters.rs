//! All parameters of a rank.

use crate::execute::backend::{State, Tensor};
use crate::execute::model::{Held, Spec, Train};
use crate::ir::Stage;

use super::layer::Layer;
use super::norm::Norm;
use super::param::{Adam, Param};
use super::tables::Tables;

/// The parameters that lie on one rank.
#[derive(Clone)]
pub(super) struct Parameters {
    /// Embedding tables.
    pub(super) tables: Tables,
    /// Learned positions, where the pipeline starts.
    pub(super) positions: Option<Param>,
    /// The layers of each stage of the model that lies here, by `HeldStage::parameters`.
    pub(super) stages: Vec<Vec<Layer>>,
    /// The final norm, where the pipeline ends.
    pub(super) norm: Option<Norm>,
    /// Gradients of a stage end to end, for a sum over ranks.
    packed: Vec<f32>,
}

impl Parameters {
    /// Draws what a rank holds.
    pub(super) fn new(held: &Held, seed: u64) -> Self {
        let dims = &held.dims;
        let layers = |range: std::ops::Range<u32>| range.map(|index| Layer::new(dims, index, seed)).collect();
        Self {
            tables: Tables::new(held, seed),
            positions: held.first().then(|| Param::new(Spec::positions(dims), seed)),
            stages: held.distinct().map(|stage| layers(stage.layers.clone())).collect(),
            norm: held.last().then(|| Norm::new(Spec::norm(dims, "norm"), seed)),
            packed: Vec::new(),
        }
    }

    /// Makes room for the gradients of the largest stage.
    pub(super) fn with_packed(mut self, held: &Held) -> Self {
        let mut most = 0;
        for stage in held.distinct() {
            most = most.max(self.stage_params_mut(held, stage.place).map(|param| param.gradient.len()).sum());
        }
        self.packed = vec![0.0; most];
        self
    }

    /// The parameters of a stage of the model that two flows have copies of, in one order on every rank: not those that a transform
    /// shards, nor a tied embedding. None where it does not lie here.
    fn stage_params_mut(&mut self, held: &Held, place: Stage) -> impl Iterator<Item = &mut Param> {
        let at = held.stages.iter().find(|stage| stage.place == place);
        let (first, last) = (at.is_some_and(|at| at.first), at.is_some_and(|at| at.last));
        let layers = at.and_then(|at| self.stages.get_mut(at.parameters));
        let [input, output] = self.tables.separate_mut(held);
        let positions = self.positions.as_mut().filter(|_| first);
        let norm = self.norm.as_mut().filter(|_| last);
        let norm = norm.into_iter().flat_map(|norm| [&mut norm.weight, &mut norm.bias]);
        let ends = positions.into_iter().chain(input.filter(|_| first)).chain(norm);
        let layers = layers.into_iter().flatten().flat_map(Layer::params_mut);
        layers.chain(ends).chain(output.filter(|_| last))
    }

    /// Copies the gradients of a stage end to end.
    pub(super) fn pack(&mut self, held: &Held, stage: Stage) -> &mut [f32] {
        let mut packed = std::mem::take(&mut self.packed);
        let mut rest = &mut packed[..];
        for param in self.stage_params_mut(held, stage) {
            let (own, others) = rest.split_at_mut(param.gradient.len());
            own.copy_from_slice(&param.gradient);
            rest = others;
        }
        self.packed = packed;
        self.packed(held, stage)
    }

    /// The place of a stage's gradients end to end.
    pub(super) fn packed(&mut self, held: &Held, stage: Stage) -> &mut [f32] {
        let elements: usize = self.stage_params_mut(held, stage).map(|param| param.gradient.len()).sum();
        self.packed.get_mut(..elements).unwrap_or_default()
    }

    /// Takes the gradients of a stage from where they lie end to end.
    pub(super) fn unpack(&mut self, held: &Held, stage: Stage) {
        let packed = std::mem::take(&mut self.packed);
        let mut rest = &packed[..];
        for param in self.stage_params_mut(held, stage) {
            let (own, others) = rest.split_at(param.gradient.len());
            param.gradient.copy_from_slice(own);
            rest = others;
        }
        self.packed = packed;
    }

    /// Every parameter, in pipeline order.
    fn all(&self) -> impl Iterator<Item = &Param> {
        let layers = self.stages.iter().flatten().flat_map(Layer::params);
        let norm = self.norm.iter().flat_map(|norm| [&norm.weight, &norm.bias]);
        let input = self.tables.input_param().into_iter().chain(&self.positions);
        input.chain(layers).chain(norm).chain(self.tables.output_param())
    }

    /// Every parameter.
    fn all_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        let layers = self.stages.iter_mut().flatten().flat_map(Layer::params_mut);
        let norm = self.norm.iter_mut().flat_map(|norm| [&mut norm.weight, &mut norm.bias]);
        self.tables.params_mut().chain(&mut self.positions).chain(layers).chain(norm)
    }

    /// The views that leave the backend, with complete gradients.
    pub(super) fn tensors(&mut self) -> Vec<Tensor<'_>> {
        self.tables.settle();
        self.all().map(Param::tensor).collect()
    }

    /// Restores one parameter; false where it is not here or a length differs.
    pub(super) fn load(&mut self, name: &str, state: State<'_>) -> bool {
        self.all_mut().find(|param| param.name() == name).is_some_and(|param| param.load(state))
    }

    /// Step `t` of the optimizer, counted from 1.
    pub(super) fn step(&mut self, train: &Train, t: u64) {
        self.tables.settle();
        let adam = Adam::at(train, t);
        self.all_mut().for_each(|param| param.step(&adam));
    }

    /// Bytes of copies: of values, that products read, and of gradients end to end.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.all().map(Param::copies_bytes).sum::<u64>() + size_of_val(&self.packed[..]) as u64
    }

    /// Bytes of parameters, gradients and moments.
    pub(super) fn bytes(&self) -> u64 {
        let tables = self.tables.bytes();
        let own = |param: Option<&Param>| param.map_or(0, Param::bytes);
        let rest: u64 = self.all().map(Param::bytes).sum();
        tables + rest - own(self.tables.input_param()) - own(self.tables.output_param())
    }
}
