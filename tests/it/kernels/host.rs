//! The kernels compiled for the host: a library for each way that they are compiled, and launches on it.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;
use schedc::kernels::{Kernel, Launch, SOURCES, Stored};

/// The library's entry: name, grid, block, shared bytes, arguments, descending order; writes what went wrong.
type Entry = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    u32,
    *mut *mut c_void,
    c_int,
    *mut c_char,
    usize,
) -> c_int;

/// The kernels for one stored type and width of heads.
pub(crate) struct Host {
    pub(crate) stored: Stored,
    pub(crate) head: u32,
    entry: Entry,
    _library: Library,
    _folder: tempfile::TempDir,
}

/// What a kernel is handed.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    To(&'a Buffer),
    Null,
    Int(i32),
    Long(i64),
    Float(f32),
}

/// A C++ compiler; `None`, and a word on standard error, where there is none.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn compiler() -> Option<&'static str> {
    let runs =
        |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|found| found.status.success());
    let found = ["c++", "g++", "clang++"].into_iter().find(runs);
    if found.is_none() {
        eprintln!("skipped: no C++ compiler (c++, g++, clang++), so the kernels are not checked on the host");
    }
    found
}

/// The kernels, in the ways that the tests need them; `None` where there is no compiler.
pub(crate) fn hosts() -> Option<&'static [Host]> {
    static HOSTS: OnceLock<Option<Vec<Host>>> = OnceLock::new();
    let hosts = HOSTS.get_or_init(|| {
        let compiler = compiler()?;
        // Heads of 8 and 17: whole packs, and neither packs nor tiles. In bf16 heads of 16 and 64 are for tensor cores.
        let ways =
            [(Stored::F32, 17), (Stored::Bf16, 8), (Stored::F32, 64), (Stored::Bf16, 16), (Stored::Bf16, 64)];
        let build = |(stored, head)| std::thread::spawn(move || Host::new(compiler, stored, head));
        let threads: Vec<_> = ways.into_iter().map(build).collect();
        Some(threads.into_iter().map(|thread| thread.join().unwrap()).collect())
    });
    hosts.as_deref()
}

/// What is compiled: sources, and a table of their kernels.
pub(crate) fn driver<'a>(
    files: impl Iterator<Item = &'a str>,
    kernels: impl Iterator<Item = &'a str>,
) -> String {
    let mut text = "#include \"shim.h\"\n".to_owned();
    for file in files {
        writeln!(text, "#include \"{file}\"").unwrap();
    }
    text += "static const struct { const char* name; void (*kernel)(void**); } kernels[] = {\n";
    for name in kernels {
        writeln!(text, "{{\"{name}\", [](void** arguments) {{ shim::call({name}, arguments); }}}},").unwrap();
    }
    text + "};\n\
        extern \"C\" int entry(const char* name, const unsigned* grid, const unsigned* block, unsigned shared, void** arguments,\n\
                int descending, char* message, size_t capacity) {\n\
            for (const auto& known : kernels) {\n\
                if (strcmp(known.name, name) != 0) continue;\n\
                const char* error = shim::launch(known.kernel, grid, block, shared, arguments, descending != 0);\n\
                if (!error) return 0;\n\
                snprintf(message, capacity, \"%s\", error);\n\
                return 1;\n\
            }\n\
            snprintf(message, capacity, \"no such kernel\");\n\
            return 1;\n\
        }\n"
}

impl Host {
    fn new(compiler: &str, stored: Stored, head: u32) -> Self {
        let files = SOURCES.iter().map(|source| source.file);
        Self::of(compiler, stored, head, &driver(files, Kernel::ALL.iter().map(|kernel| kernel.name())))
    }

    /// Compiles a text.
    pub(crate) fn of(compiler: &str, stored: Stored, head: u32, driver: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("driver.cpp"), folder.path().join("kernels.so"));
        std::fs::write(&source, driver).unwrap();
        let flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off"];
        let warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE"];
        let built = Command::new(compiler)
            .args(flags)
            .args(warnings)
            .arg(format!("-D{}", stored.define()))
            .arg(format!("-DHEAD={head}"))
            .arg("-I")
            .arg(root.join("tests/it/kernels/shim"))
            .arg("-I")
            .arg(root.join("src/kernels/cuda"))
            .arg("-o")
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        // SAFETY: the library was just built from this repository's sources and has no initialisers.
        let library = unsafe { Library::new(&library) }.unwrap();
        // SAFETY: the driver above defines `entry` so.
        let entry = unsafe { *library.get::<Entry>(b"entry\0").unwrap() };
        Self { stored, head, entry, _library: library, _folder: folder }
    }

    /// Launches a kernel with threads and blocks in ascending order, and again in descending order: the bits must be the same.
    #[track_caller]
    pub(crate) fn run(&self, launch: Launch, args: &[Arg<'_>]) {
        let name = launch.kernel.name();
        let buffers =
            || args.iter().filter_map(|arg| if let Arg::To(buffer) = arg { Some(*buffer) } else { None });
        let before: Vec<_> = buffers().map(Buffer::words).collect();
        self.once(name, launch, args, false).unwrap_or_else(|error| panic!("{name}: {error}"));
        let after: Vec<_> = buffers().map(Buffer::words).collect();
        buffers().zip(&before).for_each(|(buffer, words)| buffer.restore(words));
        self.once(name, launch, args, true).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (index, (buffer, words)) in buffers().zip(&after).enumerate() {
            assert!(
                buffer.words() == *words,
                "{name}: pointer {index} differs when threads run in another order"
            );
            assert!(buffer.is_intact(), "{name}: pointer {index} is written beyond its ends");
        }
    }

    /// Launches a kernel; what the shim found wrong.
    pub(crate) fn once(
        &self,
        name: &str,
        launch: Launch,
        args: &[Arg<'_>],
        descending: bool,
    ) -> Result<(), String> {
        let mut words: Vec<u64> = args.iter().map(|arg| arg.word()).collect();
        self.call(name, launch, &mut words, descending)
    }

    /// The same with the arguments in the first bytes of words.
    pub(crate) fn call(
        &self,
        name: &str,
        launch: Launch,
        values: &mut [u64],
        descending: bool,
    ) -> Result<(), String> {
        let name = CString::new(name).unwrap();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let mut message = [0; 200];
        // SAFETY: the arguments are those of the kernel's definition, which every caller here sees to; buffers outlive the call.
        let code = unsafe {
            (self.entry)(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                launch.shared,
                pointers.as_mut_ptr(),
                descending.into(),
                message.as_mut_ptr(),
                message.len(),
            )
        };
        // SAFETY: `snprintf` ends the text within the array.
        let text = unsafe { CStr::from_ptr(message.as_ptr()) };
        if code == 0 { Ok(()) } else { Err(text.to_string_lossy().into_owned()) }
    }
}

impl Arg<'_> {
    /// The argument in the first bytes of a word.
    fn word(self) -> u64 {
        match self {
            Arg::To(buffer) => buffer.pointer() as u64,
            Arg::Null => 0,
            Arg::Int(value) => u64::from(value.cast_unsigned()),
            Arg::Long(value) => value.cast_unsigned(),
            Arg::Float(value) => value.to_bits().into(),
        }
    }
}

