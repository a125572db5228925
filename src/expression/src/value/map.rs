//! Computed maps: scalar keys, in insertion order.

use std::collections::HashMap;

use crossdock_message::ByteString;

use super::Val;
use crate::number::Dec;

/// A map key by its value: numbers of different types are the same key if they are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// An integer of any numeric type.
    Integer(i128),
    /// A string.
    Text(ByteString),
}

impl Key {
    /// The key for a value; `None` if the value cannot be a key.
    #[must_use]
    pub fn from_val(value: &Val<'_>) -> Option<Self> {
        Some(match value {
            Val::Bool(truth) => Self::Bool(*truth),
            Val::Int(number) => Self::Integer(i128::from(*number)),
            Val::UInt(number) => Self::Integer(i128::from(*number)),
            Val::Double(number) if number.fract() == 0.0 => Self::integer(&Dec::from_double(*number)?)?,
            Val::Decimal(number) if number.is_integer() => Self::integer(number)?,
            Val::Text(text) => Self::Text((**text).clone()),
            _ => return None,
        })
    }
}

impl Key {
    /// Limited to 2^126, so that of equal numbers either all are keys or none is.
    fn integer(number: &Dec<'_>) -> Option<Self> {
        number.truncated().filter(|whole| whole.unsigned_abs() < 1 << 126).map(Self::Integer)
    }
}

/// A map with its entries in insertion order.
#[derive(Debug, Clone, Default)]
pub struct OwnedMap<'v> {
    entries: Vec<(Val<'v>, Val<'v>)>,
    indexes: HashMap<Key, usize>,
}

/// Why an entry was not inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// The value cannot be a key.
    InvalidKey,
    /// The key exists already.
    DuplicateKey,
}

/// From this number of entries on, keys are hashed; below, they are compared one by one.
const HASHED_MIN: usize = 8;

impl<'v> OwnedMap<'v> {
    /// An empty map.
    #[must_use]
    pub fn with_capacity(entries: usize) -> Self {
        Self { entries: Vec::with_capacity(entries), indexes: HashMap::new() }
    }

    /// Bytes of a map with `entries` entries.
    #[must_use]
    pub const fn memory_len(entries: usize) -> usize {
        /// The map and its reference counts.
        const OWN_LEN: usize = size_of::<OwnedMap<'_>>() + 16;
        OWN_LEN
            + entries
                * (2 * size_of::<Val<'_>>() + if entries > HASHED_MIN { 5 * size_of::<(Key, usize)>() / 2 } else { 0 })
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// [`InsertError`].
    pub fn insert(&mut self, key: Val<'v>, value: Val<'v>) -> Result<(), InsertError> {
        let (own, key) = match key {
            Val::Bool(_) | Val::Int(_) | Val::UInt(_) | Val::Text(_) => {
                (Key::from_val(&key).ok_or(InsertError::InvalidKey)?, key)
            }
            // The data may say 5 or 5.0.
            Val::Decimal(number) => match number.truncated().filter(|_| number.is_integer()).map(i64::try_from) {
                Some(Ok(whole)) => (Key::Integer(i128::from(whole)), Val::Int(whole)),
                _ => return Err(InsertError::InvalidKey),
            },
            _ => return Err(InsertError::InvalidKey),
        };
        if self.position(&own).is_some() {
            return Err(InsertError::DuplicateKey);
        }
        self.entries.push((key, value));
        match self.entries.len() {
            0..HASHED_MIN => {}
            HASHED_MIN => {
                let indexes =
                    self.entries.iter().enumerate().filter_map(|(at, (key, _))| Some((Key::from_val(key)?, at)));
                self.indexes = indexes.collect();
            }
            len => drop(self.indexes.insert(own, len - 1)),
        }
        Ok(())
    }

    fn position(&self, key: &Key) -> Option<usize> {
        if self.entries.len() >= HASHED_MIN {
            return self.indexes.get(key).copied();
        }
        self.entries.iter().position(|(own, _)| match (own, key) {
            (Val::Text(own), Key::Text(text)) => **own == *text,
            (Val::Int(own), Key::Integer(number)) => i128::from(*own) == *number,
            (Val::UInt(own), Key::Integer(number)) => i128::from(*own) == *number,
            (Val::Bool(own), Key::Bool(truth)) => own == truth,
            _ => false,
        })
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Val<'_>) -> Option<Val<'v>> {
        self.position(&Key::from_val(key)?).map(|at| self.entries[at].1.clone())
    }

    /// The value of a string key.
    #[must_use]
    pub fn get_text(&self, name: &str) -> Option<Val<'v>> {
        if self.entries.len() >= HASHED_MIN {
            return self.indexes.get(&Key::Text(name.into())).map(|at| self.entries[*at].1.clone());
        }
        let found = self.entries.iter().find(|(key, _)| matches!(key, Val::Text(text) if *text.as_ref() == name));
        found.map(|(_, value)| value.clone())
    }

    /// The value of a key, for changes while the map is built.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Val<'v>> {
        self.position(key).map(|at| &mut self.entries[at].1)
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

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
