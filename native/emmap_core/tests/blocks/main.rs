//! Blocks in a file: see `src/blocks.rs`.

mod real_file;
