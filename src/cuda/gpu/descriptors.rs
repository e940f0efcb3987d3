//! Layouts -> cuBLASLt's descriptors of them, which need no device.

use std::ffi::c_void;
use std::mem::size_of;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use super::layout::{Activation, Layout, Operation, Side};
use crate::kernels::Stored;

/// How parts of a sum may come together: as f32 (`CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`), never as the result is stored.
const REDUCTIONS: u32 = 2;
/// The most that an algorithm may use beside its matrices; NVIDIA's advice for Hopper.
const WORKSPACE: u64 = 32 << 20;

/// What is computed.
pub(super) struct Description(pub(super) sys::cublasLtMatmulDesc_t);

impl Description {
    fn new() -> Result<Self, CublasError> {
        use sys::{cublasComputeType_t as Compute, cudaDataType as Type};
        result::create_matmul_desc(Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_32F).map(Self)
    }

    fn set<T: Copy>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> Result<(), CublasError> {
        let from = (&raw const value).cast::<c_void>();
        // SAFETY: it lives; the library copies as many bytes as it is told, and refuses a wrong number of them.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, from, size_of::<T>()) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: the library made it, and it is destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// The name of a type.
fn data_type(stored: Stored) -> sys::cudaDataType {
    match stored {
        Stored::F32 => sys::cudaDataType::CUDA_R_32F,
        Stored::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

/// How a matrix lies.
pub(super) struct Lies(pub(super) sys::cublasLtMatrixLayout_t);

impl Lies {
    fn new(side: &Side) -> Result<Self, CublasError> {
        result::create_matrix_layout(data_type(side.stored), side.rows, side.columns, side.leading).map(Self)
    }
}

impl Drop for Lies {
    fn drop(&mut self) {
        // SAFETY: the library made it, and it is destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What an algorithm may use.
pub(super) struct Preference(pub(super) sys::cublasLtMatmulPreference_t);

impl Preference {
    fn set<T: Copy>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: T,
    ) -> Result<(), CublasError> {
        let from = (&raw const value).cast::<c_void>();
        // SAFETY: it lives; the library copies as many bytes as it is told, and refuses a wrong number of them.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, from, size_of::<T>()) }
    }

    fn new(layout: &Layout) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(result::create_matmul_pref()?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, REDUCTIONS)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, layout.a.aligned)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, layout.b.aligned)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, layout.d.aligned)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, layout.d.aligned)?;
        Ok(preference)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: the library made it, and it is destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

/// How a layout is computed: descriptors alone, which need no device.
pub(super) struct Described {
    pub(super) description: Description,
    pub(super) a: Lies,
    pub(super) b: Lies,
    pub(super) d: Lies,
    pub(super) preference: Preference,
}

impl Described {
    /// Describes a layout; with `fused`, what follows it is done by the product itself.
    pub(super) fn new(layout: &Layout, fused: bool) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let description = Description::new()?;
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, operation(&layout.a))?;
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, operation(&layout.b))?;
        if fused {
            let epilogue = match layout.activation {
                Activation::None => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
                Activation::Gelu(_) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                Activation::GeluGradient(_) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DGELU,
            };
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            let stored = data_type(layout.d.stored);
            if layout.bias {
                description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, stored)?;
            }
            if layout.activation != Activation::None {
                description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, stored)?;
                description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, layout.d.leading)?;
            }
        }
        let (a, b, d) = (Lies::new(&layout.a)?, Lies::new(&layout.b)?, Lies::new(&layout.d)?);
        Ok(Self { description, a, b, d, preference: Preference::new(layout)? })
    }

    /// Says where the bias lies, and what is kept before an activation; as far as the layout has them.
    pub(super) fn set_places(&self, layout: &Layout, bias: u64, before: u64) -> Result<(), CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        if layout.bias {
            self.description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
        }
        if layout.activation != Activation::None {
            self.description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, before)?;
        }
        Ok(())
    }
}

fn operation(side: &Side) -> i32 {
    match side.operation {
        Operation::AsItLies => 0,
        Operation::Transposed => 1,
    }
}
