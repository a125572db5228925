//! Assignability and unification of types.

use std::sync::Arc;

use crate::types::{Signature, Type};

/// The substitution of type variables.
#[derive(Debug, Default)]
pub(super) struct Unifier {
    bindings: Vec<Option<Type>>,
    /// Bound variables in order, for rolling back.
    trail: Vec<u32>,
    /// Set if a value of unknown type is assigned to a known type.
    is_guessed: bool,
}

/// A call that matches a signature.
pub(super) struct Match {
    pub(super) result: Type,
    /// Whether the types of the arguments are known well enough to exclude the signatures that follow.
    pub(super) is_certain: bool,
}

impl Unifier {
    /// A new type variable.
    pub(super) fn fresh(&mut self) -> Type {
        self.bindings.push(None);
        Type::Param(u32::try_from(self.bindings.len() - 1).unwrap_or(u32::MAX))
    }

    fn mark(&self) -> (usize, usize) {
        (self.bindings.len(), self.trail.len())
    }

    /// Undoes all bindings since the mark.
    fn roll_back(&mut self, (bindings, trail): (usize, usize)) {
        for number in self.trail.drain(trail..) {
            if let Some(binding) = self.bindings.get_mut(number as usize) {
                *binding = None;
            }
        }
        self.bindings.truncate(bindings);
    }

    fn substituted(&self, ty: &Type) -> Type {
        let mut ty = ty;
        while let Type::Param(number) = ty {
            match self.bindings.get(*number as usize) {
                Some(Some(bound)) => ty = bound,
                _ => break,
            }
        }
        ty.clone()
    }

    /// Substitutes all bound variables; unbound ones remain.
    pub(super) fn resolved(&self, ty: &Type) -> Type {
        match self.substituted(ty) {
            Type::List(inner) => Type::list(self.resolved(&inner)),
            Type::Optional(inner) => Type::optional(self.resolved(&inner)),
            Type::Type(inner) => Type::Type(Arc::new(self.resolved(&inner))),
            Type::Map(parts) => Type::map(self.resolved(&parts.0), self.resolved(&parts.1)),
            other => other,
        }
    }

    /// Substitutes all variables; unbound ones become `dyn`.
    pub(super) fn resolved_or_dyn(&self, ty: &Type) -> Type {
        match self.substituted(ty) {
            Type::Param(_) => Type::Dyn,
            Type::List(inner) => Type::list(self.resolved_or_dyn(&inner)),
            Type::Optional(inner) => Type::optional(self.resolved_or_dyn(&inner)),
            Type::Type(inner) => Type::Type(Arc::new(self.resolved_or_dyn(&inner))),
            Type::Map(parts) => Type::map(self.resolved_or_dyn(&parts.0), self.resolved_or_dyn(&parts.1)),
            other => other,
        }
    }

    fn bind(&mut self, number: u32, ty: &Type) -> bool {
        if self.occurs_in(ty, number) {
            return false;
        }
        if let Some(binding) = self.bindings.get_mut(number as usize) {
            *binding = Some(ty.clone());
            self.trail.push(number);
        }
        true
    }

    fn occurs_in(&self, ty: &Type, number: u32) -> bool {
        match self.substituted(ty) {
            Type::Param(other) => other == number,
            Type::List(inner) | Type::Optional(inner) | Type::Type(inner) | Type::Wrapper(inner) => {
                self.occurs_in(&inner, number)
            }
            Type::Map(parts) => self.occurs_in(&parts.0, number) || self.occurs_in(&parts.1, number),
            _ => false,
        }
    }

    /// Whether a value of type `actual` is accepted where `expected` is required.
    pub(super) fn is_assignable(&mut self, actual: &Type, expected: &Type) -> bool {
        match (self.substituted(actual), self.substituted(expected)) {
            (Type::Param(left), Type::Param(right)) if left == right => true,
            (Type::Param(number), other) | (other, Type::Param(number)) => self.bind(number, &other),
            (_, Type::Dyn) => true,
            (Type::Dyn, _) => {
                self.is_guessed = true;
                true
            }
            (Type::Null, expected) => matches!(
                expected,
                Type::Null
                    | Type::Wrapper(_)
                    | Type::Record(_)
                    | Type::Time
                    | Type::Duration
                    | Type::Optional(_)
                    | Type::Named(_)
            ),
            (Type::Wrapper(actual), Type::Wrapper(expected)) => self.is_assignable(&actual, &expected),
            (Type::Wrapper(actual), expected) => self.is_assignable(&actual, &expected),
            (actual, Type::Wrapper(expected)) => self.is_assignable(&actual, &expected),
            // Messages hold enum values as strings.
            (Type::Enum(_), Type::Text) => true,
            (Type::Record(_), Type::Map(parts)) => {
                let (key, value) = parts.as_ref().clone();
                self.is_assignable(&Type::Text, &key) && self.is_assignable(&Type::Dyn, &value)
            }
            (Type::List(actual), Type::List(expected)) | (Type::Optional(actual), Type::Optional(expected)) => {
                self.is_assignable(&actual, &expected)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Map(actual), Type::Map(expected)) => {
                self.is_assignable(&actual.0, &expected.0) && self.is_assignable(&actual.1, &expected.1)
            }
            (actual, expected) => actual == expected,
        }
    }

