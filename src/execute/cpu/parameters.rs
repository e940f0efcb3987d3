//! All parameters of a rank.

use crate::execute::backend::{State, Tensor};
use crate::execute::model::{Held, Spec, Train};

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
    /// The layers of each stage that lies here, in pipeline order.
    pub(super) stages: Vec<Vec<Layer>>,
    /// The final norm, where the pipeline ends.
    pub(super) norm: Option<Norm>,
}

impl Parameters {
    /// Draws what a rank holds.
    pub(super) fn new(held: &Held, seed: u64) -> Self {
        let dims = &held.dims;
        let layers = |range: std::ops::Range<u32>| range.map(|index| Layer::new(dims, index, seed)).collect();
        Self {
            tables: Tables::new(held, seed),
            positions: held.first().then(|| Param::new(Spec::positions(dims), seed)),
            stages: held.stages.iter().map(|stage| layers(stage.layers.clone())).collect(),
            norm: held.last().then(|| Norm::new(Spec::norm(dims, "norm"), seed)),
        }
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

    /// Bytes of copies that products read.
    pub(super) fn copies_bytes(&self) -> u64 {
        self.all().map(Param::copies_bytes).sum()
    }

    /// Bytes of parameters, gradients and moments.
    pub(super) fn bytes(&self) -> u64 {
        let tables = self.tables.bytes();
        let own = |param: Option<&Param>| param.map_or(0, Param::bytes);
        let rest: u64 = self.all().map(Param::bytes).sum();
        tables + rest - own(self.tables.input_param()) - own(self.tables.output_param())
    }
}
