//! Parameters of a rank on a device: values, gradients and moments in four areas that are cut alike.
//!
//! In bf16 passes read rounded copies, cut alike, too, which the optimizer renews; values are f32 in either case.
//!
//! The gradients of a stage lie end to end, in the order that all ranks have in common, so that a sum over two flows' copies needs no packing;
//! and a step of the optimizer is one launch for each rank.

use std::ops::Range;

use super::shape::Rest;
use crate::cuda::{Address, CudaError, Device, Queue};
use crate::execute::backend::{State, Store, Tensor};
use crate::execute::model::{Held, Spec};
use crate::ir::Stage;

/// Where a parameter lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    /// f32: what is trained.
    pub(super) value: Address,
    /// As activations are stored: what products and lookups read. The value itself where that is f32.
    pub(super) copy: Address,
    pub(super) gradient: Address,
}

/// Weight and bias, of a norm or a linear layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) weight: Param,
    pub(super) bias: Param,
}

/// A layer's parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    pub(super) norm1: Pair,
    pub(super) qkv: Pair,
    pub(super) out: Pair,
    pub(super) norm2: Pair,
    pub(super) up: Pair,
    pub(super) down: Pair,
}

/// Rows of an embedding.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The rows, as positions in the vocabulary.
    pub(super) rows: Range<u64>,
    /// `[rows, hidden]`
    pub(super) param: Param,
}

impl Table {
    /// The first row, and how many there are.
    pub(super) fn sides(&self) -> [u32; 2] {
        [self.rows.start, self.rows.end - self.rows.start].map(|side| side as u32)
    }
}

/// One of a stage of the model.
#[derive(Debug)]
struct StageParameters {
    place: Stage,
    layers: Vec<Layer>,
    /// Its gradients, end to end.
    gradient: Address,
}

/// A tensor's place, in elements, in each of the areas.
#[derive(Debug)]
struct Slot {
    spec: Spec,
    start: u64,
}

/// All parameters of a rank.
#[derive(Debug)]
pub(super) struct Parameters {
    /// Values, gradients, first and second moments.
    pub(super) areas: [Address; 4],
    /// The copies in bf16, where passes read those.
    pub(super) copies: Option<Address>,
    /// Elements of each.
    pub(super) elements: u64,
    slots: Vec<Slot>,
    stages: Vec<StageParameters>,
    /// The input embedding's rows that lie here.
    pub(super) input: Option<Table>,
    /// The output embedding's, which may be the same.
    pub(super) output: Option<Table>,
    pub(super) positions: Option<Param>,
    pub(super) norm: Option<Pair>,
    /// The gradient of a whole copy of a tied embedding.
    pub(super) tied: Option<Address>,
}

/// Cuts areas into parameters.
struct Cutting {
    areas: [Address; 4],
    copies: Option<Address>,
    next: u64,
    slots: Vec<Slot>,
}

impl Cutting {
    fn param(&mut self, spec: Spec) -> Param {
        let at = |area: usize| self.areas[area].plus(4 * self.next);
        let copy = self.copies.map_or(at(0), |copies| copies.plus(2 * self.next));
        let param = Param { value: at(0), copy, gradient: at(1) };
        let elements = spec.elements();
        self.slots.push(Slot { spec, start: self.next });
        self.next += elements;
        param
    }

    fn pair(&mut self, [weight, bias]: [Spec; 2]) -> Pair {
        Pair { weight: self.param(weight), bias: self.param(bias) }
    }

    fn table(&mut self, spec: Spec) -> Table {
        Table { rows: spec.rows.clone(), param: self.param(spec) }
    }
}

impl Parameters {
    /// Elements of each area.
    fn elements(held: &Held) -> u64 {
        let mut dry = Cutting { areas: [Address::default(); 4], copies: None, next: 0, slots: Vec::new() };
        Self::cut(held, &mut dry);
        dry.next
    }

