//! The classes and shapes that buffers come in, numbered: a buffer is asked for by number, not by shape.

use crate::graph::Graph;
use crate::ir::{Buffer, Bytes, ClassId, CollectiveId, CollectiveOp, Flow, Place, Rank, Site};

/// The number of a class and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FormId(u32);

/// A class and shape.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) class: ClassId,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: u64,
    /// Which pool of slots it takes from; forms of one size share one.
    pub(super) pool: usize,
}

/// Every form of a schedule.
#[derive(Debug)]
pub(super) struct Forms {
    table: Vec<Form>,
    /// By class, then stage; ranks share the last place.
    of_class: Vec<FormId>,
    of_collective: Vec<FormId>,
    stages: usize,
    pools: usize,
}

impl FormId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Forms {
    /// Linear in classes × stages.
    pub(super) fn new(graph: &Graph<'_>) -> Self {
        let stages = graph.shape.stages.len();
        let mut forms =
            Self { table: Vec::new(), of_class: Vec::new(), of_collective: Vec::new(), stages, pools: 0 };
        for (index, class) in graph.catalog.classes.iter().enumerate() {
            for shape in class.at_stage.iter().chain([&class.at_rank]) {
                let form = forms.add(ClassId::new(index), shape.clone());
                forms.of_class.push(form);
            }
        }
        for id in CollectiveId::all(graph.catalog.collectives.len()) {
            let form = forms.result(graph, id);
            forms.of_collective.push(form);
        }
        forms
    }

    /// What a class is at a site.
    pub(super) fn of_class(&self, class: ClassId, site: Site) -> FormId {
        let at = match site {
            Site::Stage(stage) => stage.index(),
            Site::Rank(_) => self.stages,
        };
        self.of_class[class.index() * (self.stages + 1) + at]
    }

    /// What a collective leaves on a rank.
    pub(super) fn of_collective(&self, id: CollectiveId) -> FormId {
        self.of_collective[id.index()]
    }

    /// The form of a number.
    pub(super) fn get(&self, id: FormId) -> &Form {
        &self.table[id.index()]
    }

    /// How many pools of slots the forms need.
    pub(super) fn pools(&self) -> usize {
        self.pools
    }

    fn result(&mut self, graph: &Graph<'_>, id: CollectiveId) -> FormId {
        let collective = graph.catalog.collective(id);
        let class = graph.catalog.kind(collective.kind).gives[collective.port.index()];
        // The stages of the flows are alike.
        let end = graph.end(collective.source, Flow(0));
        let site = end.map_or(Site::Rank(Rank(0)), Site::Stage);
        let ranks = u64::from(graph.shape.ranks);
        let part = &self.get(self.of_class(class, site)).shape;
        let shape = match collective.op {
            CollectiveOp::AllGather => [&[ranks], part.as_slice()].concat(),
            CollectiveOp::ReduceScatter => vec![part.iter().product::<u64>().div_ceil(ranks)],
            CollectiveOp::Broadcast | CollectiveOp::Reduce | CollectiveOp::AllReduce => part.clone(),
        };
        self.add(class, shape)
    }

    fn add(&mut self, class: ClassId, shape: Vec<u64>) -> FormId {
        let known = self.table.iter().position(|form| form.class == class && form.shape == shape);
        let index = known.unwrap_or_else(|| {
            let buffer = Buffer { class, shape, place: Place::Arena(Bytes(0)) };
            let bytes = buffer.bytes().0;
            let pool =
                self.table.iter().find(|form| form.bytes == bytes).map_or(self.pools, |form| form.pool);
            self.pools = self.pools.max(pool + 1);
            self.table.push(Form { class, shape: buffer.shape, bytes, pool });
            self.table.len() - 1
        });
        FormId(index as u32)
    }
}
