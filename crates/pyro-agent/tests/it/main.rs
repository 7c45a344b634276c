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
mod confined;
#[cfg(test)]
mod export;
#[cfg(test)]
mod export_legacy;
#[cfg(test)]
mod files;
#[cfg(test)]
mod files_grep;
#[cfg(test)]
mod files_hostile;
#[cfg(test)]
mod files_links;
#[cfg(test)]
mod files_peer;
#[cfg(test)]
mod files_tree;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod left_open;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod machine_connect;
#[cfg(test)]
mod machine_freeze;
#[cfg(test)]
mod machine_link;
#[cfg(test)]
mod machine_metrics;
#[cfg(test)]
mod machine_rest;
#[cfg(test)]
mod many;
#[cfg(test)]
mod output;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod services;
#[cfg(test)]
mod services_logs;
#[cfg(test)]
mod services_ready;
#[cfg(test)]
mod services_restart;
#[cfg(test)]
mod shells;
#[cfg(test)]
mod shells_live;
#[cfg(test)]
mod shells_terminal;
#[cfg(test)]
mod slow_reader;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod start;
#[cfg(test)]
mod stdin;
#[cfg(test)]
mod trees;
