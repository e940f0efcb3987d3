//! Where a rank, a buffer or an instruction stands in the text form of a plan: labels for what is found later.

use miette::SourceSpan;

use crate::ir::{BufferId, InstrId, Rank};

/// The lines of a plan's text form.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    ranks: Vec<RankLines>,
}

#[derive(Clone, Debug)]
struct RankLines {
    title: SourceSpan,
    buffers: Vec<SourceSpan>,
    instrs: Vec<SourceSpan>,
}

impl Lines {
    /// Finds the lines of a text that was imported without a problem. Of a JSON plan there are none.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut ranks: Vec<RankLines> = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let span = super::words::label(at, line.trim_end(), 0);
            at += line.len();
            if line.starts_with("rank ") {
                ranks.push(RankLines { title: span, buffers: Vec::new(), instrs: Vec::new() });
            } else if let Some(rank) = ranks.last_mut() {
                if line.starts_with("buffer ") {
                    rank.buffers.push(span);
                } else if line.starts_with('i') {
                    rank.instrs.push(span);
                }
            }
        }
        Self { ranks }
    }

    /// The line that opens a rank's part.
    #[must_use]
    pub fn rank(&self, rank: Rank) -> Option<SourceSpan> {
        self.ranks.get(rank.index()).map(|lines| lines.title)
    }

    /// The line of a buffer.
    #[must_use]
    pub fn buffer(&self, rank: Rank, buffer: BufferId) -> Option<SourceSpan> {
        self.ranks.get(rank.index())?.buffers.get(buffer.index()).copied()
    }

    /// The line of an instruction.
    #[must_use]
    pub fn instr(&self, rank: Rank, instr: InstrId) -> Option<SourceSpan> {
        self.ranks.get(rank.index())?.instrs.get(instr.index()).copied()
    }
}