    /// Allocates what a rank holds.
    pub(super) fn new(held: &Held, device: &mut impl Device) -> Result<Self, CudaError> {
        let elements = Self::elements(held);
        // Areas begin at multiples of 256 bytes, as what a device allocates does.
        let each = elements.next_multiple_of(64);
        let packed = held.sizes.packed > 1;
        let mut rest = Rest(device.allocate(if packed { 18 } else { 16 } * each)?);
        let areas = std::array::from_fn(|_| rest.take(each));
        let copies = packed.then(|| rest.take(each / 2));
        Ok(Self::cut(held, &mut Cutting { areas, copies, next: 0, slots: Vec::new() }))
    }

    fn cut(held: &Held, cutting: &mut Cutting) -> Self {
        let dims = &held.dims;
        let whole_pair = held.first() && held.last() && !held.sharded_output;
        // One table serves both ends.
        let shared = dims.tied && (held.sharded_output || whole_pair);
        let separate = |sharded: bool| !dims.tied && !sharded;
        let (mut stages, mut positions, mut norm, mut input, mut output) =
            (Vec::new(), None, None, None, None);
        for stage in held.distinct() {
            let gradient = cutting.areas[1].plus(4 * cutting.next);
            let layers = stage.layers.clone().map(|index| {
                let [norm1, qkv, out, norm2, up, down] =
                    Spec::layer(dims, index).map(|pair| cutting.pair(pair));
                Layer { norm1, qkv, out, norm2, up, down }
            });
            stages.push(StageParameters { place: stage.place, layers: layers.collect(), gradient });
            if stage.first {
                positions = Some(cutting.param(Spec::positions(dims)));
                let spec = held.input_table().filter(|_| separate(held.sharded_input));
                input = spec.map(|spec| cutting.table(spec));
            }
            if stage.last {
                norm = Some(cutting.pair(Spec::norm(dims, "norm")));
                let spec = held.output_table().filter(|_| separate(held.sharded_output));
                output = spec.map(|spec| cutting.table(spec));
            }
        }
        let input = input.or_else(|| held.input_table().map(|spec| cutting.table(spec)));
        let output = if shared {
            input.clone()
        } else {
            output.or_else(|| held.output_table().map(|spec| cutting.table(spec)))
        };
        let copy = input.as_ref().or(output.as_ref()).map(|table| table.param.gradient);
        let tied = copy.filter(|_| dims.tied && !held.sharded_output);
        let slots = std::mem::take(&mut cutting.slots);
        let (areas, copies, elements) = (cutting.areas, cutting.copies, cutting.next);
        Self { areas, copies, elements, slots, stages, input, output, positions, norm, tied }
    }

    /// Writes the values that they start with.
    pub(super) fn draw(&self, seed: u64, queue: Queue, device: &mut impl Device) -> Result<(), CudaError> {
        for Slot { spec, start } in &self.slots {
            self.write_values(*start, &spec.values(seed), queue, device)?;
        }
        Ok(())
    }

    /// Writes values from an element on, and their copies.
    fn write_values(
        &self,
        start: u64,
        values: &[f32],
        queue: Queue,
        device: &mut impl Device,
    ) -> Result<(), CudaError> {
        write(device, queue, self.areas[0].plus(4 * start), values)?;
        let Some(copies) = self.copies.filter(|_| !values.is_empty()) else { return Ok(()) };
        let bytes: Vec<u8> = values.iter().flat_map(|&value| rounded(value).to_le_bytes()).collect();
        device.write(queue, copies.plus(2 * start), &bytes)
    }

    /// Bytes of everything.
    pub(super) fn bytes(&self) -> u64 {
        (if self.copies.is_some() { 18 } else { 16 }) * self.elements
    }

    /// The layers of a stage, by [`crate::execute::model::HeldStage::parameters`].
    pub(super) fn layers(&self, stage: usize) -> &[Layer] {
        &self.stages[stage].layers
    }

