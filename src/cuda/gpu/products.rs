//! Products that steps will use -> cuBLASLt's descriptors and algorithms, chosen once for each layout.
//!
//! Sums are f32 in all of them. Sides in f32 are multiplied as f32: TF32 is only ever used where a compute type asks for it, and none
//! here does. Sides in bf16 go through the tensor cores.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::path::Path;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use super::super::{Argument, CudaError, Epilogue, Library, Matrix, Product, load};
use super::descriptors::Described;
use super::driver::lacking;
use super::layout::{Activation, Layout};
use super::owned::{Memory, OwnedStream};
use crate::kernels::{Launch, Stored, launch};

/// What is called of it.
const FUNCTIONS: &[&str] = &[
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];
/// What parts of one piece of memory are aligned to.
const PART: u64 = 256;

/// The library.
struct Handle(sys::cublasLtHandle_t);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the library made it, and it is destroyed once.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// A layout that was made ready.
struct Plan {
    described: Described,
    algorithm: sys::cublasLtMatmulAlgo_t,
    /// Whether the algorithm adds the bias; else a kernel does after it.
    fused: bool,
}

/// Where a product's matrices are.
#[derive(Clone, Copy)]
struct Places {
    a: u64,
    b: u64,
    d: u64,
    bias: u64,
    before: u64,
}

/// Memory that algorithms use beside their matrices; a stream's own.
pub(super) struct Workspace(Memory, u64);

impl Workspace {
    pub(super) fn new(bytes: u64) -> Result<Self, CudaError> {
        Ok(Self(Memory::new(bytes, "workspace of matrix products")?, bytes))
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> u64 {
        self.1
    }
}

/// The products that were made ready.
pub(super) struct Products {
    plans: HashMap<Layout, Plan>,
    /// Those whose activation is a kernel's, after the rest.
    apart: HashSet<Layout>,
    workspace: u64,
    handle: Handle,
}

impl Products {
    /// None yet. `path` is where cuBLASLt may be.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, CudaError> {
        find(path)?;
        let handle = result::create_handle().map_err(|error| failed("cublasLtCreate", error))?;
        Ok(Self { plans: HashMap::new(), apart: HashSet::new(), workspace: 0, handle: Handle(handle) })
    }

    /// Chooses algorithms for the layouts that are not there yet, and runs each once, since cuBLASLt loads its code at the first use.
    /// Gives the launches that add biases which no algorithm adds.
    pub(super) fn prepare(
        &mut self,
        products: &[Product],
        stream: &OwnedStream,
    ) -> Result<Vec<(Launch, Stored)>, CudaError> {
        let (mut launches, mut new) = (Vec::new(), Vec::new());
        for product in products {
            let mut product = *product;
            let mut layout = laid(&product)?;
            if layout.activation != Activation::None && !self.plans.contains_key(&layout) {
                match self.chosen(&layout, true) {
                    Ok((plan, workspace)) => {
                        self.workspace = self.workspace.max(workspace);
                        self.plans.insert(layout, plan);
                        new.push(layout);
                    }
                    Err(error) => {
                        dense(&layout, error)?;
                        self.apart.insert(layout);
                        let (rest, After { launch, stored, .. }) = split(&product);
                        launches.push((launch, stored));
                        product = rest;
                        layout = laid(&product)?;
                    }
                }
            }
            if !self.plans.contains_key(&layout) {
                let (plan, workspace) = self.choose(&layout)?;
                self.workspace = self.workspace.max(workspace);
                self.plans.insert(layout, plan);
                new.push(layout);
            }
            if layout.bias && self.plans.get(&layout).is_some_and(|plan| !plan.fused) {
                launches.push(bias_add(&product));
            }
        }
        self.warm(&new, stream)?;
        Ok(launches)
    }

    /// The product that is launched, and the kernel after it, where that does what cuBLASLt does not.
    pub(super) fn parts(&self, product: &Product) -> Result<(Product, Option<After>), CudaError> {
        if !self.apart.contains(&laid(product)?) {
            return Ok((*product, None));
        }
        let (rest, after) = split(product);
        Ok((rest, Some(after)))
    }

    /// What any algorithm that was chosen uses beside its matrices.
    pub(super) fn workspace(&self) -> u64 {
        self.workspace
    }

