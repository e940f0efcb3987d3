//! Parameters by name: shapes, rows, and the values that they start with.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use crate::ir::Dims;

/// A parameter, or the rows of it that one rank owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name, the same on every rank: `layers.3.attention.qkv.weight`.
    pub name: String,
    /// The shape of the whole: `[outputs, inputs]` or `[width]`.
    pub shape: Vec<u64>,
    /// The rows along the first side that lie here.
    pub rows: Range<u64>,
    /// What it starts with.
    pub draw: Draw,
}

/// What a parameter starts with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Draw {
    /// The same value everywhere.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
}

/// The standard deviation of initial weights (Radford et al. 2019, GPT-2).
const DEVIATION: f32 = 0.02;

impl Spec {
    /// The whole of a parameter.
    fn whole(name: String, shape: Vec<u64>, draw: Draw) -> Self {
        Self { name, rows: 0..shape[0], shape, draw }
    }

    /// Rows of the token embedding; of the head, where embeddings are tied.
    #[must_use]
    pub fn tokens(dims: &Dims, rows: Range<u64>) -> Self {
        let shape = vec![dims.vocab.into(), dims.hidden.into()];
        Self { name: "embedding.tokens.weight".to_owned(), shape, rows, draw: Draw::Normal(DEVIATION) }
    }

    /// Rows of the output embedding.
    #[must_use]
    pub fn head(dims: &Dims, rows: Range<u64>) -> Self {
        if dims.tied {
            return Self::tokens(dims, rows);
        }
        Self { name: "head.weight".to_owned(), ..Self::tokens(dims, rows) }
    }

    /// The learned positions, `[sequence, hidden]`.
    #[must_use]
    pub fn positions(dims: &Dims) -> Self {
        let shape = vec![dims.sequence.into(), dims.hidden.into()];
        Self::whole("embedding.positions.weight".to_owned(), shape, Draw::Normal(DEVIATION))
    }

    /// Weight and bias of a norm: `prefix.weight`, `prefix.bias`.
    #[must_use]
    pub fn norm(dims: &Dims, prefix: &str) -> [Self; 2] {
        let shape = vec![dims.hidden.into()];
        [
            Self::whole(format!("{prefix}.weight"), shape.clone(), Draw::Constant(1.0)),
            Self::whole(format!("{prefix}.bias"), shape, Draw::Constant(0.0)),
        ]
    }

    /// Weight `[outputs, inputs]` and bias of a linear layer. Those that add to the residual stream start smaller, by the root
    /// of how often that happens.
    #[must_use]
    pub fn linear(dims: &Dims, prefix: &str, outputs: u64, inputs: u64, residual: bool) -> [Self; 2] {
        #[allow(clippy::cast_precision_loss, reason = "a model has few layers")]
        let adds = (2 * dims.layers.max(1)) as f32;
        let deviation = if residual { DEVIATION / adds.sqrt() } else { DEVIATION };
        [
            Self::whole(format!("{prefix}.weight"), vec![outputs, inputs], Draw::Normal(deviation)),
            Self::whole(format!("{prefix}.bias"), vec![outputs], Draw::Constant(0.0)),
        ]
    }

    /// Weights and biases of a layer, in the order of the forward pass: norm, queries with keys and values, attention's output, norm, the
    /// MLP's two.
    #[must_use]
    pub fn layer(dims: &Dims, index: u32) -> [[Self; 2]; 6] {
        let h = u64::from(dims.hidden);
        let name = |part: &str| format!("layers.{index}.{part}");
        [
            Self::norm(dims, &name("norm1")),
            Self::linear(dims, &name("attention.qkv"), 3 * h, h, false),
            Self::linear(dims, &name("attention.out"), h, h, true),
            Self::norm(dims, &name("norm2")),
            Self::linear(dims, &name("mlp.up"), 4 * h, h, false),
            Self::linear(dims, &name("mlp.down"), h, 4 * h, true),
        ]
    }

    /// Elements of a row.
    #[must_use]
    pub fn width(&self) -> u64 {
        self.shape[1..].iter().product()
    }

    /// Elements that lie here.
    #[must_use]
    pub fn elements(&self) -> u64 {
        (self.rows.end - self.rows.start).saturating_mul(self.width())
    }

    /// The initial values of the rows that lie here. Each row is drawn by (seed, name, row), so that a shard's rows are those of
    /// the whole.
    #[must_use]
    pub fn values(&self, seed: u64) -> Vec<f32> {
        let deviation = match self.draw {
            Draw::Constant(value) => return vec![value; self.elements() as usize],
            Draw::Normal(deviation) => deviation,
        };
        let mut values = Vec::with_capacity(self.elements() as usize);
        for row in self.rows.clone() {
            let mut generator = ChaCha8Rng::from_seed(row_seed(seed, &self.name, row));
            values.extend((0..self.width()).map(|_| {
                let unit: f32 = StandardNormal.sample(&mut generator);
                unit * deviation
            }));
        }
        values
    }
}

/// The generator's seed for one row.
fn row_seed(seed: u64, name: &str, row: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(row.to_le_bytes());
    hash.update(name.as_bytes());
    hash.finalize().into()
}