    /// The gradients of a stage of the model, end to end.
    pub(super) fn stage_gradient(&self, place: Stage) -> Option<Address> {
        self.stages.iter().find(|stage| stage.place == place).map(|stage| stage.gradient)
    }

    /// Reads everything.
    pub(super) fn read(&self, queue: Queue, device: &mut impl Device) -> Result<Kept, CudaError> {
        let mut areas: [Vec<f32>; 4] = Default::default();
        for (area, &at) in areas.iter_mut().zip(&self.areas) {
            let mut bytes = vec![0; 4 * self.elements as usize];
            device.read(queue, at, &mut bytes)?;
            *area = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        }
        let slots = self.slots.iter().map(|slot| (slot.spec.clone(), slot.start as usize));
        Ok(Kept { slots: slots.collect(), areas })
    }

    /// Writes values and moments that were read, and maybe changed since.
    pub(super) fn write_back(
        &self,
        kept: &Kept,
        queue: Queue,
        device: &mut impl Device,
    ) -> Result<(), CudaError> {
        let [value, _, first, second] = &kept.areas;
        self.write_values(0, value, queue, device)?;
        write(device, queue, self.areas[2], first)?;
        write(device, queue, self.areas[3], second)
    }

    /// Replaces a parameter and its moments; false where there is none of that name or a length differs.
    pub(super) fn load(
        &self,
        name: &str,
        state: State<'_>,
        queue: Queue,
        device: &mut impl Device,
    ) -> Result<bool, CudaError> {
        let Some(slot) = self.slots.iter().find(|slot| slot.spec.name == name) else { return Ok(false) };
        let State { value, first, second } = state;
        if [value, first, second].iter().any(|part| part.len() as u64 != slot.spec.elements()) {
            return Ok(false);
        }
        self.write_values(slot.start, value, queue, device)?;
        for (area, part) in [(2, first), (3, second)] {
            write(device, queue, self.areas[area].plus(4 * slot.start), part)?;
        }
        Ok(true)
    }
}

fn write(device: &mut impl Device, queue: Queue, to: Address, values: &[f32]) -> Result<(), CudaError> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    if bytes.is_empty() { Ok(()) } else { device.write(queue, to, &bytes) }
}

/// The upper half of an f32, rounded to the nearest, ties to even; NaN stays NaN.
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    let upper = if value.is_nan() { bits | 0x40_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
    (upper >> 16) as u16
}

/// What a rank held when it was read.
#[derive(Clone, Debug)]
pub struct Kept {
    slots: Vec<(Spec, usize)>,
    areas: [Vec<f32>; 4],
}

impl Store for Kept {
    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        Self::tensors(self)
    }

    fn load(&mut self, name: &str, state: State<'_>) -> bool {
        let Some((spec, start)) = self.slots.iter().find(|(spec, _)| spec.name == name) else { return false };
        let range = *start..start + spec.elements() as usize;
        let parts = [(0, state.value), (2, state.first), (3, state.second)];
        if parts.iter().any(|(_, part)| part.len() != range.len()) {
            return false;
        }
        for (area, part) in parts {
            self.areas[area][range.clone()].copy_from_slice(part);
        }
        true
    }

    /// Steps are the executor's: see [`super::Executor::restore`].
    fn set_steps(&mut self, _: u64) {}
}

impl Kept {
    /// Every parameter.
    #[must_use]
    pub fn tensors(&self) -> Vec<Tensor<'_>> {
        let [value, gradient, first, second] = &self.areas;
        let tensors = self.slots.iter().map(|(spec, start)| {
            let range = *start..start + spec.elements() as usize;
            Tensor {
                name: &spec.name,
                shape: &spec.shape,
                rows: spec.rows.clone(),
                value: &value[range.clone()],
                gradient: &gradient[range.clone()],
                first: &first[range.clone()],
                second: &second[range],
            }
        });
        tensors.collect()
    }
}
