//! Columns for people.

use std::io::{self, Write};

/// Prints rows under a header, columns aligned; numbers to the right.
pub fn print(header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    io::stdout().lock().write_all(render(header, rows).as_bytes())
}

/// Rows under a header as text.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let numeric = |c: usize| rows.iter().all(|r| r[c].parse::<f64>().is_ok());
    let right: Vec<bool> = (0..columns).map(|c| !rows.is_empty() && numeric(c)).collect();
    let width = |c: usize| {
        let cells = rows.iter().map(|r| r[c].chars().count());
        cells.chain([header[c].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let width = widths[c];
            line.push_str(&if right[c] { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1536` as `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = "B";
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let rows = vec![vec!["up".into(), "1".into()], vec!["a_longer_name".into(), "12.5".into()]];
        assert_eq!(
            render(&["SERIES", "VALUE"], &rows),
            "SERIES         VALUE\nup                 1\na_longer_name   12.5\n"
        );
        assert_eq!(render(&["SERIES"], &[]), "SERIES\n");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }
}
