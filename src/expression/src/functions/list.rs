//! Lists and maps (CEL's extension `lists`, and ours).

use std::cell::Cell;
use std::rc::Rc;

use super::{Call, Function, int_at, list_at, take};
use crate::budget::{Budget, Spent};
use crate::failure::{Failure, Outcome};
use crate::functions::set::Members;
use crate::value::{List, MadeMap, Map, Val, compare_within};

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
        meaning: "The number of elements, entries, bytes, or characters of a text (Unicode code points).",
        cost: "1; of a text its length",
        examples: &[("size([1, 2])", "2"), ("'été'.size()", "3"), ("size({})", "0")],
        run: size,
    },
    Function {
        name: "distinct",
        group: "Lists and maps",
        signatures: &["list(A).distinct() -> list(A)"],
        meaning: "Each element once, in the order in which it comes first.",
        cost: "the length of the list; its square where elements are lists or maps",
        examples: &[("[1, 2, 1].distinct()", "[1, 2]")],
        run: distinct,
    },
    Function {
        name: "flatten",
        group: "Lists and maps",
        signatures: &["list(dyn).flatten() -> list(dyn)", "list(dyn).flatten(int) -> list(dyn)"],
        meaning: "The elements, and those of elements that are lists in their place; so many levels, or one.",
        cost: "the number of elements",
        examples: &[("[1, [2, [3]]].flatten()", "[1, 2, [3]]"), ("[1, [2, [3]]].flatten(2)", "[1, 2, 3]")],
        run: flatten,
    },
    Function {
        name: "slice",
        group: "Lists and maps",
        signatures: &["list(A).slice(int, int) -> list(A)"],
        meaning: "The elements from the one place up to before the other.",
        cost: "the number of elements",
        examples: &[("[1, 2, 3].slice(1, 3)", "[2, 3]")],
        run: slice,
    },
    Function {
        name: "sort",
        group: "Lists and maps",
        signatures: &["list(A).sort() -> list(A)"],
        meaning: "The elements in their order. `list.sortBy(x, key)` orders by a key.",
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
        meaning: "The numbers from 0 up to before that one.",
        cost: "the number",
        examples: &[("lists.range(3)", "[0, 1, 2]")],
        run: range,
    },
    Function {
        name: "zip",
        group: "Lists and maps",
        signatures: &["list(A).zip(list(B)) -> list(list(dyn))"],
        meaning: "Pairs of the elements of one place, as many as the shorter list has.",
        cost: "the shorter length",
        examples: &[("[1, 2].zip(['a', 'b'])", "[[1, 'a'], [2, 'b']]")],
        run: zip,
    },
    Function {
        name: "keys",
        group: "Lists and maps",
        signatures: &["map(A, B).keys() -> list(A)"],
        meaning: "The keys of a map, or the names of a record's fields, in their order.",
        cost: "the number of entries",
        examples: &[("{'b': 1, 'a': 2}.keys()", "['b', 'a']")],
        run: |call, arguments| entries(call, arguments, true),
    },
    Function {
        name: "values",
        group: "Lists and maps",
        signatures: &["map(A, B).values() -> list(B)"],
        meaning: "The values of a map in their order.",
        cost: "the number of entries",
        examples: &[("{'b': 1, 'a': 2}.values()", "[1, 2]")],
        run: |call, arguments| entries(call, arguments, false),
    },
    Function {
        name: "merge",
        group: "Lists and maps",
        signatures: &["map(A, B).merge(map(A, B)) -> map(A, B)"],
        meaning: "The entries of both; where both have a key, the value of the second in the place of the first.",
        cost: "the number of entries",
        examples: &[("{'a': 1, 'b': 2}.merge({'a': 3})", "{'a': 3, 'b': 2}")],
        run: merge,
    },
];

