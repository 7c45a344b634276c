//! What may happen next to a workspace: a pure decision of its state and what is wished for.
//!
//! ```text
//!            ┌──────────── start ────────────┐
//!            ▼                               │
//! creating ─▶ started ◀─ resume ─ pause ─▶ paused
//!    │        │  ▲ └──────── stop ───▶ stopped ◀── stop ──┘
//!    │        │  └── reset ──────────────┘ │
//!    └────────┴───────── delete ──────────▶ deleting ─▶ gone
//! ```
//!
//! It does nothing and looks at nothing: whoever holds the workspace's lock asks, then acts. What is under way when its
//! actor dies is a [`Transition`](super::store::Transition) of the row, which the next one brings to an end.

use serde::{Deserialize, Serialize};

/// What a workspace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceState {
    /// It is being made and was never there.
    Creating,
    /// Its machine runs.
    Started,
    /// Its machine stands still.
    Paused,
    /// It has a disk and no machine.
    Stopped,
    /// It is being removed.
    Deleting,
}

impl WorkspaceState {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Started => "started",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Deleting => "deleting",
        }
    }

    /// The state that is written so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Creating,
            Self::Started,
            Self::Paused,
            Self::Stopped,
            Self::Deleting,
        ];
        all.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether it has a machine.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Started | Self::Paused)
    }
}

/// What somebody wants of a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Start,
    Stop,
    Pause,
    Resume,
    Reset,
    Snapshot,
    Fork,
    Delete,
    /// Commands, files, trees: whatever needs a guest that runs.
    Use,
}

impl Wish {
    /// What it is called in messages.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::Snapshot => "take a snapshot of",
            Self::Fork => "fork",
            Self::Delete => "delete",
            Self::Use => "use",
        }
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Do it.
    Go,
    /// It is so already.
    Already,
    /// Do the other thing, then ask again.
    First(Wish),
    /// It cannot be done in this state; the other thing would help, if any does.
    Refused(Option<Wish>),
}

/// Whether `wish` can be fulfilled for a workspace in `state`.
pub(crate) fn decide(state: WorkspaceState, wish: Wish) -> Verdict {
    use WorkspaceState::{Creating, Deleting, Paused, Started, Stopped};
    match (state, wish) {
        (Started | Paused | Stopped, Wish::Delete | Wish::Reset) => Verdict::Go,
        (Started | Paused, Wish::Stop | Wish::Snapshot | Wish::Fork) => Verdict::Go,
        (Started, Wish::Pause | Wish::Use) => Verdict::Go,
        (Started, Wish::Start | Wish::Resume) => Verdict::Already,
        (Paused, Wish::Resume) => Verdict::Go,
        (Paused, Wish::Pause) => Verdict::Already,
        // Who uses a workspace that stands still has it go on.
        (Paused, Wish::Start | Wish::Use) => Verdict::First(Wish::Resume),
        (Stopped, Wish::Start) => Verdict::Go,
        (Stopped, Wish::Stop) => Verdict::Already,
        (Stopped, Wish::Pause | Wish::Resume | Wish::Snapshot | Wish::Fork | Wish::Use) => {
            Verdict::Refused(Some(Wish::Start))
        }
        // What was never finished, or is half gone, can only be brought to its end.
        (Creating | Deleting, Wish::Delete) => Verdict::Go,
        (
            Creating | Deleting,
            Wish::Start
            | Wish::Stop
            | Wish::Pause
            | Wish::Resume
            | Wish::Reset
            | Wish::Snapshot
            | Wish::Fork
            | Wish::Use,
        ) => Verdict::Refused(None),
    }
}

/// The state after a wish was fulfilled.
#[cfg(test)]
fn after(state: WorkspaceState, wish: Wish) -> Option<WorkspaceState> {
    match wish {
        Wish::Start | Wish::Resume | Wish::Reset => Some(WorkspaceState::Started),
        Wish::Stop => Some(WorkspaceState::Stopped),
        Wish::Pause => Some(WorkspaceState::Paused),
        Wish::Snapshot | Wish::Fork | Wish::Use => Some(state),
        Wish::Delete => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATES: [WorkspaceState; 5] = [
        WorkspaceState::Creating,
        WorkspaceState::Started,
        WorkspaceState::Paused,
        WorkspaceState::Stopped,
        WorkspaceState::Deleting,
    ];
    const WISHES: [Wish; 9] = [
        Wish::Start,
        Wish::Stop,
        Wish::Pause,
        Wish::Resume,
        Wish::Reset,
        Wish::Snapshot,
        Wish::Fork,
        Wish::Delete,
        Wish::Use,
    ];

    /// Follows a wish to its end: the state then, or what was refused.
    fn fulfilled(state: WorkspaceState, wish: Wish) -> Result<Option<WorkspaceState>, Verdict> {
        match decide(state, wish) {
            Verdict::Go => Ok(after(state, wish)),
            Verdict::Already => Ok(Some(state)),
            Verdict::First(other) => match fulfilled(state, other)? {
                Some(state) => fulfilled(state, wish),
                None => Ok(None),
            },
            refused @ Verdict::Refused(_) => Err(refused),
        }
    }

    #[test]
    fn each_state_has_a_name() {
        for state in STATES {
            assert_eq!(WorkspaceState::named(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn a_remedy_that_is_told_helps() {
        for state in STATES {
            for wish in WISHES {
                if let Verdict::Refused(Some(remedy)) = decide(state, wish) {
                    let helped = fulfilled(state, remedy).unwrap().unwrap();
                    assert!(fulfilled(helped, wish).is_ok(), "{state:?} {wish:?}");
                }
            }
        }
    }

    #[test]
    fn whatever_there_is_can_be_deleted() {
        for state in STATES {
            assert_eq!(decide(state, Wish::Delete), Verdict::Go, "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn no_sequence_leads_out_of_the_states(
            wishes in proptest::collection::vec(0..WISHES.len(), 0..40),
        ) {
            let mut state = WorkspaceState::Started;
            for wish in wishes.into_iter().map(|index| WISHES[index]) {
                let before = state;
                match fulfilled(state, wish) {
                    Ok(Some(next)) => state = next,
                    Ok(None) => return Ok(()),
                    Err(_) => prop_assert_eq!(state, before),
                }
                // A machine is there exactly where somebody could use it.
                let usable = fulfilled(state, Wish::Use).is_ok();
                prop_assert_eq!(usable, state.is_up());
                // Asked twice, it is as asked once.
                if matches!(wish, Wish::Start | Wish::Stop | Wish::Pause | Wish::Resume)
                    && fulfilled(before, wish).is_ok()
                {
                    prop_assert_eq!(fulfilled(state, wish), Ok(Some(state)));
                }
            }
        }
    }
}
