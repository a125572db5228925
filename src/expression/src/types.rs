//! Types: those of CEL, decimals, and the records and enumerations of contracts.

use std::fmt;
use std::sync::Arc;

use crossdock_message::ByteString;

/// A record of a contract, as the checker sees it.
pub trait RecordInfo: fmt::Debug + Send + Sync {
    /// Its full name.
    fn name(&self) -> &str;
    /// The type of a field; nothing where it has no such field.
    fn field(&self, name: &str) -> Option<Type>;
    /// The names of its fields.
    fn field_names(&self) -> Vec<String>;
}

/// An enumeration of a contract. Its values are texts in messages.
pub trait EnumInfo: fmt::Debug + Send + Sync {
    /// Its full name.
    fn name(&self) -> &str;
    /// The names of its values.
    fn value_names(&self) -> Vec<String>;
}

/// What kind of value an expression gives.
#[derive(Debug, Clone)]
pub enum Type {
    /// Only the data says it.
    Dyn,
    /// `null`.
    Null,
    /// True or false.
    Bool,
    /// 64 signed bits.
    Int,
    /// 64 unsigned bits.
    UInt,
    /// A double.
    Double,
    /// An exact decimal.
    Decimal,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A moment.
    Time,
    /// A length of time.
    Duration,
    /// A list of such elements.
    List(Arc<Type>),
    /// A map from such keys to such values.
    Map(Arc<(Type, Type)>),
    /// A record of a contract.
    Record(Arc<dyn RecordInfo>),
    /// An enumeration of a contract.
    Enum(Arc<dyn EnumInfo>),
    /// An optional of such a value.
    Optional(Arc<Type>),
    /// A type as a value.
    Type(Arc<Type>),
    /// Such a scalar, or null.
    Wrapper(Arc<Type>),
    /// Anything that has that name, and no more is known of it.
    Named(ByteString),
    /// In a signature: the same wherever it stands. While an expression is checked: not known yet.
    Param(u32),
}

/// Levels of a type; below them, anything may stand.
const DEPTH_MAX: usize = 24;

impl Type {
    /// A list.
    #[must_use]
    pub fn list(of: Self) -> Self {
        if of.depth() < DEPTH_MAX { Self::List(Arc::new(of)) } else { Self::Dyn }
    }

    /// A map.
    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        if key.depth().max(value.depth()) < DEPTH_MAX { Self::Map(Arc::new((key, value))) } else { Self::Dyn }
    }

    /// An optional.
    #[must_use]
    pub fn optional(of: Self) -> Self {
        if of.depth() < DEPTH_MAX { Self::Optional(Arc::new(of)) } else { Self::Dyn }
    }

    /// Levels of lists, maps and optionals.
    fn depth(&self) -> usize {
        match self {
            Self::List(of) | Self::Optional(of) | Self::Type(of) | Self::Wrapper(of) => 1 + of.depth(),
            Self::Map(parts) => 1 + parts.0.depth().max(parts.1.depth()),
            _ => 0,
        }
    }

    /// Whether arithmetic works on it.
    #[must_use]
    pub fn is_number(&self) -> bool {
        match self {
            Self::Int | Self::UInt | Self::Double | Self::Decimal => true,
            Self::Wrapper(inner) => inner.is_number(),
            _ => false,
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(left), Self::List(right))
            | (Self::Optional(left), Self::Optional(right))
            | (Self::Type(left), Self::Type(right))
            | (Self::Wrapper(left), Self::Wrapper(right)) => left == right,
            (Self::Map(left), Self::Map(right)) => left == right,
            (Self::Record(left), Self::Record(right)) => left.name() == right.name(),
            (Self::Enum(left), Self::Enum(right)) => left.name() == right.name(),
            (Self::Named(left), Self::Named(right)) => left == right,
            (Self::Param(left), Self::Param(right)) => left == right,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// As errors name it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Param(_) => f.write_str("a value of any kind"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("true or false"),
            Self::Int => f.write_str("a whole number"),
            Self::UInt => f.write_str("an unsigned number"),
            Self::Double => f.write_str("a double"),
            Self::Decimal => f.write_str("a decimal"),
            Self::Text => f.write_str("a text"),
            Self::Bytes => f.write_str("bytes"),
            Self::Time => f.write_str("a moment"),
            Self::Duration => f.write_str("a length of time"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
            Self::Record(record) => write!(f, "`{}`", record.name()),
            Self::Enum(of) => write!(f, "a value of `{}`", of.name()),
            Self::Optional(_) => f.write_str("an optional"),
            Self::Type(_) => f.write_str("a type"),
            Self::Wrapper(inner) => write!(f, "{inner} or null"),
            Self::Named(name) => write!(f, "`{name}`"),
        }
    }
}

