//! A kernel's arguments -> the values and the pointers to them that a launch takes.

use std::ffi::c_void;

use super::super::Argument;

/// The most arguments that a kernel takes.
const MOST: usize = 16;

/// Arguments as a launch reads them: each in eight bytes of its own, of which the kernel's definition says how many count.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    values: [u64; MOST],
    sizes: [u8; MOST],
    count: usize,
}

impl Packed {
    /// Packs them; `None` where there are more than any kernel takes.
    #[must_use]
    pub fn new(arguments: &[Argument]) -> Option<Self> {
        let mut packed = Self { values: [0; MOST], sizes: [0; MOST], count: arguments.len() };
        for (index, argument) in arguments.iter().enumerate() {
            let (value, size) = match *argument {
                Argument::At(address) => (address.0.to_ne_bytes(), 8),
                Argument::Int(value) => (first_four(value.to_ne_bytes()), 4),
                Argument::Long(value) => (value.to_ne_bytes(), 8),
                Argument::Float(value) => (first_four(value.to_ne_bytes()), 4),
            };
            *packed.values.get_mut(index)? = u64::from_ne_bytes(value);
            packed.sizes[index] = size;
        }
        Some(packed)
    }

    /// Bytes of each argument, in order.
    #[must_use]
    pub fn sizes(&self) -> &[u8] {
        &self.sizes[..self.count]
    }

    /// Where each argument lies; valid while this is neither moved nor dropped.
    #[must_use]
    pub fn pointers(&mut self) -> Pointers {
        let mut pointers = [std::ptr::null_mut(); MOST];
        for (pointer, value) in pointers.iter_mut().zip(&mut self.values[..self.count]) {
            *pointer = std::ptr::from_mut(value).cast();
        }
        Pointers(pointers)
    }
}

/// Where arguments lie; null behind the last.
#[derive(Clone, Copy, Debug)]
pub struct Pointers(pub [*mut c_void; MOST]);

/// Four bytes at the lowest of eight addresses.
fn first_four(bytes: [u8; 4]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight[..4].copy_from_slice(&bytes);
    eight
}
