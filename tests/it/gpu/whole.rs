//! A whole device on stand-ins for the driver and cuBLASLt: what is called in which order, and that all is given back in the end.
//!
//! `cudarc` keeps the libraries that it finds first, so the device is opened in a process of its own: this test again, with a variable set.

use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use schedc::cuda::{
    Address, Argument, Channel, CudaError, Device as _, Epilogue, Event, Gpu, Library, Matrix, Move, Product,
    Purpose, Queue, Stream, Transfer, load,
};
use schedc::ir::Bytes;
use schedc::kernels::{Stored, launch};

use crate::kernels::host::compiler;

/// Says that this is the process in which the device is opened: the file that the stand-ins write to.
const VARIABLE: &str = "STAND_IN";

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn a_device_makes_what_a_step_uses_before_it_and_gives_all_back() {
    if let Some(said) = std::env::var_os(VARIABLE) {
        use_it(&PathBuf::from(said));
        return;
    }
    let Some(compiler) = compiler() else { return };
    let nvrtc = match load(Library::Nvrtc, None) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    for (source, name) in [
        ("stand_in_cuda.c", "libcuda.so.1"),
        ("stand_in_cublaslt.c", "libcublasLt.so.13"),
        ("stand_in_nccl.c", "libnccl.so.2"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gpu").join(source);
        let built = Command::new(compiler)
            .args(["-xc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"])
            .arg("-Wno-unused-parameter")
            .arg(format!("-Wl,-soname,{name}"))
            .arg("-o")
            .args([&folder.path().join(name), &path])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    let mut libraries = folder.path().to_path_buf().into_os_string();
    if let Some(place) = nvrtc.parent().filter(|place| place.is_absolute()) {
        libraries.push(":");
        libraries.push(place);
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .args([
            "gpu::whole::a_device_makes_what_a_step_uses_before_it_and_gives_all_back",
            "--exact",
            "--nocapture",
        ])
        .env(VARIABLE, folder.path().join("said"))
        .env("LD_LIBRARY_PATH", &libraries)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{out}{err}");
}

/// `[4, 8] * [8, 16]`.
fn product(at: Address, stored: Stored, adds: bool, epilogue: Epilogue) -> Product {
    let matrix = |offset: u64, stride: u32| Matrix { at: at.plus(offset), stored, stride, turned: false };
    let (left, right, result) = (matrix(0, 8), matrix(1024, 16), matrix(4096, 16));
    Product { rows: 4, columns: 16, inner: 8, left, right, result, adds, epilogue }
}

/// Opens the device, uses all of it, and looks at what the stand-ins wrote.
fn use_it(said: &Path) {
    // What was written since the last look.
    let look = || {
        let text = std::fs::read_to_string(said).unwrap_or_default();
        let _ = std::fs::remove_file(said);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut gpu = Gpu::open(0, 64, said.parent()).unwrap();
    assert_eq!(gpu.name(), "Stand-in 0");
    assert_eq!(gpu.memory().unwrap(), (Bytes(3 << 30), Bytes(4 << 30)));
    let error = gpu.allocate(1 << 40).unwrap_err();
    let asked = CudaError::OutOfMemory {
        what: "memory",
        asked: Bytes(1 << 40),
        free: Bytes(3 << 30),
        total: Bytes(4 << 30),
    };
    assert_eq!(error, asked);
    gpu.allocate(0).unwrap();
    let at = gpu.allocate(40 << 20).unwrap();
    let (first, second) = (gpu.queue(Purpose::Passes).unwrap(), gpu.queue(Purpose::Passes).unwrap());
    assert_ne!(gpu.stream(first).unwrap(), Stream::DEFAULT);
    bytes_arrive(&mut gpu, at);

    assert!(look().contains(&"urgent -5".to_owned()), "moves go before passes");
    let (plain, timed) = (gpu.event(false).unwrap(), gpu.event(true).unwrap());
    assert_eq!(look(), ["event 2", "event 0"]);
    let never = gpu.wait(first, plain).unwrap_err();
    assert!(matches!(never, CudaError::NotPrepared { .. }), "{never}");
    gpu.record(plain, first).unwrap();
    gpu.wait(second, plain).unwrap();
    gpu.record(timed, second).unwrap();
    assert_eq!(look(), ["wait"]);
    assert!((gpu.between(timed, timed).unwrap() - 1500.0).abs() < 1e-9);

    products_are_tried_first(&mut gpu, at, [first, second], &look);
    activations_are_fused_or_follow(&mut gpu, at, second, &look);
    launches_are_checked(&mut gpu, at, first, &look);
    captures_are_repeated(&mut gpu, at, [first, second], plain, &look);
    numbers_of_the_host_are_written(&mut gpu, first);
    buffers_move_on_channels(&mut gpu, first, said.parent().unwrap());
    // It may go to another thread.
    std::thread::spawn(move || drop(gpu)).join().unwrap();
    assert_eq!(
        look(),
        [
            "cublasLt: 0 descriptions, 0 layouts, 0 preferences",
            "release: 0 memory, 0 pinned, 0 registered, 0 streams, 0 events, 0 modules, 0 graphs, 0 executables",
        ]
    );
}

/// What the host counts by.
fn numbers_of_the_host_are_written(gpu: &mut Gpu, queue: Queue) {
    let error = gpu.count(queue, 0, 1).unwrap_err();
    assert!(matches!(error, CudaError::NotPrepared { .. }), "{error}");
    let cells: Arc<[AtomicU32]> = (0..3).map(|_| AtomicU32::new(0)).collect();
    gpu.counters(Arc::clone(&cells)).unwrap();
    gpu.count(queue, 2, 7).unwrap();
    assert!(gpu.count(queue, 3, 1).is_err());
    let found: Vec<u32> = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
    assert_eq!(found, [0, 0, 7]);
    assert_eq!(gpu.identity(), Some([0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09]));
}

/// Each kind of transfer is NCCL's, on the queue's stream, with bytes where nothing is summed.
fn buffers_move_on_channels(gpu: &mut Gpu, queue: Queue, folder: &Path) {
    // SAFETY: the stand-in was built from this repository's source and has no initialisers.
    let library = unsafe { libloading::Library::new(folder.join("libnccl.so.2")) }.unwrap();
    let said = || {
        // SAFETY: the source defines it so, and the text ends with 0.
        let text = unsafe {
            let said = library.get::<unsafe extern "C" fn() -> *const c_char>(b"stand_in_said\0").unwrap();
            CStr::from_ptr(said())
        };
        text.to_string_lossy().into_owned()
    };
    let meeting = gpu.meeting().unwrap();
    let (pair, group) = (Channel(2), Channel(0));
    let transfer = |channel, what, from: u64, to: u64, stored| {
        let place = |at: u64| (at > 0).then_some(Address(at));
        Transfer { channel, what, from: place(from), to: place(to), words: 8, stored }
    };
    let early = gpu.transfer(queue, &transfer(pair, Move::Send, 16, 0, Stored::F32)).unwrap_err();
    assert!(matches!(early, CudaError::NotPrepared { .. }), "{early}");
    gpu.join(pair, &meeting, (2, 1), Duration::from_secs(20)).unwrap();
    gpu.join(group, &meeting, (4, 3), Duration::from_secs(20)).unwrap();
    for moved in [
        transfer(pair, Move::Send, 16, 0, Stored::F32),
        transfer(pair, Move::Receive, 0, 32, Stored::F32),
        transfer(group, Move::Broadcast { root: 3 }, 16, 32, Stored::F32),
        transfer(group, Move::Broadcast { root: 1 }, 0, 32, Stored::F32),
        transfer(group, Move::Reduce { root: 2 }, 16, 0, Stored::Bf16),
        transfer(group, Move::AllReduce, 16, 32, Stored::F32),
        transfer(group, Move::AllGather, 16, 32, Stored::Bf16),
        transfer(group, Move::ReduceScatter, 16, 32, Stored::Bf16),
    ] {
        gpu.transfer(queue, &moved).unwrap();
    }
    gpu.check().unwrap();
    gpu.leave().unwrap();
    let expected = [
        "init 1/2;init 3/4;",
        "(send 10 32 1 1 1;)(receive 20 32 1 0 1;)",
        "broadcast 10 20 32 1 3 1;broadcast 20 20 32 1 1 1;",
        "reduce 10 10 16 9 0 2 1;",
        "all_reduce 10 20 8 7 0 1;",
        "all_gather 10 20 32 1 1;",
        "reduce_scatter 10 20 4 9 0 1;",
        "finalize;destroy 0;finalize;destroy 0;",
    ];
    assert_eq!(said(), expected.concat());
    gpu.join(pair, &meeting, (2, 0), Duration::from_secs(20)).unwrap();
    let end = gpu.ender();
    std::thread::spawn(move || end()).join().unwrap();
    // It does not wait for NCCL.
    let until = Instant::now() + Duration::from_secs(20);
    while !said().ends_with("init 0/2;abort 0;") {
        assert!(Instant::now() < until, "{}", said());
        std::thread::sleep(Duration::from_millis(1));
    }
    let ended = gpu.transfer(queue, &transfer(pair, Move::Send, 16, 0, Stored::F32)).unwrap_err();
    assert!(ended.to_string().contains("was aborted"), "{ended}");
}

/// Bytes that are written, copied and zeroed are read again: more of them than the staging memory holds at once.
fn bytes_arrive(gpu: &mut Gpu, at: Address) {
    let queue = gpu.queue(Purpose::Moves).unwrap();
    let count = (19 << 20) + 5;
    let mut found = vec![1_u8; count];
    gpu.read(queue, at, &mut found).unwrap();
    assert!(found.iter().all(|&byte| byte == 0), "memory is zeroed");
    let bytes: Vec<u8> = (0..count).map(|index| (index * 7 + (index >> 13)) as u8).collect();
    let mut from = bytes.clone();
    gpu.write(queue, at, &from).unwrap();
    from.fill(0);
    gpu.copy(queue, at.plus(20 << 20), at, count as u64).unwrap();
    gpu.zero(queue, at, 100).unwrap();
    for (bytes_at, zeroed) in [(at.plus(20 << 20), 0), (at, 100)] {
        gpu.read(queue, bytes_at, &mut found).unwrap();
        assert!(found[..zeroed].iter().all(|&byte| byte == 0), "the beginning is zeroed");
        assert!(found[zeroed..] == bytes[zeroed..], "all bytes arrive");
    }
}

/// What the stand-ins wrote since the last look.
type Look<'a> = &'a dyn Fn() -> Vec<String>;

fn products_are_tried_first(gpu: &mut Gpu, at: Address, [first, second]: [Queue; 2], look: Look<'_>) {
    let bias = Epilogue::Bias(at.plus(8192));
    let fused = product(at, Stored::F32, true, bias);
    let unfused = product(at, Stored::Bf16, false, bias);
    let mut turned = product(at, Stored::Bf16, true, Epilogue::Plain);
    turned.left = Matrix { turned: true, stride: 4, ..turned.left };
    turned.result.stored = Stored::F32;
    for product in [&fused, &unfused] {
        let error = gpu.product(first, product).unwrap_err();
        assert!(matches!(error, CudaError::NotPrepared { .. }), "{error}");
    }
    let moves = gpu.queue(Purpose::Moves).unwrap();
    let wide = (launch::attention_keys(Stored::F32, 2, 32, 128), Stored::F32);
    gpu.prepare(&[wide], &[fused, unfused, turned, fused]).unwrap();
    let [f32s, bf16s, sums] = [
        "matmul 0 16x8/16 8x4/8 0 16x4/16 1 1 bias",
        "matmul 14 16x8/16 8x4/8 14 16x4/16 1 0",
        "matmul 14 16x8/16 4x8/4' 0 16x4/16 1 1",
    ];
    // Each was tried once; and shared memory beyond 48 KiB was allowed.
    let allowed = format!("set attention_keys 8 {}", wide.0.shared);
    assert_eq!(look(), ["urgent -5", f32s, bf16s, sums, &allowed]);
    let error = gpu.product(moves, &fused).unwrap_err();
    assert!(matches!(error, CudaError::NotPrepared { .. }), "{error}");
    for (product, lines) in [
        (&fused, vec![f32s]),
        (&unfused, vec![bf16s, "launch bias_add 4,1,1 32,1,1 0: 16"]),
        (&turned, vec![sums]),
    ] {
        gpu.product(second, product).unwrap();
        assert_eq!(look(), lines);
    }
}

fn activations_are_fused_or_follow(gpu: &mut Gpu, at: Address, queue: Queue, look: Look<'_>) {
    let (bias, before) = (at.plus(8192), at.plus(12288));
    let both = [Epilogue::Gelu { bias, before }, Epilogue::GeluGradient { before }];
    let [fused, apart] =
        [Stored::F32, Stored::Bf16].map(|stored| both.map(|epilogue| product(at, stored, false, epilogue)));
    gpu.prepare(&[], &[fused, apart].concat()).unwrap();
    let plain = "matmul 14 16x8/16 8x4/8 14 16x4/16 1 0";
    let [gelu, slope] =
        [" bias gelu", " slope"].map(|end| format!("matmul 0 16x8/16 8x4/8 0 16x4/16 1 0{end}"));
    // The one with a bias was made ready before.
    assert_eq!(look(), [gelu.clone(), slope.clone(), plain.to_owned()]);
    let follows = |kernel: &str| format!("launch {kernel} 1,1,1 256,1,1 0: 64");
    let bias = "launch bias_add 4,1,1 32,1,1 0: 16".to_owned();
    for (product, lines) in [
        (fused[0], vec![gelu]),
        (fused[1], vec![slope]),
        (apart[0], vec![plain.to_owned(), bias, follows("gelu_forward")]),
        (apart[1], vec![plain.to_owned(), follows("gelu_backward")]),
    ] {
        gpu.product(queue, &product).unwrap();
        assert_eq!(look(), lines);
    }
    let mut gaps = apart[0];
    gaps.result.stride = 20;
    let error = gpu.prepare(&[], &[gaps]).unwrap_err();
    assert!(error.to_string().contains("rows without gaps"), "{error}");
}

fn launches_are_checked(gpu: &mut Gpu, at: Address, first: Queue, look: Look<'_>) {
    let add = launch::bias_add(Stored::Bf16, 3, 40);
    let arguments = [Argument::At(at), Argument::At(at), Argument::Int(40)];
    gpu.launch(first, add, Stored::Bf16, &arguments).unwrap();
    let nothing = launch::bias_add(Stored::Bf16, 0, 40);
    gpu.launch(first, nothing, Stored::Bf16, &arguments).unwrap();
    assert_eq!(look(), ["launch bias_add 3,1,1 32,1,1 0: 40"]);
    let error = gpu.launch(first, add, Stored::Bf16, &arguments[..2]).unwrap_err();
    assert!(error.to_string().contains("bias_add"), "{error}");
    let error = gpu.launch(first, launch::vocab_loss(), Stored::F32, &[]).unwrap_err();
    assert!(matches!(error, CudaError::NotPrepared { .. }), "{error}");
}

fn captures_are_repeated(
    gpu: &mut Gpu,
    at: Address,
    [first, second]: [Queue; 2],
    plain: Event,
    look: Look<'_>,
) {
    gpu.capture(first).unwrap();
    gpu.record(plain, first).unwrap();
    gpu.wait(second, plain).unwrap();
    let refused =
        [gpu.write(first, at, &[0]), gpu.read(first, at, &mut [0]), gpu.finish(), gpu.capture(second)];
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    let graph = gpu.captured(first).unwrap();
    // What was recorded in a capture was not recorded outside.
    assert!(gpu.wait(second, plain).is_err());
    gpu.repeat(first, graph).unwrap();
    assert!(gpu.is_done(first).unwrap());
    gpu.finish().unwrap();
    assert_eq!(look(), ["begin 1", "wait", "end", "graph"]);
}
