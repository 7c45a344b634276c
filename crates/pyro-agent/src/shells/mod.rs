//! Shells: interactive programs, each on a terminal of its own.
//!
//! Owns every shell from its opening to its closing; a shell lives on between requests and
//! while nobody is attached. Its output is kept in memory, bounded and redacted, and is
//! never written to disk.

mod attach;
mod close;
mod program;
mod pump;
mod search;
mod shell;
mod wait;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::{MAX_SHELLS, SHELL_INPUT, SHELL_OUTPUT};
use pyro_protocol::shell::{OpenShell, ShellId, ShellRequest, ShellSummary, WaitShell, WriteShell};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::budget::Budget;
use crate::exec::Reaper;
use crate::machine::Freezer;
use crate::wire::{self, object};
use shell::Shell;

/// The shells of one agent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Shells {
    reaper: Reaper,
    budget: Budget,
    freezer: Freezer,
    open: Rc<RefCell<BTreeMap<ShellId, Rc<Shell>>>>,
}

impl Shells {
    /// No shells yet. They are started while `freezer` lets them.
    pub(crate) fn new(reaper: Reaper, budget: Budget, freezer: Freezer) -> Self {
        Self {
            reaper,
            budget,
            freezer,
            open: Rc::default(),
        }
    }

    /// Does what `request` asks and writes the reply.
    pub(crate) async fn answer<R, W>(
        &self,
        request: ShellRequest,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin,
    {
        if let ShellRequest::Attach {
            shell_id,
            cursor,
            closes,
        } = request
        {
            return match self.find(&shell_id) {
                Ok(shell) => {
                    let attached = attach::attach(&shell, cursor, reader, writer).await;
                    if closes && self.forget(&shell) {
                        close::close(&shell).await;
                    }
                    attached
                }
                Err(error) => wire::write_line(writer, &error).await,
            };
        }
        let reply = match request {
            ShellRequest::Wait(order) => {
                // The wait goes with its peer.
                wire::unless_left(reader, self.wait(&order)).await
            }
            request => self.reply(request).await,
        };
        match reply {
            Ok(reply) => wire::write_line(writer, &reply).await,
            Err(error) => wire::write_line(writer, &error).await,
        }
    }

    /// The reply to a request that gets one line.
    async fn reply(&self, request: ShellRequest) -> Result<Value, ErrorReply> {
        match request {
            ShellRequest::Open(order) => {
                self.freezer.thawed().await;
                summary(&self.open(order)?.summary(), json!({}))
            }
            ShellRequest::Read(order) => {
                object(&self.find(&order.shell_id)?.read(order.range), json!({}))
            }
            ShellRequest::Write(order) => self.write(&order),
            ShellRequest::Signal { shell_id, signal } => {
                let shell = self.find(&shell_id)?;
                shell.signal(signal)?;
                summary(&shell.summary(), json!({"signal": signal}))
            }
            ShellRequest::Close { shell_id } => {
                let shell = self.find(&shell_id)?;
                // Forgotten first: its name is free at once, and nobody closes it twice.
                self.open.borrow_mut().remove(&shell_id);
                // A task of its own: it must come to its end when the peer does not wait.
                let closing = Rc::clone(&shell);
                let closed = tokio::task::spawn_local(async move { close::close(&closing).await });
                closed.await.map_err(|error| {
                    ErrorReply::new(ErrorCode::Internal, format!("closing the shell: {error}"))
                })?;
                summary(&shell.summary(), json!({"closed": true}))
            }
            ShellRequest::Resize { shell_id, size } => {
                let shell = self.find(&shell_id)?;
                shell.resize(size)?;
                summary(&shell.summary(), json!({}))
            }
            ShellRequest::List => {
                let shells = self.open.borrow();
                let summaries: Vec<_> = shells.values().map(|shell| shell.summary()).collect();
                Ok(json!({"shells": summaries}))
            }
            ShellRequest::Wait(order) => self.wait(&order).await,
            ShellRequest::Attach { .. } => unreachable!("answered with frames"),
        }
    }

    /// Takes a shell from the list; whether it was still there, and not another one of its name.
    fn forget(&self, shell: &Rc<Shell>) -> bool {
        let mut open = self.open.borrow_mut();
        let is_there = open
            .get(shell.id())
            .is_some_and(|there| Rc::ptr_eq(there, shell));
        if is_there {
            open.remove(shell.id());
        }
        is_there
    }

    async fn wait(&self, order: &WaitShell) -> Result<Value, ErrorReply> {
        let shell = self.find(&order.shell_id)?;
        object(&wait::wait(&shell, order).await?, json!({}))
    }

    /// Shells whose program runs.
    pub(crate) fn running(&self) -> usize {
        let open = self.open.borrow();
        open.values().filter(|shell| !shell.has_ended()).count()
    }

    fn open(&self, order: OpenShell) -> Result<Rc<Shell>, ErrorReply> {
        let mut open = self.open.borrow_mut();
        if open.contains_key(&order.shell_id) {
            return Err(ErrorReply::new(
                ErrorCode::AlreadyExists,
                format!("the shell `{}` exists", order.shell_id.as_str()),
            ));
        }
        if open.len() >= MAX_SHELLS {
            return Err(ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!("{MAX_SHELLS} shells are open; close one first"),
            ));
        }
        let memory = self.budget.take(memory_of(&order), "another shell")?;
        let shell = pump::start(&self.reaper, order, memory)?;
        open.insert(shell.id().clone(), Rc::clone(&shell));
        Ok(shell)
    }

    fn write(&self, order: &WriteShell) -> Result<Value, ErrorReply> {
        let shell = self.find(&order.shell_id)?;
        let mut input = order.input.clone().into_bytes();
        if order.append_newline {
            input.push(b'\n');
        }
        shell.enter(&input)?;
        summary(
            &shell.summary(),
            json!({
                "input_length": order.input.chars().count(),
                "append_newline": order.append_newline,
            }),
        )
    }

    fn find(&self, id: &ShellId) -> Result<Rc<Shell>, ErrorReply> {
        self.open.borrow().get(id).cloned().ok_or_else(|| {
            ErrorReply::new(
                ErrorCode::NotFound,
                format!("there is no shell `{}`", id.as_str()),
            )
        })
    }
}

/// Most bytes that a shell may come to hold. A redactor holds its values up to five times.
fn memory_of(order: &OpenShell) -> usize {
    let secrets: usize = order.redact_values.iter().map(String::len).sum();
    SHELL_OUTPUT + SHELL_INPUT + 5 * secrets
}

/// A summary with the fields of `more`.
fn summary(summary: &ShellSummary, more: Value) -> Result<Value, ErrorReply> {
    object(summary, more)
}
