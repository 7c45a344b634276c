//! Memory that peers may make the agent hold.
//!
//! Owns one number for the whole agent: what is long-lived or large and grows because
//! somebody outside wants it is taken from here first, and refused or cut short when there
//! is no more. So the first process keeps out of the way of the guest's own, however many
//! peers ask for however much.

use std::cell::Cell;
use std::rc::Rc;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::{MAX_BUDGET, MIN_BUDGET};

/// What is left of the agent's memory for peers. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Rc<Cell<usize>>);

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget that suits this machine: a quarter of its memory, within the bounds.
    pub(crate) fn of_this_machine() -> Self {
        let info = rustix::system::sysinfo();
        let memory = info.totalram.saturating_mul(u64::from(info.mem_unit));
        let quarter = usize::try_from(memory / 4).unwrap_or(MAX_BUDGET);
        Self::new(quarter.clamp(MIN_BUDGET, MAX_BUDGET))
    }

    fn new(bytes: usize) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    /// Nothing yet, to grow as needed.
    pub(crate) fn nothing(&self) -> Reserved {
        Reserved {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Takes `bytes` for `what`, or says that there is no more.
    pub(crate) fn take(&self, bytes: usize, what: &str) -> Result<Reserved, ErrorReply> {
        let mut reserved = self.nothing();
        if reserved.grow(bytes) {
            return Ok(reserved);
        }
        Err(ErrorReply::new(
            ErrorCode::LimitExceeded,
            format!("the agent has no memory left for {what}; end or close others first"),
        ))
    }
}

impl Reserved {
    /// Takes `bytes` more; false, and nothing taken, when there is no more.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let left = self.budget.0.get();
        let Some(less) = left.checked_sub(bytes) else {
            return false;
        };
        self.budget.0.set(less);
        self.bytes += bytes;
        true
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone_until_it_is_dropped() {
        let budget = Budget::new(10);
        let mut first = budget.take(6, "a test").unwrap();
        assert!(!first.grow(5));
        assert!(first.grow(4));
        let refused = budget.take(1, "a test").unwrap_err();
        assert_eq!(refused.code, ErrorCode::LimitExceeded);
        drop(first);
        let _all = budget.take(10, "a test").unwrap();
    }
}