/// The name of a type as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName(ByteString);

impl TypeName {
    /// Of a record.
    #[must_use]
    pub fn named(name: ByteString) -> Self {
        Self(name)
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for TypeName {
    fn from(name: &'static str) -> Self {
        Self(ByteString::from_static(name))
    }
}

/// Names that stand for types in expressions.
pub(crate) fn type_of_name(name: &str) -> Option<(TypeName, Type)> {
    let (name, of) = match name {
        "bool" => ("bool", Type::Bool),
        "int" => ("int", Type::Int),
        "uint" => ("uint", Type::UInt),
        "double" => ("double", Type::Double),
        "decimal" => ("decimal", Type::Decimal),
        "string" => ("string", Type::Text),
        "bytes" => ("bytes", Type::Bytes),
        "list" => ("list", Type::list(Type::Dyn)),
        "map" => ("map", Type::map(Type::Dyn, Type::Dyn)),
        "null_type" => ("null_type", Type::Null),
        "type" => ("type", Type::Type(Arc::new(Type::Dyn))),
        "optional_type" => ("optional_type", Type::optional(Type::Dyn)),
        "google.protobuf.Timestamp" => ("google.protobuf.Timestamp", Type::Time),
        "google.protobuf.Duration" => ("google.protobuf.Duration", Type::Duration),
        _ => return None,
    };
    Some((TypeName::from(name), of))
}

/// One way to call a function.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    /// It is called on its first parameter.
    pub(crate) is_method: bool,
    pub(crate) params: Vec<Type>,
    /// The last parameter may come any number of times, once at the least.
    pub(crate) is_variadic: bool,
    pub(crate) result: Type,
}

impl Signature {
    /// Reads `string.contains(string) -> bool` as a method, and `(string) -> int` as a function.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (call, result) = text.rsplit_once("->")?;
        let call = call.trim();
        let is_method = !call.starts_with('(');
        let mut reader = Reader { rest: call };
        let mut params = Vec::new();
        if is_method {
            params.push(reader.read_type()?);
            reader.rest = &reader.rest[reader.rest.find('(')?..];
        }
        reader.take("(")?;
        let mut is_variadic = false;
        while reader.take(")").is_none() {
            params.push(reader.read_type()?);
            is_variadic |= reader.take("...").is_some();
            let _ = reader.take(",");
        }
        let result = Reader { rest: result }.read_type()?;
        Some(Self { is_method, params, is_variadic, result })
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn take(&mut self, symbol: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(symbol)?;
        Some(())
    }

    fn read_type(&mut self) -> Option<Type> {
        let rest = self.rest.trim_start();
        let len = rest.find(|next: char| !next.is_ascii_alphanumeric()).unwrap_or(rest.len());
        self.rest = &rest[len..];
        Some(match &rest[..len] {
            "dyn" => Type::Dyn,
            "null" => Type::Null,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::UInt,
            "double" => Type::Double,
            "decimal" => Type::Decimal,
            "string" => Type::Text,
            "bytes" => Type::Bytes,
            "timestamp" => Type::Time,
            "duration" => Type::Duration,
            "A" => Type::Param(0),
            "B" => Type::Param(1),
            "list" => Type::list(self.argument()?),
            "optional" => Type::optional(self.argument()?),
            "type" => Type::Type(Arc::new(self.argument()?)),
            "map" => {
                self.take("(")?;
                let key = self.read_type()?;
                self.take(",")?;
                let value = self.read_type()?;
                self.take(")")?;
                Type::map(key, value)
            }
            _ => return None,
        })
    }

    fn argument(&mut self) -> Option<Type> {
        self.take("(")?;
        let read = self.read_type()?;
        self.take(")")?;
        Some(read)
    }
}
