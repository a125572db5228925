//! `set`.

use crossdock_message::{ByteString, Code, Fault};
use crossdock_routing::expression::Template;
use crossdock_routing::steps::SetStep;

use super::Run;

impl Run<'_> {
    pub(super) async fn set(&mut self, step: &SetStep) -> Result<(), Fault> {
        self.set_headers(&step.headers).await
    }

    /// Sets headers of the next call, or of the reply.
    pub(super) async fn set_headers(&mut self, headers: &[(ByteString, Template)]) -> Result<(), Fault> {
        for (name, template) in headers {
            let value = self.evaluate(template, Template::render).await?;
            self.set.set(name.clone(), value).map_err(|error| {
                let code = if template.is_of_caller() { Code::InvalidArgument } else { Code::Internal };
                Fault::new(code, "HEADER", error.to_string()).with_detail("header", name.clone())
            })?;
        }
        Ok(())
    }
}
