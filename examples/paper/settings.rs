//! The settings of Yeung et al. 2024 (arXiv:2411.05288), tables 1 and 2, and its methods.

use schedc::cost::{Device, Optimizer, Precision, Rates, Recompute, Topology, Training};
use schedc::ir::Dims;
use schedc::resolve::Partitioning;

/// A model on so many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Table 5 has 1F1B, table 6 V-Half.
    pub(crate) table: u32,
    pub(crate) ranks: u32,
    pub(crate) layers: u32,
    pub(crate) heads: u32,
    pub(crate) hidden: u32,
}

/// Tables 1 and 2.
pub(crate) const SETTINGS: [Setting; 6] = [
    Setting { table: 5, ranks: 8, layers: 32, heads: 24, hidden: 3072 },
    Setting { table: 5, ranks: 16, layers: 48, heads: 32, hidden: 4096 },
    Setting { table: 5, ranks: 32, layers: 64, heads: 40, hidden: 5120 },
    Setting { table: 6, ranks: 16, layers: 32, heads: 32, hidden: 4096 },
    Setting { table: 6, ranks: 24, layers: 48, heads: 40, hidden: 5120 },
    Setting { table: 6, ranks: 32, layers: 64, heads: 48, hidden: 6144 },
];

pub(crate) const SEQUENCES: [u32; 2] = [2048, 4096];
pub(crate) const VOCABULARIES: [u32; 4] = [32_000, 64_000, 128_000, 256_000];
pub(crate) const MICROBATCHES: u32 = 128;

/// A way to place the vocabulary layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// On the end stages.
    Baseline,
    /// On the end stages, transformer layers redistributed.
    Redis,
    /// Sharded, two barriers.
    Vocab1,
    /// Sharded, one barrier.
    Vocab2,
    /// Sharded, in lock step.
    Interlaced,
}

impl Method {
    pub(crate) const ALL: [Self; 5] =
        [Self::Baseline, Self::Redis, Self::Vocab1, Self::Vocab2, Self::Interlaced];

    /// The methods of a table.
    pub(crate) fn of(table: u32) -> &'static [Self] {
        if table == 5 { &Self::ALL } else { &[Self::Baseline, Self::Vocab1] }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Baseline => "Baseline",
            Self::Redis => "Redis",
            Self::Vocab1 => "Vocab-1",
            Self::Vocab2 => "Vocab-2",
            Self::Interlaced => "Interlaced",
        }
    }

    /// The transform that does it.
    pub(crate) fn transform(self) -> Option<&'static str> {
        match self {
            Self::Baseline | Self::Redis => None,
            Self::Vocab1 => Some("vocab-1"),
            Self::Vocab2 => Some("vocab-2"),
            Self::Interlaced => Some("interlaced"),
        }
    }
}

/// One cell of the tables: a model of one vocabulary, trained by one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) setting: Setting,
    pub(crate) sequence: u32,
    pub(crate) vocab: u32,
    pub(crate) method: Method,
}

impl Case {
    /// All of both tables, line by line.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for setting in SETTINGS {
            for sequence in SEQUENCES {
                for &method in Method::of(setting.table) {
                    all.extend(VOCABULARIES.map(|vocab| Self { setting, sequence, vocab, method }));
                }
            }
        }
        all
    }

    pub(crate) fn schedule(&self) -> &'static str {
        if self.setting.table == 5 { "1f1b" } else { "v-half" }
    }

    pub(crate) fn dims(&self) -> Dims {
        let Setting { layers, heads, hidden, .. } = self.setting;
        Dims {
            layers,
            hidden,
            heads,
            sequence: self.sequence,
            batch: 1,
            vocab: self.vocab,
            tied: false,
            precision: schedc::ir::Precision::F32,
        }
    }

    /// Redis leaves the last stage as many layers as bring it, with the output layer, just above the mean, and spreads the others evenly:
    /// so are the stages of the runs in its artifact. (`--partition balanced` shortens the longest stage instead.)
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a model has few layers")]
    pub(crate) fn partition(&self) -> Partitioning {
        if self.method != Method::Redis {
            return Partitioning::Uniform;
        }
        let [layers, ranks] = [self.setting.layers, self.setting.ranks].map(f64::from);
        let [h, s, v] = [self.setting.hidden, self.sequence, self.vocab].map(f64::from);
        let output = 6.0 * v / (72.0 * h + 12.0 * s);
        let last = ((layers + output) / ranks - output).ceil().clamp(0.0, layers) as u32;
        let (rest, stages) = (self.setting.layers - last, self.setting.ranks - 1);
        let of = |stage: u32| rest / stages + u32::from(stage >= stages - rest % stages);
        Partitioning::Given((0..stages).map(of).chain([last]).collect())
    }
}

/// As Megatron-LM trains with a fused attention: 16 bits and Adam.
const TRAINING: Training = Training {
    precision: Precision::Bf16,
    gradients: Precision::Bf16,
    optimizer: Optimizer::Adam,
    recompute: Recompute::Selective,
    tensor_parallel: 1,
};

/// The paper's machines.
pub(crate) fn machines() -> Rates {
    let text = Device::shipped("a100-80g").expect("it is shipped").text;
    let device = Device::parse("a100-80g", text).expect("a test reads it");
    let topology =
        Topology::parse("topology.toml", include_str!("topology.toml")).expect("it stands beside this file");
    Rates { training: TRAINING, device, topology: Some(topology) }
}
