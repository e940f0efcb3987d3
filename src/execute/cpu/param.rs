//! A parameter with its gradient and the optimizer's moments; Adam.

use crate::execute::backend::{State, Tensor};
use crate::execute::model::{Spec, Train};

use super::panels::{Packed, Panels, lines};
use super::vector::vectorised;

/// A parameter, or this rank's rows of it.
#[derive(Clone)]
pub(super) struct Param {
    spec: Spec,
    /// Values, row by row.
    pub(super) value: Vec<f32>,
    /// Gradient of the step's mean loss, so far.
    pub(super) gradient: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    /// The same values in other forms.
    pub(super) copies: Copies,
}

/// Packed copies of a parameter's values, as products read them, renewed after each change.
#[derive(Clone, Default)]
pub(super) struct Copies {
    /// `[rows, columns]`.
    plain: Option<Panels>,
    /// `[columns, rows]`.
    turned: Option<Panels>,
}

impl Copies {
    /// `[rows, columns]`, packed.
    pub(super) fn plain(&self) -> Packed<'_> {
        self.plain.as_ref().expect("a parameter that products read is packed").all()
    }

    /// `[columns, rows]`, packed.
    pub(super) fn turned(&self) -> Packed<'_> {
        self.turned.as_ref().expect("a parameter that products read turned is packed so").all()
    }
}

impl Param {
    /// Draws a parameter.
    pub(super) fn new(spec: Spec, seed: u64) -> Self {
        let value = spec.values(seed);
        let zeros = vec![0.0; value.len()];
        Self {
            spec,
            value,
            gradient: zeros.clone(),
            first: zeros.clone(),
            second: zeros,
            copies: Copies::default(),
        }
    }

    /// Keeps the values packed from now on.
    pub(super) fn with_panels(mut self) -> Self {
        let (rows, columns) = self.sides();
        self.copies.plain = Some(Panels::new(lines(rows, columns)));
        self.renew();
        self
    }

    /// Keeps them turned and packed, too.
    pub(super) fn with_turned_panels(mut self) -> Self {
        let (rows, columns) = self.sides();
        self.copies.turned = Some(Panels::new(lines(columns, rows)));
        self.renew();
        self
    }

    /// Rows and columns of what lies here.
    fn sides(&self) -> (usize, usize) {
        let columns = self.spec.shape.last().map_or(1, |&columns| columns as usize).max(1);
        (self.value.len() / columns, columns)
    }

    /// Makes the copies anew.
    fn renew(&mut self) {
        let (rows, columns) = self.sides();
        let Copies { plain, turned } = &mut self.copies;
        if let Some(plain) = plain {
            plain.pack(&self.value, rows, columns, columns);
        }
        if let Some(turned) = turned {
            turned.pack_turned(&self.value, columns, rows, columns);
        }
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }

    /// The rows that lie here.
    pub(super) fn rows(&self) -> std::ops::Range<usize> {
        self.spec.rows.start as usize..self.spec.rows.end as usize
    }

    /// The view that leaves the backend.
    pub(super) fn tensor(&self) -> Tensor<'_> {
        Tensor {
            name: &self.spec.name,
            shape: &self.spec.shape,
            rows: self.spec.rows.clone(),
            value: &self.value,
            gradient: &self.gradient,
            first: &self.first,
            second: &self.second,
        }
    }

    /// Takes over values and moments; false where a length differs.
    pub(super) fn load(&mut self, state: State<'_>) -> bool {
        let fits = |slice: &[f32]| slice.len() == self.value.len();
        if !(fits(state.value) && fits(state.first) && fits(state.second)) {
            return false;
        }
        self.value.copy_from_slice(state.value);
        self.first.copy_from_slice(state.first);
        self.second.copy_from_slice(state.second);
        self.renew();
        true
    }

    /// Bytes of the copies.
    pub(super) fn copies_bytes(&self) -> u64 {
        let Copies { plain, turned } = &self.copies;
        plain.iter().chain(turned).map(Panels::bytes).sum()
    }

    /// Bytes of values, gradient and moments.
    pub(super) fn bytes(&self) -> u64 {
        16 * self.value.len() as u64
    }

    /// One step of Adam; zeroes the gradient.
    pub(super) fn step(&mut self, adam: &Adam) {
        let Adam { beta1, beta2, rate, root, eps, keep } = *adam;
        let Self { value, gradient, first, second, .. } = self;
        vectorised!(|| {
            let moments = first.iter_mut().zip(second.iter_mut());
            for ((value, gradient), (first, second)) in value.iter_mut().zip(gradient.iter_mut()).zip(moments)
            {
                let g = std::mem::take(gradient);
                *first = beta1.mul_add(*first, (1.0 - beta1) * g);
                *second = beta2.mul_add(*second, (1.0 - beta2) * g * g);
                *value = keep.mul_add(*value, -(rate * *first / second.sqrt().mul_add(root, eps)));
            }
        });
        self.renew();
    }
}

/// What one step of Adam multiplies with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adam {
    beta1: f32,
    beta2: f32,
    /// The learning rate over the first moment's bias.
    rate: f32,
    /// One over the root of the second moment's bias.
    root: f32,
    eps: f32,
    /// What weight decay leaves of a value.
    keep: f32,
}

impl Adam {
    /// The factors of step `t`, counted from 1.
    pub(super) fn at(train: &Train, t: u64) -> Self {
        let [rate, root, keep] = train.factors(t);
        let Train { beta1, beta2, eps, .. } = *train;
        Self { beta1, beta2, rate, root, eps, keep }
    }
}
