//! Which of CUDA's libraries are on this machine, and where.
//!
//! Most users have CUDA as the wheels that PyTorch brings: `site-packages/nvidia/*/lib`. A library that is found is loaded by its path
//! and stays loaded: `cudarc`, which asks the loader by name, then gets the same one, since the loader knows it by its name.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::CudaError;

/// A library that the CUDA backend needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The driver; it comes with the kernel's module, so only the loader knows where it is.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Messages and collectives.
    Nccl,
}

impl Library {
    /// The names of its file, the first that exists being taken.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1", "libcuda.so"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so"],
            Self::Nccl => &["libnccl.so.2", "libnccl.so"],
        }
    }

    fn missing(self, looked: String) -> CudaError {
        match self {
            Self::Driver => CudaError::NoDriver { looked },
            Self::Nvrtc => CudaError::NoNvrtc { looked },
            Self::CublasLt => CudaError::NoCublasLt { looked },
            Self::Nccl => CudaError::NoNccl { looked },
        }
    }
}

/// What a machine has.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Libraries, and the files that they were loaded from; a bare name where the loader found it.
    pub found: Vec<(Library, PathBuf)>,
    /// Devices that the driver shows.
    pub devices: u32,
    /// What is missing, each by name.
    pub missing: Vec<CudaError>,
}

/// Looks for everything that the CUDA backend needs. `path` is the folder of a CUDA installation, or of one or more wheels.
#[must_use]
pub fn probe(path: Option<&Path>) -> Probe {
    let mut probe = Probe::default();
    for library in [Library::Driver, Library::Nvrtc, Library::CublasLt, Library::Nccl] {
        match load(library, path) {
            Ok(file) => probe.found.push((library, file)),
            Err(error) => probe.missing.push(error),
        }
        if library == Library::Driver && probe.missing.is_empty() {
            match devices() {
                Ok(count) => probe.devices = count,
                Err(reason) => probe.missing.push(CudaError::NoDevice { reason }),
            }
        }
    }
    probe
}

/// Loads a library for good, and says from where.
///
/// # Errors
/// It is in none of the places.
pub fn load(library: Library, path: Option<&Path>) -> Result<PathBuf, CudaError> {
    let places = places(path);
    let mut refused = String::new();
    for place in &places {
        for file in library.names().iter().map(|name| place.join(name)).filter(|file| file.is_file()) {
            if library == Library::Nvrtc {
                // It looks for its own part by name, in places that it is not in.
                for part in parts(place) {
                    let _ = keep(&part);
                }
            }
            match keep(&file) {
                Ok(()) => return Ok(file),
                Err(reason) => refused = format!("; {} cannot be loaded: {reason}", file.display()),
            }
        }
    }
    if let Some(name) = library.names().iter().find(|name| keep(Path::new(name)).is_ok()) {
        return Ok(PathBuf::from(name));
    }
    let names = library.names().join(" or ");
    let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    let places = if places.is_empty() { String::new() } else { format!(", nor in {}", places.join(", ")) };
    Err(library.missing(format!("no {names} on the loader's path{places}{refused}")))
}

/// What NVRTC brings beside itself.
fn parts(place: &Path) -> Vec<PathBuf> {
    let is_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libnvrtc-builtins.so")
    };
    entries(place).into_iter().filter(is_part).collect()
}

/// Loads a library and never unloads it.
fn keep(file: &Path) -> Result<(), String> {
    // SAFETY: the libraries that are looked for are CUDA's, whose initialisers any program may run.
    let library = unsafe { libloading::Library::new(file) };
    library.map(std::mem::forget).map_err(|error| error.to_string())
}

/// The devices that the driver shows; at least one.
fn devices() -> Result<u32, String> {
    use cudarc::driver::{result, sys};
    // SAFETY: it only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        return Err("the driver is not found again by its name".to_owned());
    }
    result::init().map_err(|error| format!("{:?}", error.0))?;
    let count = result::device::get_count().map_err(|error| format!("{:?}", error.0))?;
    u32::try_from(count).ok().filter(|&count| count > 0).ok_or_else(|| "it counts 0 devices".to_owned())
}

/// The folders of libraries that exist, what was said explicitly first.
fn places(path: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let said = path.map(Path::to_path_buf).or_else(|| folder("SCHEDC_CUDA_PATH"));
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(folder);
    for root in said.into_iter().chain(homes).chain([PathBuf::from("/usr/local/cuda")]) {
        places.extend([root.clone(), root.join("lib64"), root.join("lib")]);
        places.extend(wheels(&root));
    }
    let listed = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    places.extend(env::split_paths(&listed).filter(|place| place.is_absolute()));
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(folder);
    for prefix in environments.chain(pythons()).chain(["/usr/local", "/usr"].map(PathBuf::from)) {
        for python in entries(&prefix.join("lib")) {
            for packages in ["site-packages", "dist-packages"] {
                places.extend(wheels(&python.join(packages)));
            }
        }
    }
    let mut seen = Vec::new();
    places.retain(|place| {
        let new = place.is_dir() && !seen.contains(place);
        seen.push(place.clone());
        new
    });
    places
}

/// A folder that a variable names.
fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
}

/// Where the Pythons on the path are installed.
fn pythons() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let has_python = |folder: &PathBuf| folder.join("python3").is_file();
    env::split_paths(&path)
        .filter(has_python)
        .filter_map(|folder| Some(folder.parent()?.to_path_buf()))
        .collect()
}

/// The libraries of NVIDIA's wheels in a folder of packages.
fn wheels(packages: &Path) -> Vec<PathBuf> {
    let libraries = entries(&packages.join("nvidia")).into_iter().map(|package| package.join("lib"));
    libraries.filter(|place| place.is_dir()).collect()
}

/// What is in a folder, in order; nothing where it can't be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
