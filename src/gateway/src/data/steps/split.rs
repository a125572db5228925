//! `split`.

use std::cell::RefCell;
use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use crossdock_message::{ByteString, Code, Fault, Value};
use crossdock_routing::expression::Expression;
use crossdock_routing::steps::SplitStep;
use futures_util::stream::{self, StreamExt as _};

use super::{Current, Run};

/// Maximum number of items: each is at least one call.
const ITEMS_MAX: usize = 10_000;

impl Run<'_> {
    /// Executes the steps for each item. After a failure, items in progress complete and no further item is started.
    pub(super) async fn split(&mut self, step: &SplitStep) -> Result<(), Fault> {
        let items = match self.evaluate(&step.items, Expression::evaluate).await? {
            Value::List(items) => items,
            other => {
                let code = if step.items.is_of_caller() { Code::InvalidArgument } else { Code::Internal };
                let message = format!("`split` needs a list, but `{}` is {}", step.items.source(), other.kind());
                return Err(Fault::new(code, "SPLIT", message));
            }
        };
        if items.len() > ITEMS_MAX {
            let message = format!("a message can be split into at most {ITEMS_MAX} parts");
            return Err(Fault::caller(Code::InvalidArgument, "SPLIT", message));
        }
        let started = Instant::now();
        let failed = RefCell::new(None);
        {
            let run = &*self;
            let part = |(index, item)| run.part(index, &step.name, item).run_branch(&step.steps);
            let parts = stream::iter(items.into_iter().enumerate().map(part));
            let mut parts = parts.take_while(|_| ready(failed.borrow().is_none())).buffered(step.at_once);
            while let Some(ended) = parts.next().await {
                if let Err(fault) = ended {
                    failed.borrow_mut().get_or_insert(fault);
                }
            }
        }
        self.finish_branches(started);
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// The run of one part. Its id is the message id followed by its index, the same in every attempt.
    fn part(&self, index: usize, name: &ByteString, item: Value) -> Self {
        let part = Some(match &self.part {
            None => format!(".{index}").into(),
            Some(outer) => format!("{outer}.{index}").into(),
        });
        let mut variables = self.variables.clone();
        variables.push((name.clone(), Arc::new(item.clone())));
        let (reply, set, set_event) = (self.reply.clone(), self.set.clone(), self.set_event_of_part(index));
        let fence = self.fence.clone();
        Self { current: Current::Created(item), reply, variables, set, set_event, part, fence, ..*self }
    }
}
