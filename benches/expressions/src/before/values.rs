//! Converts canonical values to CEL values and back.
//!
//! CEL's map is unordered and its numbers have 64 bits, so records, lists and decimals have their own types.

use std::any::Any;
use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use cel::ExecutionError;
use cel::common::traits::{self, Comparer, Container, Indexer, Iterable, Sizer};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, LIST_TYPE, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use crossdock_message::{ByteString, Decimal, Record, Value};

use super::work::Work;

/// A canonical value as a CEL value.
#[derive(Debug, Clone)]
pub(super) enum CelValue {
    Null(CelNull),
    Bool(CelBool),
    Int(CelInt),
    UInt(CelUInt),
    Decimal(CelDecimal),
    Double(CelDouble),
    Text(CelString<'static>),
    Bytes(CelBytes<'static>),
    List(CelItems),
    Record(CelRecord),
}

/// A list in order.
#[derive(Debug, Clone)]
pub(super) struct CelItems(Arc<Vec<CelValue>>);

/// Fields in order.
#[derive(Debug, Clone)]
pub(super) struct CelRecord(Arc<Vec<(CelString<'static>, CelValue)>>);

/// Bytes that are copied or searched per unit of work.
const COPIED_PER_UNIT: usize = 256;

/// A decimal with all its digits.
#[derive(Debug, Clone)]
pub(super) struct CelDecimal(pub(super) Decimal);

static LIST: Type = LIST_TYPE;
static MAP: Type = MAP_TYPE;
static DECIMAL: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("decimal"));

fn text(text: &str) -> CelString<'static> {
    CelString::from(text.to_owned())
}

impl CelValue {
    /// Converts the whole value. Once the budget is exhausted, the rest is null; the caller must check for that.
    pub(super) fn from_value(value: &Value) -> Self {
        // Text and bytes are copied.
        let copied = match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        if !Work::spend(1 + copied / COPIED_PER_UNIT) {
            return Self::Null(CelNull);
        }
        match value {
            Value::Null => Self::Null(CelNull),
            Value::Bool(truth) => Self::Bool(CelBool::from(*truth)),
            Value::Int(number) => Self::Int(CelInt::from(*number)),
            Value::UInt(number) => Self::UInt(CelUInt::from(*number)),
            Value::Decimal(number) => Self::Decimal(CelDecimal(number.clone())),
            // The double with the shortest decimal text of the single.
            Value::F32(_) => {
                let double = value.scalar_text().and_then(|text| text.parse().ok());
                Self::Double(CelDouble::from(double.unwrap_or(f64::NAN)))
            }
            Value::F64(number) => Self::Double(CelDouble::from(*number)),
            Value::Text(content) => Self::Text(text(content)),
            Value::Time(_) | Value::Duration(_) => Self::Text(text(&value.scalar_text().unwrap_or_default())),
            Value::Bytes(bytes) => Self::Bytes(CelBytes::from(bytes.to_vec())),
            Value::List(items) => Self::List(CelItems(Arc::new(items.iter().map(Self::from_value).collect()))),
            Value::Record(record) => {
                Self::record(record.iter_with_defaults().map(|(name, field)| (name, Self::from_value(field))))
            }
        }
    }

    pub(super) fn record<'n>(fields: impl Iterator<Item = (&'n ByteString, Self)>) -> Self {
        Self::Record(CelRecord(Arc::new(fields.map(|(name, field)| (text(name), field)).collect())))
    }

    pub(super) fn as_val(&self) -> &(dyn Val + 'static) {
        match self {
            Self::Null(value) => value,
            Self::Bool(value) => value,
            Self::Int(value) => value,
            Self::UInt(value) => value,
            Self::Decimal(value) => value,
            Self::Double(value) => value,
            Self::Text(value) => value,
            Self::Bytes(value) => value,
            Self::List(value) => value,
            Self::Record(value) => value,
        }
    }
}

