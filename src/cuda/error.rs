//! Why CUDA cannot be used.

use miette::Diagnostic;
use thiserror::Error;

/// What is missing, or what NVRTC refused.
#[derive(Clone, Debug, Error, Diagnostic, PartialEq, Eq)]
#[non_exhaustive]
pub enum CudaError {
    /// No driver.
    #[error("there is no NVIDIA driver: {looked}")]
    #[diagnostic(
        code(schedc::cuda::no_driver),
        help("install the NVIDIA driver, or run with `--backend cpu`; in a container, pass the GPU on")
    )]
    NoDriver {
        /// What was looked for, and where.
        looked: String,
    },
    /// A driver without a device.
    #[error("the NVIDIA driver shows no device: {reason}")]
    #[diagnostic(
        code(schedc::cuda::no_device),
        help("see what `nvidia-smi` lists and what CUDA_VISIBLE_DEVICES hides, or run with `--backend cpu`")
    )]
    NoDevice {
        /// What the driver said.
        reason: String,
    },
    /// No NVRTC.
    #[error("there is no NVRTC, which compiles the kernels: {looked}")]
    #[diagnostic(
        code(schedc::cuda::no_nvrtc),
        help(
            "install CUDA 13.0, or `pip install nvidia-cuda-nvrtc==13.0.88`, and name its folder with `--cuda-path`"
        )
    )]
    NoNvrtc {
        /// What was looked for, and where.
        looked: String,
    },
    /// No cuBLASLt.
    #[error("there is no cuBLASLt, which computes the matrix products: {looked}")]
    #[diagnostic(
        code(schedc::cuda::no_cublaslt),
        help("install CUDA 13.0, or `pip install nvidia-cublas`, and name its folder with `--cuda-path`")
    )]
    NoCublasLt {
        /// What was looked for, and where.
        looked: String,
    },
    /// No NCCL.
    #[error("there is no NCCL, which moves buffers between devices: {looked}")]
    #[diagnostic(
        code(schedc::cuda::no_nccl),
        help("install NCCL 2.28, or `pip install nvidia-nccl-cu13`, and name its folder with `--cuda-path`")
    )]
    NoNccl {
        /// What was looked for, and where.
        looked: String,
    },
    /// All is there, but this build walks no plan on a device.
    #[error("this build of schedc compiles kernels for GPUs and has no executor for them yet")]
    #[diagnostic(code(schedc::cuda::no_executor), help("run with `--backend cpu`"))]
    NoExecutor,
    /// A pass on lengths that no kernel takes.
    #[error("the kernels do not take {what} of {length}")]
    #[diagnostic(
        code(schedc::cuda::oversized_pass),
        help("reduce --batch, --seq, --hidden or --heads, or run with `--backend cpu`")
    )]
    OversizedPass {
        /// What is too long.
        what: &'static str,
        /// How long it is.
        length: u64,
    },
    /// Something that only the CPU's executor does.
    #[error("`{flag}` is not for a run on a device")]
    #[diagnostic(code(schedc::cuda::not_on_a_device), help("leave it out, or run with `--backend cpu`"))]
    NotOnADevice {
        /// The flag.
        flag: &'static str,
    },
    /// NVRTC does not take a source.
    #[error("NVRTC refuses `{file}` for {architecture}: {reason}")]
    #[diagnostic(
        code(schedc::cuda::kernel_refused),
        help("use NVRTC 13.0, which knows sm_80 to sm_120; if it is 13.0, this is a bug of schedc")
    )]
    KernelRefused {
        /// The source.
        file: String,
        /// For what it was compiled.
        architecture: String,
        /// NVRTC's own words.
        reason: String,
    },
}
