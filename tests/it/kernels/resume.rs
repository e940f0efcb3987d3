//! Checkpoints of runs on a device that is the host: files hold the bits of the unbroken run, and whoever wrote one, the other goes on from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use schedc::cuda::run::{RunError, Way, train_on};
use schedc::execute::check::CheckReport;
use schedc::execute::model::Train;
use schedc::execute::tokenizer::TokenizerKind;
use schedc::execute::train::{Listener, Opening, Settings, Taken, train};
use schedc::execute::watchdog::Limits;
use schedc::ir::{Dims, Precision};
use schedc::kernels::Stored;
use schedc::verify::Verified;

use super::device::HostDevice;
use super::host::Host;
use super::hosts;
use crate::compiled::library;

/// The f32 kernels for heads of 17.
fn host() -> Option<&'static Host> {
    hosts()?.iter().find(|host| host.stored == Stored::F32 && host.head == 17)
}

fn plan(schedule: &str, with: Option<&str>, tied: bool) -> Verified {
    let dims = Dims {
        layers: 2,
        hidden: 34,
        heads: 2,
        sequence: 4,
        batch: 2,
        vocab: 261,
        tied,
        precision: Precision::F32,
    };
    library(schedule, with, 2, 2, dims)
}

fn settings(steps: u64, directory: &Path) -> Settings {
    Settings {
        steps,
        train: Train { lr: 1e-2, weight_decay: 0.1, ..Train::default() },
        data: None,
        tokenizer: TokenizerKind::Bytes,
        check: false,
        checkpoint: Some(directory.to_owned()),
        checkpoint_every: 2,
        dump: None,
        record: 0,
        limits: Limits::default(),
        plan_hash: Some("plan".to_owned()),
    }
}

#[derive(Debug, Default)]
struct Losses {
    taken: Vec<(u64, f64)>,
    resumed: Option<u64>,
    saved: usize,
}

impl Listener for Losses {
    fn checked(&mut self, _: &CheckReport) {}

    fn opened(&mut self, opening: &Opening) {
        self.resumed = opening.resumed.as_ref().map(|(_, step)| *step);
    }

    fn taken(&mut self, taken: &Taken) {
        self.taken.push((taken.step, taken.loss));
    }

    fn saved(&mut self, _: &Path) {
        self.saved += 1;
    }

    fn dumped(&mut self, _: &Path) {}
}

fn on_device(
    host: &'static Host,
    plan: &Verified,
    settings: &Settings,
    (seed, graph): (u64, bool),
) -> Result<Losses, RunError> {
    let mut losses = Losses::default();
    train_on(plan, settings, (Way { graph }, None), || Ok(HostDevice::new(host, seed)), &mut losses)?;
    Ok(losses)
}

/// Every tensor of every rank's file of a checkpoint, as bytes.
fn tensors(checkpoint: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for rank in 0..2 {
        let bytes = fs::read(checkpoint.join(format!("rank-{rank:03}.safetensors"))).unwrap();
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            all.insert(format!("r{rank} {name}"), tensor.data().to_vec());
        }
    }
    all
}

#[test]
fn a_device_goes_on_from_its_checkpoint_with_values_and_moments_of_the_same_bits() {
    let Some(host) = host() else { return };
    for (schedule, with, tied) in
        [("1f1b", None, true), ("zb-h1", Some("vocab-2"), true), ("chimera", None, false)]
    {
        let plan = plan(schedule, with, tied);
        let folder = tempfile::tempdir().unwrap();
        let [whole, halves] = ["whole", "halves"].map(|name| folder.path().join(name));
        let all = on_device(host, &plan, &settings(4, &whole), (1, false)).unwrap();
        let first = on_device(host, &plan, &settings(2, &halves), (2, false)).unwrap();
        let rest = on_device(host, &plan, &settings(4, &halves), (3, true)).unwrap();
        assert_eq!((first.resumed, rest.resumed, rest.saved), (None, Some(2), 1), "{schedule}");
        assert_eq!([first.taken, rest.taken].concat(), all.taken, "{schedule}");
        let [expected, found] = [&whole, &halves].map(|at| tensors(&at.join("step-00000004")));
        let before = tensors(&halves.join("step-00000002"));
        assert_ne!(before, found, "{schedule}: two steps change something");
        assert!(expected.keys().any(|name| name.contains("second.")), "{schedule}: moments are kept");
        for (name, bytes) in &expected {
            assert_eq!(found.get(name), Some(bytes), "{schedule}: {name}");
        }
        assert_eq!(found.len(), expected.len(), "{schedule}");
    }
}

#[test]
fn a_device_goes_on_from_a_checkpoint_of_the_cpu_and_refuses_one_of_another_run() {
    let Some(host) = host() else { return };
    let plan = plan("1f1b", Some("vocab-1"), false);
    let folder = tempfile::tempdir().unwrap();
    let [whole, halves] = ["whole", "halves"].map(|name| folder.path().join(name));
    let mut all = Losses::default();
    train(&plan, &settings(4, &whole), &mut all).unwrap();
    train(&plan, &settings(2, &halves), &mut Losses::default()).unwrap();
    let rest = on_device(host, &plan, &settings(4, &halves), (4, false)).unwrap();
    assert_eq!(rest.resumed, Some(2));
    for (found, expected) in rest.taken.iter().zip(&all.taken[2..]) {
        let off = (found.1 - expected.1).abs();
        assert!(found.0 == expected.0 && off < 1e-4 * expected.1, "{found:?} instead of {expected:?}");
    }
    let mut other = settings(6, &halves);
    other.train.seed = 9;
    let error = on_device(host, &plan, &other, (4, false)).unwrap_err();
    let code = miette::Diagnostic::code(&error).unwrap().to_string();
    assert_eq!(code, "schedc::execute::checkpoint_differs");
}
