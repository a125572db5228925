//! The methods of a broker that the filter inspects.

use lapin::types::ShortString;

use super::Malformed;
use super::content::{Cursor, is_table_readable};

/// Class and method numbers (AMQP 0.9.1 §1.2).
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
const CHANNEL_OPEN_OK: [u8; 4] = [0, 20, 0, 11];
const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];
const BASIC_RETURN: [u8; 4] = [0, 60, 0, 50];
const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];
const BASIC_GET_OK: [u8; 4] = [0, 60, 0, 71];
/// Methods with tables that only clients send: start-ok, declare, bind and unbind of exchanges and queues, consume.
const WITH_TABLES: [[u8; 4]; 8] = [
    [0, 10, 0, 11],
    [0, 40, 0, 10],
    [0, 40, 0, 30],
    [0, 40, 0, 40],
    [0, 50, 0, 10],
    [0, 50, 0, 20],
    [0, 50, 0, 50],
    [0, 60, 0, 20],
];
const NAME_LEN_MAX: usize = 255;

pub(super) enum Method {
    /// A message is returned; its header and body follow.
    Return {
        exchange: ShortString,
        key: ShortString,
    },
    /// The channel was opened or closed: recorded returns do not apply to a later channel with the same number.
    ChannelReset,
    Other,
}

/// Parses a method. Converts a routing key that is not UTF-8: the adapter does not use it, and lapin would close the connection.
pub(super) fn read(payload: &mut Vec<u8>) -> Result<Method, Malformed> {
    let number: [u8; 4] = payload.first_chunk().copied().ok_or(Malformed("a method without a number"))?;
    match number {
        CONNECTION_START => {
            // The table follows the major and minor version.
            let mut cursor = Cursor::new(payload.get(6..).unwrap_or_default());
            let table = cursor.long().ok_or(Malformed("a truncated connection.start"))?;
            if !is_table_readable(table) {
                return Err(Malformed("the server properties are nested too deeply or malformed"));
            }
            Ok(Method::Other)
        }
        BASIC_RETURN => {
            let mut cursor = Cursor::new(payload.get(6..).unwrap_or_default());
            let mut name = || std::str::from_utf8(cursor.short()?).ok().map(ShortString::from);
            let (_, exchange, key) = (name(), name(), name());
            match (exchange, key) {
                (Some(exchange), Some(key)) => Ok(Method::Return { exchange, key }),
                _ => Err(Malformed("a truncated basic.return")),
            }
        }
        CHANNEL_OPEN_OK | CHANNEL_CLOSE | CHANNEL_CLOSE_OK => Ok(Method::ChannelReset),
        BASIC_DELIVER => {
            // Exchange and routing key follow the consumer tag, the delivery tag and the redelivered flag.
            let tag_len = payload.get(4).map_or(0, |len| usize::from(*len));
            make_names_readable(payload, 4 + 1 + tag_len + 8 + 1)?;
            Ok(Method::Other)
        }
        BASIC_GET_OK => {
            make_names_readable(payload, 4 + 8 + 1)?;
            Ok(Method::Other)
        }
        _ if WITH_TABLES.contains(&number) => Err(Malformed("a method that only clients send")),
        _ => Ok(Method::Other),
    }
}

/// Converts the two short strings at `at` to UTF-8.
fn make_names_readable(payload: &mut Vec<u8>, at: usize) -> Result<(), Malformed> {
    let truncated = || Malformed("a truncated delivery");
    let mut cursor = Cursor::new(payload.get(at..).ok_or_else(truncated)?);
    let (exchange, key) = (cursor.short().ok_or_else(truncated)?, cursor.short().ok_or_else(truncated)?);
    if std::str::from_utf8(exchange).is_ok() && std::str::from_utf8(key).is_ok() {
        return Ok(());
    }
    let mut converted = payload[..at].to_vec();
    for name in [exchange, key] {
        let text = String::from_utf8_lossy(name);
        let mut len = text.len().min(NAME_LEN_MAX);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        converted.push(u8::try_from(len).unwrap_or(u8::MAX));
        converted.extend_from_slice(&text.as_bytes()[..len]);
    }
    converted.extend_from_slice(cursor.rest());
    *payload = converted;
    Ok(())
}
