//! Strings (CEL standard functions and extension `strings`). Indexes and lengths count characters (Unicode code points).

mod format;
mod pattern;

use crossdock_message::ByteString;
use memchr::memmem;

pub(crate) use self::pattern::compile_regex;
use super::{Call, Function, int_at, list_at, take, text_at};
use crate::failure::Outcome;
use crate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "contains",
        group: "Strings",
        signatures: &["string.contains(string) -> bool"],
        description: "Whether the string contains the other string.",
        cost: "both lengths",
        examples: &[("'abc'.contains('b')", "true")],
        run: |call, arguments| {
            let (text, part) = two_strings(call, arguments)?;
            Ok(Val::Bool(memmem::find(text.as_bytes(), part.as_bytes()).is_some()))
        },
    },
    Function {
        name: "startsWith",
        group: "Strings",
        signatures: &["string.startsWith(string) -> bool"],
        description: "Whether the string starts with the other string.",
        cost: "the length of the other",
        examples: &[("'abc'.startsWith('ab')", "true")],
        run: |call, arguments| {
            let (text, part) = two_strings(call, arguments)?;
            Ok(Val::Bool(text.as_bytes().starts_with(part.as_bytes())))
        },
    },
    Function {
        name: "endsWith",
        group: "Strings",
        signatures: &["string.endsWith(string) -> bool"],
        description: "Whether the string ends with the other string.",
        cost: "the length of the other",
        examples: &[("'abc'.endsWith('bc')", "true")],
        run: |call, arguments| {
            let (text, part) = two_strings(call, arguments)?;
            Ok(Val::Bool(text.as_bytes().ends_with(part.as_bytes())))
        },
    },
    Function {
        name: "matches",
        group: "Strings",
        signatures: &["string.matches(string) -> bool", "(string, string) -> bool"],
        description: "Whether the regular expression matches a part of the string; `^…$` matches all of it. RE2 syntax, except octal escapes and braces that are not a repetition.",
        cost: "the length of the string times that of the expression with counted repetitions expanded",
        examples: &[("'A-17'.matches('^[A-Z]-[0-9]+$')", "true"), ("matches('abc', 'b')", "true")],
        run: matches,
    },
    Function {
        name: "charAt",
        group: "Strings",
        signatures: &["string.charAt(int) -> string"],
        description: "The character at the index; an empty string at the end.",
        cost: "the index",
        examples: &[("'abc'.charAt(1)", "'b'")],
        run: char_at,
    },
    Function {
        name: "indexOf",
        group: "Strings",
        signatures: &["string.indexOf(string) -> int", "string.indexOf(string, int) -> int"],
        description: "The index of the first occurrence of the other string, at or after the given index; -1 if there is none.",
        cost: "both lengths",
        examples: &[("'abcb'.indexOf('b')", "1"), ("'abcb'.indexOf('b', 2)", "3")],
        run: index_of,
    },
    Function {
        name: "lastIndexOf",
        group: "Strings",
        signatures: &["string.lastIndexOf(string) -> int", "string.lastIndexOf(string, int) -> int"],
        description: "The index of the last occurrence of the other string, at or before the given index; -1 if there is none.",
        cost: "both lengths",
        examples: &[("'abcb'.lastIndexOf('b')", "3")],
        run: last_index_of,
    },
    Function {
        name: "substring",
        group: "Strings",
        signatures: &["string.substring(int) -> string", "string.substring(int, int) -> string"],
        description: "The characters from the first index up to, but excluding, the second, or up to the end.",
        cost: "the length",
        examples: &[("'abcd'.substring(2)", "'cd'"), ("'abcd'.substring(1, 3)", "'bc'")],
        run: substring,
    },
    Function {
        name: "replace",
        group: "Strings",
        signatures: &["string.replace(string, string) -> string", "string.replace(string, string, int) -> string"],
        description: "The string with all occurrences of the first argument replaced by the second, or at most as many as the third.",
        cost: "the lengths of the string and the result",
        examples: &[("'a b c'.replace(' ', '-')", "'a-b-c'"), ("'a b c'.replace(' ', '-', 1)", "'a-b c'")],
        run: replace,
    },
    Function {
        name: "split",
        group: "Strings",
        signatures: &["string.split(string) -> list(string)", "string.split(string, int) -> list(string)"],
        description: "The parts between separators, at most as many as the second argument; the characters if the separator is empty.",
        cost: "the length",
        examples: &[("'a,b,c'.split(',')", "['a', 'b', 'c']"), ("'a,b,c'.split(',', 2)", "['a', 'b,c']")],
        run: split,
    },
    Function {
        name: "join",
        group: "Strings",
        signatures: &["list(string).join() -> string", "list(string).join(string) -> string"],
        description: "The concatenated strings, with the separator between them.",
        cost: "the length of the result",
        examples: &[("['a', 'b'].join('-')", "'a-b'")],
        run: join,
    },
    Function {
        name: "lowerAscii",
        group: "Strings",
        signatures: &["string.lowerAscii() -> string"],
        description: "The string with ASCII letters in lower case.",
        cost: "the length",
        examples: &[("'ÀB'.lowerAscii()", "'Àb'")],
        run: |call, arguments| mapped(call, arguments, str::to_ascii_lowercase),
    },
    Function {
        name: "upperAscii",
        group: "Strings",
        signatures: &["string.upperAscii() -> string"],
        description: "The string with ASCII letters in upper case.",
        cost: "the length",
        examples: &[("'àb'.upperAscii()", "'àB'")],
        run: |call, arguments| mapped(call, arguments, str::to_ascii_uppercase),
    },
    Function {
        name: "trim",
        group: "Strings",
        signatures: &["string.trim() -> string"],
        description: "The string without leading and trailing white space.",
        cost: "the length",
        examples: &[("' a '.trim()", "'a'")],
        run: |call, arguments| {
            let text = text_at(call, arguments, 0)?;
            call.charge_scan(text.len())?;
            Ok(Val::text(substring_of(text, text.trim())))
        },
    },
    Function {
        name: "reverse",
        group: "Strings",
        signatures: &["string.reverse() -> string", "list(A).reverse() -> list(A)"],
        description: "The characters of a string or elements of a list in reverse order.",
        cost: "the length",
        examples: &[("'abc'.reverse()", "'cba'"), ("[1, 2].reverse()", "[2, 1]")],
        run: |call, arguments| match arguments.first() {
            Some(Val::List(list)) => {
                call.charge_list(list.len())?;
                Ok(Val::list(list.iter().rev().collect()))
            }
            _ => mapped(call, arguments, |text| text.chars().rev().collect()),
        },
    },
    Function {
        name: "format",
        group: "Strings",
        signatures: &["string.format(list(dyn)) -> string"],
        description: "The string with `%s`, `%d`, `%f`, `%e`, `%b`, `%o`, `%x` and `%X` replaced by the values of the list; `%.2f` writes two fraction digits.",
        cost: "the length of the result",
        examples: &[("'%s has %d'.format(['a', 2])", "'a has 2'"), ("'%.2f'.format([1.5])", "'1.50'")],
        run: format::format,
    },
    Function {
        name: "strings.quote",
        group: "Strings",
        signatures: &["(string) -> string"],
        description: "The string in double quotes, with escapes.",
        cost: "the length",
        examples: &[("strings.quote('a\"b')", "'\"a\\\\\"b\"'")],
        run: quote,
    },
];

