//! Texts and bytes in quotes.

/// How a quoted literal begins.
pub(super) struct Quoted {
    pub(super) prefix_len: usize,
    pub(super) is_raw: bool,
    pub(super) is_bytes: bool,
    pub(super) mark: &'static str,
}

/// Whether a quoted literal begins here: one of `r`, `b`, both in any order and case, and a quotation mark or three.
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

/// Bytes up to the closing mark; nothing where there is none.
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

/// The content without its escapes; the error is the place of one that cannot be read, and why.
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
        let behind = &rest[1..];
        let Some(letter) = behind.chars().next() else { return Err((at, "the escape does not end")) };
        let digits = |count: usize, radix: u32, from: usize| {
            let text =
                behind.get(from..from + count).filter(|text| text.bytes().all(|byte| char::from(byte).is_digit(radix)));
            text.and_then(|text| u32::from_str_radix(text, radix).ok()).ok_or((at, "the escape lacks digits"))
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
            _ => return Err((at, "there is no such escape")),
        };
        if quoted.is_bytes && matches!(letter, 'u' | 'U') {
            return Err((at, "`\\u` stands in texts only"));
        }
        match (is_byte && quoted.is_bytes, u8::try_from(code)) {
            (true, Ok(byte)) => out.push(byte),
            _ => {
                let character = char::from_u32(code).ok_or((at, "the escape is no character"))?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        rest = &behind[len..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}
