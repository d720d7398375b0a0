//! Tables: lookups ([`calls`]), the whole file ([`cold`]), and building ([`building`]).

mod building;
mod calls;
mod cold;

pub use building::keep_type;

mod reasons {
    rustler::atoms! {
        corrupt,
        bad_format,
        duplicate,
        collisions,
        last,
        first,
        adding,
        sorting,
        merging,
        indexing,
        publishing,
        done,
    }
}
