//! Lists and maps (CEL extension `lists`, and additions).

use std::cell::Cell;
use std::rc::Rc;

use super::{Call, Function, int_at, list_at, take};
use crate::budget::{Budget, Exhausted};
use crate::failure::{Failure, Outcome};
use crate::functions::set::Members;
use crate::value::{List, Map, OwnedMap, Val, compare_within};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "size",
        group: "Lists and maps",
        signatures: &[
            "(string) -> int",
            "(bytes) -> int",
            "(list(A)) -> int",
            "(map(A, B)) -> int",
            "string.size() -> int",
            "bytes.size() -> int",
            "list(A).size() -> int",
            "map(A, B).size() -> int",
        ],
        description: "The number of elements, entries, bytes or characters (Unicode code points).",
        cost: "1; for a string, its length",
        examples: &[("size([1, 2])", "2"), ("'été'.size()", "3"), ("size({})", "0")],
        run: size,
    },
    Function {
        name: "distinct",
        group: "Lists and maps",
        signatures: &["list(A).distinct() -> list(A)"],
        description: "The distinct elements, in order of first occurrence.",
        cost: "the length of the list; its square if elements are lists or maps",
        examples: &[("[1, 2, 1].distinct()", "[1, 2]")],
        run: distinct,
    },
    Function {
        name: "flatten",
        group: "Lists and maps",
        signatures: &[
            "list(list(A)).flatten() -> list(A)",
            "list(A).flatten() -> list(A)",
            "list(dyn).flatten(int) -> list(dyn)",
        ],
        description: "The list with nested lists replaced by their elements, one level deep or as many as given.",
        cost: "the number of elements",
        examples: &[("[1, [2, [3]]].flatten()", "[1, 2, [3]]"), ("[1, [2, [3]]].flatten(2)", "[1, 2, 3]")],
        run: flatten,
    },
    Function {
        name: "slice",
        group: "Lists and maps",
        signatures: &["list(A).slice(int, int) -> list(A)"],
        description: "The elements from the first index up to, but excluding, the second.",
        cost: "the number of elements",
        examples: &[("[1, 2, 3].slice(1, 3)", "[2, 3]")],
        run: slice,
    },
    Function {
        name: "sort",
        group: "Lists and maps",
        signatures: &["list(A).sort() -> list(A)"],
        description: "The elements in ascending order. `list.sortBy(x, key)` sorts by a key.",
        cost: "n log n",
        examples: &[
            ("[3, 1, 2].sort()", "[1, 2, 3]"),
            ("[{'n': 2}, {'n': 1}].sortBy(x, x.n)", "[{'n': 1}, {'n': 2}]"),
            (
                "['a1', 'b1', 'a2'].groupBy(x, x.charAt(0))",
                "[{'key': 'a', 'values': ['a1', 'a2']}, {'key': 'b', 'values': ['b1']}]",
            ),
        ],
        run: sort,
    },
    Function {
        name: "lists.range",
        group: "Lists and maps",
        signatures: &["(int) -> list(int)"],
        description: "The integers from 0 up to, but excluding, the number.",
        cost: "the number",
        examples: &[("lists.range(3)", "[0, 1, 2]")],
        run: range,
    },
    Function {
        name: "zip",
        group: "Lists and maps",
        signatures: &["list(A).zip(list(A)) -> list(list(A))", "list(A).zip(list(B)) -> list(list(dyn))"],
        description: "Pairs of elements at the same index, up to the length of the shorter list.",
        cost: "the shorter length",
        examples: &[("[1, 2].zip(['a', 'b'])", "[[1, 'a'], [2, 'b']]")],
        run: zip,
    },
    Function {
        name: "keys",
        group: "Lists and maps",
        signatures: &["map(A, B).keys() -> list(A)"],
        description: "The keys of a map or field names of a record, in order.",
        cost: "the number of entries",
        examples: &[("{'b': 1, 'a': 2}.keys()", "['b', 'a']")],
        run: |call, arguments| entries(call, arguments, true),
    },
    Function {
        name: "values",
        group: "Lists and maps",
        signatures: &["map(A, B).values() -> list(B)"],
        description: "The values of a map, in order.",
        cost: "the number of entries",
        examples: &[("{'b': 1, 'a': 2}.values()", "[1, 2]")],
        run: |call, arguments| entries(call, arguments, false),
    },
    Function {
        name: "merge",
        group: "Lists and maps",
        signatures: &["map(A, B).merge(map(A, B)) -> map(A, B)"],
        description: "The entries of both maps. If both have a key, the value of the second replaces that of the first, in its position.",
        cost: "the number of entries",
        examples: &[("{'a': 1, 'b': 2}.merge({'a': 3})", "{'a': 3, 'b': 2}")],
        run: merge,
    },
];

