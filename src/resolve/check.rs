//! What a catalog must hold: needs without a cycle, state with one maker and one end, buffers with elements.

use std::collections::{HashMap, VecDeque};

use miette::LabeledSpan;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::catalog::Drafts;
use super::error::ResolveError;
use crate::ir::{At, ClassId, Kind, KindId, Need, Relation, Shape, Source, Span, Where};

/// Checks base schedule and transforms together.
pub(super) fn catalog(drafts: &Drafts, shape: &Shape, errors: &mut Vec<ResolveError>) {
    state(drafts, errors);
    elements(drafts, shape, errors);
    cycles(drafts, shape, errors);
}

/// Every class that is made is freed, at the same sites, by one pass; and nothing else is freed.
fn state(drafts: &Drafts, errors: &mut Vec<ResolveError>) {
    for class in ClassId::all(drafts.classes.len()) {
        for at in [At::Stage, At::EveryRank] {
            let kinds = || drafts.kinds.iter().enumerate().filter(move |(_, kind)| kind.at == at);
            let makers: Vec<_> = kinds().filter(|(_, kind)| kind.makes.contains(&class)).collect();
            let enders: Vec<_> = kinds().filter(|(_, kind)| kind.frees.contains(&class)).collect();
            let class = drafts.classes[class.index()].name.clone();
            for (several, verb) in [(&makers, "make"), (&enders, "free")] {
                if let [(_, first), (id, second), ..] = several[..] {
                    let (first, second) = (first.name.clone(), second.name.clone());
                    let at = drafts.named_at[id];
                    errors.push(ResolveError::AmbiguousClass {
                        first,
                        second,
                        verb,
                        class: class.clone(),
                        at,
                    });
                }
            }
            match (makers.first(), enders.first()) {
                (Some((id, kind)), None) => {
                    let (pass, at) = (kind.name.clone(), drafts.named_at[*id]);
                    errors.push(ResolveError::LeakedClass { pass, class, at });
                }
                (None, Some((id, kind))) => {
                    let (pass, at) = (kind.name.clone(), drafts.named_at[*id]);
                    errors.push(ResolveError::FreedUnmade { pass, class, at });
                }
                _ => {}
            }
        }
    }
}

/// Whatever a pass leaves has elements at one of its sites.
fn elements(drafts: &Drafts, shape: &Shape, errors: &mut Vec<ResolveError>) {
    let mut refused = Vec::new();
    for kind in &drafts.kinds {
        for &id in kind.gives.iter().chain(&kind.makes) {
            let class = &drafts.classes[id.index()];
            // A shape that could not be computed is reported already, and is not known to be empty.
            if class.at_stage.len() < shape.stages.len() {
                continue;
            }
            let empty = |sides: &Vec<u64>| sides.contains(&0);
            let never = match kind.at {
                At::Stage => class.at_stage.iter().all(empty),
                At::EveryRank => empty(&class.at_rank),
            };
            if let (true, Some(at)) = (never && !refused.contains(&id), class.span) {
                refused.push(id);
                let (class, pass) = (class.name.clone(), kind.name.clone());
                errors.push(ResolveError::EmptyClass { class, pass, at });
            }
        }
    }
}

/// From what is waited for to the pass that waits; an edge has the waiting kind and the need's words.
type Graph = DiGraph<(), (KindId, Option<Span>)>;

/// Stages that stand for all: a cycle of needs shows itself among the first, the last and those between.
const SAMPLE: usize = 8;

