//! The embedding tables of a rank: whole or sharded, tied or not.

use crate::execute::model::Held;

use super::panels::Packed;
use super::param::Param;
use super::vector::{add, vectorised};

/// The input's and the output's embedding, as far as they lie here.
#[derive(Clone)]
pub(super) struct Tables {
    /// Rows of the input embedding, and of the output embedding where one parameter serves both.
    input: Option<Param>,
    /// Rows of the output embedding, where it is a parameter of its own here.
    output: Option<Param>,
    /// Where the input's parameter, whole, serves the output too: the gradient of that use, added to the other once a step, so
    /// that the sum does not depend on which rank computed which.
    output_gradient: Vec<f32>,
    /// Whether the input's parameter serves the output.
    serves_both: bool,
    /// Whether the plan sums the gradients of two whole copies.
    copied: bool,
}

/// The rows of the output embedding and their gradient.
pub(super) struct OutputTable<'a> {
    /// The rows, as positions in the vocabulary.
    pub(super) rows: std::ops::Range<usize>,
    /// `[rows, hidden]`.
    pub(super) value: &'a [f32],
    /// The same, packed.
    pub(super) packed: Packed<'a>,
    /// `[rows, hidden]`.
    pub(super) gradient: &'a mut [f32],
}

impl Tables {
    /// Draws the tables of a rank.
    pub(super) fn new(held: &Held, seed: u64) -> Self {
        let sharded = held.sharded_output;
        let serves_both = held.dims.tied && (sharded || (held.first() && held.last()));
        let input = held.input_table().map(|spec| Param::new(spec, seed));
        let input = if serves_both { input.map(Param::with_panels) } else { input };
        let output = held.output_table().filter(|_| !serves_both);
        let output = output.map(|spec| Param::new(spec, seed).with_panels());
        let separate =
            if serves_both && !sharded { input.as_ref().map_or(0, |table| table.value.len()) } else { 0 };
        let copied = held.dims.tied && !sharded;
        Self { input, output, output_gradient: vec![0.0; separate], serves_both, copied }
    }

    /// The rows of the input embedding.
    pub(super) fn input(&mut self) -> &mut Param {
        self.input.as_mut().expect("the input layer runs where its table lies")
    }

    /// The rows of the output embedding.
    pub(super) fn output(&mut self) -> OutputTable<'_> {
        let Self { input, output, output_gradient, serves_both, .. } = self;
        let table = if *serves_both { input } else { output };
        let table = table.as_mut().expect("the output layer runs where its table lies");
        let rows = table.rows();
        let gradient = if output_gradient.is_empty() { &mut table.gradient } else { output_gradient };
        OutputTable { rows, value: &table.value, packed: table.copies.plain(), gradient }
    }

    /// Adds the two gradients of a tied embedding that both accumulate here.
    pub(super) fn settle(&mut self) {
        if let Some(table) = self.input.as_mut().filter(|_| !self.output_gradient.is_empty()) {
            vectorised!(|| add(&mut table.gradient, &self.output_gradient));
            self.output_gradient.fill(0.0);
        }
    }

    /// The gradient of a whole copy of a tied embedding; empty where none lies here.
    pub(super) fn tied_gradient(&mut self) -> &mut [f32] {
        if !self.copied {
            return &mut [];
        }
        self.settle();
        match (&mut self.input, &mut self.output) {
            (Some(table), _) | (None, Some(table)) => &mut table.gradient,
            (None, None) => &mut [],
        }
    }

    /// The input's parameter.
    pub(super) fn input_param(&self) -> Option<&Param> {
        self.input.as_ref()
    }

    /// The output's parameter, where it is one of its own.
    pub(super) fn output_param(&self) -> Option<&Param> {
        self.output.as_ref()
    }

    /// The input's and the output's parameters, each where it is whole and the other is another.
    pub(super) fn separate_mut(&mut self, held: &Held) -> [Option<&mut Param>; 2] {
        let tied = held.dims.tied;
        let input = self.input.as_mut().filter(|_| !tied && !held.sharded_input);
        [input, self.output.as_mut().filter(|_| !tied && !held.sharded_output)]
    }

    /// All parameters.
    pub(super) fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        self.input.iter_mut().chain(self.output.iter_mut())
    }

    /// Bytes of parameters, gradients and moments.
    pub(super) fn bytes(&self) -> u64 {
        let params = self.input.iter().chain(self.output.iter());
        params.map(Param::bytes).sum::<u64>() + size_of_val(&self.output_gradient[..]) as u64
    }
}
