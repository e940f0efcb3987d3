//! Costs that can't be used.

use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};
use thiserror::Error;

use super::number::DECIMALS;
use crate::diag::Located;
use crate::ir::FileId;

/// Why costs can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum CostError {
    /// Not `name=number`.
    #[error("`{entry}` is no cost")]
    #[diagnostic(
        code(schedc::cost::malformed),
        help("write `name=number` with a comma between two, such as `F=10,B=12,p2p=1`")
    )]
    Malformed {
        /// What was written.
        entry: String,
    },
    /// Not a decimal number.
    #[error("`{number}` in `{entry}` is not a number")]
    #[diagnostic(code(schedc::cost::bad_number), help("write a decimal number, such as `10` or `0.25`"))]
    BadNumber {
        /// What was written.
        entry: String,
        /// The number in it.
        number: String,
    },
    /// Less than nothing.
    #[error("`{entry}` is a negative cost")]
    #[diagnostic(code(schedc::cost::negative), help("write 0 for what takes no time"))]
    Negative {
        /// What was written.
        entry: String,
    },
    /// Too many digits after the point.
    #[error("`{entry}` has more than {DECIMALS} digits after the point")]
    #[diagnostic(
        code(schedc::cost::too_fine),
        help("round it, or give all costs in a smaller unit: only their ratio matters")
    )]
    TooFine {
        /// What was written.
        entry: String,
    },
    /// Too many digits before the point.
    #[error("`{entry}` is too large")]
    #[diagnostic(
        code(schedc::cost::too_large),
        help("give all costs in a larger unit: only their ratio matters")
    )]
    TooLarge {
        /// What was written.
        entry: String,
    },
    /// One name, two costs.
    #[error("the cost of `{name}` is given twice")]
    #[diagnostic(code(schedc::cost::given_twice), help("keep one of the two"))]
    GivenTwice {
        /// The name.
        name: String,
    },
    /// A name that nothing in the schedule has.
    #[error("a cost is given for `{name}`, which is no pass of the schedule and its transforms")]
    #[diagnostic(code(schedc::cost::unknown_name), help("{help}"))]
    UnknownName {
        /// The name.
        name: String,
        /// What it may mean.
        help: String,
    },
    /// All passes together take longer than can be counted.
    #[error("the costs of all passes add up to more than can be counted")]
    #[diagnostic(
        code(schedc::cost::too_long),
        help("give costs of fewer digits, in a larger unit: only their ratio matters")
    )]
    TooLong,
    /// More ranks than the topology has devices for.
    #[error("the pipeline needs {needed} devices, and the topology has {devices}")]
    #[diagnostic(
        code(schedc::cost::too_few_devices),
        help("add nodes to the topology, or choose fewer ranks or a smaller tensor-parallel degree")
    )]
    TooFewDevices {
        /// Those of all ranks.
        needed: u64,
        /// Those of all nodes.
        devices: u64,
        /// The topology file.
        #[source_code]
        text: Arc<NamedSource<Arc<str>>>,
        /// The number of nodes.
        #[label("{devices} devices in all")]
        at: SourceSpan,
    },
    /// A number format that the device file has no rate for.
    #[error("{device} has no peak rate for {precision}")]
    #[diagnostic(
        code(schedc::cost::no_peak),
        help(
            "choose another `precision` in the model file, or give `{precision}` under `[peak]` in the device file"
        )
    )]
    NoPeak {
        /// The device.
        device: String,
        /// The format.
        precision: &'static str,
    },
    /// A pass of which nothing is known but its name.
    #[error("`{pass}` computes nothing that a rate is known for")]
    #[diagnostic(
        code(schedc::cost::no_rate),
        help(
            "say how many microseconds it takes: `--cost {pass}=100`; or say what it computes, in its declaration"
        )
    )]
    NoRate {
        /// The pass.
        pass: String,
    },
    /// A pass that was not measured.
    #[error("the profile has no time of `{pass}` at {place}")]
    #[diagnostic(
        code(schedc::cost::missing_pass),
        help("measure it too, or say how many microseconds it takes: `--cost {pass}=100`")
    )]
    MissingPass {
        /// The pass.
        pass: String,
        /// The stage or the rank.
        place: String,
        /// The profile.
        #[source_code]
        text: Arc<NamedSource<Arc<str>>>,
        /// Where it begins.
        #[label("not in this profile")]
        at: SourceSpan,
    },
    /// A model whose products have another form than those that were measured.
    #[error("the profile was taken with `--{what} {measured}`, and the model here has {asked}")]
    #[diagnostic(
        code(schedc::cost::other_model),
        help(
            "say `--{what} {measured}`, or record a run of this model: other layers, microbatches and vocabularies follow from a profile, other products do not"
        )
    )]
    OtherModel {
        /// The dimension.
        what: &'static str,
        /// Its size in the profile.
        measured: u32,
        /// Its size here.
        asked: u32,
        /// The profile.
        #[source_code]
        text: Arc<NamedSource<Arc<str>>>,
        /// Where it begins.
        #[label("of another model")]
        at: SourceSpan,
    },
}

impl Located for CostError {
    fn file(&self) -> Option<FileId> {
        None
    }
}
