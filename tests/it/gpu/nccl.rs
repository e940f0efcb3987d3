//! NCCL's owner, on a stand-in for the library that is compiled here; where NCCL itself is found, its functions too.

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use miette::Diagnostic as _;
use schedc::cuda::{
    Address, Communicator, CudaError, Element, Library, Nccl, Reduction, Stream, UniqueId, load,
};

use crate::kernels::host::compiler;

/// The stand-in, loaded.
struct StandIn {
    nccl: Nccl,
    library: libloading::Library,
    _folder: tempfile::TempDir,
}

impl StandIn {
    /// `None`, and a word on standard error, where there is no compiler.
    fn new() -> Option<Self> {
        let compiler = compiler()?;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnccl.so.2");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gpu/stand_in_nccl.c");
        let built = Command::new(compiler)
            .args([
                "-xc",
                "-std=c11",
                "-O1",
                "-shared",
                "-fPIC",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-unused-parameter",
                "-o",
            ])
            .args([&file, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let nccl = Nccl::open(Some(folder.path())).unwrap();
        assert_eq!(nccl.file(), file);
        assert_eq!(nccl.version(), "2.28.9");
        // SAFETY: the library was just built from this repository's source and has no initialisers.
        let library = unsafe { libloading::Library::new(&file) }.unwrap();
        Some(Self { nccl, library, _folder: folder })
    }

    /// How many polls a call needs, and the result that the last poll has.
    fn set(&self, polls: c_int, failure: c_int) {
        // SAFETY: the source defines it so.
        unsafe {
            self.library.get::<unsafe extern "C" fn(c_int, c_int)>(b"stand_in_set\0").unwrap()(
                polls, failure,
            );
        }
    }

    /// Its calls so far.
    fn said(&self) -> String {
        // SAFETY: the source defines it so, and the text ends with 0.
        let said = unsafe {
            let said =
                self.library.get::<unsafe extern "C" fn() -> *const c_char>(b"stand_in_said\0").unwrap();
            CStr::from_ptr(said())
        };
        said.to_string_lossy().into_owned()
    }

    fn join(&self, patience: Duration) -> Result<Communicator, CudaError> {
        let id = self.nccl.unique_id().unwrap();
        let expected: Vec<u8> = (0..128_u8).map(|index| index.wrapping_mul(2)).collect();
        assert_eq!(id.0, expected[..]);
        self.nccl.join(&UniqueId(id.0), 4, 1, patience)
    }
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

#[test]
fn calls_arrive_as_they_were_made_and_are_waited_for() {
    let Some(stand_in) = StandIn::new() else { return };
    stand_in.set(1500, 0);
    let mut joined = stand_in.join(LONG).unwrap();
    stand_in.set(3, 0);
    let stream = Stream::DEFAULT;
    let (from, to) = (Address(0x100), Address(0x200));
    let f32s = (Element::F32, 5);
    stand_in
        .nccl
        .group(&mut [&mut joined], |communicators| {
            communicators[0].send(stream, 2, from, Element::Bf16, 7)?;
            communicators[0].receive(stream, 0, to, Element::Byte, 9)
        })
        .unwrap();
    joined.all_reduce(stream, (from, from), f32s, Reduction::Sum).unwrap();
    joined.reduce(stream, (from, to), f32s, Reduction::Max, 3).unwrap();
    joined.broadcast(stream, (from, to), f32s, 2).unwrap();
    joined.all_gather(stream, (from, to), f32s).unwrap();
    joined.reduce_scatter(stream, (from, to), f32s, Reduction::Sum).unwrap();
    joined.check().unwrap();
    joined.finish().unwrap();
    let said = [
        "init 1/4;",
        "(send 100 7 9 2 0;receive 200 9 1 0 0;)",
        "all_reduce 100 100 5 7 0 0;",
        "reduce 100 200 5 7 2 3 0;",
        "broadcast 100 200 5 7 2 0;",
        "all_gather 100 200 5 7 0;",
        "reduce_scatter 100 200 5 7 0 0;",
        "finalize;destroy 0;",
    ];
    assert_eq!(stand_in.said(), said.concat());
}

#[test]
fn a_communicator_that_is_split_gives_its_part_when_both_are_ready() {
    let Some(stand_in) = StandIn::new() else { return };
    stand_in.set(5, 0);
    let mut joined = stand_in.join(LONG).unwrap();
    let part = joined.split(Some(1), 2).unwrap().unwrap();
    assert!(joined.split(None, 0).unwrap().is_none());
    part.finish().unwrap();
    drop(joined);
    assert_eq!(stand_in.said(), "init 1/4;split 1 2;split -1 0;finalize;destroy 1;abort 0;");
}

#[test]
fn what_takes_too_long_is_aborted_and_named() {
    let Some(stand_in) = StandIn::new() else { return };
    stand_in.set(c_int::MAX, 0);
    let begin = Instant::now();
    let error = stand_in.join(SHORT).err().unwrap();
    assert!(begin.elapsed() >= SHORT && begin.elapsed() < LONG);
    assert_eq!(error.code().unwrap().to_string(), "schedc::cuda::nccl_stalled");
    assert!(error.to_string().contains("`ncclCommInitRankConfig` was not done after 30 ms"), "{error}");
    assert_eq!(stand_in.said(), "init 1/4;abort 0;");
}

#[test]
fn a_failure_is_named_with_its_number_and_nccls_own_words() {
    let Some(stand_in) = StandIn::new() else { return };
    stand_in.set(1, 0);
    let mut joined = stand_in.join(LONG).unwrap();
    stand_in.set(2, 6);
    let error = joined.send(Stream::DEFAULT, 0, Address(0), Element::F32, 1).unwrap_err();
    assert_eq!(error.code().unwrap().to_string(), "schedc::cuda::nccl_failed");
    assert_eq!(error.to_string(), "NCCL's `ncclSend` failed with ncclRemoteError (6): the peer is gone");
    assert!(error.help().is_some());
    // It was aborted, once; whoever goes on is told so.
    let error = joined.check().unwrap_err();
    assert!(error.to_string().contains("was aborted"), "{error}");
    drop(joined);
    assert_eq!(stand_in.said(), "init 1/4;(send 0 1 7 0 0;)abort 0;");
}

#[test]
fn a_group_ends_even_if_what_is_issued_in_it_fails() {
    let Some(stand_in) = StandIn::new() else { return };
    let mut joined = stand_in.join(LONG).unwrap();
    let refused = CudaError::NotPrepared { what: "it".to_owned() };
    let ended = stand_in.nccl.group(&mut [&mut joined], |_| Err::<(), _>(refused.clone()));
    assert_eq!(ended, Err(refused));
    stand_in.set(0, 3);
    let error = stand_in.nccl.group(&mut [&mut joined], |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("`ncclGroupEnd` failed with ncclInternalError (3)"), "{error}");
    assert_eq!(stand_in.said(), "init 1/4;()()abort 0;");
}

#[test]
fn another_thread_ends_a_communicator() {
    let Some(stand_in) = StandIn::new() else { return };
    let mut joined = stand_in.join(LONG).unwrap();
    let aborter = joined.aborter();
    std::thread::spawn(move || {
        aborter.abort();
        aborter.abort();
    })
    .join()
    .unwrap();
    let error = joined.send(Stream::DEFAULT, 0, Address(0), Element::F32, 1).unwrap_err();
    assert!(error.to_string().contains("was aborted"), "{error}");
    assert_eq!(stand_in.said(), "init 1/4;abort 0;");
}

#[test]
fn a_library_that_lacks_a_function_is_no_nccl() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, source) = (folder.path().join("libnccl.so.2"), folder.path().join("less.c"));
    std::fs::write(&source, "int ncclGetVersion(int* version) { *version = 22809; return 0; }").unwrap();
    let built = Command::new(compiler)
        .args(["-xc", "-shared", "-fPIC", "-o"])
        .args([&file, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let error = Nccl::open(Some(folder.path())).err().unwrap();
    assert_eq!(error.code().unwrap().to_string(), "schedc::cuda::no_nccl");
    assert!(error.to_string().contains("has no `ncclGetUniqueId`"), "{error}");
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn nccl_itself_has_every_function_and_makes_ids() {
    if let Err(error) = load(Library::Nccl, None) {
        eprintln!("skipped: {error}");
        return;
    }
    let nccl = Nccl::open(None).unwrap();
    assert!(nccl.version().starts_with("2."), "{}", nccl.version());
    // It may want a network that there is none of; then it says so.
    match (nccl.unique_id(), nccl.unique_id()) {
        (Ok(one), Ok(other)) => assert!(one != other, "ids differ"),
        (Err(error), _) | (_, Err(error)) => {
            assert_eq!(error.code().unwrap().to_string(), "schedc::cuda::nccl_failed");
        }
    }
}
