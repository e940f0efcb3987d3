//! When every pass of given orders starts, if each starts as soon as it can.

use super::dag::{Dag, NOWHERE, Side};

/// The start of every node, and the end of the last.
#[derive(Debug)]
pub(super) struct Paced {
    pub(super) start: Vec<u64>,
    pub(super) makespan: u64,
}

/// Runs every rank's order in order. Linear in nodes and edges; `None` where the orders wait for each other in a circle.
pub(super) fn pace(dag: &Dag, side: Side, orders: &[Vec<u32>]) -> Option<Paced> {
    let mut waits = dag.waits(side);
    let mut start = vec![0_u64; dag.len()];
    let mut next = vec![NOWHERE; dag.len()];
    for pair in orders.iter().flat_map(|order| order.windows(2)) {
        next[pair[0] as usize] = pair[1];
        waits[pair[1] as usize] += 1;
    }
    let mut ready: Vec<u32> = (0..dag.len() as u32).filter(|&node| waits[node as usize] == 0).collect();
    let (mut ran, mut makespan) = (0, 0);
    while let Some(node) = ready.pop() {
        ran += 1;
        let end = start[node as usize] + dag.duration(node);
        if dag.rank(node) != NOWHERE {
            makespan = makespan.max(end);
        }
        let mut arrive = |to: u32, at: u64| {
            start[to as usize] = start[to as usize].max(at);
            waits[to as usize] -= 1;
            if waits[to as usize] == 0 {
                ready.push(to);
            }
        };
        for &edge in dag.out(side, node) {
            arrive(edge.to, dag.arrives(edge, end));
        }
        if next[node as usize] != NOWHERE {
            arrive(next[node as usize], end);
        }
    }
    (ran == dag.len()).then_some(Paced { start, makespan })
}
