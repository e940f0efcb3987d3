//! Source -> PTX, cubin and what each kernel takes of a multiprocessor.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr;

use cudarc::nvrtc::{result, sys};

use super::{CudaError, Library, load};
use crate::kernels::{HEADERS, Source, Stored};

/// A generation of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// A100.
    Sm80,
    /// H100, H200.
    Sm90,
    /// B200.
    Sm100,
}

impl Architecture {
    /// All that are compiled for in the tests.
    pub const ALL: [Self; 3] = [Self::Sm80, Self::Sm90, Self::Sm100];

    /// The one whose machine code a device of this compute capability runs: that of its own major number, and of no larger minor one.
    #[must_use]
    pub fn of(major: i32, minor: i32) -> Option<Self> {
        match (major, minor) {
            (8, 0..) => Some(Self::Sm80),
            (9, 0..) => Some(Self::Sm90),
            (10, 0..) => Some(Self::Sm100),
            _ => None,
        }
    }

    /// As NVRTC calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm90 => "sm_90",
            Self::Sm100 => "sm_100",
        }
    }
}

/// What a source is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// How activations lie in memory.
    pub stored: Stored,
    /// The width of a head of attention; other sources do not depend on it.
    pub head: u32,
    /// The device.
    pub architecture: Architecture,
}

/// What NVRTC made.
#[derive(Clone, Debug)]
pub struct Code {
    /// PTX, which a driver compiles for newer devices.
    pub ptx: String,
    /// Machine code for one generation of devices.
    pub cubin: Vec<u8>,
    /// What each kernel takes, in the order of the compiler.
    pub resources: Vec<Resources>,
}

/// What a kernel takes of a multiprocessor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The kernel's symbol.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread keeps on its stack.
    pub stack: u32,
    /// Bytes of registers written to memory and read again.
    pub spilled: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
}

/// A program that is destroyed when it is dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: `nvrtcCreateProgram` made it, and nothing else destroys it. A failure leaves a leak.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compiles a source for a device that need not be there. `path` is where NVRTC may be, as in [`super::probe`].
///
/// # Errors
/// There is no NVRTC, or it refuses the source.
pub fn compile(source: &Source, variant: Variant, path: Option<&Path>) -> Result<Code, CudaError> {
    load(Library::Nvrtc, path)?;
    // SAFETY: it only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        let looked = "it is loaded, but not found again by its name".to_owned();
        return Err(CudaError::NoNvrtc { looked });
    }
    let refused = |reason: String| CudaError::KernelRefused {
        file: source.file.to_owned(),
        architecture: variant.architecture.name().to_owned(),
        reason,
    };
    let text = |text: &str| CString::new(text).map_err(|error| refused(error.to_string()));
    let (code, file) = (text(source.text)?, text(source.file)?);
    let headers = HEADERS.iter().map(|(name, header)| Ok((text(name)?, text(header)?)));
    let headers: Vec<(CString, CString)> = headers.collect::<Result<_, CudaError>>()?;
    let mut program: sys::nvrtcProgram = ptr::null_mut();
    let (names, texts): (Vec<_>, Vec<_>) =
        headers.iter().map(|(name, header)| (name.as_ptr(), header.as_ptr())).unzip();
    // SAFETY: all texts end with 0 and outlive the program; there are as many headers as names of them.
    let made = unsafe {
        let (count, texts, names) = ((names.len() as u32).cast_signed(), texts.as_ptr(), names.as_ptr());
        sys::nvrtcCreateProgram(&raw mut program, code.as_ptr(), file.as_ptr(), count, texts, names)
    };
    made.result().map_err(|error| refused(format!("{:?}", error.0)))?;
    let program = Program(program);
    let options = [
        format!("-arch={}", variant.architecture.name()),
        "-std=c++17".to_owned(),
        format!("-D{}", variant.stored.define()),
        format!("-DHEAD={}", variant.head),
        "--ptxas-options=-v".to_owned(),
    ];
    // SAFETY: the program was just made.
    let compiled = unsafe { result::compile_program(program.0, &options) };
    let log = log(&program);
    compiled.map_err(|error| refused(format!("{:?}\n{log}", error.0)))?;
    let (ptx, cubin) = made_code(&program).map_err(|error| refused(format!("{:?}", error.0)))?;
    Ok(Code { ptx, cubin, resources: resources(&log) })
}

/// What the compiler said.
fn log(program: &Program) -> String {
    // SAFETY: the program lives; NVRTC writes as many bytes as it said.
    let log = unsafe { result::get_program_log(program.0) };
    log.map(|log| ended(&log)).unwrap_or_default()
}

/// A text up to its 0.
fn ended(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|&byte| byte.cast_unsigned()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
    text.map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// PTX and cubin.
fn made_code(program: &Program) -> Result<(String, Vec<u8>), result::NvrtcError> {
    // SAFETY: the program lives and is compiled; NVRTC writes as many bytes as it said.
    unsafe {
        let ptx = ended(&result::get_ptx(program.0)?);
        let mut length = 0;
        sys::nvrtcGetCUBINSize(program.0, &raw mut length).result()?;
        let mut cubin = vec![0_u8; length];
        sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast()).result()?;
        Ok((ptx, cubin))
    }
}

/// What `ptxas -v` said of each kernel.
fn resources(log: &str) -> Vec<Resources> {
    let mut all: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Resources { kernel, ..Resources::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            last.stack = number_before(line, " bytes stack frame");
            last.spilled =
                number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        } else if line.contains("Used ") {
            last.registers = number_before(line, " registers");
            last.shared = number_before(line, " bytes smem");
        }
    }
    all
}

/// The number that stands before some words; 0 where they don't stand there.
fn number_before(line: &str, words: &str) -> u32 {
    let before = line.split_once(words).and_then(|(before, _)| before.split([' ', ',']).next_back());
    before.and_then(|number| number.parse().ok()).unwrap_or(0)
}
