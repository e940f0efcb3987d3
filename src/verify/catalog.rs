//! The catalog is well formed: names are names, ids exist, each relation leads somewhere, each state is made and freed once.

use std::collections::BTreeSet;

use super::error::Rule;
use super::report::{Place, Report};
use crate::ir::{
    At, Catalog, Class, ClassId, Collective, CollectiveOp, Kind, KindId, Need, Plan, Port, Queue, Relation,
    Source, Where,
};

/// The most needs of a kind, and classes in one of its lists: a port is a bit of a word.
const MOST: usize = 64;

/// Reports every malformed declaration.
pub(super) fn check(plan: &Plan, report: &mut Report) {
    classes_and_kinds(plan, &mut malformed(report));
    // The rest indexes by the ids that the kinds name.
    if report.is_empty() {
        collectives_and_states(plan, &mut malformed(report));
    }
}

fn classes_and_kinds(plan: &Plan, wrong: &mut Wrong<'_>) {
    let catalog = &plan.header.catalog;
    names(catalog, wrong);
    for each in &catalog.classes {
        class(each, plan.header.stages.len(), wrong);
    }
    for each in &catalog.kinds {
        kind(each, catalog, plan, wrong);
    }
}

fn collectives_and_states(plan: &Plan, wrong: &mut Wrong<'_>) {
    let catalog = &plan.header.catalog;
    for (id, each) in catalog.collectives.iter().enumerate() {
        if let Err(problem) = collective(id, each, catalog, plan.ranks.len()) {
            wrong(&each.name, problem);
        }
    }
    states(catalog, wrong);
    let tied = plan.header.model.tied && plan.ranks.len() > 1;
    if tied && catalog.shards_input() != catalog.shards_output() {
        wrong(&plan.header.name, "a tied embedding is sharded on one side only");
    }
}

/// Reports a declaration by its name and what is wrong with it.
fn malformed(report: &mut Report) -> impl FnMut(&str, &str) + '_ {
    |what, problem| {
        report.add(Place::Header, || Rule::MalformedCatalog {
            what: what.escape_debug().to_string(),
            problem: problem.to_owned(),
        });
    }
}

type Wrong<'a> = dyn FnMut(&str, &str) + 'a;

/// Whether a text may stand in quotes on one line.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| !c.is_control() && c != '"' && c != '\\')
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

fn names(catalog: &Catalog, wrong: &mut Wrong<'_>) {
    let mut lists: [Vec<&str>; 3] = [
        catalog.classes.iter().map(|class| &*class.name).collect(),
        catalog.kinds.iter().map(|kind| &*kind.name).collect(),
        catalog.collectives.iter().map(|collective| &*collective.name).collect(),
    ];
    for (list, fits) in lists.iter_mut().zip([is_identifier, is_identifier, is_name]) {
        for name in list.iter().filter(|name| !fits(name)) {
            wrong(name, "this cannot be a name");
        }
        list.sort_unstable();
        for pair in list.windows(2).filter(|pair| pair[0] == pair[1]) {
            wrong(pair[0], "two declarations have this name");
        }
    }
}

fn class(class: &Class, stages: usize, wrong: &mut Wrong<'_>) {
    if class.at_stage.len() != stages {
        wrong(&class.name, "it must have a shape for each stage");
    }
    for shape in class.at_stage.iter().chain([&class.at_rank]) {
        if bytes(shape).is_none() {
            return wrong(&class.name, "it is larger than any memory");
        }
    }
}

/// The size of a shape, if it fits 63 bits.
pub(super) fn bytes(shape: &[u64]) -> Option<u64> {
    let product = shape.iter().try_fold(4_u64, |product, &side| product.checked_mul(side))?;
    (product <= u64::MAX / 2).then_some(product)
}

fn kind(kind: &Kind, catalog: &Catalog, plan: &Plan, wrong: &mut Wrong<'_>) {
    let lists = [&kind.gives, &kind.makes, &kind.frees];
    if kind.needs.len() > MOST || lists.iter().any(|list| list.len() > MOST) {
        return wrong(&kind.name, "it has more than 64 needs or classes of one sort");
    }
    if lists.into_iter().flatten().any(|class| class.index() >= catalog.classes.len()) {
        return wrong(&kind.name, "it names a class that does not exist");
    }
    if kind.queue != Queue::Compute && kind.at != At::EveryRank {
        wrong(&kind.name, "a pass in lock step or between the parts of a barrier runs at every rank");
    }
    if kind.queue == Queue::Group && plan.ranks.len() > 1 && plan.header.groups.is_empty() {
        wrong(&kind.name, "it runs on the queue of a group, and there is none");
    }
    if !plan.header.mode.is_training() && kind.computes.is_some_and(|computes| !computes.is_forward()) {
        wrong(&kind.name, "it computes a gradient, and the plan is forward only");
    }
    for each in &kind.needs {
        if let Err(problem) = need(each, kind, catalog) {
            wrong(&kind.name, problem);
        }
    }
}

