//! Whether a caller prefers JSON or XML (`Accept`, RFC 9110 §12.5.1).

use bytes::Bytes;

/// Whether errors are written as XML: the caller gives XML a higher quality than JSON or, if it names neither, its request contains XML.
pub(crate) fn prefers_xml(accept: impl Iterator<Item = Bytes>, content_type: Option<&[u8]>) -> bool {
    let (mut json, mut xml) = (None, None);
    for value in accept {
        for range in value.split(|byte| *byte == b',') {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let media_type = parts.next().unwrap_or_default();
            let best = match syntax(media_type) {
                Some(Syntax::Json) => &mut json,
                Some(Syntax::Xml) => &mut xml,
                None => continue,
            };
            *best = (*best).max(Some(parts.find_map(quality).unwrap_or(QUALITY_MAX)));
        }
    }
    match (json, xml) {
        (None, None) => content_type.and_then(syntax) == Some(Syntax::Xml),
        (json, xml) => xml.unwrap_or(0) > json.unwrap_or(0),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Json,
    Xml,
}

/// The syntax of a media type, by its subtype or structured suffix (RFC 6839).
fn syntax(media_type: &[u8]) -> Option<Syntax> {
    let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let subtype = essence.split(|byte| *byte == b'/').nth(1)?;
    let suffix = subtype.rsplit(|byte| *byte == b'+').next().unwrap_or_default();
    if suffix.eq_ignore_ascii_case(b"json") {
        Some(Syntax::Json)
    } else if suffix.eq_ignore_ascii_case(b"xml") {
        Some(Syntax::Xml)
    } else {
        None
    }
}

/// The quality 1, in thousandths.
const QUALITY_MAX: u16 = 1000;

/// The quality in thousandths, if the parameter is a valid `q` (RFC 9110 §12.4.2).
fn quality(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, fraction) = value.split_first()?;
    let fraction = fraction.strip_prefix(b".").unwrap_or(fraction);
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths =
        (0..3).fold(0, |sum, place| sum * 10 + fraction.get(place).map_or(0, |digit| u16::from(digit - b'0')));
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(QUALITY_MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(accept: &'static str, content_type: Option<&str>) -> bool {
        prefers_xml([Bytes::from_static(accept.as_bytes())].into_iter(), content_type.map(str::as_bytes))
    }

    #[test]
    fn the_higher_quality_wins_and_json_wins_ties() {
        for accept in [
            "application/xml",
            "text/XML; charset=utf-8",
            "application/problem+xml, */*;q=0.1",
            "application/json;q=0.5, application/xml",
            "application/json;q=0, text/xml;q=0.001",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert!(prefers(accept, Some("application/json")), "{accept}");
        }
        for accept in [
            "application/json",
            "application/xml, application/json",
            "application/xml;q=0.9, application/json",
            "application/xml;q=0",
            "application/problem+json, text/xml; q=0.5",
        ] {
            assert!(!prefers(accept, Some("application/xml")), "{accept}");
        }
    }

    #[test]
    fn without_a_preference_the_content_type_decides() {
        for accept in ["", "*/*", "text/plain", "application/*", "application/vnd.xmlish"] {
            assert!(prefers(accept, Some("application/soap+xml; charset=utf-8")), "{accept}");
            assert!(!prefers(accept, Some("application/json")) && !prefers(accept, None), "{accept}");
        }
    }

    #[test]
    fn invalid_qualities_count_as_1() {
        for parameter in ["q=2", "q=1.5", "q=0.1234", "q=", "q=-1", "x=1"] {
            assert_eq!(quality(parameter.as_bytes()), None, "{parameter}");
        }
        let valid = ["q=0", "Q=0.5", "q=0.05", "q=1", "q=1.000", "q=0."].map(|text| quality(text.as_bytes()));
        assert_eq!(valid, [0, 500, 50, 1000, 1000, 0].map(Some));
    }
}
