//! Matrix products: the one place where `gemm`'s pointers are handled.
//!
//! Every matrix is row-major; whoever needs columns turns them first (see `transpose`). With rows, and a multiple of the vector
//! width of columns in the destination, 2048 at most, `gemm` packs small panels into memory that it keeps, and allocates a few
//! bytes of flags. For anything else it would allocate a buffer for a whole operand in each product, and read columns that may
//! lie a power of two apart.

/// A matrix that is read: `rows` by `columns`, rows that start `row_stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Dense rows.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that start `row_stride` elements apart.
    pub(super) fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether every element lies within the data.
    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + self.columns - 1 < self.data.len()
    }
}

/// A matrix that is written: rows that start `row_stride` elements apart.
pub(super) struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Dense rows.
    pub(super) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that start `row_stride` elements apart, at least `columns`.
    pub(super) fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride }
    }
}

/// What becomes of the values that lie in the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// They are replaced by the product.
    Replace,
    /// The product is added to them.
    Add,
}

/// `destination = [destination +] scale * left * right`.
pub(super) fn product(
    destination: MatrixMut<'_>,
    into: Into,
    scale: f32,
    left: Matrix<'_>,
    right: Matrix<'_>,
) {
    let MatrixMut { data, rows: m, columns: n, row_stride } = destination;
    let k = left.columns;
    assert!(left.rows == m && right.rows == k && right.columns == n, "the sides of a product meet");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if into == Into::Replace {
            data.chunks_mut(row_stride).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    assert!(left.fits() && right.fits(), "a product reads within its matrices");
    assert!(row_stride >= n && (m - 1) * row_stride + n <= data.len(), "a product writes within its matrix");
    let stride = |side: usize| isize::try_from(side).expect("strides lie within a slice");
    #[allow(unsafe_code, reason = "gemm takes pointers")]
    // SAFETY: the assertions above keep every element that gemm touches, (rows - 1) * row_stride + columns - 1 at most,
    // within the slices; no two elements of the destination coincide, for its rows do not overlap; the destination is
    // borrowed mutably, so the sources cannot alias it. With `read_dst` false gemm does not read the destination.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            data.as_mut_ptr(),
            1,
            stride(row_stride),
            into == Into::Add,
            left.data.as_ptr(),
            1,
            stride(left.row_stride),
            right.data.as_ptr(),
            1,
            stride(right.row_stride),
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
