//! Launches that steps will use -> functions on the device: their sources compiled by NVRTC for it, loaded, and allowed the shared memory
//! that they take.

use std::ffi::CString;
use std::path::PathBuf;
use std::thread;

use cudarc::driver::{result, sys};

use super::super::{Architecture, Argument, CudaError, Variant, compile};
use super::arguments::Packed;
use super::driver::{Context, Named as _};
use super::owned::OwnedStream;
use crate::ir::Bytes;
use crate::kernels::{Kernel, Launch, SOURCES, Source, Stored};

/// The dynamic shared memory that every function may have without being allowed to.
const GRANTED: u32 = 48 << 10;

/// Machine code on the device.
struct Module(sys::CUmodule);

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the driver loaded it, and it is unloaded once.
        let _ = unsafe { result::module::unload(self.0) };
    }
}

/// A kernel on the device.
struct Function {
    handle: sys::CUfunction,
    /// Bytes of each argument.
    sizes: Vec<u8>,
    /// The dynamic shared memory that it may have.
    shared: u32,
}

/// The kernels that were made ready.
pub(super) struct Kernels {
    architecture: Architecture,
    head: u32,
    path: Option<PathBuf>,
    /// The most shared memory of a block.
    most: u32,
    modules: Vec<(&'static str, Stored, Module)>,
    /// By kernel, then by how activations are stored.
    functions: Vec<Option<Function>>,
}

/// Where a function is.
fn place(kernel: Kernel, stored: Stored) -> usize {
    2 * kernel as usize + usize::from(stored == Stored::Bf16)
}

impl Kernels {
    /// None yet. `head` is the width of a head of attention; `path` is where NVRTC may be.
    pub(super) fn new(context: &Context, head: u32, path: Option<PathBuf>) -> Result<Self, CudaError> {
        use sys::CUdevice_attribute as Attribute;
        let major = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let Some(architecture) = Architecture::of(major, minor) else {
            return Err(CudaError::UnknownArchitecture { device: context.name()?, major, minor });
        };
        let most = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let functions = (0..2 * Kernel::ALL.len()).map(|_| None).collect();
        let most = u32::try_from(most).unwrap_or(GRANTED);
        Ok(Self { architecture, head, path, most, modules: Vec::new(), functions })
    }

