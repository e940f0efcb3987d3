//! Text -> a decimal number in millionths, exactly.

use super::error::CostError;

/// Digits after the point.
pub(super) const DECIMALS: usize = 6;

/// One, in millionths.
pub(super) const ONE: u64 = 1_000_000;

/// Reads `12`, `.2`, `3.50`; `entry` is the whole `name=number` for the error.
pub(super) fn millionths(entry: &str, text: &str) -> Result<u64, CostError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !all_digits(whole) || !all_digits(part) {
        return Err(CostError::BadNumber { entry: entry.to_owned(), number: text.to_owned() });
    }
    if digits.len() < text.len() {
        return Err(CostError::Negative { entry: entry.to_owned() });
    }
    let part = part.trim_end_matches('0');
    if part.len() > DECIMALS {
        return Err(CostError::TooFine { entry: entry.to_owned() });
    }
    let too_large = || CostError::TooLarge { entry: entry.to_owned() };
    // All digits, so what fails is the size.
    let number =
        |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u64>().map_err(|_| too_large()) };
    let fraction = number(part)? * 10_u64.pow((DECIMALS - part.len()) as u32);
    number(whole)?.checked_mul(ONE).and_then(|whole| whole.checked_add(fraction)).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_are_read_exactly() {
        for (text, value) in [
            ("0", 0),
            ("12", 12 * ONE),
            (".2", 200_000),
            ("2.", 2 * ONE),
            ("0.000001", 1),
            ("1.2500000000", 1_250_000),
            ("18446744073709", 18_446_744_073_709 * ONE),
        ] {
            assert_eq!(millionths("F=…", text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_cost_is_refused() {
        let code = |text| {
            miette::Diagnostic::code(&millionths("F=…", text).unwrap_err()).map(|code| code.to_string())
        };
        for (text, expected) in [
            ("", "schedc::cost::bad_number"),
            (".", "schedc::cost::bad_number"),
            ("ten", "schedc::cost::bad_number"),
            ("1e3", "schedc::cost::bad_number"),
            ("1.2.3", "schedc::cost::bad_number"),
            ("+1", "schedc::cost::bad_number"),
            ("NaN", "schedc::cost::bad_number"),
            ("-1", "schedc::cost::negative"),
            ("-0", "schedc::cost::negative"),
            ("0.1234567", "schedc::cost::too_fine"),
            ("18446744073710", "schedc::cost::too_large"),
            ("99999999999999999999999999", "schedc::cost::too_large"),
        ] {
            assert_eq!(code(text).as_deref(), Some(expected), "{text}");
        }
    }
}
