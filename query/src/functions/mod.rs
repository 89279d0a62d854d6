//! The functions of PromQL, by what they work on. How they are called is [`crate::eval`]'s business.

pub mod buckets;
pub mod counter;
pub mod extended;
pub mod labels;
pub mod math;
pub mod range;
pub mod time;