    /// The best algorithm by cuBLASLt's own reckoning, and what it uses beside its matrices.
    fn choose(&self, layout: &Layout) -> Result<(Plan, u64), CudaError> {
        // The tables of what cuBLASLt fuses have a bias of the result's type, but not for every shape and order.
        let tries: &[bool] = if layout.bias { &[true, false] } else { &[false] };
        let mut reason = String::new();
        for &fused in tries {
            match self.chosen(layout, fused) {
                Ok(chosen) if layout.bias && !fused && !is_dense(layout) => {
                    drop(chosen);
                    "its bias is added by a kernel, which takes rows without gaps".clone_into(&mut reason);
                }
                Ok(chosen) => return Ok(chosen),
                Err(error) => reason = format!("{:?}", error.0),
            }
        }
        Err(CudaError::NoAlgorithm { product: layout.described(), reason })
    }

    fn chosen(&self, layout: &Layout, fused: bool) -> Result<(Plan, u64), CublasError> {
        let described = Described::new(layout, fused)?;
        if fused {
            // Only whether there is one counts here.
            described.set_places(layout, PART, PART)?;
        }
        let Described { description, a, b, d, preference } = &described;
        // SAFETY: all of them live.
        let found = unsafe {
            result::get_matmul_algo_heuristic(self.handle.0, description.0, a.0, b.0, d.0, d.0, preference.0)
        }?;
        Ok((Plan { described, algorithm: found.algo, fused }, found.workspaceSize as u64))
    }

    /// Runs each layout once on zeroes; where there is no memory for that, the first step does it.
    fn warm(&self, layouts: &[Layout], stream: &OwnedStream) -> Result<(), CudaError> {
        let part = |bytes: u64| bytes.next_multiple_of(PART);
        let needs = layouts.iter().map(|layout| {
            let sides: u64 = layout.extents().into_iter().map(part).sum();
            let kept = if layout.activation == Activation::None { 0 } else { part(layout.extents()[2]) };
            sides + part(4 * layout.d.rows) + kept
        });
        let Some(most) = needs.max() else { return Ok(()) };
        let Ok(scratch) = Memory::new(most, "matrices to try products on") else { return Ok(()) };
        let Ok(workspace) = Workspace::new(self.workspace) else { return Ok(()) };
        for layout in layouts {
            let Some(plan) = self.plans.get(layout) else { continue };
            let [a, b, d] = layout.extents().map(part);
            let at = scratch.at();
            let bias = at + a + b + d;
            let places =
                Places { a: at, b: at + a, d: at + a + b, bias, before: bias + part(4 * layout.d.rows) };
            self.run(plan, layout, places, stream, &workspace)?;
        }
        stream.finish()
    }

    /// Puts a product on a stream. Gives the launch that is still to follow, if its bias was not added.
    pub(super) fn launch(
        &self,
        product: &Product,
        stream: &OwnedStream,
        workspace: &Workspace,
    ) -> Result<Option<(Launch, Stored)>, CudaError> {
        let layout = laid(product)?;
        let Some(plan) = self.plans.get(&layout) else {
            return Err(CudaError::NotPrepared { what: format!("the product {}", layout.described()) });
        };
        let (bias, before) = match product.epilogue {
            Epilogue::Plain => (0, 0),
            Epilogue::Bias(bias) => (bias.0, 0),
            Epilogue::Gelu { bias, before } => (bias.0, before.0),
            Epilogue::GeluGradient { before } => (0, before.0),
        };
        let (a, b, d) = (product.right.at.0, product.left.at.0, product.result.at.0);
        self.run(plan, &layout, Places { a, b, d, bias, before }, stream, workspace)?;
        Ok((layout.bias && !plan.fused).then(|| bias_add(product)))
    }

