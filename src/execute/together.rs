//! What several processes of a run do together beside its steps: meet, begin, and write a checkpoint.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::checkpoint::Saving;
use super::control::{Control, Patience};
use super::data::Text;
use super::error::ExecuteError;
use super::train::Settings;
use crate::ir::Bytes;
use crate::launch::{Mesh, Place, Terms, meet};
use crate::verify::Verified;

/// What the processes of a run must have in common.
///
/// # Errors
/// The data cannot be read.
pub fn terms(plan: &Verified, settings: &Settings, backend: &str) -> Result<Terms, ExecuteError> {
    let text = Text::load(settings.data.as_deref())?;
    let data: String = Sha256::digest(&text.bytes)
        .iter()
        .take(16)
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let every = settings.checkpoint_every;
    let terms = [
        ("schedc", env!("CARGO_PKG_VERSION").to_owned()),
        ("plan", settings.plan_hash.clone().unwrap_or_default()),
        ("backend", backend.to_owned()),
        ("ranks", plan.ranks.len().to_string()),
        ("steps", settings.steps.to_string()),
        ("seed", settings.train.seed.to_string()),
        ("learning rate", settings.train.lr.to_string()),
        ("data", data),
        ("tokenizer", format!("{:?}", settings.tokenizer).to_lowercase()),
        ("checkpoint", settings.checkpoint.as_ref().map_or("none".to_owned(), |_| format!("every {every}"))),
        ("stall timeout", format!("{} s", settings.limits.stall.as_secs_f64())),
    ];
    Ok(Terms(terms.map(|(name, value)| (name.to_owned(), value)).to_vec()))
}

/// Refuses what only one process can do.
fn shareable(settings: &Settings) -> Result<(), ExecuteError> {
    let asked =
        [("--check", settings.check), ("--dump", settings.dump.is_some()), ("--trace", settings.record > 0)];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((flag, _)) => Err(ExecuteError::OneProcessOnly { flag }),
        None => Ok(()),
    }
}

/// Meets the other processes, where there are any; the ranks of this one.
pub(crate) fn come_together(
    plan: &Verified,
    settings: &Settings,
    backend: &str,
    place: Option<&Place>,
) -> Result<(Range<usize>, Option<Mesh>), ExecuteError> {
    let all = plan.ranks.len();
    let Some(place) = place else { return Ok((0..all, None)) };
    let local = place.ranks(all)?;
    shareable(settings)?;
    let mesh = meet(place, &terms(plan, settings, backend)?)?;
    Ok((local, Some(mesh)))
}

/// Waits until all processes are ready for the first step; the bytes of arenas, parameters and workspaces of all.
///
/// # Errors
/// One ends, or begins with another step.
pub(crate) fn ready(control: &mut Control, begin: u64, own: [Bytes; 3]) -> Result<[Bytes; 3], ExecuteError> {
    let [arenas, parameters, workspace] = own.map(|bytes| bytes.0);
    let all = control.exchange(begin, &[begin, arenas, parameters, workspace], Patience::Start)?;
    if all.is_empty() {
        return Ok(own);
    }
    let mut sums = [0_u64; 3];
    for (process, numbers) in all.iter().enumerate() {
        let &[step, ref bytes @ ..] = numbers.as_slice() else { continue };
        if step != begin {
            let reason = format!("resumes after step {step}, and this one after step {begin}");
            return Err(ExecuteError::ProcessFailed { process, reason, step: begin, report: Box::default() });
        }
        for (sum, &part) in sums.iter_mut().zip(bytes) {
            *sum = sum.saturating_add(part);
        }
    }
    Ok(sums.map(Bytes))
}

/// Writes a checkpoint with the other processes: the first makes the place, each writes its ranks, the first brings it under its name
/// when all have.
///
/// # Errors
/// A file cannot be written; a process ends.
pub(crate) fn save_part<E: From<ExecuteError>>(
    saving: &Saving<'_>,
    control: &mut Control,
    write: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let leads = control.local.start == 0;
    if leads {
        saving.begin()?;
    }
    control.exchange(saving.step, &[], Patience::Life)?;
    write()?;
    control.exchange(saving.step, &[], Patience::Life)?;
    if leads {
        saving.commit()?;
    }
    control.exchange(saving.step, &[], Patience::Life)?;
    Ok(())
}
