//! `--memory-limit`: what a rank may hold.

use schedc::cost::Costs;
use schedc::ir::{ByteUnit, Bytes};
use schedc::simulate::{Known, check_memory};
use schedc::verify::Verified;

use super::Failure;

/// The limit on memory.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LimitArg {
    /// Refuse a plan whose buffers take more on any rank, with `--device` all that the rank holds: bytes, or with kB, MB, GB, KiB, MiB, GiB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_limit: Option<Bytes>,
}

impl LimitArg {
    /// Whether there is one.
    pub(crate) fn is_given(self) -> bool {
        self.memory_limit.is_some()
    }

    /// Refuses a plan over the limit, with the moment and the owners of its peak under some costs.
    pub(crate) fn check(
        self,
        plan: &Verified,
        under: impl FnOnce() -> Result<(Costs, Known), Failure>,
    ) -> Result<(), Failure> {
        let Some(limit) = self.memory_limit else { return Ok(()) };
        let (costs, known) = under()?;
        check_memory(plan, &costs, &known, limit).map_err(Failure::one)
    }
}

fn bytes(text: &str) -> Result<Bytes, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" => ByteUnit::One,
        word => {
            let found = ByteUnit::WORDS.iter().find(|(_, known)| *known == word);
            found.map(|(unit, _)| *unit).ok_or("write B, kB, MB, GB, KiB, MiB or GiB after the number")?
        }
    };
    let number: u64 =
        number.parse().map_err(|_| "write a number of bytes, such as 1048576 or 80GB".to_owned())?;
    number.checked_mul(unit.bytes()).map(Bytes).ok_or_else(|| "that is more bytes than there are".to_owned())
}