/// Refuses passes of one microbatch that wait for each other.
fn cycles(drafts: &Drafts, shape: &Shape, errors: &mut Vec<ResolveError>) {
    let stages = (shape.depth() as usize).min(SAMPLE);
    let mut graph = Graph::new();
    let sites = |kind: &Kind| if kind.at == At::Stage { stages } else { 1 };
    let passes: Vec<Vec<NodeIndex>> =
        drafts.kinds.iter().map(|kind| (0..sites(kind)).map(|_| graph.add_node(())).collect()).collect();
    let collectives: Vec<NodeIndex> = drafts.collectives.iter().map(|_| graph.add_node(())).collect();
    for (collective, &node) in drafts.collectives.iter().zip(&collectives) {
        let contributors = &passes[collective.kind.index()];
        let from = match collective.source {
            Where::All => &contributors[..],
            Where::First => &contributors[..1],
            Where::Last => &contributors[contributors.len() - 1..],
        };
        for &pass in from {
            graph.add_edge(pass, node, (collective.kind, None));
        }
        if let Some(before) = collective.after {
            graph.add_edge(collectives[before.index()], node, (collective.kind, None));
        }
    }
    for (kind, need) in drafts.all_needs() {
        for (site, &reader) in passes[kind.index()].iter().enumerate() {
            let source = source(need, site, passes[kind.index()].len(), &passes, &collectives);
            if let Some(source) = source {
                graph.add_edge(source, reader, (kind, need.span));
            }
        }
    }
    let mut shown: Vec<Vec<(KindId, Span)>> = Vec::new();
    for component in tarjan_scc(&graph) {
        let needs = cycle(&graph, &component);
        // Many stages repeat one cycle.
        if !needs.is_empty() && !shown.contains(&needs) {
            errors.extend(cyclic(&needs, drafts));
            shown.push(needs);
        }
    }
}

/// The node that a need of a pass at one site waits for, where it applies there.
fn source(
    need: &Need,
    site: usize,
    sites: usize,
    passes: &[Vec<NodeIndex>],
    collectives: &[NodeIndex],
) -> Option<NodeIndex> {
    let applies = match need.on {
        Where::All => true,
        Where::First => site == 0,
        Where::Last => site + 1 == sites,
    };
    if !applies {
        return None;
    }
    match need.from {
        Source::Collective(collective) => Some(collectives[collective.index()]),
        Source::Pass { kind, at, .. } => {
            let of = &passes[kind.index()];
            match at {
                Relation::Here => of.get(site),
                Relation::Prev => site.checked_sub(1).and_then(|site| of.get(site)),
                Relation::Next => of.get(site + 1),
                Relation::First => of.first(),
                Relation::Last => of.last(),
                // Another slice's pass; a circle that leads over slices is found when the order is timed.
                Relation::Earlier | Relation::Later => None,
            }
            .copied()
        }
    }
}

/// The written needs along the shortest cycle through the first pass of a strongly connected component; none where
/// the component is one pass that does not need itself.
fn cycle(graph: &Graph, component: &[NodeIndex]) -> Vec<(KindId, Span)> {
    let Some(&start) = component.iter().min() else { return Vec::new() };
    let mut came: HashMap<NodeIndex, (NodeIndex, (KindId, Option<Span>))> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let (Some(node), false) = (queue.pop_front(), came.contains_key(&start)) {
        for edge in graph.edges(node) {
            let target = edge.target();
            if component.contains(&target) && !came.contains_key(&target) {
                came.insert(target, (node, *edge.weight()));
                queue.push_back(target);
            }
        }
    }
    let mut needs = Vec::new();
    let mut at = start;
    while let Some(&(before, (kind, span))) = came.get(&at) {
        needs.extend(span.map(|span| (kind, span)));
        at = before;
        if at == start {
            break;
        }
    }
    // Told from the first kind on, whichever stage the cycle was found at.
    if let Some(first) = (0..needs.len()).min_by_key(|&index| needs[index]) {
        needs.rotate_left(first);
    }
    needs
}

/// The error for a cycle of needs.
fn cyclic(needs: &[(KindId, Span)], drafts: &Drafts) -> Option<ResolveError> {
    let name = |(kind, _): &(KindId, Span)| format!("`{}`", drafts.kinds[kind.index()].name);
    let mut names: Vec<String> = needs.iter().map(name).collect();
    // From stage to stage is one step of the story.
    names.dedup();
    names.extend(names.first().cloned().filter(|first| names.len() == 1 || names.last() != Some(first)));
    // The user's file comes after the library's, so the largest id is where the cycle was closed.
    let file = needs.iter().map(|(_, span)| span.file).max()?;
    let mut spans: Vec<Span> = needs.iter().map(|(_, span)| *span).filter(|span| span.file == file).collect();
    spans.sort_unstable();
    spans.dedup();
    let label = |span| LabeledSpan::new_with_span(Some("a need of the cycle".to_owned()), span);
    Some(ResolveError::CyclicNeeds {
        cycle: names.join(" needs "),
        file,
        needs: spans.into_iter().map(label).collect(),
    })
}
