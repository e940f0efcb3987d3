//! The model without a pipeline: one rank, one microbatch after the other, to hold every schedule against.
