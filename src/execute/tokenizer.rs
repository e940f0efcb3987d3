//! Text -> token ids: bytes, or a byte-pair vocabulary that is trained on the text (feature `bpe`).

use super::error::ExecuteError;

/// How a text is cut into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TokenizerKind {
    /// Each byte is a token: 256 ids.
    #[default]
    Bytes,
    /// A byte-pair vocabulary of `--vocab` entries, trained on the text.
    Bpe,
}

/// A tokenizer that is ready for use.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// Each byte is a token.
    Bytes,
    /// A byte-pair vocabulary.
    #[cfg(feature = "bpe")]
    Bpe(Box<tokenizers::Tokenizer>),
}

impl Tokenizer {
    /// Makes a tokenizer for a text.
    ///
    /// # Errors
    /// The vocabulary is smaller than the tokenizer's ids, the build lacks the feature `bpe`, or training fails.
    pub fn new(kind: TokenizerKind, text: &[u8], vocab: u32) -> Result<Self, ExecuteError> {
        if vocab < 256 {
            return Err(ExecuteError::VocabTooSmall { vocab, ids: 256 });
        }
        match kind {
            TokenizerKind::Bytes => Ok(Self::Bytes),
            TokenizerKind::Bpe => Self::train(text, vocab),
        }
    }

    /// The name that `--tokenizer` takes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            #[cfg(feature = "bpe")]
            Self::Bpe(_) => "bpe",
        }
    }

    /// How many ids it gives.
    #[must_use]
    pub fn ids(&self) -> u32 {
        match self {
            Self::Bytes => 256,
            #[cfg(feature = "bpe")]
            Self::Bpe(bpe) => u32::try_from(bpe.get_vocab_size(true)).unwrap_or(u32::MAX),
        }
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// The byte-pair encoder fails.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, ExecuteError> {
        match self {
            Self::Bytes => Ok(text.iter().map(|&byte| u32::from(byte)).collect()),
            #[cfg(feature = "bpe")]
            Self::Bpe(bpe) => {
                let text = String::from_utf8_lossy(text);
                let encoding =
                    bpe.encode_fast(text.as_ref(), false).map_err(|error| failed(error.as_ref()))?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// What a checkpoint keeps of it; nothing for bytes.
    ///
    /// # Errors
    /// The vocabulary cannot be written.
    pub fn to_json(&self) -> Result<Option<String>, ExecuteError> {
        match self {
            Self::Bytes => Ok(None),
            #[cfg(feature = "bpe")]
            Self::Bpe(bpe) => bpe.to_string(false).map(Some).map_err(|error| failed(error.as_ref())),
        }
    }

    #[cfg(not(feature = "bpe"))]
    fn train(_: &[u8], _: u32) -> Result<Self, ExecuteError> {
        Err(ExecuteError::NoBpe)
    }

    #[cfg(feature = "bpe")]
    fn train(text: &[u8], vocab: u32) -> Result<Self, ExecuteError> {
        use tokenizers::models::TrainerWrapper;
        use tokenizers::models::bpe::{BPE, BpeTrainer};
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;

        let mut bpe = tokenizers::Tokenizer::new(BPE::default());
        bpe.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        bpe.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab as usize)
            .min_frequency(0)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let text = String::from_utf8_lossy(text);
        bpe.train(&mut TrainerWrapper::from(trainer), text.lines())
            .map_err(|error| failed(error.as_ref()))?;
        let ids = u32::try_from(bpe.get_vocab_size(true)).unwrap_or(u32::MAX);
        if ids > vocab {
            return Err(ExecuteError::VocabTooSmall { vocab, ids });
        }
        Ok(Self::Bpe(Box::new(bpe)))
    }

    /// The tokenizer that a checkpoint kept.
    ///
    /// # Errors
    /// The text is not a tokenizer, has more ids than the vocabulary, or the build lacks the feature `bpe`.
    #[cfg(feature = "bpe")]
    pub fn from_json(json: &str, vocab: u32) -> Result<Self, ExecuteError> {
        let bpe: tokenizers::Tokenizer =
            json.parse().map_err(|error: tokenizers::Error| failed(error.as_ref()))?;
        let tokenizer = Self::Bpe(Box::new(bpe));
        let ids = tokenizer.ids();
        if ids > vocab { Err(ExecuteError::VocabTooSmall { vocab, ids }) } else { Ok(tokenizer) }
    }

    /// The tokenizer that a checkpoint kept.
    ///
    /// # Errors
    /// The build lacks the feature `bpe`.
    #[cfg(not(feature = "bpe"))]
    pub fn from_json(_: &str, _: u32) -> Result<Self, ExecuteError> {
        Err(ExecuteError::NoBpe)
    }
}

#[cfg(feature = "bpe")]
fn failed(error: &dyn std::error::Error) -> ExecuteError {
    ExecuteError::Tokenizer { reason: error.to_string() }
}
