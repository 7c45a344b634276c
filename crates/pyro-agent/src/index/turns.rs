//! One walk at a time for each manifest: whoever asks for the same waits, and then finds most
//! of the work done.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use tokio::sync::Semaphore;

use super::home::Key;

/// Who walks for what. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Rc<RefCell<HashMap<Key, Weak<Semaphore>>>>);

impl Turns {
    /// The turn of `key`: to be acquired, and held while walking. It exists as long as
    /// somebody holds it, so that there are no more of them than requests.
    pub(super) fn of(&self, key: &Key) -> Rc<Semaphore> {
        let mut turns = self.0.borrow_mut();
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Rc::new(Semaphore::new(1));
        turns.insert(key.clone(), Rc::downgrade(&turn));
        turn
    }
}
