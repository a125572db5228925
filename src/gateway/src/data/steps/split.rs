//! Steps that follow other steps on the side: `multicast` and `split`.

use std::cell::RefCell;
use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use crossdock_adapter_api::Outcome;
use crossdock_message::{ByteString, Code, Fault, Value};
use crossdock_routing::Step;
use crossdock_routing::expression::Expression;
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::{self, StreamExt as _};

use super::{Current, Run};

/// Items of one message. Each is a call at the least.
const ITEMS_MAX: usize = 10_000;

impl<'a> Run<'a> {
    /// One that begins with what there is here, and gives nothing back.
    fn branch(&self) -> Self {
        Self {
            current: self.current.clone(),
            reply: self.reply.clone(),
            variables: self.variables.clone(),
            set: self.set.clone(),
            part: self.part.clone(),
            ..*self
        }
    }

    /// The branch's own end: an answer of it is nobody's.
    fn run_branch<'b>(mut self, steps: &'b [Step]) -> LocalBoxFuture<'b, Result<(), Fault>>
    where
        'a: 'b,
    {
        Box::pin(async move { self.follow(steps).await.map(|_: Outcome| ()) })
    }

    /// Follows all branches at once, to their ends also where one fails; the first of the failures in their order is told.
    pub(super) async fn multicast(&mut self, branches: &[Vec<Step>]) -> Result<(), Fault> {
        let begun = Instant::now();
        let ended = join_all(branches.iter().map(|steps| self.branch().run_branch(steps))).await;
        self.ended_branches(begun);
        ended.into_iter().collect()
    }

    /// Follows the steps with each item. The first failure ends it: what was begun is finished, and nothing is begun any more.
    pub(super) async fn split(
        &mut self,
        items: &Expression,
        name: &ByteString,
        at_once: usize,
        steps: &[Step],
    ) -> Result<(), Fault> {
        let items = match self.evaluate(items, Expression::evaluate).await? {
            Value::List(items) => items,
            other => {
                let code = if items.is_of_caller() { Code::InvalidArgument } else { Code::Internal };
                let message = format!("what is split has to be a list, not {}", other.kind());
                return Err(Fault::new(code, "SPLIT", message));
            }
        };
        if items.len() > ITEMS_MAX {
            let message = format!("a message is split into at most {ITEMS_MAX} parts");
            return Err(Fault::caller(Code::InvalidArgument, "SPLIT", message));
        }
        let begun = Instant::now();
        let failed = RefCell::new(None);
        {
            let run = &*self;
            let parts =
                items.into_iter().enumerate().map(|(number, item)| run.part(number, name, item).run_branch(steps));
            let begun = stream::iter(parts).take_while(|_| ready(failed.borrow().is_none()));
            let mut parts = begun.buffered(at_once);
            while let Some(ended) = parts.next().await {
                if let Err(fault) = ended {
                    failed.borrow_mut().get_or_insert(fault);
                }
            }
        }
        self.ended_branches(begun);
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// The run of one part. Its identity is that of the message and its number, the same in every try.
    fn part(&self, number: usize, name: &ByteString, item: Value) -> Self {
        let number = Some(match &self.part {
            None => format!(".{number}").into(),
            Some(outer) => format!("{outer}.{number}").into(),
        });
        let mut variables = self.variables.clone();
        variables.push((name.clone(), Arc::new(item.clone())));
        let (reply, set) = (self.reply.clone(), self.set.clone());
        Self { current: Current::Made(item), reply, variables, set, part: number, ..*self }
    }

    fn ended_branches(&mut self, begun: Instant) {
        self.first_call.get_or_insert(begun);
        self.processing += begun.elapsed();
        self.sent = true;
    }
}
