//! What of CUDA is missing, each by name; and the kernels compiled for devices that need not be there.

use std::fmt::Write as _;
use std::path::Path;

use miette::Diagnostic as _;
use schedc::cuda::{Architecture, CudaError, Library, Resources, Variant, compile, load, probe};
use schedc::kernels::{SOURCES, Source, Stored};

use crate::cli::{SMALL, schedc};

fn code(error: &CudaError) -> String {
    error.code().unwrap().to_string()
}

#[test]
fn what_is_missing_is_named_with_the_places_that_were_looked_in() {
    let folder = tempfile::tempdir().unwrap();
    let libraries = folder.path().join("nvidia/made_up/lib");
    std::fs::create_dir_all(&libraries).unwrap();
    // No library at all.
    std::fs::write(libraries.join("libnccl.so.2"), "text").unwrap();
    let found = probe(Some(folder.path()));
    let codes: Vec<String> = found.missing.iter().map(code).collect();
    let all = [
        "schedc::cuda::no_driver",
        "schedc::cuda::no_device",
        "schedc::cuda::no_nvrtc",
        "schedc::cuda::no_cublaslt",
        "schedc::cuda::no_nccl",
    ];
    assert!(codes.iter().all(|code| all.contains(&code.as_str())), "{codes:?}");
    let has = |library: Library| found.found.iter().any(|(found, _)| *found == library);
    for (library, code) in
        [Library::Driver, Library::Nvrtc, Library::CublasLt, Library::Nccl].into_iter().zip([0, 2, 3, 4])
    {
        assert!(has(library) != codes.iter().any(|found| found == all[code]), "{library:?}: {codes:?}");
    }
    for error in &found.missing {
        assert!(error.help().is_some(), "{error}");
        let CudaError::NoNccl { looked } = error else { continue };
        assert!(looked.contains("made_up") && looked.contains("cannot be loaded"), "{looked}");
    }
}

#[test]
fn a_run_on_cuda_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let done =
        schedc(folder.path(), &format!("run gpipe -p 2 -m 2 {SMALL} --steps 1 --backend cuda --cuda-path ."));
    let found = probe(Some(folder.path()));
    // The ranks of one process need no NCCL.
    let mut codes: Vec<String> = found.missing.iter().map(code).collect();
    codes.retain(|code| code != "schedc::cuda::no_nccl");
    if codes.is_empty() {
        assert_eq!(done.code, 0, "{}", done.err);
        return;
    }
    done.refused(1, &codes.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn ranks_of_several_processes_need_nccl_too() {
    let missing = probe(None).missing;
    if missing.is_empty() {
        return;
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_schedc"));
    command.args(format!("run gpipe -p 2 -m 2 {SMALL} --steps 1 --backend cuda").split_whitespace());
    command.env("RANK", "0").env("WORLD_SIZE", "2").env("LOCAL_RANK", "0").env("MASTER_ADDR", "127.0.0.1");
    let output = command.env("MASTER_PORT", "29500").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for error in missing {
        assert!(said.contains(&code(&error)), "{said}");
    }
}

#[test]
fn graphs_of_several_processes_need_an_order() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_schedc"));
    command.args(format!("run gpipe -p 2 -m 2 {SMALL} --steps 1 --backend cuda --graph").split_whitespace());
    command.env("RANK", "0").env("WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1");
    let output = command.env_remove("NCCL_LAUNCH_ORDER_IMPLICIT").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("schedc::cuda::graph_without_order"), "{said}");
}

/// Whether there is NVRTC; says so where there is none.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn has_nvrtc() -> bool {
    let found = load(Library::Nvrtc, None);
    if let Err(error) = &found {
        eprintln!("skipped: {error}");
    }
    found.is_ok()
}

#[test]
fn a_source_that_is_no_cuda_is_refused_with_the_compilers_words() {
    if !has_nvrtc() {
        return;
    }
    let source =
        Source { file: "broken.cu", text: "__global__ void broken(int a) { a = nothing; }", kernels: &[] };
    let variant = Variant { stored: Stored::F32, head: 64, architecture: Architecture::Sm90 };
    let error = compile(&source, variant, None).unwrap_err();
    assert_eq!(code(&error), "schedc::cuda::kernel_refused");
    assert!(error.to_string().contains("nothing"), "{error}");
}

/// Where the table of resources begins and ends.
const MARKS: [&str; 2] = ["<!-- resources -->\n", "<!-- end -->"];

#[test]
fn every_kernel_compiles_for_every_device_and_the_table_of_resources_is_current() {
    if !has_nvrtc() {
        return;
    }
    let mut table =
        "| kernel | stored | head | sm_80 | sm_90 | sm_100 |\n| --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for source in SOURCES {
        let heads: &[u32] = if source.file == "attention.cu" { &[64, 128] } else { &[64] };
        for (stored, &head) in [Stored::F32, Stored::Bf16]
            .iter()
            .flat_map(|stored| heads.iter().map(move |head| (*stored, head)))
        {
            let compiled = Architecture::ALL.map(|architecture| {
                let code = compile(source, Variant { stored, head, architecture }, None).unwrap();
                assert!(code.cubin.starts_with(b"\x7fELF"), "{} has a cubin", source.file);
                for kernel in source.kernels {
                    assert!(code.ptx.contains(&format!(".entry {}(", kernel.name())), "{}", kernel.name());
                }
                code.resources
            });
            for kernel in source.kernels {
                let shown = if heads.len() > 1 { head.to_string() } else { String::new() };
                write!(table, "| `{}` | {} | {shown} |", kernel.name(), stored.name()).unwrap();
                for resources in &compiled {
                    let own = resources.iter().find(|found| found.kernel == kernel.name()).unwrap();
                    write!(table, " {} |", cell(own)).unwrap();
                }
                table.push('\n');
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kernels.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(MARKS[0]).unwrap();
    let (found, after) = rest.split_once(MARKS[1]).unwrap();
    if std::env::var_os("SCHEDC_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1])).unwrap();
        return;
    }
    assert_eq!(found, table, "SCHEDC_BLESS=1 renews the table");
}

/// Registers; what else a kernel takes, where it does.
fn cell(resources: &Resources) -> String {
    let Resources { registers, stack, spilled, shared, .. } = resources;
    let mut text = registers.to_string();
    for (amount, what) in [(stack, "stack"), (spilled, "spilled"), (shared, "shared")] {
        if *amount > 0 {
            write!(text, ", {amount} {what}").unwrap();
        }
    }
    text
}
