//! Macros that declare the structs and enums of settings.

/// Declares structs that are read from maps. Unknown keys are errors. Keys are required unless they have a `= default` or are an
/// `Option`, a `Vec` or [`Named`](crate::Named). The doc comment of a field is its description in the JSON Schema.
///
/// ```
/// crossdock_settings::settings! {
///     /// a listener
///     pub struct Listener {
///         /// Address and port.
///         pub bind: String,
///         /// Maximum number of connections.
///         pub connections: usize = 10_000,
///     }
/// }
/// ```
///
/// Errors name the struct by the first line of its doc comment.
#[macro_export]
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])+
                $field_vis:vis $field:ident : $type:ty $(= $default:expr)?
            ),* $(,)?
        }
    )*) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        $vis struct $name {
            $( $(#[doc = $field_doc])+ $field_vis $field: $type, )*
        }

        impl $crate::FromNode for $name {
            fn from_node(node: &$crate::Node, reader: &mut $crate::Reader<'_>) -> Option<Self> {
                let what = [$($doc),+][0].trim();
                let mut fields = reader.fields(node, what)?;
                let read = <Self as $crate::Settings>::read_fields(&mut fields, reader);
                fields.finish(reader);
                read
            }

            fn schema() -> $crate::serde_json::Value {
                let mut required: Vec<&str> = Vec::new();
                $(if $crate::settings!(@required $type $(= $default)?) {
                    required.push(stringify!($field).trim_start_matches("r#"));
                })*
                let title = [$($doc),+][0].trim();
                let properties = <Self as $crate::Settings>::properties();
                $crate::serde_json::json!({
                    "type": "object", "title": title, "properties": properties,
                    "required": required, "additionalProperties": false,
                })
            }
        }

        impl $crate::Settings for $name {
            fn read_fields(fields: &mut $crate::Fields<'_>, reader: &mut $crate::Reader<'_>) -> Option<Self> {
                $( let $field: Option<$type> = $crate::settings!(@read fields reader $field $type $(= $default)?); )*
                Some(Self { $($field: $field?,)* })
            }

            fn properties() -> $crate::serde_json::Map<String, $crate::serde_json::Value> {
                let mut properties = $crate::serde_json::Map::new();
                $({
                    let schema = <$type as $crate::FromNode>::schema();
                    let schema = $crate::described(schema, &[$($field_doc.trim()),+].join(" "));
                    properties.insert(stringify!($field).trim_start_matches("r#").to_owned(), schema);
                })*
                properties
            }
        }
    )*};
    (@read $fields:ident $reader:ident $field:ident $type:ty) => {
        $fields.read(stringify!($field).trim_start_matches("r#"), $reader)
    };
    (@read $fields:ident $reader:ident $field:ident $type:ty = $default:expr) => {
        $fields.read_or(stringify!($field).trim_start_matches("r#"), $default, $reader)
    };
    (@required $type:ty) => { <$type as $crate::FromNode>::absent().is_none() };
    (@required $type:ty = $default:expr) => { false };
}

/// Declares an enum that is written as one of a fixed set of words.
#[macro_export]
macro_rules! choices {
    ($(
        $(#[doc = $doc:literal])+
        $vis:vis enum $name:ident {
            $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal ),+ $(,)?
        }
    )*) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[doc = $variant_doc])+ $variant, )+
        }

        impl $name {
            /// The words of all variants, in declaration order.
            $vis const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of the variant.
            #[must_use]
            $vis fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl $crate::FromNode for $name {
            fn from_node(node: &$crate::Node, reader: &mut $crate::Reader<'_>) -> Option<Self> {
                let (text, _) = reader.text(node)?;
                match text.as_str() {
                    $( $word => Some(Self::$variant), )+
                    _ => {
                        let help = match $crate::nearest(&text, Self::WORDS.iter().copied()) {
                            Some(meant) => format!("write `{meant}`"),
                            None => format!("write one of {}", Self::WORDS.join(", ")),
                        };
                        reader.error("choice", node.span, format!("`{text}` is not a valid value"), help);
                        None
                    }
                }
            }

            fn schema() -> $crate::serde_json::Value {
                $crate::or_placeholder(&$crate::serde_json::json!({ "enum": Self::WORDS }))
            }
        }
    )*};
}

#[cfg(test)]
mod tests;