/// Two string arguments, charged as scanned.
fn two_strings<'a>(call: &Call<'_>, arguments: &'a [Val<'_>]) -> Outcome<(&'a ByteString, &'a ByteString)> {
    let (text, part) = (text_at(call, arguments, 0)?, text_at(call, arguments, 1)?);
    call.charge_scan(text.len() + part.len())?;
    Ok((text, part))
}

/// A substring that shares memory with the string.
fn substring_of(text: &ByteString, part: &str) -> ByteString {
    if part.is_empty() { ByteString::new() } else { text.slice_ref(part) }
}

fn mapped<'v>(call: &Call<'_>, arguments: &[Val<'v>], map: impl FnOnce(&str) -> String) -> Outcome<Val<'v>> {
    let text = text_at(call, arguments, 0)?;
    call.charge_output(text.len())?;
    Ok(Val::text(map(text)))
}

fn matches<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (text, source) = two_strings(call, arguments)?;
    pattern::is_match(call, text, source).map(Val::Bool)
}

/// The byte offset of a character index; `None` past the end.
fn offset(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    if text.is_ascii() {
        return (index <= text.len()).then_some(index);
    }
    let mut offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    offsets.nth(index)
}

fn index_at(text: &str, offset: usize) -> i64 {
    i64::try_from(text[..offset].chars().count()).unwrap_or(i64::MAX)
}

fn out_of_range<T>(call: &Call<'_>) -> Outcome<T> {
    Err(call.fail("the index is out of range"))
}

