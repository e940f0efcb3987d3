//! Products whose rows lie one after the other, computed by a plain loop over what cuBLASLt is told: columns one after the other.

use std::hash::{BuildHasher as _, RandomState};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schedc::cuda::{
    ALIGNED, Address, CudaError, Epilogue, Layout, Library, Matrix, Operation, Product, Side, describe, load,
};
use schedc::kernels::Stored;

/// Element `(row, column)` of what a side is read as.
fn read(memory: &[f32], side: &Side, row: u64, column: u64) -> f32 {
    let (row, column) = match side.operation {
        Operation::AsItLies => (row, column),
        Operation::Transposed => (column, row),
    };
    assert!(row < side.rows && column < side.columns, "({row}, {column}) is outside of {side:?}");
    memory[(column * side.leading.unsigned_abs() + row) as usize]
}

/// What cuBLASLt computes: `D = op(A) * op(B)`, with `D` and a bias added where the layout says so.
fn column_major(layout: &Layout, a: &[f32], b: &[f32], d: &mut [f32], bias: &[f32]) {
    let inner = if layout.a.operation == Operation::AsItLies { layout.a.columns } else { layout.a.rows };
    for column in 0..layout.d.columns {
        for row in 0..layout.d.rows {
            let products = (0..inner).map(|k| read(a, &layout.a, row, k) * read(b, &layout.b, k, column));
            let place = (column * layout.d.leading.unsigned_abs() + row) as usize;
            let before = if layout.adds { d[place] } else { 0.0 };
            let bias = if layout.bias { bias[row as usize] } else { 0.0 };
            d[place] = before + products.sum::<f32>() + bias;
        }
    }
}

/// Small whole numbers: sums of their products are exact in any order.
fn numbers(random: &mut ChaCha8Rng, count: u32) -> Vec<f32> {
    (0..count).map(|_| f32::from(random.random_range(-4_i8..=4))).collect()
}

/// A matrix that is `[rows, columns]` after it was turned, and memory that holds just it.
fn matrix(random: &mut ChaCha8Rng, rows: u32, columns: u32, turned: bool) -> (Matrix, Vec<f32>) {
    let (lies_rows, lies_columns) = if turned { (columns, rows) } else { (rows, columns) };
    let stride = lies_columns + random.random_range(0..4);
    let memory = numbers(random, (lies_rows - 1) * stride + lies_columns);
    (Matrix { at: Address(256), stored: Stored::F32, stride, turned }, memory)
}

#[test]
fn what_cublaslt_is_told_gives_our_product_for_any_sizes_turns_and_strides() {
    let seed = std::env::var("SCHEDC_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| RandomState::new().hash_one(0));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for round in 0..400_u32 {
        let [rows, columns, inner] = [(); 3].map(|()| random.random_range(1..12_u32));
        let turned = [round & 1 > 0, round & 2 > 0];
        let (left, left_memory) = matrix(&mut random, rows, inner, turned[0]);
        let (right, right_memory) = matrix(&mut random, inner, columns, turned[1]);
        let (result, before) = matrix(&mut random, rows, columns, false);
        let bias = numbers(&mut random, columns);
        let (adds, biased) = (round & 4 > 0, round & 8 > 0);
        let epilogue = if biased { Epilogue::Bias(Address(256)) } else { Epilogue::Plain };
        let product = Product { rows, columns, inner, left, right, result, adds, epilogue };
        let layout = Layout::of(&product).unwrap();

        let at = |matrix: &Matrix, row: u32, column: u32| {
            let (row, column) = if matrix.turned { (column, row) } else { (row, column) };
            (row * matrix.stride + column) as usize
        };
        let mut expected = before.clone();
        for row in 0..rows {
            for column in 0..columns {
                let place = at(&result, row, column);
                let sum: f32 = (0..inner)
                    .map(|k| left_memory[at(&left, row, k)] * right_memory[at(&right, k, column)])
                    .sum();
                let old = if adds { before[place] } else { 0.0 };
                expected[place] = old + sum + if biased { bias[column as usize] } else { 0.0 };
            }
        }
        let mut found = before.clone();
        column_major(&layout, &right_memory, &left_memory, &mut found, &bias);
        assert_eq!(found, expected, "SCHEDC_SEED={seed}: {product:?}");
        let lengths = [right_memory.len(), left_memory.len(), before.len()].map(|length| 4 * length as u64);
        assert_eq!(layout.extents(), lengths, "SCHEDC_SEED={seed}: {product:?}");
    }
}

