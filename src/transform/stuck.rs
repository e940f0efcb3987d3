//! Whether an order deadlocks even without the transform that was to be applied to it.

use crate::cost::Costs;
use crate::graph::{Deadlock, Graph, Progress, find_deadlock};
use crate::ir::{Catalog, Placed, Queue, Schedule, Ticks};

/// Runs the orders under the catalog from before the transform, regardless of time and of which passes overlap. `None`: they come to their end.
pub(super) fn without_transform(schedule: &Schedule, before: &Catalog, costs: &Costs) -> Option<Deadlock> {
    let graph = Graph::new(&schedule.shape, before);
    let mut run = Run { graph: &graph, costs, progress: Progress::new(&graph), events: Vec::new() };
    let mut next = vec![0; schedule.orders.len()];
    loop {
        let mut moved = false;
        for (order, next) in schedule.orders.iter().zip(&mut next) {
            while let Some(placed) = order.get(*next)
                && run.progress.is_ready(&graph, placed.pass, Ticks(u64::MAX))
            {
                run.complete(placed);
                *next += 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let head = |(order, &next): (&Vec<Placed>, &usize)| order.get(next).copied().into_iter().collect();
    let heads: Vec<Vec<Placed>> = schedule.orders.iter().zip(&next).map(head).collect();
    let stuck = heads.iter().any(|heads| !heads.is_empty());
    stuck.then(|| find_deadlock(&graph, &run.progress, &heads, &schedule.origins))
}

struct Run<'a> {
    graph: &'a Graph<'a>,
    costs: &'a Costs,
    progress: Progress,
    events: Vec<crate::graph::Event>,
}

impl Run<'_> {
    /// Ends a pass, and the steps of barriers that this lets run: they are in no rank's order.
    fn complete(&mut self, placed: &Placed) {
        let mut open = vec![placed.pass];
        while let Some(pass) = open.pop() {
            self.progress.complete(self.graph, self.costs, pass, Ticks(0), &mut self.events);
            for event in self.events.drain(..) {
                if let crate::graph::Event::Ready { pass, .. } = event
                    && self.graph.catalog.kind(pass.kind).queue == Queue::Group
                {
                    open.push(pass);
                }
            }
        }
    }
}
