//! Whether the declarations of a plan bring what its computations need: plans come from files, too.

use crate::ir::{At, Catalog, Class, CollectiveOp, Compute, Header, Kind, Need, Relation, Source, Where};

use super::{Held, HeldStage, LayerAct, LayerDelta, ModelError, OutputAct};

/// Whether some pass computes both gradients of a stage at once.
pub(super) fn fuses_backward(catalog: &Catalog) -> bool {
    catalog.kinds.iter().any(|kind| kind.computes == Some(Compute::StageBackward))
}

/// Checks every kind that computes something, at every site of a rank.
pub(super) fn check(held: &Held, header: &Header) -> Result<(), ModelError> {
    for kind in &header.catalog.kinds {
        let Some(computes) = kind.computes else { continue };
        let lacks = |lacks: String| ModelError::PassContract {
            pass: kind.name.clone(),
            computes: computes.word(),
            lacks,
        };
        if kind.at != site(computes) {
            let site =
                if site(computes) == At::Stage { "must run at a stage" } else { "must run at every rank" };
            return Err(lacks(site.to_owned()));
        }
        if kind.at == At::Stage {
            for stage in &held.stages {
                check_stage(held, &header.catalog, kind, computes, stage).map_err(&lacks)?;
            }
        } else {
            check_rank(held, &header.catalog, kind, computes).map_err(&lacks)?;
        }
    }
    check_shapes(held, &header.catalog)
}

/// Where a computation runs.
fn site(computes: Compute) -> At {
    match computes {
        Compute::StageForward
        | Compute::StageBackward
        | Compute::StageInputGrad
        | Compute::StageWeightGrad => At::Stage,
        _ => At::EveryRank,
    }
}

/// What a pass at a stage must read and make.
fn check_stage(
    held: &Held,
    catalog: &Catalog,
    kind: &Kind,
    computes: Compute,
    at: &HeldStage,
) -> Result<(), String> {
    let reads = Reads { catalog, kind, first: at.first, last: at.last, alone: held.ranks == 1 };
    let gradient = !at.last || held.sharded_output;
    match computes {
        Compute::StageForward => {
            reads.value("x", !at.first || held.sharded_input)?;
            reads.makes("act")
        }
        Compute::StageBackward => {
            reads.value("dx", gradient)?;
            reads.state("act")
        }
        Compute::StageInputGrad => {
            reads.value("dx", gradient)?;
            reads.state("act")?;
            reads.makes("delta")
        }
        _ => {
            reads.state("act")?;
            reads.state("delta")
        }
    }
}

/// What a pass at every rank must read and make.
fn check_rank(held: &Held, catalog: &Catalog, kind: &Kind, computes: Compute) -> Result<(), String> {
    let reads = Reads { catalog, kind, first: true, last: true, alone: held.ranks == 1 };
    let input = matches!(computes, Compute::InputLookup | Compute::InputScatter);
    if input && !held.sharded_input {
        return Err("needs a pass that computes input_lookup".to_owned());
    }
    if !input && !held.sharded_output {
        return Err("needs a pass that computes output_softmax".to_owned());
    }
    match computes {
        Compute::OutputSoftmax | Compute::OutputSoftmaxGrad => {
            reads.value("x", true)?;
            reads.makes("logits")
        }
        Compute::OutputRescale => {
            reads.value("dx", true)?;
            reads.value("stats", true)
        }
        Compute::OutputGrad | Compute::OutputWeightGrad => {
            reads.value("stats", true)?;
            reads.state("logits")
        }
        Compute::InputScatter => reads.value("dx", true),
        _ => Ok(()),
    }
}

/// What a kind reads and makes at one site.
struct Reads<'a> {
    catalog: &'a Catalog,
    kind: &'a Kind,
    first: bool,
    last: bool,
    /// Whether there is one rank only, so that collectives carry the plain value.
    alone: bool,
}

