//! The agent as its peers see it: the real library served in-process, the test speaks the
//! wire on the other end of the stream.
//!
//! The agent reaps every child of its process, so these tests need a process each
//! (`cargo nextest run`) and start no child themselves.

#[cfg(test)]
mod cancel;
#[cfg(test)]
mod collected;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod left_open;
#[cfg(test)]
mod many;
#[cfg(test)]
mod output;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod slow_reader;
#[cfg(test)]
mod start;
#[cfg(test)]
mod stdin;
