//! Which types go where others are wanted, with what is found out on the way.

use std::sync::Arc;

use crate::types::{Signature, Type};

/// Types that are not known yet, and what was found out of them.
#[derive(Debug, Default)]
pub(super) struct Unifier {
    found: Vec<Option<Type>>,
    /// Those that were found, in order, so that it can be taken back.
    trail: Vec<u32>,
}

impl Unifier {
    /// A type of which nothing is known.
    pub(super) fn fresh(&mut self) -> Type {
        self.found.push(None);
        Type::Param(u32::try_from(self.found.len() - 1).unwrap_or(u32::MAX))
    }

    fn mark(&self) -> (usize, usize) {
        (self.found.len(), self.trail.len())
    }

    /// Forgets what was found since.
    fn take_back(&mut self, (found, trail): (usize, usize)) {
        for number in self.trail.drain(trail..) {
            if let Some(found) = self.found.get_mut(number as usize) {
                *found = None;
            }
        }
        self.found.truncate(found);
    }

    fn known(&self, of: &Type) -> Type {
        let mut of = of;
        while let Type::Param(number) = of {
            match self.found.get(*number as usize) {
                Some(Some(found)) => of = found,
                _ => break,
            }
        }
        of.clone()
    }

    /// The type with all that was found out; what is still open stays so.
    pub(super) fn settled(&self, of: &Type) -> Type {
        match self.known(of) {
            Type::List(inner) => Type::list(self.settled(&inner)),
            Type::Optional(inner) => Type::optional(self.settled(&inner)),
            Type::Type(inner) => Type::Type(Arc::new(self.settled(&inner))),
            Type::Map(parts) => Type::map(self.settled(&parts.0), self.settled(&parts.1)),
            other => other,
        }
    }

    /// The type with anything in the place of what is still open.
    pub(super) fn closed(&self, of: &Type) -> Type {
        match self.known(of) {
            Type::Param(_) => Type::Dyn,
            Type::List(inner) => Type::list(self.closed(&inner)),
            Type::Optional(inner) => Type::optional(self.closed(&inner)),
            Type::Type(inner) => Type::Type(Arc::new(self.closed(&inner))),
            Type::Map(parts) => Type::map(self.closed(&parts.0), self.closed(&parts.1)),
            other => other,
        }
    }

    fn set(&mut self, number: u32, of: &Type) -> bool {
        if self.holds(of, number) {
            return false;
        }
        if let Some(found) = self.found.get_mut(number as usize) {
            *found = Some(of.clone());
            self.trail.push(number);
        }
        true
    }

    fn holds(&self, of: &Type, number: u32) -> bool {
        match self.known(of) {
            Type::Param(other) => other == number,
            Type::List(inner) | Type::Optional(inner) | Type::Type(inner) | Type::Wrapper(inner) => {
                self.holds(&inner, number)
            }
            Type::Map(parts) => self.holds(&parts.0, number) || self.holds(&parts.1, number),
            _ => false,
        }
    }

    /// Whether a value of the one type goes where the other is wanted.
    pub(super) fn fits(&mut self, given: &Type, wanted: &Type) -> bool {
        match (self.known(given), self.known(wanted)) {
            (Type::Param(left), Type::Param(right)) if left == right => true,
            (Type::Param(number), other) | (other, Type::Param(number)) => self.set(number, &other),
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, wanted) => matches!(
                wanted,
                Type::Null
                    | Type::Wrapper(_)
                    | Type::Record(_)
                    | Type::Time
                    | Type::Duration
                    | Type::Optional(_)
                    | Type::Named(_)
            ),
            (Type::Wrapper(given), Type::Wrapper(wanted)) => self.fits(&given, &wanted),
            (Type::Wrapper(given), wanted) => self.fits(&given, &wanted),
            (given, Type::Wrapper(wanted)) => self.fits(&given, &wanted),
            // Values of enumerations are texts in messages.
            (Type::Enum(_), Type::Text) => true,
            (Type::Record(_), Type::Map(parts)) => {
                let (key, value) = parts.as_ref().clone();
                self.fits(&Type::Text, &key) && self.fits(&Type::Dyn, &value)
            }
            (Type::List(given), Type::List(wanted)) | (Type::Optional(given), Type::Optional(wanted)) => {
                self.fits(&given, &wanted)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Map(given), Type::Map(wanted)) => self.fits(&given.0, &wanted.0) && self.fits(&given.1, &wanted.1),
            (given, wanted) => given == wanted,
        }
    }

    /// Whether values of the two types may be equal: numbers of all kinds may.
    pub(super) fn alike(&mut self, left: &Type, right: &Type) -> bool {
        match (self.known(left), self.known(right)) {
            (left, right) if left.is_number() && right.is_number() => true,
            (Type::List(left), Type::List(right)) | (Type::Optional(left), Type::Optional(right)) => {
                self.alike(&left, &right)
            }
            (Type::Map(left), Type::Map(right)) => self.alike(&left.0, &right.0) && self.alike(&left.1, &right.1),
            // A value of an enumeration without a name is a number.
            (Type::Enum(_), Type::Int) | (Type::Int, Type::Enum(_)) => true,
            (left, right) => self.fits(&left, &right) || self.fits(&right, &left),
        }
    }

    /// The type of what is one or the other; nothing where they have nothing in common.
    pub(super) fn joined(&mut self, left: &Type, right: &Type) -> Option<Type> {
        let before = self.mark();
        let (left, right) = (self.settled(left), self.settled(right));
        if !self.fits(&left, &right) {
            self.take_back(before);
            if !self.fits(&right, &left) {
                self.take_back(before);
                return None;
            }
        }
        Some(wider(&self.settled(&left), &self.settled(&right)))
    }

    /// What a call gives, where its arguments fit the signature.
    pub(super) fn called(&mut self, signature: &Signature, arguments: &[Type]) -> Option<Type> {
        let least = signature.params.len();
        let most = if signature.is_variadic { usize::MAX } else { least };
        if arguments.len() < least || arguments.len() > most {
            return None;
        }
        let before = self.mark();
        let own = [self.fresh(), self.fresh()];
        for (at, argument) in arguments.iter().enumerate() {
            let param = signature.params.get(at).or(signature.params.last())?;
            let param = instance(param, &own);
            if !self.fits(argument, &param) {
                self.take_back(before);
                return None;
            }
        }
        Some(self.settled(&instance(&signature.result, &own)))
    }
}

/// A type of a signature with the parameters of one call.
fn instance(of: &Type, own: &[Type; 2]) -> Type {
    match of {
        Type::Param(number) => own.get(*number as usize).cloned().unwrap_or(Type::Dyn),
        Type::List(inner) => Type::list(instance(inner, own)),
        Type::Optional(inner) => Type::optional(instance(inner, own)),
        Type::Type(inner) => Type::Type(Arc::new(instance(inner, own))),
        Type::Map(parts) => Type::map(instance(&parts.0, own), instance(&parts.1, own)),
        other => other.clone(),
    }
}

/// The wider one of two types of which one goes where the other is wanted.
fn wider(left: &Type, right: &Type) -> Type {
    match (left, right) {
        (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
        // What may be null is the type that says so.
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
