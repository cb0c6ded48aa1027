//! Times, rates and shares as operators write and read them.

use std::time::Duration;

/// A time: a number and a unit, as in `250ms`, `30s`, `1.5m`, `2h`; `0` needs none.
///
/// # Errors
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("'{text}' is not a time: write a number with ms, s, m or h, such as 30s or 1.5m")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text.get(digits.len()..) {
        Some("ms") => 0.001,
        Some("s") => 1.0,
        Some("m") => 60.0,
        Some("h") => 3600.0,
        Some("") if digits == "0" => 1.0,
        Some(_) | None => return Err(wrong()),
    };
    let seconds = plain_number(digits).ok_or_else(wrong)? * scale;
    if seconds > 31_536_000.0 {
        return Err(format!("'{text}' is longer than a year"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Bytes a second: a number, and `k`, `M` or `G` for thousands, millions, thousand millions.
///
/// # Errors
/// What to write instead.
pub fn bytes_per_second(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{text}' is not a rate: write bytes a second, such as 500k, 100M or 1.5G (a line of \
             1 Gbit/s takes 125M)"
        )
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text.get(digits.len()..) {
        Some("") => 1.0,
        Some("k" | "K") => 1e3,
        Some("M") => 1e6,
        Some("G") => 1e9,
        Some(_) | None => return Err(wrong()),
    };
    let rate = plain_number(digits).ok_or_else(wrong)? * scale;
    if !(1000.0..=1e12).contains(&rate) {
        return Err(wrong());
    }
    Ok(rate as u64)
}

/// Digits with at most one point; not the rest of what a float may be.
pub fn plain_number(text: &str) -> Option<f64> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let numeric = !text.is_empty() && text.bytes().all(plain);
    numeric.then(|| text.parse().ok()).flatten()
}

/// A time as an operator would write it.
pub fn show(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if time.is_zero() => "0s".to_owned(),
        // With the parts of a millisecond, so that what is not nothing does not look like it.
        _ if seconds < 1.0 => format!("{}ms", rounded_micros(time)),
        _ if seconds < 120.0 => format!("{}s", round(seconds)),
        _ if seconds < 7200.0 => format!("{}m", round(seconds / 60.0)),
        _ => format!("{}h", round(seconds / 3600.0)),
    }
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Milliseconds, to the microsecond; at least one of those.
fn rounded_micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round().max(1.0) / 1000.0
}

/// A share with six digits, rounded down: only all of it is 1.
pub fn shown(share: f64) -> String {
    format!("{:.6}", (share * 1e6).floor() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_read_and_nonsense_is_not() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5m", 90_000),
            ("2h", 7_200_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "", "s", "5", "-1s", "1d", "1e3s", "1.2.3s", "9000h0", "10000h", "5 s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        for (text, rate) in [
            ("1000", 1000),
            ("500k", 500_000),
            ("100M", 100_000_000),
            ("1.5G", 1_500_000_000),
        ] {
            assert_eq!(bytes_per_second(text), Ok(rate), "{text}");
        }
        for text in ["", "M", "0", "10", "-5M", "1T", "100Mbit", "99999G"] {
            assert!(bytes_per_second(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["0s", "250ms", "30s", "5m", "2h", "90s"] {
            assert_eq!(show(duration(text).unwrap()), text);
        }
    }
}
