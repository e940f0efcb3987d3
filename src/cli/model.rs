//! The model's dimensions on the command line.

use std::path::Path;

use miette::Diagnostic;
use schedc::cost::{DEVICES, Device};
use schedc::ir::{Dims, Header, Precision, Stage};
use schedc::resolve::{Model, Partitioning};
use thiserror::Error;

use super::job::CostArg;
use super::{Failure, files};

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
    /// How activations lie in buffers: `f32`, or `bf16`, which devices train in [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = precision, help_heading = "Model")]
    precision: Option<Precision>,
    /// Layers on each stage: `uniform`, `balanced` by what layers cost, or a number for each [default: uniform]
    #[arg(long, value_name = "LAYERS", value_parser = spread, help_heading = "Model")]
    partition: Option<Spread>,
}

/// What is asked of the layers, before it is known what they cost.
#[derive(Clone, Debug)]
enum Spread {
    Uniform,
    Balanced,
    Given(Vec<u32>),
}

fn precision(text: &str) -> Result<Precision, String> {
    let found = Precision::WORDS.iter().find(|(_, word)| *word == text);
    found.map(|(precision, _)| *precision).ok_or_else(|| "write `f32` or `bf16`".to_owned())
}

fn spread(text: &str) -> Result<Spread, String> {
    let number = |part: &str| {
        let help = "write `uniform`, `balanced`, or the layers of each stage, such as `3,4,4,3`";
        part.trim().parse().map_err(|_| help.to_owned())
    };
    match text {
        "uniform" => Ok(Spread::Uniform),
        "balanced" => Ok(Spread::Balanced),
        _ => text.split(',').map(number).collect::<Result<_, _>>().map(Spread::Given),
    }
}

/// The model where nothing is said.
const DEFAULT: Dims = Dims {
    layers: 0,
    hidden: 64,
    heads: 4,
    sequence: 64,
    batch: 1,
    vocab: 256,
    tied: false,
    precision: Precision::F32,
};

/// A device that is shipped, by its name, or a device file.
pub(super) fn device(word: &str) -> Result<Device, Failure> {
    if let Some(shipped) = Device::shipped(word) {
        return Device::parse(&format!("stdlib/devices/{word}.toml"), shipped.text).map_err(Failure::one);
    }
    let path = Path::new(word);
    if !path.exists() && path.extension().is_none() {
        let names = DEVICES.iter().map(|device| device.name);
        let help = schedc::diag::nearest(word, names.clone()).map_or_else(
            || format!("name one of {}, or a device file", names.collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        return Err(Failure::usage(UnknownDevice { device: word.to_owned(), help }));
    }
    let text = files::text(path)?;
    Device::parse(word, &text).map_err(Failure::one)
}

/// A device that is neither shipped nor a file.
#[derive(Debug, Error, Diagnostic)]
#[error("there is no device `{device}`")]
#[diagnostic(code(schedc::cli::unknown_device), help("{help}"))]
struct UnknownDevice {
    device: String,
    help: String,
}

impl ModelArgs {
    /// The model: what the flags say, else what the model file of the costs does.
    pub(crate) fn model(&self, costs: &CostArg) -> Result<Model, Failure> {
        let file = costs.model_file()?.map(|file| file.dims);
        let base = file.unwrap_or(DEFAULT);
        let dims = Dims {
            layers: 0,
            hidden: self.hidden.unwrap_or(base.hidden),
            heads: self.heads.unwrap_or(base.heads),
            sequence: self.seq.unwrap_or(base.sequence),
            batch: self.batch.unwrap_or(base.batch),
            vocab: self.vocab.unwrap_or(base.vocab),
            tied: self.tied || base.tied,
            precision: self.precision.unwrap_or(base.precision),
        };
        let partition = match &self.partition {
            None | Some(Spread::Uniform) => Partitioning::Uniform,
            Some(Spread::Given(layers)) => Partitioning::Given(layers.clone()),
            Some(Spread::Balanced) => schedc::cost::balance(&dims),
        };
        let layers = self.layers.or(file.map(|file| file.layers));
        Ok(Model { layers, dims, partition })
    }

    /// The first flag that asks for another model than a plan was compiled for, and what the plan has.
    pub(crate) fn contradiction(&self, header: &Header) -> Option<(String, String)> {
        let dims = &header.model;
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
        let precision = || {
            let asked = self.precision.filter(|&asked| asked != dims.precision)?;
            Some((
                format!("--precision {}", asked.word()),
                format!("which was compiled for {}", dims.precision.word()),
            ))
        };
        flags
            .into_iter()
            .find_map(differs)
            .or_else(tied)
            .or_else(precision)
            .or_else(|| self.other_partition(header))
    }

    /// What is asked of the layers, where a plan has them otherwise.
    fn other_partition(&self, header: &Header) -> Option<(String, String)> {
        let each = |layers: &[u32]| layers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let depth = header.depth() as usize;
        let has: Vec<u32> = Stage::all(depth).map(|place| header.layers_of(place).len() as u32).collect();
        let asked = match self.partition.as_ref()? {
            Spread::Uniform if header.partition.is_uniform() => return None,
            Spread::Given(layers) if *layers == has => return None,
            Spread::Uniform => "uniform".to_owned(),
            Spread::Balanced => "balanced".to_owned(),
            Spread::Given(layers) => each(layers),
        };
        Some((format!("--partition {asked}"), format!("which was compiled for {}", each(&has))))
    }
}