fn char_at<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let index = int_at(call, arguments, 1)?;
    let text = text_at(call, arguments, 0)?;
    call.charge_scan(text.len())?;
    let Some(from) = offset(text, index) else { return out_of_range(call) };
    let len = text[from..].chars().next().map_or(0, char::len_utf8);
    Ok(Val::text(substring_of(text, &text[from..from + len])))
}

fn index_of<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let from = if arguments.len() > 2 { int_at(call, arguments, 2)? } else { 0 };
    let (text, part) = two_strings(call, arguments)?;
    let Some(start) = offset(text, from) else { return out_of_range(call) };
    let found = memmem::find(&text.as_bytes()[start..], part.as_bytes());
    Ok(Val::Int(found.map_or(-1, |at| index_at(text, start + at))))
}

fn last_index_of<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let to = if arguments.len() > 2 { Some(int_at(call, arguments, 2)?) } else { None };
    let (text, part) = two_strings(call, arguments)?;
    let end = match to {
        None => text.len(),
        Some(to) => match offset(text, to) {
            Some(start) => (start + part.len()).min(text.len()),
            None => return out_of_range(call),
        },
    };
    let found = memmem::rfind(&text.as_bytes()[..end], part.as_bytes());
    Ok(Val::Int(found.map_or(-1, |at| index_at(text, at))))
}

fn substring<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let from = int_at(call, arguments, 1)?;
    let to = if arguments.len() > 2 { Some(int_at(call, arguments, 2)?) } else { None };
    let text = text_at(call, arguments, 0)?;
    call.charge_scan(text.len())?;
    let bounds = offset(text, from).zip(match to {
        Some(to) => offset(text, to),
        None => Some(text.len()),
    });
    match bounds {
        Some((from, to)) if from <= to => Ok(Val::text(substring_of(text, &text[from..to]))),
        _ => out_of_range(call),
    }
}

/// A limit on parts or replacements; unlimited if negative or absent.
fn limit(call: &Call<'_>, arguments: &[Val<'_>], at: usize) -> Outcome<usize> {
    if arguments.len() <= at {
        return Ok(usize::MAX);
    }
    Ok(usize::try_from(int_at(call, arguments, at)?).unwrap_or(usize::MAX))
}

fn replace<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let most = limit(call, arguments, 3)?;
    let (text, old) = two_strings(call, arguments)?;
    let new = text_at(call, arguments, 2)?;
    let count = if old.is_empty() {
        text.chars().count() + 1
    } else {
        memmem::find_iter(text.as_bytes(), old.as_bytes()).count()
    };
    let count = count.min(most);
    if count == 0 {
        return Ok(take(arguments, 0));
    }
    call.charge_work(count)?;
    call.charge_output((text.len() + count.saturating_mul(new.len())).saturating_sub(count.saturating_mul(old.len())))?;
    Ok(Val::text(text.replacen(&**old, new, count)))
}

fn split<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let most = limit(call, arguments, 2)?;
    let (text, separator) = two_strings(call, arguments)?;
    if most == 0 {
        return Ok(Val::list(Vec::new()));
    }
    let parts = if separator.is_empty() {
        text.chars().count()
    } else {
        memmem::find_iter(text.as_bytes(), separator.as_bytes()).count() + 1
    };
    call.charge_list(parts.min(most))?;
    let part = |part: &str| Val::text(substring_of(text, part));
    if separator.is_empty() {
        // One character per part; the last part holds the rest.
        let mut result = Vec::with_capacity(parts.min(most));
        let mut rest: &str = text;
        while let Some(first) = rest.chars().next() {
            if result.len() + 1 == most {
                result.push(part(rest));
                break;
            }
            result.push(part(&rest[..first.len_utf8()]));
            rest = &rest[first.len_utf8()..];
        }
        return Ok(Val::list(result));
    }
    Ok(Val::list(text.splitn(most, &**separator).map(part).collect()))
}

fn join<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let empty = ByteString::new();
    let separator = if arguments.len() > 1 { text_at(call, arguments, 1)? } else { &empty };
    let list = list_at(call, arguments, 0)?;
    call.charge_work(list.len())?;
    let mut len = separator.len().saturating_mul(list.len().saturating_sub(1));
    for item in list.iter() {
        match item {
            Val::Text(text) => len = len.saturating_add(text.len()),
            _ => return call.no_overload(),
        }
    }
    call.charge_output(len)?;
    let mut joined = String::with_capacity(len);
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            joined.push_str(separator);
        }
        if let Val::Text(text) = item {
            joined.push_str(&text);
        }
    }
    Ok(Val::text(joined))
}

fn quote<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let text = text_at(call, arguments, 0)?;
    call.charge_output(2 * text.len() + 2)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Val::text(quoted))
}
