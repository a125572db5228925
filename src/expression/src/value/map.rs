//! Maps that expressions make: keys of any scalar kind, in the order in which they were set.

use std::collections::HashMap;

use crossdock_message::ByteString;

use super::Val;
use crate::number::Dec;

/// A key by what it means: numbers of all kinds are equal where their values are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// True or false.
    Bool(bool),
    /// A whole number, of whichever kind.
    Whole(i128),
    /// Text.
    Text(ByteString),
}

impl Key {
    /// The key that a value is; nothing where it is none.
    #[must_use]
    pub fn of(value: &Val<'_>) -> Option<Self> {
        Some(match value {
            Val::Bool(truth) => Self::Bool(*truth),
            Val::Int(number) => Self::Whole(i128::from(*number)),
            Val::UInt(number) => Self::Whole(i128::from(*number)),
            Val::Double(number) if number.fract() == 0.0 => Self::whole(&Dec::of_double(*number)?)?,
            Val::Decimal(number) if number.is_whole() => Self::whole(number)?,
            Val::Text(text) => Self::Text((**text).clone()),
            _ => return None,
        })
    }
}

impl Key {
    /// Up to 2^126: numbers of all kinds that are equal are keys, or none is.
    fn whole(number: &Dec<'_>) -> Option<Self> {
        number.truncated().filter(|whole| whole.unsigned_abs() < 1 << 126).map(Self::Whole)
    }
}

/// A map with its entries in order.
#[derive(Debug, Clone, Default)]
pub struct MadeMap<'v> {
    entries: Vec<(Val<'v>, Val<'v>)>,
    places: HashMap<Key, usize>,
}

/// Why an entry was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEntry {
    /// A value of that kind is no key.
    NoKey,
    /// The key is there already.
    Twice,
}

/// Entries up to which keys are compared one by one.
const PLACES_MIN: usize = 8;

impl<'v> MadeMap<'v> {
    /// An empty one.
    #[must_use]
    pub fn with_capacity(entries: usize) -> Self {
        Self { entries: Vec::with_capacity(entries), places: HashMap::new() }
    }

    /// Bytes that so many entries take.
    #[must_use]
    pub const fn made_len(entries: usize) -> usize {
        /// The map itself, and what counts its copies.
        const OWN_LEN: usize = size_of::<MadeMap<'_>>() + 16;
        OWN_LEN
            + entries
                * (2 * size_of::<Val<'_>>() + if entries > PLACES_MIN { 5 * size_of::<(Key, usize)>() / 2 } else { 0 })
    }

    /// Adds an entry behind the others.
    ///
    /// # Errors
    /// [`NoEntry`].
    pub fn insert(&mut self, key: Val<'v>, value: Val<'v>) -> Result<(), NoEntry> {
        let (own, key) = match key {
            Val::Bool(_) | Val::Int(_) | Val::UInt(_) | Val::Text(_) => (Key::of(&key).ok_or(NoEntry::NoKey)?, key),
            // Whether the data says 5 or 5.0.
            Val::Decimal(number) => match number.truncated().filter(|_| number.is_whole()).map(i64::try_from) {
                Some(Ok(whole)) => (Key::Whole(i128::from(whole)), Val::Int(whole)),
                _ => return Err(NoEntry::NoKey),
            },
            _ => return Err(NoEntry::NoKey),
        };
        if self.place(&own).is_some() {
            return Err(NoEntry::Twice);
        }
        self.entries.push((key, value));
        match self.entries.len() {
            0..PLACES_MIN => {}
            PLACES_MIN => {
                let places = self.entries.iter().enumerate().filter_map(|(at, (key, _))| Some((Key::of(key)?, at)));
                self.places = places.collect();
            }
            len => drop(self.places.insert(own, len - 1)),
        }
        Ok(())
    }

    fn place(&self, key: &Key) -> Option<usize> {
        if self.entries.len() >= PLACES_MIN {
            return self.places.get(key).copied();
        }
        self.entries.iter().position(|(own, _)| match (own, key) {
            (Val::Text(own), Key::Text(text)) => **own == *text,
            (Val::Int(own), Key::Whole(number)) => i128::from(*own) == *number,
            (Val::UInt(own), Key::Whole(number)) => i128::from(*own) == *number,
            (Val::Bool(own), Key::Bool(truth)) => own == truth,
            _ => false,
        })
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Val<'_>) -> Option<Val<'v>> {
        self.place(&Key::of(key)?).map(|at| self.entries[at].1.clone())
    }

    /// The value of a text key.
    #[must_use]
    pub fn get_text(&self, name: &str) -> Option<Val<'v>> {
        if self.entries.len() >= PLACES_MIN {
            return self.places.get(&Key::Text(name.into())).map(|at| self.entries[*at].1.clone());
        }
        let found = self.entries.iter().find(|(key, _)| matches!(key, Val::Text(text) if *text.as_ref() == name));
        found.map(|(_, value)| value.clone())
    }

    /// The place of a value that is changed while the map is made.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Val<'v>> {
        self.place(key).map(|at| &mut self.entries[at].1)
    }

    /// The entries in order.
    #[must_use]
    pub fn entries(&self) -> &[(Val<'v>, Val<'v>)] {
        &self.entries
    }

    /// Their number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
