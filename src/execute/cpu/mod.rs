//! The CPU backend: f32, one thread a rank, matrix products by `gemm`, everything else vectorised loops.
