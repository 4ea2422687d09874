//! Numbers in few columns: `999`, `12.3k`, `4.56M`.

const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];

/// Three digits and a unit of 1000. Whole numbers below 1000 are exact; rates may have a fraction.
pub(super) fn short(value: f64) -> String {
    let (mut value, mut unit) = (value, 0);
    // What would be rounded up to 1000 has the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = value.fract() == 0.0 && unit == 0;
    let digits = match value {
        _ if whole || value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ if unit == 0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_quantity_is_longer_than_five_characters() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (7.0, "7"),
            (999.0, "999"),
            (999.6, "1.00k"),
            (12_345.0, "12.3k"),
            (99_960.0, "100k"),
            (4_560_000.0, "4.56M"),
            (1e15, "1.00P"),
        ] {
            assert_eq!(short(value), text);
            assert!(short(value).len() <= 5);
        }
    }
}
