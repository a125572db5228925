//! The services of all route files, and the operations that steps refer to.

use std::sync::Arc;

use crossdock_message::ByteString;
use crossdock_settings::{Reader, Span, Spanned, nearest};

use crate::plan::CallPlan;
use crate::services::ServicePlan;

/// The services that were read, and the names of those that could not be.
#[derive(Debug, Default)]
pub(crate) struct ServiceCatalog {
    /// In the order of the files.
    pub(crate) plans: Vec<Arc<ServicePlan>>,
    /// Each name with its position in the files, also of services that could not be read.
    pub(crate) names: Vec<(ByteString, Span)>,
}

impl ServiceCatalog {
    /// Whether a service of that name was declared.
    pub(crate) fn is_declared(&self, name: &str) -> bool {
        self.names.iter().any(|(declared, _)| *declared == name)
    }

    /// Reports a reference to a service that was not declared. `otherwise` is the help if no name is similar.
    pub(crate) fn report_unknown(&self, name: &str, span: Span, otherwise: String, reader: &mut Reader<'_>) {
        let names = self.names.iter().map(|(declared, _)| &**declared);
        let help = nearest(name, names).map_or(otherwise, |meant| format!("write `{meant}`"));
        reader.error("unknown-service", span, format!("there is no service `{name}`"), help);
    }

    /// Finds `service.operation`, or `service` if the service has one operation.
    ///
    /// `method` is the operation that the name of a service alone refers to, in a route for one method of a whole service.
    pub(crate) fn operation(
        &self,
        reference: &Spanned<String>,
        method: Option<&str>,
        reader: &mut Reader<'_>,
    ) -> Option<CallPlan> {
        let (service_name, operation_name) = match reference.value.split_once('.') {
            Some((service, operation)) => (service, Some(operation)),
            None => (reference.value.as_str(), None),
        };
        let Some(index) = self.plans.iter().position(|service| service.name == service_name) else {
            // A service that could not be read was reported before.
            if !self.is_declared(service_name) {
                let otherwise = format!("add `{service_name}` below `services:`");
                self.report_unknown(service_name, reference.span, otherwise, reader);
            }
            return None;
        };
        let service = &self.plans[index];
        let operations = service.spec.operations();
        let found = match operation_name {
            Some(name) => operations.iter().find(|(other, _)| *other == name),
            None if operations.len() == 1 => operations.first(),
            None => operations.iter().find(|(other, _)| method.is_some_and(|method| *other == method)),
        };
        let Some((operation_name, operation)) = found.cloned() else {
            let names: Vec<String> = operations.iter().map(|(name, _)| format!("{service_name}.{name}")).collect();
            let (message, help) = match operation_name {
                None => (
                    format!("`{service_name}` has more than one operation"),
                    format!("write one of {}", names.join(", ")),
                ),
                Some(wrong) => {
                    let meant = nearest(&reference.value, names.iter().map(String::as_str));
                    let help = meant
                        .map_or_else(|| format!("it has {}", names.join(", ")), |meant| format!("write `{meant}`"));
                    (format!("`{service_name}` has no operation `{wrong}`"), help)
                }
            };
            reader.error("unknown-operation", reference.span, message, help);
            return None;
        };
        let idempotent = operation.is_idempotent() || service.idempotent.contains(&operation_name);
        let retried = service.retry.as_ref().is_some_and(|retry| retry.covers(&operation_name));
        Some(CallPlan { service: index, operation_name, operation, idempotent, retried })
    }
}
