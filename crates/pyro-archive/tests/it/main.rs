//! Archives of every kind, unpacked on a real file system.

#[cfg(test)]
mod compression;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod gnu_tar;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod layer_beneath;
#[cfg(test)]
mod layer_damage;
#[cfg(test)]
mod layer_entries;
#[cfg(test)]
mod layer_oracle;
#[cfg(test)]
mod layer_replace;
#[cfg(test)]
mod layer_whiteouts;
#[cfg(test)]
mod members;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod world;