impl Reads<'_> {
    /// Fails unless a value of a class is read, where it is needed, in the shape that the computation takes it in.
    fn value(&self, class: &str, needed: bool) -> Result<(), String> {
        let given = |kind: &Kind, port: usize| {
            kind.gives.get(port).is_some_and(|&id| self.catalog.class(id).name == class)
        };
        let mut read = false;
        for need in self.kind.needs.iter().filter(|need| self.applies(need)) {
            match need.from {
                Source::Pass { kind, port: Some(port), .. } => {
                    read |= given(self.catalog.kind(kind), port.index()) && (class != "stats" || self.alone);
                }
                Source::Pass { .. } => {}
                Source::Collective(id) => {
                    let collective = self.catalog.collective(id);
                    if !given(self.catalog.kind(collective.kind), collective.port.index()) {
                        continue;
                    }
                    let op = collective.op;
                    let whole = if class == "stats" {
                        op == CollectiveOp::AllGather
                    } else {
                        !matches!(op, CollectiveOp::AllGather | CollectiveOp::ReduceScatter)
                    };
                    if !whole && !self.alone {
                        return Err(format!("cannot read `{class}` from `{op}`"));
                    }
                    read = true;
                }
            }
        }
        if read || !needed { Ok(()) } else { Err(format!("must read a value of class `{class}`")) }
    }

    /// Whether a need applies at this site.
    fn applies(&self, need: &Need) -> bool {
        let on = match need.on {
            Where::All => true,
            Where::First => self.first,
            Where::Last => self.last,
        };
        let leaves = match need.from {
            Source::Pass { at: Relation::Prev, .. } => self.first && self.kind.at == At::Stage,
            Source::Pass { at: Relation::Next, .. } => self.last && self.kind.at == At::Stage,
            _ => false,
        };
        on && !leaves
    }

    /// Fails unless state of a class is read.
    fn state(&self, class: &str) -> Result<(), String> {
        let is = |id: &crate::ir::ClassId| self.catalog.class(*id).name == class;
        let here = self.kind.needs.iter().any(|need| match need.from {
            Source::Pass { kind, at: Relation::Here, .. } => self.catalog.kind(kind).makes.iter().any(is),
            _ => false,
        });
        if here || self.kind.frees.iter().any(is) { Ok(()) } else { Err(format!("must read `{class}`")) }
    }

    /// Fails unless state of a class is made.
    fn makes(&self, class: &str) -> Result<(), String> {
        let is = |id: &crate::ir::ClassId| self.catalog.class(*id).name == class;
        if self.kind.makes.iter().any(is) { Ok(()) } else { Err(format!("must make `{class}`")) }
    }
}

/// Compares the shapes of the classes that computations cut with how they cut them.
fn check_shapes(held: &Held, catalog: &Catalog) -> Result<(), ModelError> {
    let sizes = &held.sizes;
    let wide = (sizes.tokens * sizes.hidden) as u64;
    let shard = sizes.tokens as u64 * held.dims.shard(held.ranks);
    for class in &catalog.classes {
        let at_rank = match class.name.as_str() {
            "x" | "dx" => Some(wide),
            "stats" => Some(3 * sizes.tokens as u64),
            "logits" => Some(wide + shard),
            _ => None,
        };
        if let Some(needed) = at_rank {
            same(class, &class.at_rank, needed)?;
        }
        for stage in &held.stages {
            let layers = stage.layers.len();
            let output = OutputAct::elements(sizes, held.sharded_output) * usize::from(stage.last);
            let needed = match class.name.as_str() {
                "x" | "dx" => wide,
                "act" => (layers * LayerAct::elements(sizes) + output) as u64,
                "delta" => (layers * LayerDelta::elements(sizes)) as u64,
                _ => continue,
            };
            same(class, class.at_stage.get(stage.stage.index()).map_or(&[], Vec::as_slice), needed)?;
        }
    }
    Ok(())
}

/// Fails unless a shape has as many elements as are needed.
fn same(class: &Class, shape: &[u64], needed: u64) -> Result<(), ModelError> {
    let found = shape.iter().fold(1, |product: u64, &side| product.saturating_mul(side));
    if found == needed {
        return Ok(());
    }
    Err(ModelError::BufferShape { class: class.name.clone(), found, needed })
}