fn has_port(catalog: &Catalog, kind: KindId, port: Port) -> bool {
    catalog.kinds.get(kind.index()).is_some_and(|kind| port.index() < kind.gives.len())
}

fn need(need: &Need, by: &Kind, catalog: &Catalog) -> Result<(), &'static str> {
    if by.at == At::EveryRank && need.on != Where::All {
        return Err("a pass at every rank cannot need something at one stage only");
    }
    let (kind, at, port) = match need.from {
        Source::Collective(id) if id.index() < catalog.collectives.len() => return Ok(()),
        Source::Collective(_) => return Err("it needs a collective that does not exist"),
        Source::Pass { kind, at, port } => (kind, at, port),
    };
    let Some(of) = catalog.kinds.get(kind.index()) else {
        return Err("it needs a pass that does not exist");
    };
    if port.is_some_and(|port| !has_port(catalog, kind, port)) {
        return Err("it needs a value that the pass does not give");
    }
    match (at, by.at, of.at) {
        (Relation::Here, At::EveryRank, At::Stage) => Err(
            "a pass at every rank needs a pass at a stage of its own rank; name the first or the last stage",
        ),
        (Relation::Earlier | Relation::Later, ..) if port.is_some() => {
            Err("no value goes from slice to slice: what earlier ones made is read where it lies")
        }
        (Relation::Earlier | Relation::Later, by, of) if by != of => {
            Err("another slice's pass runs at the same site")
        }
        (Relation::Prev | Relation::Next, At::EveryRank, _)
        | (Relation::Prev | Relation::Next, _, At::EveryRank) => {
            Err("only stages have a stage before and after them")
        }
        _ => Ok(()),
    }
}

fn collective(id: usize, each: &Collective, catalog: &Catalog, ranks: usize) -> Result<(), &'static str> {
    if !has_port(catalog, each.kind, each.port) {
        return Err("it collects a value that no pass gives");
    }
    if each.after.is_some_and(|after| after.index() >= id) {
        return Err("it comes after a collective that is not declared before it");
    }
    let wanted = if each.source == Where::All { At::EveryRank } else { At::Stage };
    if catalog.kind(each.kind).at != wanted {
        return Err("all ranks give the value of a pass at every rank, one end that of a pass at a stage");
    }
    match each.op {
        CollectiveOp::Broadcast if each.source == Where::All => Err("a broadcast has one source"),
        CollectiveOp::Reduce if each.reader == Where::All => Err("a reduce has one reader"),
        CollectiveOp::Broadcast => Ok(()),
        _ if each.source != Where::All => Err("only a broadcast has one source"),
        CollectiveOp::ReduceScatter => {
            let class = catalog.class(catalog.kind(each.kind).gives[each.port.index()]);
            match class.at_rank.first() {
                Some(side) if side % ranks as u64 == 0 => Ok(()),
                _ => Err("its value cannot be cut into as many slices as there are ranks"),
            }
        }
        _ => Ok(()),
    }
}

/// A class that is made at a site is freed at the same site, each by one kind; else nobody could say what a buffer holds.
fn states(catalog: &Catalog, wrong: &mut Wrong<'_>) {
    let listed = |list: fn(&Kind) -> &[ClassId]| {
        let entries =
            catalog.kinds.iter().flat_map(move |kind| list(kind).iter().map(|&class| (class, kind.at as u8)));
        entries.collect::<Vec<_>>()
    };
    let (made, freed) = (listed(|kind| &kind.makes), listed(|kind| &kind.frees));
    let sets = [made.iter().copied().collect::<BTreeSet<_>>(), freed.iter().copied().collect()];
    if sets[0].len() != made.len() || sets[1].len() != freed.len() {
        wrong(&catalog.kinds[0].name, "two passes of the same sort of site make or free one class");
    }
    for (class, _) in sets[0].symmetric_difference(&sets[1]) {
        wrong(&catalog.class(*class).name, "it is made and never freed, or freed and never made");
    }
}
