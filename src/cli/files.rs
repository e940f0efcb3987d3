//! Files that a user names: read up to a limit, told apart by how they begin, and written whole.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use schedc::syntax;
use thiserror::Error;

use super::Failure;

/// The most bytes that a plan file may have; a reader holds all of them, and the plan beside them.
pub(crate) const MAX_PLAN_BYTES: u64 = 4 << 30;

/// Enough of a file to tell what it is.
const HEAD: u64 = 4096;

/// A file that can't be used.
#[derive(Debug, Error, Diagnostic)]
pub(crate) enum FileError {
    /// A file can't be read.
    #[error("can't read `{path}`: {reason}")]
    #[diagnostic(code(schedc::cli::unreadable), help("{help}"))]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: io::Error,
        /// What to name instead.
        help: &'static str,
    },
    /// A file can't be written.
    #[error("can't write `{path}`: {reason}")]
    #[diagnostic(
        code(schedc::cli::unwritable),
        help("name a file in a folder that exists and may be written")
    )]
    Unwritable {
        /// The file.
        path: String,
        /// What the system says.
        reason: io::Error,
    },
    /// A plan that is larger than any that is read.
    #[error("`{path}` has more than {MAX_PLAN_BYTES} bytes, which no plan may have")]
    #[diagnostic(
        code(schedc::cli::plan_too_large),
        help("name a plan that `schedc compile` wrote; fewer microbatches make a smaller one")
    )]
    PlanTooLarge {
        /// The file.
        path: String,
    },
    /// A file that is empty or no text.
    #[error("`{path}` is neither a plan nor a `.sched` file: it is {}", if *.empty { "empty" } else { "not text" })]
    #[diagnostic(
        code(schedc::cli::neither),
        help("name a file with a schedule, or a plan that `schedc compile` wrote")
    )]
    Neither {
        /// The file.
        path: String,
        /// Whether there is nothing in it.
        empty: bool,
    },
}

/// What a command reads, which decides what a file is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `schedc compile`, `schedc run`: a schedule, or a plan.
    Job,
    /// `schedc verify`: a plan, or a PyTorch schedule.
    Plan,
    /// `schedc fmt`: a `.sched` file.
    Schedule,
}

impl Wanted {
    fn help(self) -> &'static str {
        match self {
            Self::Job => {
                "name a file that exists and may be read; `schedc list` has the schedules that need no file"
            }
            Self::Plan => "name a plan file, or a PyTorch schedule `.csv`, that exists and may be read",
            Self::Schedule => "name a `.sched` file that exists and may be read",
        }
    }
}

/// What a file holds, judged by how it begins.
#[derive(Debug)]
pub(crate) enum Contents {
    /// A plan in either form, or what was meant to be one.
    Plan(Vec<u8>),
    /// A schedule of PyTorch's, judged by the ending `.csv`.
    Torch(Vec<u8>),
    /// Anything else: the text of a schedule, one byte more than the largest at most.
    Schedule(Vec<u8>),
}

impl Contents {
    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Plan(bytes) | Self::Torch(bytes) | Self::Schedule(bytes) => bytes,
        }
    }
}

/// Reads a file that may be a plan or a schedule, without the mark that some editors begin a text with.
pub(crate) fn read(path: &Path, wanted: Wanted) -> Result<Contents, Failure> {
    let name = || path.display().to_string();
    let unreadable =
        |reason| Failure::usage(FileError::Unreadable { path: name(), reason, help: wanted.help() });
    let (file, metadata) = open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    (&file).take(HEAD).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let ends = |ending| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
    let torch = wanted != Wanted::Schedule && ends("csv");
    let plan = !torch && looks_like_a_plan(&bytes);
    let spelt_so = ends("sched");
    if !plan && (torch || wanted == Wanted::Plan || !spelt_so && wanted == Wanted::Job) {
        let empty = bytes.trim_ascii().is_empty();
        if empty || !is_text(&bytes) {
            return Err(Failure::one(FileError::Neither { path: name(), empty }));
        }
    }
    if !plan && !torch && wanted != Wanted::Plan {
        let rest = (syntax::MAX_BYTES + 1).saturating_sub(bytes.len() as u64);
        (&file).take(rest).read_to_end(&mut bytes).map_err(unreadable)?;
        return Ok(Contents::Schedule(bytes));
    }
    let too_large = || Err(Failure::one(FileError::PlanTooLarge { path: name() }));
    if metadata.is_file() && metadata.len() > MAX_PLAN_BYTES {
        return too_large();
    }
    (&file).take(MAX_PLAN_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_PLAN_BYTES {
        return too_large();
    }
    Ok(if torch { Contents::Torch(bytes) } else { Contents::Plan(bytes) })
}

/// The most bytes of a file that says what things cost; the longest are traces.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Reads a text that says what things cost.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    let name = || path.display().to_string();
    let help = "name a file that exists and may be read; docs/costs.md says what is in one";
    let unreadable = |reason| Failure::usage(FileError::Unreadable { path: name(), reason, help });
    let (file, _) = open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(unreadable(io::Error::other("it has more than 256 MiB")));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Opens what has an end: a file or a pipe.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() && !is_pipe(&metadata) {
        return Err(io::Error::other("it is neither a file nor a pipe"));
    }
    Ok((File::open(path)?, metadata))
}

#[cfg(unix)]
fn is_pipe(metadata: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_: &Metadata) -> bool {
    false
}

fn looks_like_a_plan(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    start.starts_with(b"schedc plan") || start.starts_with(b"{")
}

/// Whether the beginning of a file can be text; its last character may be cut off.
fn is_text(bytes: &[u8]) -> bool {
    let whole = std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true);
    whole && !bytes.contains(&0)
}

/// Writes a file whole or not at all: beside its place first, then moved there. A link stays a link, a file keeps its
/// permissions, and what is no file (a pipe, a device) is written to as it is.
pub(crate) fn write(
    path: &Path,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let written = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => replace(path, &metadata, contents),
        Ok(_) => OpenOptions::new().write(true).open(path).and_then(|file| filled(file, contents)),
        // A link to a file that is not there yet.
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            File::create(path).and_then(|file| filled(file, contents))
        }
        Err(_) => moved(path, None, contents),
    };
    written
        .map_err(|reason| Failure::usage(FileError::Unwritable { path: path.display().to_string(), reason }))
}

fn filled(file: File, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    contents(&mut file)?;
    file.flush()
}

/// Replaces a file that may be written, where it lies.
fn replace(
    path: &Path,
    metadata: &Metadata,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let place = fs::canonicalize(path)?;
    // A move asks only whether the folder may be written.
    OpenOptions::new().write(true).open(&place)?;
    moved(&place, Some(metadata), contents)
}

fn moved(
    place: &Path,
    old: Option<&Metadata>,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let (beside, file) = beside(place)?;
    let done = || {
        // First: what the old file kept from others is kept from them while it is written too.
        if let Some(old) = old {
            file.set_permissions(old.permissions())?;
        }
        filled(file, contents)?;
        fs::rename(&beside, place)
    };
    done().inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// A new file in the folder of another, under a name that nothing has.
fn beside(place: &Path) -> io::Result<(PathBuf, File)> {
    place.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut attempt = 0;
    loop {
        let other = place.with_file_name(format!(".schedc-{}-{attempt}.part", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&other) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            file => return Ok((other, file?)),
        }
    }
}