    /// Whether values of the two types may be equal.
    pub(super) fn is_comparable(&mut self, left: &Type, right: &Type) -> bool {
        match (self.substituted(left), self.substituted(right)) {
            (left, right) if left.is_number() && right.is_number() => true,
            (Type::List(left), Type::List(right)) | (Type::Optional(left), Type::Optional(right)) => {
                self.is_comparable(&left, &right)
            }
            (Type::Map(left), Type::Map(right)) => {
                self.is_comparable(&left.0, &right.0) && self.is_comparable(&left.1, &right.1)
            }
            // An unknown enum value is a number.
            (Type::Enum(_), Type::Int) | (Type::Int, Type::Enum(_)) => true,
            (left, right) => self.is_assignable(&left, &right) || self.is_assignable(&right, &left),
        }
    }

    /// The common type of two types; `None` if there is none.
    pub(super) fn join(&mut self, left: &Type, right: &Type) -> Option<Type> {
        let before = self.mark();
        let (left, right) = (self.resolved(left), self.resolved(right));
        if !self.is_assignable(&left, &right) {
            self.roll_back(before);
            if !self.is_assignable(&right, &left) {
                self.roll_back(before);
                return None;
            }
        }
        Some(wider(&self.resolved(&left), &self.resolved(&right)))
    }

    /// The result of a call, if its arguments match the signature.
    ///
    /// Each argument binds the type parameters on its own. A parameter is the common type of all arguments: with an `int` and a value of
    /// unknown type, the result is of unknown type.
    pub(super) fn call_result(&mut self, signature: &Signature, arguments: &[Type]) -> Option<Match> {
        let least = signature.params.len();
        let most = if signature.is_variadic { usize::MAX } else { least };
        if arguments.len() < least || arguments.len() > most {
            return None;
        }
        let before = self.mark();
        let mut is_certain = true;
        let mut variables = [self.fresh(), self.fresh()];
        for (at, argument) in arguments.iter().enumerate() {
            let param = signature.params.get(at).or(signature.params.last())?;
            let own = [self.fresh(), self.fresh()];
            self.is_guessed = false;
            let is_match = self.is_assignable(argument, &instantiate(param, &own));
            is_certain &= !self.is_guessed;
            let joined = [self.join(&variables[0], &own[0]), self.join(&variables[1], &own[1])];
            let (true, [Some(first), Some(second)]) = (is_match, joined) else {
                self.roll_back(before);
                return None;
            };
            variables = [first, second];
        }
        Some(Match { result: self.resolved(&instantiate(&signature.result, &variables)), is_certain })
    }
}

/// Substitutes the type parameters of a signature.
fn instantiate(ty: &Type, variables: &[Type; 2]) -> Type {
    match ty {
        Type::Param(number) => variables.get(*number as usize).cloned().unwrap_or(Type::Dyn),
        Type::List(inner) => Type::list(instantiate(inner, variables)),
        Type::Optional(inner) => Type::optional(instantiate(inner, variables)),
        Type::Type(inner) => Type::Type(Arc::new(instantiate(inner, variables))),
        Type::Map(parts) => Type::map(instantiate(&parts.0, variables), instantiate(&parts.1, variables)),
        other => other.clone(),
    }
}

/// The wider of two types, one of which is assignable to the other.
fn wider(left: &Type, right: &Type) -> Type {
    match (left, right) {
        (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
        // Prefer the type that allows null.
        (Type::Null, other) | (other, Type::Null) => other.clone(),
        (wrapper @ Type::Wrapper(_), _) | (_, wrapper @ Type::Wrapper(_)) => wrapper.clone(),
        (Type::List(left), Type::List(right)) => Type::list(wider(left, right)),
        (Type::Optional(left), Type::Optional(right)) => Type::optional(wider(left, right)),
        (Type::Map(left), Type::Map(right)) => Type::map(wider(&left.0, &right.0), wider(&left.1, &right.1)),
        (Type::Record(_), map @ Type::Map(_)) => map.clone(),
        (Type::Enum(_), Type::Text) => Type::Text,
        (other, _) => other.clone(),
    }
}
