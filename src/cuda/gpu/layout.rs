//! Product of matrices whose rows lie one after the other -> the same memory as cuBLASLt sees it, columns one after the other.
//!
//! Memory that holds a matrix row by row holds its transpose column by column. So `result = left * right` is computed as
//! `result' = right' * left'`: cuBLASLt's first matrix is ours on the right, its second ours on the left, nothing is moved, and what was
//! turned for us is turned for cuBLASLt.

use super::super::{Epilogue, Matrix, Product};
use crate::kernels::Stored;

/// Whether cuBLASLt reads a matrix as it lies, or transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `CUBLAS_OP_N`.
    AsItLies,
    /// `CUBLAS_OP_T`.
    Transposed,
}

/// A matrix as cuBLASLt sees it: element `(row, column)` lies at `column * leading + row`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    /// How its elements are stored.
    pub stored: Stored,
    /// Rows in memory, before the operation.
    pub rows: u64,
    /// Columns in memory, before the operation.
    pub columns: u64,
    /// From one column to the next, in elements.
    pub leading: i64,
    /// How it is read.
    pub operation: Operation,
    /// Bytes that its first element is sure to be aligned to; at most [`ALIGNED`].
    pub aligned: u32,
}

/// The best alignment that algorithms ask for: one access of a thread.
pub const ALIGNED: u32 = 16;

/// A product as cuBLASLt is told of it, `D = op(A) * op(B)`, or `D = op(A) * op(B) + D`; all of it that an algorithm depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Our right matrix.
    pub a: Side,
    /// Our left matrix.
    pub b: Side,
    /// Our result; `C` and `D` at once.
    pub d: Side,
    /// Whether it is added to what lies there.
    pub adds: bool,
    /// Whether a vector as long as `D` has rows is added to each of its columns.
    pub bias: bool,
    /// What follows the sum.
    pub activation: Activation,
}

/// What follows a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    None,
    /// Its GELU, and the sum is kept; where, is aligned to so many bytes.
    Gelu(u32),
    /// The slope of a GELU at what was kept is multiplied in.
    GeluGradient(u32),
}

impl Layout {
    /// A product's layout.
    ///
    /// # Errors
    /// What cuBLASLt does not compute, in words.
    pub fn of(product: &Product) -> Result<Self, String> {
        let Product { rows, columns, inner, left, right, result, adds, epilogue } = *product;
        if rows == 0 || columns == 0 || inner == 0 {
            return Err("one of its sides is 0".to_owned());
        }
        if result.turned {
            return Err("its result is turned".to_owned());
        }
        if left.stored != right.stored {
            return Err("its two sides are stored in different ways".to_owned());
        }
        if left.stored == Stored::F32 && result.stored == Stored::Bf16 {
            return Err("a result in bf16 has sides in bf16".to_owned());
        }
        let (a, b, d) =
            (side(right, inner, columns)?, side(left, rows, inner)?, side(result, rows, columns)?);
        let activation = match epilogue {
            Epilogue::Plain | Epilogue::Bias(_) => Activation::None,
            Epilogue::Gelu { before, .. } => Activation::Gelu(aligned(before.0)),
            Epilogue::GeluGradient { before } => Activation::GeluGradient(aligned(before.0)),
        };
        let bias = matches!(epilogue, Epilogue::Bias(_) | Epilogue::Gelu { .. });
        Ok(Self { a, b, d, adds, bias, activation })
    }

    /// Its sizes and types, for people: `f32 += bf16 [4, 8] * bf16' [8, 16]`.
    #[must_use]
    pub fn described(&self) -> String {
        let side = |side: &Side| {
            let turned = if side.operation == Operation::Transposed { "'" } else { "" };
            // The transpose of what cuBLASLt sees, read as it is read.
            let (rows, columns) =
                if turned.is_empty() { (side.columns, side.rows) } else { (side.rows, side.columns) };
            format!("{}{turned} [{rows}, {columns}]", side.stored.name())
        };
        let sign = if self.adds { "+=" } else { "=" };
        let bias = match (self.bias, self.activation) {
            (true, Activation::None) => " + bias",
            (_, Activation::Gelu(_)) => " + bias, GELU",
            (_, Activation::GeluGradient(_)) => ", GELU's slope",
            (false, Activation::None) => "",
        };
        format!("{} {sign} {} * {}{bias}", self.d.stored.name(), side(&self.b), side(&self.a))
    }

    /// Bytes from the first element to the end of the last, for each of A, B and D.
    #[must_use]
    pub fn extents(&self) -> [u64; 3] {
        [self.a, self.b, self.d].map(|side| {
            let elements = (side.columns - 1) * side.leading.unsigned_abs() + side.rows;
            elements * u64::from(side.stored.bytes())
        })
    }
}

/// A matrix that is `[rows, columns]` after it was turned where it says so.
fn side(matrix: Matrix, rows: u32, columns: u32) -> Result<Side, String> {
    let Matrix { at, stored, stride, turned } = matrix;
    // As it lies in memory, row by row.
    let (lies_rows, lies_columns) = if turned { (columns, rows) } else { (rows, columns) };
    if stride < lies_columns {
        return Err(format!("rows of {lies_columns} elements lie {stride} apart"));
    }
    Ok(Side {
        stored,
        rows: lies_columns.into(),
        columns: lies_rows.into(),
        leading: stride.into(),
        operation: if turned { Operation::Transposed } else { Operation::AsItLies },
        aligned: aligned(at.0),
    })
}

/// The largest power of two that divides an address, up to [`ALIGNED`].
fn aligned(address: u64) -> u32 {
    1 << address.trailing_zeros().min(ALIGNED.trailing_zeros())
}