/// `[4, 8] * [8, 16]`.
fn plain() -> Product {
    let matrix = |stride| Matrix { at: Address(512), stored: Stored::Bf16, stride, turned: false };
    let (left, right, result) = (matrix(8), matrix(16), matrix(16));
    let epilogue = Epilogue::Plain;
    Product { rows: 4, columns: 16, inner: 8, left, right, result, adds: false, epilogue }
}

#[test]
fn a_product_that_cublaslt_does_not_compute_is_refused_in_words() {
    assert_eq!(Layout::of(&plain()).unwrap().described(), "bf16 = bf16 [4, 8] * bf16 [8, 16]");
    let mut turned = plain();
    turned.left = Matrix { turned: true, stride: 4, ..turned.left };
    turned.result.stored = Stored::F32;
    turned.adds = true;
    turned.epilogue = Epilogue::Bias(Address(1024));
    assert_eq!(Layout::of(&turned).unwrap().described(), "f32 += bf16' [4, 8] * bf16 [8, 16] + bias");
    turned.epilogue = Epilogue::Gelu { bias: Address(1024), before: Address(2048) };
    assert!(Layout::of(&turned).unwrap().described().ends_with(" + bias, GELU"));
    turned.epilogue = Epilogue::GeluGradient { before: Address(2048) };
    assert!(Layout::of(&turned).unwrap().described().ends_with(", GELU's slope"));
    let refused = |change: &dyn Fn(&mut Product)| {
        let mut product = plain();
        change(&mut product);
        Layout::of(&product).unwrap_err()
    };
    assert!(refused(&|product| product.inner = 0).contains("is 0"));
    assert!(refused(&|product| product.result.turned = true).contains("turned"));
    assert!(refused(&|product| product.left.stored = Stored::F32).contains("different"));
    assert!(refused(&|product| product.left.stride = 7).contains("7 apart"));
    let widened = |product: &mut Product| {
        (product.left.stored, product.right.stored) = (Stored::F32, Stored::F32);
    };
    assert!(refused(&widened).contains("bf16"));
}

#[test]
fn an_algorithm_may_rely_on_the_alignment_that_a_place_has_and_no_more() {
    for (place, aligned) in [(0, ALIGNED), (512, ALIGNED), (16, 16), (24, 8), (6, 2), (7, 1)] {
        let mut product = plain();
        product.right.at = Address(place);
        let layout = Layout::of(&product).unwrap();
        assert_eq!((layout.a.aligned, layout.b.aligned, layout.d.aligned), (aligned, ALIGNED, ALIGNED));
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn cublaslt_takes_the_description_of_every_kind_of_product() {
    if let Err(error) = load(Library::CublasLt, None) {
        eprintln!("skipped: {error}");
        return;
    }
    for number in 0..64 {
        let bit = |bit: u32| number >> bit & 1 > 0;
        let mut product = plain();
        if bit(0) {
            product.left = Matrix { turned: true, stride: 4, ..product.left };
        }
        if bit(1) {
            product.right = Matrix { turned: true, stride: 8, ..product.right };
        }
        let (bias, before) = (Address(1024), Address(8192));
        product.epilogue = match [bit(2), bit(5)] {
            [false, false] => Epilogue::Plain,
            [true, false] => Epilogue::Bias(bias),
            [false, true] => Epilogue::Gelu { bias, before },
            [true, true] => Epilogue::GeluGradient { before },
        };
        product.adds = bit(3);
        if bit(4) {
            for matrix in [&mut product.left, &mut product.right, &mut product.result] {
                matrix.stored = Stored::F32;
            }
        }
        let layout = describe(&product, None).unwrap();
        assert_eq!(layout, Layout::of(&product).unwrap());
    }
    let mut broken = plain();
    broken.left.stride = 1;
    let error = describe(&broken, None).unwrap_err();
    assert!(matches!(error, CudaError::NoAlgorithm { .. }), "{error}");
}
