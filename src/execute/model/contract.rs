//! Whether the declarations of a plan bring what its computations need: plans come from files, too.

use crate::ir::{
    At, Catalog, Class, ClassId, Collective, CollectiveOp, Compute, Header, Kind, Need, Relation, Source,
    Where,
};

use super::{Held, HeldStage, LayerAct, LayerDelta, ModelError, OutputAct, complete};

/// Whether some pass computes both gradients of a stage at once.
pub(super) fn fuses_backward(catalog: &Catalog) -> bool {
    catalog.kinds.iter().any(|kind| kind.computes == Some(Compute::StageBackward))
}

/// Checks every kind that computes something, at every site of a rank.
pub(super) fn check(held: &Held, header: &Header) -> Result<(), ModelError> {
    complete::check(header)?;
    for kind in &header.catalog.kinds {
        let Some(computes) = kind.computes else { continue };
        let lacks = |lacks: String| ModelError::PassContract {
            pass: kind.name.clone(),
            computes: computes.word(),
            lacks,
        };
        if computes == Compute::Release {
            writes(&header.catalog, kind, computes).map_err(lacks)?;
            continue;
        }
        if kind.at != site(computes) {
            let site =
                if site(computes) == At::Stage { "must run at a stage" } else { "must run at every rank" };
            return Err(lacks(site.to_owned()));
        }
        writes(&header.catalog, kind, computes).map_err(&lacks)?;
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

/// Fails unless a pass gives and makes exactly what its computation writes.
fn writes(catalog: &Catalog, kind: &Kind, computes: Compute) -> Result<(), String> {
    let (gives, makes): (&[&str], &[&str]) = match computes {
        Compute::StageForward => (&["x"], &["act"]),
        Compute::StageBackward | Compute::OutputRescale | Compute::OutputGrad => (&["dx"], &[]),
        Compute::StageInputGrad => (&["dx"], &["delta"]),
        Compute::OutputSoftmax => (&["stats"], &["logits"]),
        Compute::OutputSoftmaxGrad => (&["dx", "stats"], &["logits"]),
        Compute::InputLookup => (&["x"], &[]),
        Compute::StageWeightGrad
        | Compute::OutputWeightGrad
        | Compute::OutputLoss
        | Compute::Release
        | Compute::InputScatter => (&[], &[]),
    };
    let same = |ids: &[ClassId], names: &[&str]| {
        let mut found: Vec<&str> = ids.iter().map(|&id| catalog.class(id).name.as_str()).collect();
        found.sort_unstable();
        found == names
    };
    let list = |names: &[&str]| if names.is_empty() { "nothing".to_owned() } else { names.join(" and ") };
    if !same(&kind.gives, gives) {
        return Err(format!("must give {}", list(gives)));
    }
    if !same(&kind.makes, makes) {
        return Err(format!("must make {}", list(makes)));
    }
    Ok(())
}

/// What a pass at a stage must read.
fn check_stage(
    held: &Held,
    catalog: &Catalog,
    kind: &Kind,
    computes: Compute,
    at: &HeldStage,
) -> Result<(), String> {
    let reads = Reads { catalog, kind, first: at.first, last: at.last, alone: held.ranks == 1 };
    if held.sizes.sliced() {
        let forward = &[Compute::StageForward][..];
        match computes {
            Compute::StageForward => reads.slice(forward, Relation::Earlier)?,
            Compute::StageBackward | Compute::StageInputGrad => {
                reads.slice(forward, Relation::Earlier)?;
                reads.slice(&[computes], Relation::Later)?;
            }
            _ => {}
        }
    }
    match computes {
        Compute::StageForward if !at.first => reads.value("x", &[computes], Way::At(Relation::Prev)),
        Compute::StageForward if held.sharded_input => reads.value("x", &[Compute::InputLookup], Way::Sum),
        Compute::StageForward => Ok(()),
        Compute::StageBackward | Compute::StageInputGrad => {
            if !at.last {
                reads.value("dx", &[computes], Way::At(Relation::Next))?;
            } else if held.sharded_output {
                reads.value("dx", &[Compute::OutputGrad, Compute::OutputRescale], Way::Sum)?;
            }
            reads.state("act")
        }
        _ => {
            reads.state("act")?;
            reads.state("delta")
        }
    }
}

/// What a pass at every rank must read.
fn check_rank(held: &Held, catalog: &Catalog, kind: &Kind, computes: Compute) -> Result<(), String> {
    let reads = Reads { catalog, kind, first: true, last: true, alone: held.ranks == 1 };
    let input = matches!(computes, Compute::InputLookup | Compute::InputScatter);
    if input && !held.sharded_input {
        return Err("needs a pass that computes input_lookup".to_owned());
    }
    if !input && !held.sharded_output {
        return Err("needs a pass that computes output_softmax".to_owned());
    }
    let softmax = [Compute::OutputSoftmax, Compute::OutputSoftmaxGrad];
    match computes {
        Compute::OutputSoftmax | Compute::OutputSoftmaxGrad => {
            reads.value("x", &[Compute::StageForward], Way::At(Relation::Last))
        }
        Compute::OutputRescale => {
            reads.value("dx", &[Compute::OutputSoftmaxGrad], Way::At(Relation::Here))?;
            reads.value("stats", &softmax, Way::Gather)
        }
        Compute::OutputGrad | Compute::OutputWeightGrad => {
            reads.value("stats", &softmax, Way::Gather)?;
            reads.state("logits")
        }
        Compute::OutputLoss => reads.value("stats", &softmax, Way::Gather),
        Compute::InputScatter => {
            let backward = [Compute::StageBackward, Compute::StageInputGrad];
            reads.value("dx", &backward, Way::At(Relation::First))
        }
        _ => Ok(()),
    }
}

/// How a value must come to the pass that computes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the pass at one site, straight or broadcast.
    At(Relation),
    /// The sum over all ranks.
    Sum,
    /// Those of all ranks side by side.
    Gather,
}

impl Way {
    fn words(self) -> &'static str {
        match self {
            Self::At(Relation::Prev) => "of the stage before",
            Self::At(Relation::Next) => "of the stage after",
            Self::At(Relation::First) => "of the first stage",
            Self::At(Relation::Last) => "of the last stage",
            Self::At(Relation::Here) => "of its own rank",
            Self::At(Relation::Earlier) => "of the slice before",
            Self::At(Relation::Later) => "of the slice after",
            Self::Sum => "summed over all ranks",
            Self::Gather => "gathered from all ranks",
        }
    }

    /// Whether the result of a collective comes this way.
    fn is(self, collective: &Collective) -> bool {
        let (op, source) = (collective.op, collective.source);
        match self {
            Self::At(Relation::First) => op == CollectiveOp::Broadcast && source == Where::First,
            Self::At(Relation::Last) => op == CollectiveOp::Broadcast && source == Where::Last,
            Self::At(_) => false,
            Self::Sum => matches!(op, CollectiveOp::Reduce | CollectiveOp::AllReduce) && source == Where::All,
            Self::Gather => op == CollectiveOp::AllGather && source == Where::All,
        }
    }
}