/// Words of 16 bytes before and behind a buffer that nothing may touch.
const GUARD: usize = 4;
const UNTOUCHED: u128 = u128::MAX;

/// Memory that a kernel is handed: aligned to 16 bytes, as a device's is, between guards that read as NaN.
pub(crate) struct Buffer {
    cells: Vec<Cell<u128>>,
    stored: Stored,
    length: usize,
    bytes: usize,
}

impl Buffer {
    fn of(bytes: &[u8], stored: Stored, length: usize) -> Self {
        let words = bytes.chunks(16).map(|chunk| {
            let mut word = UNTOUCHED.to_le_bytes();
            word[..chunk.len()].copy_from_slice(chunk);
            u128::from_le_bytes(word)
        });
        let guard = || std::iter::repeat_n(UNTOUCHED, GUARD);
        let cells = guard().chain(words).chain(guard()).map(Cell::new).collect();
        Self { cells, stored, length, bytes: bytes.len() }
    }

    /// Numbers as the stored type.
    pub(crate) fn stored(stored: Stored, values: &[f32]) -> Self {
        let bytes: Vec<u8> = match stored {
            Stored::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Stored::Bf16 => values.iter().flat_map(|&value| bf16_bits(value).to_le_bytes()).collect(),
        };
        Self::of(&bytes, stored, values.len())
    }

    /// Numbers as f32.
    pub(crate) fn f32(values: &[f32]) -> Self {
        Self::stored(Stored::F32, values)
    }

    /// Ids.
    pub(crate) fn ids(values: &[u32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::of(&bytes, Stored::F32, values.len())
    }

    /// Places of other buffers.
    pub(crate) fn pointers(to: &[&Buffer]) -> Self {
        let bytes: Vec<u8> = to.iter().flat_map(|buffer| (buffer.pointer() as u64).to_le_bytes()).collect();
        Self::of(&bytes, Stored::F32, 0)
    }

    fn pointer(&self) -> *const Cell<u128> {
        self.cells[GUARD..].as_ptr()
    }

    fn words(&self) -> Vec<u128> {
        self.cells.iter().map(Cell::get).collect()
    }

    fn restore(&self, words: &[u128]) {
        self.cells.iter().zip(words).for_each(|(cell, &word)| cell.set(word));
    }

    /// Whether nothing was written outside of it.
    fn is_intact(&self) -> bool {
        let bytes: Vec<u8> = self.words().iter().flat_map(|word| word.to_le_bytes()).collect();
        let (start, end) = (GUARD * 16, GUARD * 16 + self.bytes);
        bytes[..start].iter().chain(&bytes[end..]).all(|&byte| byte == u8::MAX)
    }

    /// What it holds.
    pub(crate) fn values(&self) -> Vec<f32> {
        let bytes: Vec<u8> = self.words()[GUARD..].iter().flat_map(|word| word.to_le_bytes()).collect();
        match self.stored {
            Stored::F32 => (0..self.length)
                .map(|i| f32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap()))
                .collect(),
            Stored::Bf16 => (0..self.length)
                .map(|i| f32::from_bits(u32::from(bytes[2 * i + 1]) << 24 | u32::from(bytes[2 * i]) << 16))
                .collect(),
        }
    }
}

/// The bf16 next to an f32, ties to even.
pub(crate) fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((u64::from(bits) + 0x7fff + u64::from(bits >> 16 & 1)) >> 16) as u16
}

/// Numbers as the stored type holds them.
pub(crate) fn rounded(stored: Stored, values: &[f32]) -> Vec<f32> {
    match stored {
        Stored::F32 => values.to_vec(),
        Stored::Bf16 => {
            values.iter().map(|&value| f32::from_bits(u32::from(bf16_bits(value)) << 16)).collect()
        }
    }
}
