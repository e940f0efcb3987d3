//! One rank's pattern and streams -> its order.

use std::collections::BTreeSet;

use super::OrderError;
use crate::graph::Graph;
use crate::ir::{
    At, Chunk, KindId, Microbatch, Pass, Pattern, PatternKind, Placed, Program, Rank, RankProgram, Repeat,
    Shape, Site, Span, Stage,
};

/// Takes the passes of one rank as its pattern says.
pub(super) fn expand(
    program: &Program,
    graph: &Graph<'_>,
    rank: &RankProgram,
    pattern: &Pattern,
    id: Rank,
    held: &[Stage],
    origins: &mut Vec<Span>,
) -> Result<Vec<Placed>, OrderError> {
    let streams: Vec<Stream> = program
        .catalog
        .kinds
        .iter()
        .zip(&rank.streams)
        .map(|(kind, sorted)| match kind.at {
            At::Stage => Stream::at_stages(sorted.as_deref(), &program.shape, held),
            At::EveryRank => Stream::at_rank(&program.shape),
        })
        .collect();
    let all = streams.iter().map(|stream| stream.passes.len()).sum();
    let mut walk = Walk { program, graph, rank: id, held, streams, order: Vec::with_capacity(all), origins };
    walk.take(pattern)?;
    walk.refuse_rest()?;
    Ok(walk.order)
}

/// The passes of one kind on one rank, in stream order, and which of them are taken.
struct Stream {
    passes: Vec<(Chunk, Microbatch)>,
    taken: Vec<bool>,
    count: usize,
    /// No pass before this position is free.
    next: usize,
    /// The same, among the passes of each chunk.
    next_of: Vec<usize>,
}

impl Stream {
    fn at_stages(sorted: Option<&[(Chunk, Microbatch)]>, shape: &Shape, held: &[Stage]) -> Self {
        let chunks = || Chunk::all(held.len()).zip(held);
        let natural = || {
            let microbatches = Microbatch::all(shape.units());
            let all = microbatches.flat_map(|mb| chunks().map(move |(chunk, &stage)| (chunk, stage, mb)));
            let own = all.filter(|&(_, stage, mb)| shape.flow_at(stage) == shape.flow_of(mb));
            own.map(|(chunk, _, mb)| (chunk, mb)).collect()
        };
        Self::new(sorted.map_or_else(natural, <[_]>::to_vec), held.len())
    }

    fn at_rank(shape: &Shape) -> Self {
        Self::new(Microbatch::all(shape.units()).map(|mb| (Chunk(0), mb)).collect(), 1)
    }

    fn new(passes: Vec<(Chunk, Microbatch)>, chunks: usize) -> Self {
        Self { taken: vec![false; passes.len()], passes, count: 0, next: 0, next_of: vec![0; chunks] }
    }

    fn take(&mut self, chunk: Option<Chunk>) -> Option<(usize, Chunk, Microbatch)> {
        let (passes, taken) = (&self.passes, &self.taken);
        let next = match chunk {
            Some(chunk) => &mut self.next_of[chunk.index()],
            None => &mut self.next,
        };
        let free = |&at: &usize| !taken[at] && chunk.is_none_or(|chunk| passes[at].0 == chunk);
        let at = (*next..passes.len()).find(free)?;
        *next = at + 1;
        self.taken[at] = true;
        self.count += 1;
        let (chunk, microbatch) = self.passes[at];
        Some((at, chunk, microbatch))
    }
}

struct Walk<'a> {
    program: &'a Program,
    graph: &'a Graph<'a>,
    rank: Rank,
    held: &'a [Stage],
    streams: Vec<Stream>,
    order: Vec<Placed>,
    origins: &'a mut Vec<Span>,
}

