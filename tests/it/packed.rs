//! Plans in bf16: what their buffers hold, and that nothing else of a plan changes.

use schedc::ir::{Dims, Op, Plan, Precision};

use crate::compiled::{SCHEDULES, TRANSFORMS, library, tiny};

fn both(schedule: &str, with: Option<&str>) -> [Plan; 2] {
    [Precision::F32, Precision::Bf16]
        .map(|precision| library(schedule, with, 2, 3, Dims { precision, ..tiny(4, false) }).into_plan())
}

/// What runs where, in order; collectives without their elements.
fn instructions(plan: &Plan) -> Vec<String> {
    let all = plan.ranks.iter().flat_map(|rank| &rank.instrs);
    let said = all.map(|instr| match instr.op {
        Op::Collective { payload, op, .. } => format!("{payload:?} {op:?} {:?}", instr.lane),
        op => format!("{op:?} {:?}", instr.lane),
    });
    said.collect()
}

#[test]
fn the_instructions_are_those_of_f32_and_buffers_take_half_but_for_statistics() {
    for (at, schedule) in SCHEDULES.iter().enumerate() {
        let with = TRANSFORMS[at % TRANSFORMS.len()];
        let [single, packed] = both(schedule, with);
        assert_eq!(instructions(&single), instructions(&packed), "{schedule} with {with:?}");
        let classes = single.header.catalog.classes.iter().zip(&packed.header.catalog.classes);
        for (wide, narrow) in classes {
            let words = |shape: &[u64]| shape.iter().product::<u64>();
            let (all, half) = (words(&wide.at_rank), words(&narrow.at_rank));
            match wide.name.as_str() {
                "stats" => assert_eq!(all, half),
                // A shard of an odd number of rows has a half of a word left.
                "x" | "dx" | "logits" => assert!(half * 2 >= all && half * 2 <= all + 8, "{}", wide.name),
                _ => {}
            }
        }
        let bytes = |plan: &Plan| plan.ranks.iter().map(|rank| rank.peak.bytes.0).sum::<u64>();
        // Probabilities are left out, too.
        assert!(bytes(&packed) < bytes(&single) * 3 / 4, "{schedule} with {with:?}");
    }
}
