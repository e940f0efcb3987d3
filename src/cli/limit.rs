//! `--memory-limit`: what a rank may hold.

use schedc::cost::Costs;
use schedc::ir::{ByteUnit, Bytes};
use schedc::simulate::{Known, check_memory};
use schedc::verify::Verified;

use super::Failure;

/// The limit on memory.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LimitArg {
    /// Refuse a plan whose buffers take more on any rank, with `--device` all that the rank holds: bytes, or with kB, MB, GB, TB, KiB, MiB, GiB, TiB
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
    let length = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(length);
    let unit = match unit.trim() {
        "" => ByteUnit::One,
        word => {
            let found = ByteUnit::WORDS.iter().find(|(_, known)| *known == word);
            found
                .map(|(unit, _)| *unit)
                .ok_or("write B, kB, MB, GB, TB, KiB, MiB, GiB or TiB after the number")?
        }
    };
    let refused = || "write a number of bytes, such as 1048576, 80GB or 79.6GiB".to_owned();
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().map_err(|_| refused())?;
    // What is finer than a billionth of a unit is no whole byte.
    let digits = part.get(..part.len().min(9)).filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()));
    let digits = digits.filter(|digits| !digits.is_empty()).ok_or_else(refused)?;
    let part: u64 = format!("{digits:0<9}").parse().map_err(|_| refused())?;
    let bytes = u128::from(whole) * u128::from(unit.bytes())
        + u128::from(part) * u128::from(unit.bytes()) / 1_000_000_000;
    u64::try_from(bytes).map(Bytes).map_err(|_| "that is more bytes than there are".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_numbers_with_a_unit_and_perhaps_a_part() {
        let read = |text| bytes(text).map(|bytes| bytes.0);
        assert_eq!(read("80GB"), Ok(80_000_000_000));
        assert_eq!(read("79.5 GiB"), Ok(79 * (1 << 30) + (1 << 29)));
        assert_eq!(read("2TB"), Ok(2_000_000_000_000));
        assert_eq!(read("0.5"), Ok(0));
        for wrong in ["", "GB", "1.", ".5GB", "1.2.3GB", "-1GB", "80 gb", "99999999999TB", "1e9"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
