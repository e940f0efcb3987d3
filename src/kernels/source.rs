//! The kernels and the files that they lie in.

/// How activations lie in a device's memory. Statistics, gradients of parameters and master weights are f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// Four bytes: the mode for checks.
    F32,
    /// The upper two bytes of an f32: the mode for training.
    Bf16,
}

impl Stored {
    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Elements that a thread takes at once: 16 bytes of them.
    #[must_use]
    pub fn lanes(self) -> u32 {
        16 / self.bytes()
    }

    /// What the preprocessor is told.
    #[must_use]
    pub fn define(self) -> &'static str {
        match self {
            Self::F32 => "STORED_BF16=0",
            Self::Bf16 => "STORED_BF16=1",
        }
    }

    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// One file of kernels; a program for NVRTC.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The name of the file.
    pub file: &'static str,
    /// CUDA C++.
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [Kernel],
}

/// The headers that sources include: names, and texts.
pub const HEADERS: &[(&str, &str)] = &[
    ("common.cuh", include_str!("cuda/common.cuh")),
    ("tensor.cuh", include_str!("cuda/tensor.cuh")),
    ("attention_tensor.cuh", include_str!("cuda/attention_tensor.cuh")),
];

macro_rules! kernels {
    ($($file:literal { $($(#[$doc:meta])* $kernel:ident = $name:literal,)* })*) => {
        /// A kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kernel {
            $($($(#[$doc])* $kernel,)*)*
        }

        impl Kernel {
            /// Every kernel, file by file.
            pub const ALL: &[Self] = &[$($(Self::$kernel,)*)*];

            /// The symbol.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $($(Self::$kernel => $name,)*)*
                }
            }
        }

        /// All files.
        pub const SOURCES: &[Source] = &[$(Source {
            file: $file,
            text: include_str!(concat!("cuda/", $file)),
            kernels: &[$(Kernel::$kernel,)*],
        },)*];
    };
}

kernels! {
    "norm.cu" {
        /// Layer norm; keeps means and inverse deviations.
        LayerNormForward = "layer_norm_forward",
        /// The gradient by a layer norm's input.
        LayerNormBackward = "layer_norm_backward",
        /// Shares of chunks of rows in the gradients of a norm's weight and bias.
        LayerNormPartial = "layer_norm_partial",
        /// Shares of chunks of rows in the gradient of a bias.
        BiasPartial = "bias_partial",
        /// The sum of such shares.
        ColumnCollect = "column_collect",
    }
    "elementwise.cu" {
        /// GELU.
        GeluForward = "gelu_forward",
        /// GELU's slope times the gradient, in place.
        GeluBackward = "gelu_backward",
        /// Adds a bias to every row.
        BiasAdd = "bias_add",
        /// A step of Adam.
        Adam = "adam",
    }
    "embedding.cu" {
        /// Rows of a table by token, with or without positions.
        EmbeddingForward = "embedding_forward",
        /// Adds positions.
        PositionsAdd = "positions_add",
        /// The gradient of a table.
        EmbeddingBackward = "embedding_backward",
        /// The gradient of the positions.
        PositionsBackward = "positions_backward",
    }
    "vocabulary.cu" {
        /// Pass S: a shard's statistics in one read of its logits.
        VocabStatistics = "vocab_statistics",
        /// Algorithm 2's S: exponentials in place of logits.
        VocabExponentials = "vocab_exponentials",
        /// Algorithm 2's S: the sums out of the shard's gradient.
        VocabNormalise = "vocab_normalise",
        /// The statistics of all ranks combined.
        VocabCombine = "vocab_combine",
        /// Pass T: the gradient by the logits, in place.
        VocabGradient = "vocab_gradient",
        /// Algorithm 2's rescale between the gather and the sum.
        VocabRescale = "vocab_rescale",
        /// The mean of the tokens' losses.
        VocabLoss = "vocab_loss",
    }
    "attention.cu" {
        /// Attention; keeps the logarithms of the rows' sums.
        AttentionForward = "attention_forward",
        /// Rows of the output times rows of its gradient.
        AttentionProducts = "attention_products",
        /// The gradient of the queries.
        AttentionQueries = "attention_queries",
        /// The gradients of keys and values of one slice.
        AttentionKeys = "attention_keys",
    }
}
