//! Calendar functions, in UTC.

use jiff::tz::Offset;

/// The function with this name, from seconds since the epoch. What no calendar knows is NaN.
pub fn calendar(name: &str) -> Option<fn(f64) -> f64> {
    macro_rules! part {
        ($date:ident => $part:expr) => {
            |seconds| date(seconds).map_or(f64::NAN, |$date| f64::from($part))
        };
    }
    Some(match name {
        "minute" => part!(d => d.minute()),
        "hour" => part!(d => d.hour()),
        "day_of_month" => part!(d => d.day()),
        "day_of_week" => part!(d => d.weekday().to_sunday_zero_offset()),
        "day_of_year" => part!(d => d.day_of_year()),
        "days_in_month" => part!(d => d.days_in_month()),
        "month" => part!(d => d.month()),
        "year" => part!(d => d.year()),
        _ => return None,
    })
}

fn date(seconds: f64) -> Option<jiff::civil::DateTime> {
    if seconds.is_nan() {
        return None;
    }
    jiff::Timestamp::from_second(seconds as i64).ok().map(|t| Offset::UTC.to_datetime(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_dates() {
        let get = |name, seconds| calendar(name).unwrap()(seconds);
        assert_eq!(get("day_of_week", 0.0), 4.0);
        assert_eq!(get("days_in_month", 1454284800.0), 29.0);
        assert_eq!(get("day_of_year", 1483191420.0), 366.0);
        assert_eq!(get("year", -1.0), 1969.0);
        assert!(get("year", f64::NAN).is_nan());
        assert!(calendar("rate").is_none());
    }
}
