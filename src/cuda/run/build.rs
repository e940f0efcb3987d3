//! A verified plan -> an executor that is ready for its first step: memory, parameters, every call resolved, channels joined.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::channels::Channels;
use super::executor::{Executor, apart};
use super::passes::Feed;
use super::ranks::RankState;
use super::recorder::Recorder;
use super::script::{Walk, listed, spilled};
use super::{RunError, Scope, shape};
use crate::cuda::{Address, CudaError, Device, Meeting, Purpose};
use crate::execute::ExecuteError;
use crate::execute::model::{Held, Train};
use crate::execute::prepare::{Script, resolve};
use crate::execute::recording::{MOMENTS, MOST_BYTES};
use crate::ir::{Bytes, Plan, Rank};
use crate::kernels::launch;
use crate::verify::Verified;

/// Refuses a recording that takes more than is allowed.
fn recordable(plan: &Plan, steps: u32) -> Result<(), ExecuteError> {
    let instrs: u64 = plan.ranks.iter().map(|rank| rank.instrs.len() as u64).sum();
    let bytes = instrs.saturating_mul(u64::from(steps)).saturating_mul(MOMENTS);
    if bytes > MOST_BYTES {
        return Err(ExecuteError::RecordingTooLarge { steps, bytes: Bytes(bytes) });
    }
    Ok(())
}

impl<D: Device> Executor<D> {
    /// Allocates everything, draws the parameters, and resolves what a step asks of the device, for all ranks.
    ///
    /// # Errors
    /// The plan has a pass or a buffer that the model cannot run, or lengths that the kernels do not take; the device refuses memory or code.
    pub fn new(plan: &Verified, train: &Train, device: D) -> Result<Self, RunError> {
        let scripts: Vec<Arc<Script>> = resolve(plan)?.into_iter().map(Arc::new).collect();
        Self::scoped(plan, &scripts, train, device, Scope::of(plan, 0..plan.ranks.len()))
    }

    /// The same for some of the ranks. Call [`Executor::join`] then, before the first step, where other processes have the rest.
    ///
    /// # Errors
    /// As [`Executor::new`]; or a recording takes too much memory.
    pub fn part(plan: &Verified, train: &Train, device: D, scope: Scope) -> Result<Self, RunError> {
        let scripts: Vec<Arc<Script>> = resolve(plan)?.into_iter().map(Arc::new).collect();
        Self::scoped(plan, &scripts, train, device, scope)
    }

    pub(super) fn scoped(
        plan: &Verified,
        scripts: &[Arc<Script>],
        train: &Train,
        mut device: D,
        scope: Scope,
    ) -> Result<Self, RunError> {
        let Scope { local, record, drill, signals } = scope;
        let recorder = match record {
            0 => None,
            steps => {
                recordable(plan, steps)?;
                Some(Recorder::new(plan, steps as usize, &mut device)?)
            }
        };
        let header = &plan.header;
        let own = &scripts[local.clone()];
        let held = local.clone().map(|rank| Held::of(header, Rank::new(rank)));
        let held = held.collect::<Result<Vec<_>, _>>().map_err(ExecuteError::from)?;
        let shapes = held.iter().map(|held| shape::Shape::of(&held.sizes));
        let shape = shapes.collect::<Result<Vec<_>, _>>()?.first().copied();
        let Some(shape) = shape else { return Err(ExecuteError::NoLoss.into()) };
        let units = header.cut().units();
        let mut ranks = Vec::new();
        for (rank, held) in plan.ranks[local.clone()].iter().zip(held) {
            ranks.push(RankState::new(held, rank, &mut device)?);
        }
        let each = 8 * u64::from(units) * u64::from(shape.tokens);
        let feed = Feed { start: device.allocate(each)?, tokens: shape.tokens };
        let all = 4 * apart(units) * ranks.len() as u64;
        let losses = device.allocate(all)?;
        for (index, rank) in ranks.iter_mut().enumerate() {
            rank.losses = losses.plus(4 * apart(units) * index as u64);
        }
        let places = listed(own, &ranks);
        let lists = if places > 0 { device.allocate(8 * places)? } else { Address::default() };
        let channels = Channels::of(scripts);
        let spill = if channels.across(local.len()).next().is_some() { spilled(scripts) } else { 0 };
        let spill = if spill > 0 { device.allocate(spill)? } else { Address::default() };
        device.counters(Arc::clone(&signals.cells))?;
        let origin = device.queue(Purpose::Moves)?;
        let walk = Walk::new(header, scripts, (&ranks, local.clone()), &channels, feed, lists, &mut device)?;
        let marks = recorder.as_ref().map(|recorder| &recorder.marks);
        let steps = walk.marked(marks).drilled(drill).spilling(spill).run(origin, &mut device)?;
        let mut executor = Self {
            plan: (**plan).clone(),
            local,
            channels,
            signals,
            train: *train,
            device,
            ranks,
            steps,
            origin,
            feed,
            ids: Vec::with_capacity(each as usize),
            losses: vec![0; all as usize],
            graph: None,
            recorder,
            issuing: Duration::ZERO,
            taken: 0,
        };
        executor.load_up()?;
        Ok(executor)
    }

    /// What the other processes must know of the channels that a rank of this one comes first on, channel by channel.
    ///
    /// # Errors
    /// Nothing is there that moves buffers between devices.
    pub fn meetings(&mut self) -> Result<Vec<Meeting>, RunError> {
        let Self { device, channels, local, .. } = self;
        let first = channels.across(local.len()).filter(|(_, members)| local.contains(&members[0]));
        let made: Result<_, CudaError> = first.map(|_| device.meeting()).collect();
        Ok(made?)
    }

    /// Joins the channels to ranks of other processes. `meeting` gives, one after the other, what [`Executor::meetings`] of the process
    /// that has a rank gave; `patience` is how long each may take.
    ///
    /// # Errors
    /// Not all came in time; the network failed.
    pub fn join(
        &mut self,
        mut meeting: impl FnMut(Rank) -> Option<Meeting>,
        patience: Duration,
    ) -> Result<(), RunError> {
        let Self { device, channels, local, signals, .. } = self;
        for (channel, members) in channels.across(local.len()) {
            let Some(found) = meeting(Rank::new(members[0])) else {
                return Err(CudaError::NotPrepared { what: format!("channel {}", channel.0) }.into());
            };
            if signals.abort.load(Ordering::SeqCst) {
                return Err(CudaError::Ended.into());
            }
            if let Some(own) = members.iter().position(|member| local.contains(member)) {
                device.join(channel, &found, (members.len() as u32, own as u32), patience)?;
            }
        }
        Ok(self.steps.calls.connect(&mut self.device)?)
    }

    /// Writes parameters and lists, and lets the device get ready for all calls of a step.
    fn load_up(&mut self) -> Result<(), RunError> {
        let Self { device, ranks, steps, origin, train, .. } = self;
        for rank in &*ranks {
            rank.parameters.draw(train.seed, *origin, device)?;
        }
        let pointers: Vec<u8> = steps.lists.pointers.iter().flat_map(|at| at.to_le_bytes()).collect();
        if !pointers.is_empty() {
            device.write(*origin, steps.lists.start, &pointers)?;
        }
        steps.calls.prepare(device)?;
        let launches = ranks
            .iter()
            .map(|rank| (launch::adam(rank.shape.stored, rank.parameters.elements), rank.shape.stored));
        let optimizer: BTreeMap<u32, _> = launches.map(|launch| (launch.0.grid[0], launch)).collect();
        device.prepare(&optimizer.into_values().collect::<Vec<_>>(), &[])?;
        Ok(device.finish()?)
    }
}