/// Converts the result of an expression. The error is the kind of a value that has no canonical form.
pub(crate) fn to_value(value: &dyn Val) -> Result<Value, String> {
    if let Some(truth) = value.downcast_ref::<CelBool>() {
        return Ok(Value::Bool(*truth.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelInt>() {
        return Ok(Value::Int(*number.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelUInt>() {
        return Ok(Value::from(*number.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelDouble>() {
        return Ok(Value::F64(*number.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelDecimal>() {
        return Ok(Value::Decimal(number.0.clone()));
    }
    if let Some(content) = value.downcast_ref::<CelString<'_>>() {
        return Ok(Value::Text(content.inner().into()));
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        return Ok(Value::Bytes(bytes.inner().to_vec().into()));
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Value::Null);
    }
    if let Some(items) = value.downcast_ref::<CelItems>() {
        return items.0.iter().map(|item| to_value(item.as_val())).collect::<Result<_, _>>().map(Value::List);
    }
    if let Some(items) = value.downcast_ref::<CelList<'_>>() {
        return items.inner().iter().map(|item| to_value(&**item)).collect::<Result<_, _>>().map(Value::List);
    }
    if let Some(record) = value.downcast_ref::<CelRecord>() {
        let fields =
            record.0.iter().map(|(name, field)| Ok((ByteString::from(name.inner()), to_value(field.as_val())?)));
        return fields.collect::<Result<Record, String>>().map(Value::Record);
    }
    Err(value.get_type().name().to_owned())
}

impl CelRecord {
    pub(super) fn find(&self, name: &str) -> Option<&CelValue> {
        self.0.iter().find(|(key, _)| key.inner() == name).map(|(_, value)| value)
    }
}

fn wrong_type(value: &dyn Val, want: &str) -> ExecutionError {
    ExecutionError::UnexpectedType { got: value.get_type().name().into(), want: want.into() }
}

/// CEL's iterators return the list's items.
struct Borrowing<I>(I);

impl<'b, 'v, I: Iterator<Item = &'b (dyn Val + 'static)>> traits::Iterator<'b, 'v> for Borrowing<I> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|item| item as &(dyn Val + 'v))
    }
}

impl StaticVal for CelRecord {}
impl StaticVal for CelItems {}
impl StaticVal for CelDecimal {}

/// The traits of lists and records, and how they are cloned.
macro_rules! collection {
    () => {
        fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
        where
            Self: 'v,
        {
            Some(self)
        }

        fn as_container(&self) -> Option<&dyn Container> {
            Some(self)
        }

        fn as_sizer(&self) -> Option<&dyn Sizer> {
            Some(self)
        }

        fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
        where
            Self: 'v,
        {
            Some(self)
        }

        fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
        where
            Self: 'v,
        {
            Box::new(self.clone())
        }

        fn as_any(&self) -> Option<&dyn Any> {
            Some(self)
        }
    };
}

impl Val for CelRecord {
    fn get_type(&self) -> &Type {
        &MAP
    }

    fn cel_type() -> &'static Type {
        &MAP
    }

    collection!();

    fn equals(&self, other: &dyn Val) -> bool {
        let same = |other: &Self| {
            self.0.len() == other.0.len()
                && self.0.iter().all(|(name, value)| {
                    other.find(name.inner()).is_some_and(|field| equal(value.as_val(), field.as_val()))
                })
        };
        other.downcast_ref::<Self>().is_some_and(same)
    }
}

impl Indexer for CelRecord {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = index.downcast_ref::<CelString<'_>>().ok_or_else(|| wrong_type(index, "string"))?;
        match self.find(name.inner()) {
            Some(value) => Ok(CowVal::Borrowed(value.as_val())),
            None => Err(ExecutionError::no_such_key(name.inner())),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Container for CelRecord {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(key.downcast_ref::<CelString<'_>>().is_some_and(|key| self.find(key.inner()).is_some()))
    }
}

impl Sizer for CelRecord {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.0.len()).unwrap_or(i64::MAX))
    }
}

impl Iterable for CelRecord {
    fn iter<'b, 'v>(&'b self) -> Box<dyn traits::Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Borrowing(self.0.iter().map(|(name, _)| name as &dyn Val)))
    }
}

impl Val for CelItems {
    fn get_type(&self) -> &Type {
        &LIST
    }

    fn cel_type() -> &'static Type {
        &LIST
    }

    collection!();

    fn equals(&self, other: &dyn Val) -> bool {
        items_of(other).is_some_and(|others| {
            self.0.len() == others.len() && self.0.iter().zip(others).all(|(item, other)| equal(item.as_val(), other))
        })
    }
}

impl Indexer for CelItems {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let number = index.downcast_ref::<CelInt>().ok_or_else(|| wrong_type(index, "int"))?;
        let item = usize::try_from(*number.inner()).ok().and_then(|index| self.0.get(index));
        match item {
            Some(item) => Ok(CowVal::Borrowed(item.as_val())),
            None => Err(ExecutionError::IndexOutOfBounds((*number.inner()).into())),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Container for CelItems {
    fn contains(&self, wanted: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.0.iter().any(|item| equal(item.as_val(), wanted)))
    }
}

impl Sizer for CelItems {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.0.len()).unwrap_or(i64::MAX))
    }
}

impl Iterable for CelItems {
    fn iter<'b, 'v>(&'b self) -> Box<dyn traits::Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Borrowing(self.0.iter().map(CelValue::as_val)))
    }
}

/// The items of a list of either kind.
fn items_of(list: &dyn Val) -> Option<Vec<&dyn Val>> {
    if let Some(items) = list.downcast_ref::<CelItems>() {
        return Some(items.0.iter().map(|item| item.as_val() as &dyn Val).collect());
    }
    let items = list.downcast_ref::<CelList<'_>>()?;
    Some(items.inner().iter().map(|item| &**item as &dyn Val).collect())
}

/// Whether two values are equal. The relation is symmetric; numbers compare exactly, lists and records by their contents.
pub(super) fn equal(left: &dyn Val, right: &dyn Val) -> bool {
    if !Work::spend(1) {
        return false;
    }
    if let (Some(left), Some(right)) = (left.downcast_ref::<CelString<'_>>(), right.downcast_ref::<CelString<'_>>()) {
        return left.inner() == right.inner();
    }
    if let (Some(left), Some(right)) = (left.downcast_ref::<CelInt>(), right.downcast_ref::<CelInt>()) {
        return left.inner() == right.inner();
    }
    if let (Some(left), Some(right)) = (CelDecimal::of_number(left), CelDecimal::of_number(right)) {
        return left.compare(&right) == Ordering::Equal;
    }
    if let (Some(left), Some(right)) = (items_of(left), items_of(right)) {
        return left.len() == right.len() && left.into_iter().zip(right).all(|(left, right)| equal(left, right));
    }
    left.equals(right)
}

/// The order of two values; `None` if they are not comparable.
pub(super) fn order(left: &dyn Val, right: &dyn Val) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (left.downcast_ref::<CelInt>(), right.downcast_ref::<CelInt>()) {
        return Some(left.inner().cmp(right.inner()));
    }
    if let (Some(left), Some(right)) = (CelDecimal::of_number(left), CelDecimal::of_number(right)) {
        return Some(left.compare(&right));
    }
    left.as_comparer()?.compare(right).ok()
}

/// Whether a list contains a value, or a record a field of that name; `None` for other kinds.
pub(super) fn contains(container: &dyn Val, wanted: &dyn Val) -> Option<bool> {
    if let Some(items) = items_of(container) {
        return Some(items.into_iter().any(|item| equal(item, wanted)));
    }
    container.as_container()?.contains(wanted).ok()
}

impl CelDecimal {
    /// A CEL number as an exact decimal.
    pub(super) fn of_number(value: &dyn Val) -> Option<Decimal> {
        if let Some(decimal) = value.downcast_ref::<Self>() {
            return Some(decimal.0.clone());
        }
        if let Some(number) = value.downcast_ref::<CelInt>() {
            return Some(Decimal::from(*number.inner()));
        }
        if let Some(number) = value.downcast_ref::<CelUInt>() {
            return Some(Decimal::from(*number.inner()));
        }
        let double = *value.downcast_ref::<CelDouble>()?.inner();
        Decimal::new(Value::F64(double).scalar_text()?).ok()
    }
}

impl Val for CelDecimal {
    fn get_type(&self) -> &Type {
        &DECIMAL
    }

    fn cel_type() -> &'static Type {
        &DECIMAL
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        Self::of_number(other).is_some_and(|other| self.0.compare(&other) == Ordering::Equal)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl Comparer for CelDecimal {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        Self::of_number(other).map(|other| self.0.compare(&other)).ok_or_else(|| wrong_type(other, "a number"))
    }
}
