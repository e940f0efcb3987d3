//! The shape of each class of buffer at each site.

use super::catalog::Drafts;
use super::error::ResolveError;
use super::expr::{self, Code, Scope};
use super::names::Declarations;
use crate::ir::{Class, Dims, Shape, Span, Stage};
use crate::syntax::ast::ClassDecl;

/// What the sides of a class may be made of, in slot order.
const VARIABLES: [&str; 15] = [
    "tokens",
    "hidden",
    "heads",
    "sequence",
    "batch",
    "vocab",
    "shard",
    "sharded_input",
    "sharded_output",
    "ranks",
    "slices",
    "packed",
    "layers",
    "first",
    "last",
];
/// The slots from `layers` on differ from site to site.
const PER_SITE: usize = 12;

/// Every class, with its shape at each stage and at every rank.
pub(super) fn sized(
    model: &Dims,
    declarations: &Declarations<'_>,
    shape: &Shape,
    drafts: &Drafts,
    errors: &mut Vec<ResolveError>,
) -> Vec<Class> {
    let scope = Scope::new("in the shape of a class", &VARIABLES);
    let values = common(model, shape, drafts);
    declarations.classes.iter().map(|decl| class(decl, &scope, values, model, shape, errors)).collect()
}

/// The values of all slots, those of a site 0.
fn common(model: &Dims, shape: &Shape, drafts: &Drafts) -> [i64; VARIABLES.len()] {
    let [input, output] = drafts.sharded();
    let mut values = [0; VARIABLES.len()];
    values[..PER_SITE].copy_from_slice(&[
        i64::try_from(model.tokens() / u64::from(shape.slices)).unwrap_or(i64::MAX),
        i64::from(model.hidden),
        i64::from(model.heads),
        i64::from(model.sequence),
        i64::from(model.batch),
        i64::from(model.vocab),
        i64::try_from(model.shard(shape.ranks)).unwrap_or(i64::MAX),
        i64::from(input),
        i64::from(output),
        i64::from(shape.ranks),
        i64::from(shape.slices),
        i64::from(model.precision.packed()),
    ]);
    values
}

fn class(
    decl: &ClassDecl,
    scope: &Scope,
    mut values: [i64; VARIABLES.len()],
    model: &Dims,
    shape: &Shape,
    errors: &mut Vec<ResolveError>,
) -> Class {
    let name = decl.name.text.clone();
    let mut class = Class { name, at_stage: Vec::new(), at_rank: Vec::new(), span: Some(decl.name.span) };
    let sides: Vec<Option<(Code, Span)>> = decl
        .shape
        .iter()
        .map(|side| expr::number(side, scope, errors).map(|code| (code, side.span)))
        .collect();
    let Some(sides) = sides.into_iter().collect::<Option<Vec<_>>>() else { return class };
    let depth = shape.depth();
    let mut at = |site: [i64; 3], place: &dyn Fn() -> String| {
        values[PER_SITE..].copy_from_slice(&site);
        sides_at(&sides, &values, place)
    };
    let mut earlier: Vec<([i64; 3], Vec<u64>)> = Vec::new();
    for stage in Stage::all(shape.stages.len()) {
        let place = Stage(shape.place_of(stage));
        let layers = shape.partition.layers_of(place, depth, model);
        let layers = i64::from(layers.end - layers.start);
        let site = [layers, i64::from(place.0 == 0), i64::from(place.0 + 1 == depth)];
        let found = match earlier.iter().find(|(other, _)| *other == site) {
            Some((_, sides)) => sides.clone(),
            None => match at(site, &|| format!(" at stage {}", stage.0)) {
                Ok(sides) => sides,
                Err(error) => {
                    errors.push(error);
                    return class;
                }
            },
        };
        earlier.push((site, found.clone()));
        if earlier.len() > 4 {
            earlier.remove(0);
        }
        class.at_stage.push(found);
    }
    match at([0; 3], &|| " at every rank".to_owned()) {
        Ok(sides) => class.at_rank = sides,
        Err(error) => errors.push(error),
    }
    class
}

/// The sides for the values of one site.
fn sides_at(
    sides: &[(Code, Span)],
    values: &[i64],
    place: &dyn Fn() -> String,
) -> Result<Vec<u64>, ResolveError> {
    let mut found = Vec::with_capacity(sides.len());
    // Bytes, which no buffer has more of than a signed 64-bit number counts.
    let mut bytes = 4_i64;
    for (code, span) in sides {
        let value = code.eval(values).map_err(|fault| fault.on(place()))?;
        let side = u64::try_from(value).map_err(|_| ResolveError::OutOfRange {
            what: "a side of the class".to_owned(),
            value,
            place: place(),
            range: "0 or more".to_owned(),
            help: "count words of four bytes; at every rank `layers`, `first` and `last` are 0",
            at: *span,
        })?;
        bytes =
            bytes.checked_mul(value).ok_or_else(|| ResolveError::Overflow { place: place(), at: *span })?;
        found.push(side);
    }
    Ok(found)
}