fn size<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let size = match take(arguments, 0) {
        Val::Text(text) => {
            call.scan(text.len())?;
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
    call.make_list(4 * list.len())?;
    let mut seen = Members::empty();
    let mut made = Vec::with_capacity(list.len());
    for item in list.iter() {
        if !seen.has(call, &item)? {
            seen.add(item.clone());
            made.push(item);
        }
    }
    Ok(Val::list(made))
}

/// Levels that are taken apart at most: data is nested less.
const LEVELS_MAX: i64 = 64;

fn flatten<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let levels = if arguments.len() > 1 { int_at(call, arguments, 1)? } else { 1 };
    if levels < 0 {
        return Err(call.fail("levels are not negative"));
    }
    let list = list_at(call, arguments, 0)?;
    call.make_list(list.len())?;
    let mut made = list.iter().collect::<Vec<_>>();
    for _ in 0..levels.min(LEVELS_MAX) {
        if !made.iter().any(|item| matches!(item, Val::List(_))) {
            break;
        }
        let mut next = Vec::with_capacity(made.len());
        for item in made {
            match item {
                Val::List(inner) => {
                    call.make_list(inner.len() + 1)?;
                    next.extend(inner.iter());
                }
                other => {
                    call.make_list(1)?;
                    next.push(other);
                }
            }
        }
        made = next;
    }
    Ok(Val::list(made))
}

fn slice<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (from, to) = (int_at(call, arguments, 1)?, int_at(call, arguments, 2)?);
    let list = list_at(call, arguments, 0)?;
    let bounds = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let Some((from, to)) = bounds.filter(|(from, to)| from <= to && *to <= list.len()) else {
        return Err(call.fail("the places are not in order, or past the end of the list"));
    };
    if let List::Data(items, xml) = list {
        return Ok(Val::List(List::Data(&items[from..to], *xml)));
    }
    call.make_list(to - from)?;
    Ok(Val::list((from..to).filter_map(|at| list.get(at)).collect()))
}

fn sort<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let list = list_at(call, arguments, 0)?;
    let count = list.len();
    call.make_list(2 * count)?;
    let mut made: Vec<Val<'v>> = list.iter().collect();
    let Some(first) = made.first().cloned() else { return Ok(Val::list(made)) };
    // Those that order with one of them order with one another.
    for item in &made {
        call.order(&first, item)?;
    }
    let spent = Cell::new(None);
    made.sort_by(|left, right| order_or_equal(left, right, call.budget, &spent));
    match spent.get() {
        Some(spent) => Err(Failure::spent(call.span, spent)),
        None => Ok(Val::list(made)),
    }
}

/// The order of two values that order; once the budget is spent, all are equal, and `spent` says so.
pub(crate) fn order_or_equal(
    left: &Val<'_>,
    right: &Val<'_>,
    budget: &Budget,
    spent: &Cell<Option<Spent>>,
) -> std::cmp::Ordering {
    if spent.get().is_some() {
        return std::cmp::Ordering::Equal;
    }
    match budget.work(1).and_then(|()| compare_within(left, right, budget)) {
        Ok(order) => order.flatten().unwrap_or(std::cmp::Ordering::Equal),
        Err(problem) => {
            spent.set(Some(problem));
            std::cmp::Ordering::Equal
        }
    }
}

fn range<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let end = int_at(call, arguments, 0)?;
    if end < 0 {
        return Err(call.fail("the number is negative"));
    }
    call.make_list(usize::try_from(end).unwrap_or(0))?;
    Ok(Val::list((0..end).map(Val::Int).collect()))
}

fn zip<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (left, right) = (list_at(call, arguments, 0)?, list_at(call, arguments, 1)?);
    call.make_list(3 * left.len().min(right.len()))?;
    Ok(Val::list(left.iter().zip(right.iter()).map(|(left, right)| Val::list(vec![left, right])).collect()))
}

fn entries<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], keys: bool) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Map(map) => {
            call.make_list(map.len())?;
            Ok(Val::list(map.entries().map(|(key, value)| if keys { key } else { value }).collect()))
        }
        _ => call.no_overload(),
    }
}

fn merge<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (Val::Map(left), Val::Map(right)) = (take(arguments, 0), take(arguments, 1)) else { return call.no_overload() };
    let count = left.len() + right.len();
    call.make_list(2 * count)?;
    call.budget.bytes(MadeMap::made_len(count)).map_err(|spent| Failure::spent(call.span, spent))?;
    let mut made = MadeMap::with_capacity(count);
    for (key, value) in left.entries() {
        call.scan(2 * key.scan_len())?;
        let value = right.get(&key).unwrap_or(value);
        let _ = made.insert(key, value);
    }
    for (key, value) in right.entries() {
        call.scan(key.scan_len())?;
        // Those that are there already have their value.
        let _ = made.insert(key, value);
    }
    Ok(Val::Map(Map::Made(Rc::new(made))))
}
