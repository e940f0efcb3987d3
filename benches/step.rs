//! One training step of the reference on one core, against nothing but its matrix products: what is not `gemm` shows as the gap.
//!
//! Throughput counts the floating-point operations of the matrix products, so `Gelem/s` reads as GFLOP/s.

use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use schedc::execute::backend::Batch;
use schedc::execute::model::Train;
use schedc::execute::reference::Reference;
use schedc::ir::{Dims, Microbatch, Precision};

/// The main job's model.
const DIMS: Dims = Dims {
    layers: 4,
    hidden: 256,
    heads: 4,
    sequence: 128,
    batch: 1,
    vocab: 8192,
    tied: false,
    precision: Precision::F32,
};
/// Its microbatches.
const MICROBATCHES: u32 = 8;

/// One kind of matrix product: `[m, k] [k, n]`, and how often a step runs it.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    /// Whether the left factor lies transposed.
    left: bool,
    /// Whether the right factor lies transposed.
    right: bool,
    /// Whether the product is added to what lies there.
    add: bool,
    times: usize,
}

/// The three products of `[tokens, inputs] -> [tokens, outputs]`: forward, input gradient, weight gradient.
fn linear(inputs: usize, outputs: usize, times: usize) -> [Product; 3] {
    let n = (DIMS.batch * DIMS.sequence) as usize;
    [
        Product { m: n, n: outputs, k: inputs, left: false, right: true, add: true, times },
        Product { m: n, n: inputs, k: outputs, left: false, right: false, add: false, times },
        Product { m: outputs, n: inputs, k: n, left: true, right: false, add: true, times },
    ]
}

/// Every matrix product of a step.
fn products() -> Vec<Product> {
    let (h, v, s) = (DIMS.hidden as usize, DIMS.vocab as usize, DIMS.sequence as usize);
    let head = h / DIMS.heads as usize;
    let microbatches = MICROBATCHES as usize;
    let layers = microbatches * DIMS.layers as usize;
    let squares = layers * (DIMS.heads * DIMS.batch) as usize;
    let mut all = Vec::new();
    for (inputs, outputs) in [(h, 3 * h), (h, h), (h, 4 * h), (4 * h, h)] {
        all.extend(linear(inputs, outputs, layers));
    }
    all.extend(linear(h, v, microbatches));
    let attention = |m, n, k, left, right, times| Product { m, n, k, left, right, add: false, times };
    // Scores and their gradient; output and the gradient of queries; gradients of keys and values.
    all.push(attention(s, s, head, false, true, 2 * squares));
    all.push(attention(s, head, s, false, false, 2 * squares));
    all.push(attention(s, head, s, true, false, 2 * squares));
    all
}

/// Floating-point operations of a step's matrix products.
fn operations() -> u64 {
    products().iter().map(|p| (2 * p.m * p.n * p.k * p.times) as u64).sum()
}

/// Runs a product as often as a step does, with as many factors in turn as the cache would see.
fn run(product: &Product, left: &[f32], right: &[f32], to: &mut [f32]) {
    let Product { m, n, k, .. } = *product;
    assert!(m * k <= left.len() && k * n <= right.len() && m * n <= to.len(), "the factors are long enough");
    // Distances between columns and between rows.
    let strides = |transposed: bool, rows: usize, columns: usize| {
        if transposed { [rows.cast_signed(), 1] } else { [1, columns.cast_signed()] }
    };
    let (by_left, by_right) = (strides(product.left, m, k), strides(product.right, k, n));
    for _ in 0..product.times {
        #[allow(unsafe_code, reason = "gemm takes pointers")]
        // SAFETY: dense matrices of m * k, k * n and m * n elements lie within the slices, as asserted above.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                to.as_mut_ptr(),
                1,
                n.cast_signed(),
                product.add,
                left.as_ptr(),
                by_left[0],
                by_left[1],
                right.as_ptr(),
                by_right[0],
                by_right[1],
                1.0,
                1e-3,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(operations())).sample_size(10).sampling_mode(SamplingMode::Flat);
    let longest = (DIMS.vocab * DIMS.hidden) as usize;
    let (left, right, mut to) = (vec![1e-3; longest], vec![1e-3; longest], vec![0.0; longest]);
    let all = products();
    group.bench_function("products", |bencher| {
        bencher.iter(|| all.iter().for_each(|product| run(product, &left, &right, black_box(&mut to))));
    });
    let n = (DIMS.batch * DIMS.sequence) as usize;
    let ids: Vec<u32> = (0..=n as u32).map(|t| t.wrapping_mul(2_654_435_761) % DIMS.vocab).collect();
    let batch = Batch { tokens: &ids[..n], targets: &ids[1..] };
    let batches = vec![batch; MICROBATCHES as usize];
    let order: Vec<Microbatch> = (0..MICROBATCHES).map(Microbatch).collect();
    let mut model = Reference::new(&DIMS, &Train::default(), MICROBATCHES).expect("the dimensions are sound");
    group.bench_function("reference", |bencher| {
        bencher.iter(|| {
            black_box(model.accumulate(&batches, &order));
            model.step();
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
