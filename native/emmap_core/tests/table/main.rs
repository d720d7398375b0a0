//! Tables: what was built is found, and nothing else is; files that are damaged; builds that fail or crash.

mod build;
mod damage;
mod support;
