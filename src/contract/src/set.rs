//! The contracts of a process, by name.

use std::sync::Arc;

use crossdock_message::{ByteString, Limits};

use crate::model::Contract;
use crate::type_ref::{TypeRef, UnknownFields};
use crate::typed::{CallType, Typed};

/// The contracts of a process.
#[derive(Debug, Default)]
pub struct Contracts {
    list: Vec<(ByteString, Arc<Contract>)>,
    limits: Arc<Limits>,
}

impl Contracts {
    /// An empty set. Bodies are read within these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { list: Vec::new(), limits: Arc::new(limits.clone()) }
    }

    /// The limits on reading bodies.
    #[must_use]
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Adds a contract.
    pub fn add(&mut self, name: ByteString, contract: Arc<Contract>) {
        self.list.push((name, contract));
    }

    /// All contracts with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &Arc<Contract>)> {
        self.list.iter().map(|(name, contract)| (name, contract))
    }

    /// Whether there are no contracts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Finds a call by `pkg.Service/Method` or `contract:pkg.Service/Method`. If no contract is named, the first that declares the method is
    /// used.
    #[must_use]
    pub fn call(&self, path: &str) -> Option<CallType> {
        let (wanted, path) = split_contract(path);
        let eligible = self.list.iter().filter(|(name, _)| wanted.is_none_or(|wanted| *name == wanted));
        eligible.into_iter().find_map(|(contract_name, contract)| {
            let (service, method) = contract.method(path)?;
            let typed = |id, unknown| {
                let type_ref = TypeRef::new(Arc::clone(contract), id);
                Arc::new(Typed::new(type_ref, unknown, Arc::clone(&self.limits)))
            };
            Some(CallType {
                contract: contract_name.clone(),
                name: format!("{}/{}", service.name, method.name).into(),
                request: typed(method.input, UnknownFields::Refuse),
                // Services may be newer than the contract.
                reply: typed(method.output, UnknownFields::Ignore),
                client_streaming: method.client_streaming,
                server_streaming: method.server_streaming,
                idempotent: method.idempotent,
                http: method.http.clone(),
            })
        })
    }

    /// The calls of a service, found by `pkg.Service` or `contract:pkg.Service`, in the order of its contract.
    #[must_use]
    pub fn calls_of(&self, service: &str) -> Option<Vec<CallType>> {
        let (wanted, service) = split_contract(service);
        let mut eligible = self.list.iter().filter(|(name, _)| wanted.is_none_or(|wanted| *name == wanted));
        let (name, service) = eligible.find_map(|(name, contract)| Some((name, contract.service(service)?)))?;
        let names = service.methods.iter().map(|method| format!("{name}:{}/{}", service.name, method.name));
        Some(names.filter_map(|name| self.call(&name)).collect())
    }

    /// The full names of all services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.list.iter().flat_map(|(_, contract)| contract.services()).map(|service| &*service.name)
    }

    /// `pkg.Service/Method` of all methods.
    #[must_use]
    pub fn methods(&self) -> Vec<String> {
        let services = self.list.iter().flat_map(|(_, contract)| contract.services());
        services
            .flat_map(|service| service.methods.iter().map(|method| format!("{}/{}", service.name, method.name)))
            .collect()
    }
}

/// Splits `contract:name`.
fn split_contract(path: &str) -> (Option<&str>, &str) {
    match path.split_once(':') {
        Some((contract, path)) => (Some(contract), path),
        None => (None, path),
    }
}
