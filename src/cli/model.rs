//! The model's dimensions on the command line.

use schedc::ir::Dims;
use schedc::resolve::Model;

/// The model that buffers are sized for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// Transformer layers [default: one for each stage]
    #[arg(long, value_name = "N", help_heading = "Model")]
    layers: Option<u32>,
    /// Width of the residual stream [default: 64]
    #[arg(long, value_name = "N", help_heading = "Model")]
    hidden: Option<u32>,
    /// Attention heads; a divisor of the width [default: 4]
    #[arg(long, value_name = "N", help_heading = "Model")]
    heads: Option<u32>,
    /// Tokens in a sequence [default: 64]
    #[arg(long, value_name = "N", help_heading = "Model")]
    seq: Option<u32>,
    /// Sequences in a microbatch [default: 1]
    #[arg(long, value_name = "N", help_heading = "Model")]
    batch: Option<u32>,
    /// Entries of the vocabulary, at least the tokenizer's ids [default: 256]
    #[arg(long, value_name = "N", help_heading = "Model")]
    vocab: Option<u32>,
    /// Use one matrix for the input and the output embedding
    #[arg(long, help_heading = "Model")]
    tied: bool,
}

impl ModelArgs {
    /// The model.
    pub(crate) fn model(&self) -> Model {
        let dims = Dims {
            layers: 0,
            hidden: self.hidden.unwrap_or(64),
            heads: self.heads.unwrap_or(4),
            sequence: self.seq.unwrap_or(64),
            batch: self.batch.unwrap_or(1),
            vocab: self.vocab.unwrap_or(256),
            tied: self.tied,
        };
        Model { layers: self.layers, dims }
    }

    /// The first flag that asks for another model than a plan was compiled for, and what the plan has.
    pub(crate) fn contradiction(&self, dims: &Dims) -> Option<(String, String)> {
        let flags = [
            ("--layers", self.layers, dims.layers),
            ("--hidden", self.hidden, dims.hidden),
            ("--heads", self.heads, dims.heads),
            ("--seq", self.seq, dims.sequence),
            ("--batch", self.batch, dims.batch),
            ("--vocab", self.vocab, dims.vocab),
        ];
        let differs = |(flag, asked, has): (_, Option<u32>, u32)| {
            let asked = asked.filter(|&asked| asked != has)?;
            Some((format!("{flag} {asked}"), format!("which was compiled for {has}")))
        };
        let tied = || {
            let differs = self.tied && !dims.tied;
            differs.then(|| ("--tied".to_owned(), "whose embeddings are untied".to_owned()))
        };
        flags.into_iter().find_map(differs).or_else(tied)
    }
}