impl Walk<'_> {
    fn take(&mut self, pattern: &Pattern) -> Result<(), OrderError> {
        match &pattern.kind {
            PatternKind::Pass { kind, chunk } => self.take_pass(*kind, *chunk, pattern.span),
            PatternKind::Pair(sides) => self.take_pair(sides, pattern.span),
            PatternKind::Sequence(parts) => parts.iter().try_for_each(|part| self.take(part)),
            PatternKind::Repeat { body, times: Repeat::Times(times) } => self.repeat(body, *times),
            PatternKind::Repeat { body, times: Repeat::UntilOut } => {
                self.repeat_until_out(body, pattern.span)
            }
        }
    }

    fn take_pass(&mut self, kind: KindId, chunk: Option<Chunk>, at: Span) -> Result<(), OrderError> {
        let name = &self.program.catalog.kind(kind).name;
        let stream = &mut self.streams[kind.index()];
        let Some((_, chunk, microbatch)) = stream.take(chunk) else {
            let of = |wanted: Chunk| stream.passes.iter().filter(|(chunk, _)| *chunk == wanted).count();
            let has = chunk.map_or(stream.passes.len(), of) as u64;
            let pass = chunk.map_or_else(|| name.clone(), |chunk| format!("{name}.{}", chunk.0));
            return Err(OrderError::TooMany { pass, times: has + 1, has, rank: self.rank, at });
        };
        let site = match self.program.catalog.kind(kind).at {
            At::Stage => Site::Stage(self.held[chunk.index()]),
            At::EveryRank => Site::Rank(self.rank),
        };
        let origin = super::origin(self.origins, at);
        self.order.push(Placed { pass: Pass { kind, site, microbatch }, origin, overlaps: false });
        Ok(())
    }

    /// Takes two passes that run overlapped, unless one of them needs the other.
    fn take_pair(&mut self, sides: &[Pattern; 2], at: Span) -> Result<(), OrderError> {
        let first = self.order.len();
        self.take(&sides[0])?;
        self.take(&sides[1])?;
        let (one, other) = (self.order[first].pass, self.order[first + 1].pass);
        // A need is of the same microbatch.
        if one.microbatch == other.microbatch {
            let dependent =
                [(one, other), (other, one)].into_iter().find(|&(a, b)| leads_to(self.graph, a, b));
            if let Some((needed, by)) = dependent {
                let (pass, needed) = (self.graph.name(by), self.graph.name(needed));
                return Err(OrderError::DependentPair { pass, needed, rank: self.rank, at });
            }
        }
        self.order[first].overlaps = true;
        Ok(())
    }

    fn repeat(&mut self, body: &Pattern, times: u64) -> Result<(), OrderError> {
        for _ in 0..times {
            let before = self.order.len();
            self.take(body)?;
            if self.order.len() == before {
                break; // nothing to take, however often
            }
        }
        Ok(())
    }

    /// Takes whole turns; a turn that finds a pass missing is undone and ends the repeat, as does one that takes none.
    fn repeat_until_out(&mut self, body: &Pattern, at: Span) -> Result<(), OrderError> {
        if !names_a_pass(body) {
            return Err(OrderError::Endless { at, rank: self.rank });
        }
        loop {
            let before = self.order.len();
            let marks: Vec<_> =
                self.streams.iter().map(|stream| (stream.next, stream.next_of.clone())).collect();
            match self.take(body) {
                Ok(()) if self.order.len() == before => return Ok(()),
                Ok(()) => {}
                Err(OrderError::TooMany { .. }) => {
                    self.undo(before, marks);
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn undo(&mut self, before: usize, marks: Vec<(usize, Vec<usize>)>) {
        for placed in self.order.split_off(before) {
            let Pass { kind, site, microbatch } = placed.pass;
            let stream = &mut self.streams[kind.index()];
            let chunk = match site {
                Site::Stage(stage) => self.held.iter().position(|&held| held == stage),
                Site::Rank(_) => Some(0),
            };
            let chunk = chunk.map(Chunk::new).expect("the rank's own passes were taken");
            // What was taken in this turn lies behind the marks.
            let (next, _) = marks[kind.index()];
            let found = (next..stream.passes.len())
                .find(|&at| stream.taken[at] && stream.passes[at] == (chunk, microbatch));
            stream.taken[found.expect("a taken pass is in its stream")] = false;
            stream.count -= 1;
        }
        for (stream, (next, next_of)) in self.streams.iter_mut().zip(marks) {
            (stream.next, stream.next_of) = (next, next_of);
        }
    }

    fn refuse_rest(&self) -> Result<(), OrderError> {
        for (stream, kind) in self.streams.iter().zip(&self.program.catalog.kinds) {
            let left = (stream.passes.len() - stream.count) as u64;
            if left > 0 {
                let has = stream.passes.len() as u64;
                return Err(OrderError::LeftOver {
                    pass: kind.name.clone(),
                    left,
                    has,
                    rank: self.rank,
                    at: self.program.order,
                });
            }
        }
        Ok(())
    }
}

/// Whether a pass needs another of its microbatch, directly or through others.
fn leads_to(graph: &Graph<'_>, needed: Pass, by: Pass) -> bool {
    let (mut open, mut seen) = (vec![needed], BTreeSet::new());
    while let Some(pass) = open.pop() {
        graph.for_dependents(pass, |dependent| {
            if seen.insert(dependent) {
                open.push(dependent);
            }
        });
        for collective in graph.feeds(pass) {
            graph.for_readers(collective, pass.microbatch, |reader| {
                if seen.insert(reader) {
                    open.push(reader);
                }
            });
        }
    }
    seen.contains(&by)
}

fn names_a_pass(pattern: &Pattern) -> bool {
    match &pattern.kind {
        PatternKind::Pass { .. } | PatternKind::Pair(_) => true,
        PatternKind::Sequence(parts) => parts.iter().any(names_a_pass),
        PatternKind::Repeat { body, times } => *times != Repeat::Times(0) && names_a_pass(body),
    }
}