    fn run(
        &self,
        plan: &Plan,
        layout: &Layout,
        places: Places,
        stream: &OwnedStream,
        workspace: &Workspace,
    ) -> Result<(), CudaError> {
        let described = &plan.described;
        if plan.fused {
            described
                .set_places(layout, places.bias, places.before)
                .map_err(|error| failed("cublasLtMatmulDescSetAttribute", error))?;
        }
        let factors = [1.0_f32, if layout.adds { 1.0 } else { 0.0 }];
        let [alpha, beta] = [0, 1].map(|index| (&raw const factors[index]).cast::<c_void>());
        let at = |place: u64| place as usize as *mut c_void;
        // SAFETY: the descriptors live, and the algorithm was chosen for them. The library reads factors and descriptors before it
        // returns. That the matrices are memory of this device, as large as they say, is the caller's promise.
        let queued = unsafe {
            result::matmul(
                self.handle.0,
                described.description.0,
                alpha,
                beta,
                at(places.a),
                described.a.0,
                at(places.b),
                described.b.0,
                at(places.d),
                described.d.0,
                at(places.d),
                described.d.0,
                &raw const plan.algorithm,
                at(workspace.0.at()),
                workspace.bytes() as usize,
                stream.0.cast(),
            )
        };
        queued.map_err(|error| failed("cublasLtMatmul", error))
    }
}

/// Makes sure that calls of cuBLASLt find it.
fn find(path: Option<&Path>) -> Result<(), CudaError> {
    load(Library::CublasLt, path)?;
    // SAFETY: it only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        let looked = "it is loaded, but not found again by its name".to_owned();
        return Err(CudaError::NoCublasLt { looked });
    }
    // SAFETY: the library is there.
    match lacking(unsafe { sys::culib() }, FUNCTIONS) {
        Some(call) => Err(CudaError::NoCublasLt { looked: format!("the one that is found has no `{call}`") }),
        None => Ok(()),
    }
}

/// Whether cuBLASLt takes all that it would be told of a product. It looks at no device; which algorithm there is, it only says on one.
///
/// # Errors
/// There is no cuBLASLt, or it refuses a part.
pub fn describe(product: &Product, path: Option<&Path>) -> Result<Layout, CudaError> {
    find(path)?;
    let layout = laid(product)?;
    let described = Described::new(&layout, layout.bias || layout.activation != Activation::None);
    let described = described.and_then(|described| described.set_places(&layout, PART, PART));
    described.map_err(|error| failed("cublasLtMatmulDescSetAttribute", error))?;
    Ok(layout)
}

fn failed(call: &'static str, error: CublasError) -> CudaError {
    CudaError::Failed { call, reason: format!("{:?}", error.0) }
}

/// A product's layout, or why there is none.
fn laid(product: &Product) -> Result<Layout, CudaError> {
    let Product { rows, columns, inner, .. } = product;
    Layout::of(product).map_err(|reason| CudaError::NoAlgorithm {
        product: format!("a product of [{rows}, {inner}] and [{inner}, {columns}]"),
        reason,
    })
}

/// Whether the rows of the result lie without gaps.
fn is_dense(layout: &Layout) -> bool {
    layout.d.leading.unsigned_abs() == layout.d.rows
}

/// A kernel after a product.
pub(super) struct After {
    pub(super) launch: Launch,
    pub(super) stored: Stored,
    pub(super) arguments: [Argument; 3],
}

/// A product without its activation, and the kernel that does this after it.
fn split(product: &Product) -> (Product, After) {
    let (stored, count) = (product.result.stored, u64::from(product.rows) * u64::from(product.columns));
    let (rest, launch, from) = match product.epilogue {
        Epilogue::Gelu { bias, before } => {
            let result = Matrix { at: before, ..product.result };
            (
                Product { result, epilogue: Epilogue::Bias(bias), ..*product },
                launch::gelu_forward(stored, count),
                before,
            )
        }
        Epilogue::GeluGradient { before } => {
            (Product { epilogue: Epilogue::Plain, ..*product }, launch::gelu_backward(stored, count), before)
        }
        Epilogue::Plain | Epilogue::Bias(_) => (*product, launch::gelu_forward(stored, 0), product.result.at),
    };
    let arguments =
        [Argument::At(product.result.at), Argument::At(from), Argument::Long(count.cast_signed())];
    (rest, After { launch, stored, arguments })
}

/// Refuses rows with gaps, which the kernels after a product do not take.
fn dense(layout: &Layout, error: CublasError) -> Result<(), CudaError> {
    if is_dense(layout) {
        return Ok(());
    }
    let reason = format!("{:?}, and a kernel after it takes rows without gaps", error.0);
    Err(CudaError::NoAlgorithm { product: layout.described(), reason })
}

/// The kernel that adds a product's bias.
fn bias_add(product: &Product) -> (Launch, Stored) {
    let stored = product.result.stored;
    (launch::bias_add(stored, product.rows, product.columns), stored)
}
