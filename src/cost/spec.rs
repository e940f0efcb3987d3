//! Text -> [`CostSpec`]: names with their costs, not yet bound to a schedule.

use std::sync::Arc;

use super::error::CostError;
use super::{Profile, Rates, number};

/// Costs by name, as written. What is not named has its unit cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CostSpec {
    entries: Vec<Entry>,
    /// What is not named takes.
    pub(super) basis: Basis,
    /// Whether names that a catalog lacks are passed over.
    pub(super) lenient: bool,
}

/// Where the costs come from of what is not named.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Basis {
    /// One unit each.
    #[default]
    Units,
    /// A device's rates.
    Rates(Arc<Rates>),
    /// A measurement.
    Profile(Arc<Profile>),
}

/// A name and its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// In millionths.
    pub(super) cost: u64,
}

/// Unit costs: F, B and W of a rank's whole share take one unit each (a fused B two), a pass at every rank a quarter, messages and
/// collectives nothing.
///
/// A quarter is the size of a vocabulary pass next to a stage's forward in the settings of Yeung et al. 2024, table 1, at 256k.
pub static UNIT: CostSpec = CostSpec { entries: Vec::new(), basis: Basis::Units, lenient: false };

impl CostSpec {
    /// Reads `F=10,B=12,p2p=1`.
    ///
    /// # Errors
    /// What is not `name=number`, with at most six decimals and nothing negative; a name that comes twice.
    pub fn parse(text: &str) -> Result<Self, CostError> {
        let mut spec = Self::default();
        for entry in text.split(',').map(str::trim) {
            let malformed = || CostError::Malformed { entry: entry.to_owned() };
            let (name, number) = entry.split_once('=').ok_or_else(malformed)?;
            let name = name.trim();
            if name.is_empty() {
                return Err(malformed());
            }
            if spec.of(name).is_some() {
                return Err(CostError::GivenTwice { name: name.to_owned() });
            }
            let cost = number::millionths(entry, number.trim())?;
            spec.entries.push(Entry { name: name.to_owned(), cost });
        }
        Ok(spec)
    }

    /// The same, where what is not named takes what a device's rates make of it. What is named is in microseconds, of one pass at one site.
    #[must_use]
    pub fn with_rates(self, rates: Rates) -> Self {
        Self { basis: Basis::Rates(Arc::new(rates)), ..self }
    }

    /// The same, where what is not named takes what was measured. What is named is in microseconds, of one pass at one site.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Self {
        Self { basis: Basis::Profile(Arc::new(profile)), ..self }
    }

    /// The rates of the device that costs are worked out for.
    #[must_use]
    pub fn rates(&self) -> Option<&Rates> {
        if let Basis::Rates(rates) = &self.basis { Some(rates) } else { None }
    }

    /// Whether durations are microseconds, and not only ratios.
    #[must_use]
    pub fn is_in_microseconds(&self) -> bool {
        !matches!(self.basis, Basis::Units)
    }

    /// The same costs, for several schedules: what one of them lacks is passed over there. [`CostSpec::refuse_unknown`] finds what
    /// all of them lack.
    #[must_use]
    pub fn lenient(&self) -> Self {
        Self { lenient: true, ..self.clone() }
    }

    /// The cost of a name, in millionths.
    pub(super) fn of(&self, name: &str) -> Option<u64> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.cost)
    }

    /// Every name that has a cost.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_blanks_around_its_words() {
        let spec = CostSpec::parse("F=10, B = 12 ,p2p=.5").unwrap();
        assert_eq!(
            [spec.of("F"), spec.of("B"), spec.of("p2p")],
            [Some(10_000_000), Some(12_000_000), Some(500_000)]
        );
        assert_eq!(spec.of("W"), None);
    }

    #[test]
    fn what_is_no_list_of_costs_is_refused() {
        for text in ["", "F", "=1", "F=1,", "F=1,,B=1", "F:1"] {
            assert!(matches!(CostSpec::parse(text), Err(CostError::Malformed { .. })), "{text}");
        }
        let twice = CostError::GivenTwice { name: "F".to_owned() };
        assert_eq!(CostSpec::parse("F=1,B=1,F=1"), Err(twice));
    }
}
