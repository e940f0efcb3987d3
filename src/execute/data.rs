//! The text that a model learns: tokens of a file or of the project's own documents, cut into batches.
//!
//! A batch depends on nothing but the seed, the step, the microbatch and the row, so that any run, resumed or on other ranks, sees
//! the same tokens.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::backend::Batch;
use super::error::ExecuteError;
use super::tokenizer::Tokenizer;
use crate::ir::{Dims, Microbatch};
use crate::source::STDLIB;

/// The largest text that is read.
pub const LONGEST_TEXT: u64 = 1 << 30;

/// The project's documents that are no part of the standard library.
const DOCUMENTS: &[&str] = &[
    include_str!("../../README.md"),
    include_str!("../../docs/language.md"),
    include_str!("../../docs/plan.md"),
    include_str!("../../docs/running.md"),
    include_str!("../../docs/libraries.md"),
    include_str!("../ARCHITECTURE.md"),
];

/// A text before it is cut into tokens.
#[derive(Clone, Debug)]
pub struct Text {
    /// What messages call it.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Text {
    /// The project's own documents.
    #[must_use]
    pub fn own() -> Self {
        let library = STDLIB.iter().map(|file| file.text);
        let bytes = DOCUMENTS.iter().copied().chain(library).flat_map(str::bytes).collect();
        Self { name: "the project's own documents".to_owned(), bytes }
    }

    /// A file, or the project's own documents where none is named.
    ///
    /// # Errors
    /// The file cannot be read, or is longer than [`LONGEST_TEXT`].
    pub fn load(path: Option<&Path>) -> Result<Self, ExecuteError> {
        let Some(path) = path else { return Ok(Self::own()) };
        let name = path.display().to_string();
        let failed = |source| ExecuteError::Read { what: name.clone(), source };
        let too_long = || ExecuteError::TextTooLong { name: name.clone(), most: LONGEST_TEXT };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > LONGEST_TEXT {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        // What is no regular file states no length.
        file.take(LONGEST_TEXT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LONGEST_TEXT {
            return Err(too_long());
        }
        Ok(Self { name, bytes })
    }
}

/// A text as tokens.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// What messages call it.
    pub name: String,
    tokens: Vec<u32>,
}

/// The tokens of one microbatch and, for each, the one that follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// `[batch * sequence]`, a row after the other.
    pub inputs: Vec<u32>,
    /// `[batch * sequence]`: the token after each input.
    pub targets: Vec<u32>,
}

impl Tokens {
    /// As backends read them.
    #[must_use]
    pub fn view(&self) -> Batch<'_> {
        Batch { tokens: &self.inputs, targets: &self.targets }
    }

    /// The slices of its sequences, first to last: each has that part of every row.
    ///
    /// Requires: `slices` divides `sequence`.
    #[must_use]
    pub fn sliced(self, sequence: u32, slices: u32) -> Vec<Self> {
        if slices == 1 {
            return vec![self];
        }
        let (sequence, length) = (sequence as usize, (sequence / slices) as usize);
        let part = |tokens: &[u32], start: usize| {
            let rows = tokens.chunks_exact(sequence);
            rows.flat_map(|row| row[start..start + length].iter().copied()).collect()
        };
        let starts = (0..sequence).step_by(length);
        let slice = |start| Self { inputs: part(&self.inputs, start), targets: part(&self.targets, start) };
        starts.map(slice).collect()
    }
}

impl Corpus {
    /// Cuts a text into tokens.
    ///
    /// # Errors
    /// The text holds no window of `sequence + 1` tokens, or the tokenizer fails on it.
    pub fn new(text: &Text, tokenizer: &Tokenizer, sequence: u32) -> Result<Self, ExecuteError> {
        let tokens = tokenizer.encode(&text.bytes)?;
        let needed = sequence as usize + 1;
        if tokens.len() < needed {
            return Err(ExecuteError::TextTooShort { name: text.name.clone(), tokens: tokens.len(), needed });
        }
        Ok(Self { name: text.name.clone(), tokens })
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token; never so, as the constructor asks for a window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The entropy of the tokens' frequencies, in nats: the loss of a model that knows nothing but how often each token occurs.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "counts of tokens stay far below 2^52")]
    pub fn unigram_entropy(&self) -> f64 {
        let mut counts = vec![0u64; self.tokens.iter().map(|&token| token as usize + 1).max().unwrap_or(0)];
        for &token in &self.tokens {
            counts[token as usize] += 1;
        }
        let total = self.tokens.len() as f64;
        let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / total);
        -shares.map(|share| share * share.ln()).sum::<f64>()
    }

    /// A name for these tokens, so that a run resumes on the text that it began with.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        for token in &self.tokens {
            digest.update(token.to_le_bytes());
        }
        let start = digest.finalize().iter().take(8).fold(0, |start, &byte| start << 8 | u64::from(byte));
        format!("{start:016x}")
    }

    /// The windows of one step, by microbatch.
    #[must_use]
    pub fn step(&self, dims: &Dims, seed: u64, step: u64, microbatches: u32) -> Vec<Tokens> {
        Microbatch::all(microbatches as usize).map(|each| self.batch(dims, seed, step, each)).collect()
    }

    /// The windows of one microbatch of one step.
    ///
    /// Requires: `dims.sequence` is that of the constructor.
    #[must_use]
    pub fn batch(&self, dims: &Dims, seed: u64, step: u64, microbatch: Microbatch) -> Tokens {
        let mut tokens = Tokens::default();
        let sequence = dims.sequence as usize;
        let windows = (self.tokens.len() - sequence) as u64;
        for row in 0..dims.batch {
            let words = [step, u64::from(microbatch.0), u64::from(row)];
            let start =
                (words.into_iter().fold(mix(seed), |state, word| mix(state ^ word)) % windows) as usize;
            tokens.inputs.extend_from_slice(&self.tokens[start..start + sequence]);
            tokens.targets.extend_from_slice(&self.tokens[start + 1..=start + sequence]);
        }
        tokens
    }
}

/// One step of `SplitMix64`: Steele et al. 2014, "Fast splittable pseudorandom number generators".
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
