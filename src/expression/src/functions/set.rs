//! Lists as sets (CEL extension `sets`).

use std::collections::HashSet;

use super::{Call, Function, list_at};
use crate::failure::Outcome;
use crate::value::{Key, List, Val};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "sets.contains",
        group: "Sets",
        signatures: &["(list(A), list(A)) -> bool"],
        description: "Whether the first list contains all elements of the second.",
        cost: "both lengths; their product if elements are lists or maps",
        examples: &[("sets.contains([1, 2], [2])", "true"), ("sets.contains([1], [1, 2])", "false")],
        run: |call, arguments| {
            let (left, right) = (list_at(call, arguments, 0)?, list_at(call, arguments, 1)?);
            Ok(Val::Bool(contains_all(call, left, right)?))
        },
    },
    Function {
        name: "sets.equivalent",
        group: "Sets",
        signatures: &["(list(A), list(A)) -> bool"],
        description: "Whether each list contains all elements of the other.",
        cost: "both lengths; their product if elements are lists or maps",
        examples: &[("sets.equivalent([1, 2, 2], [2, 1])", "true")],
        run: |call, arguments| {
            let (left, right) = (list_at(call, arguments, 0)?, list_at(call, arguments, 1)?);
            Ok(Val::Bool(contains_all(call, left, right)? && contains_all(call, right, left)?))
        },
    },
    Function {
        name: "sets.intersects",
        group: "Sets",
        signatures: &["(list(A), list(A)) -> bool"],
        description: "Whether the lists have a common element.",
        cost: "both lengths; their product if elements are lists or maps",
        examples: &[("sets.intersects([1, 2], [2, 3])", "true")],
        run: |call, arguments| {
            let (left, right) = (list_at(call, arguments, 0)?, list_at(call, arguments, 1)?);
            let members = Members::from_list(call, left)?;
            for item in right.iter() {
                if members.contains(call, &item)? {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        },
    },
];

/// The elements of a list; those that can be keys are hashed.
pub(super) struct Members<'v> {
    keys: HashSet<Key>,
    others: Vec<Val<'v>>,
}

impl<'v> Members<'v> {
    pub(super) fn empty() -> Self {
        Self { keys: HashSet::new(), others: Vec::new() }
    }

    pub(super) fn from_list(call: &Call<'_>, list: &List<'v>) -> Outcome<Self> {
        // A hash table has up to twice the capacity of its length.
        call.charge_list(3 * list.len())?;
        let mut members = Self::empty();
        for item in list.iter() {
            call.charge_scan(item.scan_len())?;
            members.add(item);
        }
        Ok(members)
    }

    pub(super) fn add(&mut self, item: Val<'v>) {
        match Key::from_val(&item) {
            Some(key) => drop(self.keys.insert(key)),
            None => self.others.push(item),
        }
    }

    pub(super) fn contains(&self, call: &Call<'_>, item: &Val<'_>) -> Outcome<bool> {
        call.charge_scan(item.scan_len())?;
        if let Some(key) = Key::from_val(item) {
            return Ok(self.keys.contains(&key));
        }
        for other in &self.others {
            if call.equal(other, item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn contains_all(call: &Call<'_>, left: &List<'_>, right: &List<'_>) -> Outcome<bool> {
    let members = Members::from_list(call, left)?;
    for item in right.iter() {
        if !members.contains(call, &item)? {
            return Ok(false);
        }
    }
    Ok(true)
}
