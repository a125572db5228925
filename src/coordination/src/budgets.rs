//! Rate budgets: how much all instances together may do in a time.
//!
//! A budget is a token bucket, counted in integers so that all instances compute the same. An instance takes a share of it in
//! advance, so that there need not be a command for each message; a share that is not used is lost. A budget that is full is
//! the same as one that was never used, and is forgotten.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::answer::{Outcome, Refusal, Spent};
use crate::command::Spend;
use crate::context::{Context, Timer};
use crate::injected_bug::InjectedBug;
use crate::limits::{BUDGETS_MAX, NAME_BYTES_MAX, RATE_MAX, RATE_PER_MS_MAX};

/// How fast a budget is refilled, and what it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units.
    pub count: u64,
    /// The time in which as many units are added, in milliseconds.
    pub per_ms: u64,
    /// The units of a full budget.
    pub burst: u64,
}

impl Rate {
    pub(crate) fn is_valid(&self) -> bool {
        let units = 1..=RATE_MAX;
        units.contains(&self.count) && units.contains(&self.burst) && (1..=RATE_PER_MS_MAX).contains(&self.per_ms)
    }
}

/// A budget that is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub(crate) rate: Rate,
    /// What it lacks to be full, at the time `at` of the state's clock. A unit is `per_ms` of it, and each millisecond adds
    /// `count`: no fraction is lost.
    pub(crate) lacks: u64,
    pub(crate) at: u64,
}

impl Budget {
    /// Its rate.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The units that it has at a time of the state's clock.
    #[must_use]
    pub fn units(&self, now: u64) -> u64 {
        let lacks = self.refilled(now).lacks;
        (self.rate.burst * self.rate.per_ms).saturating_sub(lacks) / self.rate.per_ms
    }

    fn refilled(self, now: u64) -> Self {
        let added = now.saturating_sub(self.at).saturating_mul(self.rate.count);
        Self { lacks: self.lacks.saturating_sub(added), at: self.at.max(now), ..self }
    }

    /// With another rate, it lacks as many units as before.
    fn with(self, rate: Rate) -> Self {
        if rate == self.rate {
            return self;
        }
        let lacks = (u128::from(self.lacks) * u128::from(rate.per_ms)).div_ceil(u128::from(self.rate.per_ms));
        let lacks = u64::try_from(lacks).unwrap_or(u64::MAX).min(rate.burst * rate.per_ms);
        Self { rate, lacks, ..self }
    }

    /// The time until it has a unit, in milliseconds.
    fn wait_ms(&self) -> u64 {
        let Rate { count, per_ms, burst } = self.rate;
        self.lacks.saturating_sub((burst - 1) * per_ms).div_ceil(count)
    }

    /// When it is full, by the state's clock.
    fn is_full_at(&self) -> u64 {
        self.at.saturating_add(self.lacks.div_ceil(self.rate.count))
    }
}

/// All budgets that are not full.
#[derive(Debug, Clone, Default)]
pub struct Budgets {
    budgets: RedBlackTreeMapSync<Arc<str>, Budget>,
}

impl Budgets {
    /// A budget; `None` if it is full.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Budget> {
        self.budgets.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Budget)> {
        self.budgets.iter().map(|(name, budget)| (&**name, budget))
    }

    pub(crate) fn spend(&mut self, command: &Spend, context: &mut Context<'_>) -> Outcome {
        let Spend { budget: name, up_to, .. } = command;
        let rate = Rate { count: command.count, per_ms: command.per_ms, burst: command.burst };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !rate.is_valid() || *up_to == 0 {
            return Refusal::Invalid.into();
        }
        let now = context.now;
        let known = self.budgets.get_key_value(name.as_str()).map(|(name, budget)| (Arc::clone(name), *budget));
        if known.is_none() && self.budgets.size() >= BUDGETS_MAX {
            return Refusal::TooMany.into();
        }
        let (name, budget) = known.unwrap_or_else(|| (name.as_str().into(), Budget { rate, lacks: 0, at: now }));
        let mut budget = budget.refilled(now).with(rate);
        if context.has_bug(InjectedBug::RefillTwice) {
            budget = Budget { at: budget.at.saturating_sub(5), ..budget }.refilled(now);
        }
        let units = budget.units(now).min(*up_to);
        budget.lacks += units * rate.per_ms;
        let wait_ms = if units == 0 { budget.wait_ms() } else { 0 };
        self.put(name, budget, context);
        Outcome::Spent(Spent { units, wait_ms })
    }

    /// Forgets a budget that is full.
    pub(crate) fn expire(&mut self, name: &Arc<str>, context: &mut Context<'_>) {
        let Some(budget) = self.budgets.get(name).map(|budget| budget.refilled(context.now)) else { return };
        if budget.lacks == 0 || context.has_bug(InjectedBug::ForgetBudget) {
            self.budgets.remove_mut(name);
        } else {
            self.put(Arc::clone(name), budget, context);
        }
    }

    pub(crate) fn put(&mut self, name: Arc<str>, budget: Budget, context: &mut Context<'_>) {
        let is_early = context.has_bug(InjectedBug::ForgetBudget);
        let deadline = if is_early { budget.at + 1 } else { budget.is_full_at() };
        context.set_timer(Timer::Budget(Arc::clone(&name)), deadline);
        self.budgets.insert_mut(name, budget);
    }
}
