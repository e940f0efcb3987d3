//! What needs no device: arguments as a launch reads them, and every refusal by its name.

use std::ffi::c_void;

use miette::Diagnostic as _;
use schedc::cuda::{Address, Architecture, Argument, CudaError, Gpu, Library, Packed, load};
use schedc::ir::Bytes;

#[test]
fn arguments_lie_where_a_launch_reads_them_in_as_many_bytes_as_they_have() {
    let arguments = [
        Argument::At(Address(0x0102_0304_0506_0708)),
        Argument::Int(-7),
        Argument::NOTHING,
        Argument::Long(-(1 << 40)),
        Argument::Float(-0.5),
        Argument::Int(i32::MAX),
    ];
    let mut packed = Packed::new(&arguments).unwrap();
    assert_eq!(packed.sizes(), [8, 4, 8, 8, 4, 4]);
    let pointers = packed.pointers().0;
    let read = |index: usize, size: usize| {
        assert_eq!(pointers[index] as usize % 8, 0, "argument {index} is aligned");
        // SAFETY: each argument lies in eight bytes of `packed`, which lives.
        unsafe { std::slice::from_raw_parts(pointers[index].cast_const().cast::<u8>(), size) }
    };
    assert_eq!(read(0, 8), 0x0102_0304_0506_0708_u64.to_ne_bytes());
    assert_eq!(read(1, 4), (-7_i32).to_ne_bytes());
    assert_eq!(read(2, 8), [0; 8]);
    assert_eq!(read(3, 8), (-(1_i64 << 40)).to_ne_bytes());
    assert_eq!(read(4, 4), (-0.5_f32).to_ne_bytes());
    assert_eq!(read(5, 4), i32::MAX.to_ne_bytes());
    assert!(pointers[6..].iter().all(|pointer: &*mut c_void| pointer.is_null()));
}

#[test]
fn a_launch_takes_as_many_arguments_as_any_kernel_has_and_no_more() {
    assert!(Packed::new(&[]).unwrap().sizes().is_empty());
    assert_eq!(Packed::new(&[Argument::Int(1); 16]).unwrap().sizes().len(), 16);
    assert!(Packed::new(&[Argument::Int(1); 17]).is_none());
}

#[test]
fn a_device_runs_the_machine_code_of_its_own_generation() {
    let known =
        [(8, 0), (8, 9), (9, 0), (10, 0), (10, 3)].map(|(major, minor)| Architecture::of(major, minor));
    let [a100, l40, h200, b200, b300] = known;
    assert_eq!([a100, l40], [Some(Architecture::Sm80); 2]);
    assert_eq!(h200, Some(Architecture::Sm90));
    assert_eq!([b200, b300], [Some(Architecture::Sm100); 2]);
    for (major, minor) in [(7, 5), (11, 0), (12, 0), (-1, 0)] {
        assert_eq!(Architecture::of(major, minor), None);
    }
}

#[test]
fn opening_a_device_without_a_driver_is_refused_by_name() {
    if load(Library::Driver, None).is_ok() {
        // A machine with a driver: a device that no machine has is refused by name just the same.
        let error = Gpu::open(9999, 64, None).err().unwrap();
        assert!(matches!(error, CudaError::NoDevice { .. } | CudaError::DriverTooOld { .. }), "{error}");
        return;
    }
    let error = Gpu::open(0, 64, None).err().unwrap();
    assert_eq!(error.code().unwrap().to_string(), "schedc::cuda::no_driver");
    assert!(error.to_string().contains("libcuda.so.1"), "{error}");
}

#[test]
fn what_only_a_device_refuses_has_a_name_and_says_what_to_do() {
    let text = |text: &str| text.to_owned();
    let bytes = |number: u64| Bytes(number << 30);
    let all = [
        ("schedc::cuda::driver_too_old", CudaError::DriverTooOld { found: text("12.4") }, "CUDA 12.4"),
        (
            "schedc::cuda::unknown_architecture",
            CudaError::UnknownArchitecture { device: text("T4"), major: 7, minor: 5 },
            "`T4` is of compute capability 7.5",
        ),
        (
            "schedc::cuda::out_of_memory",
            CudaError::OutOfMemory { what: "memory", asked: bytes(80), free: bytes(3), total: bytes(79) },
            "80.0 GiB of memory were asked for, and 3.0 GiB of the device's 79.0 GiB are free",
        ),
        (
            "schedc::cuda::failed",
            CudaError::Failed { call: "cuLaunchKernel", reason: text("CUDA_ERROR_ILLEGAL_ADDRESS (700)") },
            "`cuLaunchKernel` failed",
        ),
        (
            "schedc::cuda::kernel_too_large",
            CudaError::KernelTooLarge {
                kernel: "attention_keys",
                asked: Bytes(300_000),
                most: Bytes(232_448),
            },
            "`attention_keys` takes 300000 B",
        ),
        (
            "schedc::cuda::no_algorithm",
            CudaError::NoAlgorithm { product: text("f32 = f32 [1, 1] * f32 [1, 1]"), reason: text("so") },
            "f32 [1, 1] * f32 [1, 1]: so",
        ),
        (
            "schedc::cuda::not_prepared",
            CudaError::NotPrepared { what: text("queue 3") },
            "queue 3 was not made ready",
        ),
    ];
    for (code, error, part) in all {
        assert_eq!(error.code().unwrap().to_string(), code);
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.help().is_some(), "{code}");
    }
}