    /// Compiles and loads the sources that are not there yet, and allows their kernels the shared memory that they take.
    pub(super) fn prepare(&mut self, launches: &[(Launch, Stored)]) -> Result<(), CudaError> {
        let mut needed: Vec<(&'static Source, Stored)> = Vec::new();
        for (launch, stored) in launches {
            let source = SOURCES.iter().find(|source| source.kernels.contains(&launch.kernel));
            let Some(source) = source else {
                let what = format!("a source of `{}`", launch.kernel.name());
                return Err(CudaError::NotPrepared { what });
            };
            let is_it = |file: &str, other: Stored| file == source.file && other == *stored;
            let loaded = self.modules.iter().any(|(file, other, _)| is_it(file, *other));
            if !loaded && !needed.iter().any(|(one, other)| is_it(one.file, *other)) {
                needed.push((source, *stored));
            }
        }
        for ((source, stored), cubin) in needed.iter().zip(self.compile(&needed)) {
            self.load(source, *stored, &cubin?)?;
        }
        launches.iter().try_for_each(|(launch, stored)| self.allow(launch, *stored))
    }

    /// Machine code of each source; a thread each, since a compilation takes a second.
    fn compile(&self, needed: &[(&'static Source, Stored)]) -> Vec<Result<Vec<u8>, CudaError>> {
        let (head, architecture, path) = (self.head, self.architecture, self.path.as_deref());
        let one = |(source, stored): (&'static Source, Stored)| {
            compile(source, Variant { stored, head, architecture }, path).map(|code| code.cubin)
        };
        thread::scope(|scope| {
            let started: Vec<_> =
                needed.iter().map(|&need| (need.0, scope.spawn(move || one(need)))).collect();
            let ended = started.into_iter().map(|(source, thread)| {
                let broken = |_| CudaError::KernelRefused {
                    file: source.file.to_owned(),
                    architecture: architecture.name().to_owned(),
                    reason: "the thread that compiled it ended".to_owned(),
                };
                thread.join().map_err(broken).flatten()
            });
            ended.collect()
        })
    }

    /// Loads a source's machine code and finds its kernels in it.
    fn load(&mut self, source: &'static Source, stored: Stored, cubin: &[u8]) -> Result<(), CudaError> {
        // SAFETY: it is a whole cubin, whose length is in it; the driver copies it.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) };
        let module = Module(module.named("cuModuleLoadData")?);
        for &kernel in source.kernels {
            let name = CString::new(kernel.name()).unwrap_or_default();
            // SAFETY: the module is loaded, and is unloaded after its functions were forgotten.
            let handle = unsafe { result::module::get_function(module.0, name) };
            let handle = handle.named("cuModuleGetFunction")?;
            // Else the first launch would load it, and may wait for all streams to do so.
            // SAFETY: the function is the module's.
            unsafe { sys::cuFuncLoad(handle) }.result().named("cuFuncLoad")?;
            let function = Function { handle, sizes: sizes(handle)?, shared: GRANTED };
            self.functions[place(kernel, stored)] = Some(function);
        }
        self.modules.push((source.file, stored, module));
        Ok(())
    }

    /// Allows a kernel its shared memory.
    fn allow(&mut self, launch: &Launch, stored: Stored) -> Result<(), CudaError> {
        use sys::CUfunction_attribute as Attribute;
        let (kernel, most) = (launch.kernel.name(), self.most);
        let Some(function) = &mut self.functions[place(launch.kernel, stored)] else {
            return Err(CudaError::NotPrepared { what: format!("`{kernel}`") });
        };
        if launch.shared <= function.shared {
            return Ok(());
        }
        // SAFETY: the function is loaded.
        let fixed = unsafe {
            result::function::get_function_attribute(
                function.handle,
                Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
            )
        };
        let fixed = u32::try_from(fixed.named("cuFuncGetAttribute")?).unwrap_or(0);
        let (asked, most) = (u64::from(launch.shared) + u64::from(fixed), u64::from(most));
        if asked > most {
            return Err(CudaError::KernelTooLarge { kernel, asked: Bytes(asked), most: Bytes(most) });
        }
        let limit = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded. The amount is below the device's.
        let set = unsafe {
            result::function::set_function_attribute(function.handle, limit, launch.shared.cast_signed())
        };
        set.named("cuFuncSetAttribute")?;
        function.shared = launch.shared;
        Ok(())
    }

    /// Puts a kernel on a stream. A grid without blocks is nothing to do.
    pub(super) fn launch(
        &self,
        stream: &OwnedStream,
        launch: &Launch,
        stored: Stored,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let name = launch.kernel.name();
        let function = self.functions[place(launch.kernel, stored)].as_ref();
        let Some(function) = function.filter(|function| launch.shared <= function.shared) else {
            return Err(CudaError::NotPrepared { what: format!("`{name}` with this much shared memory") });
        };
        let packed = Packed::new(arguments).filter(|packed| packed.sizes() == function.sizes);
        let Some(mut packed) = packed else {
            let reason = format!("it takes arguments of {:?} bytes, not {arguments:?}", function.sizes);
            return Err(CudaError::Failed { call: name, reason });
        };
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let ([x, y, z], block) = (launch.grid, launch.block);
        let mut pointers = packed.pointers();
        // SAFETY: the function is loaded; there are as many arguments as it takes, of its sizes, and the driver copies them before it
        // returns. That pointers among them are of this device, and large enough, is the caller's promise.
        let launched = unsafe {
            let block = (block[0], block[1], block[2]);
            result::launch_kernel(function.handle, (x, y, z), block, launch.shared, stream.0, &mut pointers.0)
        };
        launched.named(name)
    }
}

/// Bytes of each of a function's arguments.
fn sizes(function: sys::CUfunction) -> Result<Vec<u8>, CudaError> {
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the driver writes two numbers.
        let found = unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &raw mut offset, &raw mut size) };
        match found {
            // There is no such argument.
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(sizes),
            other => other.result().named("cuFuncGetParamInfo")?,
        }
        sizes.push(u8::try_from(size).unwrap_or(u8::MAX));
    }
}
