//! Types: the types of CEL, decimals, and the records and enums of contracts.

use std::fmt;
use std::sync::Arc;

use crossdock_message::ByteString;

/// A record type of a contract.
pub trait RecordInfo: fmt::Debug + Send + Sync {
    /// Its full name.
    fn name(&self) -> &str;
    /// The type of a field; `None` if there is no such field.
    fn field(&self, name: &str) -> Option<Type>;
    /// The names of its fields.
    fn field_names(&self) -> Vec<String>;
}

/// An enum type of a contract. Messages hold its values as strings.
pub trait EnumInfo: fmt::Debug + Send + Sync {
    /// Its full name.
    fn name(&self) -> &str;
    /// The names of its values.
    fn value_names(&self) -> Vec<String>;
}

/// The static type of an expression.
#[derive(Debug, Clone)]
pub enum Type {
    /// Known only at run time.
    Dyn,
    /// `null`.
    Null,
    /// A boolean.
    Bool,
    /// A signed 64-bit integer.
    Int,
    /// An unsigned 64-bit integer.
    UInt,
    /// A double.
    Double,
    /// An exact decimal.
    Decimal,
    /// A string.
    Text,
    /// Bytes.
    Bytes,
    /// A timestamp.
    Time,
    /// A duration.
    Duration,
    /// A list with this element type.
    List(Arc<Type>),
    /// A map with these key and value types.
    Map(Arc<(Type, Type)>),
    /// A record of a contract.
    Record(Arc<dyn RecordInfo>),
    /// An enum of a contract.
    Enum(Arc<dyn EnumInfo>),
    /// An optional of this type.
    Optional(Arc<Type>),
    /// A type as a value.
    Type(Arc<Type>),
    /// A protobuf wrapper: this scalar type, or null.
    Wrapper(Arc<Type>),
    /// A type known only by name.
    Named(ByteString),
    /// A type parameter of a signature, or a type variable of the unifier.
    Param(u32),
}

/// The maximum nesting of a type; deeper types become `dyn`.
const DEPTH_MAX: usize = 24;

impl Type {
    /// A list type.
    #[must_use]
    pub fn list(element: Self) -> Self {
        if element.depth() < DEPTH_MAX { Self::List(Arc::new(element)) } else { Self::Dyn }
    }

    /// A map type.
    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        if key.depth().max(value.depth()) < DEPTH_MAX { Self::Map(Arc::new((key, value))) } else { Self::Dyn }
    }

    /// An optional type.
    #[must_use]
    pub fn optional(element: Self) -> Self {
        if element.depth() < DEPTH_MAX { Self::Optional(Arc::new(element)) } else { Self::Dyn }
    }

    /// The nesting of lists, maps and optionals.
    fn depth(&self) -> usize {
        match self {
            Self::List(ty) | Self::Optional(ty) | Self::Type(ty) | Self::Wrapper(ty) => 1 + ty.depth(),
            Self::Map(parts) => 1 + parts.0.depth().max(parts.1.depth()),
            _ => 0,
        }
    }

    /// Whether it is a numeric type, or a wrapper of one.
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

/// As shown in errors.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Param(_) => f.write_str("a value of unknown type"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("a boolean"),
            Self::Int => f.write_str("an integer"),
            Self::UInt => f.write_str("an unsigned integer"),
            Self::Double => f.write_str("a double"),
            Self::Decimal => f.write_str("a decimal"),
            Self::Text => f.write_str("a string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Time => f.write_str("a timestamp"),
            Self::Duration => f.write_str("a duration"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
            Self::Record(record) => write!(f, "`{}`", record.name()),
            Self::Enum(info) => write!(f, "a value of `{}`", info.name()),
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
    /// The name of a record type.
    #[must_use]
    pub fn named(name: ByteString) -> Self {
        Self(name)
    }

    /// The name as text.
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

/// The type that a name denotes in an expression.
pub(crate) fn type_of_name(name: &str) -> Option<(TypeName, Type)> {
    let (name, ty) = match name {
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
    Some((TypeName::from(name), ty))
}

/// An overload of a function.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    /// The first parameter is the receiver.
    pub(crate) is_method: bool,
    pub(crate) params: Vec<Type>,
    /// The last parameter may be repeated; at least one argument is required.
    pub(crate) is_variadic: bool,
    pub(crate) result: Type,
}

impl Signature {
    /// Parses `string.contains(string) -> bool` as a method and `(string) -> int` as a function.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (call, result) = text.rsplit_once("->")?;
        let call = call.trim();
        let is_method = !call.starts_with('(');
        let mut parser = SignatureParser { rest: call };
        let mut params = Vec::new();
        if is_method {
            params.push(parser.parse_type()?);
            parser.rest = &parser.rest[parser.rest.find('(')?..];
        }
        parser.take("(")?;
        let mut is_variadic = false;
        while parser.take(")").is_none() {
            params.push(parser.parse_type()?);
            is_variadic |= parser.take("...").is_some();
            let _ = parser.take(",");
        }
        let result = SignatureParser { rest: result }.parse_type()?;
        Some(Self { is_method, params, is_variadic, result })
    }
}

struct SignatureParser<'t> {
    rest: &'t str,
}

impl SignatureParser<'_> {
    fn take(&mut self, symbol: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(symbol)?;
        Some(())
    }

    fn parse_type(&mut self) -> Option<Type> {
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
                let key = self.parse_type()?;
                self.take(",")?;
                let value = self.parse_type()?;
                self.take(")")?;
                Type::map(key, value)
            }
            _ => return None,
        })
    }

    fn argument(&mut self) -> Option<Type> {
        self.take("(")?;
        let ty = self.parse_type()?;
        self.take(")")?;
        Some(ty)
    }
}
