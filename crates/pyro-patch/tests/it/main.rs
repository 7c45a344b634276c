//! Patches between trees of every kind, with git as the judge.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod from_git;
#[cfg(test)]
mod to_git;
#[cfg(test)]
mod tree;
