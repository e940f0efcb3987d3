//! Why CUDA cannot be used, and what a device or a library of it refused.

use miette::Diagnostic;
use thiserror::Error;

use crate::ir::Bytes;

/// What is missing, what was refused, or what failed.
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
    /// Processes that would share a device, or have several ranks each.
    #[error("{processes} processes have {ranks} ranks, and a process that has a GPU for itself has one rank")]
    #[diagnostic(
        code(schedc::cuda::one_rank_a_process),
        help(
            "start {ranks} processes, or run all ranks in one process on one GPU, without `schedc launch` or RANK and WORLD_SIZE"
        )
    )]
    OneRankAProcess {
        /// Ranks of the plan.
        ranks: usize,
        /// Processes of the run.
        processes: usize,
    },
    /// Two processes on one device.
    #[error("processes {first} and {second} have one GPU, and NCCL takes one process a GPU")]
    #[diagnostic(
        code(schedc::cuda::shared_device),
        help(
            "start no more processes on a machine than it has GPUs, see that LOCAL_RANK or SLURM_LOCALID tells them apart, or run all ranks in one process"
        )
    )]
    SharedDevice {
        /// One of them.
        first: usize,
        /// The other.
        second: usize,
    },
    /// The run was given up while a device worked.
    #[error("the run was given up")]
    #[diagnostic(code(schedc::cuda::ended), help("the error before this one says why"))]
    Ended,
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
    /// Times of what runs as one graph.
    #[error("a step that is one graph cannot be traced: what runs inside a graph has no times of its own")]
    #[diagnostic(code(schedc::cuda::graph_not_timed), help("leave `--graph` or `--trace` out"))]
    GraphNotTimed,
    /// A drill inside a graph.
    #[error("`--inject` acts before an instruction, and a step that is one graph is launched as a whole")]
    #[diagnostic(code(schedc::cuda::graph_not_drilled), help("leave `--graph` or `--inject` out"))]
    GraphNotDrilled,
    /// Graphs of several processes whose communicators have no order.
    #[error(
        "`--graph` on several processes needs `{variable}=1`, which has NCCL keep the order of issue inside a graph"
    )]
    #[diagnostic(
        code(schedc::cuda::graph_without_order),
        help("set it for every process (`schedc launch` does; NCCL 2.26 or newer), or leave `--graph` out")
    )]
    GraphWithoutOrder {
        /// The variable of the environment.
        variable: &'static str,
    },
    /// A graph of what no GPU runs.
    #[error("`--graph` puts a step on a GPU as one graph, and the CPU's ranks are threads")]
    #[diagnostic(code(schedc::cuda::graph_on_cpu), help("leave it out, or run with `--backend cuda`"))]
    GraphOnCpu,
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
    /// A driver of before CUDA 13.0, which takes none of the machine code that NVRTC 13.0 makes.
    #[error("the NVIDIA driver knows CUDA {found}, and CUDA 13.0 is needed")]
    #[diagnostic(
        code(schedc::cuda::driver_too_old),
        help("install a driver of 580 or newer, or run with `--backend cpu`")
    )]
    DriverTooOld {
        /// The newest CUDA that the driver knows.
        found: String,
    },
    /// A generation of devices that no kernel is compiled for.
    #[error("`{device}` is of compute capability {major}.{minor}, and the kernels are for 8.x, 9.x and 10.x")]
    #[diagnostic(
        code(schedc::cuda::unknown_architecture),
        help("choose another device with CUDA_VISIBLE_DEVICES, or run with `--backend cpu`")
    )]
    UnknownArchitecture {
        /// The device's name.
        device: String,
        /// Of its compute capability.
        major: i32,
        /// Of its compute capability.
        minor: i32,
    },
    /// Not enough memory.
    #[error("{} of {what} were asked for, and {} of the device's {} are free", asked.short(), free.short(), total.short())]
    #[diagnostic(
        code(schedc::cuda::out_of_memory),
        help(
            "take a smaller model, a smaller batch, more ranks or a schedule with a lower peak; see what else runs in `nvidia-smi`"
        )
    )]
    OutOfMemory {
        /// What for.
        what: &'static str,
        /// How much was asked for.
        asked: Bytes,
        /// How much is free; 0 where even that could not be asked.
        free: Bytes,
        /// How much there is in all.
        total: Bytes,
    },
    /// A call of a library failed; where work is queued, what failed may be older than the call.
    #[error("`{call}` failed: {reason}")]
    #[diagnostic(
        code(schedc::cuda::failed),
        help(
            "a call reports what work queued before it did; `compute-sanitizer` on the same run names the kernel"
        )
    )]
    Failed {
        /// The function.
        call: &'static str,
        /// The library's own words.
        reason: String,
    },
    /// A block of a kernel takes more shared memory than there is.
    #[error("a block of `{kernel}` takes {asked} of shared memory, and the device has {most}")]
    #[diagnostic(code(schedc::cuda::kernel_too_large), help("take narrower heads of attention"))]
    KernelTooLarge {
        /// The kernel.
        kernel: &'static str,
        /// What it takes.
        asked: Bytes,
        /// What a block may take.
        most: Bytes,
    },
    /// cuBLASLt computes no such product.
    #[error("cuBLASLt has no algorithm for {product}: {reason}")]
    #[diagnostic(
        code(schedc::cuda::no_algorithm),
        help("use cuBLASLt of CUDA 13; if it is, this is a bug of schedc: report the product")
    )]
    NoAlgorithm {
        /// Its sizes and types.
        product: String,
        /// Why not.
        reason: String,
    },
    /// A step uses what was not made ready before the first.
    #[error("{what} was not made ready before the first step")]
    #[diagnostic(
        code(schedc::cuda::not_prepared),
        help("this is a bug of schedc: report the command, and run with `--backend cpu` meanwhile")
    )]
    NotPrepared {
        /// A kernel, a product, a queue, an event.
        what: String,
    },
    /// NCCL failed.
    #[error("NCCL's `{call}` failed with {name} ({number}): {last}")]
    #[diagnostic(
        code(schedc::cuda::nccl_failed),
        help("see which process ended first, and run with NCCL_DEBUG=INFO for NCCL's own log")
    )]
    NcclFailed {
        /// The function.
        call: &'static str,
        /// The name of its result.
        name: String,
        /// The result.
        number: i32,
        /// NCCL's last error.
        last: String,
    },
    /// NCCL was not done in time.
    #[error("NCCL's `{call}` was not done after {milliseconds} ms")]
    #[diagnostic(
        code(schedc::cuda::nccl_stalled),
        help("see which process ended or never came, and run with NCCL_DEBUG=INFO for NCCL's own log")
    )]
    NcclStalled {
        /// The function.
        call: &'static str,
        /// How long was waited.
        milliseconds: u64,
    },
}
