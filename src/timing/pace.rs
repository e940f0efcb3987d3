//! When every pass of given orders starts, if each starts as soon as it can.

use super::dag::{Dag, NOWHERE, Side};

/// The start of every node, and the end of the last.
#[derive(Debug)]
pub(super) struct Paced {
    steps: Vec<Step>,
    pub(super) makespan: u64,
}

/// All that is looked at when something arrives at a node lies together.
#[derive(Clone, Copy, Debug)]
struct Step {
    start: u64,
    /// What has not arrived.
    waits: u32,
    /// The node after it on its rank, or [`NOWHERE`].
    next: u32,
}

impl Paced {
    pub(super) fn start(&self, node: u32) -> u64 {
        self.steps[node as usize].start
    }
}

/// Runs every rank's order in order. Linear in nodes and edges; `None` where the orders wait for each other in a circle.
pub(super) fn pace(dag: &Dag, side: Side, orders: &[Vec<u32>]) -> Option<Paced> {
    let mut steps: Vec<Step> = dag.waits(side).map(|waits| Step { start: 0, waits, next: NOWHERE }).collect();
    for pair in orders.iter().flat_map(|order| order.windows(2)) {
        steps[pair[0] as usize].next = pair[1];
        steps[pair[1] as usize].waits += 1;
    }
    // First in, first out: what runs at about the same time lies together.
    let mut ready: Vec<u32> = Vec::with_capacity(dag.len());
    ready.extend((0..dag.len() as u32).filter(|&node| steps[node as usize].waits == 0));
    let (mut ran, mut makespan) = (0, 0);
    while let Some(&node) = ready.get(ran) {
        ran += 1;
        let Step { start, next, .. } = steps[node as usize];
        let end = start + dag.duration(node);
        if dag.rank(node) != NOWHERE {
            makespan = makespan.max(end);
        }
        let mut arrive = |to: u32, at: u64| {
            let step = &mut steps[to as usize];
            step.start = step.start.max(at);
            step.waits -= 1;
            if step.waits == 0 {
                ready.push(to);
            }
        };
        for &edge in dag.out(side, node) {
            arrive(edge.to, dag.arrives(edge, end));
        }
        if next != NOWHERE {
            arrive(next, end);
        }
    }
    (ran == dag.len()).then_some(Paced { steps, makespan })
}
