//! The types of contracts, for the checker of expressions.

use std::sync::Arc;

use crossdock_contract::{Cardinality, Contract, EnumId, Field, Kind, RecordId, Scalar, Typed, WellKnownType};
use crossdock_expression::{EnumInfo, RecordInfo, Type};

/// The type of a body.
pub(super) fn type_of(typed: &Typed) -> Type {
    type_of_record(typed.type_ref().contract(), typed.type_ref().id())
}

#[derive(Debug)]
struct ContractRecord {
    contract: Arc<Contract>,
    id: RecordId,
}

#[derive(Debug)]
struct ContractEnum {
    contract: Arc<Contract>,
    id: EnumId,
}

impl RecordInfo for ContractRecord {
    fn name(&self) -> &str {
        &self.contract.record(self.id).name
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.contract.record(self.id).field(name).map(|field| of_field(&self.contract, field))
    }

    fn field_names(&self) -> Vec<String> {
        self.contract.record(self.id).field_names().map(str::to_owned).collect()
    }
}

impl EnumInfo for ContractEnum {
    fn name(&self) -> &str {
        &self.contract.enumeration(self.id).name
    }

    fn value_names(&self) -> Vec<String> {
        self.contract.enumeration(self.id).values.iter().map(|(name, _)| name.to_string()).collect()
    }
}

/// The type of a record of a contract in expressions.
#[must_use]
pub fn type_of_record(contract: &Arc<Contract>, id: RecordId) -> Type {
    let record = contract.record(id);
    let Some(well_known) = record.well_known else {
        return Type::Record(Arc::new(ContractRecord { contract: Arc::clone(contract), id }));
    };
    match well_known {
        WellKnownType::Time => Type::Time,
        WellKnownType::Duration => Type::Duration,
        WellKnownType::Wrapper => match record.fields.first().map(|field| field.kind) {
            Some(Kind::Scalar(scalar)) => Type::Wrapper(Arc::new(of_scalar(scalar))),
            _ => Type::Dyn,
        },
        _ => Type::Dyn,
    }
}

fn of_field(contract: &Arc<Contract>, field: &Field) -> Type {
    let ty = match field.kind {
        Kind::Scalar(scalar) => of_scalar(scalar),
        Kind::Enum(id) => Type::Enum(Arc::new(ContractEnum { contract: Arc::clone(contract), id })),
        Kind::Record(id) => type_of_record(contract, id),
    };
    match field.cardinality {
        Cardinality::Repeated => Type::list(ty),
        // Keys of every type are strings in messages.
        Cardinality::Map(_) => Type::map(Type::Text, ty),
        _ => ty,
    }
}

/// Integers of messages have one type, whether the contract declares them signed or not.
fn of_scalar(scalar: Scalar) -> Type {
    match scalar {
        Scalar::Bool => Type::Bool,
        Scalar::Text | Scalar::Lexical => Type::Text,
        Scalar::Bytes => Type::Bytes,
        Scalar::Float | Scalar::Double => Type::Double,
        Scalar::Decimal => Type::Decimal,
        _ => Type::Int,
    }
}
