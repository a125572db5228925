//! String and bytes literals.

/// The opening of a string or bytes literal.
pub(super) struct Quoted {
    pub(super) prefix_len: usize,
    pub(super) is_raw: bool,
    pub(super) is_bytes: bool,
    pub(super) mark: &'static str,
}

/// The opening at the start of `rest`: `r` and `b`, each at most once and in any case, then one or three quotation marks.
pub(super) fn quoted_start(rest: &str) -> Option<Quoted> {
    let bytes = rest.as_bytes();
    let letters = bytes.iter().take(2).take_while(|byte| matches!(byte, b'r' | b'R' | b'b' | b'B')).count();
    let has = |letter: u8| bytes[..letters].iter().filter(|byte| byte.eq_ignore_ascii_case(&letter)).count();
    let (raw, of_bytes) = (has(b'r'), has(b'b'));
    if raw > 1 || of_bytes > 1 {
        return None;
    }
    let rest = &rest[letters..];
    let mark = ["'''", "\"\"\"", "'", "\""].into_iter().find(|mark| rest.starts_with(mark))?;
    Some(Quoted { prefix_len: letters, is_raw: raw == 1, is_bytes: of_bytes == 1, mark })
}

/// The length up to the closing mark; `None` if the literal is not terminated.
pub(super) fn content_len(rest: &str, quoted: &Quoted) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if rest.as_bytes()[at..].starts_with(quoted.mark.as_bytes()) {
            return Some(at);
        }
        match bytes[at] {
            b'\\' if !quoted.is_raw => at += 2,
            b'\n' | b'\r' if quoted.mark.len() == 1 => return None,
            _ => at += 1,
        }
    }
    None
}

/// Resolves escapes. The error holds the offset of an invalid escape and the reason.
pub(super) fn unescape(content: &str, quoted: &Quoted) -> Result<Vec<u8>, (usize, &'static str)> {
    let mut out = Vec::with_capacity(content.len());
    if quoted.is_raw {
        out.extend_from_slice(content.as_bytes());
        return Ok(out);
    }
    let mut rest = content;
    while let Some(found) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..found]);
        rest = &rest[found..];
        let at = content.len() - rest.len();
        let after = &rest[1..];
        let Some(letter) = after.chars().next() else { return Err((at, "incomplete escape")) };
        let digits = |count: usize, radix: u32, from: usize| {
            let text =
                after.get(from..from + count).filter(|text| text.bytes().all(|byte| char::from(byte).is_digit(radix)));
            text.and_then(|text| u32::from_str_radix(text, radix).ok()).ok_or((at, "the escape needs more digits"))
        };
        let (code, len, is_byte) = match letter {
            'a' => (7, 1, false),
            'b' => (8, 1, false),
            'f' => (12, 1, false),
            'n' => (10, 1, false),
            'r' => (13, 1, false),
            't' => (9, 1, false),
            'v' => (11, 1, false),
            '\\' | '?' | '"' | '\'' | '`' => (letter as u32, 1, false),
            'x' | 'X' => (digits(2, 16, 1)?, 3, true),
            'u' => (digits(4, 16, 1)?, 5, false),
            'U' => (digits(8, 16, 1)?, 9, false),
            '0'..='3' => (digits(3, 8, 0)?, 3, true),
            _ => return Err((at, "unknown escape")),
        };
        if quoted.is_bytes && matches!(letter, 'u' | 'U') {
            return Err((at, "`\\u` is only allowed in strings"));
        }
        match (is_byte && quoted.is_bytes, u8::try_from(code)) {
            (true, Ok(byte)) => out.push(byte),
            _ => {
                let character = char::from_u32(code).ok_or((at, "the escape is not a valid character"))?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        rest = &after[len..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}
