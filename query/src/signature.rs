//! The functions' names and types.

use crate::ast::ValueType;
use ValueType::{Matrix, Scalar, String, Vector};

/// A function's name and type.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its name.
    pub name: &'static str,
    /// Types of the arguments.
    pub args: &'static [ValueType],
    /// 0: exactly `args`; otherwise the last of `args` may be left out, or given up to `n` times (any number of times
    /// when -1).
    pub variadic: i8,
    /// Type of the result.
    pub returns: ValueType,
    /// Whether Prometheus has it behind a flag.
    pub experimental: bool,
}

/// The function of this name.
pub fn find(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
}

impl Signature {
    /// The least and the most arguments it takes.
    pub fn arity(&self) -> (usize, usize) {
        let count = self.args.len();
        match self.variadic {
            0 => (count, count),
            n => (count - 1, usize::try_from(n).map_or(usize::MAX, |n| count - 1 + n)),
        }
    }

    const fn new(name: &'static str, args: &'static [ValueType], returns: ValueType) -> Signature {
        Signature { name, args, variadic: 0, returns, experimental: false }
    }

    /// From vector to vector.
    const fn map(name: &'static str) -> Signature {
        Signature::new(name, &[Vector], Vector)
    }

    /// From range vector to vector.
    const fn rollup(name: &'static str) -> Signature {
        Signature::new(name, &[Matrix], Vector)
    }

    /// From vector, or from the evaluation time, to vector.
    const fn date(name: &'static str) -> Signature {
        Signature::map(name).variadic(1)
    }

    const fn variadic(self, variadic: i8) -> Signature {
        Signature { variadic, ..self }
    }

    const fn experimental(self) -> Signature {
        Signature { experimental: true, ..self }
    }
}

/// All functions, sorted by name.
pub static FUNCTIONS: [Signature; 90] = [
    Signature::map("abs"),
    Signature::map("absent"),
    Signature::rollup("absent_over_time"),
    Signature::map("acos"),
    Signature::map("acosh"),
    Signature::map("asin"),
    Signature::map("asinh"),
    Signature::map("atan"),
    Signature::map("atanh"),
    Signature::rollup("avg_over_time"),
    Signature::map("ceil"),
    Signature::rollup("changes"),
    Signature::new("clamp", &[Vector, Scalar, Scalar], Vector),
    Signature::new("clamp_max", &[Vector, Scalar], Vector),
    Signature::new("clamp_min", &[Vector, Scalar], Vector),
    Signature::map("cos"),
    Signature::map("cosh"),
    Signature::rollup("count_over_time"),
    Signature::date("day_of_month"),
    Signature::date("day_of_week"),
    Signature::date("day_of_year"),
    Signature::date("days_in_month"),
    Signature::map("deg"),
    Signature::rollup("delta"),
    Signature::rollup("deriv"),
    Signature::new("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Vector).experimental(),
    Signature::new("end", &[], Scalar).experimental(),
    Signature::map("exp"),
    Signature::rollup("first_over_time"),
    Signature::map("floor"),
    Signature::map("histogram_avg"),
    Signature::map("histogram_count"),
    Signature::new("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    Signature::new("histogram_quantile", &[Scalar, Vector], Vector),
    Signature::new("histogram_quantiles", &[Vector, String, Scalar, Scalar], Vector)
        .variadic(9)
        .experimental(),
    Signature::map("histogram_stddev"),
    Signature::map("histogram_stdvar"),
    Signature::map("histogram_sum"),
    Signature::date("hour"),
    Signature::rollup("idelta"),
    Signature::rollup("increase"),
    Signature::new("info", &[Vector, Vector], Vector).variadic(1).experimental(),
    Signature::rollup("irate"),
    Signature::new("label_join", &[Vector, String, String, String], Vector).variadic(-1),
    Signature::new("label_replace", &[Vector, String, String, String, String], Vector),
    Signature::rollup("last_over_time"),
    Signature::map("ln"),
    Signature::map("log10"),
    Signature::map("log2"),
    Signature::rollup("mad_over_time").experimental(),
    Signature::new("max_of", &[Scalar, Scalar], Scalar).experimental(),
    Signature::rollup("max_over_time"),
    Signature::new("min_of", &[Scalar, Scalar], Scalar).experimental(),
    Signature::rollup("min_over_time"),
    Signature::date("minute"),
    Signature::date("month"),
    Signature::new("pi", &[], Scalar),
    Signature::new("predict_linear", &[Matrix, Scalar], Vector),
    Signature::rollup("present_over_time"),
    Signature::new("quantile_over_time", &[Scalar, Matrix], Vector),
    Signature::map("rad"),
    Signature::new("range", &[], Scalar).experimental(),
    Signature::rollup("rate"),
    Signature::rollup("resets"),
    Signature::new("round", &[Vector, Scalar], Vector).variadic(1),
    Signature::new("scalar", &[Vector], Scalar),
    Signature::map("sgn"),
    Signature::map("sin"),
    Signature::map("sinh"),
    Signature::map("sort"),
    Signature::new("sort_by_label", &[Vector, String], Vector).variadic(-1).experimental(),
    Signature::new("sort_by_label_desc", &[Vector, String], Vector).variadic(-1).experimental(),
    Signature::map("sort_desc"),
    Signature::map("sqrt"),
    Signature::new("start", &[], Scalar).experimental(),
    Signature::map("start_timestamp").experimental(),
    Signature::rollup("stddev_over_time"),
    Signature::rollup("stdvar_over_time"),
    Signature::new("step", &[], Scalar).experimental(),
    Signature::rollup("sum_over_time"),
    Signature::map("tan"),
    Signature::map("tanh"),
    Signature::new("time", &[], Scalar),
    Signature::map("timestamp"),
    Signature::rollup("ts_of_first_over_time").experimental(),
    Signature::rollup("ts_of_last_over_time").experimental(),
    Signature::rollup("ts_of_max_over_time").experimental(),
    Signature::rollup("ts_of_min_over_time").experimental(),
    Signature::new("vector", &[Scalar], Vector),
    Signature::date("year"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_name() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert!(FUNCTIONS.iter().all(|f| find(f.name) == Some(f)));
        assert_eq!(FUNCTIONS.iter().filter(|f| f.experimental).count(), 17);
        assert_eq!(find("Rate"), None);
    }

    #[test]
    fn optional_arguments_are_counted_as_prometheus_counts_them() {
        assert_eq!(find("rate").unwrap().arity(), (1, 1));
        assert_eq!(find("hour").unwrap().arity(), (0, 1));
        assert_eq!(find("label_join").unwrap().arity(), (3, usize::MAX));
        assert_eq!(find("histogram_quantiles").unwrap().arity(), (3, 12));
    }
}
