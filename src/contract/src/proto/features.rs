//! Features of editions, and their equivalents in `proto2` and `proto3` (protobuf, "Feature Settings for Editions").

use super::descriptor::{Features, File};

pub(super) const EXPLICIT: i32 = 1;
pub(super) const IMPLICIT: i32 = 2;
pub(super) const LEGACY_REQUIRED: i32 = 3;
const OPEN: i32 = 1;
pub(super) const CLOSED: i32 = 2;
pub(super) const PACKED: i32 = 1;
const EXPANDED: i32 = 2;
const LENGTH_PREFIXED: i32 = 1;
pub(super) const DELIMITED: i32 = 2;

/// The latest supported edition: 2024.
const EDITION_MAX: i32 = 1001;
const EDITION_2023: i32 = 1000;

/// The features of a file; `None` if its edition is not supported.
pub(super) fn of_file(file: &File) -> Option<Features> {
    let base = match file.syntax.as_str() {
        "" | "proto2" => Features {
            field_presence: EXPLICIT,
            enum_type: CLOSED,
            repeated_field_encoding: EXPANDED,
            message_encoding: LENGTH_PREFIXED,
        },
        "proto3" => Features {
            field_presence: IMPLICIT,
            enum_type: OPEN,
            repeated_field_encoding: PACKED,
            message_encoding: LENGTH_PREFIXED,
        },
        "editions" if (EDITION_2023..=EDITION_MAX).contains(&file.edition) => Features {
            field_presence: EXPLICIT,
            enum_type: OPEN,
            repeated_field_encoding: PACKED,
            message_encoding: LENGTH_PREFIXED,
        },
        _ => return None,
    };
    Some(merge(base, file.options.as_ref().and_then(|options| options.features)))
}

/// Overrides inherited features.
pub(super) fn merge(outer: Features, own: Option<Features>) -> Features {
    let Some(own) = own else { return outer };
    let pick = |own: i32, outer: i32| if own == 0 { outer } else { own };
    Features {
        field_presence: pick(own.field_presence, outer.field_presence),
        enum_type: pick(own.enum_type, outer.enum_type),
        repeated_field_encoding: pick(own.repeated_field_encoding, outer.repeated_field_encoding),
        message_encoding: pick(own.message_encoding, outer.message_encoding),
    }
}