/// What a kind reads at one site.
struct Reads<'a> {
    catalog: &'a Catalog,
    kind: &'a Kind,
    first: bool,
    last: bool,
    /// Whether there is one rank only, so that collectives carry the plain value.
    alone: bool,
}

impl Reads<'_> {
    /// Fails unless a value of a class is read, given by one of these computations, and comes the way that it must.
    fn value(&self, class: &str, from: &[Compute], way: Way) -> Result<(), String> {
        // With one rank a collective changes nothing, so that the plain value is as good.
        let any = self.alone && !matches!(way, Way::At(Relation::Prev | Relation::Next));
        let (mut read, mut right) = (false, true);
        for need in self.kind.needs.iter().filter(|need| self.applies(need)) {
            let (kind, port, comes) = match need.from {
                Source::Pass { port: None, .. } => continue,
                Source::Pass { kind, at, port: Some(port) } => (kind, port, way == Way::At(at)),
                Source::Collective(id) => {
                    let collective = self.catalog.collective(id);
                    (collective.kind, collective.port, way.is(collective))
                }
            };
            let giver = self.catalog.kind(kind);
            if giver.gives.get(port.index()).is_some_and(|&id| self.catalog.class(id).name == class) {
                read = true;
                right &= (comes || any) && giver.computes.is_none_or(|computes| from.contains(&computes));
            }
        }
        if read && right {
            return Ok(());
        }
        let givers: Vec<&str> = from.iter().map(|computes| computes.word()).collect();
        Err(format!("must read the `{class}` of {}, {}", givers.join(" or "), way.words()))
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

    /// Fails unless a pass of another slice, with one of these computations, is needed.
    fn slice(&self, of: &[Compute], relation: Relation) -> Result<(), String> {
        let needed = self.kind.needs.iter().filter(|need| self.applies(need)).any(|need| match need.from {
            Source::Pass { kind, at, port: None } => {
                at == relation && self.catalog.kind(kind).computes.is_some_and(|word| of.contains(&word))
            }
            _ => false,
        });
        if needed {
            return Ok(());
        }
        let names: Vec<&str> = of.iter().map(|computes| computes.word()).collect();
        let way = if relation == Relation::Earlier { "earlier" } else { "later" };
        Err(format!("must need {} of the {way} slices", names.join(" or ")))
    }

    /// Fails unless state of a class is read.
    fn state(&self, class: &str) -> Result<(), String> {
        let is = |id: &crate::ir::ClassId| self.catalog.class(*id).name == class;
        let here = self.kind.needs.iter().any(|need| match need.from {
            Source::Pass { kind, at: Relation::Here, port: None } => {
                self.catalog.kind(kind).makes.iter().any(is)
            }
            _ => false,
        });
        if here || self.kind.frees.iter().any(is) { Ok(()) } else { Err(format!("must read `{class}`")) }
    }
}

/// Compares the shapes of the classes that computations cut with how they cut them.
fn check_shapes(held: &Held, catalog: &Catalog) -> Result<(), ModelError> {
    let sizes = &held.sizes;
    let wide = (sizes.tokens * sizes.hidden / sizes.packed) as u64;
    let shard = sizes.tokens as u64 * held.dims.shard(held.ranks).div_ceil(sizes.packed as u64);
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
