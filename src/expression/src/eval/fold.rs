//! Macros over lists and maps.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use super::{Evaluator, within_budget};
use crate::failure::{Failure, Outcome};
use crate::functions::order_or_equal;
use crate::node::FoldNode;
use crate::problem::Span;
use crate::syntax::FoldKind;
use crate::value::{InsertError, Key, List, Map, OwnedMap, Val, compare_within};

#[cold]
pub(super) fn insert_failure(problem: InsertError, span: Span) -> Box<Failure> {
    Failure::value(
        span,
        match problem {
            InsertError::InvalidKey => "map keys must be strings, integers or booleans",
            InsertError::DuplicateKey => "a map has a duplicate key",
        },
    )
}

/// The elements of a list, or the entries of a map.
enum Range<'v> {
    List(List<'v>),
    Map(Vec<(Val<'v>, Val<'v>)>),
}

impl<'v> Evaluator<'v, '_> {
    pub(super) fn fold(&mut self, fold: &'v FoldNode) -> Outcome<Val<'v>> {
        let range = match self.evaluate(&fold.range)? {
            Val::List(list) => Range::List(list),
            Val::Map(map) => {
                self.charge_work(fold.span, map.len() as u64)?;
                self.charge_bytes(fold.span, 2 * List::copy_len(map.len()))?;
                Range::Map(map.entries().collect())
            }
            _ => return Err(super::no_overload(fold.span, "macro")),
        };
        let count = match &range {
            Range::List(list) => list.len(),
            Range::Map(entries) => entries.len(),
        };
        match fold.kind {
            FoldKind::All => self.quantified(fold, &range, count, false),
            FoldKind::Exists => self.quantified(fold, &range, count, true),
            FoldKind::ExistsOne => self.exists_one(fold, &range, count),
            FoldKind::Map | FoldKind::Filter => self.listed(fold, &range, count),
            FoldKind::TransformMap | FoldKind::TransformMapEntry => self.mapped(fold, &range, count),
            FoldKind::SortBy => self.sorted(fold, &range, count),
            FoldKind::GroupBy => self.grouped(fold, &range, count),
        }
    }

    /// Sets the variables for one element.
    fn bind(&mut self, fold: &FoldNode, range: &Range<'v>, at: usize) -> Outcome<()> {
        self.charge_work(fold.span, fold.weight)?;
        // Constructed in place.
        if let (Range::List(List::Data(items, xml)), false) = (range, fold.has_two) {
            if let (Some(item), Some(local)) = (items.get(at), self.locals.get_mut(fold.slot)) {
                *local = Val::data(item, *xml);
            }
            return Ok(());
        }
        let (first, second) = match range {
            Range::List(list) => {
                let item = list.get(at).unwrap_or(Val::Null);
                if fold.has_two { (Val::Int(i64::try_from(at).unwrap_or(i64::MAX)), Some(item)) } else { (item, None) }
            }
            Range::Map(entries) => match entries.get(at) {
                Some((key, value)) => (key.clone(), fold.has_two.then(|| value.clone())),
                None => (Val::Null, None),
            },
        };
        self.set(fold.slot, first);
        if let Some(second) = second {
            self.set(fold.slot + 1, second);
        }
        Ok(())
    }

    fn element(&self, fold: &FoldNode) -> Val<'v> {
        self.locals.get(fold.slot + usize::from(fold.has_two)).cloned().unwrap_or(Val::Null)
    }

    fn holds(&mut self, node: &'v crate::node::Node, span: Span) -> Outcome<bool> {
        match self.evaluate(node)? {
            Val::Bool(truth) => Ok(truth),
            _ => Err(super::no_overload(span, "condition")),
        }
    }

    /// Whether the filter selects the current element.
    fn is_selected(&mut self, fold: &'v FoldNode) -> Outcome<bool> {
        match &fold.filter {
            Some(filter) => self.holds(filter, fold.span),
            None => Ok(true),
        }
    }

    fn quantified(&mut self, fold: &'v FoldNode, range: &Range<'v>, count: usize, decides: bool) -> Outcome<Val<'v>> {
        let mut failure = None;
        for at in 0..count {
            self.bind(fold, range, at)?;
            match self.holds(&fold.body, fold.span) {
                Ok(truth) if truth == decides => return Ok(Val::Bool(decides)),
                Ok(_) => {}
                Err(error) if error.is_final() => return Err(error),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        failure.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn exists_one(&mut self, fold: &'v FoldNode, range: &Range<'v>, count: usize) -> Outcome<Val<'v>> {
        let mut found = 0;
        for at in 0..count {
            self.bind(fold, range, at)?;
            found += usize::from(self.holds(&fold.body, fold.span)?);
        }
        Ok(Val::Bool(found == 1))
    }

    fn listed(&mut self, fold: &'v FoldNode, range: &Range<'v>, count: usize) -> Outcome<Val<'v>> {
        let is_filter = fold.kind == FoldKind::Filter;
        let mut result = Vec::new();
        for at in 0..count {
            self.bind(fold, range, at)?;
            if is_filter {
                if !self.holds(&fold.body, fold.span)? {
                    continue;
                }
                result.push(self.element(fold));
            } else if self.is_selected(fold)? {
                let value = self.evaluate(&fold.body)?;
                result.push(value);
            } else {
                continue;
            }
            // A growing list takes at most twice the memory of its elements.
            self.charge_bytes(fold.span, List::copy_len(2))?;
        }
        Ok(Val::list(result))
    }

    fn mapped(&mut self, fold: &'v FoldNode, range: &Range<'v>, count: usize) -> Outcome<Val<'v>> {
        let mut result = OwnedMap::default();
        for at in 0..count {
            self.bind(fold, range, at)?;
            if !self.is_selected(fold)? {
                continue;
            }
            self.charge_bytes(fold.span, 2 * OwnedMap::memory_len(9) / 9)?;
            let value = self.evaluate(&fold.body)?;
            if fold.kind == FoldKind::TransformMap {
                let key = self.locals.get(fold.slot).cloned().unwrap_or(Val::Null);
                within_budget(fold.span, self.budget.charge_scan(key.scan_len()))?;
                result.insert(key, value).map_err(|problem| insert_failure(problem, fold.span))?;
                continue;
            }
            let Val::Map(entries) = value else { return Err(super::no_overload(fold.span, "transformMapEntry")) };
            for (key, value) in entries.entries() {
                self.charge_work(fold.span, 1)?;
                self.charge_bytes(fold.span, 2 * OwnedMap::memory_len(9) / 9)?;
                within_budget(fold.span, self.budget.charge_scan(key.scan_len()))?;
                result.insert(key, value).map_err(|problem| insert_failure(problem, fold.span))?;
            }
        }
        Ok(Val::Map(Map::Owned(Rc::new(result))))
    }

    fn sorted(&mut self, fold: &'v FoldNode, range: &Range<'v>, count: usize) -> Outcome<Val<'v>> {
        self.charge_bytes(fold.span, 3 * List::copy_len(count))?;
        let mut keyed = Vec::with_capacity(count);
        for at in 0..count {
            self.bind(fold, range, at)?;
            let key = self.evaluate(&fold.body)?;
            keyed.push((key, self.element(fold)));
        }
        // Keys comparable with the first are comparable with each other.
        if let Some((first, _)) = keyed.first() {
            for (key, _) in &keyed {
                if !matches!(within_budget(fold.span, compare_within(first, key, self.budget))?, Some(Some(_))) {
                    return Err(Failure::value(fold.span, "sortBy: the keys cannot be ordered"));
                }
            }
        }
        let exhausted = Cell::new(None);
        keyed.sort_by(|(left, _), (right, _)| order_or_equal(left, right, self.budget, &exhausted));
        if let Some(cause) = exhausted.get() {
            return Err(Failure::exhausted(fold.span, cause));
        }
        Ok(Val::list(keyed.into_iter().map(|(_, item)| item).collect()))
    }

    /// A list of `{'key': …, 'values': […]}`, in order of the first occurrence of each key.
    fn grouped(&mut self, fold: &'v FoldNode, range: &Range<'v>, count: usize) -> Outcome<Val<'v>> {
        self.charge_bytes(fold.span, 7 * List::copy_len(count))?;
        let mut indexes: HashMap<Key, usize> = HashMap::new();
        let mut groups: Vec<(Val<'v>, Vec<Val<'v>>)> = Vec::new();
        for at in 0..count {
            self.bind(fold, range, at)?;
            let value = self.evaluate(&fold.body)?;
            let key = Key::from_val(&value)
                .ok_or_else(|| Failure::value(fold.span, "groupBy: keys must be strings, integers or booleans"))?;
            let index = *indexes.entry(key).or_insert_with(|| {
                groups.push((value, Vec::new()));
                groups.len() - 1
            });
            let element = self.element(fold);
            groups[index].1.push(element);
        }
        self.charge_bytes(fold.span, groups.len() * (OwnedMap::memory_len(2) + List::copy_len(4)))?;
        let group = |(key, values): (Val<'v>, Vec<Val<'v>>)| {
            let mut map = OwnedMap::with_capacity(2);
            // The keys differ.
            let _ = map.insert(Val::text("key"), key);
            let _ = map.insert(Val::text("values"), Val::list(values));
            Val::Map(Map::Owned(Rc::new(map)))
        };
        Ok(Val::list(groups.into_iter().map(group).collect()))
    }
}