fn size<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let size = match take(arguments, 0) {
        Val::Text(text) => {
            call.charge_scan(text.len())?;
            text.chars().count()
        }
        Val::Bytes(bytes) => bytes.len(),
        Val::List(list) => list.len(),
        Val::Map(map) => map.len(),
        _ => return call.no_overload(),
    };
    Ok(Val::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn distinct<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let list = list_at(call, arguments, 0)?;
    call.charge_list(4 * list.len())?;
    let mut seen = Members::empty();
    let mut result = Vec::with_capacity(list.len());
    for item in list.iter() {
        if !seen.contains(call, &item)? {
            seen.add(item.clone());
            result.push(item);
        }
    }
    Ok(Val::list(result))
}

/// Levels flattened at most; data is never nested deeper.
const LEVELS_MAX: i64 = 64;

fn flatten<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let levels = if arguments.len() > 1 { int_at(call, arguments, 1)? } else { 1 };
    if levels < 0 {
        return Err(call.fail("the number of levels must not be negative"));
    }
    let list = list_at(call, arguments, 0)?;
    call.charge_list(list.len())?;
    let mut result = list.iter().collect::<Vec<_>>();
    for _ in 0..levels.min(LEVELS_MAX) {
        if !result.iter().any(|item| matches!(item, Val::List(_))) {
            break;
        }
        let mut next = Vec::with_capacity(result.len());
        for item in result {
            match item {
                Val::List(inner) => {
                    call.charge_list(inner.len() + 1)?;
                    next.extend(inner.iter());
                }
                other => {
                    call.charge_list(1)?;
                    next.push(other);
                }
            }
        }
        result = next;
    }
    Ok(Val::list(result))
}

fn slice<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (from, to) = (int_at(call, arguments, 1)?, int_at(call, arguments, 2)?);
    let list = list_at(call, arguments, 0)?;
    let bounds = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let Some((from, to)) = bounds.filter(|(from, to)| from <= to && *to <= list.len()) else {
        return Err(call.fail("the indexes are out of order or out of range"));
    };
    if let List::Data(items, xml) = list {
        return Ok(Val::List(List::Data(&items[from..to], *xml)));
    }
    call.charge_list(to - from)?;
    Ok(Val::list((from..to).filter_map(|at| list.get(at)).collect()))
}

fn sort<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let list = list_at(call, arguments, 0)?;
    let count = list.len();
    call.charge_list(2 * count)?;
    let mut result: Vec<Val<'v>> = list.iter().collect();
    let Some(first) = result.first().cloned() else { return Ok(Val::list(result)) };
    // Elements comparable with the first are comparable with each other.
    for item in &result {
        call.order(&first, item)?;
    }
    let exhausted = Cell::new(None);
    result.sort_by(|left, right| order_or_equal(left, right, call.budget, &exhausted));
    match exhausted.get() {
        Some(cause) => Err(Failure::exhausted(call.span, cause)),
        None => Ok(Val::list(result)),
    }
}

/// The order of two comparable values. Once the budget is exhausted, all are equal, and `exhausted` holds the cause.
pub(crate) fn order_or_equal(
    left: &Val<'_>,
    right: &Val<'_>,
    budget: &Budget,
    exhausted: &Cell<Option<Exhausted>>,
) -> std::cmp::Ordering {
    if exhausted.get().is_some() {
        return std::cmp::Ordering::Equal;
    }
    match budget.charge_work(1).and_then(|()| compare_within(left, right, budget)) {
        Ok(order) => order.flatten().unwrap_or(std::cmp::Ordering::Equal),
        Err(cause) => {
            exhausted.set(Some(cause));
            std::cmp::Ordering::Equal
        }
    }
}

fn range<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let end = int_at(call, arguments, 0)?;
    if end < 0 {
        return Err(call.fail("the number must not be negative"));
    }
    call.charge_list(usize::try_from(end).unwrap_or(0))?;
    Ok(Val::list((0..end).map(Val::Int).collect()))
}

fn zip<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (left, right) = (list_at(call, arguments, 0)?, list_at(call, arguments, 1)?);
    call.charge_list(3 * left.len().min(right.len()))?;
    Ok(Val::list(left.iter().zip(right.iter()).map(|(left, right)| Val::list(vec![left, right])).collect()))
}

fn entries<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], keys: bool) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Map(map) => {
            call.charge_list(map.len())?;
            Ok(Val::list(map.entries().map(|(key, value)| if keys { key } else { value }).collect()))
        }
        _ => call.no_overload(),
    }
}

fn merge<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (Val::Map(left), Val::Map(right)) = (take(arguments, 0), take(arguments, 1)) else { return call.no_overload() };
    let count = left.len() + right.len();
    call.charge_list(2 * count)?;
    call.budget.charge_bytes(OwnedMap::memory_len(count)).map_err(|cause| Failure::exhausted(call.span, cause))?;
    let mut result = OwnedMap::with_capacity(count);
    for (key, value) in left.entries() {
        call.charge_scan(2 * key.scan_len())?;
        let value = right.get(&key).unwrap_or(value);
        let _ = result.insert(key, value);
    }
    for (key, value) in right.entries() {
        call.charge_scan(key.scan_len())?;
        // Keys of the first map already have their value.
        let _ = result.insert(key, value);
    }
    Ok(Val::Map(Map::Owned(Rc::new(result))))
}
