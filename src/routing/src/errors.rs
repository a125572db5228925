//! `errors`: how a route answers faults.

use crossdock_message::{ByteString, Code, Fault, Origin};
use crossdock_settings::{OneOrMany, Reader, Spanned, settings};

use crate::catalog::ServiceCatalog;
use crate::expression::Template;
use crate::scalars::CodeName;
use crate::steps::{TemplateNode, template_of_request};

settings! {
    /// an error rule
    pub(crate) struct ErrorRuleSettings {
        /// The codes that it applies to; all by default.
        pub(crate) on: Option<OneOrMany<CodeName>>,
        /// The services whose faults it applies to; all faults by default.
        pub(crate) from: Option<OneOrMany<Spanned<String>>>,
        /// What the caller gets.
        pub(crate) answer: ErrorAnswerSettings,
    }

    /// the answer to an error
    pub(crate) struct ErrorAnswerSettings {
        /// The code; that of the fault by default.
        pub(crate) code: Option<CodeName>,
        /// The message, with expressions over the request in `${…}`; that of the fault by default.
        pub(crate) message: Option<TemplateNode>,
    }
}

/// How faults are answered.
#[derive(Debug)]
pub struct ErrorRule {
    /// The codes that it applies to; all if empty.
    pub on: Vec<Code>,
    /// The services whose faults it applies to; all faults if empty.
    pub services: Vec<ByteString>,
    /// The code of the answer; that of the fault if absent.
    pub code: Option<Code>,
    /// The message of the answer; that of the fault if absent.
    pub message: Option<Template>,
}

impl ErrorRule {
    /// Whether it applies to a fault.
    #[must_use]
    pub fn applies_to(&self, fault: &Fault) -> bool {
        let by_code = self.on.is_empty() || self.on.contains(&fault.code);
        let by_service = match &fault.origin {
            Origin::Service(name) => self.services.is_empty() || self.services.contains(name),
            Origin::Caller | Origin::Gateway => self.services.is_empty(),
        };
        by_code && by_service
    }

    /// Checks the rules of a route. Rules with errors are reported and left out.
    pub(crate) fn check_all(
        rules: &[ErrorRuleSettings],
        services: &ServiceCatalog,
        reader: &mut Reader<'_>,
    ) -> Vec<Self> {
        rules.iter().filter_map(|rule| Self::check(rule, services, reader)).collect()
    }

    fn check(rule: &ErrorRuleSettings, services: &ServiceCatalog, reader: &mut Reader<'_>) -> Option<Self> {
        let from = rule.from.as_ref().map_or(&[][..], |from| from.0.as_slice());
        for service in from.iter().filter(|service| !services.is_declared(&service.value)) {
            services.report_unknown(&service.value, service.span, "name a service".to_owned(), reader);
        }
        let read = |TemplateNode(node): &TemplateNode| -> Option<Template> { template_of_request(node, reader) };
        let message = match rule.answer.message.as_ref().map(read) {
            Some(None) => return None,
            Some(template) => template,
            None => None,
        };
        Some(Self {
            on: rule.on.as_ref().map(|on| on.0.iter().map(|code| code.0).collect()).unwrap_or_default(),
            services: from.iter().map(|name| name.value.as_str().into()).collect(),
            code: rule.answer.code.map(|code| code.0),
            message,
        })
    }
}
